//! First pass of the packing: when blocks die, as far as it is worth knowing. The process' calls are
//! cut into epochs; a block that survives the epoch of its birth is noted with its death.

use crate::fact::{Fact, Measure, Peaks, What};

/// Epochs.
pub const EPOCHS: u64 = 64;

/// Death of a block that was not freed.
pub(super) const NEVER: u64 = u64::MAX;

/// A block that survived the epoch of its birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Note {
    /// Number of the block in the order of births, from 1 on.
    pub number: u64,
    /// The process' clock of calls when it ended; [`NEVER`] where it did not.
    pub death: u64,
}

/// The first pass. Its memory: 16 bytes for each block that survived the epoch of its birth, so at
/// most [`EPOCHS`] times the most blocks that live at once. A fact costs about 35
/// instructions.
#[derive(Clone, Debug)]
pub struct Deaths {
    epoch_calls: u64,
    /// The current epoch has the calls above this...
    epoch_start: u64,
    /// ... up to this.
    epoch_end: u64,
    notes: Vec<Note>,
    rounded: u64,
    rounded_peak: u64,
    peak_call: u64,
}

impl Deaths {
    /// Of a process that makes so many calls in all (as the index of the trace says; another number
    /// makes the packing worse, not wrong).
    pub fn new(calls: u64) -> Deaths {
        let epoch_calls = calls.div_ceil(EPOCHS).max(1);
        Deaths {
            epoch_calls,
            epoch_start: 0,
            epoch_end: epoch_calls,
            notes: Vec::new(),
            rounded: 0,
            rounded_peak: 0,
            peak_call: 0,
        }
    }

    #[cold]
    fn next_epoch(&mut self, call: u64) {
        let epoch = call.saturating_sub(1) / self.epoch_calls;
        self.epoch_start = epoch.saturating_mul(self.epoch_calls);
        self.epoch_end = self.epoch_start.saturating_add(self.epoch_calls);
    }

    /// What the second pass needs.
    pub fn plan(mut self) -> Plan {
        self.notes.sort_unstable();
        Plan {
            notes: self.notes,
            next: 0,
            epoch_calls: self.epoch_calls,
            peak_call: self.peak_call,
        }
    }
}

impl Measure for Deaths {
    #[inline]
    fn fact(&mut self, fact: &Fact, _peaks: Peaks) {
        if fact.is_inherited() || fact.what == What::Nothing {
            return;
        }
        let call = fact.clock_events;
        if call > self.epoch_end {
            self.next_epoch(call);
        }
        if !matches!(fact.what, What::Born | What::Resized) {
            let is_kept = fact.what == What::Kept;
            if is_kept || call.saturating_sub(fact.life_events) <= self.epoch_start {
                self.notes.push(Note {
                    number: fact.clock_allocations.saturating_sub(fact.life_allocations),
                    death: if is_kept { NEVER } else { call },
                });
            }
            if is_kept {
                return;
            }
        }
        let (less, more) = match fact.what {
            What::Born => (0, super::rounded(fact.bytes)),
            What::Resized => (super::rounded(fact.old_bytes), super::rounded(fact.bytes)),
            _ => (super::rounded(fact.bytes), 0),
        };
        self.rounded = self.rounded.wrapping_sub(less).wrapping_add(more);
        if self.rounded > self.rounded_peak {
            self.rounded_peak = self.rounded;
            self.peak_call = call;
        }
    }
}

/// What is known of deaths when a block is born.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By number.
    pub(super) notes: Vec<Note>,
    /// Those before have been asked for.
    next: usize,
    pub(super) epoch_calls: u64,
    /// Call after which the rounded sizes of live blocks were most, for the first time.
    pub(super) peak_call: u64,
}

/// What is known of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The epoch of its death, from 0; that after the last where it is not freed. `None` where it is
    /// freed in the epoch of its birth.
    pub epoch: Option<u64>,
    /// It lives at the peak.
    pub at_peak: bool,
}

impl Plan {
    /// What is known of block `number`, born at `call`. Numbers rise from one question to the next.
    pub(super) fn known(&mut self, number: u64, call: u64) -> Known {
        while self
            .notes
            .get(self.next)
            .is_some_and(|note| note.number < number)
        {
            self.next += 1;
        }
        let Some(note) = self
            .notes
            .get(self.next)
            .filter(|note| note.number == number)
        else {
            return Known::default();
        };
        let epoch = match note.death {
            NEVER => EPOCHS,
            call => (call.saturating_sub(1) / self.epoch_calls).min(EPOCHS),
        };
        Known {
            epoch: Some(epoch),
            at_peak: call <= self.peak_call && self.peak_call < note.death,
        }
    }
}
