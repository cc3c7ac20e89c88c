//! Generations and the bits of entries and handles. The generation of an entry tells a stale handle
//! from the one that is valid now; an entry whose generation would wrap is retired.

use super::Subject;
use crate::handle_table::HANDLE_BYTES;
use crate::handles::quotient;
use serde::Serialize;

/// Nanoseconds of a day.
const DAY_NS: u128 = 86_400_000_000_000;
/// Generation bits of the table of points.
const POINTS: [u64; 8] = [8, 12, 14, 16, 20, 24, 28, 32];
/// The share of the table that may retire in a day: one part in so many.
pub const RETIRED_PART: u64 = 100;
/// Bits of a block's offset in rmalloc's heap, which has 128 GiB at most.
pub const OFFSET_BITS: u64 = 37;
/// Blocks are aligned to 16: so many bits of an offset are zero.
pub const ALIGN_BITS: u64 = 4;
/// Bits for the number of locks held on a block. Traces hold no locks: this is a choice.
pub const LOCK_BITS: u64 = 4;
/// Bits for the thread in whose region a block is.
pub const OWNER_BITS: u64 = 8;
/// Bits for in use, being moved, may be dropped.
pub const FLAG_BITS: u64 = 3;
/// Room to grow above the advised entries that an index has.
pub const GROWTH_ROOM: u64 = 16;
/// Bits of an entry and of a handle.
const WORD_BITS: u64 = 64;

/// What so many generation bits mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GenerationPoint {
    /// Bits.
    pub bits: u64,
    /// Entries that retire in a day at most, rounded up, whatever the policy.
    pub retired_per_day: u64,
    /// Bytes of these.
    pub retired_bytes_per_day: u64,
    /// Entries that have to lie free before one is given out again, so that none wraps in a day.
    pub free_entries: u64,
}

/// How often entries are used again, taken to a day, in the trace where that is most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Generations {
    /// Place of that trace in the sources, by births a day.
    pub of: usize,
    /// Blocks born a day, if the program goes on as in the trace.
    pub births_per_day: u64,
    /// Place of the trace with the most reuses of one entry a day.
    pub busiest_of: usize,
    /// Reuses of its busiest entry a day, giving out the entry freed last.
    pub busiest_per_day: u64,
    /// Bits with which no entry wraps in a day then.
    pub bits_last_freed: u64,
    /// Entries that an eighth of the table has.
    pub delay_entries: u64,
    /// Bits with which none wraps in a day if so many lie free before one is given out again, the one
    /// freed first.
    pub bits_first_freed: u64,
    /// Bits with which at most a hundredth of the advised entries retires in a day: the advice.
    pub bits: u64,
    /// For other numbers of bits.
    pub points: Vec<GenerationPoint>,
}

/// The smallest number of bits with `2^bits > value`.
fn bits_above(value: u64) -> u64 {
    u64::from(u64::BITS - value.leading_zeros())
}

/// `count` in `duration_ns`, taken to a day.
fn per_day(count: u64, duration_ns: u64) -> u64 {
    quotient(u128::from(count) * DAY_NS, duration_ns)
}

impl Generations {
    pub(super) fn new(subjects: &[Subject], entries: u64) -> Generations {
        let most = |of: &dyn Fn(&Subject) -> u64| {
            // The first of equals.
            let all = subjects.iter().map(of).enumerate().rev();
            all.max_by_key(|(_, value)| *value).unwrap_or((0, 0))
        };
        let (of, births) = most(&|of| per_day(of.handles.births, of.handles.duration_ns));
        let (busiest_of, busiest) =
            most(&|of| per_day(of.handles.reuse.most, of.handles.duration_ns));
        // 2^bits generations of an entry are used up by as many births, so births retire at most one
        // entry in 2^bits.
        let retired = |bits: u64| match bits {
            64.. => 0,
            _ => births.div_ceil(1 << bits),
        };
        let bits = (1..WORD_BITS)
            .find(|bits| retired(*bits) <= (entries / RETIRED_PART).max(1))
            .unwrap_or(WORD_BITS);
        let delay_entries = entries / 8;
        Generations {
            of,
            births_per_day: births,
            busiest_of,
            busiest_per_day: busiest,
            bits_last_freed: bits_above(busiest),
            delay_entries,
            // Between two births of one entry lie `delay_entries` births of others.
            bits_first_freed: bits_above(births / delay_entries.saturating_add(1)),
            bits,
            points: POINTS
                .iter()
                .map(|&bits| GenerationPoint {
                    bits,
                    retired_per_day: retired(bits),
                    retired_bytes_per_day: retired(bits).saturating_mul(HANDLE_BYTES),
                    // births / (free + 1) < 2^bits.
                    free_entries: births >> bits,
                })
                .collect(),
        }
    }
}

/// How to split an entry and a handle of 64 bits each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Split {
    /// Of an entry: the offset in the heap, without the bits that alignment to 16 leaves zero.
    pub address_bits: u64,
    /// Of an entry: locks held.
    pub lock_bits: u64,
    /// Of an entry: the owner of the block's region.
    pub owner_bits: u64,
    /// Of an entry: in use, being moved, may be dropped.
    pub flag_bits: u64,
    /// Of an entry: what is left for the generation, as far as it is wanted.
    pub entry_generation_bits: u64,
    /// Generation bits that are wanted and that an entry has no room for: entries retire earlier.
    pub generation_bits_beside: u64,
    /// Of a handle: the entry's number.
    pub index_bits: u64,
    /// Of a handle: the generation.
    pub generation_bits: u64,
    /// Of a handle: left for the heap's number and for telling made-up handles.
    pub check_bits: u64,
}

