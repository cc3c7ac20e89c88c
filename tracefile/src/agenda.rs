//! What a merge has to do at given times beside delivering events: open frames, tell of processes,
//! marks and samples.

use crate::model::{Mark, Sample};
use std::cmp::Ordering;

/// Something that is due at a time, apart from events.
pub(crate) struct Appointment {
    pub(crate) ns: u64,
    pub(crate) phase: u8,
    pub(crate) order: u64,
    pub(crate) what: What,
}

pub(crate) enum What {
    Start(usize),
    Frame(usize),
    Side(usize),
    Mark(Box<Mark>),
    Sample(Box<Sample>),
    End(usize),
}

/// Phase of an end: after the events of its tick; the others come before.
pub(crate) const PHASE_END: u8 = 3;

impl Appointment {
    pub(crate) fn key(&self) -> (u64, u8, u64) {
        (self.ns, self.phase, self.order)
    }
}

impl PartialEq for Appointment {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Appointment {}
impl PartialOrd for Appointment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Appointment {
    /// Earliest greatest, as [`BinaryHeap`] wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}
