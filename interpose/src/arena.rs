//! Memory for the instruction decoder and encoder: a private region that is used while functions are
//! patched in the constructor, by one thread, and given back afterwards.

use crate::sys;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const BYTES: usize = 16 << 20;

static START: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);

struct Arena;

#[global_allocator]
static ARENA: Arena = Arena;

/// Opens the arena. Whether there is one.
pub fn open() -> bool {
    let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_NORESERVE;
    // SAFETY: a new mapping.
    let start = unsafe { sys::mmap(0, BYTES, sys::PROT_READ | sys::PROT_WRITE, flags, -1) };
    if start <= 0 {
        return false;
    }
    START.store(start as usize, Relaxed);
    NEXT.store(start as usize, Relaxed);
    true
}

/// Gives the region back; later requests fail.
pub fn close() {
    let start = START.swap(0, Relaxed);
    NEXT.store(0, Relaxed);
    if start != 0 {
        sys::munmap(start, BYTES);
    }
}

// SAFETY: hands out disjoint pieces of a mapping; nothing is given back before `close`.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let next = NEXT.load(Relaxed);
        if next == 0 {
            return null_mut();
        }
        let at =
            next.wrapping_add(layout.align().wrapping_sub(1)) & !layout.align().wrapping_sub(1);
        let end = at.wrapping_add(layout.size());
        if end > START.load(Relaxed).wrapping_add(BYTES) {
            return null_mut();
        }
        NEXT.store(end, Relaxed);
        at as *mut u8
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
