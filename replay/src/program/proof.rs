//! Proves a program: whatever the inner loop relies on is looked at once, operation by operation.

use super::{Facts, HEADER_WORDS, PADDING, Program};
use crate::region::Region;
use crate::word::{self, Op};
use std::ops::Range;

/// Which slots hold a block, and what was counted on the way.
struct Proof {
    live: Region,
    slots: u64,
    facts: Facts,
    wide: u64,
}

/// Walks through a program. Where it is wrong, the word (from the file's start) and why.
pub(super) fn prove(program: &Program) -> Result<(), (usize, &'static str)> {
    let facts = &program.facts;
    let live = Region::zeroed((facts.slots as usize).div_ceil(64) * 8, false);
    let mut proof = Proof {
        live: live.map_err(|_| (0, "more slots than there is memory"))?,
        slots: facts.slots,
        facts: Facts::default(),
        wide: 0,
    };
    let op_words = facts.op_words as usize;
    let setup_words = facts.setup_words as usize;
    proof.walk(
        program.setup(),
        0..setup_words,
        HEADER_WORDS + op_words + PADDING,
    )?;
    let setup = proof.facts;
    if setup.allocations + proof.wide != setup_words as u64
        || setup.allocations != facts.inherited_blocks
    {
        return Err((
            HEADER_WORDS + op_words + PADDING,
            "inherited blocks that are no allocations",
        ));
    }
    proof.facts = Facts::default();
    // A replay stops at the points, at the peak and at the end.
    let mut stops: Vec<u64> = program.points.iter().map(|point| point.word).collect();
    if !stops.is_sorted() || stops.iter().any(|word| *word > facts.op_words) {
        let word = HEADER_WORDS + op_words + setup_words + 2 * PADDING;
        return Err((word, "points out of order"));
    }
    stops.push(facts.peak_word.min(facts.op_words));
    stops.push(facts.op_words);
    stops.sort_unstable();
    let mut at = 0;
    for stop in stops {
        proof.walk(program.ops(), at..stop as usize, HEADER_WORDS)?;
        at = stop as usize;
    }
    let found = proof.facts;
    let same = found.allocations == facts.allocations
        && found.zeroed == facts.zeroed
        && found.resizes == facts.resizes
        && found.frees == facts.frees
        && found.cross_thread_frees == facts.cross_thread_frees
        && found.unlocks == facts.unlocks
        && found.locks == facts.locks
        && found.allocations + found.resizes + found.frees == facts.operations;
    if !same || facts.peak_word > facts.op_words {
        return Err((2, "counts that are not those of its operations"));
    }
    let is_padding = |words: &[u64], from: usize| words[from..].iter().all(|word| *word == 0);
    if !is_padding(program.ops(), op_words) || !is_padding(program.setup(), setup_words) {
        return Err((HEADER_WORDS + op_words, "something between its parts"));
    }
    Ok(())
}

impl Proof {
    /// Applies words; a wide word and its operation are not parted.
    fn walk(
        &mut self,
        words: &[u64],
        range: Range<usize>,
        base: usize,
    ) -> Result<(), (usize, &'static str)> {
        let mut at = range.start;
        while at < range.end {
            let first = words[at];
            let op = match word::kind(first) {
                word::WIDE if at + 1 < range.end => {
                    at += 1;
                    self.wide += 1;
                    Op::decode_wide(first, words[at])
                }
                word::WIDE => return Err((base + at, "a wide word without its operation")),
                _ => Op::decode(first),
            };
            self.op(op).map_err(|what| (base + at, what))?;
            at += 1;
        }
        Ok(())
    }

    #[inline]
    fn op(&mut self, op: Op) -> Result<(), &'static str> {
        if u64::from(op.slot) >= self.slots {
            return Err("a slot outside of the table");
        }
        let (place, bit) = (op.slot as usize / 64, 1 << (op.slot % 64));
        let held = &mut self.live.words_mut()[place];
        let is_live = *held & bit != 0;
        let is_birth = matches!(op.kind, word::ALLOC | word::ZEROED);
        if is_birth == is_live {
            return Err(match is_birth {
                true => "an allocation into a slot that is taken",
                false => "an operation on a block that is not there",
            });
        }
        if op.bytes > word::BYTES_MAX || op.align_log2 > word::ALIGN_LOG2_MAX {
            return Err("a size or an alignment that no block has");
        }
        match op.kind {
            word::ALLOC | word::ZEROED => {
                *held |= bit;
                self.facts.allocations += 1;
                self.facts.zeroed += u64::from(op.kind == word::ZEROED);
                if op.align_log2 != 0 && op.kind == word::ZEROED {
                    return Err("zeroed memory with an alignment");
                }
            }
            word::RESIZE => self.facts.resizes += 1,
            word::FREE => {
                *held &= !bit;
                self.facts.frees += 1;
                self.facts.cross_thread_frees += op.bytes;
                if op.bytes > 1 {
                    return Err("a free with a size");
                }
            }
            word::UNLOCK => match op.bytes {
                0 => self.facts.unlocks += 1,
                1 => self.facts.locks += 1,
                _ => return Err("a lock with a size"),
            },
            _ => return Err("an unknown operation"),
        }
        if op.align_log2 != 0 && !is_birth {
            return Err("an alignment of what is no allocation");
        }
        Ok(())
    }
}
