//! A growing array outside of any allocator: address space is reserved once, pages are taken as the array grows and
//! given back as it shrinks. The index is made of these, so that it costs the same under every allocator and its
//! bytes are known exactly.

use super::os;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// How far the touched part may exceed the used one before its end is given back.
const SPARE_BYTES: usize = 1 << 20;

/// Plain data: any bytes are a value, zeros too.
///
/// # Safety
/// Every bit pattern is a valid value, and there is nothing to drop.
pub unsafe trait Plain: Copy {}

// SAFETY: any 32 bits are a number.
unsafe impl Plain for u32 {}

/// An array that never moves.
pub struct Region<T: Plain> {
    start: NonNull<u8>,
    bytes: usize,
    len: usize,
    /// Bytes from the start that may have been touched, in whole pages.
    touched: usize,
    page_bytes: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Region<T> {
    /// An empty array that can grow to `len_max` elements.
    ///
    /// # Errors
    /// The address space for them can't be had.
    pub fn new(len_max: usize) -> io::Result<Self> {
        let page_bytes = os::page_bytes();
        let too_large = || {
            io::Error::new(
                io::ErrorKind::OutOfMemory,
                "the index would be larger than memory",
            )
        };
        let bytes = len_max
            .max(1)
            .checked_mul(size_of::<T>())
            .ok_or_else(too_large)?;
        let bytes = bytes
            .checked_next_multiple_of(page_bytes)
            .ok_or_else(too_large)?;
        assert!(align_of::<T>() <= page_bytes);
        Ok(Region {
            start: os::reserve(bytes)?,
            bytes,
            len: 0,
            touched: 0,
            page_bytes,
            of: PhantomData,
        })
    }

    /// Whether no element more fits.
    pub fn is_full(&self) -> bool {
        (self.len + 1) * size_of::<T>() > self.bytes
    }

    /// Appends an element.
    ///
    /// # Panics
    /// The array is full.
    pub fn push(&mut self, value: T) {
        assert!(!self.is_full(), "the reserved region is full");
        self.len += 1;
        let used = self.len * size_of::<T>();
        if used > self.touched {
            self.touched = used.next_multiple_of(self.page_bytes);
        }
        let last = self.len - 1;
        self[last] = value;
    }

    /// Takes the last element off.
    pub fn pop(&mut self) -> Option<T> {
        let value = *self.last()?;
        self.len -= 1;
        let used = (self.len * size_of::<T>()).next_multiple_of(self.page_bytes);
        if self.touched > used + 2 * SPARE_BYTES {
            let keep = used + SPARE_BYTES.next_multiple_of(self.page_bytes);
            // SAFETY: both ends are multiples of a page within the mapping, and `self` is borrowed mutably, so no
            // reference into the elements is left; those given back lie behind `len`.
            unsafe { os::discard(self.start.as_ptr().add(keep), self.touched - keep) };
            self.touched = keep;
        }
        Some(value)
    }

    /// Bytes of the pages it has touched.
    pub fn touched_bytes(&self) -> usize {
        self.touched
    }
}

impl<T: Plain> Deref for Region<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements fit into the mapping (push asserts it), which is aligned to a page, zeroed or
        // written, and lives as long as `self`; any bytes are a `T` (`Plain`).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Region<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> Drop for Region<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with these bytes, and no reference outlives `self`.
        unsafe { os::release(self.start, self.bytes) };
    }
}
