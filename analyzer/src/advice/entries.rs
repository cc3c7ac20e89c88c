//! How many entries: the peaks of several runs, the number that holds at a risk, and the test of it
//! on each run in turn.

use super::Subject;
use super::student::upper_quantile;
use crate::handle_table::{MARGIN_PERCENT, SEGMENT_ENTRIES};
use crate::text::units::{count, counted};
use serde::Serialize;

const MILLION: u64 = 1_000_000;

/// What the number of entries rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The highest peak and a stated margin; no probability can be given.
    #[default]
    Margin,
    /// One of the highest peaks: needs no model.
    OrderStatistic,
    /// A prediction bound for a normal distribution of the logarithms of peaks: an assumption.
    LogNormal,
}

/// The advice made from all traces but one, tested on that one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The trace left out.
    pub trace: String,
    /// Entries advised from the others.
    pub entries: u64,
    /// Its peak.
    pub entries_peak: u64,
    /// How far its peak is above.
    pub entries_over: u64,
    /// How long it had more entries in use than advised, in nanoseconds: at most that.
    pub time_over_ns: u64,
    /// The same as a share of its duration, in millionths.
    pub time_over_ppm: u64,
    /// Its allocations that would have found no entry: at most so many.
    pub births_over: u64,
}

/// How many entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Entries {
    /// Entries to reserve: whole segments of 512.
    pub entries: u64,
    /// Before that rounding.
    pub entries_exact: u64,
    /// What it rests on.
    pub method: Method,
    /// The chance that a run needs more, in millionths; `null` where none can be given.
    pub risk_ppm: Option<u64>,
    /// The chance that was asked for, in millionths.
    pub risk_wanted_ppm: Option<u64>,
    /// Why this number, in words.
    pub statement: String,
    /// Least peak.
    pub peak_min: u64,
    /// Median peak; of two in the middle the higher.
    pub peak_median: u64,
    /// Highest peak.
    pub peak_max: u64,
    /// Median of the distances of the peaks from their median.
    pub peak_mad: u64,
    /// The test on each trace in turn; empty for one trace.
    pub left_out: Vec<LeftOut>,
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// A number of entries before rounding, what it rests on and its risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    entries: u64,
    method: Method,
    /// Which of the highest peaks it is, 1 for the highest; 0 if it is none of them.
    rank: u64,
    risk_ppm: Option<u64>,
}

/// `part` of `of` in millionths, rounded up: a bound for a risk stays one.
fn ppm_up(part: u64, of: u64) -> u64 {
    (u128::from(part) * u128::from(MILLION)).div_ceil(u128::from(of.max(1))) as u64
}

fn choose(peaks: &[u64], same_program: bool, risk_ppm: Option<u64>) -> Choice {
    let mut sorted = peaks.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let highest = sorted.first().copied().unwrap_or(0);
    let n = sorted.len() as u64;
    if n < 2 || !same_program {
        let margin = u128::from(highest) * u128::from(100 + MARGIN_PERCENT);
        return Choice {
            entries: u64::try_from(margin.div_ceil(100)).unwrap_or(u64::MAX),
            method: Method::Margin,
            rank: 0,
            risk_ppm: None,
        };
    }
    // The k-th highest of n is exceeded by the next run with probability k / (n + 1) at most.
    let k = match risk_ppm {
        Some(risk) => u64::try_from(u128::from(risk) * u128::from(n + 1) / u128::from(MILLION))
            .unwrap_or(u64::MAX)
            .min(n),
        None => 1,
    };
    if let Some(place) = k.checked_sub(1) {
        return Choice {
            entries: sorted[place as usize],
            method: Method::OrderStatistic,
            rank: k,
            risk_ppm: Some(ppm_up(k, n + 1)),
        };
    }
    let risk_ppm = risk_ppm.unwrap_or(1).max(1);
    let bound = log_normal(&sorted, risk_ppm as f64 / MILLION as f64);
    Choice {
        entries: bound.max(highest),
        method: Method::LogNormal,
        rank: 0,
        risk_ppm: Some(risk_ppm),
    }
}

