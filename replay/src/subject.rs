//! What an allocator looks like to the inner loop, which is compiled for each kind of one: functions of the malloc family
//! (`functions.rs`), handles (`handles.rs`), and the null allocator (`null.rs`). Every call of a real allocator goes
//! through a pointer, as it does in a program.

use crate::error::ReplayError;
use crate::slot::{Fault, Slot};
use crate::touch::Touch;

/// An allocator under test. A slot's block was made by the same allocator; its size is in the slot.
pub trait Subject: Sized {
    /// Whether the allocator is called before and after a block is touched, to lock it.
    const LOCKS: bool = false;

    /// The same allocator for another thread: seat `seat` of `seats`, from 0. Blocks of one can be given to any other.
    ///
    /// # Errors
    /// When the system refuses memory.
    fn seated(&self, seat: usize, seats: usize) -> Result<Self, ReplayError>;

    /// Makes a block of `bytes` in `slots[at]` and touches it.
    ///
    /// # Safety
    /// The slot holds no block.
    unsafe fn allocate<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
        zeroed: bool,
    ) -> Result<(), Fault>;

    /// As `allocate`, at a multiple of 2^`align_log2` bytes.
    ///
    /// # Safety
    /// The slot holds no block.
    unsafe fn allocate_aligned<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
        align_log2: u8,
    ) -> Result<(), Fault>;

    /// Gives the block another size and touches what is new.
    ///
    /// # Safety
    /// The slot holds a block.
    unsafe fn resize<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
        bytes: u64,
    ) -> Result<(), Fault>;

    /// Reads the block and frees it.
    ///
    /// # Safety
    /// The slot holds a block, and holds none after.
    unsafe fn free<T: Touch>(
        &mut self,
        touch: &mut T,
        at: usize,
        slot: &mut Slot,
    ) -> Result<(), Fault>;

    /// The address of a block now; 0 if it can't be told.
    ///
    /// # Safety
    /// The slot holds a block.
    unsafe fn place(&self, slot: &Slot) -> u64 {
        slot.block
    }

    /// Locks the block if it is not; nothing to those that know no locks.
    ///
    /// # Safety
    /// The slot holds a block.
    unsafe fn relock(&mut self, at: usize, slot: &mut Slot) -> Result<(), Fault> {
        let _ = (at, slot);
        Ok(())
    }

    /// Ends the block's lock, if it has one; nothing to those that know no locks.
    ///
    /// # Safety
    /// The slot holds a block.
    unsafe fn unlock(&mut self, at: usize, slot: &mut Slot) -> Result<(), Fault> {
        let _ = (at, slot);
        Ok(())
    }
}

/// What a block of alignment 2^`align_log2` must be a multiple of.
pub fn aligned(address: u64, align_log2: u8) -> Result<(), Fault> {
    let alignment = 1u64 << align_log2;
    match address & (alignment - 1) {
        0 => Ok(()),
        _ => Err(Fault::Misaligned { address, alignment }),
    }
}

/// Spreads the numbers of blocks over 64 bits (the finalizer of splitmix64).
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
