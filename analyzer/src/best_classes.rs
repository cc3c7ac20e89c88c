//! The size classes that fit a trace best: for each number k of classes those k sizes, multiples of 16,
//! that waste least on the blocks of the trace. Requests above [`BOUND`] are left out: blocks that
//! large get pages of their own.

use crate::exact_sizes::{SizeCounts, Weight};
use crate::ratio::ppm;
use crate::size_classes::System;
use serde::Serialize;

/// The greatest request that classes are made for.
pub const BOUND: u64 = 32 << 10;
/// All classes are multiples of it: the alignment of blocks.
pub const STEP: u64 = 16;
/// The greatest number of classes.
pub const CLASSES_MAX: usize = 128;
/// Numbers of classes that a report tells of.
pub const REPORTED: [usize; 6] = [8, 16, 24, 32, 48, 64];

/// The best classes of some counts, for every number of them to a greatest one.
///
/// With sizes `s_1 < ... < s_m` (requests rounded up to [`STEP`]) and the waste `C(i, j)` of a class
/// `s_j` that serves the sizes above `s_i`, the least waste of `k` classes for the first `j` sizes is
/// `D(k, j) = min over i < j of D(k - 1, i) + C(i, j)`. `C` has the quadrangle inequality, so the best
/// `i` never falls as `j` grows, and all `j` of one `k` take `O(m log m)` steps by halving: for 128
/// classes and all 2,048 sizes about 3 million steps.
#[derive(Clone, Debug, Default)]
pub struct BestClasses {
    /// Every size that a block ever had, rounded up; ascending.
    sizes: Vec<u64>,
    /// Sum of weights of the first `j` sizes.
    weights: Vec<u128>,
    /// Sum of weight times requested bytes of the first `j` sizes.
    requested: Vec<u128>,
    /// Least waste by number of classes, from 1 on.
    wastes: Vec<u128>,
    /// For each number of classes from 2 on, and each `j`, the best `i`.
    cuts: Vec<Vec<u16>>,
}

/// Some classes, and what they waste on the counts that they were made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Ascending multiples of [`STEP`]; the last serves the greatest size of the trace to [`BOUND`].
    pub sizes: Vec<u64>,
    /// Sum over blocks of class - request, weighted.
    pub waste: u128,
}

/// The `k` classes (at most [`CLASSES_MAX`]) that waste least on these counts. They are fewer where
/// the blocks have fewer sizes than that, and none where there is no block.
pub fn best(counts: &SizeCounts, weight: Weight, k: usize) -> Classes {
    BestClasses::new(counts, weight, k).classes(k)
}

impl BestClasses {
    /// Works out the best classes for all numbers to `classes_max`, at most [`CLASSES_MAX`].
    pub fn new(counts: &SizeCounts, weight: Weight, classes_max: usize) -> BestClasses {
        let mut best = BestClasses {
            weights: vec![0],
            requested: vec![0],
            ..BestClasses::default()
        };
        let rows = counts.rows().iter().take_while(|row| row.high <= BOUND);
        for row in rows {
            let size = row.high.max(1).next_multiple_of(STEP);
            if best.sizes.last() != Some(&size) {
                best.sizes.push(size);
                best.weights.push(*best.weights.last().unwrap_or(&0));
                best.requested.push(*best.requested.last().unwrap_or(&0));
            }
            let end = best.sizes.len();
            best.weights[end] = best.weights[end].saturating_add(row.blocks(weight));
            best.requested[end] = best.requested[end].saturating_add(row.bytes(weight));
        }
        best.solve(classes_max.min(CLASSES_MAX));
        best
    }

    /// Waste of class `j - 1` over the sizes from `i` to it, counted from 0.
    #[inline]
    fn cost(&self, i: usize, j: usize) -> u128 {
        let blocks = self.weights[j] - self.weights[i];
        let requested = self.requested[j] - self.requested[i];
        // Saturates only with the sums of a damaged trace.
        (blocks.saturating_mul(self.sizes[j - 1].into())).saturating_sub(requested)
    }

