//! The table of a process' live blocks by address, in two steps: a directory of 4 KiB pages, and for
//! each page a small table of the blocks that begin in it. Programs allocate and free neighbours, so
//! an event mostly touches memory that the events before it touched; one large hash table instead
//! was measured three times slower on a trace with a million live blocks. Both steps are open
//! addressing with linear probing, deletion shifts back. An event allocates nothing unless a page's
//! table or the directory has to grow. What the blocks mean is the caller's business.

/// Thread of a block that the process inherited at its fork.
pub(crate) const INHERITED: u32 = u32::MAX;

/// Binary logarithm of the bytes of a page.
const PAGE_BITS: u32 = 12;
/// Slots of the smallest page and of the smallest directory.
const SLOTS_MIN: usize = 4;
/// Slots that an empty page may keep.
const SLOTS_KEPT: usize = 16;
/// 2^64 divided by the golden ratio: spreads multiples of any alignment.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A live block. 48 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it lies; 0 in an empty slot.
    pub address: u64,
    /// Requested bytes now.
    pub bytes: u64,
    /// When it was allocated.
    pub born_ns: u64,
    /// Its process' bytes clock after it was allocated.
    pub born_bytes: u64,
    /// Its process' events clock after it was allocated, and in the low eight bits its first size
    /// class.
    born_events_class: u64,
    /// Thread that allocated it, or [`INHERITED`].
    pub thread: u32,
    /// Times it was resized to more bytes; of an inherited block 1 if it was resized at all.
    pub growths: u32,
}

const _: () = assert!(size_of::<Block>() == 48);

impl Block {
    /// A block that the process allocates itself.
    #[inline]
    pub fn new(
        address: u64,
        bytes: u64,
        born_ns: u64,
        born_events: u64,
        born_bytes: u64,
        class: u8,
        thread: u32,
    ) -> Block {
        Block {
            address,
            bytes,
            born_ns,
            born_bytes,
            born_events_class: born_events << 8 | u64::from(class),
            thread: thread.min(INHERITED - 1),
            growths: 0,
        }
    }

    /// A block that was there before the process was.
    pub fn inherited(address: u64, bytes: u64) -> Block {
        Block {
            address,
            bytes,
            thread: INHERITED,
            ..Block::default()
        }
    }

    /// Whether the process inherited it.
    #[inline]
    pub fn is_inherited(&self) -> bool {
        self.thread == INHERITED
    }

    /// The events clock at its birth.
    #[inline]
    pub fn born_events(&self) -> u64 {
        self.born_events_class >> 8
    }

    /// Size class at its first size.
    #[inline]
    pub fn class(&self) -> u8 {
        self.born_events_class as u8
    }
}

/// Slot at which the search for `key` begins, in a table of `slots` slots, a power of two.
#[inline]
fn home(key: u64, slots: usize) -> usize {
    // A shift by 64 less the binary logarithm, for at least two slots.
    (key.wrapping_mul(MULTIPLIER) >> (slots.leading_zeros() + 1)) as usize
}

/// The blocks that begin in one page.
#[derive(Debug, Default)]
struct Page {
    /// Number of the page plus one; 0 in an empty slot of the directory.
    number: u64,
    /// Blocks in it.
    len: usize,
    /// A power of two of slots, or none.
    slots: Vec<Block>,
}

