//! What the address-space view tells: of a process, and summed over processes.

use super::census::{Census, Sparse};
use super::table::PAGE_BYTES;
use super::{LEVELS, level_bounds};
use crate::ratio::ppm;
use serde::Serialize;

/// Pages that hold a live block, and live bytes, at the same moment (or both in the mean over time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// Pages of 4 KiB that hold a part of a live block.
    pub pages: u64,
    /// The same in bytes.
    pub held_bytes: u64,
    /// Live bytes (requested).
    pub live_bytes: u64,
    /// External fragmentation in millionths: 1 - live / held.
    pub external_fragmentation_ppm: u64,
}

impl Holding {
    pub(crate) fn new(pages: u64, live_bytes: u64) -> Holding {
        let held_bytes = pages.saturating_mul(PAGE_BYTES);
        Holding {
            pages,
            held_bytes,
            live_bytes,
            external_fragmentation_ppm: lost_ppm(held_bytes.into(), live_bytes.into()),
        }
    }
}

/// 1 - part / whole in millionths; 0 of nothing.
pub(crate) fn lost_ppm(whole: u128, part: u128) -> u64 {
    ppm(whole.saturating_sub(part), whole)
}

/// Integral over time divided by the time; without any time, what there is now.
pub(crate) fn mean(integral: u128, duration_ns: u64, now: u64) -> u64 {
    match integral.checked_div(duration_ns.into()) {
        Some(mean) => u64::try_from(mean).unwrap_or(u64::MAX),
        None => now,
    }
}

/// Pages held at one moment, and when that was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HoldingAt {
    /// The first such moment, in nanoseconds since the run's first record.
    pub at_ns: u64,
    /// What was held.
    #[serde(flatten)]
    pub holding: Holding,
}

/// Pages by how many bytes of live blocks they hold, in eighths of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// Least number of live bytes in the page.
    pub low: u64,
    /// First number above.
    pub high: u64,
    /// Such pages in the mean over time.
    pub pages_mean: u64,
    /// Such pages at the end of the process (of the run: at the ends of the processes).
    pub pages_end: u64,
}

/// Nearly empty pages and who held them, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SparseAt {
    /// When that was.
    pub at_ns: u64,
    /// What was held then.
    pub holding: Holding,
    /// The blocks in pages at most an eighth full.
    pub sparse: Sparse,
}

/// What is told of a process and of all processes alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PagesSums {
    /// Mean over time.
    pub mean: Holding,
    /// At the end of the process (of the run: at the ends of the processes, summed).
    pub end: Holding,
    /// Pages by occupancy.
    pub occupancy: Vec<Occupancy>,
    /// The blocks in pages at most an eighth full at the end.
    pub sparse_end: Sparse,
}

/// The address-space view of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PagesReport {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// When most pages were held.
    pub peak: HoldingAt,
    /// At the process' peak of live bytes.
    pub at_live_bytes_peak: Holding,
    /// Pages by occupancy at the process' peak of live bytes, in eighths of a page from empty to full.
    pub occupancy_at_live_bytes_peak: Vec<u64>,
    /// When most bytes of pages held were not live.
    pub gap: HoldingAt,
    /// Over time and at the end.
    pub over_time: PagesSums,
    /// Who held nearly empty pages when the live blocks were last looked at, near the moment of `gap`;
    /// `null` where they were not.
    pub sparse_at_gap: Option<SparseAt>,
    /// Over time.
    pub curve: PagesCurve,
}

/// Pages held over time, in bins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PagesCurve {
    /// Where the first bin begins, in nanoseconds since the run's first record.
    pub start_ns: u64,
    /// Width of a bin.
    pub step_ns: u64,
    /// Greatest number of pages held by bin.
    pub pages: Vec<u64>,
    /// Live bytes at the first moment of that.
    pub live_bytes: Vec<u64>,
}

/// What can be summed over processes.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    pub(super) pages_integral: u128,
    pub(super) live_integral: u128,
    pub(super) level_integrals: [u128; LEVELS],
    pub(super) pages_end: u64,
    pub(super) live_end: u64,
    pub(super) levels_end: [u64; LEVELS],
    pub(super) census: Census,
}

impl Sums {
    /// Adds all of another process.
    pub fn merge(&mut self, other: &Sums) {
        self.pages_integral = self.pages_integral.wrapping_add(other.pages_integral);
        self.live_integral = self.live_integral.wrapping_add(other.live_integral);
        self.pages_end = self.pages_end.wrapping_add(other.pages_end);
        self.live_end = self.live_end.wrapping_add(other.live_end);
        for level in 0..LEVELS {
            self.level_integrals[level] =
                self.level_integrals[level].wrapping_add(other.level_integrals[level]);
            self.levels_end[level] = self.levels_end[level].wrapping_add(other.levels_end[level]);
        }
        self.census.merge(&other.census);
    }

    /// What they are in `duration_ns`, that of the process or the run.
    pub fn report(&self, duration_ns: u64) -> PagesSums {
        let mean_of = |integral, end| mean(integral, duration_ns, end);
        let mut of_time = Holding::new(
            mean_of(self.pages_integral, self.pages_end),
            mean_of(self.live_integral, self.live_end),
        );
        if duration_ns != 0 {
            // Not from the rounded mean of pages.
            let held = self.pages_integral.saturating_mul(PAGE_BYTES.into());
            of_time.held_bytes = mean_of(held, 0);
            of_time.external_fragmentation_ppm = lost_ppm(held, self.live_integral);
        }
        let occupancy = |level: usize| {
            let (low, high) = level_bounds(level);
            Occupancy {
                low,
                high,
                pages_mean: mean_of(self.level_integrals[level], self.levels_end[level]),
                pages_end: self.levels_end[level],
            }
        };
        PagesSums {
            mean: of_time,
            end: Holding::new(self.pages_end, self.live_end),
            occupancy: (0..LEVELS).map(occupancy).collect(),
            sparse_end: self.census.report(),
        }
    }
}
