//! Lifetimes of blocks in three clocks: nanoseconds, the process' own calls, bytes it allocated.
//! Percentiles are over freed blocks, shares over all blocks.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::histogram::{class_row, row_bounds};
use crate::log_linear::{LogLinear, percentile};
use serde::Serialize;

/// Bits of the histograms that percentiles come from: exact below 256, then within 1/128.
pub const BITS: u32 = 7;
/// Bits of the histograms by size: exact below 32, then within 1/16.
pub const BITS_BY_SIZE: u32 = 4;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Lifetimes of freed blocks in one clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lifetimes {
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// The greatest, exactly.
    pub max: u64,
    /// Freed blocks by lifetime, in powers of two.
    pub histogram: Vec<LifetimeBin>,
}

/// Freed blocks that lived `[low, high)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LifetimeBin {
    /// Shortest lifetime of the class.
    pub low: u64,
    /// First lifetime above the class (the last class ends at `u64::MAX` and holds it).
    pub high: u64,
    /// Freed blocks.
    pub blocks: u64,
}

/// All blocks by how long they lived; the `below_...` hold each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// All blocks allocated.
    pub blocks: u64,
    /// Freed within less than 1 us.
    pub below_1us: u64,
    /// Freed within less than 1 ms, those below 1 us among them.
    pub below_1ms: u64,
    /// Freed within less than 1 s, those below 1 ms among them.
    pub below_1s: u64,
    /// Freed after 1 s or more.
    pub from_1s: u64,
    /// Not freed by the process' end.
    pub to_end: u64,
    /// Ended by a live duplicate: how long they lived is not known.
    pub displaced: u64,
}

/// Lifetimes as shares of the run (of the process, for a process), in millionths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MacroLifetime {
    /// Mean over all blocks, each counted to its end or the end of the process.
    pub mean_ppm: u64,
    /// Median over freed blocks.
    pub p50_ppm: u64,
    /// 90th percentile over freed blocks.
    pub p90_ppm: u64,
    /// 99th percentile over freed blocks.
    pub p99_ppm: u64,
    /// The longest lived of freed blocks.
    pub max_ppm: u64,
}

/// Lifetimes of the blocks of a power of two of first sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LifetimeBySize {
    /// Fewest bytes.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Blocks freed.
    pub freed: u64,
    /// Blocks not freed by the process' end.
    pub to_end: u64,
    /// Median lifetime of the freed ones in nanoseconds (within 1/16).
    pub p50_ns: u64,
    /// 90th percentile (within 1/16).
    pub p90_ns: u64,
    /// 99th percentile (within 1/16).
    pub p99_ns: u64,
    /// The longest, exactly.
    pub max_ns: u64,
}

/// The lifetimes of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LifetimeReport {
    /// In nanoseconds.
    pub ns: Lifetimes,
    /// In calls of the process.
    pub events: Lifetimes,
    /// In bytes that the process allocated.
    pub bytes: Lifetimes,
    /// All blocks by lifetime.
    pub shares: Shares,
}

/// Collects lifetimes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collector {
    ns: LogLinear<BITS>,
    events: LogLinear<BITS>,
    bytes: LogLinear<BITS>,
    by_size: Vec<BySize>,
    /// Freed blocks below 1 us, 1 ms, 1 s, and the others.
    shares: [u64; 4],
}

#[derive(Clone, Debug, Default)]
struct BySize {
    ns: LogLinear<BITS_BY_SIZE>,
    to_end: u64,
}

impl Measure for Collector {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        match fact.what {
            What::Freed if !fact.is_inherited() => {
                self.freed(fact.class, fact.life_ns, fact.life_events, fact.life_bytes)
            }
            What::Kept => self.kept(fact.class),
            _ => {}
        }
    }
}

impl Collector {
    /// A block of the process was freed.
    #[inline]
    fn freed(&mut self, class: u8, ns: u64, events: u64, bytes: u64) {
        self.ns.record(ns);
        self.events.record(events);
        self.bytes.record(bytes);
        let step = usize::from(ns >= MICROSECOND)
            + usize::from(ns >= MILLISECOND)
            + usize::from(ns >= SECOND);
        self.shares[step & 3] += 1;
        let row = class_row(class);
        if row >= self.by_size.len() {
            self.reach(row);
        }
        self.by_size[row].ns.record(ns);
    }

