//! The live blocks of a process: their descriptions side by side ([`Blocks`]), and a table from
//! addresses to them ([`AddressTable`]). What the blocks mean is the caller's business.
//!
//! The place of a freed block is the first to be given out again, so places are what entries of a
//! handle table with that policy would be, and programs that allocate and free in turn stay in a few
//! cache lines. The table is open addressing with linear probing, deletion shifts back; a slot is
//! eight bytes and addresses of the same 4 KiB have neighbouring slots, since programs allocate and free
//! neighbours. Whoever knows the events to come has their
//! slots and blocks fetched beforehand ([`AddressTable::fetch`]).

use crate::prefetch::prefetch_at;
use rmtrace_format::Entry;

/// Slots of the smallest table.
const SLOTS_MIN: usize = 16;
/// Binary logarithm of the bytes that a step of a tag is.
const GRANULE_BITS: u32 = 4;
/// Binary logarithm of the granules whose addresses have neighbouring slots.
const REGION_BITS: u32 = 3;
/// Binary logarithm of the granules that share a home: blocks are seldom smaller.
const SPREAD_BITS: u32 = 1;
/// Slots of a region.
const REGION_SLOTS: u32 = 1 << (REGION_BITS - SPREAD_BITS);
/// 2^64 divided by the golden ratio: spreads multiples of any alignment.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A live block. A cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct Block {
    /// Where it lies, or lay before the realloc that it is in.
    pub address: u64,
    /// Requested bytes now.
    pub bytes: u64,
    /// When it was allocated.
    pub born_ns: u64,
    /// Its process' bytes clock after it was allocated.
    pub born_bytes: u64,
    /// Its process' events clock after it was allocated.
    pub born_events: u64,
    /// Blocks born in the process up to and with it.
    pub born_allocations: u64,
    /// Thread that allocated it.
    pub thread: u32,
    /// Times it was resized to more bytes; of an inherited block 1 if it was resized at all.
    pub growths: u32,
    /// The function that allocated it.
    pub entry: Entry,
    /// First size class.
    pub class: u8,
    /// Whether the process inherited it.
    pub inherited: bool,
    /// Whether no measure is told of it: a filter leaves it out.
    pub left_out: bool,
}

const _: () = assert!(size_of::<Block>() == 64);

/// Places from here on are those of blocks that have no handle.
const WITHOUT_HANDLE: u32 = 1 << 31;

/// The blocks, by place. Those that measures are told of as the process' own have places, and so
/// handles, without gaps; the others have places of their own.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    own: Slab,
    others: Slab,
}

/// Blocks side by side.
#[derive(Debug, Default)]
struct Slab {
    blocks: Vec<Block>,
    /// Places of blocks that are gone, the latest last.
    free: Vec<u32>,
}

impl Slab {
    #[inline]
    fn add(&mut self, block: Block) -> u32 {
        match self.free.pop() {
            Some(place) => {
                if let Some(slot) = self.blocks.get_mut(place as usize) {
                    *slot = block;
                }
                place
            }
            None => {
                self.blocks.push(block);
                (self.blocks.len() - 1) as u32
            }
        }
    }
}

impl Blocks {
    /// Gives a block a place.
    #[inline]
    pub fn add(&mut self, block: Block) -> u32 {
        if block.inherited || block.left_out {
            return self.others.add(block) | WITHOUT_HANDLE;
        }
        self.own.add(block)
    }

    /// Takes a block out: its place may be given out again.
    #[inline]
    pub fn remove(&mut self, place: u32) -> Block {
        let block = self.get(place);
        match place & WITHOUT_HANDLE {
            0 => self.own.free.push(place),
            _ => self.others.free.push(place & !WITHOUT_HANDLE),
        }
        block
    }

    /// The block at a place.
    #[inline]
    pub fn get(&self, place: u32) -> Block {
        self.at(place).copied().unwrap_or_default()
    }

    #[inline]
    fn at(&self, place: u32) -> Option<&Block> {
        match self.own.blocks.get(place as usize) {
            Some(block) => Some(block),
            None => self.others.blocks.get((place & !WITHOUT_HANDLE) as usize),
        }
    }

    /// The block at a place, to be changed.
    #[inline]
    pub fn get_mut(&mut self, place: u32) -> Option<&mut Block> {
        match place & WITHOUT_HANDLE {
            0 => self.own.blocks.get_mut(place as usize),
            _ => self
                .others
                .blocks
                .get_mut((place & !WITHOUT_HANDLE) as usize),
        }
    }

    /// Whether the block at a place is, or was, at `address`.
    #[inline]
    fn is_at(&self, place: u32, address: u64) -> bool {
        self.at(place).is_some_and(|block| block.address == address)
    }
}

/// What names an address in the table: the bits that differ between blocks of a heap. Two addresses
/// with the same tag are told apart by their blocks.
#[inline]
fn tag(address: u64) -> u32 {
    (address >> GRANULE_BITS) as u32
}

/// A tag in the upper half, the block's place plus one in the lower; 0 is an empty slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot(u64);

impl Slot {
    #[inline]
    fn new(tag: u32, place: u32) -> Slot {
        Slot(u64::from(tag) << 32 | u64::from(place.wrapping_add(1)))
    }

