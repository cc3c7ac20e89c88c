//! A replay of the address table of each process: does every free find its block, is no block
//! allocated over a live one, do the sums agree?

use crate::consumer::Consumer;
use crate::model::{Ended, Mark, Process, StartedBy};
use rmtrace_format::event::{Event, Step};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

/// A duplicate that is freed by another thread within so many nanoseconds, and freed once more before
/// its address is allocated again, is an inversion: the first of the frees came before the allocation
/// in truth.
const INVERSION_NS: u64 = 10_000;

/// What the replay of one process counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Blocks that a forked process began with.
    pub inherited: u64,
    /// Blocks that came into being.
    pub allocated: u64,
    /// Blocks that ended by a free or a realloc to zero, inherited ones included.
    pub freed: u64,
    /// Blocks live at the end.
    pub live: u64,
    /// Frees and reallocs of addresses where no block was.
    pub unknown_frees: u64,
    /// Allocations at addresses where a block was live.
    pub live_duplicates: u64,
    /// Live duplicates that are explained by two events in the wrong order.
    pub inversions: u64,
    /// Frees and reallocs of addresses where no block was known, in a run that had been paused: the
    /// blocks may have been allocated in a pause.
    pub before_start: u64,
    /// Blocks from before a pause whose addresses were allocated again behind it: they ended in it.
    pub lost_in_pause: u64,
}

impl TableCounts {
    /// Whether every block that began also ended or is live.
    pub fn balanced(&self) -> bool {
        self.inherited + self.allocated
            == self.freed + self.live + self.live_duplicates + self.lost_in_pause
    }
}

/// Hashes addresses with one multiplication; by a secret number, so that no trace can be made whose
/// addresses all meet.
#[derive(Clone)]
struct ByAddress {
    secret: u64,
}

impl Default for ByAddress {
    fn default() -> Self {
        ByAddress {
            secret: RandomState::new().hash_one(0u64) | 1,
        }
    }
}

impl BuildHasher for ByAddress {
    type Hasher = AddressHasher;

    fn build_hasher(&self) -> AddressHasher {
        AddressHasher { state: self.secret }
    }
}

struct AddressHasher {
    state: u64,
}

impl Hasher for AddressHasher {
    #[inline(always)]
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(value ^ self.state)
            * u128::from(0x9e37_79b9_7f4a_7c15 ^ self.state.rotate_left(32));
        self.state = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[derive(Default)]
struct ProcessTable {
    counts: TableCounts,
    live: HashSet<u64, ByAddress>,
    /// Live blocks whose realloc has begun, by thread: the address is unoccupied.
    moving: HashMap<u32, u64>,
    /// Addresses of duplicates, with time and thread.
    suspects: HashMap<u64, (u64, u32)>,
    /// Addresses of duplicates that another thread freed at once: one more free is the proof.
    freed_at_once: HashSet<u64>,
    /// Live blocks from before the latest pause: they may have ended in it.
    doubtful: HashSet<u64>,
    /// Whether the run has been paused.
    was_paused: bool,
    ended: bool,
}

impl ProcessTable {
    fn occupy(&mut self, event: &Event, is_new: bool) {
        self.counts.allocated += u64::from(is_new);
        if !self.live.insert(event.address) {
            if self.is_no_longer_doubtful(event.address) {
                self.counts.lost_in_pause += 1;
                return;
            }
            self.counts.live_duplicates += 1;
            self.suspects
                .insert(event.address, (event.time_ns, event.thread));
        } else if !self.freed_at_once.is_empty() {
            self.freed_at_once.remove(&event.address);
        }
    }

    fn is_no_longer_doubtful(&mut self, address: u64) -> bool {
        !self.doubtful.is_empty() && self.doubtful.remove(&address)
    }

    fn unknown(&mut self) {
        match self.was_paused {
            true => self.counts.before_start += 1,
            false => self.counts.unknown_frees += 1,
        }
    }

    /// Recording was stopped or started again.
    fn pause(&mut self) {
        self.was_paused = true;
        self.doubtful.extend(&self.live);
        self.suspects.clear();
        self.freed_at_once.clear();
    }

    fn suspect(&mut self, event: &Event) {
        if self.suspects.is_empty() {
            return;
        }
        if let Some((time_ns, thread)) = self.suspects.remove(&event.address)
            && thread != event.thread
            && event.time_ns - time_ns <= INVERSION_NS
        {
            self.freed_at_once.insert(event.address);
        }
    }