    #[cold]
    fn reach(&mut self, row: usize) {
        self.by_size.resize_with(row + 1, BySize::default);
    }

    /// A block of the process was not freed by its end.
    fn kept(&mut self, class: u8) {
        let row = class_row(class);
        if row >= self.by_size.len() {
            self.reach(row);
        }
        self.by_size[row].to_end += 1;
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Collector) {
        self.ns.merge(&other.ns);
        self.events.merge(&other.events);
        self.bytes.merge(&other.bytes);
        for (to, from) in self.shares.iter_mut().zip(other.shares) {
            *to += from;
        }
        if other.by_size.len() > self.by_size.len() {
            self.reach(other.by_size.len() - 1);
        }
        for (to, from) in self.by_size.iter_mut().zip(&other.by_size) {
            to.ns.merge(&from.ns);
            to.to_end += from.to_end;
        }
    }

    /// The lifetimes, of `blocks` allocated of which `to_end` were not freed and `displaced` ended
    /// unseen.
    pub fn report(&self, blocks: u64, to_end: u64, displaced: u64) -> LifetimeReport {
        let [below_1us, to_1ms, to_1s, from_1s] = self.shares;
        LifetimeReport {
            ns: lifetimes(&self.ns),
            events: lifetimes(&self.events),
            bytes: lifetimes(&self.bytes),
            shares: Shares {
                blocks,
                below_1us,
                below_1ms: below_1us + to_1ms,
                below_1s: below_1us + to_1ms + to_1s,
                from_1s,
                to_end,
                displaced,
            },
        }
    }

    /// The rows by size that hold a block.
    pub fn by_size(&self) -> Vec<LifetimeBySize> {
        let rows = self.by_size.iter().enumerate().map(|(row, of)| {
            let (low, high) = row_bounds(row);
            let counts = of.ns.counts();
            LifetimeBySize {
                low,
                high,
                freed: of.ns.count(),
                to_end: of.to_end,
                p50_ns: percentile(&counts, 50),
                p90_ns: percentile(&counts, 90),
                p99_ns: percentile(&counts, 99),
                max_ns: of.ns.max(),
            }
        });
        rows.filter(|row| row.freed + row.to_end != 0).collect()
    }
}

fn lifetimes(histogram: &LogLinear<BITS>) -> Lifetimes {
    let counts = histogram.counts();
    let mut bins: Vec<LifetimeBin> = Vec::new();
    for &(value, blocks) in &counts {
        let (low, high) = match value {
            0 => (0, 1),
            _ => (
                1 << value.ilog2(),
                2u64.checked_shl(value.ilog2()).unwrap_or(0),
            ),
        };
        let high = if high == 0 { u64::MAX } else { high };
        match bins.last_mut() {
            Some(bin) if bin.low == low => bin.blocks += blocks,
            _ => bins.push(LifetimeBin { low, high, blocks }),
        }
    }
    Lifetimes {
        p50: percentile(&counts, 50),
        p90: percentile(&counts, 90),
        p99: percentile(&counts, 99),
        max: histogram.max(),
        histogram: bins,
    }
}

impl MacroLifetime {
    /// Of lifetimes in a run of `duration_ns`, given the integral of live blocks over time.
    pub(crate) fn new(
        ns: &Lifetimes,
        integral: u128,
        blocks: u64,
        duration_ns: u64,
    ) -> MacroLifetime {
        let ppm =
            |ns: u128, of: u128| (ns.saturating_mul(1_000_000).checked_div(of)).unwrap_or(0) as u64;
        let of_run = |ns: u64| ppm(ns.into(), duration_ns.into());
        MacroLifetime {
            mean_ppm: ppm(integral, u128::from(blocks) * u128::from(duration_ns)),
            p50_ppm: of_run(ns.p50),
            p90_ppm: of_run(ns.p90),
            p99_ppm: of_run(ns.p99),
            max_ppm: of_run(ns.max),
        }
    }
}
