//! Entries and segments over time in a bounded number of bins: greatest values, and sums of births and
//! frees. Bins are as in [`crate::series`]: pairs become one when they run out.

use crate::series::{BINS_PROCESS, SHIFT_MIN};
use serde::Serialize;

/// The curves of a process' handles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HandleCurve {
    /// Where the first bin begins, in nanoseconds since the run's first record.
    pub start_ns: u64,
    /// Width of a bin: a power of two of nanoseconds.
    pub step_ns: u64,
    /// Most entries in use, by bin.
    pub entries: Vec<u64>,
    /// Most segments of 512 entries that held a live one.
    pub segments: Vec<u64>,
    /// Entries given out.
    pub births: Vec<u64>,
    /// Entries given back.
    pub frees: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    entries: u64,
    segments: u64,
    births: u64,
    frees: u64,
}

impl Bin {
    fn of(entries: u64, segments: u64) -> Bin {
        Bin {
            entries,
            segments,
            ..Bin::default()
        }
    }

    fn join(self, other: Bin) -> Bin {
        Bin {
            entries: self.entries.max(other.entries),
            segments: self.segments.max(other.segments),
            births: self.births + other.births,
            frees: self.frees + other.frees,
        }
    }
}

/// Collects the curves.
#[derive(Clone, Debug)]
pub(super) struct Bins {
    start_ns: u64,
    end_ns: u64,
    current: Bin,
    bins: Vec<Bin>,
    shift: u32,
}

impl Bins {
    pub fn new(start_ns: u64) -> Bins {
        Bins {
            start_ns,
            end_ns: start_ns.saturating_add(1 << SHIFT_MIN),
            current: Bin::default(),
            bins: Vec::new(),
            shift: SHIFT_MIN,
        }
    }

    /// Says what held until now.
    #[inline]
    pub fn hold(&mut self, now_ns: u64, entries: u64, segments: u64) {
        if now_ns >= self.end_ns {
            self.turn(now_ns, Bin::of(entries, segments));
        }
    }

    /// An entry was given out; so many are now.
    #[inline]
    pub fn born(&mut self, entries: u64) {
        self.current.entries = self.current.entries.max(entries);
        self.current.births += 1;
    }

    /// A segment came; so many are held now.
    pub fn came(&mut self, segments: u64) {
        self.current.segments = self.current.segments.max(segments);
    }

    /// An entry was given back.
    #[inline]
    pub fn freed(&mut self) {
        self.current.frees += 1;
    }

    #[cold]
    fn turn(&mut self, now_ns: u64, held: Bin) {
        self.bins.push(self.current);
        let passed_ns = now_ns.saturating_sub(self.start_ns);
        while passed_ns >> self.shift >= BINS_PROCESS as u64 {
            self.shift += 1;
            let pairs = self.bins.chunks(2);
            self.bins = pairs
                .map(|pair| pair.iter().copied().fold(Bin::default(), Bin::join))
                .collect();
        }
        let bin = (passed_ns >> self.shift) as usize;
        self.current = held;
        if bin < self.bins.len() {
            // By doubling, the last bin came to hold this moment.
            self.current = self.bins.pop().unwrap_or_default().join(held);
        }
        self.bins.resize(bin, held);
        let width = (bin as u64 + 1) << self.shift;
        self.end_ns = self.start_ns.saturating_add(width);
    }

    /// The curves up to now.
    pub fn finish(mut self, now_ns: u64, entries: u64, segments: u64) -> HandleCurve {
        self.hold(now_ns, entries, segments);
        self.bins.push(self.current);
        let of = |value: fn(&Bin) -> u64| self.bins.iter().map(value).collect();
        HandleCurve {
            start_ns: self.start_ns,
            step_ns: 1 << self.shift,
            entries: of(|bin| bin.entries),
            segments: of(|bin| bin.segments),
            births: of(|bin| bin.births),
            frees: of(|bin| bin.frees),
        }
    }
}
