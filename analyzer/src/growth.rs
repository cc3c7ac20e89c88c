//! How resizes change sizes: growth factors, bytes added, where the block stays in place and what is
//! copied by size, and how far blocks grew in all. [`crate::realloc`] counts the resizes themselves.
//! Inherited blocks are left out.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::histogram::{class_bounds, class_row, row_bounds, size_class};
use crate::tally::reach;
use serde::Serialize;

/// Begins of the classes of growth factors, in thousandths. Growing to one and a half or to twice
/// the size, to the thousandth, are classes of their own.
const FACTORS: [u64; 13] = [
    1_000, 1_100, 1_250, 1_500, 1_501, 1_750, 2_000, 2_001, 2_500, 3_000, 4_000, 8_000, 16_000,
];

/// Resizes to more bytes by growth factor `[low, high)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FactorBin {
    /// Smallest factor in thousandths.
    pub low_thousandths: u64,
    /// First factor above in thousandths; `u64::MAX` has no limit.
    pub high_thousandths: u64,
    /// Resizes.
    pub resizes: u64,
}

/// Resizes to more bytes by how many they added, `[low, high)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddedBin {
    /// Fewest bytes added.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Resizes.
    pub resizes: u64,
}

/// Resizes of blocks that had `[low, high)` bytes before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BySize {
    /// Fewest bytes.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Resizes.
    pub resized: u64,
    /// Of them, those that left the block at its address.
    pub in_place: u64,
    /// Of them, those whose new size is in the same class of the size histogram.
    pub within_class: u64,
    /// Bytes that the others copied at most: the smaller of old and new size.
    pub bytes_copied: u64,
}

/// Blocks that grew by the factor `[low, high)` from their first size to their last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TotalBin {
    /// Smallest factor; 0: the last size is less than the first.
    pub low: u64,
    /// First factor above.
    pub high: u64,
    /// Blocks.
    pub blocks: u64,
}

/// How blocks were resized.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GrowthReport {
    /// Growth factors, new size by old size; classes without resizes are left out.
    pub factors: Vec<FactorBin>,
    /// Resizes from zero bytes to more, which have no factor.
    pub from_zero: u64,
    /// Bytes added, in powers of two.
    pub added: Vec<AddedBin>,
    /// By size before the resize, in powers of two.
    pub by_size: Vec<BySize>,
    /// Blocks that grew, by how much in all, in powers of two.
    pub totals: Vec<TotalBin>,
    /// Bytes that growing copied at most: old sizes of blocks that grew and moved.
    pub bytes_copied_growing: u64,
    /// Sum of the last sizes of blocks that grew.
    pub final_bytes: u64,
    /// `bytes_copied_growing` by `final_bytes`, in millionths: what was copied for each byte that
    /// growing led to.
    pub copied_per_final_ppm: u64,
}

/// Counts resizes. A process without any holds a pointer.
#[derive(Clone, Debug, Default)]
pub struct Growth(Option<Box<Counts>>);

#[derive(Clone, Debug, Default)]
struct Counts {
    factors: [u64; FACTORS.len()],
    from_zero: u64,
    /// By binary logarithm.
    added: Vec<u64>,
    /// By row of the old size.
    by_size: Vec<Row>,
    /// By binary logarithm, 1 for factors below 2; 0 for blocks that became smaller.
    totals: Vec<u64>,
    bytes_copied_growing: u64,
    final_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    resized: u64,
    in_place: u64,
    within_class: u64,
    bytes_copied: u64,
}

/// Class of the growth from `from` bytes, not 0, to `to`, which is more.
fn factor(from: u64, to: u64) -> usize {
    // Beyond 2^48 bytes the lowest bits are left out, so that products fit.
    let shift = 16 - (from.max(to) >> 48).leading_zeros().saturating_sub(48);
    let (from, to) = ((from >> shift).max(1), to >> shift);
    let begun = FACTORS.iter().filter(|begin| to * 1_000 >= from * **begin);
    begun.count().saturating_sub(1)
}

/// Row of the growth of a block of this first class to `to` bytes.
fn total(class: u8, to: u64) -> usize {
    let from = class_bounds(class).0.max(1);
    if to < from {
        return 0;
    }
    let power = to.ilog2() - from.ilog2();
    let is_below = from << power > to;
    (power + 1 - u32::from(is_below)) as usize
}

impl Growth {
    fn counts(&mut self) -> &mut Counts {
        self.0.get_or_insert_default()
    }

