//! Phases of a run: stretches of time in which the program asks its allocator at much the same rate,
//! found from its rates alone, and what became of the blocks born in each.
//!
//! The bins of [`Outlive`] are cut so that within each stretch the logarithm of the rate of calls and
//! the share of the traffic that stays live vary least, as least squares about their means. All cuts
//! into up to [`PHASES_MAX`] stretches are compared (segment neighbourhoods by dynamic programming:
//! Auger and Lawrence, Bulletin of Mathematical Biology 51, 1989); of their numbers the one wins whose
//! Bayesian information criterion (Schwarz, Annals of Statistics 6, 1978) is lowest. Whole numbers
//! throughout: the same trace has the same phases on every machine.

use crate::outlive::{BINS, Fate, Outlive};
use crate::rates::Rates;
use crate::tally::{Amount, Tally};
use serde::Serialize;

/// Phases at most.
pub const PHASES_MAX: usize = 12;
/// Bins of a phase at least.
pub const BINS_MIN: usize = 2;
/// A phase is idle whose rate is less than that of the median call divided by this.
pub const IDLE_DIVISOR: u64 = 20;
/// Live bytes change where they change by more than the greater of both ends divided by this.
pub const CHANGE_DIVISOR: u64 = 10;

/// One of a signal, or of a natural logarithm.
const ONE: i64 = 1 << 10;
/// Variances of the signals are taken to be this at least: a rate that changes by less than half a
/// power of two, or a quarter of the traffic that stays, is noise.
const VARIANCES_MIN: [i64; 2] = [(ONE / 2) * (ONE / 2), (ONE / 4) * (ONE / 4)];
/// Fewer calls than these say too little: they are one phase.
pub const CALLS_MIN: u64 = 1_000;
/// What a further phase adds to the criterion: two means and a place, times ln(bins).
const PARAMETERS: i64 = 3;

/// A phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// What it is: `start`, `grow`, `shrink`, `steady`, `idle`; between marks, the name of the mark
    /// that it begins with, empty before the first.
    pub name: String,
    /// When it begins, in nanoseconds since the run's first record.
    pub from_ns: u64,
    /// When it ends.
    pub to_ns: u64,
    /// Its calls and bytes.
    #[serde(flatten)]
    pub tally: Tally,
    /// Live blocks at its end, inherited ones left out.
    pub live_blocks: u64,
    /// Live bytes at its end, inherited blocks left out.
    pub live_bytes: u64,
    /// Blocks born in it that ended, by the phase they ended in: this one first, then those after
    /// it. Bytes are those at the blocks' ends.
    pub ended: Vec<Amount>,
    /// Blocks born in it that were not freed by the end of their process.
    pub kept: Amount,
    /// Blocks born in it that outlived it: they ended in a later phase or were kept.
    pub outlived: Amount,
}

/// The phases of a run or a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PhasesReport {
    /// Phases begin at multiples of this, in nanoseconds; the first when the process began.
    pub step_ns: u64,
    /// Calls per second in the bin in which the median call falls when bins are sorted by calls.
    pub busy_calls_per_s: u64,
    /// The phases in order of time; none where there were no calls.
    pub phases: Vec<Phase>,
}

impl Phase {
    pub(crate) fn set_fate(&mut self, fate: Fate) {
        self.kept = fate.kept;
        self.outlived = fate.kept;
        for amount in fate.ended.iter().skip(1) {
            self.outlived.add(*amount);
        }
        self.ended = fate.ended;
    }
}

/// The phases up to `end_ns`, of a process or the run; both measures have been told the same.
pub fn report(rates: &Rates, outlive: &Outlive, end_ns: u64) -> PhasesReport {
    found(rates, outlive, end_ns, CALLS_MIN)
}

