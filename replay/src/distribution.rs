//! Durations as the report has them: percentiles of each kind of operation and size class, made from the histograms of
//! all latency rounds of an allocator.

use crate::histogram::{Histogram, bounds};
use crate::latency::{CLASSES, Kind, Latency, class_bounds};
use serde::Serialize;

/// Durations in nanoseconds; percentiles are at most 1.6 % too high, `max` is exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// How many; all figures are 0 where there are none.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half of all take at most so long.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
    /// Those that are not empty: nanoseconds from, below, and how many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(f64, f64, u64)>,
}

impl Distribution {
    fn new(ticks: &Histogram, ns_per_tick: f64, with_buckets: bool) -> Distribution {
        let count = ticks.count();
        let of = |share| ticks.quantile(share).unwrap_or_default() as f64 * ns_per_tick;
        let buckets = match with_buckets {
            true => ticks.buckets.as_slice(),
            false => &[],
        };
        Distribution {
            count,
            mean: ticks.sum as f64 * ns_per_tick / count.max(1) as f64,
            p50: of(0.5),
            p90: of(0.9),
            p99: of(0.99),
            p999: of(0.999),
            p9999: of(0.9999),
            max: ticks.max as f64 * ns_per_tick,
            buckets: buckets
                .iter()
                .map(|&(at, count)| {
                    let (low, above) = bounds(at as usize);
                    (low as f64 * ns_per_tick, above as f64 * ns_per_tick, count)
                })
                .collect(),
        }
    }
}

/// Durations of all operations of an allocator.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LatencyReport {
    /// Rounds that they are from.
    pub rounds: usize,
    /// All operations.
    pub all: Distribution,
    /// `malloc`, or what takes its place.
    pub malloc: Distribution,
    /// `calloc`.
    pub calloc: Distribution,
    /// `posix_memalign`.
    pub aligned: Distribution,
    /// `realloc`.
    pub realloc: Distribution,
    /// `free`.
    pub free: Distribution,
    /// Of them, blocks that the recorded thread had allocated itself, or had inherited.
    pub free_same_thread: Distribution,
    /// Blocks that another recorded thread had allocated.
    pub free_cross_thread: Distribution,
    /// The same by size.
    pub by_size: Vec<SizeLatency>,
}

/// Durations of operations on blocks of some sizes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SizeLatency {
    /// The least size in bytes.
    pub from_bytes: u64,
    /// All are below this.
    pub below_bytes: u64,
    /// Allocations of every kind.
    pub allocation: Distribution,
    /// Resizes to these sizes.
    pub realloc: Distribution,
    /// Frees.
    pub free: Distribution,
}

/// The clock of latency rounds, as measured beside them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClockReport {
    /// `tsc` or `monotonic`.
    pub source: String,
    /// Nanoseconds of a tick.
    pub ns_per_tick: f64,
    /// Nanoseconds that all readings differ by multiples of.
    pub step_ns: f64,
    /// What reading it takes, which is in every duration: median of two readings with nothing between them.
    pub cost_ns: f64,
    /// Durations below this can't be told from nothing at all: what 99 % of such readings stay within, and a step.
    pub floor_ns: f64,
}

fn median_of(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    crate::figure::median(&numbers)
}

/// The length of a tick, from all rounds.
pub fn ns_per_tick(rounds: &[&Latency]) -> f64 {
    median_of(rounds.iter().map(|round| round.ns_per_tick).collect())
}

/// What the rounds say of their clock; `None` of no rounds.
pub fn clock(rounds: &[&Latency]) -> Option<ClockReport> {
    let ns = ns_per_tick(rounds);
    let of = |ticks: fn(&Latency) -> u64| {
        median_of(rounds.iter().map(|round| ticks(round) as f64).collect()) * ns
    };
    let step_ns = of(|round| round.step);
    rounds.first().map(|round| ClockReport {
        source: round.clock.clone(),
        ns_per_tick: ns,
        step_ns,
        cost_ns: of(|round| round.cost),
        floor_ns: of(|round| round.cost_high) + step_ns,
    })
}

