//! A curve over time in a bounded number of bins: each bin holds the greatest values that held at
//! any moment of it. When the bins run out, pairs of them become one, so the width is always a power
//! of two of nanoseconds, times 1,024 at least.

use serde::Serialize;

/// Binary logarithm of the smallest bin in nanoseconds.
pub const SHIFT_MIN: u32 = 10;
/// Bins of the curves of a whole run.
pub const BINS_RUN: usize = 512;
/// Bins of the curves of a process.
pub const BINS_PROCESS: usize = 128;

/// What a bin holds: of two values that held in it, what to keep.
pub(crate) trait Value: Copy + Default {
    /// The greater of both, or of each of their parts.
    fn greatest(self, other: Self) -> Self;
}

impl Value for (u64, u64) {
    fn greatest(self, other: Self) -> Self {
        (self.0.max(other.0), self.1.max(other.1))
    }
}

/// Values over time, the greatest of each bin; of pairs the greatest of each part.
#[derive(Clone, Debug)]
pub(crate) struct Series<V = (u64, u64)> {
    /// Where the first bin begins.
    start_ns: u64,
    /// Where the current bin ends.
    bin_end_ns: u64,
    /// The current bin.
    current: V,
    /// The bins before it.
    bins: Vec<V>,
    /// Binary logarithm of the width.
    shift: u32,
    /// Most bins.
    bins_max: usize,
}

/// A curve as it is reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Curve {
    /// Where the first bin begins, in nanoseconds since the run's first record.
    pub start_ns: u64,
    /// Width of a bin.
    pub step_ns: u64,
    /// Greatest number of live blocks by bin.
    pub live_blocks: Vec<u64>,
    /// Greatest number of live bytes by bin.
    pub live_bytes: Vec<u64>,
}

impl<V: Value> Series<V> {
    /// A curve from `start_ns` on, zero at first.
    pub fn new(start_ns: u64, bins_max: usize) -> Series<V> {
        Series {
            start_ns,
            bin_end_ns: start_ns.saturating_add(1 << SHIFT_MIN),
            current: V::default(),
            bins: Vec::new(),
            shift: SHIFT_MIN,
            bins_max,
        }
    }

    /// Says that `values` held from the last change until now.
    #[inline]
    pub fn hold(&mut self, now_ns: u64, values: V) {
        if now_ns >= self.bin_end_ns {
            self.turn(now_ns, values);
        }
    }

    /// Says that `values` hold from now on; [`Series::hold`] was called for the same moment.
    #[inline]
    pub fn raise(&mut self, values: V) {
        self.current = self.current.greatest(values);
    }

    /// What the current bin holds so far.
    #[inline]
    pub fn current(&self) -> V {
        self.current
    }

    #[cold]
    fn turn(&mut self, now_ns: u64, values: V) {
        self.bins.push(self.current);
        let passed_ns = now_ns - self.start_ns;
        while passed_ns >> self.shift >= self.bins_max as u64 {
            self.shift += 1;
            let pairs = self.bins.chunks(2);
            self.bins = pairs
                .map(|pair| pair.iter().copied().fold(V::default(), V::greatest))
                .collect();
        }
        let bin = (passed_ns >> self.shift) as usize;
        self.current = values;
        if bin < self.bins.len() {
            // By doubling, the last bin came to hold this moment.
            let last = self.bins.pop().unwrap_or_default();
            self.current = last.greatest(values);
        }
        self.bins.resize(bin, values);
        let width = (bin as u64 + 1) << self.shift;
        self.bin_end_ns = self.start_ns.saturating_add(width);
    }

    /// Up to now: where the first bin begins, the width of a bin, the bins.
    pub fn bins(mut self, now_ns: u64, values: V) -> (u64, u64, Vec<V>) {
        self.hold(now_ns, values);
        self.bins.push(self.current);
        (self.start_ns, 1 << self.shift, self.bins)
    }
}

impl Series {
    /// The curve up to now, with both values by bin.
    pub fn finish(self, now_ns: u64, values: (u64, u64)) -> Curve {
        let (start_ns, step_ns, bins) = self.bins(now_ns, values);
        let (live_blocks, live_bytes) = bins.into_iter().unzip();
        Curve {
            start_ns,
            step_ns,
            live_blocks,
            live_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        /// Each bin holds the greatest value of its time, the widths are as small as they can be.
        #[test]
        fn bins_hold_the_greatest_values_of_their_time(
            steps in vec((prop_oneof![0u64..3_000, 0u64..5_000_000], 0u64..100, 0u64..100), 1..60),
            start in 0u64..10_000,
            rest in 0u64..100_000,
        ) {
            let mut series = Series::<(u64, u64)>::new(start, 8);
            let mut now = start;
            let mut held = vec![(start, (0, 0))];
            for (pause, a, b) in steps {
                now += pause;
                let before = held[held.len() - 1].1;
                series.hold(now, before);
                series.raise((a, b));
                held.push((now, (a, b)));
            }
            let end = now + rest;
            let curve = series.finish(end, held[held.len() - 1].1);
            let shift = (SHIFT_MIN..).find(|shift| (end - start) >> shift < 8).unwrap();
            prop_assert_eq!(curve.step_ns, 1 << shift);
            let bins = ((end - start) >> shift) + 1;
            prop_assert_eq!(curve.live_blocks.len() as u64, bins);
            for bin in 0..bins {
                let (from, to) = (start + (bin << shift), start + ((bin + 1) << shift));
                // What held at its beginning, and every change within it.
                let entry = held.iter().rfind(|(at, _)| *at < from).map_or((0, 0), |(_, values)| *values);
                let inside = held.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, values)| *values);
                let most = inside.fold(entry, Value::greatest);
                prop_assert_eq!((curve.live_blocks[bin as usize], curve.live_bytes[bin as usize]), most);
            }
        }
    }
}
