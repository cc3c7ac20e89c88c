//! The live blocks of one recorded process: which slot is at which address, and what an event does to it. The
//! same rules as the analyzer's ledger, which a test compares; knows nothing of programs.

use crate::fetch::fetch;
use crate::table::AddressTable;
use rmtrace_format::{Event, Step};

/// How many events before its turn the entry of an event's address is fetched.
const ENTRIES_AHEAD: usize = 32;
/// How many events before its turn the block of an event is fetched.
const BLOCKS_AHEAD: usize = 16;

/// What an event did to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A block began.
    Born {
        slot: u32,
        bytes: u64,
        /// Whether a realloc of an unknown address made it.
        unknown: bool,
    },
    /// A block ended.
    Freed { slot: u32, bytes: u64 },
    /// A block got another size.
    Resized { slot: u32, from: u64, to: u64 },
    /// A block ended unseen: its address was given out again.
    Displaced { slot: u32, bytes: u64 },
    /// A call failed.
    Failed,
    /// A free of an address at which no block was known.
    Unknown,
}

/// A block that turned out to be inherited, or not to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// It is there from the start.
    There { slot: u32, bytes: u64 },
    /// It is not.
    Gone { slot: u32, bytes: u64 },
}

/// A block within a realloc: it has no address now.
#[derive(Clone, Copy, Debug)]
struct Aside {
    thread: u32,
    address: u64,
    slot: Option<u32>,
}

/// A block, by slot.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    bytes: u64,
    /// Inherited by a fork and not resized since.
    inherited: bool,
}

/// Live blocks of a process. The slot freed last is given out first.
#[derive(Debug, Default)]
pub struct Heap {
    table: AddressTable,
    blocks: Vec<Block>,
    free: Vec<u32>,
    aside: Vec<Aside>,
}

