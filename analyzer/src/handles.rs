//! What a handle table would see of one process: entries in use over time, how often entries are
//! used again, segments that hold a live entry, time above a number of entries, and what a handle
//! beside each block would take. Own blocks only; sizes are in [`crate::worth`], what follows from
//! the figures in [`crate::advice`].
//!
//! There is nothing to merge into a run's figures: a table belongs to one process. A run has the
//! figures of the process with the highest peak.

mod bins;
mod levels;
mod segments;

pub use bins::HandleCurve;
pub use levels::Over;
pub use segments::SegmentReport;

use crate::fact::{Fact, Measure, Peaks, What};
use crate::worth::{SizeRow, Sizes};
use bins::Bins;
use levels::Levels;
use segments::Segments;
use serde::Serialize;

/// Entries by how often they were used again: `[low, high)` times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReuseBin {
    /// Fewest reuses of the class.
    pub low: u64,
    /// First number of reuses above.
    pub high: u64,
    /// Entries.
    pub entries: u64,
}

/// How often entries are used again in a table that gives out the entry freed last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reuse {
    /// Entries that were ever used.
    pub entries: u64,
    /// Reuses of the busiest entry.
    pub most: u64,
    /// Reuses per entry in thousandths: no policy can have less for its busiest entry.
    pub mean_milli: u64,
    /// Entries by reuses, in powers of two; none at all is a class of its own.
    pub histogram: Vec<ReuseBin>,
}

/// The handles of one process. All figures are of blocks that it allocated itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HandlesReport {
    /// From the start of the process to its end.
    pub duration_ns: u64,
    /// Blocks born: entries given out.
    pub births: u64,
    /// Most entries in use at once.
    pub entries_peak: u64,
    /// When that was first so.
    pub entries_peak_at_ns: u64,
    /// Entries in use, mean over time, in thousandths.
    pub entries_mean_milli: u64,
    /// Entries in use at the end.
    pub entries_at_end: u64,
    /// Entries that suffice for half of the time (at most 1/16 too high).
    pub entries_half_of_time: u64,
    /// Requested bytes live at the peak of entries.
    pub live_bytes_at_peak: u64,
    /// The same, each block rounded up to 16 bytes.
    pub live_bytes_rounded_at_peak: u64,
    /// What a handle of 8 bytes beside each block adds to that after rounding.
    pub in_place_bytes_at_peak: u64,
    /// Requested bytes live, mean over time.
    pub live_bytes_mean: u64,
    /// What a handle beside each block adds, mean over time.
    pub in_place_bytes_mean: u64,
    /// What a handle beside each block adds at the end.
    pub in_place_bytes_at_end: u64,
    /// Reuse of entries.
    pub reuse: Reuse,
    /// Segments that hold a live entry.
    pub segments: Vec<SegmentReport>,
    /// Time and births above a number of entries, from a sixteenth of the peak up to it.
    pub overflow: Vec<Over>,
    /// Over time.
    pub curve: HandleCurve,
    /// Blocks by size.
    pub sizes: Vec<SizeRow>,
}

/// `value / by`, 0 where `by` is; no more than 64 bits hold.
pub(crate) fn quotient(value: u128, by: u64) -> u64 {
    let quotient = value.checked_div(by.into()).unwrap_or(0);
    u64::try_from(quotient).unwrap_or(u64::MAX)
}

/// Takes the facts of a process and follows its handles.
///
/// A birth or a free touches a counter of its entry (4 bytes), a word of a bitmap and the cell of its
/// size; the last two stay in the first-level cache. What happens seldom is out of line: segments that
/// come and go, levels, bins. There is no division. Callgrind counts 100 instructions a call of a Firefox
/// trace, 7 % of what `rmtrace analyze` takes in one thread.
#[derive(Clone, Debug)]
pub struct Handles {
    start_ns: u64,
    live: u64,
    most: u64,
    most_at_ns: u64,
    /// Peaks of own blocks so far, as [`crate::fact::AtPeak`] counts them.
    peaks: u64,
    /// Times each entry was given out.
    births_of: Vec<u32>,
    segments: Segments,
    levels: Levels,
    bins: Bins,
    sizes: Sizes,
}

impl Handles {
    /// Of a process that began at `start_ns`.
    pub fn new(start_ns: u64) -> Handles {
        Handles {
            start_ns,
            live: 0,
            most: 0,
            most_at_ns: start_ns,
            peaks: 0,
            births_of: Vec::new(),
            segments: Segments::default(),
            levels: Levels::new(start_ns),
            bins: Bins::new(start_ns),
            sizes: Sizes::default(),
        }
    }

