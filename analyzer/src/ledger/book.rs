//! The ledger of one process: the rules of what an event does to a block.

use super::Filter;
use super::inherited::{Forks, Inherited};
use super::table::{AddressTable, Block, Blocks};
use crate::fact::{Fact, What};
use crate::histogram::size_class;
use rmtrace_format::{Event, Step};

/// How many events before its turn the slot of an event is fetched.
const SLOTS_AHEAD: usize = 32;
/// How many events before its turn the block of an event is fetched.
const BLOCKS_AHEAD: usize = 16;

/// The address that an event looks up.
#[inline(always)]
fn address_of(event: &Event) -> u64 {
    event.address | event.old_address
}

/// A block within a realloc: it has no address now.
struct Aside {
    thread: u32,
    address: u64,
    /// Where it is described; `None`: no block was known there.
    place: Option<u32>,
}

/// Blocks and bytes.
#[derive(Clone, Copy, Default)]
struct Sum {
    blocks: u64,
    bytes: u64,
}

impl Sum {
    #[inline]
    fn add(&mut self, bytes: u64) {
        self.blocks = self.blocks.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    #[inline]
    fn sub(&mut self, bytes: u64) {
        self.blocks = self.blocks.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(bytes);
    }
}

/// The process' clocks after the latest call.
#[derive(Clone, Copy, Default)]
struct Clocks {
    events: u64,
    bytes: u64,
    allocations: u64,
}

/// One process.
pub(super) struct Book {
    number: u32,
    start_ns: u64,
    filter: Filter,
    /// Whether `filter` leaves anything out.
    filtered: bool,
    clocks: Clocks,
    table: AddressTable,
    blocks: Blocks,
    /// What is live, inherited blocks included.
    live: Sum,
    /// Whether `inherited` holds anything or `forks` wants to be told of changes.
    watched: bool,
    inherited: Option<Box<Inherited>>,
    forks: Forks,
    /// Blocks within a realloc, by thread; hardly ever more than one.
    aside: Vec<Aside>,
    /// `PAUSED` or 0, for the facts being told.
    flags: u8,
}

impl Book {
    /// A process that begins now.
    pub fn new(number: u32, start_ns: u64, filter: Filter) -> Book {
        Book {
            number,
            start_ns,
            filtered: filter.is_active(),
            filter,
            clocks: Clocks::default(),
            table: AddressTable::default(),
            blocks: Blocks::default(),
            live: Sum::default(),
            watched: false,
            inherited: None,
            forks: Forks::default(),
            aside: Vec::new(),
            flags: 0,
        }
    }

    /// Number of the process.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// When it started.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// Applies events of the process and tells what they did.
    pub fn events(&mut self, events: &[Event], was_paused: bool, out: &mut Vec<Fact>) {
        self.flags = if was_paused { Fact::PAUSED } else { 0 };
        for event in &events[..events.len().min(SLOTS_AHEAD)] {
            self.table.fetch(address_of(event));
        }
        for (at, event) in events.iter().enumerate() {
            if let Some(later) = events.get(at + SLOTS_AHEAD) {
                self.table.fetch(address_of(later));
            }
            if let Some(later) = events.get(at + BLOCKS_AHEAD) {
                self.table.fetch_block(&self.blocks, address_of(later));
            }
            self.event(event, out);
        }
    }

    #[inline]
    fn event(&mut self, event: &Event, out: &mut Vec<Fact>) {
        match event.step {
            Step::Alloc => {
                self.clocks.events += 1;
                match event.address {
                    0 => self.failed(event, out),
                    _ => self.begin(event, 0, out),
                }
            }
            Step::Free => {
                self.clocks.events += 1;
                match self.table.remove(&self.blocks, event.address) {
                    Some(place) => {
                        if self.watched {
                            self.touch(event.address);
                        }
                        self.end(event, place, out);
                    }
                    None => self.end_elsewhere(event, out),
                }
            }
            Step::ReallocBegin => self.realloc_begin(event, out),
            Step::ReallocEnd => self.realloc_end(event, out),
        }
    }

    /// A fact about a block, at the time of an event.
    #[inline]
    fn fact(&self, what: What, time_ns: u64, block: &Block, place: u32) -> Fact {
        let known = !block.inherited;
        let age = |now: u64, born: u64| if known { now.wrapping_sub(born) } else { 0 };
        Fact {
            time_ns,
            address: block.address,
            old_address: 0,
            bytes: block.bytes,
            old_bytes: 0,
            life_ns: if known {
                time_ns.saturating_sub(block.born_ns)
            } else {
                0
            },
            life_events: age(self.clocks.events, block.born_events),
            life_bytes: age(self.clocks.bytes, block.born_bytes),
            life_allocations: age(self.clocks.allocations, block.born_allocations),
            clock_events: self.clocks.events,
            clock_bytes: self.clocks.bytes,
            clock_allocations: self.clocks.allocations,
            process: self.number,
            thread: block.thread,
            born_thread: block.thread,
            growths: block.growths,
            handle: if known { place } else { Fact::NO_HANDLE },
            what,
            entry: block.entry,
            align_log2: 0,
            class: block.class,
            flags: self.flags | if known { 0 } else { Fact::INHERITED },
        }
    }