/// What one more of equally distributed log-normal values exceeds with probability `risk`: the
/// prediction bound for a normal distribution (Hahn and Meeker, Statistical Intervals, 1991, chapter 4), of
/// the logarithms.
fn log_normal(peaks: &[u64], risk: f64) -> u64 {
    let n = peaks.len() as f64;
    let logs: Vec<f64> = peaks
        .iter()
        .map(|peak| (*peak).max(1) as f64)
        .map(f64::ln)
        .collect();
    let mean = logs.iter().sum::<f64>() / n;
    let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
    let deviation = (squares / (n - 1.0).max(1.0)).sqrt();
    let t = upper_quantile(risk, peaks.len().saturating_sub(1) as u32);
    // Beyond 64 bits the conversion stops at the greatest number.
    (mean + t * deviation * (1.0 + 1.0 / n).sqrt()).exp().ceil() as u64
}

/// Up to whole segments; numbers that no machine holds stay below 2^63.
pub(super) fn whole_segments(entries: u64) -> u64 {
    entries.min(1 << 62).next_multiple_of(SEGMENT_ENTRIES)
}

impl Entries {
    /// From the peaks of the subjects.
    pub(super) fn new(subjects: &[Subject], same_program: bool, risk_ppm: Option<u64>) -> Entries {
        let peaks: Vec<u64> = subjects
            .iter()
            .map(|subject| subject.handles.entries_peak)
            .collect();
        let choice = choose(&peaks, same_program, risk_ppm);
        let peak_median = median(peaks.clone());
        let distances = peaks
            .iter()
            .map(|peak| peak.abs_diff(peak_median))
            .collect();
        let left_out = match subjects.len() {
            0 | 1 => Vec::new(),
            _ => leave_out(subjects, same_program, risk_ppm),
        };
        Entries {
            entries: whole_segments(choice.entries),
            entries_exact: choice.entries,
            method: choice.method,
            risk_ppm: choice.risk_ppm,
            risk_wanted_ppm: risk_ppm,
            statement: statement(&choice, &peaks),
            peak_min: peaks.iter().copied().min().unwrap_or(0),
            peak_median,
            peak_max: peaks.iter().copied().max().unwrap_or(0),
            peak_mad: median(distances),
            left_out,
        }
    }
}

fn leave_out(subjects: &[Subject], same_program: bool, risk_ppm: Option<u64>) -> Vec<LeftOut> {
    let one = |(at, subject): (usize, &Subject)| {
        let others = subjects
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at);
        let peaks: Vec<u64> = others
            .map(|(_, other)| other.handles.entries_peak)
            .collect();
        let entries = whole_segments(choose(&peaks, same_program, risk_ppm).entries);
        let handles = &subject.handles;
        let over = handles.over(entries);
        LeftOut {
            trace: subject.trace.clone(),
            entries,
            entries_peak: handles.entries_peak,
            entries_over: handles.entries_peak.saturating_sub(entries),
            time_over_ns: over.time_ns,
            time_over_ppm: crate::handles::quotient(
                u128::from(over.time_ns) * u128::from(MILLION),
                handles.duration_ns,
            ),
            births_over: over.births,
        }
    };
    subjects.iter().enumerate().map(one).collect()
}

/// A risk as a percentage, in full: `12.5 %`.
pub(crate) fn risk(ppm: u64) -> String {
    let percent = ppm / 10_000;
    let rest = format!("{:04}", ppm % 10_000);
    match rest.trim_end_matches('0') {
        "" => format!("{percent} %"),
        digits => format!("{percent}.{digits} %"),
    }
}

