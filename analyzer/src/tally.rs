//! What calls did to blocks within a stretch of time: a bin of a curve, a phase. Inherited blocks are
//! left out by whoever counts.

use crate::fact::{Fact, What};
use serde::Serialize;

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Blocks.
    pub blocks: u64,
    /// Their requested bytes.
    pub bytes: u64,
}

impl Amount {
    /// One more block.
    #[inline]
    pub fn count(&mut self, bytes: u64) {
        self.blocks = self.blocks.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    /// All of another.
    #[inline]
    pub fn add(&mut self, other: Amount) {
        self.blocks = self.blocks.wrapping_add(other.blocks);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// Calls and bytes of a stretch of time. Live blocks change by
/// `allocations - frees - blocks_released`, live bytes by
/// `bytes_allocated - bytes_freed - bytes_released`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Blocks born.
    pub allocations: u64,
    /// Blocks that were freed or displaced.
    pub frees: u64,
    /// Resizes.
    pub reallocs: u64,
    /// Sizes of new blocks and what resizes added.
    pub bytes_allocated: u64,
    /// Sizes of blocks that were freed or displaced, and what resizes took away.
    pub bytes_freed: u64,
    /// Blocks held by processes that ended in it.
    pub blocks_released: u64,
    /// Bytes held by processes that ended in it.
    pub bytes_released: u64,
}

impl Tally {
    /// Counts a fact; kept blocks are not told here.
    #[inline]
    pub(crate) fn count(&mut self, fact: &Fact) {
        match fact.what {
            What::Born => {
                self.allocations = self.allocations.wrapping_add(1);
                self.bytes_allocated = self.bytes_allocated.wrapping_add(fact.bytes);
            }
            What::Freed | What::Displaced => {
                self.frees = self.frees.wrapping_add(1);
                self.bytes_freed = self.bytes_freed.wrapping_add(fact.bytes);
            }
            What::Resized => {
                let (from, to) = (fact.old_bytes, fact.bytes);
                self.reallocs = self.reallocs.wrapping_add(1);
                let (more, less) = (to.saturating_sub(from), from.saturating_sub(to));
                self.bytes_allocated = self.bytes_allocated.wrapping_add(more);
                self.bytes_freed = self.bytes_freed.wrapping_add(less);
            }
            What::Kept | What::Nothing => {}
        }
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Tally) {
        self.allocations = self.allocations.wrapping_add(other.allocations);
        self.frees = self.frees.wrapping_add(other.frees);
        self.reallocs = self.reallocs.wrapping_add(other.reallocs);
        self.bytes_allocated = self.bytes_allocated.wrapping_add(other.bytes_allocated);
        self.bytes_freed = self.bytes_freed.wrapping_add(other.bytes_freed);
        self.blocks_released = self.blocks_released.wrapping_add(other.blocks_released);
        self.bytes_released = self.bytes_released.wrapping_add(other.bytes_released);
    }

    /// Allocations, frees and resizes.
    pub fn calls(&self) -> u64 {
        let sum = self.allocations.saturating_add(self.frees);
        sum.saturating_add(self.reallocs)
    }

    /// `live` after this stretch, given what lived before it (modulo 2^64).
    pub fn after(&self, live: Amount) -> Amount {
        let less_blocks = self.frees.wrapping_add(self.blocks_released);
        let less_bytes = self.bytes_freed.wrapping_add(self.bytes_released);
        let blocks = live.blocks.wrapping_add(self.allocations);
        let bytes = live.bytes.wrapping_add(self.bytes_allocated);
        Amount {
            blocks: blocks.wrapping_sub(less_blocks),
            bytes: bytes.wrapping_sub(less_bytes),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Tally::default()
    }
}

/// What processes held when they ended, as far as the latest of these ends is concerned: what was
/// held then is released if the run goes on, else it is live at the run's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub at_ns: u64,
    pub what: Amount,
}

impl Held {
    /// Takes what was held at another end. What belongs to the earlier of two ends is given back: it
    /// was released.
    pub fn take(&mut self, other: Held) -> Option<Held> {
        if other.what == Amount::default() {
            return None;
        }
        if self.what == Amount::default() {
            *self = other;
            return None;
        }
        if self.at_ns == other.at_ns {
            self.what.add(other.what);
            return None;
        }
        if other.at_ns < self.at_ns {
            return Some(other);
        }
        Some(std::mem::replace(self, other))
    }

    /// As a release.
    pub fn released(&self) -> Tally {
        Tally {
            blocks_released: self.what.blocks,
            bytes_released: self.what.bytes,
            ..Tally::default()
        }
    }
}

/// The element at `at`; those up to it are made if need be.
pub(crate) fn reach<T: Clone + Default>(all: &mut Vec<T>, at: usize) -> &mut T {
    if at >= all.len() {
        all.resize(at + 1, T::default());
    }
    &mut all[at]
}

/// What slow twins have in common.
#[cfg(test)]
pub(crate) mod slow {
    use crate::fact::sample::Stream;
    use crate::fact::{Fact, Measure};

    /// Tells the facts of a process that began `later_ns` later.
    pub fn tell_later(stream: &Stream, later_ns: u64, measure: &mut impl Measure) {
        for (fact, peaks) in &stream.told {
            let time_ns = fact.time_ns + later_ns;
            measure.fact(&Fact { time_ns, ..*fact }, *peaks);
        }
    }

    /// `[low, high)` of the power of two that a number is in; zero is a class of its own.
    pub fn power(number: u64) -> (u64, u64) {
        let (mut low, mut high) = (0, 1);
        while high <= number {
            (low, high) = (high, high * 2);
        }
        (low, high)
    }
}
