//! What a program would do with its memory: blocks are written when they are allocated and read when they are
//! freed. Owns the patterns; who locks around it is the allocator's business (`subject.rs`).

use crate::probe::Probe;
use crate::region::Region;
use crate::slot::Fault;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes from one touched word of a large block to the next.
const PAGE_BYTES: usize = 4096;

/// Touching in several threads.
pub trait Seated: Touch + Sized {
    /// The same for another thread: seat `seat` of `seats`, from 0. They touch the same slots.
    fn seated(&self, seat: usize, seats: usize) -> Self;
}

/// How blocks are touched. Every function takes the block's number (1 for the first), its first byte and
/// its requested bytes, which the caller owns.
pub trait Touch: Probe {
    /// Whether blocks are touched at all.
    const TOUCHES: bool;

    /// A block begins.
    ///
    /// # Safety
    /// `bytes` bytes at `block` are the caller's to read and write.
    unsafe fn born(
        &mut self,
        slot: usize,
        block: *mut u8,
        bytes: usize,
        zeroed: bool,
    ) -> Result<(), Fault>;

    /// A block has got another size; up to the smaller one its contents are there.
    ///
    /// # Safety
    /// As for `born`, with `to` bytes.
    unsafe fn resized(
        &mut self,
        slot: usize,
        block: *mut u8,
        from: usize,
        to: usize,
    ) -> Result<(), Fault>;

    /// A block is about to be freed.
    ///
    /// # Safety
    /// As for `born`.
    unsafe fn ends(&mut self, slot: usize, block: *mut u8, bytes: usize) -> Result<(), Fault>;
}

/// Nothing is touched.
pub struct Nothing;

impl Probe for Nothing {}

impl Seated for Nothing {
    fn seated(&self, _: usize, _: usize) -> Nothing {
        Nothing
    }
}

impl Touch for Nothing {
    const TOUCHES: bool = false;

    #[inline(always)]
    unsafe fn born(&mut self, _: usize, _: *mut u8, _: usize, _: bool) -> Result<(), Fault> {
        Ok(())
    }

    #[inline(always)]
    unsafe fn resized(&mut self, _: usize, _: *mut u8, _: usize, _: usize) -> Result<(), Fault> {
        Ok(())
    }

    #[inline(always)]
    unsafe fn ends(&mut self, _: usize, _: *mut u8, _: usize) -> Result<(), Fault> {
        Ok(())
    }
}

/// Writes a word at `at`, which may be unaligned.
///
/// # Safety
/// 8 bytes at `at` are the caller's.
#[inline(always)]
unsafe fn write(at: *mut u8, word: u64) {
    // SAFETY: the caller's.
    unsafe { ptr::write_unaligned(at.cast::<u64>(), word) };
}

/// Reads a word at `at`, which may be unaligned.
///
/// # Safety
/// 8 bytes at `at` are the caller's and initialised.
#[inline(always)]
unsafe fn read(at: *const u8) -> u64 {
    // SAFETY: the caller's.
    unsafe { ptr::read_unaligned(at.cast::<u64>()) }
}

/// The first word of each block alone.
#[derive(Default)]
pub struct First {
    /// Sum of what was read, so that it is read.
    pub sum: u64,
}

impl Probe for First {}

impl Seated for First {
    fn seated(&self, _: usize, _: usize) -> First {
        First::default()
    }
}

impl Touch for First {
    const TOUCHES: bool = true;

    #[inline(always)]
    unsafe fn born(
        &mut self,
        slot: usize,
        block: *mut u8,
        bytes: usize,
        _zeroed: bool,
    ) -> Result<(), Fault> {
        if bytes >= 8 {
            // SAFETY: the block has 8 bytes or more, which are the caller's.
            unsafe { write(block, slot as u64) };
        } else if bytes > 0 {
            // SAFETY: the block has a byte.
            unsafe { block.write(slot as u8) };
        }
        Ok(())
    }

