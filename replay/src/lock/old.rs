//! A share of all blocks, those that live longest, locked for life. A first pass over the trace keeps the lifetime of each
//! block in two bytes, to a thousandth; a second one locks.

use super::Turn;
use crate::heap::Change;

/// Bits of a lifetime behind its leading one.
const FRACTION_BITS: u32 = 10;
/// Different lifetimes.
const CODES: usize = 1 << 16;

/// A lifetime in nanoseconds as a number that grows with it.
fn code(ns: u64) -> u16 {
    if ns < 1 << FRACTION_BITS {
        return ns as u16;
    }
    let shift = ns.ilog2() - FRACTION_BITS;
    let fraction = (ns >> shift) as u32 & ((1 << FRACTION_BITS) - 1);
    // 54 shifts at most, and 1 for the numbers below.
    (((shift + 1) << FRACTION_BITS) | fraction) as u16
}

/// The first pass.
#[derive(Debug, Default)]
pub struct Lifetimes {
    /// By number of birth; of blocks without an end the greatest.
    codes: Vec<u16>,
    /// Number and time of the birth of the block in a slot.
    births: Vec<(u64, u64)>,
}

impl Lifetimes {
    /// Takes a change.
    pub fn after(&mut self, time_ns: u64, change: Change) {
        match change {
            Change::Born { slot, .. } => {
                let at = slot as usize;
                if at >= self.births.len() {
                    self.births.resize(at + 1, (u64::MAX, 0));
                }
                self.births[at] = (self.codes.len() as u64, time_ns);
                self.codes.push(u16::MAX);
            }
            Change::Freed { slot, .. } | Change::Displaced { slot, .. } => {
                // Inherited blocks have no birth here.
                let birth = self.births.get_mut(slot as usize);
                let (number, born) = birth.map_or((u64::MAX, 0), |birth| {
                    std::mem::replace(birth, (u64::MAX, 0))
                });
                if let Some(kept) = self.codes.get_mut(number as usize) {
                    *kept = code(time_ns.saturating_sub(born));
                }
            }
            Change::Resized { .. } | Change::Failed | Change::Unknown => {}
        }
    }
}

/// The second pass.
#[derive(Debug)]
pub struct Old {
    codes: Vec<u16>,
    /// Lifetimes above this are of the share, and of equal ones the first so many.
    above: u16,
    equal: u64,
    born: usize,
}

impl Old {
    /// Blocks to lock: a share in millionths of all.
    pub fn new(lifetimes: Lifetimes, millionths: u32) -> Old {
        let codes = lifetimes.codes;
        let wanted = (codes.len() as u128 * u128::from(millionths) + 500_000) / 1_000_000;
        let mut counts = vec![0u64; CODES];
        for code in &codes {
            counts[usize::from(*code)] += 1;
        }
        let mut left = wanted as u64;
        let mut above = u16::MAX;
        // Down to the lifetime of which not all are wanted.
        while above > 0 && counts[usize::from(above)] <= left {
            left -= counts[usize::from(above)];
            above -= 1;
        }
        Old {
            codes,
            above,
            equal: left,
            born: 0,
        }
    }

    /// Takes a change.
    pub fn after(&mut self, change: Change, out: &mut Vec<Turn>) {
        let Change::Born { slot, .. } = change else {
            return;
        };
        let code = self.codes.get(self.born).copied().unwrap_or_default();
        self.born += 1;
        let takes = code > self.above || code == self.above && self.equal > 0;
        if takes {
            self.equal -= u64::from(code == self.above);
            out.push(Turn { slot, locks: true });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lifetimes_keep_their_order() {
        let times = (0..64).flat_map(|shift| {
            [
                1u64 << shift,
                (1 << shift) + (1 << shift >> 3),
                u64::MAX >> shift,
            ]
        });
        let mut times: Vec<u64> = times.collect();
        times.sort_unstable();
        assert!(times.is_sorted_by_key(|time| code(*time)));
        assert!(code(u64::MAX) < u16::MAX);
    }

    proptest! {
        /// As many blocks are locked as were asked for, and none lives longer than one of them by more than a thousandth.
        #[test]
        fn the_oldest_are_locked(lives in proptest::collection::vec(proptest::option::of(0u64..5_000_000), 0..200), millionths in 0u32..=1_000_000) {
            let mut lifetimes = Lifetimes::default();
            for (slot, life) in lives.iter().enumerate() {
                let slot = slot as u32;
                lifetimes.after(7, Change::Born { slot, bytes: 1, unknown: false });
                if let Some(life) = life {
                    lifetimes.after(7 + life, Change::Freed { slot, bytes: 1 });
                }
            }
            let mut old = Old::new(lifetimes, millionths);
            let mut locked = Vec::new();
            for slot in 0..lives.len() as u32 {
                old.after(Change::Born { slot, bytes: 1, unknown: false }, &mut locked);
            }
            let wanted = (lives.len() as f64 * f64::from(millionths) / 1e6).round() as usize;
            prop_assert_eq!(locked.len(), wanted);
            let life = |slot: u32| lives[slot as usize].unwrap_or(u64::MAX);
            let is_locked = |slot: u32| locked.iter().any(|turn| turn.slot == slot);
            let least = locked.iter().map(|turn| life(turn.slot)).min().unwrap_or(u64::MAX);
            for slot in (0..lives.len() as u32).filter(|slot| !is_locked(*slot)) {
                prop_assert!(life(slot) as f64 <= least as f64 * 1.001);
            }
        }
    }
}
