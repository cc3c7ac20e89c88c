//! The sum over all processes while events pass: live blocks and bytes (inherited ones left out),
//! their peaks, and the figures of processes that have ended.

use crate::live::{Gauge, NewPeak};
use crate::series::BINS_RUN;

/// Live blocks of all processes.
#[derive(Debug)]
pub(crate) struct Run {
    /// Where what is looked at begins, in nanoseconds since the run's first record.
    pub start_ns: u64,
    pub gauge: Gauge,
    /// New peaks so far, of blocks or bytes.
    peaks: u64,
    /// `peaks` at the latest new peak of live blocks.
    blocks_peak: u64,
    /// `peaks` at the latest new peak of live bytes.
    bytes_peak: u64,
    /// Whether recording has been paused: blocks may have begun and ended unseen.
    pub was_paused: bool,
}

impl Run {
    /// What is looked at begins at `start_ns`.
    pub fn new(start_ns: u64) -> Run {
        Run {
            start_ns,
            gauge: Gauge::new(start_ns, BINS_RUN),
            peaks: 0,
            blocks_peak: 0,
            bytes_peak: 0,
            was_paused: false,
        }
    }

    /// Number of the latest new peak of any kind.
    #[inline]
    pub fn peaks(&self) -> u64 {
        self.peaks
    }

    /// Number of the latest new peak of live blocks.
    #[inline]
    pub fn blocks_peak(&self) -> u64 {
        self.blocks_peak
    }

    /// Number of the latest new peak of live bytes.
    #[inline]
    pub fn bytes_peak(&self) -> u64 {
        self.bytes_peak
    }

    #[inline]
    fn new_peak(&mut self, new: NewPeak) {
        if new.blocks || new.bytes {
            self.peaks += 1;
            if new.blocks {
                self.blocks_peak = self.peaks;
            }
            if new.bytes {
                self.bytes_peak = self.peaks;
            }
        }
    }

    #[inline]
    pub fn add(&mut self, now_ns: u64, bytes: u64) {
        let new = self.gauge.add(now_ns, bytes);
        self.new_peak(new);
    }

    #[inline]
    pub fn sub(&mut self, now_ns: u64, bytes: u64) {
        self.gauge.sub(now_ns, bytes);
    }

    pub fn resize(&mut self, now_ns: u64, from_bytes: u64, to_bytes: u64) {
        let new = self.gauge.resize(now_ns, from_bytes, to_bytes);
        self.new_peak(new);
    }

    pub fn sub_all(&mut self, now_ns: u64, blocks: u64, bytes: u64) {
        self.gauge.sub_all(now_ns, blocks, bytes);
    }
}