    #[inline(always)]
    unsafe fn resized(
        &mut self,
        slot: usize,
        block: *mut u8,
        from: usize,
        to: usize,
    ) -> Result<(), Fault> {
        // SAFETY: the smaller of both sizes is the caller's and was written when the block was born, or it
        // is written now.
        unsafe {
            self.ends(slot, block, from.min(to))?;
            self.born(slot, block, to, false)
        }
    }

    #[inline(always)]
    unsafe fn ends(&mut self, _slot: usize, block: *mut u8, bytes: usize) -> Result<(), Fault> {
        if bytes >= 8 {
            // SAFETY: the block has 8 bytes or more, written when it was born.
            self.sum = self.sum.wrapping_add(unsafe { read(block) });
        } else if bytes > 0 {
            // SAFETY: the block has a byte, written when it was born.
            self.sum = self.sum.wrapping_add(u64::from(unsafe { block.read() }));
        }
        Ok(())
    }
}

/// The first and the last word of each block, and one in every 4 KiB between them.
#[derive(Default)]
pub struct All {
    /// Sum of what was read, so that it is read.
    pub sum: u64,
}

impl All {
    /// Writes the words of the pages that begin in `from..to`, counted from the block, and the last one.
    ///
    /// # Safety
    /// `to` bytes at `block`, 8 or more, are the caller's.
    #[inline(always)]
    unsafe fn write_from(block: *mut u8, from: usize, to: usize, word: u64) {
        // SAFETY: the last 8 of `to` bytes.
        unsafe { write(block.add(to - 8), word) };
        if to > PAGE_BYTES {
            let mut at = from.next_multiple_of(PAGE_BYTES);
            while at + 8 <= to {
                // SAFETY: 8 bytes that end within the block.
                unsafe { write(block.add(at), word) };
                at += PAGE_BYTES;
            }
        }
    }
}

impl Probe for All {}

impl Seated for All {
    fn seated(&self, _: usize, _: usize) -> All {
        All::default()
    }
}

impl Touch for All {
    const TOUCHES: bool = true;

    #[inline(always)]
    unsafe fn born(
        &mut self,
        slot: usize,
        block: *mut u8,
        bytes: usize,
        _zeroed: bool,
    ) -> Result<(), Fault> {
        if bytes >= 8 {
            // SAFETY: `bytes` bytes, 8 or more, are the caller's.
            unsafe {
                write(block, slot as u64);
                All::write_from(block, PAGE_BYTES, bytes, slot as u64);
            }
        } else if bytes > 0 {
            // SAFETY: the first and the last byte of the block.
            unsafe {
                block.write(slot as u8);
                block.add(bytes - 1).write(slot as u8);
            }
        }
        Ok(())
    }

    #[inline(always)]
    unsafe fn resized(
        &mut self,
        slot: usize,
        block: *mut u8,
        from: usize,
        to: usize,
    ) -> Result<(), Fault> {
        // A small block that grows is written as a new one.
        if from < 8 || to < 8 {
            // SAFETY: `to` bytes are the caller's.
            return unsafe { self.born(slot, block, to, false) };
        }
        // SAFETY: the first 8 of both sizes were written before; `to` bytes are the caller's.
        unsafe {
            self.sum = self.sum.wrapping_add(read(block));
            All::write_from(block, from, to, slot as u64);
        }
        Ok(())
    }

    #[inline(always)]
    unsafe fn ends(&mut self, _slot: usize, block: *mut u8, bytes: usize) -> Result<(), Fault> {
        if bytes >= 8 {
            // SAFETY: the block has `bytes` bytes, 8 or more; these words were written when it was born or resized.
            unsafe {
                self.sum = self
                    .sum
                    .wrapping_add(read(block))
                    .wrapping_add(read(block.add(bytes - 8)));
                if bytes > PAGE_BYTES {
                    let mut at = PAGE_BYTES;
                    while at + 8 <= bytes {
                        self.sum = self.sum.wrapping_add(read(block.add(at)));
                        at += PAGE_BYTES;
                    }
                }
            }
        } else if bytes > 0 {
            // SAFETY: the first and the last byte of the block, written when it was born or resized.
            unsafe {
                let ends = u64::from(block.read()) + u64::from(block.add(bytes - 1).read());
                self.sum = self.sum.wrapping_add(ends);
            }
        }
        Ok(())
    }
}