impl Page {
    /// The slot of `address`, or the empty slot at which the search ended; the page has slots, and
    /// one of them is empty.
    #[inline]
    fn find(&self, address: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = home(address, self.slots.len()) & mask;
        loop {
            let found = self.slots[at].address;
            if found == address || found == 0 {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn get(&self, address: u64) -> Option<&Block> {
        if self.len == 0 {
            return None;
        }
        let block = &self.slots[self.find(address)];
        (block.address != 0).then_some(block)
    }

    #[inline]
    fn insert(&mut self, block: Block) -> Option<Block> {
        // Three quarters at most: there is always an empty slot.
        if self.len >= self.slots.len() / 4 * 3 {
            self.grow();
        }
        let at = self.find(block.address);
        let slot = &mut self.slots[at];
        if slot.address == 0 {
            *slot = block;
            self.len += 1;
            return None;
        }
        Some(std::mem::replace(slot, block))
    }

    #[inline]
    fn remove(&mut self, address: u64) -> Option<Block> {
        if self.len == 0 {
            return None;
        }
        let mut hole = self.find(address);
        let block = self.slots[hole];
        if block.address == 0 {
            return None;
        }
        self.len -= 1;
        if self.len == 0 && self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
            return Some(block);
        }
        // Whatever follows without a gap and would not be found any more moves into the hole.
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = self.slots[at].address;
            if next == 0 {
                break;
            }
            let wanted = home(next, self.slots.len()) & mask;
            if (at.wrapping_sub(wanted) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.slots[hole].address = 0;
        Some(block)
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![Block::default(); slots]);
        for block in old {
            if block.address != 0 {
                let at = self.find(block.address);
                self.slots[at] = block;
            }
        }
    }
}

/// Live blocks by address.
#[derive(Debug, Default)]
pub(crate) struct LiveTable {
    /// The directory: a power of two of slots, or none. A page whose blocks are gone keeps its slot
    /// until the directory is made anew.
    pages: Vec<Page>,
    /// Pages in the directory, empty ones too.
    len: usize,
}

impl LiveTable {
    /// All blocks, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Block> {
        let blocks = self.pages.iter().flat_map(|page| &page.slots);
        blocks.filter(|block| block.address != 0)
    }

    /// The slot of the page of `address`, or the empty slot at which the search ended; the directory
    /// has slots, and one of them is empty.
    #[inline]
    fn find(&self, number: u64) -> usize {
        let mask = self.pages.len() - 1;
        let mut at = home(number, self.pages.len()) & mask;
        loop {
            let found = self.pages[at].number;
            if found == number || found == 0 {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// Number of the page of `address`, plus one.
    #[inline]
    fn number(address: u64) -> u64 {
        (address >> PAGE_BITS) + 1
    }

    /// The block at `address`.
    #[inline]
    pub fn get(&self, address: u64) -> Option<&Block> {
        if self.pages.is_empty() {
            return None;
        }
        self.pages[self.find(Self::number(address))].get(address)
    }

    /// Puts a block at its address, which is not 0, and returns the one that was there.
    #[inline]
    pub fn insert(&mut self, block: Block) -> Option<Block> {
        debug_assert_ne!(block.address, 0);
        if self.len >= self.pages.len() / 4 * 3 {
            self.renew();
        }
        let number = Self::number(block.address);
        let at = self.find(number);
        let page = &mut self.pages[at];
        if page.number == 0 {
            page.number = number;
            self.len += 1;
        }
        page.insert(block)
    }

    /// Takes the block at `address` out.
    #[inline]
    pub fn remove(&mut self, address: u64) -> Option<Block> {
        if self.pages.is_empty() {
            return None;
        }
        let at = self.find(Self::number(address));
        self.pages[at].remove(address)
    }

    /// Makes the directory anew: without empty pages, and at most three eighths full.
    #[cold]
    fn renew(&mut self) {
        let used = self.pages.iter().filter(|page| page.len != 0).count();
        let slots = ((used + 1) * 8 / 3).next_power_of_two().max(SLOTS_MIN);
        let fresh = std::iter::repeat_with(Page::default).take(slots).collect();
        let old = std::mem::replace(&mut self.pages, fresh);
        self.len = 0;
        for page in old {
            if page.len != 0 {
                let at = self.find(page.number);
                self.pages[at] = page;
                self.len += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn block(address: u64, bytes: u64) -> Block {
        Block::new(address, bytes, 1, 2, 3, 4, 5)
    }

    proptest! {
        /// Any order of insertions and removals leaves what a `HashMap` would hold.
        #[test]
        fn it_holds_what_a_map_holds(
            steps in proptest::collection::vec((0u64..120, any::<bool>(), 0u64..100), 0..600),
            step in prop_oneof![Just(8u64), Just(16), Just(1024), Just(4096), Just(1 << 40)],
        ) {
            let mut table = LiveTable::default();
            let mut map = HashMap::new();
            for (n, insert, bytes) in steps {
                let address = (n + 1) * step;
                if insert {
                    prop_assert_eq!(table.insert(block(address, bytes)), map.insert(address, block(address, bytes)));
                } else {
                    prop_assert_eq!(table.remove(address), map.remove(&address));
                }
            }
            for address in (0..=121u64).map(|n| n * step) {
                prop_assert_eq!(table.get(address), map.get(&address));
            }
            prop_assert_eq!(table.iter().count(), map.len());
        }
    }

    #[test]
    fn a_block_keeps_its_clocks_and_class() {
        let block = Block::new(16, 1, 2, (1 << 56) - 1, 4, 255, u32::MAX);
        assert_eq!(block.born_events(), (1 << 56) - 1);
        assert_eq!(block.class(), 255);
        assert!(!block.is_inherited());
    }
}
