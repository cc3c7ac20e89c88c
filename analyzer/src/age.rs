//! How old the live heap was when live bytes were at their peak: blocks and bytes by age in
//! nanoseconds and in bytes that the process had allocated since.
//!
//! The blocks that were live at the peak are those born by then that ended later, or never. So the
//! measure keeps one table, of blocks that lived at the latest peak and have ended since, and those
//! that are kept enter it last. When a new peak comes, the table is void. Nothing is kept for a birth,
//! no number is copied at a peak, and each age is exact.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::histogram::row_bounds;
use crate::ratio::ppm;
use serde::Serialize;

/// Blocks of an age in `[low, high)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AgeBin {
    /// Least age.
    pub low: u64,
    /// First age above (the last possible bin ends at `u64::MAX` and holds it).
    pub high: u64,
    /// Blocks.
    pub blocks: u64,
    /// Their share of the blocks live at the peak, in millionths.
    pub blocks_ppm: u64,
    /// Bytes that they had at the peak.
    pub bytes: u64,
    /// The share of the bytes live at the peak, in millionths.
    pub bytes_ppm: u64,
}

/// The age of what a process had allocated itself and not freed at its peak of live bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AgeReport {
    /// When the peak was, in nanoseconds since the run's first record.
    pub at_ns: u64,
    /// Blocks live then, inherited ones left out.
    pub blocks: u64,
    /// Bytes live then, inherited ones left out.
    pub bytes: u64,
    /// By age in nanoseconds, powers of two; from the first to the last bin that holds a block.
    pub by_ns: Vec<AgeBin>,
    /// By bytes that the process had allocated since the birth, the same.
    pub by_bytes: Vec<AgeBin>,
}

/// Blocks that lived at the peak `peak` and have ended since.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    peak: u64,
    blocks: u64,
    bytes: u64,
}

/// A moment in three clocks.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    ns: u64,
    events: u64,
    bytes: u64,
}

/// Collects the ages at the peak.
#[derive(Clone, Debug, Default)]
pub struct Age {
    /// Number of the latest peak that was seen.
    peak: u64,
    /// When it was.
    at: Moment,
    /// The latest fact that can have made a peak.
    latest: Moment,
    /// By age in nanoseconds and in bytes, 0 and then powers of two, as far as any was used.
    bins: [Vec<Bin>; 2],
}

impl Measure for Age {
    /// Costs about 12 instructions for a birth and for the end of a block that is younger than the
    /// latest peak, about 60 and two cache lines for the end of one that lived then: 30 for a fact of
    /// a Firefox that loads a page.
    #[inline]
    fn fact(&mut self, fact: &Fact, peaks: Peaks) {
        if self.peak != peaks.bytes {
            self.peak = peaks.bytes;
            self.at = self.latest;
        }
        match fact.what {
            What::Born => {}
            What::Resized => {
                // The bytes at the peak are those at the end, less what was added since.
                self.end(fact, 0, fact.old_bytes.wrapping_sub(fact.bytes));
            }
            What::Freed | What::Displaced | What::Kept => {
                return self.end(fact, 1, fact.bytes);
            }
            What::Nothing => return,
        }
        self.latest = Moment {
            ns: fact.time_ns,
            events: fact.clock_events,
            bytes: fact.clock_bytes,
        };
    }
}

impl Age {
    /// A block ended, or part of its bytes, and counts if it lived at the latest peak. No two blocks
    /// are born by the same call, so the clock of calls tells.
    #[inline]
    fn end(&mut self, fact: &Fact, blocks: u64, bytes: u64) {
        let born = fact.clock_events.wrapping_sub(fact.life_events);
        if born > self.at.events || self.peak == 0 || fact.is_inherited() {
            return;
        }
        let born_bytes = fact.clock_bytes.wrapping_sub(fact.life_bytes);
        let ages = [
            self.at.ns.saturating_sub(fact.born_ns()),
            self.at.bytes.saturating_sub(born_bytes),
        ];
        for (bins, age) in self.bins.iter_mut().zip(ages) {
            let row = (64 - age.leading_zeros()) as usize;
            if row >= bins.len() {
                reach(bins, row);
            }
            let bin = &mut bins[row];
            if bin.peak != self.peak {
                *bin = Bin {
                    peak: self.peak,
                    ..Bin::default()
                };
            }
            bin.blocks += blocks;
            bin.bytes = bin.bytes.wrapping_add(bytes);
        }
    }

    /// The ages at the latest of all `peaks` of the process, when all blocks have ended or been kept;
    /// nothing where live bytes never rose to a peak. Sums of several processes have no meaning, as
    /// their peaks are at different moments.
    pub fn report(&self, peaks: Peaks) -> Option<AgeReport> {
        let at = if self.peak == peaks.bytes {
            self.at
        } else {
            self.latest
        };
        if peaks.bytes == 0 {
            return None;
        }
        let [by_ns, by_bytes] = &self.bins;
        let (blocks, bytes, by_ns) = listed(by_ns, peaks.bytes);
        let (_, _, by_bytes) = listed(by_bytes, peaks.bytes);
        Some(AgeReport {
            at_ns: at.ns,
            blocks,
            bytes,
            by_ns,
            by_bytes,
        })
    }
}

