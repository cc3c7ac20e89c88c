//! Resident memory as the kernel said it, sampled from outside: a curve of its own, since pages that
//! were never touched make it lower than live bytes, and caches of the allocator higher.

use crate::series::Series;
use rmtrace_file::model::Sample;
use serde::Serialize;

/// Resident memory over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// Samples taken.
    pub samples: u64,
    /// Most anonymous bytes in one sample (of the run: in the sum of the latest of each process).
    pub anonymous_bytes_peak: u64,
    /// When, in nanoseconds since the run's first record.
    pub anonymous_bytes_peak_at_ns: u64,
    /// Most resident bytes: anonymous, file-backed and shared. Pages shared between processes count
    /// in each.
    pub resident_bytes_peak: u64,
    /// When.
    pub resident_bytes_peak_at_ns: u64,
    /// Most virtual bytes.
    pub virtual_bytes_peak: u64,
    /// Where the first bin of the curve begins.
    pub start_ns: u64,
    /// Width of a bin.
    pub step_ns: u64,
    /// Greatest anonymous bytes by bin.
    pub anonymous_bytes: Vec<u64>,
    /// Greatest resident bytes by bin.
    pub resident_bytes: Vec<u64>,
}

/// Follows samples.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    now: Pages,
    peaks: Resident,
    series: Series,
}

/// What one sample, or the sum of the latest of all processes, says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pages {
    anonymous: u64,
    resident: u64,
    virtual_: u64,
}

impl Pages {
    pub fn of(sample: &Sample) -> Pages {
        let others = sample.file_bytes.saturating_add(sample.shared_bytes);
        Pages {
            anonymous: sample.anonymous_bytes,
            resident: sample.anonymous_bytes.saturating_add(others),
            virtual_: sample.virtual_bytes,
        }
    }
}

impl Collector {
    pub fn new(start_ns: u64, bins_max: usize) -> Collector {
        Collector {
            now: Pages::default(),
            peaks: Resident::default(),
            series: Series::new(start_ns, bins_max),
        }
    }

    /// The latest sample.
    pub fn now(&self) -> Pages {
        self.now
    }

    /// A sample of one process takes the place of its sample before.
    pub fn replace(&mut self, now_ns: u64, before: Pages, after: Pages) {
        let step =
            |sum: u64, before: u64, after: u64| sum.saturating_sub(before).saturating_add(after);
        self.series
            .hold(now_ns, (self.now.anonymous, self.now.resident));
        self.now = Pages {
            anonymous: step(self.now.anonymous, before.anonymous, after.anonymous),
            resident: step(self.now.resident, before.resident, after.resident),
            virtual_: step(self.now.virtual_, before.virtual_, after.virtual_),
        };
        self.series.raise((self.now.anonymous, self.now.resident));
        let peaks = &mut self.peaks;
        peaks.samples += 1;
        if self.now.anonymous > peaks.anonymous_bytes_peak {
            peaks.anonymous_bytes_peak = self.now.anonymous;
            peaks.anonymous_bytes_peak_at_ns = now_ns;
        }
        if self.now.resident > peaks.resident_bytes_peak {
            peaks.resident_bytes_peak = self.now.resident;
            peaks.resident_bytes_peak_at_ns = now_ns;
        }
        peaks.virtual_bytes_peak = peaks.virtual_bytes_peak.max(self.now.virtual_);
    }

    /// The process of these pages ended.
    pub fn end(&mut self, now_ns: u64, before: Pages) {
        let samples = self.peaks.samples;
        self.replace(now_ns, before, Pages::default());
        self.peaks.samples = samples;
    }

    /// The curve up to now.
    pub fn report(&self, now_ns: u64) -> Resident {
        let curve = self
            .series
            .clone()
            .finish(now_ns, (self.now.anonymous, self.now.resident));
        Resident {
            start_ns: curve.start_ns,
            step_ns: curve.step_ns,
            anonymous_bytes: curve.live_blocks,
            resident_bytes: curve.live_bytes,
            ..self.peaks.clone()
        }
    }
}
