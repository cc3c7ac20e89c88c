//! A figure measured several times: its median and how sure that is.

use crate::subject::mix;
use serde::Serialize;

/// Resamples of a bootstrap.
const RESAMPLES: u64 = 1_000;

/// Median of several measurements with the 95 % interval of a percentile bootstrap.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    /// The median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The measurements, in their order.
    pub rounds: Vec<f64>,
}

impl Figure {
    /// From at least one measurement. The same ones give the same interval: the resamples are not by chance.
    pub fn new(rounds: Vec<f64>) -> Figure {
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|resample| {
                let mut drawn: Vec<f64> = (0..sorted.len() as u64)
                    .map(|at| sorted[(mix(resample << 20 | at) % sorted.len() as u64) as usize])
                    .collect();
                drawn.sort_by(f64::total_cmp);
                median(&drawn)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Figure {
            median: median(&sorted),
            low: medians[RESAMPLES as usize / 40],
            high: medians[RESAMPLES as usize - 1 - RESAMPLES as usize / 40],
            rounds,
        }
    }
}

/// The median of numbers in order; 0 of none.
pub fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_median_and_narrows_with_more_rounds() {
        let spread = |n: u64| Figure::new((0..n).map(|at| (mix(at) % 1000) as f64).collect());
        let (few, many) = (spread(5), spread(501));
        for figure in [&few, &many] {
            assert!(
                figure.low <= figure.median && figure.median <= figure.high,
                "{figure:?}"
            );
        }
        assert!(many.high - many.low < (few.high - few.low) / 2.0);
        assert_eq!(
            Figure::new(vec![3.0]),
            Figure {
                median: 3.0,
                low: 3.0,
                high: 3.0,
                rounds: vec![3.0]
            }
        );
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }
}
