//! How much relocation could save: live bytes, perfect compaction, the best known packing that moves
//! nothing, and the pages that the recorded allocator really held.
//!
//! Always: live bytes <= compacted bytes, and live bytes <= bytes of pages that live blocks overlap.
//! Inherited blocks are left out, as in [`crate::pages`].

use crate::fact::{Fact, Measure, Peaks, What};
use crate::packing::{PackingReport, rounded};
use crate::pages::{self, PAGE_BYTES, PagesReport, lost_ppm, mean};
use serde::Serialize;

/// What a relocatable block costs beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Overhead {
    /// Bytes before the block, rounded with it.
    pub header_bytes: u64,
    /// Bytes of its entry in the handle table.
    pub handle_bytes: u64,
}

impl Default for Overhead {
    /// A header and a handle of 8 bytes each.
    fn default() -> Self {
        Overhead {
            header_bytes: 8,
            handle_bytes: 8,
        }
    }
}

impl Overhead {
    /// Bytes of a block in a heap without holes: header and block rounded up to 16 together, and the
    /// handle.
    #[inline]
    pub fn compacted(&self, bytes: u64) -> u64 {
        rounded(bytes.saturating_add(self.header_bytes)).saturating_add(self.handle_bytes)
    }
}

/// A sum over live blocks: now, most, and over time.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    now: u64,
    most: u64,
    most_at_ns: u64,
    /// Sum of end times less sum of begin times of each byte, modulo 2^128.
    ends: u128,
}

impl Sum {
    #[inline(always)]
    fn sub(&mut self, now_ns: u64, less: u64) {
        self.now = self.now.wrapping_sub(less);
        let area = u128::from(now_ns) * u128::from(less);
        self.ends = self.ends.wrapping_add(area);
    }

    #[inline(always)]
    fn add(&mut self, now_ns: u64, more: u64) {
        self.now = self.now.wrapping_add(more);
        let area = u128::from(now_ns) * u128::from(more);
        self.ends = self.ends.wrapping_sub(area);
        if self.now > self.most {
            self.most = self.now;
            self.most_at_ns = now_ns;
        }
    }

    /// Integral over time until now.
    fn integral(&self, now_ns: u64) -> u128 {
        let area = u128::from(now_ns) * u128::from(self.now);
        self.ends.wrapping_add(area)
    }
}

/// The measure: three sums over live blocks, without a table.
#[derive(Clone, Debug)]
pub struct Bounds {
    overhead: Overhead,
    start_ns: u64,
    live: Sum,
    rounded: Sum,
    compacted: Sum,
}

/// What can be summed over processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Integral over time, and at the end.
    rounded: (u128, u64),
    compacted: (u128, u64),
}

impl Sums {
    /// Adds all of another process.
    pub fn merge(&mut self, other: &Sums) {
        let sums = [
            (&mut self.rounded, other.rounded),
            (&mut self.compacted, other.compacted),
        ];
        for (to, from) in sums {
            *to = (to.0.wrapping_add(from.0), to.1.wrapping_add(from.1));
        }
    }

    /// The means over `duration_ns`, that of the process or the run, beside the mean of pages held.
    pub fn report(&self, held: &pages::PagesSums, duration_ns: u64) -> MeanBounds {
        let of = |(integral, end)| mean(integral, duration_ns, end);
        let recorded = held.mean.held_bytes;
        MeanBounds {
            live_bytes: held.mean.live_bytes,
            rounded_bytes: of(self.rounded),
            compacted_bytes: of(self.compacted),
            recorded_bytes: recorded,
            saving: Saving::new(recorded, of(self.compacted)),
            saving_without_overhead: Saving::new(recorded, of(self.rounded)),
        }
    }
}

/// Bytes that less would be taken, 0 at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Saving {
    /// In bytes.
    pub bytes: u64,
    /// In millionths of what is taken without it.
    pub ppm: u64,
}

impl Saving {
    fn new(from: u64, to: u64) -> Saving {
        Saving {
            bytes: from.saturating_sub(to),
            ppm: lost_ppm(from.into(), to.into()),
        }
    }
}