    #[inline(never)]
    fn resized(&mut self, fact: &Fact) {
        let (from, to) = (fact.old_bytes, fact.bytes);
        let is_moved = fact.address != fact.old_address;
        let (from_class, to_class) = (size_class(from), size_class(to));
        let counts = self.counts();
        let row = reach(&mut counts.by_size, class_row(from_class));
        row.resized += 1;
        row.in_place += u64::from(!is_moved);
        row.within_class += u64::from(from_class == to_class);
        if is_moved {
            row.bytes_copied = row.bytes_copied.saturating_add(from.min(to));
        }
        let Some(added) = to.checked_sub(from).and_then(u64::checked_ilog2) else {
            return;
        };
        *reach(&mut counts.added, added as usize) += 1;
        match from {
            0 => counts.from_zero += 1,
            _ => counts.factors[factor(from, to)] += 1,
        }
        if is_moved {
            counts.bytes_copied_growing = counts.bytes_copied_growing.saturating_add(from);
        }
    }

    #[inline(never)]
    fn grown(&mut self, fact: &Fact) {
        let counts = self.counts();
        counts.final_bytes = counts.final_bytes.saturating_add(fact.bytes);
        *reach(&mut counts.totals, total(fact.class, fact.bytes)) += 1;
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Growth) {
        let Some(from) = &other.0 else {
            return;
        };
        let to = self.counts();
        for (to, from) in to.factors.iter_mut().zip(&from.factors) {
            *to += from;
        }
        to.from_zero += from.from_zero;
        for (at, from) in from.added.iter().enumerate() {
            *reach(&mut to.added, at) += from;
        }
        for (at, from) in from.by_size.iter().enumerate() {
            let to = reach(&mut to.by_size, at);
            to.resized += from.resized;
            to.in_place += from.in_place;
            to.within_class += from.within_class;
            to.bytes_copied = to.bytes_copied.saturating_add(from.bytes_copied);
        }
        for (at, from) in from.totals.iter().enumerate() {
            *reach(&mut to.totals, at) += from;
        }
        to.bytes_copied_growing =
            (to.bytes_copied_growing).saturating_add(from.bytes_copied_growing);
        to.final_bytes = to.final_bytes.saturating_add(from.final_bytes);
    }

    /// What resizes did.
    pub fn report(&self) -> GrowthReport {
        let Some(counts) = &self.0 else {
            return GrowthReport::default();
        };
        let highs = FACTORS.iter().skip(1).copied().chain([u64::MAX]);
        let factors = FACTORS.iter().zip(highs).zip(counts.factors);
        let added = counts.added.iter().enumerate();
        let by_size = counts.by_size.iter().enumerate();
        let totals = counts.totals.iter().enumerate();
        let copied = u128::from(counts.bytes_copied_growing) * 1_000_000;
        let ppm = copied.checked_div(counts.final_bytes.into()).unwrap_or(0);
        GrowthReport {
            factors: factors
                .filter(|(_, resizes)| *resizes != 0)
                .map(|((low, high), resizes)| FactorBin {
                    low_thousandths: *low,
                    high_thousandths: high,
                    resizes,
                })
                .collect(),
            from_zero: counts.from_zero,
            added: added
                .filter(|(_, resizes)| **resizes != 0)
                .map(|(power, resizes)| {
                    let (low, high) = row_bounds(power + 1);
                    let resizes = *resizes;
                    AddedBin { low, high, resizes }
                })
                .collect(),
            by_size: by_size
                .filter(|(_, row)| row.resized != 0)
                .map(|(at, row)| {
                    let (low, high) = row_bounds(at);
                    BySize {
                        low,
                        high,
                        resized: row.resized,
                        in_place: row.in_place,
                        within_class: row.within_class,
                        bytes_copied: row.bytes_copied,
                    }
                })
                .collect(),
            totals: totals
                .filter(|(_, blocks)| **blocks != 0)
                .map(|(at, blocks)| {
                    let (low, high) = row_bounds(at);
                    let blocks = *blocks;
                    TotalBin { low, high, blocks }
                })
                .collect(),
            bytes_copied_growing: counts.bytes_copied_growing,
            final_bytes: counts.final_bytes,
            copied_per_final_ppm: u64::try_from(ppm).unwrap_or(u64::MAX),
        }
    }
}

