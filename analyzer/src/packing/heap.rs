//! One stretch of addresses without end, from 0 on: best fit (of equal holes the lowest), holes that
//! touch become one. Nothing moves.

use super::GRAIN;
use std::collections::{BTreeMap, BTreeSet};

/// Addresses end here.
pub(crate) const HEAP_BITS: u32 = 56;

/// The stretch. Placing and freeing take two to four steps in trees of the holes: O(log n).
#[derive(Clone, Debug, Default)]
pub(crate) struct Heap {
    /// Holes below `top`: address and bytes. None touches another or `top`.
    holes: BTreeMap<u64, u64>,
    /// The same: bytes and address.
    by_bytes: BTreeSet<(u64, u64)>,
    /// Nothing is placed from here on.
    top: u64,
}

impl Heap {
    fn add_hole(&mut self, at: u64, bytes: u64) {
        if bytes != 0 {
            self.holes.insert(at, bytes);
            self.by_bytes.insert((bytes, at));
        }
    }

    fn take_hole(&mut self, at: u64, bytes: u64) {
        self.holes.remove(&at);
        self.by_bytes.remove(&(bytes, at));
    }

    /// Places a block of so many bytes (a multiple of [`GRAIN`], not 0) at a multiple of `align` (a
    /// power of two, [`GRAIN`] at least). `None` where addresses end.
    pub fn place(&mut self, bytes: u64, align: u64) -> Option<u64> {
        // A hole of that many bytes has room whatever its address is.
        let enough = bytes.checked_add(align - GRAIN)?;
        let hole = self.by_bytes.range((enough, 0)..).next().copied();
        if let Some((hole_bytes, hole)) = hole {
            self.take_hole(hole, hole_bytes);
            let at = hole.next_multiple_of(align);
            self.add_hole(hole, at - hole);
            self.add_hole(at + bytes, hole + hole_bytes - (at + bytes));
            return Some(at);
        }
        let at = self.top.checked_next_multiple_of(align)?;
        let end = at.checked_add(bytes)?;
        if end >> HEAP_BITS != 0 {
            return None;
        }
        let top = std::mem::replace(&mut self.top, end);
        self.add_hole(top, at - top);
        Some(at)
    }

    /// Frees what was placed, or a part of it.
    pub fn free(&mut self, at: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let (mut low, mut high) = (at, at + bytes);
        let before = self.holes.range(..at).next_back();
        if let Some((hole, hole_bytes)) = before.map(|(hole, bytes)| (*hole, *bytes))
            && hole + hole_bytes == at
        {
            self.take_hole(hole, hole_bytes);
            low = hole;
        }
        if let Some(hole_bytes) = self.holes.get(&high).copied() {
            self.take_hole(high, hole_bytes);
            high += hole_bytes;
        }
        if high == self.top {
            self.top = low;
        } else {
            self.add_hole(low, high - low);
        }
    }
}
