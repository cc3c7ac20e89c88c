//! Which pages hold parts of live blocks: how many blocks and how many of their bytes each page
//! holds. Open addressing by the number of the page; eight neighbours share one cache line.

use crate::prefetch::prefetch_at;

/// Binary logarithm of the bytes of a page.
pub(crate) const PAGE_SHIFT: u32 = 12;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;

const NEIGHBOURS: usize = 8;
const LINES_MIN: usize = 4;

/// Where the search for a key begins, modulo the lines.
#[inline]
fn home(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

/// What a page holds: live blocks that begin or end in it, and their bytes in it. A page of an
/// allocator has at most 4,096 of each, so both fit in one word. Where blocks overlap, bytes
/// run over into blocks: both are wrong then, but what was added can be taken away again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held(u32);

impl Held {
    /// One block with so many bytes in the page.
    #[inline]
    fn one(bytes: u32) -> Held {
        Held(1 << 16 | bytes)
    }

    /// No block is in it.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Live blocks that begin or end in it.
    pub fn blocks(self) -> u32 {
        self.0 >> 16
    }

    /// Their bytes in it.
    #[inline]
    pub fn bytes(self) -> u32 {
        self.0 & 0xffff
    }
}

/// Eight pages that follow each other.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Line {
    /// Number of the eight, and 1; 0 where the line is free.
    key: u64,
    pages: [Held; NEIGHBOURS],
}

const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    fn is_empty(&self) -> bool {
        self.pages == [Held::default(); NEIGHBOURS]
    }
}

/// The table. Lines whose pages have all become empty stay until the table is made anew, which a
/// line that is missing may cause: its memory follows the pages held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    lines: Vec<Line>,
    /// Lines in use.
    used: usize,
}

impl Table {
    /// Starts to fetch the line of a page.
    #[inline(always)]
    pub fn fetch(&self, page: u64) {
        let mask = self.lines.len().wrapping_sub(1);
        prefetch_at(&self.lines, home((page >> 3) + 1) & mask);
    }

    /// Place of the line of a key: where it is, or where it would be.
    #[inline]
    fn place(&self, key: u64) -> usize {
        let mask = self.lines.len() - 1;
        let mut at = home(key) & mask;
        while self.lines[at].key != key && self.lines[at].key != 0 {
            at = (at + 1) & mask;
        }
        at
    }

    /// A block with so many bytes in the page (4,096 at most) begins there; tells what the page held
    /// before, and what it holds after.
    #[inline]
    pub fn add(&mut self, page: u64, bytes: u32) -> (Held, Held) {
        let key = (page >> 3) + 1;
        let mut at = match self.lines.len() {
            0 => self.new_line(key),
            _ => self.place(key),
        };
        if self.lines[at].key == 0 {
            at = self.new_line(key);
        }
        let held = &mut self.lines[at].pages[(page & 7) as usize];
        let before = *held;
        held.0 = held.0.wrapping_add(Held::one(bytes).0);
        (before, *held)
    }

    /// A block that was added ends; tells what the page held before, and what it holds after. Of a
    /// page that holds nothing, nothing is taken: it is empty before and after.
    #[inline]
    pub fn sub(&mut self, page: u64, bytes: u32) -> (Held, Held) {
        if self.lines.is_empty() {
            return (Held::default(), Held::default());
        }
        let at = self.place((page >> 3) + 1);
        let held = &mut self.lines[at].pages[(page & 7) as usize];
        let before = *held;
        if !before.is_empty() {
            held.0 = held.0.wrapping_sub(Held::one(bytes).0);
        }
        (before, *held)
    }

    /// What a page holds.
    pub fn get(&self, page: u64) -> Held {
        if self.lines.is_empty() {
            return Held::default();
        }
        self.lines[self.place((page >> 3) + 1)].pages[(page & 7) as usize]
    }

    #[cold]
    fn new_line(&mut self, key: u64) -> usize {
        if (self.used + 1) * 8 > self.lines.len() * 5 {
            let kept: Vec<Line> = (self.lines.iter())
                .filter(|line| !line.is_empty())
                .copied()
                .collect();
            let lines = ((kept.len() + 1) * 3).next_power_of_two().max(LINES_MIN);
            self.lines = vec![Line::default(); lines];
            self.used = kept.len();
            for line in kept {
                let at = self.place(line.key);
                self.lines[at] = line;
            }
        }
        let at = self.place(key);
        self.lines[at].key = key;
        self.used += 1;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// The table tells what a map tells.
        #[test]
        fn it_is_a_map(steps in vec((any::<bool>(), 0u64..60, prop_oneof![Just(0u64), Just(u64::MAX >> PAGE_SHIFT), 0u64..1 << 40]), 0..400)) {
            let mut table = Table::default();
            let mut map: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            let held = |of: Option<&Vec<u32>>| {
                let of = of.map_or(&[][..], |of| of);
                (of.len() as u32, of.iter().sum::<u32>())
            };
            let told = |held: Held| (held.blocks(), held.bytes());
            for (adds, near, far) in steps {
                let page = far.saturating_sub(near);
                if adds {
                    let before = held(map.get(&page));
                    map.entry(page).or_default().push(near as u32);
                    let (was, is) = table.add(page, near as u32);
                    prop_assert_eq!((told(was), told(is)), (before, held(map.get(&page))));
                    continue;
                }
                // One that is there, or else one that may not be.
                let page = map.keys().nth(near as usize).copied().unwrap_or(page);
                let before = held(map.get(&page));
                let bytes = map.get_mut(&page).and_then(Vec::pop).unwrap_or(1);
                let (was, is) = table.sub(page, bytes);
                prop_assert_eq!((told(was), told(is)), (before, held(map.get(&page))));
                map.retain(|_, of| !of.is_empty());
            }
            for (page, of) in &map {
                prop_assert_eq!(told(table.get(*page)), held(Some(of)));
            }
        }
    }

    #[test]
    fn lines_of_empty_pages_are_used_again() {
        let mut table = Table::default();
        for page in 0..50_000 {
            table.add(page * 8, 1);
            assert!(table.sub(page * 8, 1).1.is_empty());
        }
        assert_eq!(table.lines.len(), LINES_MIN);
    }
}
