//! Calls by kind, and what went wrong.

use crate::fact::{Fact, Measure, Peaks, What};
use rmtrace_format::{Kind, spool};
use serde::Serialize;

/// Calls of a process or a run. `free(NULL)` is not a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Events {
    /// All calls, failed ones included: the sum of the five kinds.
    pub total: u64,
    /// malloc, strdup, strndup, operator new.
    pub malloc: u64,
    /// calloc.
    pub calloc: u64,
    /// realloc and reallocarray, from NULL and to zero included.
    pub realloc: u64,
    /// All forms that take an alignment.
    pub memalign: u64,
    /// Frees of an address other than NULL; unknown and inherited ones included.
    pub free: u64,
    /// Calls that asked for memory and got none.
    pub failed: u64,
    /// Calls that were made but could not be recorded.
    pub dropped: u64,
    /// Frees and reallocs of an address at which no block was known.
    pub unknown_frees: u64,
    /// Allocations at an address at which a block was still known to live.
    pub live_duplicates: u64,
}

impl Events {
    /// Adds all of another.
    pub fn merge(&mut self, other: &Events) {
        self.total += other.total;
        self.malloc += other.malloc;
        self.calloc += other.calloc;
        self.realloc += other.realloc;
        self.memalign += other.memalign;
        self.free += other.free;
        self.failed += other.failed;
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.unknown_frees += other.unknown_frees;
        self.live_duplicates += other.live_duplicates;
    }
}

/// Counts calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    total: u64,
    by_kind: [u64; Kind::COUNT],
    failed: u64,
    unknown_frees: u64,
    live_duplicates: u64,
}

impl Measure for Counts {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        let call = u64::from(fact.is_call());
        self.total += call;
        self.by_kind[fact.entry.kind() as usize] += call;
        if fact.what == What::Nothing || fact.flags & Fact::UNKNOWN != 0 || call == 0 {
            self.rare(fact);
        }
    }
}

impl Counts {
    #[cold]
    fn rare(&mut self, fact: &Fact) {
        let unknown = fact.flags & Fact::UNKNOWN != 0;
        let paused = fact.flags & Fact::PAUSED != 0;
        self.failed += u64::from(fact.what == What::Nothing && !unknown);
        self.unknown_frees += u64::from(unknown && !paused);
        self.live_duplicates += u64::from(fact.what == What::Displaced && !paused);
    }

    /// What was counted, and what the trace says was dropped.
    pub fn events(&self, dropped: u64) -> Events {
        let of = |kind: Kind| self.by_kind[kind as usize];
        Events {
            total: self.total,
            malloc: of(Kind::Malloc),
            calloc: of(Kind::Calloc),
            realloc: of(Kind::Realloc),
            memalign: of(Kind::Memalign),
            free: of(Kind::Free),
            failed: self.failed,
            dropped,
            unknown_frees: self.unknown_frees,
            live_duplicates: self.live_duplicates,
        }
    }
}

/// Dropped calls by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The reason ([`spool::Drop::name`]).
    pub reason: &'static str,
    /// Calls.
    pub calls: u64,
}

/// The reasons that occurred.
pub(crate) fn dropped_by_reason(dropped: &[u64; spool::Drop::COUNT]) -> Vec<Dropped> {
    let all = spool::Drop::ALL.iter().zip(dropped);
    all.filter(|(_, calls)| **calls != 0)
        .map(|(reason, calls)| Dropped {
            reason: reason.name(),
            calls: *calls,
        })
        .collect()
}