    fn solve(&mut self, classes_max: usize) {
        let count = self.sizes.len();
        if count == 0 || classes_max == 0 {
            return;
        }
        let mut least: Vec<u128> = (0..=count)
            .map(|j| if j == 0 { 0 } else { self.cost(0, j) })
            .collect();
        self.wastes.push(least[count]);
        for k in 2..=classes_max.min(count) {
            let mut more = least.clone();
            let mut cuts = vec![0u16; count + 1];
            self.halve(&least, &mut more, &mut cuts, (k, count), (k - 1, count - 1));
            self.wastes.push(more[count]);
            self.cuts.push(cuts);
            least = more;
        }
    }

    /// Finds the best `i` from `among` for each `j` of `of` (both with their ends): for the middle one
    /// by trying all, which bounds those of the others.
    fn halve(
        &self,
        least: &[u128],
        more: &mut [u128],
        cuts: &mut [u16],
        of: (usize, usize),
        among: (usize, usize),
    ) {
        if of.0 > of.1 {
            return;
        }
        let j = of.0 + (of.1 - of.0) / 2;
        let (mut waste, mut cut) = (u128::MAX, among.0);
        for (i, before) in (least.iter().enumerate())
            .take(among.1.min(j - 1) + 1)
            .skip(among.0)
        {
            let with = before.saturating_add(self.cost(i, j));
            if with < waste {
                (waste, cut) = (with, i);
            }
        }
        more[j] = waste;
        cuts[j] = cut as u16;
        self.halve(least, more, cuts, (of.0, j - 1), (among.0, cut));
        self.halve(least, more, cuts, (j + 1, of.1), (cut, among.1));
    }

    /// Different sizes: with as many classes nothing but rounding to [`STEP`] is wasted.
    pub fn sizes(&self) -> usize {
        self.sizes.len()
    }

    /// Requested bytes of all blocks that the classes are made for, weighted.
    pub fn requested(&self) -> u128 {
        self.requested.last().copied().unwrap_or(0)
    }

    /// The best `k` classes, as far as they were worked out.
    pub fn classes(&self, k: usize) -> Classes {
        let k = k.min(self.wastes.len());
        let mut sizes = Vec::with_capacity(k);
        let mut end = self.sizes.len();
        for layer in (0..k).rev() {
            sizes.push(self.sizes[end - 1]);
            if layer > 0 {
                end = usize::from(self.cuts[layer - 1][end]);
            }
        }
        sizes.reverse();
        Classes {
            sizes,
            waste: k.checked_sub(1).map_or(0, |last| self.wastes[last]),
        }
    }

    /// The fewest classes that waste no more than this.
    pub fn fewest(&self, waste: u128) -> Option<usize> {
        let at = self.wastes.partition_point(|of| *of > waste);
        (at < self.wastes.len()).then_some(at + 1)
    }
}

/// Some number of best classes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BestSet {
    /// Number of classes; less than asked for where the trace has fewer sizes.
    pub classes: u64,
    /// What the blocks would take.
    pub usable_bytes: u64,
    /// Internal fragmentation: (usable - requested) / usable.
    pub fragmentation_ppm: u64,
    /// The classes, ascending.
    pub sizes: Vec<u64>,
}

/// An allocator on the same requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Against {
    /// Its name.
    pub name: &'static str,
    /// Number of its classes for requests to the bound.
    pub classes: u64,
    /// What the blocks would take, headers included.
    pub taken_bytes: u64,
    /// (taken - requested) / taken.
    pub waste_ppm: u64,
    /// The same of the best classes, as many as it has, 128 at most.
    pub best_waste_ppm: u64,
    /// The fewest best classes that waste no more than it; none where 128 waste more.
    pub fewest_classes: Option<u64>,
}

/// The best classes for one weight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BestByWeight {
    /// Requested bytes of the blocks that the classes are made for.
    pub requested_bytes: u64,
    /// What they would take with a class for every multiple of 16: no set of classes takes less.
    pub usable_bytes_least: u64,
    /// Best sets for k = 8, 16, 24, 32, 48, 64, and the number asked for.
    pub best: Vec<BestSet>,
    /// The allocators, on the same requests.
    pub against: Vec<Against>,
}

