//! The thesis' score: an operation on a block adds 1 to its score, one on any other block takes 0.5 off, down to 0; a block
//! is locked while its score is positive. In time linear in the operations: what all others lose is one counter, and a block waits in a
//! queue for the operation at which its score would be 0. One operation may put it there later; it is
//! put back then, once for each operation of its own at most.

use super::Turn;
use crate::heap::Change;
use std::collections::HashMap;

/// What an own operation adds, in halves: what another one takes off is 1.
const OWN: u64 = 2;

/// A block that waits.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    /// Number of the operation that takes its score to 0; 0: there is no block.
    ends: u64,
    /// Number of the operation at which it is looked at next, at most `ends`; 0: none.
    looked_at: u64,
}

/// Scores of the live blocks.
#[derive(Debug, Default)]
pub struct Score {
    /// Operations so far.
    now: u64,
    /// By slot.
    blocks: Vec<Waiting>,
    /// Slots by the number of the operation at which they are looked at.
    queue: HashMap<u64, Vec<u32>>,
    /// An empty list, to be used again.
    spare: Vec<u32>,
}

impl Score {
    /// Takes an operation.
    pub fn after(&mut self, change: Change, out: &mut Vec<Turn>) {
        match change {
            Change::Born { slot, .. } | Change::Resized { slot, .. } => {
                self.now += 1;
                self.touch(slot, out);
            }
            Change::Freed { slot, .. } | Change::Displaced { slot, .. } => {
                self.now += 1;
                if let Some(block) = self.blocks.get_mut(slot as usize) {
                    *block = Waiting::default();
                }
            }
            Change::Failed | Change::Unknown => return,
        }
        self.expire(out);
    }

    fn touch(&mut self, slot: u32, out: &mut Vec<Turn>) {
        let at = slot as usize;
        if at >= self.blocks.len() {
            self.blocks.resize(at + 1, Waiting::default());
        }
        let block = &mut self.blocks[at];
        // Its score before this operation, which is its own.
        let score = block.ends.saturating_sub(self.now - 1);
        block.ends = self.now + score + OWN;
        out.push(Turn { slot, locks: true });
        // A block that waits already does so no longer than it should.
        if block.looked_at <= self.now {
            block.looked_at = block.ends;
            let ends = block.ends;
            self.wait(ends, slot);
        }
    }

    fn wait(&mut self, until: u64, slot: u32) {
        let spare = &mut self.spare;
        self.queue
            .entry(until)
            .or_insert_with(|| std::mem::take(spare))
            .push(slot);
    }

    fn expire(&mut self, out: &mut Vec<Turn>) {
        let Some(mut slots) = self.queue.remove(&self.now) else {
            return;
        };
        for slot in slots.drain(..) {
            let block = &mut self.blocks[slot as usize];
            // Freed since, or of a block that came after it.
            if block.looked_at != self.now {
                continue;
            }
            block.looked_at = 0;
            if block.ends == self.now {
                out.push(Turn { slot, locks: false });
            } else {
                block.looked_at = block.ends;
                let ends = block.ends;
                self.wait(ends, slot);
            }
        }
        self.spare = slots;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Holder, Locked};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// After each operation the locked blocks are those whose score is positive when every score is counted at
        /// every operation.
        #[test]
        fn scores_are_those_that_are_counted_one_by_one(steps in proptest::collection::vec((0u32..12, 0u8..8), 0..400)) {
            let mut locked = Locked::new(Holder::Score(Score::default()));
            let mut told: BTreeMap<u32, bool> = BTreeMap::new();
            let mut twin: BTreeMap<u32, f64> = BTreeMap::new();
            for (slot, what) in steps {
                let is_there = twin.contains_key(&slot);
                let change = match (is_there, what) {
                    (false, _) => Change::Born { slot, bytes: 8, unknown: false },
                    (true, 0..5) => Change::Resized { slot, from: 8, to: 9 },
                    (true, 5) => Change::Failed,
                    (true, _) => Change::Freed { slot, bytes: 8 },
                };
                for turn in locked.after(0, 0, change) {
                    told.insert(turn.slot, turn.locks);
                }
                if change == Change::Failed {
                    continue;
                }
                for (other, score) in &mut twin {
                    if *other != slot {
                        *score = (*score - 0.5).max(0.0);
                    }
                }
                match change {
                    Change::Freed { .. } => {
                        twin.remove(&slot);
                        told.remove(&slot);
                    }
                    _ => *twin.entry(slot).or_insert(0.0) += 1.0,
                }
                let expected: Vec<u32> = twin.iter().filter(|(_, score)| **score > 0.0).map(|(slot, _)| *slot).collect();
                let found: Vec<u32> = told.iter().filter(|(_, locks)| **locks).map(|(slot, _)| *slot).collect();
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(locked.blocks, expected.len() as u64);
            }
        }
    }
}
