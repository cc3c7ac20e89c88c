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

/// A figure over that of a reference, round by round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ratio {
    /// Name of the reference.
    pub to: String,
    /// Median of the ratios of paired rounds.
    pub median: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The interval includes 1: the difference is noise.
    pub within_noise: bool,
}

impl Ratio {
    /// Of paired measurements: those of the same round, so that what slowed down the machine slowed down both. `None`
    /// of none.
    pub fn new(of: &Figure, over: &Figure, to: &str) -> Option<Ratio> {
        let pairs = of.rounds.iter().zip(&over.rounds);
        let ratios: Vec<f64> = pairs
            .filter(|(_, over)| **over > 0.0)
            .map(|(of, over)| of / over)
            .collect();
        if ratios.is_empty() {
            return None;
        }
        let figure = Figure::new(ratios);
        Some(Ratio {
            to: to.to_string(),
            median: figure.median,
            low: figure.low,
            high: figure.high,
            within_noise: figure.low <= 1.0 && figure.high >= 1.0,
        })
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
    fn rounds_are_compared_in_pairs() {
        let figure = |rounds: &[f64]| Figure::new(rounds.to_vec());
        // The machine was three times as slow in some rounds; the second is 10 % slower in each, the third now and then.
        let first = figure(&[10.0, 30.0, 10.0, 30.0, 10.0, 10.0]);
        let second = figure(&[11.0, 33.0, 11.0, 33.0, 11.0, 11.0]);
        let third = figure(&[9.0, 33.0, 10.5, 28.0, 9.0, 11.0]);
        let ratio = Ratio::new(&second, &first, "first").unwrap();
        assert!(
            (ratio.median - 1.1).abs() < 1e-9 && !ratio.within_noise,
            "{ratio:?}"
        );
        let ratio = Ratio::new(&third, &first, "first").unwrap();
        assert!(
            ratio.within_noise && ratio.low < 1.0 && ratio.high > 1.0,
            "{ratio:?}"
        );
        assert_eq!(Ratio::new(&figure(&[]), &first, "first"), None);
    }

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
