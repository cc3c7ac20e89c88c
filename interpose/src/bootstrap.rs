//! Blocks for callers that come before the C library's allocator can be found. They are never given
//! back; free and realloc recognise them.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const BYTES: usize = 64 << 10;
/// Bytes before each block: its size.
const PREFIX: usize = 16;

#[repr(C, align(4096))]
struct Area(UnsafeCell<[u8; BYTES]>);

// SAFETY: pieces are handed out once, by an atomic addition.
unsafe impl Sync for Area {}

static AREA: Area = Area(UnsafeCell::new([0; BYTES]));
static USED: AtomicUsize = AtomicUsize::new(0);

fn start() -> usize {
    &raw const AREA as usize
}

/// Whether `block` came from here.
#[inline(always)]
pub fn owns(block: usize) -> bool {
    USED.load(Relaxed) != 0 && is_within(block)
}

#[cold]
#[inline(never)]
fn is_within(block: usize) -> bool {
    block.wrapping_sub(start()) < BYTES
}

/// A zeroed block, or 0.
#[cold]
pub fn allocate(size: usize, align_log2: u8) -> usize {
    let align = 1usize << (align_log2 & 63).clamp(4, 12);
    if size > BYTES / 2 {
        return 0;
    }
    let room = size.wrapping_add(align).wrapping_add(PREFIX);
    let offset = USED.fetch_add(room, Relaxed);
    if offset.wrapping_add(room) > BYTES {
        USED.fetch_sub(room, Relaxed);
        return 0;
    }
    let first = start().wrapping_add(offset).wrapping_add(PREFIX);
    let block = first.wrapping_add(align.wrapping_sub(1)) & !align.wrapping_sub(1);
    // SAFETY: within the piece that was just claimed.
    unsafe { (block.wrapping_sub(8) as *mut usize).write(size) };
    block
}

/// Copies what a block from here held to `to`, a block of `size` bytes (0: nothing).
#[cold]
pub fn copy_out(block: usize, to: usize, size: usize) {
    if to == 0 {
        return;
    }
    // SAFETY: every block from here has its size before it.
    let held = unsafe { (block.wrapping_sub(8) as *const usize).read() };
    // SAFETY: both are at least that long.
    unsafe { core::ptr::copy_nonoverlapping(block as *const u8, to as *mut u8, held.min(size)) };
}