/// The best classes of a process, or of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BestClassesReport {
    /// The greatest request that classes are made for.
    pub bound: u64,
    /// All classes are multiples of it.
    pub step: u64,
    /// Different sizes to the bound, rounded up to multiples of `step`.
    pub sizes: u64,
    /// The number of classes asked for, if one was.
    pub asked: Option<u64>,
    /// Best for the mean over time.
    pub over_time: BestByWeight,
    /// Best for the blocks that were live at the peak of live bytes.
    pub at_peak: BestByWeight,
}

impl BestClassesReport {
    /// Of these counts, of a process (a run) that lasted `duration_ns`; `asked` is one more number of
    /// classes.
    pub fn new(counts: &SizeCounts, duration_ns: u64, asked: Option<usize>) -> BestClassesReport {
        let asked = asked.map(|k| k.min(CLASSES_MAX));
        let over_time = BestClasses::new(counts, Weight::OverTime, CLASSES_MAX);
        let at_peak = BestClasses::new(counts, Weight::AtPeak, CLASSES_MAX);
        let report =
            |best: &BestClasses, weight| by_weight(counts, best, weight, duration_ns, asked);
        BestClassesReport {
            bound: BOUND,
            step: STEP,
            sizes: over_time.sizes() as u64,
            asked: asked.map(|k| k as u64),
            over_time: report(&over_time, Weight::OverTime),
            at_peak: report(&at_peak, Weight::AtPeak),
        }
    }
}

