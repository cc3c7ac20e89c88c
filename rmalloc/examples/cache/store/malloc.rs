//! Blocks of the process' malloc: glibc's, or the one that was preloaded (`LD_PRELOAD`). A block is its address.

use super::{Figures, Step, Store};

/// The malloc of the process.
pub struct Malloc;

impl Store for Malloc {
    const NAME: &'static str = "malloc";

    fn put(&mut self, key: &[u8], value: &[u8]) -> Option<u64> {
        // SAFETY: malloc may be called with any size.
        let start: *mut u8 = unsafe { libc::malloc(key.len() + value.len()) }.cast();
        if start.is_null() {
            return None;
        }
        // SAFETY: the new block has room for both, and overlaps neither.
        unsafe {
            start.copy_from_nonoverlapping(key.as_ptr(), key.len());
            start
                .add(key.len())
                .copy_from_nonoverlapping(value.as_ptr(), value.len());
        }
        Some(start.expose_provenance() as u64)
    }

    unsafe fn read<R>(&self, block: u64, bytes: usize, look: impl FnOnce(&[u8]) -> R) -> R {
        let start = std::ptr::with_exposed_provenance::<u8>(block as usize);
        // SAFETY: `put` wrote `bytes` bytes there, and the block was not freed (the caller's word); `self` is borrowed,
        // so nobody writes meanwhile.
        look(unsafe { std::slice::from_raw_parts(start, bytes) })
    }

    unsafe fn remove(&mut self, block: u64) {
        // SAFETY: the address came from malloc in `put`, and was not freed (the caller's word).
        unsafe { libc::free(std::ptr::with_exposed_provenance_mut(block as usize)) };
    }

    fn compact(&mut self, _budget_ns: u64) -> Option<Step> {
        None
    }

    fn figures(&self) -> Option<Figures> {
        None
    }
}
