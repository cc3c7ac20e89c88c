//! Blocks of rmalloc's default heap, through its C interface as any program would use it. A block is a handle; it is locked while
//! it is written or read, and may move at any other time.

use super::{Figures, Step, Store};
use rmalloc::ffi::{self, memory_t};
use std::io;
use std::mem::MaybeUninit;

/// Bytes of an entry of the table of handles.
const ENTRY_BYTES: u64 = 8;

/// rmalloc's default heap.
pub struct Handles(());

impl Handles {
    /// Makes sure that the heap works.
    ///
    /// # Errors
    /// It could not be made.
    pub fn new() -> io::Result<Self> {
        let mut heap = Handles(());
        let Some(block) = heap.put(b"heap", b"?") else {
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                "rmalloc could not make its heap",
            ));
        };
        // SAFETY: `block` was put just now.
        unsafe { heap.remove(block) };
        Ok(heap)
    }
}

/// The handle of a block. It is bits to everyone but rmalloc, never an address.
fn handle(block: u64) -> *mut memory_t {
    std::ptr::without_provenance_mut(block as usize)
}

/// The address of a block, which is locked until [`unlock`].
///
/// # Safety
/// The handle is of a live block.
unsafe fn lock(handle: *mut memory_t) -> *mut u8 {
    let mut address = std::ptr::null_mut();
    // SAFETY: `address` is written during the call only; the handle is the caller's word.
    let status = unsafe { ffi::rmlock(handle, &mut address) };
    assert_eq!(status, 0, "rmlock refused a live block");
    address.cast()
}

/// Ends a lock of this thread: the address is void.
fn unlock(handle: *mut memory_t) {
    let status = ffi::rmunlock(handle);
    assert_eq!(status, 0, "rmunlock refused a locked block");
}

impl Store for Handles {
    const NAME: &'static str = "rmalloc";

    fn put(&mut self, key: &[u8], value: &[u8]) -> Option<u64> {
        let bytes = isize::try_from(key.len() + value.len()).ok()?;
        let mut handle = std::ptr::null_mut();
        // rmalloc makes no block of 0 bytes.
        // SAFETY: `handle` is written during the call only.
        if unsafe { ffi::rmalloc(&mut handle, bytes.max(1)) } != 0 {
            return None;
        }
        // SAFETY: the block is new, so it is live, has room for both, overlaps neither, and moves only after `unlock`.
        unsafe {
            let start = lock(handle);
            start.copy_from_nonoverlapping(key.as_ptr(), key.len());
            start
                .add(key.len())
                .copy_from_nonoverlapping(value.as_ptr(), value.len());
            unlock(handle);
        }
        Some(handle.addr() as u64)
    }

    unsafe fn read<R>(&self, block: u64, bytes: usize, look: impl FnOnce(&[u8]) -> R) -> R {
        let handle = handle(block);
        // SAFETY: the block is live and `put` wrote `bytes` bytes into it (the caller's word). It does not move until
        // `unlock`, and nobody writes meanwhile, as `self` is borrowed. A panic of `look` aborts the process.
        unsafe {
            let seen = look(std::slice::from_raw_parts(lock(handle), bytes));
            unlock(handle);
            seen
        }
    }

    unsafe fn remove(&mut self, block: u64) {
        // Locks end within each call above, so rmfree finds none.
        let status = ffi::rmfree(handle(block));
        assert_eq!(status, 0, "rmfree refused a live block");
    }

    fn compact(&mut self, budget_ns: u64) -> Option<Step> {
        let mut result = MaybeUninit::zeroed();
        // SAFETY: the result is written during the call only.
        let status = unsafe { ffi::rmcompact(budget_ns, result.as_mut_ptr()) };
        if status != 0 {
            return Some(Step::default());
        }
        // SAFETY: rmcompact has written it; it is numbers only, which were zeroed before.
        let result = unsafe { result.assume_init() };
        Some(Step {
            moved_bytes: result.bytes_moved,
            moved_blocks: result.blocks_moved,
            returned_bytes: result.bytes_released,
            more: result.finished == 0,
        })
    }

    fn figures(&self) -> Option<Figures> {
        let mut stats = MaybeUninit::zeroed();
        // SAFETY: the figures are written during the call only.
        if unsafe { ffi::rmstats(stats.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: rmstats has written them; they are numbers only, which were zeroed before.
        let stats = unsafe { stats.assume_init() };
        Some(Figures {
            usable_bytes: stats.live_bytes,
            table_bytes: stats.table_bytes,
            table_bytes_needed: stats.live_blocks * ENTRY_BYTES,
            resident_bytes: stats.resident_bytes,
        })
    }
}