#[cold]
fn reach(bins: &mut Vec<Bin>, row: usize) {
    bins.resize(row + 1, Bin::default());
}

/// Blocks and bytes in all, and the bins from the first to the last that holds a block.
fn listed(bins: &[Bin], peak: u64) -> (u64, u64, Vec<AgeBin>) {
    // The others are of former peaks.
    let rows = bins.iter().enumerate();
    let held: Vec<(usize, &Bin)> = rows
        .filter(|(_, bin)| bin.peak == peak && bin.blocks != 0)
        .collect();
    let blocks: u64 = held.iter().map(|(_, bin)| bin.blocks).sum();
    let bytes = held
        .iter()
        .fold(0u64, |sum, (_, bin)| sum.wrapping_add(bin.bytes));
    let (Some((first, _)), Some((last, _))) = (held.first(), held.last()) else {
        return (0, 0, Vec::new());
    };
    let bin = |row: usize| {
        let (low, high) = row_bounds(row);
        let of = held.iter().find(|(at, _)| *at == row);
        let of = of.map_or(Bin::default(), |(_, bin)| **bin);
        AgeBin {
            low,
            high,
            blocks: of.blocks,
            blocks_ppm: ppm(of.blocks.into(), blocks.into()),
            bytes: of.bytes,
            bytes_ppm: ppm(of.bytes.into(), bytes.into()),
        }
    };
    (blocks, bytes, (*first..=*last).map(bin).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::streams;
    use proptest::prelude::*;

    proptest! {
        /// The blocks live right after the fact that made the peak, each with the difference of the
        /// clocks of that fact and of its birth.
        #[test]
        fn ages_are_those_of_the_blocks_live_at_the_peak(stream in streams(300)) {
            let mut measure = Age::default();
            stream.tell(&mut measure);
            let report = measure.report(stream.peaks);
            let Some(at) = stream.bytes_peak_at else {
                prop_assert_eq!(report, None);
                return Ok(());
            };
            let report = report.unwrap();
            let peak = stream.told[at].0;
            let mut live = Vec::new();
            for history in stream.histories() {
                let last = history.iter().rfind(|place| **place <= at);
                let Some(fact) = last.map(|place| stream.told[*place].0) else { continue };
                if matches!(fact.what, What::Born | What::Resized) {
                    let born = stream.told[history[0]].0;
                    live.push((fact.bytes, peak.time_ns - born.time_ns, peak.clock_bytes - born.clock_bytes));
                }
            }
            prop_assert_eq!(live.len(), stream.live_after(at).len());
            prop_assert_eq!(report.at_ns, peak.time_ns);
            prop_assert_eq!(report.blocks, live.len() as u64);
            prop_assert_eq!(report.bytes, live.iter().map(|block| block.0).sum::<u64>());
            let in_time: Vec<(u64, u64)> = live.iter().map(|block| (block.1, block.0)).collect();
            let in_bytes: Vec<(u64, u64)> = live.iter().map(|block| (block.2, block.0)).collect();
            for (bins, live) in [(&report.by_ns, in_time), (&report.by_bytes, in_bytes)] {
                let mut seen = 0;
                for (n, bin) in bins.iter().enumerate() {
                    prop_assert_eq!(bin.high, (bin.low * 2).max(1));
                    prop_assert!(n == 0 || bin.low == bins[n - 1].high);
                    let is_in = |block: &&(u64, u64)| (bin.low..bin.high).contains(&block.0);
                    let of: Vec<u64> = live.iter().filter(is_in).map(|block| block.1).collect();
                    let (blocks, bytes) = (of.len() as u64, of.iter().sum::<u64>());
                    prop_assert_eq!((bin.blocks, bin.bytes), (blocks, bytes));
                    prop_assert_eq!(bin.blocks_ppm, blocks * 1_000_000 / report.blocks);
                    prop_assert_eq!(bin.bytes_ppm, bytes * 1_000_000 / report.bytes);
                    seen += of.len();
                }
                prop_assert_eq!(seen, live.len());
                prop_assert!(bins[0].blocks != 0 && bins[bins.len() - 1].blocks != 0);
            }
        }

        #[test]
        fn any_numbers_are_taken(
            all in proptest::collection::vec((any::<[u64; 6]>(), 0u8..6, 0u32..64, any::<bool>()), 0..100),
        ) {
            let mut measure = Age::default();
            let mut peaks = Peaks::default();
            for (numbers, what, shift, is_peak) in all {
                let [time_ns, life_ns, clock_events, life_events, clock_bytes, bytes] = numbers;
                let what = [What::Born, What::Freed, What::Resized, What::Displaced, What::Kept, What::Nothing]
                    [usize::from(what)];
                let life_events = life_events >> shift;
                let fact = Fact { time_ns, life_ns, clock_events, life_events, clock_bytes, bytes, what, ..Fact::default() };
                measure.fact(&fact, peaks);
                peaks.bytes += u64::from(is_peak);
            }
            prop_assert_eq!(measure.report(peaks).is_some(), peaks.bytes != 0);
        }
    }
}
