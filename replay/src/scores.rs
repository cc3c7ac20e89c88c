//! Scores of the thesis: how n allocators rank at each of m operations (for time) or moments (for space).
//! `docs/replay.md` defines them. Reads one stream of values an allocator, all at the same pace.

use crate::histogram::{BUCKETS, Histogram, bucket};
use serde::Serialize;

/// Scores of one allocator.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// Sum of its ranks over n m: 0: always the best alone or shared.
    pub penalty_c: f64,
    /// Mean of how much more it takes than the best, over the best; where that is more than 0.
    pub penalty_w: f64,
    /// Share of places where none is better.
    pub best: f64,
    /// Share of places where none is worse.
    pub worst: f64,
    /// Mean of its values.
    pub average: f64,
    /// Their median, at most 1.6 % too high.
    pub median: f64,
}

/// Adds up ranks of n allocators.
#[derive(Clone, Debug)]
pub struct Ranks {
    sums: Vec<Sum>,
    places: u64,
    /// Those where the best value is more than 0.
    weighed: u64,
}

#[derive(Clone, Debug, Default)]
struct Sum {
    ranks: u64,
    excess: f64,
    best: u64,
    worst: u64,
    values: i128,
    counts: Vec<u64>,
    max: u64,
}

impl Ranks {
    /// Of so many allocators.
    pub fn new(allocators: usize) -> Ranks {
        let sum = Sum {
            counts: vec![0; BUCKETS],
            ..Sum::default()
        };
        Ranks {
            sums: vec![sum; allocators],
            places: 0,
            weighed: 0,
        }
    }

    /// Places so far.
    pub fn places(&self) -> u64 {
        self.places
    }

    /// One value of each allocator, less is better. The rank of one is how many others are better, so equals share one.
    pub fn place(&mut self, values: &[i64]) {
        let best = values.iter().copied().min().unwrap_or_default();
        let worst = values.iter().copied().max().unwrap_or_default();
        self.places += 1;
        self.weighed += u64::from(best > 0);
        for (sum, &value) in self.sums.iter_mut().zip(values) {
            sum.ranks += values.iter().filter(|other| **other < value).count() as u64;
            if best > 0 {
                sum.excess += (value - best) as f64 / best as f64;
            }
            sum.best += u64::from(value == best);
            sum.worst += u64::from(value == worst);
            sum.values += i128::from(value);
            let value = value.max(0) as u64;
            sum.counts[bucket(value)] += 1;
            sum.max = sum.max.max(value);
        }
    }

    /// The scores of each allocator; averages and medians in values times `unit`, one an allocator.
    pub fn scores(&self, units: &[f64]) -> Vec<Score> {
        let (n, m) = (self.sums.len().max(1) as f64, self.places.max(1) as f64);
        let scores = self.sums.iter().zip(units).map(|(sum, unit)| {
            let buckets = (0u32..).zip(sum.counts.iter().copied());
            let histogram = Histogram {
                buckets: buckets.filter(|(_, count)| *count != 0).collect(),
                sum: 0,
                max: sum.max,
            };
            Score {
                penalty_c: sum.ranks as f64 / (n * m),
                penalty_w: sum.excess / self.weighed.max(1) as f64,
                best: sum.best as f64 / m,
                worst: sum.worst as f64 / m,
                average: sum.values as f64 / m * unit,
                median: histogram.quantile(0.5).unwrap_or_default() as f64 * unit,
            }
        });
        scores.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three allocators at three places, worked out by hand.
    #[test]
    fn scores_are_those_of_the_thesis() {
        let mut ranks = Ranks::new(3);
        ranks.place(&[10, 20, 30]);
        ranks.place(&[10, 10, 40]);
        // The best takes nothing: its excess over that can't be told.
        ranks.place(&[5, 0, 0]);
        let scores = ranks.scores(&[1.0, 1.0, 2.0]);
        assert_eq!(ranks.places(), 3);
        // Ranks 0 0 2, 1 0 0, 2 2 0; over nine.
        let penalties: Vec<f64> = scores.iter().map(|score| score.penalty_c * 9.0).collect();
        assert_eq!(penalties, [2.0, 1.0, 4.0]);
        let excess: Vec<f64> = scores.iter().map(|score| score.penalty_w).collect();
        assert_eq!(excess, [0.0, 0.5, 2.5]);
        let best: Vec<f64> = scores
            .iter()
            .map(|score| (score.best * 3.0).round())
            .collect();
        let worst: Vec<f64> = scores
            .iter()
            .map(|score| (score.worst * 3.0).round())
            .collect();
        assert_eq!((best, worst), (vec![2.0, 2.0, 1.0], vec![1.0, 0.0, 2.0]));
        let averages: Vec<f64> = scores
            .iter()
            .map(|score| (score.average * 3.0).round())
            .collect();
        assert_eq!(averages, [25.0, 30.0, 140.0]);
        let medians: Vec<f64> = scores.iter().map(|score| score.median).collect();
        assert_eq!(medians, [10.0, 10.0, 60.0]);
    }
}
