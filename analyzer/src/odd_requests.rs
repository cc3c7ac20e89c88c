//! Requests that an allocator has to take special care of: alignments, zero bytes, whole pages,
//! powers of two, very large ones, and those that failed. Inherited blocks are left out.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::histogram::{row_bounds, row_of};
use crate::tally::{Amount, reach};
use rmtrace_format::Kind;
use serde::Serialize;

/// Bytes from which on a request is huge: allocators give such blocks pages of their own.
pub const HUGE_BYTES: u64 = 256 << 10;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4_096;
/// The alignment that every block of 16 bytes and more has without asking, as x86-64's C library
/// gives it (the size of `max_align_t` is 32, its alignment 16).
pub const ALIGN_USUAL: u64 = 16;

/// Requests for zero bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Zeros {
    /// Blocks of zero bytes from malloc and its relatives.
    pub malloc: u64,
    /// From calloc.
    pub calloc: u64,
    /// From realloc of NULL, or of an unknown address.
    pub realloc: u64,
    /// From functions that take an alignment.
    pub memalign: u64,
    /// Resizes of a block to zero bytes that left it a block.
    pub resized: u64,
    /// Blocks that a realloc ended by returning NULL.
    pub freed: u64,
}

/// Blocks for which this alignment was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AlignBin {
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// Blocks.
    pub blocks: u64,
    /// Their first sizes.
    pub bytes: u64,
    /// Of the blocks, those of fewer bytes than the alignment.
    pub above_size: u64,
    /// What rounding their sizes up to multiples of the alignment adds.
    pub padding_bytes: u64,
}

/// Calls that asked for `[low, high)` bytes and got none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedBin {
    /// Fewest bytes.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Calls.
    pub calls: u64,
}

/// Huge blocks of `[low, high)` bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HugeBin {
    /// Fewest bytes.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Blocks.
    pub blocks: u64,
    /// Their first sizes.
    pub bytes: u64,
}

/// Requests out of the ordinary. Sizes are first sizes of blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OddRequestsReport {
    /// Blocks allocated.
    pub blocks: u64,
    /// Zero bytes.
    pub zeros: Zeros,
    /// Blocks by the alignment asked for; those for which none was asked are in none.
    pub aligned: Vec<AlignBin>,
    /// Blocks for which more than [`ALIGN_USUAL`] was asked.
    pub aligned_above_usual: Amount,
    /// Blocks whose size is a power of two, 16 and more.
    pub powers_of_two: u64,
    /// Blocks whose size is a multiple of [`PAGE_BYTES`], zero left out.
    pub whole_pages: Amount,
    /// Blocks of [`HUGE_BYTES`] and more, in powers of two.
    pub huge: Vec<HugeBin>,
    /// Resizes from less than [`HUGE_BYTES`] to that and more.
    pub grown_huge: u64,
    /// The most bytes that a block was allocated with or resized to.
    pub largest_bytes: u64,
    /// When that was, the first of equals, in nanoseconds since the run's first record.
    pub largest_at_ns: u64,
    /// Calls that failed, by bytes asked for, in powers of two.
    pub failed: Vec<FailedBin>,
}

/// Counts odd requests.
#[derive(Clone, Debug, Default)]
pub struct OddRequests {
    blocks: u64,
    powers_of_two: u64,
    largest_bytes: u64,
    largest_at_ns: u64,
    whole_pages: Amount,
    grown_huge: u64,
    zeros: Zeros,
    /// By binary logarithm of the alignment.
    aligned: Vec<Aligned>,
    /// By row of the size.
    huge: Vec<Amount>,
    /// By row of the size.
    failed: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Aligned {
    all: Amount,
    above_size: u64,
    padding_bytes: u64,
}

impl OddRequests {
    #[inline]
    fn born(&mut self, fact: &Fact) {
        let bytes = fact.bytes;
        self.blocks += 1;
        self.powers_of_two += u64::from(bytes & bytes.wrapping_sub(1) == 0 && bytes >= 16);
        if bytes.is_multiple_of(PAGE_BYTES) || bytes >= HUGE_BYTES {
            self.born_odd(fact);
        } else if bytes > self.largest_bytes {
            self.largest(fact);
        }
        if fact.align_log2 != 0 {
            self.born_aligned(fact);
        }
    }