    /// A call that did nothing to a block.
    #[cold]
    fn nothing(&self, event: &Event, flags: u8, out: &mut Vec<Fact>) {
        out.push(Fact {
            time_ns: event.time_ns,
            address: event.old_address | event.address,
            bytes: event.requested_bytes,
            clock_events: self.clocks.events,
            clock_bytes: self.clocks.bytes,
            clock_allocations: self.clocks.allocations,
            process: self.number,
            thread: event.thread,
            born_thread: event.thread,
            handle: Fact::NO_HANDLE,
            what: What::Nothing,
            entry: event.entry,
            align_log2: event.align_log2,
            class: size_class(event.requested_bytes),
            flags: self.flags | Fact::CALL | flags,
            ..Fact::default()
        });
    }

    /// A call that asked for memory and got none.
    #[cold]
    fn failed(&self, event: &Event, out: &mut Vec<Fact>) {
        if self.filter.takes(event.requested_bytes, event.kind()) {
            self.nothing(event, 0, out);
        }
    }

    /// A call of an address where no block is known.
    #[cold]
    fn unknown(&self, event: &Event, out: &mut Vec<Fact>) {
        if !self.filtered {
            self.nothing(event, Fact::UNKNOWN, out);
        }
    }

    /// A new block.
    #[inline]
    fn begin(&mut self, event: &Event, flags: u8, out: &mut Vec<Fact>) {
        let bytes = event.requested_bytes;
        self.clocks.bytes = self.clocks.bytes.wrapping_add(bytes);
        self.clocks.allocations += 1;
        let block = Block {
            address: event.address,
            bytes,
            born_ns: event.time_ns,
            born_bytes: self.clocks.bytes,
            born_events: self.clocks.events,
            born_allocations: self.clocks.allocations,
            thread: event.thread,
            growths: 0,
            entry: event.entry,
            class: size_class(bytes),
            inherited: false,
            left_out: self.filtered && !self.filter.takes(bytes, event.kind()),
        };
        let place = self.blocks.add(block);
        self.put(event.time_ns, event.address, place, out);
        self.live.add(bytes);
        if !block.left_out {
            let mut fact = self.fact(What::Born, event.time_ns, &block, place);
            fact.align_log2 = event.align_log2;
            fact.flags |= Fact::CALL | flags;
            out.push(fact);
        }
    }

    /// Says that the block described at `place` is at `address`; what lived there is displaced.
    #[inline]
    fn put(&mut self, now_ns: u64, address: u64, place: u32, out: &mut Vec<Fact>) {
        if self.watched {
            self.touch(address);
            self.displace_inherited(now_ns, address, out);
        }
        if let Some(old) = self.table.insert(&self.blocks, address, place) {
            self.displace(now_ns, old, out);
        }
    }

    /// A block whose address is in the table no more was freed.
    #[inline]
    fn end(&mut self, event: &Event, place: u32, out: &mut Vec<Fact>) {
        let block = self.blocks.remove(place);
        self.live.sub(block.bytes);
        if !block.left_out {
            let mut fact = self.fact(What::Freed, event.time_ns, &block, place);
            fact.thread = event.thread;
            fact.entry = event.entry;
            fact.flags |= Fact::CALL;
            out.push(fact);
        }
    }

    /// A free of an address that the table does not know.
    #[cold]
    fn end_elsewhere(&mut self, event: &Event, out: &mut Vec<Fact>) {
        match self.take(event.address) {
            Some(place) => self.end(event, place, out),
            None => self.unknown(event, out),
        }
    }

    /// Takes the block at `address` out of its place, wherever it is known.
    fn take(&mut self, address: u64) -> Option<u32> {
        let own = self.table.remove(&self.blocks, address);
        let place = own.or_else(|| {
            let bytes = self.inherited.as_mut()?.take(address)?;
            Some(self.add_inherited(address, bytes))
        });
        if place.is_some() && self.watched {
            self.touch(address);
        }
        place
    }

    fn add_inherited(&mut self, address: u64, bytes: u64) -> u32 {
        self.blocks.add(Block {
            address,
            bytes,
            thread: u32::MAX,
            inherited: true,
            left_out: self.filtered,
            ..Block::default()
        })
    }