fn found(rates: &Rates, outlive: &Outlive, end_ns: u64, calls_min: u64) -> PhasesReport {
    let (shift, bins) = rates.bins(end_ns, BINS);
    let step_ns = 1u64 << shift;
    let start_ns = rates.start_ns();
    let end_ns = end_ns.max(start_ns);
    let mut calls: Vec<u64> = bins.iter().map(Tally::calls).collect();
    if calls.iter().all(|calls| *calls == 0) {
        return PhasesReport {
            step_ns,
            ..PhasesReport::default()
        };
    }
    // The first and the last bin are partly outside; a small rest says little about a rate.
    let least_ns = step_ns / 8;
    let first_ns = start_ns >> shift << shift;
    let (head, tail) = (start_ns - first_ns, (end_ns & (step_ns - 1)) + 1);
    if let [only] = &mut calls[..] {
        *only = scaled(*only, tail.saturating_sub(head).max(least_ns), step_ns);
    } else if let [first, .., last] = &mut calls[..] {
        *first = scaled(*first, (step_ns - head).max(least_ns), step_ns);
        *last = scaled(*last, tail.max(least_ns), step_ns);
    }
    let busy = busy(&calls);
    let total = bins
        .iter()
        .fold(0, |sum: u64, bin| sum.saturating_add(bin.calls()));
    let mut cuts = match total < calls_min {
        true => vec![0],
        false => cut(&signals(&bins, &calls, busy)),
    };
    let is_idle = |from: usize, to: Option<usize>| {
        let calls = &calls[from..to.unwrap_or(calls.len())];
        let sum: u128 = calls.iter().map(|calls| u128::from(*calls)).sum();
        sum * u128::from(IDLE_DIVISOR) < u128::from(busy) * calls.len() as u128
    };
    // Idle is idle: neighbours are one phase.
    let all = cuts.clone();
    let mut was_idle = false;
    cuts.retain(|&from| {
        let is_idle = is_idle(from, all.iter().copied().find(|to| *to > from));
        !std::mem::replace(&mut was_idle, is_idle) || !is_idle
    });
    let at_ns = |bin: usize| first_ns.saturating_add((bin as u64).saturating_mul(step_ns));
    let mut phases: Vec<Phase> = Vec::new();
    let mut live = Amount::default();
    for (n, &from) in cuts.iter().enumerate() {
        let to = cuts.get(n + 1).copied();
        let mut tally = Tally::default();
        for bin in &bins[from..to.unwrap_or(bins.len())] {
            tally.add(bin);
        }
        let from_ns = at_ns(from).max(start_ns);
        let to_ns = to.map_or(end_ns, at_ns).max(from_ns);
        let after = tally.after(live);
        let name = match is_idle(from, to) {
            true => "idle",
            false => trend(live.bytes, after.bytes),
        };
        let is_start = name == "grow" && !phases.iter().any(|phase| phase.name == "start");
        live = after;
        phases.push(Phase {
            name: if is_start { "start" } else { name }.to_string(),
            from_ns,
            to_ns,
            tally,
            live_blocks: live.blocks,
            live_bytes: live.bytes,
            ..Phase::default()
        });
    }
    let begins_ns: Vec<u64> = phases.iter().map(|phase| phase.from_ns).collect();
    for (phase, fate) in phases.iter_mut().zip(outlive.fates(&begins_ns)) {
        phase.set_fate(fate);
    }
    PhasesReport {
        step_ns,
        busy_calls_per_s: scaled(busy, step_ns, 1_000_000_000),
        phases,
    }
}