/// Every byte of each block, with a pattern that its number makes; looked at when it is resized and freed.
pub struct Check {
    /// Number of the block in each slot, from 1. Of all threads; one of them makes and drops all clones.
    numbers: Rc<Region>,
    /// Number of the latest block.
    born: u64,
    /// From the number of a block to that of the next of the same thread.
    step: u64,
}

/// Odd, so that a pattern tells its number.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each step doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

impl Check {
    /// For so many slots.
    ///
    /// # Errors
    /// When the system refuses memory.
    pub fn new(slots: usize) -> Result<Check, crate::error::ReplayError> {
        Ok(Check {
            numbers: Rc::new(Region::zeroed(slots * 8, true)?),
            born: 0,
            step: 1,
        })
    }

    /// The slot and number of the block whose pattern a word is, if there is one.
    pub fn owner(&self, word: u64) -> Option<(usize, u64)> {
        let number = word.wrapping_mul(const { inverse(FACTOR) });
        if number == 0 || (self.step == 1 && number > self.born) {
            return None;
        }
        let mut numbers = self.numbers.atomic_words().iter();
        let slot = numbers.position(|held| held.load(Ordering::Relaxed) == number);
        slot.map(|slot| (slot, number))
    }

    fn held(&self, slot: usize) -> Option<&AtomicU64> {
        self.numbers.atomic_words().get(slot)
    }

    fn set(&self, slot: usize, number: u64) {
        if let Some(held) = self.held(slot) {
            held.store(number, Ordering::Relaxed);
        }
    }

    /// The number of the block in a slot.
    pub fn number(&self, slot: usize) -> u64 {
        self.held(slot)
            .map_or(0, |held| held.load(Ordering::Relaxed))
    }

    /// Fills `from..to` of a block.
    ///
    /// # Safety
    /// `to` bytes at `block` are the caller's.
    unsafe fn fill(block: *mut u8, from: usize, to: usize, pattern: u64) {
        let bytes = pattern.to_le_bytes();
        let mut at = from;
        while at < to {
            if at.is_multiple_of(8) && at + 8 <= to {
                // SAFETY: 8 bytes that end within the block.
                unsafe { write(block.add(at), pattern) };
                at += 8;
            } else {
                // SAFETY: a byte of the block.
                unsafe { block.add(at).write(bytes[at % 8]) };
                at += 1;
            }
        }
    }

    /// Compares the first `bytes` of a block. Of several words that are wrong the first one that another block wrote is
    /// told, or else the first.
    ///
    /// # Safety
    /// They are the caller's and were filled.
    unsafe fn compare(
        &self,
        slot: usize,
        block: *mut u8,
        bytes: usize,
        pattern: u64,
    ) -> Result<(), Fault> {
        let mut wrong = None;
        for at in (0..bytes).step_by(8) {
            let (found, wanted) = if at + 8 <= bytes {
                // SAFETY: 8 bytes that end within the block.
                (unsafe { read(block.add(at)) }, pattern)
            } else {
                let mut word = [0; 8];
                // SAFETY: fewer than 8 bytes, the block's last.
                unsafe { ptr::copy_nonoverlapping(block.add(at), word.as_mut_ptr(), bytes - at) };
                let mask = (1 << ((bytes - at) * 8)) - 1;
                (u64::from_le_bytes(word), pattern & mask)
            };
            if found == wanted {
                continue;
            }
            let fault = Fault::Contents {
                slot,
                offset: at as u64,
                found,
            };
            if self.owner(found).is_some() {
                return Err(fault);
            }
            wrong.get_or_insert(fault);
        }
        wrong.map_or(Ok(()), Err)
    }
}

