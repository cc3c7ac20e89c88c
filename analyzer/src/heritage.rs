//! Inherited blocks of a process: how many there were, what of them lives, for how long they lived.

use crate::fact::{Fact, What};
use crate::fates::Sum;
use crate::live::Live;

/// Follows the inherited blocks of a process.
#[derive(Debug, Default)]
pub(crate) struct Heritage {
    /// All that was inherited.
    pub all: Sum,
    /// What of it is still live.
    pub live: Sum,
    /// Sum of end times less sum of begin times, modulo 2^128.
    integral: u128,
}

impl Heritage {
    /// Blocks are inherited.
    pub fn inherit(&mut self, now_ns: u64, more: Live) {
        for sum in [&mut self.all, &mut self.live] {
            sum.blocks = sum.blocks.wrapping_add(more.blocks);
            sum.bytes = sum.bytes.wrapping_add(more.bytes);
        }
        let area = u128::from(now_ns) * u128::from(more.blocks);
        self.integral = self.integral.wrapping_sub(area);
    }

    /// A block turns out not to have been inherited.
    pub fn uninherit(&mut self, now_ns: u64, bytes: u64) {
        self.all.sub(bytes);
        self.gone(now_ns, bytes);
    }

    /// A fact about an inherited block.
    #[cold]
    pub fn fact(&mut self, fact: &Fact) {
        match fact.what {
            What::Freed | What::Displaced => self.gone(fact.time_ns, fact.bytes),
            What::Resized => {
                let live = &mut self.live.bytes;
                *live = live.wrapping_add(fact.bytes).wrapping_sub(fact.old_bytes);
            }
            What::Born | What::Kept | What::Nothing => {}
        }
    }

    fn gone(&mut self, now_ns: u64, bytes: u64) {
        self.live.sub(bytes);
        self.integral = self.integral.wrapping_add(now_ns.into());
    }

    /// Integral over time of the live ones, up to now.
    pub fn integral(&self, now_ns: u64) -> u128 {
        let at_end = u128::from(now_ns) * u128::from(self.live.blocks);
        self.integral.wrapping_add(at_end)
    }
}