    #[cold]
    fn touch(&mut self, address: u64) {
        if self.forks.watching() && !self.forks.touch(address) {
            self.watched = self.inherited.is_some();
        }
    }

    #[cold]
    fn displace_inherited(&mut self, now_ns: u64, address: u64, out: &mut Vec<Fact>) {
        let taken = self
            .inherited
            .as_mut()
            .and_then(|blocks| blocks.take(address));
        if let Some(bytes) = taken {
            let place = self.add_inherited(address, bytes);
            self.displace(now_ns, place, out);
        }
    }

    /// A block that is in the table no more ended unseen: its address was given out again.
    #[cold]
    fn displace(&mut self, now_ns: u64, place: u32, out: &mut Vec<Fact>) {
        let block = self.blocks.remove(place);
        self.live.sub(block.bytes);
        if !block.left_out {
            out.push(self.fact(What::Displaced, now_ns, &block, place));
        }
    }

    fn realloc_begin(&mut self, event: &Event, out: &mut Vec<Fact>) {
        if event.old_address == 0 {
            return;
        }
        // A thread has one realloc at a time; if another is left over, its end was lost.
        if let Some(left) = self.take_aside(event.thread, None) {
            self.restore(event.time_ns, left, out);
        }
        let place = self.take(event.old_address);
        self.aside.push(Aside {
            thread: event.thread,
            address: event.old_address,
            place,
        });
    }

    fn take_aside(&mut self, thread: u32, address: Option<u64>) -> Option<Aside> {
        let is_it = |aside: &Aside| {
            aside.thread == thread && address.is_none_or(|address| aside.address == address)
        };
        let at = self.aside.iter().position(is_it)?;
        Some(self.aside.swap_remove(at))
    }

    fn restore(&mut self, now_ns: u64, aside: Aside, out: &mut Vec<Fact>) {
        if let Some(place) = aside.place {
            self.put(now_ns, aside.address, place, out);
        }
    }

    fn realloc_end(&mut self, event: &Event, out: &mut Vec<Fact>) {
        self.clocks.events += 1;
        if event.old_address == 0 {
            match event.address {
                0 => self.failed(event, out),
                _ => self.begin(event, 0, out),
            }
            return;
        }
        let aside = self
            .take_aside(event.thread, Some(event.old_address))
            .unwrap_or_else(|| Aside {
                thread: event.thread,
                address: event.old_address,
                place: self.take(event.old_address),
            });
        let freed = event.flags & Event::FREED != 0;
        match (event.address, aside.place) {
            (0, place) if !freed => {
                let told = place
                    .and_then(|place| self.blocks.get_mut(place))
                    .is_none_or(|block| !block.left_out);
                self.restore(event.time_ns, aside, out);
                if told && (place.is_some() || !self.filtered) {
                    self.nothing(event, 0, out);
                }
            }
            (0, Some(place)) => self.end(event, place, out),
            (0, None) => self.unknown(event, out),
            (address, Some(place)) => self.resize(event, address, place, out),
            (_, None) => self.begin(event, Fact::UNKNOWN, out),
        }
    }

    /// A block that is in the table no more got a new size, and maybe another address.
    fn resize(&mut self, event: &Event, address: u64, place: u32, out: &mut Vec<Fact>) {
        let to = event.requested_bytes;
        let Some(block) = self.blocks.get_mut(place) else {
            return;
        };
        let from = block.bytes;
        self.clocks.bytes = self.clocks.bytes.wrapping_add(to.saturating_sub(from));
        block.address = address;
        block.bytes = to;
        block.growths = match block.inherited {
            true => 1,
            false => block.growths.saturating_add(u32::from(to > from)),
        };
        let block = *block;
        self.put(event.time_ns, address, place, out);
        self.live.bytes = self.live.bytes.wrapping_add(to).wrapping_sub(from);
        if !block.left_out {
            let mut fact = self.fact(What::Resized, event.time_ns, &block, place);
            fact.old_address = event.old_address;
            fact.old_bytes = from;
            fact.thread = event.thread;
            fact.entry = event.entry;
            fact.flags |= Fact::CALL;
            out.push(fact);
        }
    }

    /// Whether a block lives at `address`.
    pub fn is_live(&self, address: u64) -> bool {
        self.bytes_at(address).is_some()
    }

    /// Bytes of the block at `address`.
    fn bytes_at(&self, address: u64) -> Option<u64> {
        let own = self
            .table
            .get(&self.blocks, address)
            .map(|place| self.blocks.get(place).bytes);
        own.or_else(|| self.inherited.as_ref()?.get(address))
    }

