//! How blocks ended: in which thread, by which call, whose they were.

use crate::fact::{Fact, Measure, Peaks, What};
use serde::Serialize;

/// Blocks that ended, by how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frees {
    /// Blocks freed, inherited ones included: the same as `blocks.freed`.
    pub total: u64,
    /// Of the process' own blocks, those that another thread freed than the one that allocated them.
    pub cross_thread: u64,
    /// Inherited blocks that were freed.
    pub inherited: u64,
    /// Blocks that a realloc ended by returning NULL.
    pub by_realloc: u64,
    /// Frees and reallocs of an address at which no block was known: `events.unknown_frees`.
    pub unknown: u64,
    /// The same in a run that had been paused before: of blocks from a pause, or from before the start.
    pub before_start: u64,
}

impl Measure for Frees {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        if fact.what == What::Freed {
            self.total += 1;
            let own = !fact.is_inherited();
            self.cross_thread += u64::from(own && fact.thread != fact.born_thread);
            self.inherited += u64::from(!own);
            self.by_realloc += u64::from(fact.is_realloc());
        }
        if fact.flags & Fact::UNKNOWN != 0 {
            match fact.flags & Fact::PAUSED != 0 {
                true => self.before_start += 1,
                false => self.unknown += 1,
            }
        }
    }
}

impl Frees {
    /// Adds all of another.
    pub fn merge(&mut self, other: &Frees) {
        self.total += other.total;
        self.cross_thread += other.cross_thread;
        self.inherited += other.inherited;
        self.by_realloc += other.by_realloc;
        self.unknown += other.unknown;
        self.before_start += other.before_start;
    }
}