    #[inline(always)]
    fn born(&mut self, fact: &Fact) {
        let now_ns = fact.time_ns;
        self.bins
            .hold(now_ns, self.live, self.segments.pages_held());
        self.live += 1;
        self.sizes.born(self.peaks, now_ns, fact.bytes);
        let at = fact.handle as usize;
        if at >= self.births_of.len() {
            self.reach(at);
        }
        let births = &mut self.births_of[at];
        *births = births.saturating_add(1);
        if self.segments.take(now_ns, fact.handle, self.live) {
            self.bins.came(self.segments.pages_held());
        }
        self.levels.rise(now_ns, self.live);
        self.bins.born(self.live);
        if self.live > self.most {
            self.most = self.live;
            self.most_at_ns = now_ns;
            self.peaks += 1;
        }
    }

    #[cold]
    fn reach(&mut self, at: usize) {
        let room = at.saturating_add(1).checked_next_power_of_two();
        self.births_of.resize(room.unwrap_or(at + 1).max(8), 0);
    }

    #[inline(always)]
    fn ended(&mut self, fact: &Fact) {
        let now_ns = fact.time_ns;
        self.bins
            .hold(now_ns, self.live, self.segments.pages_held());
        self.live = self.live.saturating_sub(1);
        self.sizes.ended(self.peaks, fact.life_ns, fact.bytes);
        self.segments.give(now_ns, fact.handle, self.live);
        self.levels.fall(now_ns, self.live);
        self.bins.freed();
    }

    #[inline(never)]
    fn resized(&mut self, fact: &Fact) {
        self.sizes.resized(
            self.peaks,
            fact.time_ns,
            fact.life_ns,
            fact.old_bytes,
            fact.bytes,
        );
    }

    /// The figures of a process that ends now; [`What::Kept`] blocks have been told.
    pub fn report(&self, end_ns: u64) -> HandlesReport {
        let duration_ns = end_ns.saturating_sub(self.start_ns);
        let mut levels = self.levels.clone();
        levels.end(end_ns);
        let (sizes, all) = self.sizes.rows(self.peaks, end_ns, duration_ns);
        HandlesReport {
            duration_ns,
            births: self
                .births_of
                .iter()
                .fold(0, |all, births| all + u64::from(*births)),
            entries_peak: self.most,
            entries_peak_at_ns: self.most_at_ns,
            entries_mean_milli: all.blocks_mean_milli,
            entries_at_end: self.live,
            entries_half_of_time: levels.enough_for(1, 2, self.most),
            live_bytes_at_peak: all.bytes_at_peak,
            live_bytes_rounded_at_peak: all.rounded_at_peak,
            in_place_bytes_at_peak: all.in_place_at_peak,
            live_bytes_mean: all.bytes_mean,
            in_place_bytes_mean: all.in_place_mean,
            in_place_bytes_at_end: self.sizes.in_place_now(),
            reuse: self.reuse(),
            segments: self.segments.reports(end_ns, duration_ns),
            overflow: levels.over(self.most),
            curve: self
                .bins
                .clone()
                .finish(end_ns, self.live, self.segments.pages_held()),
            sizes,
        }
    }

    fn reuse(&self) -> Reuse {
        let mut classes = [0u64; 33];
        let (mut most, mut entries, mut all) = (0, 0, 0u64);
        for births in self.births_of.iter().filter(|births| **births != 0) {
            let reuses = births - 1;
            most = most.max(reuses);
            entries += 1;
            all += u64::from(reuses);
            classes[32 - reuses.leading_zeros() as usize] += 1;
        }
        let bounds = |class: usize| match class {
            0 => (0, 1),
            _ => (1 << (class - 1), 1 << class),
        };
        Reuse {
            entries,
            most: most.into(),
            mean_milli: quotient(u128::from(all) * 1000, entries),
            histogram: classes
                .iter()
                .enumerate()
                .filter(|(_, entries)| **entries != 0)
                .map(|(class, &entries)| {
                    let (low, high) = bounds(class);
                    ReuseBin { low, high, entries }
                })
                .collect(),
        }
    }
}

impl HandlesReport {
    /// Time and births above `entries`: what the curve of [`HandlesReport::overflow`] says of the
    /// greatest number in it that is not above, so never too little.
    pub fn over(&self, entries: u64) -> Over {
        if entries >= self.entries_peak {
            return Over {
                entries,
                ..Over::default()
            };
        }
        let point = self.overflow.iter().rfind(|over| over.entries <= entries);
        point.map_or(
            Over {
                entries,
                time_ns: self.duration_ns,
                births: self.births,
            },
            |point| Over {
                entries,
                ..point.clone()
            },
        )
    }

    /// The segments of so many entries, if any were held.
    pub fn segments_of(&self, entries: u64) -> Option<&SegmentReport> {
        self.segments
            .iter()
            .find(|segments| segments.entries == entries)
    }
}

impl Measure for Handles {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, _peaks: Peaks) {
        if fact.handle == Fact::NO_HANDLE {
            return;
        }
        match fact.what {
            What::Born => self.born(fact),
            What::Freed | What::Displaced => self.ended(fact),
            What::Resized => self.resized(fact),
            What::Kept => self.sizes.kept(fact.life_ns, fact.bytes),
            What::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests;
