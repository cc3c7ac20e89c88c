//! The live blocks by address.

use crate::record::{BlockRecord, Span};
use std::collections::BTreeMap;

/// Spans that a live block keeps before they are written out.
const SPANS_KEPT: usize = 4096;

/// A live block.
#[derive(Debug, Default)]
pub struct Block {
    /// First address.
    pub start: u64,
    /// Bytes asked for last.
    pub bytes: u64,
    /// Stamp of the call that made or moved it.
    pub stamp: u64,
    /// What is known of it so far.
    pub record: BlockRecord,
    /// Instructions at the first access.
    first: u64,
    /// Instructions and calls at the last one.
    last: u64,
    last_call: u64,
    /// Instructions and calls at the first access of the span.
    span_first: u64,
    span_call: u64,
}

impl Block {
    /// A block that a call makes.
    pub fn new(start: u64, bytes: u64, stamp: u64, birth: u64, born_at: u64) -> Block {
        Block {
            start,
            bytes,
            stamp,
            record: BlockRecord {
                birth,
                bytes,
                born_at,
                ..BlockRecord::default()
            },
            ..Block::default()
        }
    }

    /// Counts an access after `calls` calls and `instructions` instructions. Accesses that are at most `gap` instructions
    /// apart are of one span. Spans to write out, if there are many.
    #[inline]
    pub fn access(
        &mut self,
        reads: bool,
        writes: bool,
        instructions: u64,
        calls: u64,
        gap: u64,
    ) -> Option<BlockRecord> {
        let is_first = self.record.accesses() == 0;
        self.record.reads += u64::from(reads);
        self.record.writes += u64::from(writes);
        let mut part = None;
        if is_first || instructions - self.last > gap {
            if is_first {
                self.first = instructions;
            } else {
                part = self.end_span();
            }
            self.span_first = instructions;
            self.span_call = calls;
        }
        self.last = instructions;
        self.last_call = calls;
        part
    }

    fn end_span(&mut self) -> Option<BlockRecord> {
        let record = &mut self.record;
        record.spans += 1;
        // An instruction at least is within.
        record.locked_instructions += (self.last - self.span_first).max(1);
        if self.last_call > self.span_call {
            record.crossing.push(Span {
                from: self.span_call,
                to: self.last_call,
            });
        }
        (record.crossing.len() >= SPANS_KEPT).then(|| BlockRecord {
            birth: record.birth,
            crossing: std::mem::take(&mut record.crossing),
            is_part: true,
            ..BlockRecord::default()
        })
    }

    /// All that is known of it; `end` is the call that ended it.
    pub fn finish(mut self, end: Option<u64>) -> BlockRecord {
        if self.record.accesses() != 0 {
            let part = self.end_span();
            self.record.first_access = self.first - self.record.born_at;
            self.record.used_for = self.last - self.first;
            if let Some(part) = part {
                self.record.crossing = part.crossing;
            }
        }
        self.record.end = end;
        self.record
    }
}

/// Live blocks.
#[derive(Debug, Default)]
pub struct Blocks {
    by_start: BTreeMap<u64, u32>,
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// All blocks that there were lie between these.
    low: u64,
    high: u64,
    /// The block found last.
    hit: u32,
}

impl Blocks {
    /// An empty set.
    pub fn new() -> Blocks {
        Blocks {
            low: u64::MAX,
            ..Blocks::default()
        }
    }

    /// Live blocks.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Adds a block; the one that was at its address.
    pub fn insert(&mut self, block: Block) -> Option<Block> {
        let start = block.start;
        self.low = self.low.min(start);
        self.high = self.high.max(start.saturating_add(block.bytes));
        let number = match self.free.pop() {
            Some(number) => {
                self.blocks[number as usize] = block;
                number
            }
            None => {
                self.blocks.push(block);
                (self.blocks.len() - 1) as u32
            }
        };
        let other = self.by_start.insert(start, number)?;
        Some(self.take(other))
    }

    fn take(&mut self, number: u32) -> Block {
        self.free.push(number);
        // An empty block holds no address.
        std::mem::take(&mut self.blocks[number as usize])
    }

    /// Takes out the block that begins at `start`.
    pub fn remove(&mut self, start: u64) -> Option<Block> {
        let number = self.by_start.remove(&start)?;
        Some(self.take(number))
    }

