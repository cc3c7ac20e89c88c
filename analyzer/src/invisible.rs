//! How much of a process' resident memory no recorded call can account for: heaps that do not come
//! from the allocator, as those of garbage collectors. A bound from below, made of what is known.

use crate::live::Gauge;
use rmtrace_file::model::Sample;
use serde::Serialize;

/// At most this much of what was resident at the first sample counts as no heap: program data, stacks.
pub const BASE_BYTES_MAX: u64 = 16 << 20;
/// What an allocator may need for each block beyond its size: header and rounding.
pub const BLOCK_BYTES: u64 = 32;
/// What a report warns of: at least this much, and more than half of the growth.
pub const WARNED_BYTES_MIN: u64 = 32 << 20;

/// Resident memory of a process against its recorded blocks, at its greatest anonymous sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Invisible {
    /// When, in nanoseconds since the run's first record; the first of equals.
    pub at_ns: u64,
    /// Anonymous resident bytes.
    pub anonymous_bytes: u64,
    /// Of them, what is taken for program data and stacks: what was resident at the first sample, at
    /// most [`BASE_BYTES_MAX`].
    pub base_bytes: u64,
    /// Greatest live bytes from the start to the sample after that one.
    pub live_bytes_peak: u64,
    /// Greatest live blocks of the same time.
    pub live_blocks_peak: u64,
    /// What the recorded blocks can have taken at most: those bytes, a quarter more, and
    /// [`BLOCK_BYTES`] for each block.
    pub recorded_bytes: u64,
    /// What is left of the anonymous bytes: allocated by no recorded call.
    pub invisible_bytes: u64,
    /// Its share of the anonymous bytes above the base, in millionths.
    pub invisible_ppm: u64,
    /// Whether it is most of them, and [`WARNED_BYTES_MIN`] or more.
    pub warned: bool,
}

/// Follows the samples of a process.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    base_bytes: u64,
    at_ns: u64,
    anonymous_bytes: u64,
    /// Peaks of live bytes and blocks; `None` until the sample after the greatest one.
    peaks: Option<(u64, u64)>,
}

impl Collector {
    /// At the first sample.
    pub fn new(now_ns: u64, sample: &Sample) -> Collector {
        Collector {
            base_bytes: sample.anonymous_bytes.min(BASE_BYTES_MAX),
            at_ns: now_ns,
            anonymous_bytes: sample.anonymous_bytes,
            peaks: None,
        }
    }

    fn peaks_of(heap: &Gauge) -> (u64, u64) {
        (heap.most_bytes, heap.most_blocks.blocks)
    }

    /// A sample, with the blocks as they have been until now.
    pub fn sample(&mut self, now_ns: u64, sample: &Sample, heap: &Gauge) {
        // The collector may have read the memory a little later than the time it noted, so what was
        // allocated up to the next sample counts as recorded.
        self.peaks.get_or_insert_with(|| Collector::peaks_of(heap));
        if sample.anonymous_bytes > self.anonymous_bytes {
            self.at_ns = now_ns;
            self.anonymous_bytes = sample.anonymous_bytes;
            self.peaks = None;
        }
    }

    /// What is known at the end.
    pub fn report(&self, heap: &Gauge) -> Invisible {
        let (live_bytes_peak, live_blocks_peak) =
            self.peaks.unwrap_or_else(|| Collector::peaks_of(heap));
        let headers = live_blocks_peak.saturating_mul(BLOCK_BYTES);
        let recorded_bytes = live_bytes_peak
            .saturating_add(live_bytes_peak / 4)
            .saturating_add(headers);
        let grown = self.anonymous_bytes - self.base_bytes;
        let invisible_bytes = grown.saturating_sub(recorded_bytes);
        let ppm = u128::from(invisible_bytes) * 1_000_000;
        Invisible {
            at_ns: self.at_ns,
            anonymous_bytes: self.anonymous_bytes,
            base_bytes: self.base_bytes,
            live_bytes_peak,
            live_blocks_peak,
            recorded_bytes,
            invisible_bytes,
            invisible_ppm: ppm.checked_div(grown.into()).unwrap_or(0) as u64,
            warned: invisible_bytes >= WARNED_BYTES_MIN && invisible_bytes > grown / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sample(mib: u64) -> Sample {
        Sample {
            tick: 0,
            process: 0,
            anonymous_bytes: mib * MIB,
            file_bytes: 0,
            shared_bytes: 0,
            virtual_bytes: mib * MIB,
        }
    }

    #[test]
    fn memory_without_blocks_is_warned_of() {
        let mut heap = Gauge::new(0, 8);
        heap.add(1, 1000);
        let mut collector = Collector::new(5, &sample(10));
        collector.sample(10, &sample(110), &heap);
        collector.sample(20, &sample(110), &heap);
        let report = collector.report(&heap);
        assert_eq!((report.at_ns, report.base_bytes), (10, 10 * MIB));
        assert_eq!(report.recorded_bytes, 1000 + 250 + 32);
        assert_eq!(report.invisible_bytes, 100 * MIB - 1282);
        assert!(report.warned && report.invisible_ppm > 999_900);
    }

    #[test]
    fn what_was_allocated_before_the_next_sample_counts() {
        let mut heap = Gauge::new(0, 8);
        let mut collector = Collector::new(5, &sample(2));
        collector.sample(10, &sample(102), &heap);
        heap.add(11, 100 * MIB);
        heap.sub(12, 100 * MIB);
        collector.sample(20, &sample(50), &heap);
        heap.add(21, 1 << 40);
        let report = collector.report(&heap);
        assert_eq!((report.live_bytes_peak, report.warned), (100 * MIB, false));
        assert_eq!((report.invisible_bytes, report.invisible_ppm), (0, 0));
    }

    #[test]
    fn a_large_first_sample_is_no_base() {
        let heap = Gauge::new(0, 8);
        let report = Collector::new(5, &sample(100)).report(&heap);
        assert_eq!((report.base_bytes, report.warned), (BASE_BYTES_MAX, true));
        let report = Collector::new(5, &sample(16)).report(&heap);
        assert_eq!((report.invisible_ppm, report.warned), (0, false));
    }
}
