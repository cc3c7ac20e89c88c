//! An allocator that is functions of the malloc family.

use crate::error::ReplayError;
use crate::slot::{Fault, Slot};
use crate::subject::{Subject, aligned};
use crate::touch::Touch;
use std::ffi::{c_int, c_void};
use std::ptr;

/// Functions of the malloc family.
#[derive(Clone, Copy)]
pub struct Functions {
    /// `malloc`.
    pub malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    /// `calloc`.
    pub calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    /// `realloc`.
    pub realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    /// `free`.
    pub free: unsafe extern "C" fn(*mut c_void),
    /// `posix_memalign`.
    pub posix_memalign: unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int,
}

impl Subject for Functions {
    fn seated(&self, _seat: usize, _seats: usize) -> Result<Functions, ReplayError> {
        Ok(*self)
    }

    #[inline(always)]
    unsafe fn allocate<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
        zeroed: bool,
    ) -> Result<(), Fault> {
        // SAFETY: the functions are those of an allocator, which has no requirements for a new block; it has
        // `bytes` bytes, which are ours.
        unsafe {
            let block = match zeroed {
                false => (self.malloc)(bytes as usize),
                true => (self.calloc)(1, bytes as usize),
            };
            if block.is_null() && bytes != 0 {
                return Err(Fault::Refused { bytes, status: 0 });
            }
            *slot = Slot {
                block: block as u64,
                bytes,
            };
            touch.born(at, block.cast(), bytes as usize, zeroed)
        }
    }

    #[inline(never)]
    unsafe fn allocate_aligned<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
        align_log2: u8,
    ) -> Result<(), Fault> {
        let mut block = ptr::null_mut();
        // The smallest alignment that the function takes.
        let alignment = 1usize << align_log2.max(3);
        // SAFETY: as in `allocate`; the alignment is a power of two and a multiple of a pointer's size.
        unsafe {
            let status = (self.posix_memalign)(&mut block, alignment, bytes as usize);
            if status != 0 || (block.is_null() && bytes != 0) {
                return Err(Fault::Refused { bytes, status });
            }
            aligned(block as u64, align_log2)?;
            *slot = Slot {
                block: block as u64,
                bytes,
            };
            touch.born(at, block.cast(), bytes as usize, false)
        }
    }

    #[inline(always)]
    unsafe fn resize<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
    ) -> Result<(), Fault> {
        let from = slot.len();
        // SAFETY: the slot's block is of this allocator and live; afterwards it is the one returned. To 0 bytes some
        // would free it, so 1 is asked for.
        unsafe {
            let block = (self.realloc)(slot.block as *mut c_void, bytes.max(1) as usize);
            if block.is_null() {
                return Err(Fault::Refused { bytes, status: 0 });
            }
            *slot = Slot {
                block: block as u64,
                bytes,
            };
            touch.resized(at, block.cast(), from, bytes as usize)
        }
    }

    #[inline(always)]
    unsafe fn free<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
    ) -> Result<(), Fault> {
        // SAFETY: the slot's block is of this allocator, live, and forgotten after.
        unsafe {
            touch.ends(at, slot.block as *mut u8, slot.len())?;
            (self.free)(slot.block as *mut c_void);
        }
        Ok(())
    }
}
