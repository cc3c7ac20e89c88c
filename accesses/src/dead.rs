//! Where blocks were that were freed and whose place was not given out again: accesses there are accesses after the free.

use std::collections::BTreeMap;

/// Blocks of this size and more are given back to the system by their free (glibc's first threshold), and their place
/// may be anything next.
pub const BYTES_MAX: u64 = 128 << 10;
/// Places that are kept.
const PLACES_MAX: usize = 1 << 21;

/// A place where a block was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First address of the block.
    pub start: u64,
    /// End of the part that is left.
    end: u64,
    /// Bytes of the block.
    pub bytes: u64,
    /// Number of the call that made it.
    pub birth: u64,
}

/// Places of freed blocks.
#[derive(Debug, Default)]
pub struct Dead {
    /// By the first address that is left.
    places: BTreeMap<u64, Place>,
    /// Blocks that were too many to keep.
    pub left_out: u64,
}

impl Dead {
    /// A block was freed.
    pub fn add(&mut self, start: u64, bytes: u64, birth: u64) {
        if bytes == 0 || bytes >= BYTES_MAX {
            return;
        }
        if self.places.len() >= PLACES_MAX {
            self.left_out += 1;
            return;
        }
        let end = start.saturating_add(bytes);
        self.clear(start, end);
        let place = Place {
            start,
            end,
            bytes,
            birth,
        };
        self.places.insert(start, place);
    }

    /// The addresses are in use again.
    pub fn clear(&mut self, start: u64, end: u64) {
        let before = self.places.range(..start).next_back();
        let before = before.map(|(from, place)| (*from, *place));
        if let Some((from, place)) = before.filter(|(_, place)| place.end > start) {
            self.places.insert(
                from,
                Place {
                    end: start,
                    ..place
                },
            );
            if place.end > end {
                self.places.insert(end, place);
            }
        }
        while let Some((&from, &place)) = self.places.range(start..end).next() {
            self.places.remove(&from);
            if place.end > end {
                self.places.insert(end, place);
            }
        }
    }

    /// The freed block that was at an address.
    pub fn find(&self, address: u64) -> Option<Place> {
        let (_, place) = self.places.range(..=address).next_back()?;
        (address < place.end).then_some(*place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every address is of the block freed there last, unless it was given out since.
        #[test]
        fn addresses_are_those_of_a_table(steps in proptest::collection::vec((0u64..60, 0u64..20, any::<bool>()), 0..60)) {
            let mut dead = Dead::default();
            let mut table = [None; 100];
            for (birth, (start, bytes, frees)) in steps.into_iter().enumerate() {
                let birth = birth as u64;
                match frees {
                    true => dead.add(start, bytes, birth),
                    false => dead.clear(start, start + bytes),
                }
                table[start as usize..(start + bytes) as usize].fill(frees.then_some(birth));
                for (address, expected) in table.iter().enumerate() {
                    prop_assert_eq!(dead.find(address as u64).map(|place| place.birth), *expected);
                }
            }
        }
    }
}