/// The durations of all latency rounds of an allocator; `None` of no rounds.
pub fn latency(rounds: &[&Latency]) -> Option<LatencyReport> {
    let ns = ns_per_tick(rounds);
    let sum = |is_in: &dyn Fn(Kind, usize) -> bool, with_buckets| {
        let mut ticks = Histogram::default();
        for cell in rounds.iter().flat_map(|round| &round.cells) {
            let kind = crate::latency::KINDS.get(cell.kind);
            if kind.is_some_and(|kind| is_in(*kind, cell.class)) {
                ticks.add(&cell.ticks);
            }
        }
        Distribution::new(&ticks, ns, with_buckets)
    };
    let of = |kinds: &[Kind]| sum(&|kind, _| kinds.contains(&kind), true);
    let allocations = [Kind::Malloc, Kind::Calloc, Kind::Aligned];
    let frees = [Kind::FreeSame, Kind::FreeCross];
    let by_size = (0..CLASSES).filter_map(|class| {
        let of = |kinds: &[Kind]| sum(&|kind, of| of == class && kinds.contains(&kind), false);
        let (from_bytes, below_bytes) = class_bounds(class);
        let size = SizeLatency {
            from_bytes,
            below_bytes,
            allocation: of(&allocations),
            realloc: of(&[Kind::Realloc]),
            free: of(&frees),
        };
        let count = size.allocation.count + size.realloc.count + size.free.count;
        (count != 0).then_some(size)
    });
    (!rounds.is_empty()).then(|| LatencyReport {
        rounds: rounds.len(),
        all: sum(&|_, _| true, true),
        malloc: of(&[Kind::Malloc]),
        calloc: of(&[Kind::Calloc]),
        aligned: of(&[Kind::Aligned]),
        realloc: of(&[Kind::Realloc]),
        free: of(&frees),
        free_same_thread: of(&[Kind::FreeSame]),
        free_cross_thread: of(&[Kind::FreeCross]),
        by_size: by_size.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::bucket;
    use crate::latency::Cell;

    fn cell(kind: Kind, class: usize, ticks: u64, count: u64) -> Cell {
        Cell {
            kind: kind as usize,
            class,
            ticks: Histogram {
                buckets: vec![(bucket(ticks) as u32, count)],
                sum: ticks * count,
                max: ticks,
            },
        }
    }

    #[test]
    fn rounds_and_kinds_are_put_together() {
        let round = |cells| Latency {
            clock: "tsc".to_string(),
            ns_per_tick: 0.5,
            cost: 40,
            cost_high: 50,
            step: 2,
            cells,
            ..Latency::default()
        };
        let one = round(vec![
            cell(Kind::Malloc, 5, 100, 98),
            cell(Kind::FreeSame, 5, 60, 10),
        ]);
        let two = round(vec![
            cell(Kind::Malloc, 6, 100_000, 2),
            cell(Kind::FreeCross, 5, 80, 30),
            cell(Kind::Aligned, 5, 10, 1),
        ]);
        let report = latency(&[&one, &two]).unwrap();
        let malloc = &report.malloc;
        assert_eq!(
            (malloc.count, malloc.p50, malloc.p90, malloc.max),
            (100, 50.0, 50.0, 50_000.0)
        );
        assert_eq!((malloc.p99, malloc.mean), (50_000.0, 1049.0));
        assert_eq!((report.free.count, report.free.p50), (40, 40.0));
        assert_eq!(report.free_same_thread.max, 30.0);
        assert_eq!(
            (report.all.count, report.aligned.count, report.calloc.count),
            (141, 1, 0)
        );
        let sizes: Vec<_> = report
            .by_size
            .iter()
            .map(|size| {
                (
                    size.from_bytes,
                    size.below_bytes,
                    size.allocation.count,
                    size.free.count,
                )
            })
            .collect();
        assert_eq!(sizes, [(16, 32, 99, 40), (32, 64, 2, 0)]);
        let clock = clock(&[&one, &two]).unwrap();
        assert_eq!(
            (clock.cost_ns, clock.step_ns, clock.floor_ns),
            (20.0, 1.0, 26.0)
        );
        assert_eq!(latency(&[]), None);
    }
}
