//! Blocks and bytes by what became of them.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::heritage::Heritage;
use crate::report::{Blocks, Bytes};

/// Blocks and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub blocks: u64,
    pub bytes: u64,
}

impl Sum {
    #[inline]
    pub fn add(&mut self, bytes: u64) {
        self.blocks = self.blocks.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    #[inline]
    pub fn sub(&mut self, bytes: u64) {
        self.blocks = self.blocks.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(bytes);
    }
}

/// Follows the blocks of a process.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    /// Sizes of blocks and what resizes added: the bytes clock, but for blocks that are left out.
    requested: u64,
    allocated: u64,
    freed: Sum,
    shrunk: u64,
    displaced: Sum,
    /// Displaced blocks that were not inherited.
    pub displaced_own: u64,
    /// Of the displaced blocks, those that a pause explains.
    lost_in_pause: u64,
}

impl Measure for Fates {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        match fact.what {
            What::Born => {
                self.allocated += 1;
                self.requested = self.requested.wrapping_add(fact.bytes);
            }
            What::Freed => self.freed.add(fact.bytes),
            What::Resized => self.resized(fact),
            What::Displaced => self.displaced(fact),
            What::Kept | What::Nothing => {}
        }
    }
}

impl Fates {
    fn resized(&mut self, fact: &Fact) {
        let more = fact.bytes.saturating_sub(fact.old_bytes);
        self.requested = self.requested.wrapping_add(more);
        let less = fact.old_bytes.saturating_sub(fact.bytes);
        self.shrunk = self.shrunk.wrapping_add(less);
    }

    #[cold]
    fn displaced(&mut self, fact: &Fact) {
        self.displaced.add(fact.bytes);
        self.lost_in_pause += u64::from(fact.flags & Fact::PAUSED != 0);
        self.displaced_own += u64::from(!fact.is_inherited());
    }

    /// Blocks allocated.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// The figures, given what of its own the process did not free, what was found in its tables, and
    /// its peak of live bytes.
    pub fn report(
        &self,
        own: Sum,
        live: Sum,
        released: bool,
        peak_live: u64,
        heritage: &Heritage,
    ) -> (Blocks, Bytes) {
        let inherited = heritage.all;
        let of_end = |ended: bool, amount: u64| if ended { amount } else { 0 };
        let blocks = Blocks {
            allocated: self.allocated,
            freed: self.freed.blocks,
            never_freed: own.blocks,
            inherited: inherited.blocks,
            released: of_end(released, live.blocks),
            live_at_end: of_end(!released, live.blocks),
            displaced: self.displaced.blocks,
            lost_in_pause: self.lost_in_pause,
        };
        let bytes = Bytes {
            requested: self.requested,
            freed: self.freed.bytes,
            shrunk: self.shrunk,
            peak_live,
            live_at_end: of_end(!released, live.bytes),
            never_freed: own.bytes,
            inherited: inherited.bytes,
            released: of_end(released, live.bytes),
            displaced: self.displaced.bytes,
        };
        (blocks, bytes)
    }
}