impl Measure for Growth {
    /// Some 6 instructions a fact (callgrind, a browser's trace), nearly all to see what it is; a
    /// resize, or the end of a block that grew, some 50 to 100 and four cache lines.
    #[inline]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        match fact.what {
            What::Resized if !fact.is_inherited() => self.resized(fact),
            What::Freed | What::Displaced | What::Kept
                if fact.growths != 0 && !fact.is_inherited() =>
            {
                self.grown(fact);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use crate::tally::slow::power;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn slowly(streams: &[&Stream]) -> GrowthReport {
        let mut report = GrowthReport::default();
        let (mut factors, mut added) = (BTreeMap::new(), BTreeMap::new());
        let (mut by_size, mut totals) = (BTreeMap::new(), BTreeMap::new());
        for stream in streams {
            for (fact, _) in stream
                .told
                .iter()
                .filter(|(fact, _)| fact.what == What::Resized)
            {
                let (from, to) = (fact.old_bytes, fact.bytes);
                let moved = fact.address != fact.old_address;
                let row: &mut BySize = by_size.entry(power(from)).or_default();
                (row.low, row.high) = power(from);
                row.resized += 1;
                let (low, high) = class_bounds(size_class(from));
                row.within_class += u64::from(low <= to && to < high);
                match moved {
                    true => row.bytes_copied += from.min(to),
                    false => row.in_place += 1,
                }
                if to > from {
                    *added.entry(power(to - from)).or_insert(0) += 1;
                    report.bytes_copied_growing += if moved { from } else { 0 };
                    match (to * 1_000).checked_div(from) {
                        None => report.from_zero += 1,
                        Some(thousandths) => {
                            let low = FACTORS.iter().rfind(|low| **low <= thousandths).unwrap();
                            *factors.entry(*low).or_insert(0) += 1;
                        }
                    }
                }
            }
            for history in stream.histories() {
                let facts: Vec<Fact> = history.iter().map(|at| stream.told[*at].0).collect();
                let has_grown =
                    |fact: &Fact| fact.what == What::Resized && fact.bytes > fact.old_bytes;
                if !facts.iter().any(has_grown) {
                    continue;
                }
                let first = class_bounds(size_class(facts[0].bytes)).0.max(1);
                let last = facts[facts.len() - 1].bytes;
                report.final_bytes += last;
                *totals.entry(power(last / first)).or_insert(0) += 1;
            }
        }
        for (low, resizes) in factors {
            let high = FACTORS.iter().find(|high| **high > low);
            report.factors.push(FactorBin {
                low_thousandths: low,
                high_thousandths: high.copied().unwrap_or(u64::MAX),
                resizes,
            });
        }
        for ((low, high), resizes) in added {
            report.added.push(AddedBin { low, high, resizes });
        }
        for ((low, high), blocks) in totals {
            report.totals.push(TotalBin { low, high, blocks });
        }
        report.by_size.extend(by_size.into_values());
        let copied = report.bytes_copied_growing * 1_000_000;
        report.copied_per_final_ppm = copied.checked_div(report.final_bytes).unwrap_or(0);
        report
    }

    proptest! {
        /// Resizes are counted by what they did, in a process and in two together.
        #[test]
        fn resizes_are_counted_by_what_they_did(a in streams(300), b in streams(300)) {
            let (mut one, mut other) = (Growth::default(), Growth::default());
            a.tell(&mut one);
            b.tell(&mut other);
            prop_assert_eq!(one.report(), slowly(&[&a]));
            one.merge(&other);
            prop_assert_eq!(one.report(), slowly(&[&a, &b]));
        }

        /// Whatever the sizes, the class is that of the quotient, as far as bits are left out: they
        /// change it by less than one in 2^30.
        #[test]
        fn factors_of_any_sizes(from in 1u64.., shift in 0u32..64, more in 1u64.., less in 0u32..64) {
            let from = (from >> shift).max(1);
            let to = from.saturating_add((more >> less).max(1));
            let class = factor(from, to);
            let thousandths = u128::from(to) * 1_000 / u128::from(from);
            let near = |begin: u64| {
                let exact = u128::from(to) * 1_000;
                let limit = u128::from(from) * u128::from(begin);
                exact.abs_diff(limit) < exact.max(limit) >> 30
            };
            let begin = FACTORS[class];
            prop_assert!(thousandths >= u128::from(begin) || near(begin));
            if let Some(end) = FACTORS.get(class + 1) {
                prop_assert!(thousandths < u128::from(*end) || near(*end));
            }
        }
    }

    #[test]
    fn usual_growth_has_classes_of_its_own() {
        let low = |from, to| FACTORS[factor(from, to)];
        assert_eq!(low(1_000, 1_500), 1_500);
        assert_eq!(low(1_000, 1_502), 1_501);
        assert_eq!(low(64, 128), 2_000);
        assert_eq!(low(64, 129), 2_001);
        assert_eq!(low(64, 65), 1_000);
        assert_eq!(low(1, u64::MAX), 16_000);
        assert_eq!(low(1 << 60, 1 << 61), 2_000);
        assert_eq!(total(size_class(100), 99), 1);
        assert_eq!(total(size_class(100), 1 << 20), 14);
        assert_eq!(total(u8::MAX, u64::MAX), 1);
        assert_eq!(total(0, 0), 0);
    }
}
