//! Histograms of durations: buckets that are equally wide between two powers of two, so that each is narrow for what it
//! holds. Arrays of words, which a worker keeps in memory of its own; no clock and no unit.

/// Binary logarithm of the buckets between two powers of two.
const SUB_BITS: u32 = 6;
/// Values have at most so many bits; greater ones count as the greatest.
const VALUE_BITS: u32 = 42;
/// Buckets of a histogram.
pub const BUCKETS: usize = ((VALUE_BITS - SUB_BITS + 1) as usize) << SUB_BITS;

/// The bucket of a value. Values below 128 have one each, the others share one with those that differ by less than
/// 1/64 (1.6 %).
#[inline(always)]
pub fn bucket(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    // Values below 64 go to the first row as they are.
    let row = (value | (1 << SUB_BITS)).ilog2() - SUB_BITS;
    (u64::from(row) << SUB_BITS) as usize + (value >> row) as usize
}

/// The values of a bucket: the least one, and the least one above them.
pub fn bounds(bucket: usize) -> (u64, u64) {
    let row = (bucket >> SUB_BITS).saturating_sub(1) as u32;
    let first = (bucket - ((row as usize) << SUB_BITS)) as u64;
    (first << row, (first + 1) << row)
}

/// Numbers in buckets, most of them empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Histogram {
    /// Bucket and how many, in the order of the buckets; none is empty.
    pub buckets: Vec<(u32, u64)>,
    /// Sum of all values.
    pub sum: u64,
    /// The greatest, exactly.
    pub max: u64,
}

impl Histogram {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Adds the values of another one.
    pub fn add(&mut self, other: &Histogram) {
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let (mut one, mut two) = (
            self.buckets.iter().peekable(),
            other.buckets.iter().peekable(),
        );
        while let Some(at) = [one.peek(), two.peek()]
            .into_iter()
            .flatten()
            .map(|(at, _)| *at)
            .min()
        {
            let take = |from: &mut std::iter::Peekable<std::slice::Iter<'_, (u32, u64)>>| {
                from.next_if(|(of, _)| *of == at)
                    .map_or(0, |(_, count)| *count)
            };
            let count = take(&mut one) + take(&mut two);
            merged.push((at, count));
        }
        self.buckets = merged;
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The value that at least `share` of all values do not exceed: the greatest of its bucket, so it may be up to 1.6 %
    /// too high, and never more than the greatest of all. `None` of no values.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((share * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        for (at, count) in &self.buckets {
            below += count;
            if below >= rank {
                return Some((bounds(*at as usize).1 - 1).min(self.max));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Histogram {
        let mut counts = vec![0u64; BUCKETS];
        values.iter().for_each(|value| counts[bucket(*value)] += 1);
        Histogram {
            buckets: (0u32..)
                .zip(counts)
                .filter(|(_, count)| *count != 0)
                .collect(),
            sum: values.iter().sum(),
            max: values.iter().copied().max().unwrap_or_default(),
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut next = 0;
        for at in 0..BUCKETS {
            let (low, above) = bounds(at);
            assert_eq!(low, next);
            assert_eq!((bucket(low), bucket(above - 1)), (at, at));
            assert!(above - low == 1 || (above - low) as f64 / low as f64 <= 1.0 / 64.0);
            next = above;
        }
        assert_eq!(next, 1 << VALUE_BITS);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        /// Quantiles are those of the sorted values, up to the width of a bucket; of parts put together as of the whole.
        #[test]
        fn quantiles_are_those_of_the_values(
            values in proptest::collection::vec((0u32..42, any::<u64>()), 1..200),
            cut in 0usize..200, share in 0.0f64..=1.0,
        ) {
            let values: Vec<u64> = values.iter().map(|(bits, value)| value & ((2 << bits) - 1)).collect();
            let (one, two) = values.split_at(cut.min(values.len()));
            let mut histogram = of(one);
            histogram.add(&of(two));
            prop_assert_eq!(&histogram, &of(&values));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = ((share * sorted.len() as f64).ceil() as usize).max(1);
            let exact = sorted[rank - 1];
            let told = histogram.quantile(share).unwrap();
            prop_assert!(exact <= told && (told - exact) as f64 <= exact as f64 / 64.0, "{exact} {told}");
            prop_assert_eq!(histogram.quantile(1.0), sorted.last().copied());
        }
    }
}
