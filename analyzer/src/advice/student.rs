//! Quantiles of Student's t distribution.

use std::f64::consts::{FRAC_PI_2, PI};

/// The chance that a t-distributed value with `freedom` degrees of freedom lies within `-t..t`, where t
/// is the square root of `freedom` times the tangent of `angle`: Abramowitz and Stegun, Handbook of
/// Mathematical Functions (1964), 26.7.3 (odd) and 26.7.4 (even).
fn within(angle: f64, freedom: u32) -> f64 {
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = 0.0;
    // The highest power of the cosine is `freedom - 2`.
    let mut power = u32::from(odd);
    while power + 2 <= freedom {
        sum += term;
        let n = f64::from(power);
        term *= cosine * cosine * (n + 1.0) / (n + 2.0);
        power += 2;
    }
    if odd {
        2.0 / PI * (angle + sine * sum)
    } else {
        sine * sum
    }
}

/// The value that is exceeded with probability `risk`, for `0 < risk < 1/2` and at least one degree of
/// freedom.
pub(super) fn upper_quantile(risk: f64, freedom: u32) -> f64 {
    let freedom = freedom.max(1);
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if (1.0 - within(middle, freedom)) / 2.0 > risk {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::from(freedom).sqrt() * high.tan()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distribution by its density, integrated with the trapezoidal rule in small steps. The
    /// density's factor is the one that makes the whole area 1.
    fn above_slowly(t: f64, freedom: u32) -> f64 {
        let freedom = f64::from(freedom);
        let density = |x: f64| (1.0 + x * x / freedom).powf(-(freedom + 1.0) / 2.0);
        // x = sqrt(freedom) tan(a): the whole line becomes an interval.
        let area = |from: f64, to: f64| -> f64 {
            let steps = 200_000;
            let width = (to - from) / f64::from(steps);
            let value = |a: f64| {
                let x = freedom.sqrt() * a.tan();
                density(x) * freedom.sqrt() / a.cos().powi(2)
            };
            (0..steps)
                .map(|step| value(from + (f64::from(step) + 0.5) * width) * width)
                .sum()
        };
        area((t / freedom.sqrt()).atan(), FRAC_PI_2) / area(-FRAC_PI_2, FRAC_PI_2)
    }

    #[test]
    fn quantiles_have_their_risk_above() {
        for freedom in [1, 2, 3, 4, 7, 10, 29] {
            for risk in [0.25, 0.1, 0.01, 0.001] {
                let t = upper_quantile(risk, freedom);
                let above = above_slowly(t, freedom);
                assert!(
                    (above - risk).abs() < 1e-5 * risk + 1e-7,
                    "{freedom} {risk}: {t} {above}"
                );
            }
        }
    }

    #[test]
    fn tabled_values() {
        // Abramowitz and Stegun, table 26.10.
        for (freedom, risk, t) in [
            (1, 0.025, 12.706),
            (4, 0.01, 3.747),
            (10, 0.025, 2.228),
            (30, 0.005, 2.750),
        ] {
            assert!(
                (upper_quantile(risk, freedom) - t).abs() < 0.0006,
                "{freedom} {risk}"
            );
        }
    }
}