/// `calls` in `part_ns` as they would be in `whole_ns`.
fn scaled(calls: u64, part_ns: u64, whole_ns: u64) -> u64 {
    let scaled = u128::from(calls) * u128::from(whole_ns) / u128::from(part_ns.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// What live bytes do between these two values.
fn trend(from: u64, to: u64) -> &'static str {
    let change = u128::from(from.abs_diff(to)) * u128::from(CHANGE_DIVISOR);
    match () {
        () if change <= from.max(to).into() => "steady",
        () if to > from => "grow",
        () => "shrink",
    }
}

/// Calls of the bin that the median call is in, bins sorted by calls.
fn busy(calls: &[u64]) -> u64 {
    let mut calls = calls.to_vec();
    calls.sort_unstable();
    let total: u128 = calls.iter().map(|calls| u128::from(*calls)).sum();
    let mut seen = 0;
    for calls in calls {
        seen += u128::from(calls);
        if seen * 2 >= total {
            return calls;
        }
    }
    0
}

/// Of each bin: the binary logarithm of its calls and as many more as make a bin idle, so that idle
/// times differ little; and the share of its traffic in bytes that stayed live, from -1 to 1, the
/// traffic of a mean bin being added so that a few calls say little.
fn signals(bins: &[Tally], calls: &[u64], busy: u64) -> Vec<[i64; 2]> {
    let idle = busy / IDLE_DIVISOR + 1;
    let flows = bins.iter().map(|bin| {
        let gone = u128::from(bin.bytes_freed) + u128::from(bin.bytes_released);
        (u128::from(bin.bytes_allocated), gone)
    });
    let flows: Vec<(u128, u128)> = flows.collect();
    let all: u128 = flows.iter().map(|(come, gone)| come + gone).sum();
    let mean = all / bins.len().max(1) as u128;
    let signal = |((come, gone), calls): (&(u128, u128), &u64)| {
        let traffic = (come + gone + mean).max(1) as i128;
        let stays = (*come as i128 - *gone as i128) * i128::from(ONE) / traffic;
        [log2(calls.saturating_add(idle)), stays as i64]
    };
    flows.iter().zip(calls).map(signal).collect()
}

/// Binary logarithm in units of [`ONE`], rounded down; 0 of 0.
fn log2(value: u64) -> i64 {
    let Some(power) = value.checked_ilog2() else {
        return 0;
    };
    // Squaring a number from [1, 2) doubles its logarithm: each time the next digit shows.
    let mut mantissa = u128::from(value) << (63 - power);
    let mut digits = i64::from(power);
    for _ in 0..ONE.ilog2() {
        mantissa = (mantissa * mantissa) >> 63;
        let digit = mantissa >> 64;
        mantissa >>= digit;
        digits = (digits << 1) | digit as i64;
    }
    digits
}

/// Natural logarithm in units of [`ONE`].
fn ln(value: u64) -> i64 {
    // ln 2 = 0.693147
    log2(value) * 693_147 / 1_000_000
}

/// The variance of the noise of one signal, from the median of the steps between neighbours, which
/// few changes of level don't move. Of normal noise that median is 0.954 standard deviations
/// (0.6745 x sqrt 2), so the variance is its square times 1.099.
fn variance(signals: &[[i64; 2]], which: usize) -> i64 {
    let steps = signals.windows(2).map(|two| {
        let (a, b) = (two[0][which], two[1][which]);
        a.abs_diff(b) as i64
    });
    let mut steps: Vec<i64> = steps.collect();
    steps.sort_unstable();
    let median = steps.get(steps.len() / 2).copied().unwrap_or(0);
    (median * median * 1_099 / 1_000).max(VARIANCES_MIN[which])
}

/// Sums of signals and of their squares, from the first bin on.
struct Costs {
    sums: Vec<[(i64, i64); 2]>,
    variances: [i64; 2],
}

impl Costs {
    fn new(signals: &[[i64; 2]]) -> Costs {
        let mut sum = [(0i64, 0i64); 2];
        let mut sums = vec![sum];
        for signal in signals {
            for (sum, value) in sum.iter_mut().zip(signal) {
                sum.0 += value;
                sum.1 += value * value;
            }
            sums.push(sum);
        }
        let variances = [variance(signals, 0), variance(signals, 1)];
        Costs { sums, variances }
    }

    /// Squared distances of the bins `[from, to)` to their mean, in variances, times [`ONE`].
    fn of(&self, from: usize, to: usize) -> i64 {
        let count = to.saturating_sub(from).max(1) as i64;
        let each = (0..2).map(|which| {
            let (a, b) = (self.sums[from][which], self.sums[to][which]);
            let (sum, squares) = (b.0 - a.0, b.1 - a.1);
            (squares - sum * sum / count) * ONE / self.variances[which]
        });
        each.sum()
    }
}

/// Where the stretches begin. For 128 bins it works out 8,256 costs and compares up to 12 times as
/// many sums, fewer where few stretches will do: half a million to two million instructions.
fn cut(signals: &[[i64; 2]]) -> Vec<usize> {
    let (bins, costs) = (signals.len(), Costs::new(signals));
    let from_to = (0..=bins).map(|from| (from..=bins).map(|to| costs.of(from, to)).collect());
    let costs: Vec<Vec<i64>> = from_to.collect();
    let cost = |from: usize, to: usize| costs[from][to - from];
    let penalty = PARAMETERS * ln(bins as u64);
    // By number of stretches, less one, and bins that they cover: the least cost, and where the last
    // stretch begins.
    let mut tables: Vec<Vec<Option<(i64, usize)>>> = Vec::new();
    let first = (0..=bins).map(|to| Some((cost(0, to), 0)).filter(|_| to >= BINS_MIN));
    tables.push(first.collect());
    let mut least = tables[0][bins].map_or(i64::MAX, |(cost, _)| cost);
    // No cost is below 0: where the penalty alone is more than the least total, more stretches are
    // worse.
    while tables.len() < PHASES_MAX && penalty * tables.len() as i64 <= least {
        let before = &tables[tables.len() - 1];
        let best = |to: usize| {
            let from = BINS_MIN..(to + 1).saturating_sub(BINS_MIN);
            let each = from.filter_map(|from| Some((before[from]?.0 + cost(from, to), from)));
            each.min()
        };
        let table: Vec<Option<(i64, usize)>> = (0..=bins).map(best).collect();
        if let Some((cost, _)) = table[bins] {
            least = least.min(cost + penalty * tables.len() as i64);
        }
        tables.push(table);
    }
    let totals = tables.iter().enumerate().filter_map(|(more, table)| {
        let (cost, _) = table[bins]?;
        Some((cost + penalty * more as i64, more))
    });
    let more = totals.min().map_or(0, |(_, more)| more);
    let mut begins = vec![0; more + 1];
    let mut to = bins;
    for (begin, table) in begins.iter_mut().zip(&tables).rev() {
        *begin = table[to].map_or(0, |(_, from)| from);
        to = *begin;
    }
    begins
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::streams;
    use crate::fact::{Fact, Measure, Peaks, What};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The criterion of a cut, word for word and in real numbers.
    fn criterion(signals: &[[i64; 2]], begins: &[usize]) -> f64 {
        let mut total = 3.0 * (signals.len() as f64).ln() * (begins.len() - 1) as f64;
        for which in 0..2 {
            let real = |signal: &[i64; 2]| signal[which] as f64 / ONE as f64;
            let values: Vec<f64> = signals.iter().map(real).collect();
            let mut steps: Vec<f64> = values
                .windows(2)
                .map(|two| (two[0] - two[1]).abs())
                .collect();
            steps.sort_by(f64::total_cmp);
            let median = steps.get(steps.len() / 2).copied().unwrap_or(0.0);
            let sigma = (median / (0.6745 * 2f64.sqrt())).max([0.5, 0.25][which]);
            for (n, &from) in begins.iter().enumerate() {
                let to = begins.get(n + 1).copied().unwrap_or(values.len());
                let part = &values[from..to];
                let mean = part.iter().sum::<f64>() / part.len() as f64;
                let squares: f64 = part.iter().map(|value| (value - mean).powi(2)).sum();
                total += squares / sigma.powi(2);
            }
        }
        total
    }

    /// All cuts into stretches of two bins and more.
    fn all_cuts(bins: usize) -> Vec<Vec<usize>> {
        let cuts = (0u32..1 << (bins - 1)).map(|set| {
            let chosen = (1..bins).filter(|bin| set >> (bin - 1) & 1 == 1);
            std::iter::once(0).chain(chosen).collect::<Vec<usize>>()
        });
        let is_allowed = |begins: &Vec<usize>| {
            let ends = begins.iter().skip(1).chain([&bins]);
            begins.len() == 1 || begins.iter().zip(ends).all(|(from, to)| to - from >= 2)
        };
        cuts.filter(is_allowed).collect()
    }

    proptest! {
        /// No cut has a lower criterion than the one found.
        #[test]
        fn the_cut_is_the_best_of_all(
            signals in vec((0i64..20 * ONE, 0i64..5, -ONE..=ONE), 1..12),
        ) {
            // Long stretches of a level are likely, so that cuts pay.
            let mut level = [0, 0];
            let mut levels = Vec::new();
            for (rate, change, stays) in signals {
                if change == 0 || levels.is_empty() {
                    level = [rate, stays];
                }
                levels.push([level[0] + change * 200, level[1]]);
            }
            let begins = cut(&levels);
            let all = all_cuts(levels.len());
            prop_assert!(all.contains(&begins));
            let least = all.iter().map(|cut| criterion(&levels, cut)).fold(f64::MAX, f64::min);
            prop_assert!(criterion(&levels, &begins) < least * 1.002 + 0.05);
        }

        /// Phases follow each other from begin to end; their calls and blocks are all there are.
        #[test]
        fn phases_hold_everything(stream in streams(300)) {
            let (mut rates, mut outlive) = (Rates::new(0), Outlive::new(0));
            stream.tell(&mut rates);
            stream.tell(&mut outlive);
            let report = found(&rates, &outlive, stream.end_ns, 0);
            let histories = stream.histories();
            let Some(last) = report.phases.last() else {
                prop_assert!(histories.is_empty());
                return Ok(());
            };
            prop_assert_eq!(report.phases[0].from_ns, 0);
            prop_assert_eq!(last.to_ns, stream.end_ns);
            let left = stream.told.len().checked_sub(1).map(|at| {
                let kept = stream.told.iter().filter(|(fact, _)| fact.what == What::Kept);
                (kept.clone().count() as u64, kept.map(|(fact, _)| fact.bytes).sum::<u64>(), at)
            });
            let (blocks, bytes, _) = left.unwrap();
            prop_assert_eq!((last.live_blocks, last.live_bytes), (blocks, bytes));
            for two in report.phases.windows(2) {
                prop_assert_eq!(two[0].to_ns, two[1].from_ns);
                prop_assert_eq!(two[1].from_ns % report.step_ns, 0);
                prop_assert!(two[0].name != "idle" || two[1].name != "idle");
            }
            for (n, phase) in report.phases.iter().enumerate() {
                let within = |at_ns: u64| {
                    let is_last = n + 1 == report.phases.len();
                    phase.from_ns <= at_ns && (at_ns < phase.to_ns || is_last)
                };
                let born = |of: &&Vec<usize>| within(stream.told[of[0]].0.time_ns);
                let ends = |of: &Vec<usize>| stream.told[of[of.len() - 1]].0;
                let outlived = |of: &&Vec<usize>| {
                    ends(of).what == What::Kept || !within(ends(of).time_ns)
                };
                let born: Vec<&Vec<usize>> = histories.iter().filter(born).collect();
                prop_assert_eq!(phase.tally.allocations, born.len() as u64);
                let outlived = born.iter().copied().filter(outlived);
                prop_assert_eq!(phase.outlived.blocks, outlived.clone().count() as u64);
                prop_assert_eq!(
                    phase.outlived.bytes,
                    outlived.map(|of| ends(of).bytes).sum::<u64>()
                );
            }
        }
    }

    #[test]
    fn logarithms_are_those_of_real_numbers() {
        for value in [1u64, 2, 3, 10, 999, 1 << 40, u64::MAX] {
            let real = (value as f64).log2() * ONE as f64;
            assert!((log2(value) as f64 - real).abs() <= 1.0, "{value}");
        }
        assert_eq!(log2(0), 0);
        assert!((ln(128) as f64 / ONE as f64 - 128f64.ln()).abs() < 0.01);
    }

    #[test]
    fn there_are_never_too_many_phases() {
        let signals: Vec<[i64; 2]> = (0..128).map(|bin| [bin / 4 % 2 * 20 * ONE, 0]).collect();
        assert_eq!(cut(&signals).len(), PHASES_MAX);
        assert_eq!(cut(&[[5, 5]; 128]), [0]);
        assert_eq!(cut(&[]), [0]);
    }

    /// A program that starts, works with what it has, waits, loads a page, gives it back.
    #[test]
    fn phases_are_named_by_what_they_do() {
        let (mut rates, mut outlive) = (Rates::new(0), Outlive::new(0));
        let mut tell = |time_ns: u64, what: What, born_ns: u64| {
            let fact = Fact {
                time_ns,
                what,
                bytes: 100,
                life_ns: time_ns - born_ns,
                ..Fact::default()
            };
            rates.fact(&fact, Peaks::default());
            outlive.fact(&fact, Peaks::default());
        };
        const MS: u64 = 1 << 20;
        for ms in 0..20 {
            (0..100).for_each(|n| tell(ms * MS + n, What::Born, 0));
        }
        for ms in 20..50 {
            for n in 0..100 {
                tell(ms * MS + n * 2, What::Born, 0);
                tell(ms * MS + n * 2 + 1, What::Freed, ms * MS + n * 2);
            }
        }
        tell(70 * MS, What::Born, 0);
        for ms in 80..100 {
            (0..200).for_each(|n| tell(ms * MS + n, What::Born, 0));
        }
        for ms in 100..110 {
            (0..200).for_each(|n| tell(ms * MS + n, What::Freed, 90 * MS));
        }
        for ms in 110..127 {
            (0..3).for_each(|n| tell(ms * MS + n, What::Freed, 5 * MS));
        }
        let report = report(&rates, &outlive, 127 * MS);
        assert_eq!(report.step_ns, MS);
        // 12,000 calls are in bins of 200, hardly more than 2,000 in others.
        assert_eq!(report.busy_calls_per_s, 200 * 1_000_000_000 / MS);
        let found: Vec<(&str, u64)> = report
            .phases
            .iter()
            .map(|phase| (phase.name.as_str(), phase.from_ns / MS))
            .collect();
        assert_eq!(
            found,
            [
                ("start", 0),
                ("steady", 20),
                ("idle", 50),
                ("grow", 80),
                ("shrink", 100),
                ("idle", 110)
            ]
        );
        // What the start left is freed in the last phase; what was loaded, in the one after it.
        assert_eq!(report.phases[0].ended[5].blocks, 51);
        assert_eq!(report.phases[3].ended[1].blocks, 2_000);
        assert_eq!(report.phases[3].outlived.bytes, 200_000);
        assert_eq!(report.phases[1].ended[0].blocks, 3_000);
        assert_eq!(report.phases[3].live_blocks, 2_000 + 1 + 4_000);
    }
    /// Few calls for many bytes are a stretch of their own, but idle like the one before it.
    #[test]
    fn neighbouring_idle_phases_are_one() {
        let mut rates = Rates::new(0);
        for ms in (0u64..20).chain(60..127) {
            let (calls, bytes) = if ms < 20 { (100, 100) } else { (1, 1_000_000) };
            for n in 0..calls {
                let fact = Fact {
                    time_ns: (ms << 20) + n,
                    what: What::Born,
                    bytes,
                    ..Fact::default()
                };
                rates.fact(&fact, Peaks::default());
            }
        }
        let (_, bins) = rates.bins(127 << 20, BINS);
        let calls: Vec<u64> = bins.iter().map(Tally::calls).collect();
        assert_eq!(cut(&signals(&bins, &calls, 100)), [0, 20, 60]);
        let report = report(&rates, &Outlive::new(0), 127 << 20);
        let found = report.phases.iter().map(|phase| phase.name.as_str());
        assert_eq!(found.collect::<Vec<_>>(), ["start", "idle"]);
    }
}
