//! Survival curves: the share of blocks, and of bytes, that lives at least a given time, estimated
//! after Kaplan and Meier (1958), since nobody knows how long a block would have lived that was not
//! freed by the end. For all blocks and by powers of two of the first size, in nanoseconds and in
//! bytes that the process allocated.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::histogram::{class_row, row_bounds};
use crate::log_linear::LogLinear;
use serde::Serialize;

/// Bits of the bins of age: ages below 8 have a bin each, above each power of two has four.
pub const BITS: u32 = 2;
/// Ends kept as they are before a process gets tables of its own.
const FEW_MAX: usize = 128;
/// A survival of 1; an estimate is a number of these parts.
const ONE: u64 = 1 << 63;

type Bins = LogLinear<BITS>;

/// The share of blocks that lives at least 2^k, for successive k.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SurvivalCurve {
    /// The first k listed. No block ended at an age below 2^k, unless k is 0.
    pub first_log2: u32,
    /// Blocks that were freed or lost from sight at 2^k or later: what the estimate rests on.
    pub at_risk_blocks: Vec<u64>,
    /// Share of blocks that live 2^k or longer, in millionths, rounded to the nearest.
    pub blocks_ppm: Vec<u64>,
    /// The same, each block weighing as many bytes as it had last.
    pub bytes_ppm: Vec<u64>,
    /// Age by which half of the blocks are gone: the highest of the first bin of ages after which
    /// half or less survives (at most a quarter too high); absent where more than half stays.
    pub half_blocks: Option<u64>,
    /// The same for bytes.
    pub half_bytes: Option<u64>,
}

/// The curves of blocks of a power of two of first sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SurvivalBySize {
    /// Fewest bytes.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Blocks freed.
    pub freed: u64,
    /// Blocks whose free was not seen: kept to the end, or displaced.
    pub censored: u64,
    /// Ages in nanoseconds.
    pub ns: SurvivalCurve,
    /// Ages in bytes that the process allocated.
    pub bytes: SurvivalCurve,
}

/// The survival curves of a process or of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SurvivalReport {
    /// Blocks freed.
    pub freed: u64,
    /// Blocks whose free was not seen: kept to the end, or displaced.
    pub censored: u64,
    /// Ages in nanoseconds.
    pub ns: SurvivalCurve,
    /// Ages in bytes that the process allocated.
    pub bytes: SurvivalCurve,
    /// By first size, rows without blocks left out.
    pub by_size: Vec<SurvivalBySize>,
}

/// What ended in a bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    blocks: u64,
    bytes: u64,
}

/// Ends by bin of age in nanoseconds and in bytes allocated, each as far as any was used.
type Row = [Vec<Cell>; 2];

/// One end of a block.
#[derive(Clone, Copy, Debug)]
struct End {
    row: u8,
    bins: [u8; 2],
    censored: bool,
    bytes: u64,
}

/// Collects how old blocks were when they ended.
#[derive(Clone, Debug, Default)]
pub struct Survival {
    /// The first ends, until there are too many.
    few: Vec<End>,
    /// Whether the tables are in use.
    is_many: bool,
    /// By first size: freed blocks.
    freed: Vec<Row>,
    /// By first size: blocks whose free was not seen.
    censored: Vec<Row>,
}

impl Measure for Survival {
    /// Costs about 75 instructions and two cache lines of its tables (some 100 KiB, of which few are
    /// hot) for a block that ends, a comparison for other facts.
    #[inline]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        let censored = match fact.what {
            What::Freed => false,
            What::Kept | What::Displaced => true,
            What::Born | What::Resized | What::Nothing => return,
        };
        if fact.is_inherited() {
            return;
        }
        self.add(End {
            row: class_row(fact.class) as u8,
            bins: [
                Bins::index(fact.life_ns) as u8,
                Bins::index(fact.life_bytes) as u8,
            ],
            censored,
            bytes: fact.bytes,
        });
    }
}