/// Means over time. Nothing is rounded to whole pages but what was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MeanBounds {
    /// Live bytes.
    pub live_bytes: u64,
    /// Live blocks rounded up to 16 bytes each.
    pub rounded_bytes: u64,
    /// Perfect compaction.
    pub compacted_bytes: u64,
    /// Pages that the recorded placement held, in bytes.
    pub recorded_bytes: u64,
    /// From the recorded placement to perfect compaction.
    pub saving: Saving,
    /// The same if headers and handles cost nothing.
    pub saving_without_overhead: Saving,
}

/// A figure at its own peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// The most bytes.
    pub bytes: u64,
    /// The first moment of it, in nanoseconds since the run's first record.
    pub at_ns: u64,
}

/// The bounds of a process. Each peak is a figure's own, wherever it is in time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BoundsReport {
    /// What was assumed of relocatable blocks.
    pub overhead: Overhead,
    /// Live bytes: no placement can do with less.
    pub live_peak: Peak,
    /// Live blocks rounded up to 16 bytes each: no placement at multiples of 16 can.
    pub rounded_peak: Peak,
    /// Perfect compaction at all times: with header and handle, without holes.
    pub compacted_peak: Peak,
    /// The same in whole pages.
    pub compacted_pages_bytes: u64,
    /// Pages that the recorded placement held.
    pub recorded_peak: Peak,
    /// The best packing found that knows lifetimes and moves nothing; `null` unless asked for.
    pub packing: Option<PackingReport>,
    /// The least of recorded placement and packing: what a non-moving allocator is known to suffice
    /// with. What it must have lies between `live_peak` and this.
    pub best_known_bytes: u64,
    /// What relocation could save at most: from the recorded placement to perfect compaction.
    pub saving: Saving,
    /// The same if headers and handles cost nothing: to the rounded blocks in whole pages.
    pub saving_without_overhead: Saving,
    /// What of `saving` no known packing without relocation saves: from `best_known_bytes` to perfect
    /// compaction.
    pub saving_by_moving: Saving,
    /// Means over time.
    pub mean: MeanBounds,
}

impl BoundsReport {
    /// Puts a packing in. One that left blocks out bounds nothing and is not the best known.
    pub fn add_packing(&mut self, packing: PackingReport) {
        if packing.unplaced == 0 {
            self.best_known_bytes = packing.best.bytes_peak.min(self.recorded_peak.bytes);
            self.saving_by_moving = Saving::new(self.best_known_bytes, self.compacted_pages_bytes);
        }
        self.packing = Some(packing);
    }
}

impl Bounds {
    /// A process that starts now, with nothing of its own.
    pub fn new(start_ns: u64, overhead: Overhead) -> Bounds {
        Bounds {
            overhead,
            start_ns,
            live: Sum::default(),
            rounded: Sum::default(),
            compacted: Sum::default(),
        }
    }

    /// The most live bytes, inherited blocks left out.
    pub fn live_bytes_peak(&self) -> u64 {
        self.live.most
    }

    /// What can be summed over processes, when this one has ended.
    pub fn sums(&self, end_ns: u64) -> Sums {
        let of = |sum: &Sum| (sum.integral(end_ns), sum.now);
        Sums {
            rounded: of(&self.rounded),
            compacted: of(&self.compacted),
        }
    }

    /// The report of the process, with its pages.
    pub fn report(&self, pages: &PagesReport, end_ns: u64) -> BoundsReport {
        let peak = |sum: &Sum| Peak {
            bytes: sum.most,
            at_ns: sum.most_at_ns,
        };
        let recorded = pages.peak.holding.held_bytes;
        let in_pages = |bytes: u64| {
            bytes
                .checked_next_multiple_of(PAGE_BYTES)
                .unwrap_or(u64::MAX)
        };
        let compacted = in_pages(self.compacted.most);
        let sums = self.sums(end_ns);
        BoundsReport {
            overhead: self.overhead,
            live_peak: peak(&self.live),
            rounded_peak: peak(&self.rounded),
            compacted_peak: peak(&self.compacted),
            compacted_pages_bytes: compacted,
            recorded_peak: Peak {
                bytes: recorded,
                at_ns: pages.peak.at_ns,
            },
            packing: None,
            best_known_bytes: recorded,
            saving: Saving::new(recorded, compacted),
            saving_without_overhead: Saving::new(recorded, in_pages(self.rounded.most)),
            saving_by_moving: Saving::new(recorded, compacted),
            mean: sums.report(&pages.over_time, end_ns.saturating_sub(self.start_ns)),
        }
    }
}

