//! A handle that owns its block and the value in it. This file owns building, resizing and ending such blocks;
//! locking them is [`super::guard`]'s.

use super::guard::{Guard, GuardMut, Lock};
use super::{DefaultHome, Home, Shape, has_block, nowhere};
use crate::cache::Cache;
use crate::handle::RawHandle;
use crate::status::Error;
use core::alloc::Layout;
use core::fmt::{Debug, Display, Formatter};
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, needs_drop};
use core::ptr;

/// Blocks are at multiples of this without being asked.
const ALIGNMENT: usize = 16;
/// How often a block is tried to be resized when a compaction of another thread is at it.
const TRIES: usize = 1000;

/// Owns a block and the value in it, which may move while no guard is out. 8 bytes for a value, 16 for a slice, in
/// a [`Heap`](super::Heap); one pointer more in a [`TypedLocalHeap`](super::TypedLocalHeap).
///
/// Values and slices of no bytes take no block. Dropping a handle drops the value and frees the block. Two exceptions,
/// both leaks: a guard of it was forgotten; the calling thread can't use the heap, as 250 others do.
pub struct Handle<T: ?Sized + Shape, H: Home = DefaultHome> {
    raw: RawHandle,
    meta: T::Meta,
    home: H,
    value: PhantomData<T>,
}

/// A value that got no block, and why.
pub struct Refused<T> {
    /// Why.
    pub error: Error,
    /// The value, as it was.
    pub value: T,
}

impl<T> From<Refused<T>> for Error {
    fn from(refused: Refused<T>) -> Error {
        refused.error
    }
}

impl<T> Debug for Refused<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Refused")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<T> Display for Refused<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        Display::fmt(&self.error, f)
    }
}

impl<T> core::error::Error for Refused<T> {}

/// A block for `layout`, which has bytes.
fn alloc(cache: &Cache, layout: Layout) -> Result<RawHandle, Error> {
    // SAFETY: callers have the cache from `Home::cache`: it is the calling thread's.
    unsafe {
        if layout.align() <= ALIGNMENT {
            cache.alloc(layout.size())
        } else {
            cache.alloc_aligned(layout.size(), layout.align())
        }
    }
}

/// Frees a block on drop, also when the value's own drop panics.
struct Ending<H: Home>(RawHandle, H);

impl<H: Home> Drop for Ending<H> {
    fn drop(&mut self) {
        if has_block(self.0)
            && let Ok(cache) = self.1.cache(self.0.tag())
        {
            // SAFETY: the cache is the calling thread's. `Error::Locked`: a guard was forgotten, the block stays.
            let _ = unsafe { cache.free(self.0) };
        }
    }
}

