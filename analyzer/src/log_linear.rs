//! A histogram of whole numbers with bounded relative error: each power of two is cut into `2^BITS`
//! equal buckets, numbers below `2^(BITS+1)` have a bucket each. The first few values are kept as
//! they are, so that thousands of small processes cost little.

/// Values kept before buckets are made.
const RAW_MAX: usize = 192;

/// The histogram. A value read back from it is the highest of its bucket: at most `2^-BITS` above
/// the value that was entered, and never above the greatest one.
#[derive(Clone, Debug, Default)]
pub struct LogLinear<const BITS: u32> {
    /// Counts by bucket, as far as any was used; empty while `raw` serves.
    buckets: Vec<u64>,
    /// The first values.
    raw: Vec<u64>,
    /// The greatest value.
    max: u64,
}

impl<const BITS: u32> LogLinear<BITS> {
    /// Bucket of a value.
    #[inline]
    pub fn index(value: u64) -> usize {
        let shift = (63 - (value | 1).leading_zeros()).max(BITS) - BITS;
        ((shift as usize) << BITS) + (value >> shift) as usize
    }

    /// Lowest and highest value of a bucket.
    pub fn bounds(index: usize) -> (u64, u64) {
        let shift = (index >> BITS).saturating_sub(1) as u32;
        let low = (index - ((shift as usize) << BITS)) as u64;
        (low << shift, (low << shift) + ((1u64 << shift) - 1))
    }

    /// Enters a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.max = self.max.max(value);
        let index = Self::index(value);
        match self.buckets.get_mut(index) {
            Some(count) => *count += 1,
            None => self.record_slow(value, index),
        }
    }

    #[cold]
    fn record_slow(&mut self, value: u64, index: usize) {
        if self.buckets.is_empty() {
            if self.raw.len() < RAW_MAX {
                self.raw.push(value);
                return;
            }
            self.reach(Self::index(self.max));
            for value in std::mem::take(&mut self.raw) {
                self.buckets[Self::index(value)] += 1;
            }
        }
        self.reach(index);
        self.buckets[index] += 1;
    }

    fn reach(&mut self, index: usize) {
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, 0);
        }
    }

    /// Adds all of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for &value in &other.raw {
            self.record(value);
        }
        if other.buckets.is_empty() {
            return;
        }
        self.reach(other.buckets.len() - 1);
        for (to, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *to += from;
        }
        for value in std::mem::take(&mut self.raw) {
            let index = Self::index(value);
            self.reach(index);
            self.buckets[index] += 1;
        }
        self.max = self.max.max(other.max);
    }

    /// Values entered.
    pub fn count(&self) -> u64 {
        self.raw.len() as u64 + self.buckets.iter().sum::<u64>()
    }

    /// The greatest value; 0 where there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// What is in it by ascending value: the highest value of a bucket, at most the greatest value
    /// entered, and how many.
    pub fn counts(&self) -> Vec<(u64, u64)> {
        let mut raw: Vec<usize> = self.raw.iter().map(|&value| Self::index(value)).collect();
        raw.sort_unstable();
        let mut counts: Vec<(usize, u64)> = Vec::new();
        for index in raw {
            match counts.last_mut() {
                Some((last, count)) if *last == index => *count += 1,
                _ => counts.push((index, 1)),
            }
        }
        counts.extend(
            self.buckets
                .iter()
                .enumerate()
                .filter(|(_, count)| **count != 0)
                .map(|(index, count)| (index, *count)),
        );
        counts
            .into_iter()
            .map(|(index, count)| (Self::bounds(index).1.min(self.max), count))
            .collect()
    }
}

/// The smallest value that at least `percent` of 100 of the values do not exceed; 0 where there is
/// none. `counts` is what [`LogLinear::counts`] gave.
pub fn percentile(counts: &[(u64, u64)], percent: u64) -> u64 {
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let rank = (u128::from(total) * u128::from(percent)).div_ceil(100) as u64;
    let mut seen = 0;
    for &(value, count) in counts {
        seen += count;
        if seen >= rank {
            return value;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn every_value_is_in_its_bucket(value in value()) {
            let (low, high) = LogLinear::<7>::bounds(LogLinear::<7>::index(value));
            prop_assert!(low <= value && value <= high);
            prop_assert!(value >= 256 || low == high);
            prop_assert!((high - low) as f64 <= low as f64 / 128.0);
        }

        /// Percentiles are those of the sorted values, raised by less than 1/128 and not above the
        /// greatest; merging is the same as entering all.
        #[test]
        fn percentiles_are_those_of_the_sorted_values(a in vec(value(), 0..500), b in vec(value(), 0..500)) {
            let mut one = LogLinear::<7>::default();
            let mut other = LogLinear::<7>::default();
            a.iter().for_each(|value| one.record(*value));
            b.iter().for_each(|value| other.record(*value));
            one.merge(&other);
            let mut all = [a, b].concat();
            all.sort_unstable();
            let counts = one.counts();
            prop_assert_eq!(one.count(), all.len() as u64);
            prop_assert_eq!(one.max(), all.last().copied().unwrap_or(0));
            for percent in [1, 50, 90, 99, 100] {
                let found = percentile(&counts, percent);
                let Some(rank) = (all.len() * percent as usize).div_ceil(100).checked_sub(1) else {
                    prop_assert_eq!(found, 0);
                    continue;
                };
                prop_assert!(found >= all[rank] && found <= one.max());
                prop_assert!((found - all[rank]) as f64 <= all[rank] as f64 / 128.0);
            }
        }
    }

    #[test]
    fn buckets_follow_each_other() {
        for index in 1..LogLinear::<4>::index(u64::MAX) {
            assert_eq!(
                LogLinear::<4>::bounds(index - 1).1 + 1,
                LogLinear::<4>::bounds(index).0
            );
        }
        assert_eq!(
            LogLinear::<4>::bounds(LogLinear::<4>::index(u64::MAX)).1,
            u64::MAX
        );
    }
}
