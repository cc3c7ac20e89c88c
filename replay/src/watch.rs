//! What a memory round sees of blocks beside resident memory: addresses given out again, usable sizes, the pages that
//! live blocks lie on. Its tables are the replayer's own memory; nothing here allocates.

use crate::error::ReplayError;
use crate::probe::Probe;
use crate::region::Region;
use crate::reuse::Reuse;
use crate::slot::{Fault, Slot};
use crate::touch::Touch;
use crate::word;
use std::ffi::{c_int, c_void};

/// How an allocator tells the usable bytes of a block.
#[derive(Clone, Copy, Debug)]
pub enum Usable {
    /// It does not.
    Unknown,
    /// `malloc_usable_size`.
    Block(unsafe extern "C" fn(*mut c_void) -> usize),
    /// `rmsize`: a status, the bytes through the pointer.
    Handle(unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int),
}

impl Usable {
    /// Usable bytes of a live block; 0 if they are not known.
    ///
    /// # Safety
    /// `block` is a live block of this allocator, or its handle.
    unsafe fn bytes(self, block: u64) -> u64 {
        let block = block as *mut c_void;
        match self {
            Usable::Unknown => 0,
            // SAFETY: the caller's.
            Usable::Block(function) => unsafe { function(block) as u64 },
            Usable::Handle(function) => {
                let mut bytes = 0;
                // SAFETY: the caller's; the bytes are written through a pointer to a local variable.
                match unsafe { function(block, &mut bytes) } {
                    0 => bytes as u64,
                    _ => 0,
                }
            }
        }
    }
}

/// Bit of a slot's word: it holds a block.
const LIVE: u64 = 1 << 63;
/// Binary logarithm of a page.
const PAGE_BITS: u32 = 12;

/// Touches blocks as another one does, and watches where they are.
pub struct Watched<T> {
    inner: T,
    usable: Usable,
    /// Of each slot: [`LIVE`] and usable bytes.
    blocks: Region,
    /// Room for the first and the last page of each live block.
    spans: Region,
    /// Sum of the usable bytes of live blocks.
    pub usable_bytes: u64,
    /// Addresses given out again.
    pub reuse: Reuse,
}

impl<T> Watched<T> {
    /// For so many slots.
    ///
    /// # Errors
    /// When the system refuses memory.
    pub fn new(inner: T, usable: Usable, slots: usize) -> Result<Watched<T>, ReplayError> {
        Ok(Watched {
            inner,
            usable,
            blocks: Region::zeroed(slots * 8, true)?,
            spans: Region::zeroed(slots * 16, true)?,
            usable_bytes: 0,
            reuse: Reuse::default(),
        })
    }

    /// Whether usable bytes are known.
    pub fn knows_usable(&self) -> bool {
        !matches!(self.usable, Usable::Unknown)
    }

    /// How blocks are touched.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// Pages of 4 KiB that hold a byte of a live block. `place` tells where the block in a slot is and its bytes.
    pub fn pages(&mut self, mut place: impl FnMut(usize) -> (u64, u64)) -> u64 {
        let (spans, _) = self.spans.words_mut().as_chunks_mut::<2>();
        let mut used = 0;
        for (slot, word) in self.blocks.words().iter().enumerate() {
            if word & LIVE == 0 {
                continue;
            }
            let (address, bytes) = place(slot);
            // A block of 0 bytes is nowhere, and one that can't be found neither.
            if address != 0 && bytes != 0 && used < spans.len() {
                spans[used] = [address >> PAGE_BITS, (address + bytes - 1) >> PAGE_BITS];
                used += 1;
            }
        }
        union(&mut spans[..used])
    }
}

/// Numbers that lie in at least one of the spans, ends included; sorts them.
fn union(spans: &mut [[u64; 2]]) -> u64 {
    spans.sort_unstable();
    let (mut count, mut next) = (0, 0);
    for [first, last] in spans.iter() {
        count += (last + 1).saturating_sub(next.max(*first));
        next = next.max(last + 1);
    }
    count
}

impl<T: Touch> Probe for Watched<T> {
    #[inline(always)]
    fn ended(&mut self, word: u64, number: usize, slot: &Slot, _aligned: bool) {
        let Some(held) = self.blocks.words_mut().get_mut(number) else {
            return;
        };
        let usable = match word::kind(word) {
            word::ALLOC | word::ZEROED | word::RESIZE => {
                // SAFETY: the operation went well, so the slot's block is live.
                let usable = unsafe { self.usable.bytes(slot.block) };
                usable.max(slot.len() as u64) & !LIVE | LIVE
            }
            word::FREE => 0,
            _ => return,
        };
        self.usable_bytes = self
            .usable_bytes
            .wrapping_add(usable & !LIVE)
            .wrapping_sub(*held & !LIVE);
        *held = usable;
    }
}

impl<T: Touch> Touch for Watched<T> {
    const TOUCHES: bool = T::TOUCHES;

    #[inline(always)]
    unsafe fn born(
        &mut self,
        slot: usize,
        block: *mut u8,
        bytes: usize,
        zeroed: bool,
    ) -> Result<(), Fault> {
        self.reuse.allocated(block as u64);
        // SAFETY: the caller's.
        unsafe { self.inner.born(slot, block, bytes, zeroed) }
    }

    #[inline(always)]
    unsafe fn resized(
        &mut self,
        slot: usize,
        block: *mut u8,
        from: usize,
        to: usize,
    ) -> Result<(), Fault> {
        // SAFETY: the caller's.
        unsafe { self.inner.resized(slot, block, from, to) }
    }

    #[inline(always)]
    unsafe fn ends(&mut self, slot: usize, block: *mut u8, bytes: usize) -> Result<(), Fault> {
        self.reuse.freed(block as u64);
        // SAFETY: the caller's.
        unsafe { self.inner.ends(slot, block, bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::touch::Nothing;
    use crate::word::Op;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Twice what the block's number says.
    unsafe extern "C" fn twice(block: *mut c_void) -> usize {
        block as usize * 2
    }

    #[test]
    fn usable_bytes_are_those_of_live_blocks() {
        let mut watched = Watched::new(Nothing, Usable::Block(twice), 3).unwrap();
        let mut step = |kind, number: usize, block, bytes| {
            let op = Op {
                kind,
                slot: number as u32,
                bytes: 0,
                align_log2: 0,
            };
            watched.ended(op.encode().1, number, &Slot { block, bytes }, false);
            watched.usable_bytes
        };
        assert_eq!(step(word::ALLOC, 0, 10, 12), 20);
        // Fewer usable bytes than requested ones: the library does not know.
        assert_eq!(step(word::ZEROED, 2, 1, 100), 120);
        assert_eq!(step(word::UNLOCK, 2, 1, 100), 120);
        assert_eq!(step(word::RESIZE, 0, 30, 50), 160);
        assert_eq!(step(word::FREE, 2, 1, 100), 60);
        // A byte in page 1 to one in page 3; the other slots are empty.
        assert_eq!(watched.pages(|slot| (4096 * (slot as u64 + 1), 8193)), 3);
        assert_eq!(watched.pages(|_| (4096, 0)), 0);
    }

    proptest! {
        /// As a set of all pages counts them.
        #[test]
        fn pages_are_counted_once(spans in proptest::collection::vec((0u64..60, 0u64..9), 0..40)) {
            let mut spans: Vec<[u64; 2]> = spans.into_iter().map(|(first, more)| [first, first + more]).collect();
            let all: BTreeSet<u64> = spans.iter().flat_map(|[first, last]| *first..=*last).collect();
            prop_assert_eq!(union(&mut spans), all.len() as u64);
        }
    }
}