impl Heap {
    /// Slots given out so far at the same time.
    pub fn slots(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Whether a block is at an address.
    pub fn is_live(&self, address: u64) -> bool {
        self.table.get(address).is_some()
    }

    /// Bytes of the block in a slot.
    #[inline]
    pub fn bytes(&self, slot: u32) -> u64 {
        self.blocks[slot as usize].bytes
    }

    /// A copy as a forked child has it, its blocks in slots from 0 in the order of their addresses; and their
    /// slots with their bytes. A block within a realloc is where it was, unless its place has been given out again.
    pub fn fork(&self) -> (Heap, Vec<(u32, u64)>) {
        let bytes = |slot: u32| self.bytes(slot);
        let mut blocks: Vec<(u64, u64)> = self
            .table
            .iter()
            .map(|(at, slot)| (at, bytes(slot)))
            .collect();
        let mut aside: Vec<(u32, u64, u64)> = self
            .aside
            .iter()
            .filter_map(|aside| Some((aside.thread, aside.address, bytes(aside.slot?))))
            .collect();
        aside.sort_unstable();
        for (at, &(_, address, bytes)) in aside.iter().enumerate() {
            let again = aside[at + 1..].iter().any(|later| later.1 == address);
            if !self.is_live(address) && !again {
                blocks.push((address, bytes));
            }
        }
        blocks.sort_unstable();
        let mut child = Heap::default();
        let mut inherited = Vec::with_capacity(blocks.len());
        for (address, bytes) in blocks {
            let slot = child.new_slot(Block {
                bytes,
                inherited: true,
            });
            child.table.insert(address, slot);
            inherited.push((slot, bytes));
        }
        (child, inherited)
    }

    /// A slot that was never given out.
    fn new_slot(&mut self, block: Block) -> u32 {
        self.blocks.push(block);
        (self.blocks.len() - 1) as u32
    }

    #[inline]
    fn add(&mut self, bytes: u64) -> u32 {
        let block = Block {
            bytes,
            inherited: false,
        };
        match self.free.pop() {
            Some(slot) => {
                self.blocks[slot as usize] = block;
                slot
            }
            None => self.new_slot(block),
        }
    }

    #[inline]
    fn drop_slot(&mut self, slot: u32) -> u64 {
        self.free.push(slot);
        self.bytes(slot)
    }

    /// Applies events of the process.
    #[inline]
    pub fn events(&mut self, events: &[Event], mut told: impl FnMut(&Event, Change)) {
        let address_of = |event: &Event| event.address | event.old_address;
        for event in &events[..events.len().min(ENTRIES_AHEAD)] {
            self.table.fetch(address_of(event));
        }
        for (at, event) in events.iter().enumerate() {
            if let Some(later) = events.get(at + ENTRIES_AHEAD) {
                self.table.fetch(address_of(later));
            }
            if let Some(later) = events.get(at + BLOCKS_AHEAD) {
                fetch(&self.blocks, self.table.guess(address_of(later)) as usize);
            }
            self.event(event, &mut |change| told(event, change));
        }
    }

    #[inline]
    fn event(&mut self, event: &Event, told: &mut impl FnMut(Change)) {
        match event.step {
            Step::Alloc if event.address == 0 => told(Change::Failed),
            Step::Alloc => self.begin(event, false, told),
            Step::Free => match self.table.remove(event.address) {
                Some(slot) => {
                    let bytes = self.drop_slot(slot);
                    told(Change::Freed { slot, bytes });
                }
                None => told(Change::Unknown),
            },
            Step::ReallocBegin => self.realloc_begin(event, told),
            Step::ReallocEnd => self.realloc_end(event, told),
        }
    }

    #[inline]
    fn begin(&mut self, event: &Event, unknown: bool, told: &mut impl FnMut(Change)) {
        let bytes = event.requested_bytes;
        let slot = self.add(bytes);
        self.put(event.address, slot, told);
        told(Change::Born {
            slot,
            bytes,
            unknown,
        });
    }

    /// Says that a slot is at an address; what was there is displaced.
    #[inline]
    fn put(&mut self, address: u64, slot: u32, told: &mut impl FnMut(Change)) {
        if let Some(slot) = self.table.insert(address, slot) {
            let bytes = self.drop_slot(slot);
            told(Change::Displaced { slot, bytes });
        }
    }

    fn realloc_begin(&mut self, event: &Event, told: &mut impl FnMut(Change)) {
        if event.old_address == 0 {
            return;
        }
        // A thread has one realloc at a time; if another is left over, its end was lost.
        if let Some(left) = self.take_aside(event.thread, None) {
            self.restore(left, told);
        }
        let slot = self.table.remove(event.old_address);
        self.aside.push(Aside {
            thread: event.thread,
            address: event.old_address,
            slot,
        });
    }

    fn take_aside(&mut self, thread: u32, address: Option<u64>) -> Option<Aside> {
        let is_it = |aside: &Aside| {
            aside.thread == thread && address.is_none_or(|address| aside.address == address)
        };
        let at = self.aside.iter().position(is_it)?;
        Some(self.aside.swap_remove(at))
    }

    fn restore(&mut self, aside: Aside, told: &mut impl FnMut(Change)) {
        if let Some(slot) = aside.slot {
            self.put(aside.address, slot, told);
        }
    }

    fn realloc_end(&mut self, event: &Event, told: &mut impl FnMut(Change)) {
        if event.old_address == 0 {
            match event.address {
                0 => told(Change::Failed),
                _ => self.begin(event, false, told),
            }
            return;
        }
        let aside = match self.take_aside(event.thread, Some(event.old_address)) {
            Some(aside) => aside,
            None => Aside {
                thread: event.thread,
                address: event.old_address,
                slot: self.table.remove(event.old_address),
            },
        };
        let freed = event.flags & Event::FREED != 0;
        match (event.address, aside.slot) {
            (0, _) if !freed => {
                self.restore(aside, told);
                told(Change::Failed);
            }
            (0, Some(slot)) => {
                let bytes = self.drop_slot(slot);
                told(Change::Freed { slot, bytes });
            }
            (0, None) => told(Change::Unknown),
            (address, Some(slot)) => {
                let block = &mut self.blocks[slot as usize];
                let (from, to) = (block.bytes, event.requested_bytes);
                *block = Block {
                    bytes: to,
                    inherited: false,
                };
                self.put(address, slot, told);
                told(Change::Resized { slot, from, to });
            }
            (_, None) => self.begin(event, true, told),
        }
    }

    /// Applies an event of the parent that happened before the fork: to what was inherited alone, which is
    /// corrected from the start on.
    pub fn inherit(&mut self, event: &Event, mut told: impl FnMut(Correction)) {
        let (old, new) = match event.step {
            Step::ReallocBegin => return,
            Step::Alloc => (0, event.address),
            Step::Free => (event.address, 0),
            Step::ReallocEnd if event.address == 0 && event.flags & Event::FREED == 0 => return,
            Step::ReallocEnd => (event.old_address, event.address),
        };
        if old != 0 && !self.has_own(old) {
            self.uninherit(old, &mut told);
        }
        if new != 0 && !self.has_own(new) {
            self.uninherit(new, &mut told);
            let bytes = event.requested_bytes;
            // Of no block of the process so far: it is taken from the start on.
            let slot = self.new_slot(Block {
                bytes,
                inherited: true,
            });
            self.table.insert(new, slot);
            told(Correction::There { slot, bytes });
        }
    }

    fn has_own(&self, address: u64) -> bool {
        let slot = self.table.get(address);
        slot.is_some_and(|slot| !self.blocks[slot as usize].inherited)
    }

    fn uninherit(&mut self, address: u64, told: &mut impl FnMut(Correction)) {
        if let Some(slot) = self.table.remove(address) {
            let bytes = self.drop_slot(slot);
            told(Correction::Gone { slot, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rmtrace_format::Entry;
    use std::collections::BTreeMap;

    fn event(step: Step, address: u64, old_address: u64, bytes: u64) -> Event {
        Event {
            time_ns: 0,
            address,
            old_address,
            requested_bytes: bytes,
            usable_bytes: 0,
            caller: 0,
            process: 0,
            thread: 0,
            entry: Entry::Malloc,
            step,
            align_log2: 0,
            flags: 0,
        }
    }

    proptest! {
        /// Whatever calls come, addresses given out twice and unknown ones among them, the blocks are those of a map, and
        /// changes told by slot lead to the same ones.
        #[test]
        fn it_holds_what_a_map_holds(calls in proptest::collection::vec((0u8..6, 1u64..24, 1u64..24, 0u64..99), 0..300)) {
            let mut heap = Heap::default();
            let mut by_address: BTreeMap<u64, u64> = BTreeMap::new();
            let mut by_slot: BTreeMap<u32, u64> = BTreeMap::new();
            let (mut left_out, mut expected_left_out) = (0, 0);
            for (call, one, other, bytes) in calls {
                let (at, to) = (one * 16, other * 16);
                let events = match call {
                    0 | 1 => vec![event(Step::Alloc, at, 0, bytes)],
                    2 => vec![event(Step::Alloc, 0, 0, bytes)],
                    3 => vec![event(Step::Free, at, 0, 0)],
                    4 => vec![event(Step::ReallocBegin, 0, at, bytes), event(Step::ReallocEnd, to, at, bytes)],
                    _ => vec![event(Step::ReallocBegin, 0, at, bytes), event(Step::ReallocEnd, 0, at, bytes)],
                };
                match call {
                    0 | 1 => drop(by_address.insert(at, bytes)),
                    3 => expected_left_out += u32::from(by_address.remove(&at).is_none()),
                    4 => {
                        by_address.remove(&at);
                        by_address.insert(to, bytes);
                    }
                    _ => expected_left_out += 1,
                }
                let mut wrong = None;
                heap.events(&events, |_, change| {
                    let right = match change {
                        Change::Born { slot, bytes, .. } => by_slot.insert(slot, bytes).is_none(),
                        Change::Freed { slot, bytes } | Change::Displaced { slot, bytes } => by_slot.remove(&slot) == Some(bytes),
                        Change::Resized { slot, from, to } => by_slot.insert(slot, to) == Some(from),
                        Change::Failed | Change::Unknown => { left_out += 1; true }
                    };
                    if !right {
                        wrong = Some(change);
                    }
                });
                prop_assert_eq!(wrong, None);
                let mut sizes: Vec<u64> = by_slot.values().copied().collect();
                let mut expected: Vec<u64> = by_address.values().copied().collect();
                sizes.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(sizes, expected);
                for address in 1..24 {
                    prop_assert_eq!(heap.is_live(address * 16), by_address.contains_key(&(address * 16)));
                }
            }
            prop_assert_eq!(left_out, expected_left_out);
            let (_, inherited) = heap.fork();
            let inherited: Vec<(u32, u64)> = inherited;
            let expected: Vec<(u32, u64)> = by_address.values().enumerate().map(|(slot, bytes)| (slot as u32, *bytes)).collect();
            prop_assert_eq!(inherited, expected);
        }
    }
}