fn statement(choice: &Choice, peaks: &[u64]) -> String {
    let n = peaks.len() as u64;
    let highest = count(peaks.iter().copied().max().unwrap_or(0));
    let rounded = format!("rounded up to whole segments of {SEGMENT_ENTRIES}");
    match choice.method {
        Method::Margin if n < 2 => format!(
            "the peak of {highest} and {MARGIN_PERCENT} %, {rounded}; from one trace no probability can be given that another run stays \
             below it"
        ),
        Method::Margin => format!(
            "the highest peak, {highest}, and {MARGIN_PERCENT} %, {rounded}; the traces are of different programs, so no probability can \
             be given"
        ),
        Method::OrderStatistic => {
            let which = match choice.rank {
                1 => format!("the highest of {n} peaks ({highest})"),
                rank => format!(
                    "the peak that is number {rank} from the highest of {n} ({})",
                    count(choice.entries)
                ),
            };
            format!(
                "{which}, {rounded}; the next run under the same conditions needs more with probability {}/{} at most, whatever the \
                 distribution of peaks",
                choice.rank,
                n + 1,
            )
        }
        Method::LogNormal => format!(
            "a prediction bound at risk {} from {}, {rounded}; ASSUMPTION: logarithms of peaks are normally distributed. \
             Without a model {n} traces tell of no risk below 1/{}",
            choice.risk_ppm.map(risk).unwrap_or_default(),
            counted(n, "peak", "peaks"),
            n + 1,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        /// Of n + 1 runs in any order, each as likely to be the next one, at most the stated share
        /// exceeds the number made from the others.
        #[test]
        fn the_risk_holds_for_exchangeable_runs(peaks in vec(1u64..50, 3..25), risk_ppm in 1u64..500_000) {
            let mut exceeded = 0u64;
            let mut stated = None;
            for next in 0..peaks.len() {
                let mut others = peaks.clone();
                let peak = others.remove(next);
                let choice = choose(&others, true, Some(risk_ppm));
                if choice.method == Method::LogNormal {
                    prop_assert!(u128::from(risk_ppm) * (peaks.len() as u128) < 1_000_000);
                    prop_assert!(choice.entries >= others.iter().copied().max().unwrap());
                    return Ok(());
                }
                prop_assert!(choice.risk_ppm.unwrap() <= risk_ppm + 1);
                stated = choice.risk_ppm;
                exceeded += u64::from(peak > choice.entries);
            }
            prop_assert!(exceeded * MILLION <= stated.unwrap() * peaks.len() as u64);
        }
    }

    #[test]
    fn numbers_by_hand() {
        let one = choose(&[1_000], true, Some(100_000));
        assert_eq!(
            (one.entries, one.method, one.risk_ppm),
            (1_250, Method::Margin, None)
        );
        // Of nine runs: the highest holds at 1/10, the second highest at 2/10.
        let nine = [3, 9, 1, 7, 5, 2, 8, 6, 4];
        let at = |risk| {
            let choice = choose(&nine, true, risk);
            (choice.entries, choice.method, choice.risk_ppm)
        };
        assert_eq!(at(None), (9, Method::OrderStatistic, Some(100_000)));
        assert_eq!(
            at(Some(100_000)),
            (9, Method::OrderStatistic, Some(100_000))
        );
        assert_eq!(
            at(Some(299_999)),
            (8, Method::OrderStatistic, Some(200_000))
        );
        assert_eq!(at(Some(99_999)).1, Method::LogNormal);
        assert!(at(Some(99_999)).0 >= 9);
        // Other programs: only the margin is left.
        assert_eq!(choose(&nine, false, None).method, Method::Margin);
    }

    #[test]
    fn a_prediction_bound_by_hand() {
        // Logarithms 1, 2, 3: mean 2, deviation 1, t(0.05, 2) = 2.920; 2 + 2.920 * sqrt(4/3) = 5.372.
        let peaks: Vec<u64> = [1.0f64, 2.0, 3.0]
            .iter()
            .map(|log| (1e6 * log.exp()) as u64)
            .collect();
        let bound = log_normal(&peaks, 0.05) as f64 / 1e6;
        assert!((bound.ln() - 5.372).abs() < 0.001, "{bound}");
        assert_eq!(log_normal(&[u64::MAX, 1], 0.000_001), u64::MAX);
        assert_eq!(log_normal(&[0, 0, 0], 0.01), 1);
    }

    #[test]
    fn risks_are_written_short() {
        assert_eq!(risk(125_000), "12.5 %");
        assert_eq!(risk(1), "0.0001 %");
        assert_eq!(risk(10_000), "1 %");
        assert_eq!(median(vec![4, 1, 3]), 3);
        assert_eq!(median(vec![]), 0);
    }
}