    #[inline]
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    fn place(self) -> u32 {
        (self.0 as u32).wrapping_sub(1)
    }
}

/// Places of blocks by address.
#[derive(Debug, Default)]
pub(crate) struct AddressTable {
    /// A power of two of slots, at most half of them used, or none.
    slots: Vec<Slot>,
    len: usize,
    /// 64 less the binary logarithm of the number of slots.
    shift: u32,
}

impl AddressTable {
    /// Slot at which the search for a tag begins.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        let region = u64::from(tag >> REGION_BITS).wrapping_mul(MULTIPLIER) >> self.shift;
        (region ^ u64::from(tag >> SPREAD_BITS & (REGION_SLOTS - 1))) as usize
    }

    /// The slot of `address`, or the empty slot at which the search ended; there is an empty one.
    #[inline]
    fn find(&self, blocks: &Blocks, address: u64) -> usize {
        let mask = self.slots.len() - 1;
        let tag = tag(address);
        let mut at = self.home(tag) & mask;
        loop {
            let found = self.slots[at];
            if found.is_empty() || (found.tag() == tag && blocks.is_at(found.place(), address)) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// Starts to fetch the slot of `address`.
    #[inline(always)]
    pub fn fetch(&self, address: u64) {
        prefetch_at(&self.slots, self.home(tag(address)));
    }

    /// Starts to fetch the block at `address`, if it is the first one looked at, as it mostly is.
    #[inline(always)]
    pub fn fetch_block(&self, blocks: &Blocks, address: u64) {
        let tag = tag(address);
        let slot = self.slots.get(self.home(tag)).copied().unwrap_or_default();
        // Another block, of a new address: the first place, which costs nothing. A choice of numbers
        // and not of ways, as it is hard to predict.
        let is_it = 0u32.wrapping_sub(u32::from(slot.tag() == tag));
        prefetch_at(&blocks.own.blocks, (slot.place() & is_it) as usize);
    }

    /// The place of the block at `address`.
    #[inline]
    pub fn get(&self, blocks: &Blocks, address: u64) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let slot = self.slots[self.find(blocks, address)];
        (!slot.is_empty()).then_some(slot.place())
    }

    /// Says that `place` describes the block at `address`; the place of the one that was there before.
    #[inline]
    pub fn insert(&mut self, blocks: &Blocks, address: u64, place: u32) -> Option<u32> {
        if self.len >= self.slots.len() / 2 {
            self.grow();
        }
        let at = self.find(blocks, address);
        let slot = &mut self.slots[at];
        let old = std::mem::replace(slot, Slot::new(tag(address), place));
        if old.is_empty() {
            self.len += 1;
            return None;
        }
        Some(old.place())
    }

    /// Takes an address out; the place of the block there.
    #[inline]
    pub fn remove(&mut self, blocks: &Blocks, address: u64) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let mut hole = self.find(blocks, address);
        let slot = self.slots[hole];
        if slot.is_empty() {
            return None;
        }
        self.len -= 1;
        // Whatever follows without a gap and would not be found any more moves into the hole.
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = self.slots[at];
            if next.is_empty() {
                break;
            }
            let wanted = self.home(next.tag()) & mask;
            if (at.wrapping_sub(wanted) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = next;
                hole = at;
            }
        }
        self.slots[hole] = Slot::default();
        Some(slot.place())
    }

    /// Places of all blocks, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let slots = self.slots.iter().filter(|slot| !slot.is_empty());
        slots.map(|slot| slot.place())
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots]);
        self.shift = 64 - slots.trailing_zeros();
        for slot in old {
            if !slot.is_empty() {
                let mut at = self.home(slot.tag()) & (slots - 1);
                while !self.slots[at].is_empty() {
                    at = (at + 1) & (slots - 1);
                }
                self.slots[at] = slot;
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
            steps in proptest::collection::vec((0u64..120, any::<bool>()), 0..600),
            step in prop_oneof![Just(1u64), Just(8), Just(16), Just(1024), Just(4096), Just(1 << 35), Just(1 << 36)],
        ) {
            let mut blocks = Blocks::default();
            let mut table = AddressTable::default();
            let mut map = HashMap::new();
            for (n, insert) in steps {
                let address = (n + 1) * step;
                if insert {
                    let place = blocks.add(Block { address, ..Block::default() });
                    prop_assert_eq!(table.insert(&blocks, address, place), map.insert(address, place));
                } else {
                    let place = table.remove(&blocks, address);
                    prop_assert_eq!(place, map.remove(&address));
                    if let Some(place) = place {
                        blocks.remove(place);
                    }
                }
            }
            for address in (0..=121u64).map(|n| n * step) {
                prop_assert_eq!(table.get(&blocks, address), map.get(&address).copied());
            }
            prop_assert_eq!(table.iter().count(), map.len());
        }
    }

    #[test]
    fn the_place_freed_last_is_the_next_given_out() {
        let mut blocks = Blocks::default();
        let places: Vec<u32> = (0..4).map(|_| blocks.add(Block::default())).collect();
        assert_eq!(places, [0, 1, 2, 3]);
        blocks.remove(1);
        blocks.remove(2);
        assert_eq!(
            [
                blocks.add(Block::default()),
                blocks.add(Block::default()),
                blocks.add(Block::default())
            ],
            [2, 1, 4]
        );
    }
}