impl Survival {
    #[inline]
    fn add(&mut self, end: End) {
        let rows = match end.censored {
            false => &mut self.freed,
            true => &mut self.censored,
        };
        if let Some([ns, bytes]) = rows.get_mut(usize::from(end.row))
            && let Some(ns) = ns.get_mut(usize::from(end.bins[0]))
            && let Some(bytes) = bytes.get_mut(usize::from(end.bins[1]))
        {
            for cell in [ns, bytes] {
                cell.blocks += 1;
                cell.bytes = cell.bytes.wrapping_add(end.bytes);
            }
        } else {
            self.add_slowly(end);
        }
    }

    #[cold]
    fn add_slowly(&mut self, end: End) {
        if !self.is_many {
            self.few.push(end);
            if self.few.len() == FEW_MAX {
                self.spread();
            }
            return;
        }
        let rows = match end.censored {
            false => &mut self.freed,
            true => &mut self.censored,
        };
        let row = usize::from(end.row);
        if row >= rows.len() {
            rows.resize_with(row + 1, Row::default);
        }
        for (cells, bin) in rows[row].iter_mut().zip(end.bins) {
            let bin = usize::from(bin);
            if bin >= cells.len() {
                cells.resize(bin + 1, Cell::default());
            }
            cells[bin].blocks += 1;
            cells[bin].bytes = cells[bin].bytes.wrapping_add(end.bytes);
        }
    }

    /// Puts the first ends into tables.
    fn spread(&mut self) {
        self.is_many = true;
        for end in std::mem::take(&mut self.few) {
            self.add(end);
        }
    }

    /// Adds all of another process: the curves are then of all blocks together.
    pub fn merge(&mut self, other: &Survival) {
        for end in &other.few {
            self.add(*end);
        }
        if !other.is_many {
            return;
        }
        self.spread();
        for (to, from) in [
            (&mut self.freed, &other.freed),
            (&mut self.censored, &other.censored),
        ] {
            if to.len() < from.len() {
                to.resize_with(from.len(), Row::default);
            }
            for (to, from) in to.iter_mut().zip(from) {
                add_row(to, from);
            }
        }
    }

    /// The curves.
    pub fn report(&self) -> SurvivalReport {
        let mut whole = self.clone();
        whole.spread();
        let none = Row::default();
        let mut all = [Row::default(), Row::default()];
        let mut by_size = Vec::new();
        for row in 0..whole.freed.len().max(whole.censored.len()) {
            let freed = whole.freed.get(row).unwrap_or(&none);
            let censored = whole.censored.get(row).unwrap_or(&none);
            add_row(&mut all[0], freed);
            add_row(&mut all[1], censored);
            let (low, high) = row_bounds(row);
            let of = SurvivalBySize {
                low,
                high,
                freed: blocks(freed),
                censored: blocks(censored),
                ns: curve(&freed[0], &censored[0]),
                bytes: curve(&freed[1], &censored[1]),
            };
            if of.freed + of.censored != 0 {
                by_size.push(of);
            }
        }
        let [freed, censored] = &all;
        SurvivalReport {
            freed: blocks(freed),
            censored: blocks(censored),
            ns: curve(&freed[0], &censored[0]),
            bytes: curve(&freed[1], &censored[1]),
            by_size,
        }
    }
}

fn blocks(row: &Row) -> u64 {
    row[0].iter().map(|cell| cell.blocks).sum()
}

fn add_row(to: &mut Row, from: &Row) {
    for (to, from) in to.iter_mut().zip(from) {
        if to.len() < from.len() {
            to.resize(from.len(), Cell::default());
        }
        for (to, from) in to.iter_mut().zip(from) {
            to.blocks += from.blocks;
            to.bytes = to.bytes.wrapping_add(from.bytes);
        }
    }
}

/// The estimate for one weight: `alive` is what has not ended before the bin at hand.
struct Estimate {
    alive: u128,
    survival: u64,
    half: Option<u64>,
}

