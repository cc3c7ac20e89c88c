//! From addresses to slots: open addressing with linear probing, deletion shifts back. Addresses of the same 128
//! bytes have neighbouring entries, since programs allocate and free neighbours; whoever knows the
//! addresses to come has their entries fetched before ([`AddressTable::fetch`]).

use crate::fetch::fetch;

/// Entries of the smallest table.
const ENTRIES_MIN: usize = 64;
/// 2^64 divided by the golden ratio: spreads multiples of any alignment.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Binary logarithm of the bytes whose addresses have neighbouring entries.
const REGION_BITS: u32 = 7;
/// Binary logarithm of the bytes that share an entry's home.
const HOME_BITS: u32 = 5;

/// Address 0 is an empty entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    address: u64,
    slot: u32,
}

/// Slots by address.
#[derive(Clone, Debug, Default)]
pub struct AddressTable {
    /// A power of two of entries, at most half of them used, or none.
    entries: Vec<Entry>,
    len: usize,
    shift: u32,
}

impl AddressTable {
    /// The entry at which the search for an address begins.
    #[inline(always)]
    fn home(&self, address: u64) -> usize {
        let region = (address >> REGION_BITS).wrapping_mul(MULTIPLIER) >> self.shift;
        let within = address >> HOME_BITS & ((1 << (REGION_BITS - HOME_BITS)) - 1);
        (region ^ within) as usize
    }

    /// The entry of `address`, or the empty one at which the search ended; the table has an empty one.
    #[inline]
    fn find(&self, address: u64) -> usize {
        let mask = self.entries.len() - 1;
        let mut at = self.home(address) & mask;
        loop {
            let found = self.entries[at].address;
            if found == address || found == 0 {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// Starts to fetch the entry of an address.
    #[inline(always)]
    pub fn fetch(&self, address: u64) {
        fetch(&self.entries, self.home(address));
    }

    /// The slot in the first entry looked at for an address: mostly its own.
    #[inline(always)]
    pub fn guess(&self, address: u64) -> u32 {
        self.entries
            .get(self.home(address))
            .map_or(0, |entry| entry.slot)
    }

    /// The slot of an address.
    #[inline]
    pub fn get(&self, address: u64) -> Option<u32> {
        if self.len == 0 || address == 0 {
            return None;
        }
        let entry = self.entries[self.find(address)];
        (entry.address != 0).then_some(entry.slot)
    }

    /// Says that `slot` is at `address`, which is not 0; the slot that was there before.
    #[inline]
    pub fn insert(&mut self, address: u64, slot: u32) -> Option<u32> {
        debug_assert_ne!(address, 0);
        if self.len >= self.entries.len() / 2 {
            self.grow();
        }
        let at = self.find(address);
        let old = std::mem::replace(&mut self.entries[at], Entry { address, slot });
        if old.address == 0 {
            self.len += 1;
            return None;
        }
        Some(old.slot)
    }

    /// Takes an address out; its slot.
    #[inline]
    pub fn remove(&mut self, address: u64) -> Option<u32> {
        if self.len == 0 || address == 0 {
            return None;
        }
        let mut hole = self.find(address);
        let found = self.entries[hole];
        if found.address == 0 {
            return None;
        }
        self.len -= 1;
        // Whatever follows without a gap and would not be found any more moves into the hole.
        let mask = self.entries.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = self.entries[at];
            if next.address == 0 {
                break;
            }
            let wanted = self.home(next.address) & mask;
            if (at.wrapping_sub(wanted) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.entries[hole] = next;
                hole = at;
            }
        }
        self.entries[hole] = Entry::default();
        Some(found.slot)
    }

    /// All addresses and slots, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        let used = self.entries.iter().filter(|entry| entry.address != 0);
        used.map(|entry| (entry.address, entry.slot))
    }

    #[cold]
    fn grow(&mut self) {
        let entries = (self.entries.len() * 2).max(ENTRIES_MIN);
        let old = std::mem::replace(&mut self.entries, vec![Entry::default(); entries]);
        self.shift = 64 - entries.trailing_zeros();
        for entry in old {
            if entry.address != 0 {
                let at = self.find(entry.address);
                self.entries[at] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Any order of insertions and removals leaves what a `HashMap` would hold.
        #[test]
        fn it_holds_what_a_map_holds(
            steps in proptest::collection::vec((1u64..120, any::<bool>()), 0..600),
            step in prop_oneof![Just(1u64), Just(16), Just(4096), Just(1 << 36)],
        ) {
            let mut table = AddressTable::default();
            let mut map = HashMap::new();
            for (slot, (n, insert)) in steps.into_iter().enumerate() {
                let (address, slot) = (n * step, slot as u32);
                if insert {
                    prop_assert_eq!(table.insert(address, slot), map.insert(address, slot));
                } else {
                    prop_assert_eq!(table.remove(address), map.remove(&address));
                }
            }
            for address in (0..=121u64).map(|n| n * step) {
                prop_assert_eq!(table.get(address), map.get(&address).copied());
            }
            let all: HashMap<u64, u32> = table.iter().collect();
            prop_assert_eq!(all, map);
        }
    }
}