    fn largest(&mut self, fact: &Fact) {
        if fact.bytes > self.largest_bytes {
            (self.largest_bytes, self.largest_at_ns) = (fact.bytes, fact.time_ns);
        }
    }

    #[inline(never)]
    fn born_odd(&mut self, fact: &Fact) {
        if fact.bytes == 0 {
            let zeros = &mut self.zeros;
            let calls = match fact.entry.kind() {
                Kind::Malloc | Kind::Free => &mut zeros.malloc,
                Kind::Calloc => &mut zeros.calloc,
                Kind::Realloc => &mut zeros.realloc,
                Kind::Memalign => &mut zeros.memalign,
            };
            *calls += 1;
            return;
        }
        self.largest(fact);
        if fact.bytes.is_multiple_of(PAGE_BYTES) {
            self.whole_pages.count(fact.bytes);
        }
        if fact.bytes >= HUGE_BYTES {
            reach(&mut self.huge, row_of(fact.bytes)).count(fact.bytes);
        }
    }

    #[inline(never)]
    fn born_aligned(&mut self, fact: &Fact) {
        let log2 = fact.align_log2.min(63);
        let align = 1u64 << log2;
        let row = reach(&mut self.aligned, log2.into());
        row.all.count(fact.bytes);
        row.above_size += u64::from(align > fact.bytes);
        let padding = fact.bytes.wrapping_neg() & (align - 1);
        row.padding_bytes = row.padding_bytes.saturating_add(padding);
    }

    #[inline(never)]
    fn resized(&mut self, fact: &Fact) {
        self.zeros.resized += u64::from(fact.bytes == 0);
        self.grown_huge += u64::from(fact.old_bytes < HUGE_BYTES && fact.bytes >= HUGE_BYTES);
        self.largest(fact);
    }

    #[cold]
    fn failed(&mut self, fact: &Fact) {
        *reach(&mut self.failed, row_of(fact.bytes)) += 1;
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &OddRequests) {
        self.blocks += other.blocks;
        self.powers_of_two += other.powers_of_two;
        let largest = (other.largest_bytes, other.largest_at_ns);
        let is_larger = largest.0 > self.largest_bytes;
        if is_larger || (largest.0 == self.largest_bytes && largest.1 < self.largest_at_ns) {
            (self.largest_bytes, self.largest_at_ns) = largest;
        }
        self.whole_pages.add(other.whole_pages);
        self.grown_huge += other.grown_huge;
        self.zeros.malloc += other.zeros.malloc;
        self.zeros.calloc += other.zeros.calloc;
        self.zeros.realloc += other.zeros.realloc;
        self.zeros.memalign += other.zeros.memalign;
        self.zeros.resized += other.zeros.resized;
        self.zeros.freed += other.zeros.freed;
        for (at, from) in other.aligned.iter().enumerate() {
            let to = reach(&mut self.aligned, at);
            to.all.add(from.all);
            to.above_size += from.above_size;
            to.padding_bytes = to.padding_bytes.saturating_add(from.padding_bytes);
        }
        for (at, from) in other.huge.iter().enumerate() {
            reach(&mut self.huge, at).add(*from);
        }
        for (at, from) in other.failed.iter().enumerate() {
            *reach(&mut self.failed, at) += from;
        }
    }