impl Split {
    pub(super) fn new(entries: u64, generation_bits: u64, memory: Option<u64>) -> Split {
        let address_bits = OFFSET_BITS - ALIGN_BITS;
        let room = WORD_BITS - address_bits - LOCK_BITS - OWNER_BITS - FLAG_BITS;
        // As many of the smallest blocks as fit, with their entries.
        let fit = memory.map_or(0, |bytes| bytes / ((1 << ALIGN_BITS) + HANDLE_BYTES));
        let most = entries.saturating_mul(GROWTH_ROOM).max(fit).max(2);
        let index_bits = bits_above(most - 1).min(WORD_BITS / 2);
        let generation_bits = generation_bits.min(WORD_BITS - index_bits);
        Split {
            address_bits,
            lock_bits: LOCK_BITS,
            owner_bits: OWNER_BITS,
            flag_bits: FLAG_BITS,
            entry_generation_bits: generation_bits.min(room),
            generation_bits_beside: generation_bits.saturating_sub(room),
            index_bits,
            generation_bits,
            check_bits: WORD_BITS - index_bits - generation_bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handles::{HandlesReport, Reuse};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn subject(births: u64, most: u64, duration_ns: u64) -> Subject {
        Subject {
            handles: HandlesReport {
                births,
                duration_ns,
                reuse: Reuse {
                    most,
                    ..Reuse::default()
                },
                ..HandlesReport::default()
            },
            ..Subject::default()
        }
    }

    #[test]
    fn a_day_by_hand() {
        // 100 births and 5 reuses of one entry a second; the other trace is slower.
        let all = [
            subject(100, 1, 2_000_000_000),
            subject(1_000, 50, 10_000_000_000),
        ];
        let found = Generations::new(&all, 10_240);
        assert_eq!((found.of, found.births_per_day), (1, 8_640_000));
        assert_eq!((found.busiest_of, found.busiest_per_day), (1, 432_000));
        assert_eq!(found.bits_last_freed, 19);
        // 8,640,000 births over 1,281 entries in turn: 6,744 each.
        assert_eq!(found.bits_first_freed, 13);
        // 102 entries may retire: 8,640,000 / 2^17 = 66, / 2^16 = 132.
        assert_eq!(found.bits, 17);
        let twelve = &found.points[1];
        assert_eq!((twelve.bits, twelve.retired_per_day), (12, 2_110));
        assert_eq!(twelve.retired_bytes_per_day, 2_110 * 8);
        let none = Generations::new(&[subject(0, 0, 0)], 0);
        assert_eq!((none.bits_last_freed, none.bits), (0, 1));
    }

    proptest! {
        /// The bounds by playing a table: entries freed first are given out first, but only when so
        /// many are free; no entry comes again oftener than the bound, and no more wrap than stated.
        #[test]
        fn bounds_hold_in_a_table_that_is_played(
            steps in proptest::collection::vec(any::<u16>(), 1..2_000), births_of in 1u16..100, delay in 0usize..40, bits in 1u32..4,
        ) {
            let (mut free, mut live, mut births) = (VecDeque::new(), Vec::new(), Vec::<u64>::new());
            let (mut stack, mut stacked, mut generations, mut retired) = (Vec::new(), Vec::new(), Vec::<u64>::new(), 0u64);
            let mut all = 0u64;
            for dice in steps {
                if dice % 100 < births_of {
                    all += 1;
                    let entry = if free.len() > delay { free.pop_front().unwrap() } else { births.push(0); births.len() - 1 };
                    births[entry] += 1;
                    live.push(entry);
                    // The same with the entry freed last, and retirement.
                    let entry = stack.pop().unwrap_or_else(|| { generations.push(0); generations.len() - 1 });
                    stacked.push(entry);
                } else if !live.is_empty() {
                    let at = dice as usize % live.len();
                    free.push_back(live.swap_remove(at));
                    let entry: usize = stacked.swap_remove(at);
                    generations[entry] += 1;
                    if generations[entry] == 1 << bits { retired += 1 } else { stack.push(entry) }
                }
            }
            let most = births.iter().copied().max().unwrap_or(0).saturating_sub(1);
            prop_assert!(most <= all / (delay as u64 + 1));
            prop_assert!(retired <= all.div_ceil(1 << bits));
        }

        #[test]
        fn words_are_filled(entries: u64, wanted in 0u64..65, memory in proptest::option::of(any::<u64>())) {
            let split = Split::new(entries, wanted, memory);
            prop_assert_eq!(split.index_bits + split.generation_bits + split.check_bits, 64);
            let others = split.address_bits + split.lock_bits + split.owner_bits + split.flag_bits;
            prop_assert!(others + split.entry_generation_bits <= 64);
            prop_assert_eq!(split.entry_generation_bits + split.generation_bits_beside, split.generation_bits);
            prop_assert!(split.index_bits == 32 || entries <= 1 << split.index_bits);
        }
    }
}
