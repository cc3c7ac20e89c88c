//! The allocator that is none: what a replay on it takes is the replayer's own cost.

use crate::error::ReplayError;
use crate::region::Region;
use crate::slot::{Fault, Slot};
use crate::subject::Subject;
use crate::touch::Touch;

/// Hands out the next bytes of a ring and never takes any back. Blocks overwrite each other after a lap, so
/// its contents mean nothing: what remains of the time is the replayer's own.
pub struct Null {
    ring: Region,
    /// From here on it begins anew.
    lap: usize,
    /// Bytes of the largest block.
    largest: u64,
    at: usize,
}

/// Bytes of the ring, beside the largest block: so few that it stays in a cache. Misses of blocks are not the
/// replayer's.
const RING_BYTES: usize = 1 << 20;
/// Bytes of the ring of one of several threads: those of a few at a time stay in a cache together.
const RING_BYTES_OF_SEVERAL: usize = 64 << 10;
/// Bytes of it that are there before the clock starts.
const RESIDENT_BYTES_MAX: usize = 64 << 20;

impl Null {
    /// For blocks up to `largest` bytes.
    ///
    /// # Errors
    /// When the system refuses memory.
    pub fn new(largest: u64) -> Result<Null, ReplayError> {
        Null::of(largest, RING_BYTES)
    }

    fn of(largest: u64, lap: usize) -> Result<Null, ReplayError> {
        let bytes = lap + largest as usize;
        let mut ring = Region::zeroed(bytes, false)?;
        let mostly = bytes.min(RESIDENT_BYTES_MAX.min(lap * 64)) / 8;
        for word in ring.words_mut()[..mostly].iter_mut().step_by(512) {
            *word = 1;
        }
        Ok(Null {
            ring,
            lap,
            largest,
            at: 0,
        })
    }

    /// The next `bytes` bytes.
    #[inline(always)]
    fn next(&mut self, bytes: usize) -> *mut u8 {
        if self.at >= self.lap {
            self.at = 0;
        }
        // SAFETY: `at` is below `lap`, and the ring has room for the largest block behind that.
        let block = unsafe { self.ring.start().add(self.at) };
        self.at += bytes.next_multiple_of(16);
        block
    }
}

impl Subject for Null {
    fn seated(&self, _seat: usize, seats: usize) -> Result<Null, ReplayError> {
        let share = (RING_BYTES / seats.max(1)).max(RING_BYTES_OF_SEVERAL);
        Null::of(self.largest, share)
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
        let block = self.next(bytes as usize);
        *slot = Slot {
            block: block as u64,
            bytes,
        };
        // SAFETY: the ring has `bytes` bytes there; nothing relies on what other blocks hold.
        unsafe { touch.born(at, block, bytes as usize, zeroed) }
    }

    #[inline(never)]
    unsafe fn allocate_aligned<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
        _align_log2: u8,
    ) -> Result<(), Fault> {
        // SAFETY: as in `allocate`.
        unsafe { self.allocate(touch, at, slot, bytes, false) }
    }

    #[inline(always)]
    unsafe fn resize<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
    ) -> Result<(), Fault> {
        let (from, block) = (slot.len(), self.next(bytes as usize));
        *slot = Slot {
            block: block as u64,
            bytes,
        };
        // SAFETY: as in `allocate`; copying is an allocator's work, so nothing is copied. The ring is initialised.
        unsafe { touch.resized(at, block, from, bytes as usize) }
    }

    #[inline(always)]
    unsafe fn free<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
    ) -> Result<(), Fault> {
        // SAFETY: as in `allocate`.
        unsafe { touch.ends(at, slot.block as *mut u8, slot.len()) }
    }
}