fn by_weight(
    counts: &SizeCounts,
    best: &BestClasses,
    weight: Weight,
    duration_ns: u64,
    asked: Option<usize>,
) -> BestByWeight {
    let requested = best.requested();
    let set = |k: usize| {
        let classes = best.classes(k);
        let usable = requested.saturating_add(classes.waste);
        BestSet {
            classes: classes.sizes.len() as u64,
            usable_bytes: weight.shown(usable, duration_ns),
            fragmentation_ppm: ppm(classes.waste, usable),
            sizes: classes.sizes,
        }
    };
    let against = |system: System| {
        let classes = system.classes(BOUND).len();
        let (usable, headers) = system.taken(counts, weight, BOUND);
        let taken = usable.saturating_add(headers);
        let waste = taken.saturating_sub(requested);
        Against {
            name: system.name(),
            classes: classes as u64,
            taken_bytes: weight.shown(taken, duration_ns),
            waste_ppm: ppm(waste, taken),
            best_waste_ppm: set(classes).fragmentation_ppm,
            fewest_classes: best.fewest(waste).map(|k| k as u64),
        }
    };
    let mut numbers: Vec<usize> = REPORTED.into_iter().chain(asked).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut sets: Vec<BestSet> = numbers.into_iter().map(set).collect();
    sets.dedup();
    let rounded = |row: &crate::exact_sizes::SizeCount| {
        let size = row.high.max(1).next_multiple_of(STEP);
        row.blocks(weight).saturating_mul(size.into())
    };
    let rows = counts.rows().iter().take_while(|row| row.high <= BOUND);
    let least = rows.map(rounded).fold(0, u128::saturating_add);
    BestByWeight {
        requested_bytes: weight.shown(requested, duration_ns),
        usable_bytes_least: weight.shown(least, duration_ns),
        best: sets,
        against: System::ALL.map(against).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact_sizes::ExactSizes;
    use crate::fact::sample::{Stream, streams};
    use crate::fact::{Fact, Measure, Peaks, What};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Counts of blocks that are born at 0 and freed after their time.
    fn counts(blocks: &[(u64, u64)]) -> SizeCounts {
        let mut sizes = ExactSizes::default();
        for &(bytes, time_ns) in blocks {
            let fact = |what, time_ns| Fact {
                what,
                bytes,
                time_ns,
                ..Fact::default()
            };
            sizes.fact(&fact(What::Born, 0), Peaks::default());
            sizes.fact(&fact(What::Freed, time_ns), Peaks::default());
        }
        sizes.finish(Peaks::default())
    }

    /// What each block wastes in the smallest class that holds it.
    fn waste_slowly(classes: &[u64], blocks: &[(u64, u64)]) -> Option<u128> {
        let mut waste = 0;
        for &(bytes, weight) in blocks.iter().filter(|(bytes, _)| *bytes <= BOUND) {
            let class = classes.iter().find(|class| **class >= bytes)?;
            waste += u128::from(class - bytes) * u128::from(weight);
        }
        Some(waste)
    }

    fn sizes_slowly(blocks: &[(u64, u64)]) -> Vec<u64> {
        let mut sizes: Vec<u64> = (blocks.iter())
            .filter(|(bytes, _)| *bytes <= BOUND)
            .map(|(bytes, _)| bytes.div_ceil(16).max(1) * 16)
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The least waste of `k` classes by trying every set of them.
    fn least_slowly(blocks: &[(u64, u64)], k: usize) -> u128 {
        let sizes = sizes_slowly(blocks);
        (0u32..1 << sizes.len())
            .filter(|set| set.count_ones() as usize <= k)
            .filter_map(|set| {
                let chosen = (sizes.iter().enumerate()).filter(|(at, _)| set & 1 << at != 0);
                let classes: Vec<u64> = chosen.map(|(_, size)| *size).collect();
                waste_slowly(&classes, blocks)
            })
            .min()
            .unwrap_or(0)
    }

    /// Every block of a stream with each size it had and for how long.
    fn over_time_slowly(stream: &Stream) -> Vec<(u64, u64)> {
        let histories = stream.histories();
        let pairs = histories.iter().flat_map(|history| history.windows(2));
        pairs
            .map(|pair| (stream.told[pair[0]].0, stream.told[pair[1]].0))
            .map(|(from, to)| (from.bytes, to.time_ns - from.time_ns))
            .collect()
    }

    proptest! {
        #[test]
        fn no_set_of_classes_wastes_less(
            blocks in vec((prop_oneof![0u64..170, Just(40_000)], 0u64..1000), 0..60),
            k in 1usize..6,
        ) {
            let found = best(&counts(&blocks), Weight::OverTime, k);
            prop_assert_eq!(found.waste, least_slowly(&blocks, k));
            prop_assert_eq!(waste_slowly(&found.sizes, &blocks), Some(found.waste));
            prop_assert_eq!(found.sizes.len(), k.min(sizes_slowly(&blocks).len()));
            prop_assert!(found.sizes.is_sorted_by(|a, b| a < b));
        }

        /// With many sizes, trying every last cut for each number of classes: the recurrence without
        /// halving.
        #[test]
        fn halving_finds_what_trying_all_cuts_finds(blocks in vec((0u64..BOUND, 0u64..1 << 40), 1..100)) {
            let sizes = sizes_slowly(&blocks);
            let cost = |from: usize, to: usize| -> u128 {
                let low = from.checked_sub(1).map_or(0, |at| sizes[at] + 1);
                let served = blocks.iter().filter(|(bytes, _)| (low..=sizes[to]).contains(bytes));
                served.map(|(bytes, weight)| u128::from(sizes[to] - bytes) * u128::from(*weight)).sum()
            };
            let costs: Vec<Vec<u128>> = (0..sizes.len())
                .map(|from| (0..sizes.len()).map(|to| if from <= to { cost(from, to) } else { 0 }).collect())
                .collect();
            let solved = BestClasses::new(&counts(&blocks), Weight::OverTime, 20);
            let mut least: Vec<u128> = (0..sizes.len()).map(|to| costs[0][to]).collect();
            for k in 1..=20.min(sizes.len()) {
                let found = solved.classes(k);
                prop_assert_eq!(found.waste, least[sizes.len() - 1]);
                prop_assert_eq!(waste_slowly(&found.sizes, &blocks), Some(found.waste));
                prop_assert_eq!(solved.fewest(found.waste).map(|fewest| solved.wastes[fewest - 1]), Some(found.waste));
                least = (0..sizes.len())
                    .map(|to| (1..=to).map(|cut| least[cut - 1] + costs[cut][to]).min().unwrap_or(least[to]))
                    .collect();
            }
        }

        /// The report's figures follow from its classes and the blocks; no allocator does better than
        /// the best of as many classes, as far as its own are multiples of 16.
        #[test]
        fn a_report_tells_what_its_classes_take(stream in streams(300), asked in 1usize..12) {
            let mut sizes = ExactSizes::default();
            stream.tell(&mut sizes);
            let counts = sizes.finish(stream.peaks);
            let duration = stream.end_ns.max(1);
            let report = BestClassesReport::new(&counts, duration, Some(asked));
            let blocks = over_time_slowly(&stream);
            let small: Vec<(u64, u64)> = blocks.into_iter().filter(|(bytes, _)| *bytes <= BOUND).collect();
            let requested: u128 = small.iter().map(|(bytes, ns)| u128::from(*bytes) * u128::from(*ns)).sum();
            let of = &report.over_time;
            prop_assert_eq!(u128::from(of.requested_bytes), requested / u128::from(duration));
            prop_assert_eq!(report.sizes as usize, sizes_slowly(&small).len());
            let every = waste_slowly(&sizes_slowly(&small), &small).unwrap();
            prop_assert_eq!(u128::from(of.usable_bytes_least), (requested + every) / u128::from(duration));
            for set in &of.best {
                let taken = requested + waste_slowly(&set.sizes, &small).unwrap();
                prop_assert_eq!(u128::from(set.usable_bytes), taken / u128::from(duration));
                let unused = (taken - requested) * 1_000_000;
                prop_assert_eq!(u128::from(set.fragmentation_ppm), unused.checked_div(taken).unwrap_or(0));
            }
            let asked = asked.min(report.sizes as usize);
            prop_assert!(asked == 0 || of.best.iter().any(|set| set.classes as usize == asked));
            for (against, system) in of.against.iter().zip(System::ALL) {
                let taken: u128 = small.iter().map(|(bytes, ns)| {
                    let block = system.block(*bytes);
                    u128::from(block.usable_bytes + block.header_bytes) * u128::from(*ns)
                }).sum();
                prop_assert_eq!(u128::from(against.taken_bytes), taken / u128::from(duration));
                prop_assert!(against.best_waste_ppm <= against.waste_ppm || small.iter().any(|(bytes, _)| *bytes <= 8));
                if let Some(fewest) = against.fewest_classes {
                    let chosen = best(&counts, Weight::OverTime, fewest as usize);
                    prop_assert!(requested + chosen.waste <= taken);
                    let fewer = best(&counts, Weight::OverTime, fewest as usize - 1);
                    prop_assert!(fewest == 1 || requested + fewer.waste > taken);
                }
            }
        }
    }

    #[test]
    fn every_multiple_of_16_can_be_a_class() {
        let blocks: Vec<(u64, u64)> = (1..=BOUND / 16).map(|n| (n * 16, 1 + n % 7)).collect();
        let solved = BestClasses::new(&counts(&blocks), Weight::OverTime, 1_000);
        assert_eq!(solved.wastes.len(), CLASSES_MAX);
        assert_eq!(solved.classes(1).sizes, [BOUND]);
        let most = solved.classes(CLASSES_MAX);
        assert_eq!(most.sizes.len(), CLASSES_MAX);
        assert_eq!(waste_slowly(&most.sizes, &blocks), Some(most.waste));
    }

    #[test]
    fn of_nothing_there_is_nothing() {
        let none = best(&SizeCounts::default(), Weight::AtPeak, 8);
        assert_eq!(none, Classes::default());
        assert_eq!(
            best(&counts(&[(5, 1)]), Weight::AtPeak, 0),
            Classes::default()
        );
        let report = BestClassesReport::new(&SizeCounts::default(), 0, None);
        assert_eq!(report.over_time.best.len(), 1);
        assert!(report.over_time.best[0].sizes.is_empty());
    }
}