impl Measure for Bounds {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, _peaks: Peaks) {
        if fact.is_inherited() {
            return;
        }
        match fact.what {
            What::Born => self.begin(fact.time_ns, fact.bytes),
            What::Freed | What::Displaced => self.end(fact.time_ns, fact.bytes),
            What::Resized => {
                self.end(fact.time_ns, fact.old_bytes);
                self.begin(fact.time_ns, fact.bytes);
            }
            What::Kept | What::Nothing => {}
        }
    }
}

impl Bounds {
    #[inline(always)]
    fn begin(&mut self, now_ns: u64, bytes: u64) {
        self.live.add(now_ns, bytes);
        self.rounded.add(now_ns, rounded(bytes));
        let compacted = self.overhead.compacted(bytes);
        self.compacted.add(now_ns, compacted);
    }

    #[inline(always)]
    fn end(&mut self, now_ns: u64, bytes: u64) {
        self.live.sub(now_ns, bytes);
        self.rounded.sub(now_ns, rounded(bytes));
        let compacted = self.overhead.compacted(bytes);
        self.compacted.sub(now_ns, compacted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::streams;
    use crate::packing::{Deaths, Packing};
    use crate::pages::Pages;
    use crate::pages::tests::tidy;
    use proptest::prelude::*;

    /// Up to a multiple of 16, of nothing too.
    fn slowly(bytes: u64) -> u64 {
        (1..)
            .map(|grains| grains * 16)
            .find(|sum| *sum >= bytes)
            .unwrap_or(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn they_are_in_order_and_what_counting_tells(
            stream in streams(60).prop_map(tidy),
            header_bytes in 0u64..40,
            handle_bytes in 0u64..40,
        ) {
            let overhead = Overhead { header_bytes, handle_bytes };
            let mut bounds = Bounds::new(0, overhead);
            let mut pages = Pages::new(0, 8);
            let mut deaths = Deaths::new(stream.told.len() as u64);
            stream.tell(&mut bounds);
            stream.tell(&mut pages);
            stream.tell(&mut deaths);
            let mut packing = Packing::new(deaths.plan());
            stream.tell(&mut packing);
            let end_ns = stream.end_ns;
            let pages = pages.report(stream.peaks, end_ns);
            let mut report = bounds.report(&pages, end_ns);
            report.add_packing(packing.report());

            let mut peaks = [Peak::default(); 3];
            let mut integrals = [0u128; 3];
            let mut now = ([0u64; 3], 0);
            for (at, (fact, _)) in stream.told.iter().enumerate() {
                let live = stream.live_after(at);
                for (sum, now_bytes) in integrals.iter_mut().zip(now.0) {
                    *sum += u128::from(now_bytes) * u128::from(fact.time_ns - now.1);
                }
                let sum = |of: &dyn Fn(u64) -> u64| live.iter().map(|block| of(block.bytes)).sum();
                let bytes: [u64; 3] = [
                    sum(&|bytes| bytes),
                    sum(&slowly),
                    sum(&|bytes| slowly(bytes + header_bytes) + handle_bytes),
                ];
                for (peak, bytes) in peaks.iter_mut().zip(bytes) {
                    if bytes > peak.bytes {
                        *peak = Peak { bytes, at_ns: fact.time_ns };
                    }
                }
                now = (bytes, fact.time_ns);
            }
            prop_assert_eq!([report.live_peak, report.rounded_peak, report.compacted_peak], peaks);
            for (sum, now_bytes) in integrals.iter_mut().zip(now.0) {
                *sum += u128::from(now_bytes) * u128::from(end_ns - now.1);
            }
            if end_ns != 0 {
                let mean = |integral: u128| (integral / u128::from(end_ns)) as u64;
                prop_assert_eq!(report.mean.live_bytes, mean(integrals[0]));
                prop_assert_eq!(report.mean.rounded_bytes, mean(integrals[1]));
                prop_assert_eq!(report.mean.compacted_bytes, mean(integrals[2]));
                let twice = { let mut sums = bounds.sums(end_ns); sums.merge(&sums.clone()); sums };
                let twice = twice.report(&pages.over_time, end_ns).compacted_bytes;
                prop_assert_eq!(twice, mean(integrals[2] * 2));
            }

            // What always holds.
            prop_assert!(report.live_peak.bytes <= report.compacted_peak.bytes);
            prop_assert!(report.live_peak.bytes <= report.rounded_peak.bytes);
            prop_assert!(report.mean.live_bytes <= report.mean.compacted_bytes);
            prop_assert!(report.live_peak.bytes <= report.recorded_peak.bytes);
            prop_assert!(report.live_peak.bytes <= report.best_known_bytes);
            prop_assert!(report.best_known_bytes <= report.recorded_peak.bytes);
            prop_assert!(report.saving_by_moving.bytes <= report.saving.bytes);
            let compacted_pages = peaks[2].bytes.div_ceil(4096) * 4096;
            let saved = report.recorded_peak.bytes.saturating_sub(compacted_pages);
            prop_assert_eq!(report.saving.bytes, saved);
            prop_assert!(report.saving.ppm <= 1_000_000);
            let rounded_pages = peaks[1].bytes.div_ceil(4096) * 4096;
            let saved = report.recorded_peak.bytes.saturating_sub(rounded_pages);
            prop_assert_eq!(report.saving_without_overhead.bytes, saved);
        }
    }

    /// Sixteen blocks of 256 bytes, a page apart: relocation packs them into 8 + 4 KiB.
    #[test]
    fn blocks_far_apart_can_be_moved_together() {
        let block = |number: u64| Fact {
            address: number * 4096,
            bytes: 256,
            handle: number as u32,
            clock_events: number + 1,
            clock_allocations: number + 1,
            what: What::Born,
            ..Fact::default()
        };
        let mut bounds = Bounds::new(0, Overhead::default());
        let mut pages = Pages::new(0, 8);
        let mut packing = Packing::new(Deaths::new(16).plan());
        for number in 0..16 {
            bounds.fact(&block(number), Peaks::default());
            pages.fact(&block(number), Peaks::default());
            packing.fact(&block(number), Peaks::default());
        }
        let pages = pages.report(Peaks::default(), 0);
        let mut report = bounds.report(&pages, 0);
        report.add_packing(packing.report());
        assert_eq!(report.live_peak.bytes, 4096);
        assert_eq!(report.compacted_peak.bytes, 16 * (272 + 8));
        assert_eq!(report.compacted_pages_bytes, 8192);
        assert_eq!(report.recorded_peak.bytes, 65_536);
        assert_eq!(report.best_known_bytes, 4096);
        assert_eq!((report.saving.bytes, report.saving.ppm), (57_344, 875_000));
        assert_eq!(report.saving_without_overhead.bytes, 61_440);
        assert_eq!(report.saving_by_moving.bytes, 0);
    }

    #[test]
    fn numbers_of_a_damaged_trace_make_no_panic() {
        let mut bounds = Bounds::new(5, Overhead::default());
        for what in [What::Born, What::Resized, What::Freed, What::Displaced] {
            let (bytes, old_bytes) = (u64::MAX, u64::MAX - 1);
            let fact = Fact {
                what,
                bytes,
                old_bytes,
                ..Fact::default()
            };
            bounds.fact(&fact, Peaks::default());
        }
        let report = bounds.report(&PagesReport::default(), 0);
        assert_eq!(report.saving, Saving::default());
    }
}