impl Probe for Check {}

impl Seated for Check {
    fn seated(&self, seat: usize, seats: usize) -> Check {
        Check {
            numbers: Rc::clone(&self.numbers),
            // Of all seats together the numbers are 1, 2, 3 ...
            born: (seat as u64 + 1).wrapping_sub(seats as u64),
            step: seats as u64,
        }
    }
}

impl Touch for Check {
    const TOUCHES: bool = true;

    unsafe fn born(
        &mut self,
        slot: usize,
        block: *mut u8,
        bytes: usize,
        zeroed: bool,
    ) -> Result<(), Fault> {
        self.born = self.born.wrapping_add(self.step);
        let number = self.born;
        self.set(slot, number);
        // SAFETY: `bytes` bytes are the caller's.
        unsafe {
            if zeroed
                && let Err(Fault::Contents { offset, found, .. }) =
                    self.compare(slot, block, bytes, 0)
            {
                return Err(Fault::NotZero {
                    slot,
                    offset,
                    found,
                });
            }
            Check::fill(block, 0, bytes, number.wrapping_mul(FACTOR));
        }
        Ok(())
    }

    unsafe fn resized(
        &mut self,
        slot: usize,
        block: *mut u8,
        from: usize,
        to: usize,
    ) -> Result<(), Fault> {
        let pattern = self.number(slot).wrapping_mul(FACTOR);
        // SAFETY: `to` bytes are the caller's, the smaller of both sizes was filled.
        unsafe {
            self.compare(slot, block, from.min(to), pattern)?;
            Check::fill(block, from.min(to), to, pattern);
        }
        Ok(())
    }

    unsafe fn ends(&mut self, slot: usize, block: *mut u8, bytes: usize) -> Result<(), Fault> {
        let pattern = self.number(slot).wrapping_mul(FACTOR);
        // SAFETY: the block was filled.
        unsafe { self.compare(slot, block, bytes, pattern) }?;
        self.set(slot, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_tells_its_number() {
        assert_eq!(FACTOR.wrapping_mul(inverse(FACTOR)), 1);
        let mut check = Check::new(4).unwrap();
        let mut bytes = [0u64; 4];
        let block = bytes.as_mut_ptr().cast::<u8>();
        // SAFETY: 29 of 32 bytes of a local array.
        unsafe {
            check.born(1, block, 29, true).unwrap();
            assert_eq!(check.owner(read(block.add(8))), Some((1, 1)));
            check.resized(1, block, 29, 31).unwrap();
            block.add(30).write(block.add(30).read() ^ 1);
            assert!(check.resized(1, block, 31, 30).is_ok());
            block.add(29).write(block.add(29).read() ^ 1);
            assert!(matches!(
                check.ends(1, block, 30),
                Err(Fault::Contents {
                    slot: 1,
                    offset: 24,
                    ..
                })
            ));
            assert!(matches!(
                check.born(2, block, 8, true),
                Err(Fault::NotZero {
                    slot: 2,
                    offset: 0,
                    ..
                })
            ));
        }
    }

    #[test]
    fn every_page_of_a_large_block_is_touched_and_its_last_byte() {
        for bytes in [0, 1, 7, 8, 9, 4096, 4097, 4104, 8191, 8192, 8200, 40_000] {
            let mut memory = vec![0u8; bytes + 8];
            let mut all = All::default();
            // SAFETY: the vector has more than `bytes` bytes.
            unsafe {
                all.born(usize::MAX, memory.as_mut_ptr(), bytes, false)
                    .unwrap()
            };
            let (block, behind) = memory.split_at(bytes);
            assert!(behind.iter().all(|byte| *byte == 0), "{bytes}");
            assert_eq!(block.last().copied().unwrap_or(255), 255, "{bytes}");
            assert!(
                block.chunks(4096).all(|page| page.contains(&255)),
                "{bytes}"
            );
            assert_eq!(block.first().copied().unwrap_or(255), 255, "{bytes}");
        }
    }
}