impl<T: ?Sized + Shape, H: Home> Handle<T, H> {
    /// Locks the block to read. Cost: as the lock itself, about 20 instructions in the thread that made the block.
    ///
    /// # Panics
    /// If [`Handle::try_lock`] has an error.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> Guard<'_, T, H> {
        match self.try_lock() {
            Ok(guard) => guard,
            Err(error) => refused(error),
        }
    }

    /// Locks the block to read.
    ///
    /// # Errors
    /// [`Error::Locks`]: 15 guards of this value are out, not counting those in the records of the thread that made the
    /// block (up to 8 of all its blocks). [`Error::Memory`]: the calling thread is new to the heap, and 250 others use it.
    /// [`Error::Damaged`]: see the checking build.
    #[inline]
    pub fn try_lock(&self) -> Result<Guard<'_, T, H>, Error> {
        // SAFETY: the handle owns the value, and is borrowed as long as the guard lives.
        unsafe { Guard::new(self.raw, self.meta, self.home) }
    }

    /// Locks the block to read and write.
    ///
    /// # Panics
    /// If [`Handle::try_lock_mut`] has an error.
    #[inline]
    #[track_caller]
    pub fn lock_mut(&mut self) -> GuardMut<'_, T, H> {
        match self.try_lock_mut() {
            Ok(guard) => guard,
            Err(error) => refused(error),
        }
    }

    /// Locks the block to read and write.
    ///
    /// # Errors
    /// As [`Handle::try_lock`]; `Error::Locks` only if many guards of this value were forgotten.
    #[inline]
    pub fn try_lock_mut(&mut self) -> Result<GuardMut<'_, T, H>, Error> {
        // SAFETY: the handle owns the value, and nobody else has it as long as the guard lives.
        unsafe { GuardMut::new(self.raw, self.meta, self.home) }
    }

    /// The bits that name the block in the C interface; `None`: the value has no bytes and no block.
    pub fn raw(&self) -> Option<RawHandle> {
        has_block(self.raw).then_some(self.raw)
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn refused(error: Error) -> ! {
    panic!("the block can't be locked: {error}")
}

impl<T, H: Home> Handle<T, H> {
    /// A block of the heap with this tag, and the value in it.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Table`], [`Error::Size`]; [`Error::Alignment`]: more than 4,096.
    pub(super) fn make(tag: u64, home: H, value: T) -> Result<Handle<T, H>, Refused<T>> {
        let layout = Layout::new::<T>();
        if layout.size() == 0 {
            let _ = ManuallyDrop::new(value);
            return Ok(Handle {
                raw: nowhere(tag),
                meta: (),
                home,
                value: PhantomData,
            });
        }
        let made = home
            .cache(tag)
            .and_then(|cache| alloc(cache, layout))
            .and_then(|raw| {
                let ending = ManuallyDrop::new(Ending(raw, home));
                Lock::take::<T>(raw, (), home)
                    .inspect_err(|_| drop(ManuallyDrop::into_inner(ending)))
                    .map(|lock| (raw, lock))
            });
        match made {
            Ok((raw, lock)) => {
                // SAFETY: the block has the value's size and alignment, and is ours.
                unsafe { lock.place().cast::<T>().write(value) };
                drop(lock);
                Ok(Handle {
                    raw,
                    meta: (),
                    home,
                    value: PhantomData,
                })
            }
            Err(error) => Err(Refused { error, value }),
        }
    }

    /// Frees the block and answers the value.
    ///
    /// # Panics
    /// If [`Handle::try_lock`] has an error.
    #[track_caller]
    pub fn into_inner(self) -> T {
        let this = ManuallyDrop::new(self);
        let _ending = Ending(this.raw, this.home);
        match Lock::take::<T>(this.raw, (), this.home) {
            // SAFETY: the value is read once: the handle is not dropped.
            Ok(lock) => unsafe { lock.place().cast::<T>().read() },
            Err(error) => refused(error),
        }
    }

    /// Gives the block away, value and all; [`Handle::from_raw`] or the C interface take it. `None`: the value has no
    /// bytes and no block.
    pub fn into_raw(self) -> Option<RawHandle> {
        ManuallyDrop::new(self).raw()
    }
}

impl<T, H: Home> Handle<[T], H> {
    /// Slice of no elements.
    pub(super) fn empty(tag: u64, home: H) -> Handle<[T], H> {
        Handle {
            raw: nowhere(tag),
            meta: 0,
            home,
            value: PhantomData,
        }
    }

    /// Slice of `len` elements, made by a function of their place.
    ///
    /// # Errors
    /// As [`Handle::make`].
    pub(super) fn make_with(
        tag: u64,
        home: H,
        len: usize,
        make: impl FnMut(usize) -> T,
    ) -> Result<Handle<[T], H>, Error> {
        let mut handle = Handle::empty(tag, home);
        handle.resize_with(len, make)?;
        Ok(handle)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.meta
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.meta == 0
    }

    /// Gives the slice another length: drops elements at its end, or adds those that the function makes of their places.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Table`], [`Error::Size`], [`Error::Alignment`]; [`Error::Locked`]: a guard was forgotten; and as
    /// [`Handle::try_lock`]. The slice is as it was then.
    ///
    /// # Panics
    /// If the function does; the slice has the elements made so far then.
    pub fn resize_with(
        &mut self,
        len: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<(), Error> {
        let layout = Layout::array::<T>(len).map_err(|_| Error::Size)?;
        if len > self.meta {
            if layout.size() > 0 {
                self.grow(layout)?;
            }
            let lock = Lock::take::<[T]>(self.raw, 0, self.home)?;
            for at in self.meta..len {
                let element = make(at);
                // SAFETY: the block has room for `len` elements, and this one holds none yet.
                unsafe { lock.place().cast::<T>().add(at).write(element) };
                self.meta = at + 1;
            }
        } else if len < self.meta {
            {
                let lock = Lock::take::<[T]>(self.raw, 0, self.home)?;
                let tail = ptr::slice_from_raw_parts_mut(
                    lock.place().cast::<T>().wrapping_add(len),
                    self.meta - len,
                );
                self.meta = len;
                // SAFETY: these elements are of the slice no more.
                unsafe { tail.drop_in_place() };
            }
            self.shrink(layout);
        }
        Ok(())
    }

    /// Gives the slice another length; new elements are copies of `value`.
    ///
    /// # Errors
    /// As [`Handle::resize_with`].
    pub fn resize(&mut self, len: usize, value: T) -> Result<(), Error>
    where
        T: Copy,
    {
        self.resize_with(len, |_| value)
    }

    /// A block for so many bytes, with the elements that are there.
    fn grow(&mut self, layout: Layout) -> Result<(), Error> {
        let tag = self.raw.tag();
        let home = self.home;
        let cache = home.cache(tag)?;
        if !has_block(self.raw) {
            self.raw = alloc(cache, layout)?;
            return Ok(());
        }
        if layout.align() <= ALIGNMENT {
            for _ in 0..TRIES {
                // SAFETY: the cache is the calling thread's.
                match unsafe { cache.resize(self.raw, layout.size()) } {
                    // Somebody moves it just now, or a guard was forgotten.
                    Err(Error::Locked) => core::hint::spin_loop(),
                    done => return done,
                }
            }
            return Err(Error::Locked);
        }
        let raw = alloc(cache, layout)?;
        let fresh = Ending(raw, home);
        {
            let to = Lock::take::<[T]>(raw, 0, home)?;
            let from = Lock::take::<[T]>(self.raw, 0, home)?;
            // SAFETY: both blocks are ours and hold so many elements; those of the old block are not used again.
            unsafe {
                to.place()
                    .cast::<T>()
                    .copy_from_nonoverlapping(from.place().cast(), self.meta)
            };
        }
        core::mem::forget(fresh);
        drop(Ending(core::mem::replace(&mut self.raw, raw), home));
        Ok(())
    }

    /// A smaller block, if there is one: keeping the old one is no error.
    fn shrink(&mut self, layout: Layout) {
        if !has_block(self.raw) {
            return;
        }
        if layout.size() == 0 {
            let none = nowhere(self.raw.tag());
            drop(Ending(core::mem::replace(&mut self.raw, none), self.home));
        } else if layout.align() <= ALIGNMENT
            && let Ok(cache) = self.home.cache(self.raw.tag())
        {
            // SAFETY: the cache is the calling thread's.
            let _ = unsafe { cache.resize(self.raw, layout.size()) };
        }
    }

    /// Gives the block away, elements and all; [`Handle::from_raw_parts`] or the C interface take it. The block is
    /// `None` if the elements have no bytes.
    pub fn into_raw_parts(self) -> (Option<RawHandle>, usize) {
        let this = ManuallyDrop::new(self);
        (this.raw(), this.meta)
    }
}

#[cfg(feature = "system")]
impl<'heap, T> Handle<T, super::In<'heap>> {
    /// Takes a block of the heap, with the value in it.
    ///
    /// # Safety
    /// - `raw` names a live block of this heap that holds a `T` at its beginning, of no less than its size and alignment;
    ///   `None` only if `T` has no bytes.
    /// - Nobody else frees, locks or resizes it from now on, or makes it discardable.
    pub unsafe fn from_raw(
        heap: &'heap super::Heap,
        raw: Option<RawHandle>,
    ) -> Handle<T, super::In<'heap>> {
        Handle {
            raw: raw.unwrap_or(nowhere(heap.tag())),
            meta: (),
            home: heap.home(),
            value: PhantomData,
        }
    }
}

#[cfg(feature = "system")]
impl<'heap, T> Handle<[T], super::In<'heap>> {
    /// Takes a block of the heap, with `len` elements in it.
    ///
    /// # Safety
    /// As [`Handle::from_raw`], of `len` elements.
    pub unsafe fn from_raw_parts(
        heap: &'heap super::Heap,
        raw: Option<RawHandle>,
        len: usize,
    ) -> Handle<[T], super::In<'heap>> {
        Handle {
            raw: raw.unwrap_or(nowhere(heap.tag())),
            meta: len,
            home: heap.home(),
            value: PhantomData,
        }
    }
}

impl<T: ?Sized + Shape, H: Home> Drop for Handle<T, H> {
    fn drop(&mut self) {
        // Ends after the guard, and when the value's drop panics.
        let _ending = Ending(self.raw, self.home);
        if needs_drop::<T>()
            && let Ok(mut guard) = self.try_lock_mut()
        {
            // SAFETY: the value is dropped once, and nobody can use it afterwards.
            unsafe { ptr::drop_in_place(&raw mut *guard) };
        }
    }
}

impl<T: ?Sized + Shape, H: Home> Debug for Handle<T, H> {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        match self.raw() {
            Some(raw) => write!(f, "Handle({raw:?})"),
            None => f.write_str("Handle(no bytes)"),
        }
    }
}
