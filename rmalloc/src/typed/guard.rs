//! Guards: a block locked, as a reference to its value. This file owns taking and giving back the lock.

use super::{Home, Shape, has_block};
use crate::handle::RawHandle;
use crate::status::Error;
use core::fmt::{Debug, Display, Formatter};
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// A lock of one block by the calling thread; given back on drop.
pub(super) struct Lock<H: Home> {
    raw: RawHandle,
    home: H,
    /// First byte of the block. A pointer: not `Send`, as the lock may be in the thread's records.
    place: NonNull<u8>,
}

impl<H: Home> Lock<H> {
    /// Locks the block. Without one, any address of the alignment will do: there are no bytes.
    ///
    /// # Errors
    /// [`Error::Locks`], [`Error::Memory`], [`Error::Damaged`].
    #[inline]
    pub fn take<T: ?Sized + Shape>(
        raw: RawHandle,
        meta: T::Meta,
        home: H,
    ) -> Result<Lock<H>, Error> {
        let place = if has_block(raw) {
            // SAFETY: the cache is the calling thread's, of the handle's heap.
            unsafe { home.cache(raw.tag())?.lock(raw)? }
        } else {
            let alignment = T::layout(meta).map_or(1, |layout| layout.align());
            core::ptr::without_provenance_mut(alignment)
        };
        let place = NonNull::new(place).ok_or(Error::Handle)?;
        Ok(Lock { raw, home, place })
    }

    pub fn place(&self) -> *mut u8 {
        self.place.as_ptr()
    }
}

impl<H: Home> Drop for Lock<H> {
    #[inline]
    fn drop(&mut self) {
        if has_block(self.raw)
            && let Ok(cache) = self.home.cache(self.raw.tag())
        {
            // SAFETY: the cache is the calling thread's, which took the lock.
            let given = unsafe { cache.unlock(self.raw) };
            // Damage was reported, and the lock is given back all the same.
            debug_assert!(matches!(given, Ok(()) | Err(Error::Damaged)), "{given:?}");
        }
    }
}

/// Reads the value of a [`Handle`](super::Handle), which does not move meanwhile. There may be several at a time.
///
/// Forgotten (`mem::forget`), it leaves its lock behind: the block does not move any more, and stays until its heap ends.
pub struct Guard<'a, T: ?Sized + Shape, H: Home> {
    value: NonNull<T>,
    _lock: Lock<H>,
    handle: PhantomData<&'a T>,
}

impl<'a, T: ?Sized + Shape, H: Home> Guard<'a, T, H> {
    /// # Safety
    /// The block holds a value of this shape, which nobody writes to during `'a`.
    #[inline]
    pub(super) unsafe fn new(
        raw: RawHandle,
        meta: T::Meta,
        home: H,
    ) -> Result<Guard<'a, T, H>, Error> {
        let lock = Lock::take::<T>(raw, meta, home)?;
        // SAFETY: no block is at address 0.
        let value = unsafe { NonNull::new_unchecked(T::at(lock.place(), meta)) };
        Ok(Guard {
            value,
            _lock: lock,
            handle: PhantomData,
        })
    }
}

// SAFETY: a shared guard gives out shared references to the value, and nothing else.
unsafe impl<T: ?Sized + Shape + Sync, H: Home + Sync> Sync for Guard<'_, T, H> {}

impl<T: ?Sized + Shape, H: Home> Deref for Guard<'_, T, H> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the block is locked, so the value stays where it is; nobody writes to it.
        unsafe { self.value.as_ref() }
    }
}

/// Reads and writes the value of a [`Handle`](super::Handle), which does not move meanwhile.
///
/// Forgotten, it leaves its lock behind, as a [`Guard`] does.
pub struct GuardMut<'a, T: ?Sized + Shape, H: Home> {
    value: NonNull<T>,
    _lock: Lock<H>,
    handle: PhantomData<&'a mut T>,
}

impl<'a, T: ?Sized + Shape, H: Home> GuardMut<'a, T, H> {
    /// # Safety
    /// The block holds a value of this shape, which nobody else uses during `'a`.
    #[inline]
    pub(super) unsafe fn new(
        raw: RawHandle,
        meta: T::Meta,
        home: H,
    ) -> Result<GuardMut<'a, T, H>, Error> {
        let lock = Lock::take::<T>(raw, meta, home)?;
        // SAFETY: no block is at address 0.
        let value = unsafe { NonNull::new_unchecked(T::at(lock.place(), meta)) };
        Ok(GuardMut {
            value,
            _lock: lock,
            handle: PhantomData,
        })
    }
}

// SAFETY: as of `Guard`.
unsafe impl<T: ?Sized + Shape + Sync, H: Home + Sync> Sync for GuardMut<'_, T, H> {}

impl<T: ?Sized + Shape, H: Home> Deref for GuardMut<'_, T, H> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the block is locked, so the value stays where it is; we alone use it.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized + Shape, H: Home> DerefMut for GuardMut<'_, T, H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.value.as_mut() }
    }
}

impl<T: ?Sized + Shape + Debug, H: Home> Debug for Guard<'_, T, H> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + Shape + Debug, H: Home> Debug for GuardMut<'_, T, H> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + Shape + Display, H: Home> Display for Guard<'_, T, H> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + Shape + Display, H: Home> Display for GuardMut<'_, T, H> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}