impl Estimate {
    fn new(alive: u128) -> Estimate {
        Estimate {
            alive,
            survival: ONE,
            half: None,
        }
    }

    /// Goes past a bin in which `freed` ended, and after them `censored` were lost from sight.
    fn pass(&mut self, freed: u64, censored: u64, bin: usize) {
        // 63 bits times 64 fit into 128; sums of damaged traces may have more.
        let excess = (128 - self.alive.leading_zeros()).saturating_sub(64);
        let (alive, freed_part) = (self.alive >> excess, u128::from(freed) >> excess);
        if let Some(left) =
            (u128::from(self.survival) * alive.saturating_sub(freed_part)).checked_div(alive)
        {
            self.survival = left as u64;
        }
        self.alive = self
            .alive
            .saturating_sub(u128::from(freed) + u128::from(censored));
        if self.half.is_none() && self.survival <= ONE / 2 {
            self.half = Some(Bins::bounds(bin).1);
        }
    }

    fn ppm(&self) -> u64 {
        ((u128::from(self.survival) * 1_000_000 + u128::from(ONE / 2)) >> 63) as u64
    }
}

/// The curve of what ended by bin of age.
fn curve(freed: &[Cell], censored: &[Cell]) -> SurvivalCurve {
    let ended = |bin: usize| {
        let at = |cells: &[Cell]| cells.get(bin).copied().unwrap_or_default();
        (at(freed), at(censored))
    };
    let bins = freed.len().max(censored.len());
    let is_used = |bin: &usize| {
        let (freed, censored) = ended(*bin);
        freed.blocks + censored.blocks != 0
    };
    let (Some(first), Some(last)) = ((0..bins).find(is_used), (0..bins).rfind(is_used)) else {
        return SurvivalCurve::default();
    };
    // A power of two is the lowest age of a bin.
    let low = |bin: usize| Bins::bounds(bin).0;
    let first_log2 = low(first).checked_ilog2().unwrap_or(0);
    let last_log2 = low(last)
        .checked_ilog2()
        .map_or(0, |log2| (log2 + 1).min(63));
    let sum = |of: fn(&Cell) -> u64| -> u128 {
        let cells = freed.iter().chain(censored);
        cells.map(|cell| u128::from(of(cell))).sum()
    };
    let mut by_blocks = Estimate::new(sum(|cell| cell.blocks));
    let mut by_bytes = Estimate::new(sum(|cell| cell.bytes));
    let mut curve = SurvivalCurve {
        first_log2,
        ..SurvivalCurve::default()
    };
    let mut bin = 0;
    let mut pass_to = |to: usize, by_blocks: &mut Estimate, by_bytes: &mut Estimate| {
        while bin < to {
            let (freed, censored) = ended(bin);
            by_blocks.pass(freed.blocks, censored.blocks, bin);
            by_bytes.pass(freed.bytes, censored.bytes, bin);
            bin += 1;
        }
    };
    for log2 in first_log2..=last_log2 {
        pass_to(Bins::index(1 << log2), &mut by_blocks, &mut by_bytes);
        curve
            .at_risk_blocks
            .push(u64::try_from(by_blocks.alive).unwrap_or(u64::MAX));
        curve.blocks_ppm.push(by_blocks.ppm());
        curve.bytes_ppm.push(by_bytes.ppm());
    }
    pass_to(bins, &mut by_blocks, &mut by_bytes);
    (curve.half_blocks, curve.half_bytes) = (by_blocks.half, by_bytes.half);
    curve
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use proptest::prelude::*;

    /// The end of a block: its first size, last size, whether it was freed, and its age.
    #[derive(Clone, Copy)]
    struct Ended {
        first_bytes: u64,
        bytes: u64,
        freed: bool,
        age: u64,
    }

    fn ends(stream: &Stream, age: fn(&Fact) -> u64) -> Vec<Ended> {
        let histories = stream.histories();
        let end = |history: &Vec<usize>| {
            let (born, last) = (
                stream.told[history[0]].0,
                stream.told[history[history.len() - 1]].0,
            );
            assert!(matches!(
                last.what,
                What::Freed | What::Displaced | What::Kept
            ));
            Ended {
                first_bytes: born.bytes,
                bytes: last.bytes,
                freed: last.what == What::Freed,
                age: age(&last),
            }
        };
        histories.iter().map(end).collect()
    }

    /// First age above the bin that holds an age: below 8 the next one, else a quarter of the power
    /// of two further.
    fn bin_end(age: u64) -> u64 {
        let mut power = 1;
        while power <= age / 2 {
            power *= 2;
        }
        let width = (power / 4).max(1);
        age / width * width + width
    }

    /// Survival by the definition: for each bin of ages that something ended in, the first age above
    /// it, and the product of the shares that reached such a bin and were not freed in it, up to it.
    fn survival(ends: &[Ended], weight: fn(&Ended) -> u64) -> Vec<(u64, f64)> {
        let mut bins: Vec<u64> = ends.iter().map(|end| bin_end(end.age)).collect();
        bins.sort_unstable();
        bins.dedup();
        let mut survival = 1.0;
        let mut before = 0;
        let mut all = Vec::new();
        for bin in bins {
            let reach = ends.iter().filter(|end| end.age >= before);
            let at_risk: u64 = reach.clone().map(weight).sum();
            let freed = reach.filter(|end| end.freed && end.age < bin);
            let freed: u64 = freed.map(weight).sum();
            if at_risk != 0 {
                survival *= 1.0 - freed as f64 / at_risk as f64;
            }
            all.push((bin, survival));
            before = bin;
        }
        all
    }

    fn check(curve: &SurvivalCurve, ends: &[Ended]) -> Result<(), TestCaseError> {
        let ages = || ends.iter().map(|end| end.age);
        let (Some(least), Some(most)) = (ages().min(), ages().max()) else {
            prop_assert_eq!(curve, &SurvivalCurve::default());
            return Ok(());
        };
        prop_assert!(least >= 1 << curve.first_log2 || curve.first_log2 == 0);
        prop_assert!(least < 2 << curve.first_log2);
        let count = curve.blocks_ppm.len() as u32;
        prop_assert_eq!(curve.bytes_ppm.len() as u32, count);
        prop_assert_eq!(curve.at_risk_blocks.len() as u32, count);
        prop_assert!(most < 1 << (curve.first_log2 + count - 1));
        prop_assert!(count == 1 || most >= 1 << (curve.first_log2 + count - 2));
        for at in 0..count {
            let age = 1u64 << (curve.first_log2 + at);
            let alive = ends.iter().filter(|end| end.age >= age).count() as u64;
            prop_assert_eq!(curve.at_risk_blocks[at as usize], alive);
        }
        let blocks = survival(ends, |_| 1);
        let bytes = survival(ends, |end| end.bytes);
        for (shares, half, exact) in [
            (&curve.blocks_ppm, curve.half_blocks, blocks),
            (&curve.bytes_ppm, curve.half_bytes, bytes),
        ] {
            for (at, found) in shares.iter().enumerate() {
                let age = 1u64 << (curve.first_log2 + at as u32);
                let passed = exact.iter().rfind(|(bin, _)| *bin <= age);
                let ppm = passed.map_or(1.0, |(_, survival)| *survival) * 1e6;
                prop_assert!((*found as f64 - ppm).abs() < 0.501, "{age}: {found} {ppm}");
            }
            // A half exactly cannot be told with floating numbers.
            if exact
                .iter()
                .all(|(_, survival)| (survival - 0.5).abs() > 1e-9)
            {
                let first = exact.iter().find(|(_, survival)| *survival < 0.5);
                prop_assert_eq!(half, first.map(|(bin, _)| bin - 1));
            }
        }
        Ok(())
    }

    fn check_all(report: &SurvivalReport, streams: &[&Stream]) -> Result<(), TestCaseError> {
        let ends_in = |age: fn(&Fact) -> u64| -> Vec<Ended> {
            streams
                .iter()
                .flat_map(|stream| ends(stream, age))
                .collect()
        };
        let (ns, bytes) = (
            ends_in(|fact| fact.life_ns),
            ends_in(|fact| fact.life_bytes),
        );
        check(&report.ns, &ns)?;
        check(&report.bytes, &bytes)?;
        prop_assert_eq!(
            report.freed,
            ns.iter().filter(|end| end.freed).count() as u64
        );
        prop_assert_eq!(report.freed + report.censored, ns.len() as u64);
        let mut seen = 0;
        for row in &report.by_size {
            let of_row = |ends: &[Ended]| -> Vec<Ended> {
                let is_in = |end: &&Ended| (row.low..row.high).contains(&end.first_bytes);
                ends.iter().filter(is_in).copied().collect()
            };
            prop_assert!(row.low == 0 && row.high == 1 || row.high == row.low * 2);
            prop_assert!(row.freed + row.censored != 0);
            check(&row.ns, &of_row(&ns))?;
            check(&row.bytes, &of_row(&bytes))?;
            seen += of_row(&ns).len();
        }
        prop_assert_eq!(seen, ns.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn survival_is_the_product_of_the_shares_that_pass_each_bin(one in streams(120), other in streams(500)) {
            let (mut first, mut second) = (Survival::default(), Survival::default());
            one.tell(&mut first);
            other.tell(&mut second);
            check_all(&first.report(), &[&one])?;
            check_all(&second.report(), &[&other])?;
            let mut sum = first.clone();
            sum.merge(&second);
            check_all(&sum.report(), &[&one, &other])?;
            second.merge(&first);
            prop_assert_eq!(sum.report(), second.report());
        }

        /// Whatever is told, nothing panics and shares never rise with age.
        #[test]
        fn any_numbers_are_taken(
            all in proptest::collection::vec((any::<u64>(), 0u32..64, any::<u64>(), 0u8..4, any::<u8>()), 0..300),
        ) {
            let mut measure = Survival::default();
            for (number, shift, bytes, what, class) in all {
                let what = [What::Freed, What::Kept, What::Displaced, What::Born][usize::from(what)];
                let fact = Fact { life_ns: number >> shift, life_bytes: number, bytes, what, class, ..Fact::default() };
                measure.fact(&fact, Peaks::default());
            }
            let report = measure.report();
            for curve in report.by_size.iter().flat_map(|row| [&row.ns, &row.bytes]).chain([&report.ns, &report.bytes]) {
                prop_assert!(curve.blocks_ppm.is_sorted_by(|a, b| a >= b));
                prop_assert!(curve.bytes_ppm.is_sorted_by(|a, b| a >= b));
            }
        }
    }

    /// Worked by hand: of four blocks one is freed at 1, one lost from sight at 2, one freed at 4; the
    /// last is kept at 9. So 3/4 pass 1, and half of the two that were still seen at 4 pass that.
    #[test]
    fn blocks_lost_from_sight_are_no_deaths() {
        let mut measure = Survival::default();
        for (life_ns, what) in [
            (1, What::Freed),
            (2, What::Displaced),
            (4, What::Freed),
            (9, What::Kept),
        ] {
            let fact = Fact {
                life_ns,
                what,
                bytes: 8,
                class: crate::histogram::size_class(8),
                ..Fact::default()
            };
            measure.fact(&fact, Peaks::default());
        }
        let curve = measure.report().ns;
        assert_eq!(curve.first_log2, 0);
        assert_eq!(curve.at_risk_blocks, [4, 3, 2, 1, 0]);
        assert_eq!(
            curve.blocks_ppm,
            [1_000_000, 750_000, 750_000, 375_000, 375_000]
        );
        assert_eq!(curve.bytes_ppm, curve.blocks_ppm);
        assert_eq!(curve.half_blocks, Some(4));
    }
}