    /// The process begins as a copy of `parent`. Returns the sizes of blocks that are live in the
    /// parent and not inherited.
    pub fn fork_from(&mut self, parent: &mut Book) -> Vec<u64> {
        let mut live = parent.live;
        let mut without = Vec::new();
        let mut aside: Vec<(u32, u64, u64)> = Vec::new();
        for one in &parent.aside {
            if let Some(place) = one.place {
                aside.push((one.thread, one.address, parent.blocks.get(place).bytes));
            }
        }
        // A block within a realloc is where it was, unless its place has been given out again.
        aside.sort_unstable();
        let places: Vec<u64> = aside.iter().map(|of| of.1).collect();
        let mut at = 0;
        aside.retain(|&(_, address, bytes)| {
            at += 1;
            let taken = parent.is_live(address) || places[at..].contains(&address);
            if taken {
                live.sub(bytes);
                without.push(bytes);
            }
            !taken
        });
        let blocks = &parent.blocks;
        let own = parent.table.iter();
        let layers = parent.forks.share(
            parent.inherited.as_deref(),
            own.map(|place| blocks.get(place))
                .map(|block| (block.address, block.bytes)),
            |address| {
                let own = parent.table.get(blocks, address);
                let own = own.map(|place| blocks.get(place).bytes);
                own.or_else(|| parent.inherited.as_ref()?.get(address))
            },
            aside.iter().map(|&(_, address, bytes)| (address, bytes)),
        );
        parent.watched = true;
        if live.blocks != 0 {
            self.inherited = Some(Box::new(Inherited::new(layers, (live.blocks, live.bytes))));
            self.watched = true;
            self.live.blocks = self.live.blocks.wrapping_add(live.blocks);
            self.live.bytes = self.live.bytes.wrapping_add(live.bytes);
        }
        without
    }

    /// Applies an event of the parent that happened before the fork to the inherited blocks. Returns
    /// the sizes of those that turn out to be there (`true`) or not.
    pub fn inherit(&mut self, event: &Event) -> [Option<(u64, bool)>; 3] {
        let mut changes = [None; 3];
        let old = match event.step {
            Step::ReallocBegin => return changes,
            Step::Alloc => 0,
            Step::Free => event.address,
            Step::ReallocEnd => event.old_address,
        };
        let new = match event.step {
            Step::Free => 0,
            _ => event.address,
        };
        let failed = event.step == Step::ReallocEnd && new == 0 && event.flags & Event::FREED == 0;
        if failed {
            return changes;
        }
        if old != 0 && !self.has_own(old) {
            changes[0] = self.uninherit(old);
        }
        if new != 0 && !self.has_own(new) {
            changes[1] = self.uninherit(new);
            let place = self.add_inherited(new, event.requested_bytes);
            self.table.insert(&self.blocks, new, place);
            self.live.add(event.requested_bytes);
            changes[2] = Some((event.requested_bytes, true));
            if self.watched {
                self.touch(new);
            }
        }
        changes
    }

    /// Whether a block lives at `address` that is newer than the fork: allocated by the process, or
    /// inherited and resized since.
    fn has_own(&self, address: u64) -> bool {
        let block = self
            .table
            .get(&self.blocks, address)
            .map(|place| self.blocks.get(place));
        block.is_some_and(|block| !block.inherited || block.growths != 0)
    }

    /// A block turns out not to have been inherited.
    fn uninherit(&mut self, address: u64) -> Option<(u64, bool)> {
        let place = self.take(address)?;
        let block = self.blocks.remove(place);
        self.live.sub(block.bytes);
        Some((block.bytes, false))
    }

    /// The process ends, or the run does: tells of all blocks that were kept, some at a time, and has
    /// them handed on. Returns blocks and bytes that live, counted anew in the tables, inherited ones
    /// included.
    pub fn close(
        &mut self,
        now_ns: u64,
        out: &mut Vec<Fact>,
        mut hand_on: impl FnMut(&mut Vec<Fact>),
    ) -> (u64, u64) {
        self.flags = 0;
        let inherited = match (&self.inherited, self.filtered) {
            (Some(inherited), false) => inherited.left(),
            _ => (0, 0),
        };
        let mut live = Sum {
            blocks: inherited.0,
            bytes: inherited.1,
        };
        let aside = self.aside.iter().filter_map(|aside| aside.place);
        for place in self.table.iter().chain(aside) {
            let block = self.blocks.get(place);
            if block.left_out {
                continue;
            }
            live.add(block.bytes);
            if !block.inherited {
                out.push(self.fact(What::Kept, now_ns, &block, place));
                hand_on(out);
            }
        }
        (live.blocks, live.bytes)
    }
}