    fn apply(&mut self, event: &Event) {
        match event.step {
            Step::Alloc if event.address != 0 => self.occupy(event, true),
            Step::Alloc => {}
            Step::Free => {
                if self.live.remove(&event.address) {
                    self.counts.freed += 1;
                    self.is_no_longer_doubtful(event.address);
                } else {
                    self.unknown();
                    self.counts.inversions += u64::from(self.freed_at_once.remove(&event.address));
                }
                self.suspect(event);
            }
            Step::ReallocBegin => {
                if event.old_address != 0 {
                    if self.live.remove(&event.old_address) {
                        self.moving.insert(event.thread, event.old_address);
                        self.is_no_longer_doubtful(event.old_address);
                    } else {
                        self.unknown();
                    }
                }
            }
            Step::ReallocEnd => {
                let moved = self.moving.remove(&event.thread);
                if event.address != 0 {
                    self.occupy(event, moved.is_none());
                } else if let Some(address) = moved {
                    if event.flags & Event::FREED != 0 {
                        self.counts.freed += 1;
                    } else if !self.live.insert(address) {
                        self.counts.live_duplicates += 1;
                    }
                }
            }
        }
    }

    fn counts(&self) -> TableCounts {
        TableCounts {
            live: (self.live.len() + self.moving.len()) as u64,
            ..self.counts.clone()
        }
    }
}

/// Replays the address tables of all processes.
#[derive(Default)]
pub struct AddressTables {
    tables: BTreeMap<u32, ProcessTable>,
    /// Steps seen.
    pub events: u64,
    /// Calls seen, by process.
    pub calls: BTreeMap<u32, u64>,
    /// Steps that came before an earlier time.
    pub backwards: u64,
    latest_ns: u64,
    /// Whether the run has been paused.
    was_paused: bool,
}

impl AddressTables {
    /// What was counted, by process.
    pub fn counts(&self) -> BTreeMap<u32, TableCounts> {
        self.tables
            .iter()
            .map(|(process, table)| (*process, table.counts()))
            .collect()
    }
}

impl Consumer for AddressTables {
    fn event(&mut self, event: &Event) {
        self.events += 1;
        self.backwards += u64::from(event.time_ns < self.latest_ns);
        self.latest_ns = self.latest_ns.max(event.time_ns);
        *self.calls.entry(event.process).or_default() += u64::from(event.counts());
        self.tables.entry(event.process).or_default().apply(event);
    }

    fn process_started(&mut self, process: &Process, _time_ns: u64) {
        let table = self.tables.entry(process.number).or_default();
        table.was_paused = self.was_paused;
        if process.started_by != StartedBy::Fork {
            table.live.clear();
        }
    }

    fn fork(&mut self, child: u32, parent: u32, _time_ns: u64) {
        let Some(from) = self.tables.get(&parent) else {
            return;
        };
        let live = from.live.clone();
        let moving = from.moving.clone();
        let doubtful = from.doubtful.clone();
        let table = self.tables.entry(child).or_default();
        // The child's other threads do not exist: what they were moving stays where it was.
        table.live = live;
        table.live.extend(moving.into_values());
        table.counts.inherited = table.live.len() as u64;
        table.doubtful = doubtful;
    }

    fn inherit(&mut self, child: u32, event: &Event) {
        let table = self.tables.entry(child).or_default();
        match event.step {
            Step::Alloc if event.address != 0 => {
                table.live.insert(event.address);
            }
            Step::Free => {
                table.live.remove(&event.address);
            }
            Step::ReallocEnd => {
                if event.address != 0 || event.flags & Event::FREED != 0 {
                    table.live.remove(&event.old_address);
                }
                if event.address != 0 {
                    table.live.insert(event.address);
                }
            }
            Step::Alloc | Step::ReallocBegin => {}
        }
        // What is inherited is known only when the parent's last such event is in.
        let ended = table.counts.freed + table.counts.live_duplicates + table.counts.lost_in_pause;
        let changed = table.live.len() as u64 + ended;
        table.counts.inherited = changed.saturating_sub(table.counts.allocated);
    }

    fn process_ended(&mut self, process: u32, _how: Ended, _time_ns: u64) {
        if let Some(table) = self.tables.get_mut(&process) {
            table.ended = true;
        }
    }

    fn mark(&mut self, mark: &Mark, _time_ns: u64) {
        if mark.is_pause() {
            self.was_paused = true;
            self.tables.values_mut().for_each(ProcessTable::pause);
        }
    }

    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        Some(
            self.tables
                .get(&process)
                .is_some_and(|table| table.live.contains(&address)),
        )
    }
}