    /// The odd requests.
    pub fn report(&self) -> OddRequestsReport {
        let aligned = self.aligned.iter().enumerate();
        let aligned = aligned.filter(|(_, row)| row.all.blocks != 0);
        let aligned: Vec<AlignBin> = aligned
            .map(|(log2, row)| AlignBin {
                align: 1 << log2,
                blocks: row.all.blocks,
                bytes: row.all.bytes,
                above_size: row.above_size,
                padding_bytes: row.padding_bytes,
            })
            .collect();
        let mut aligned_above_usual = Amount::default();
        for row in aligned.iter().filter(|row| row.align > ALIGN_USUAL) {
            let (blocks, bytes) = (row.blocks, row.bytes);
            aligned_above_usual.add(Amount { blocks, bytes });
        }
        let huge = self.huge.iter().enumerate();
        let failed = self.failed.iter().enumerate();
        OddRequestsReport {
            blocks: self.blocks,
            zeros: self.zeros,
            aligned,
            aligned_above_usual,
            powers_of_two: self.powers_of_two,
            whole_pages: self.whole_pages,
            huge: huge
                .filter(|(_, amount)| amount.blocks != 0)
                .map(|(row, amount)| {
                    let (low, high) = row_bounds(row);
                    let Amount { blocks, bytes } = *amount;
                    HugeBin {
                        low,
                        high,
                        blocks,
                        bytes,
                    }
                })
                .collect(),
            grown_huge: self.grown_huge,
            largest_bytes: self.largest_bytes,
            largest_at_ns: self.largest_at_ns,
            failed: failed
                .filter(|(_, calls)| **calls != 0)
                .map(|(row, calls)| {
                    let (low, high) = row_bounds(row);
                    let calls = *calls;
                    FailedBin { low, high, calls }
                })
                .collect(),
        }
    }
}

impl Measure for OddRequests {
    /// Some 12 instructions a fact (callgrind, a browser's trace): for a birth two additions and four
    /// compares that go the same way nearly always, within one cache line; for a free a look at its
    /// entry.
    #[inline]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        if fact.is_inherited() {
            return;
        }
        match fact.what {
            What::Born => self.born(fact),
            What::Freed => self.zeros.freed += u64::from(fact.is_realloc()),
            What::Resized => self.resized(fact),
            What::Nothing => {
                let is_unknown = fact.flags & Fact::UNKNOWN != 0;
                if fact.is_call() && !is_unknown && fact.entry.kind() != Kind::Free {
                    self.failed(fact);
                }
            }
            What::Displaced | What::Kept => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use crate::tally::slow::power;
    use proptest::prelude::*;
    use rmtrace_format::Entry;
    use std::collections::BTreeMap;

    fn slowly(facts: &[Fact]) -> OddRequestsReport {
        let of = |what: What| -> Vec<Fact> {
            facts
                .iter()
                .filter(|fact| fact.what == what)
                .copied()
                .collect()
        };
        let (born, resized, freed) = (of(What::Born), of(What::Resized), of(What::Freed));
        let zeros = |kind: Kind| {
            let zeros = born.iter().filter(|fact| fact.bytes == 0);
            zeros.filter(|fact| fact.entry.kind() == kind).count() as u64
        };
        let sum = |facts: &[&Fact]| Amount {
            blocks: facts.len() as u64,
            bytes: facts.iter().map(|fact| fact.bytes).sum(),
        };
        let mut report = OddRequestsReport {
            blocks: born.len() as u64,
            zeros: Zeros {
                malloc: zeros(Kind::Malloc),
                calloc: zeros(Kind::Calloc),
                realloc: zeros(Kind::Realloc),
                memalign: zeros(Kind::Memalign),
                resized: resized.iter().filter(|fact| fact.bytes == 0).count() as u64,
                freed: freed.iter().filter(|fact| fact.is_realloc()).count() as u64,
            },
            powers_of_two: born
                .iter()
                .filter(|fact| fact.bytes.is_power_of_two() && fact.bytes >= 16)
                .count() as u64,
            ..OddRequestsReport::default()
        };
        let pages = born
            .iter()
            .filter(|fact| fact.bytes != 0 && fact.bytes % 4_096 == 0);
        report.whole_pages = sum(&pages.collect::<Vec<_>>());
        let above = born.iter().filter(|fact| fact.align_log2 > 4);
        report.aligned_above_usual = sum(&above.collect::<Vec<_>>());
        for log2 in 1..64 {
            let asked = born.iter().filter(|fact| fact.align_log2 == log2);
            let asked: Vec<&Fact> = asked.collect();
            let align = 1u64 << log2;
            if !asked.is_empty() {
                let Amount { blocks, bytes } = sum(&asked);
                let rounded = asked.iter().map(|fact| fact.bytes.div_ceil(align) * align);
                report.aligned.push(AlignBin {
                    align,
                    blocks,
                    bytes,
                    above_size: asked.iter().filter(|fact| fact.bytes < align).count() as u64,
                    padding_bytes: rounded.sum::<u64>() - bytes,
                });
            }
        }
        let mut huge: BTreeMap<(u64, u64), Vec<&Fact>> = BTreeMap::new();
        for fact in born.iter().filter(|fact| fact.bytes >= 262_144) {
            huge.entry(power(fact.bytes)).or_default().push(fact);
        }
        for ((low, high), facts) in huge {
            let Amount { blocks, bytes } = sum(&facts);
            report.huge.push(HugeBin {
                low,
                high,
                blocks,
                bytes,
            });
        }
        let into = resized.iter().filter(|fact| {
            (fact.old_bytes..=fact.bytes).contains(&262_143) && fact.bytes > 262_143
        });
        report.grown_huge = into.count() as u64;
        let sized = facts
            .iter()
            .filter(|fact| matches!(fact.what, What::Born | What::Resized));
        let key = |fact: &&Fact| (fact.bytes, std::cmp::Reverse(fact.time_ns));
        if let Some(largest) = sized.max_by_key(key).filter(|largest| largest.bytes != 0) {
            report.largest_bytes = largest.bytes;
            report.largest_at_ns = largest.time_ns;
        }
        let mut failed = BTreeMap::new();
        for fact in of(What::Nothing) {
            if fact.entry != Entry::Free {
                *failed.entry(power(fact.bytes)).or_insert(0) += 1;
            }
        }
        for ((low, high), calls) in failed {
            report.failed.push(FailedBin { low, high, calls });
        }
        report
    }

    /// A stream of which some sizes are odd, as random ones hardly ever are.
    fn odd(mut stream: Stream, choices: &[u64]) -> Vec<Fact> {
        for ((fact, _), choice) in stream.told.iter_mut().zip(choices) {
            if fact.what != What::Freed {
                fact.bytes = match choice % 8 {
                    0 => 0,
                    1 => 1 << (choice >> 8 & 31),
                    2 => (choice >> 8 & 1_023) * 4_096,
                    3 => 262_142 + (choice >> 8 & 3),
                    _ => fact.bytes,
                };
            }
        }
        stream.told.iter().map(|(fact, _)| *fact).collect()
    }

    proptest! {
        /// Odd requests are counted by their definitions, in a process and in two together.
        #[test]
        fn odd_requests_are_counted(
            a in streams(200),
            b in streams(200),
            choices in proptest::collection::vec(any::<u64>(), 200),
        ) {
            let (a, b) = (odd(a, &choices), odd(b, &choices));
            let (mut one, mut other) = (OddRequests::default(), OddRequests::default());
            a.iter().for_each(|fact| one.fact(fact, Peaks::default()));
            b.iter().for_each(|fact| other.fact(fact, Peaks::default()));
            prop_assert_eq!(one.report(), slowly(&a));
            one.merge(&other);
            prop_assert_eq!(one.report(), slowly(&[a, b].concat()));
        }
    }

    #[test]
    fn any_fact_is_taken() {
        let mut measure = OddRequests::default();
        for what in [What::Born, What::Resized, What::Nothing, What::Freed] {
            let fact = Fact {
                what,
                bytes: u64::MAX,
                align_log2: u8::MAX,
                flags: Fact::CALL,
                ..Fact::default()
            };
            measure.fact(&fact, Peaks::default());
        }
        let report = measure.report();
        assert_eq!(report.aligned[0].align, 1 << 63);
        assert_eq!(report.aligned[0].padding_bytes, 1);
        assert_eq!(report.failed[0].low, 1 << 63);
        assert_eq!(report.largest_bytes, u64::MAX);
    }
}