    /// The block that begins at `start`.
    pub fn at(&self, start: u64) -> Option<&Block> {
        let number = *self.by_start.get(&start)?;
        self.blocks.get(number as usize)
    }

    /// Whether there was ever a block near.
    #[inline]
    pub fn near(&self, address: u64, bytes: u64) -> bool {
        address < self.high && address.saturating_add(bytes) > self.low
    }

    /// The block that holds the first of these bytes that any holds.
    #[inline]
    pub fn find(&mut self, address: u64, bytes: u64) -> Option<&mut Block> {
        let is_in = |block: &Block| address.wrapping_sub(block.start) < block.bytes;
        let hit = self.hit as usize;
        if self.blocks.get(hit).is_some_and(is_in) {
            return self.blocks.get_mut(hit);
        }
        let block = |number: u32| &self.blocks[number as usize];
        let before = self.by_start.range(..=address).next_back();
        let found = match before {
            Some((_, &number)) if is_in(block(number)) => number,
            _ => {
                let last = address.saturating_add(bytes.saturating_sub(1));
                if last <= address {
                    return None;
                }
                let mut behind = self.by_start.range(address + 1..=last);
                *behind.find(|(_, number)| block(**number).bytes != 0)?.1
            }
        };
        self.hit = found;
        self.blocks.get_mut(found as usize)
    }

    /// Ends all.
    pub fn drain(&mut self) -> impl Iterator<Item = Block> + '_ {
        let numbers: Vec<u32> = std::mem::take(&mut self.by_start).into_values().collect();
        numbers.into_iter().map(|number| self.take(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// An access is of the block that holds its first byte, or the first byte that any block holds.
        #[test]
        fn accesses_find_their_block(
            steps in proptest::collection::vec((0u64..40, 0u64..33, any::<bool>()), 1..60),
            looks in proptest::collection::vec((0u64..700, 1u64..40), 1..60),
        ) {
            let mut blocks = Blocks::new();
            let mut twin: Vec<(u64, u64)> = Vec::new();
            for (place, bytes, add) in steps {
                let start = 16 + place * 16;
                let overlaps = |(at, len): &(u64, u64)| start < at + len.max(&1) && *at < start + bytes.max(1);
                if add && !twin.iter().any(overlaps) {
                    twin.push((start, bytes));
                    prop_assert!(blocks.insert(Block::new(start, bytes, 0, 0, 0)).is_none());
                } else if let Some(at) = twin.iter().position(|(at, _)| *at == start) {
                    twin.swap_remove(at);
                    prop_assert!(blocks.remove(start).is_some());
                }
                for (address, bytes) in &looks {
                    let holder = |byte: u64| twin.iter().find(|(at, len)| *at <= byte && byte < at + len);
                    let expected = (0..*bytes).find_map(|n| holder(address + n)).map(|(at, _)| *at);
                    prop_assert_eq!(blocks.find(*address, *bytes).map(|block| block.start), expected);
                }
            }
        }

        /// Spans are those of a list of all accesses.
        #[test]
        fn spans_are_those_of_all_accesses(
            accesses in proptest::collection::vec((0u64..30, 0u64..3), 0..60),
            gap in 0u64..20,
        ) {
            let mut block = Block::new(0, 8, 0, 0, 0);
            let (mut now, mut calls) = (0, 1);
            let mut times = Vec::new();
            for (step, called) in accesses {
                now += step;
                calls += called;
                prop_assert_eq!(block.access(true, false, now, calls, gap), None);
                times.push((now, calls));
            }
            let record = block.finish(None);
            let spans: Vec<&[(u64, u64)]> = times.chunk_by(|one, next| next.0 - one.0 <= gap).collect();
            let ends = |span: &&[(u64, u64)]| (span[0], span[span.len() - 1]);
            prop_assert_eq!(record.spans, spans.len() as u64);
            let locked: u64 = spans.iter().map(ends).map(|(first, last)| (last.0 - first.0).max(1)).sum();
            prop_assert_eq!(record.locked_instructions, locked);
            let crossing: Vec<Span> = spans
                .iter()
                .map(ends)
                .filter(|(first, last)| last.1 > first.1)
                .map(|(first, last)| Span { from: first.1, to: last.1 })
                .collect();
            prop_assert_eq!(record.crossing, crossing);
        }
    }
}
