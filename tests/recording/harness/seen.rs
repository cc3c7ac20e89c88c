//! What a trace holds, counted in a way of its own: by the events that merging delivers, against a
//! plain table of addresses and against what the threads counted themselves.

use rmtrace_file::{Consumer, Process, TraceReader};
use rmtrace_format::event::{Entry, Event, Kind, Step};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Calls by entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<Entry, u64>);

impl Counts {
    /// From a table, each entry `times` times.
    pub fn of(table: &[(Entry, u64)], times: u64) -> Counts {
        Counts(table.iter().map(|(entry, n)| (*entry, n * times)).collect())
    }

    /// Calls of one entry.
    pub fn get(&self, entry: Entry) -> u64 {
        self.0.get(&entry).copied().unwrap_or(0)
    }

    /// All calls.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// What is in `self` and not in `other`, by entry; entries that do not differ are left out.
    pub fn minus(&self, other: &Counts) -> Counts {
        let entries = Entry::ALL.iter();
        let rest = entries.map(|e| (*e, self.get(*e).wrapping_sub(other.get(*e))));
        Counts(rest.filter(|(_, n)| *n != 0).collect())
    }

    /// Both together.
    pub fn plus(&self, other: &Counts) -> Counts {
        let entries = Entry::ALL.iter();
        let sum = entries.map(|e| (*e, self.get(*e) + other.get(*e)));
        Counts(sum.filter(|(_, n)| *n != 0).collect())
    }
}

/// One thread.
#[derive(Clone, Debug, Default)]
pub struct ThreadSeen {
    pub calls: Counts,
    pub failed: u64,
    /// Allocations by requested size.
    pub sizes: BTreeMap<u64, u64>,
    /// Calls between an allocation of [`Seen::BEGIN`] bytes and one of [`Seen::END`].
    pub between: Counts,
    is_between: bool,
}

/// A trace.
#[derive(Default)]
pub struct Seen {
    pub processes: Vec<Process>,
    pub threads: BTreeMap<(u32, u32), ThreadSeen>,
    /// Frees of addresses that no block had, by process.
    pub unknown_frees: BTreeMap<u32, u64>,
    /// Allocations at addresses that a block had, by process.
    pub live_duplicates: BTreeMap<u32, u64>,
    /// Frees of inherited blocks, by process.
    pub inherited_frees: BTreeMap<u32, u64>,
    /// Callers and usable sizes by requested size, of the allocations that were asked for.
    pub extra: HashMap<u64, (u64, u64)>,
    live: HashMap<u32, HashMap<u64, bool>>,
    moving: HashMap<(u32, u32), Option<bool>>,
    last_ns: u64,
}

impl Seen {
    /// Size of the allocation that begins what [`ThreadSeen::between`] counts.
    pub const BEGIN: u64 = 987_001;
    /// Size of the allocation that ends it.
    pub const END: u64 = 987_002;

    /// Reads a trace file or a run directory, and holds it against what the threads counted.
    pub fn read(path: &Path) -> Seen {
        let reader = rmtrace_file::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut seen = Seen {
            processes: reader.processes().to_vec(),
            ..Seen::default()
        };
        let stats = reader.merge(&mut seen).expect("the trace merges");
        assert_eq!(stats.ties_unresolved, 0, "ties that no order fits");
        seen.hold_against(&reader);
        seen
    }

    fn hold_against(&self, reader: &TraceReader) {
        assert!(reader.damage().is_empty(), "{:?}", reader.damage());
        for process in &self.processes {
            for thread in &process.threads {
                let place = (process.number, thread.number);
                assert_eq!(thread.chunks_missing, 0, "chunks of {place:?}");
                let mut calls = [0; Kind::COUNT];
                let seen = self.threads.get(&place).map(|seen| &seen.calls.0);
                for (entry, count) in seen.into_iter().flatten() {
                    calls[entry.kind() as usize] += count;
                }
                let counted = thread.counters.calls;
                let lag: u64 = calls
                    .iter()
                    .zip(&counted)
                    .map(|(a, b)| a.abs_diff(*b))
                    .sum();
                let allowed = u64::from(thread.counters_may_lag);
                assert!(lag <= allowed, "{place:?}: {calls:?}, itself {counted:?}");
            }
        }
    }

    /// Calls of a process.
    pub fn of(&self, process: u32) -> Counts {
        let threads = self.threads.range((process, 0)..=(process, u32::MAX));
        threads.fold(Counts::default(), |sum, (_, seen)| sum.plus(&seen.calls))
    }

    /// Calls between the marks, of all threads of all processes.
    pub fn between(&self) -> Counts {
        let threads = self.threads.values();
        threads.fold(Counts::default(), |sum, seen| sum.plus(&seen.between))
    }

    /// Calls of the whole run.
    pub fn all(&self) -> Counts {
        let threads = self.threads.values();
        threads.fold(Counts::default(), |sum, seen| sum.plus(&seen.calls))
    }

    /// Failed calls of a process.
    pub fn failed(&self, process: u32) -> u64 {
        let threads = self.threads.range((process, 0)..=(process, u32::MAX));
        threads.map(|(_, seen)| seen.failed).sum()
    }

    /// Calls that were dropped, of all processes.
    pub fn dropped(&self) -> u64 {
        self.processes.iter().flat_map(|p| p.dropped).sum()
    }

    /// Blocks of a process that are live at the end.
    pub fn live(&self, process: u32) -> u64 {
        self.live.get(&process).map_or(0, |live| live.len() as u64)
    }

    /// Unknown frees and live duplicates of the run.
    pub fn strays(&self) -> u64 {
        self.unknown_frees
            .values()
            .chain(self.live_duplicates.values())
            .sum()
    }

    /// Checks that nothing was dropped, no unknown block freed and no live one given out.
    pub fn clean(self) -> Seen {
        assert_eq!(self.dropped(), 0, "dropped");
        assert_eq!(self.unknown_frees, BTreeMap::new(), "unknown frees");
        assert_eq!(self.live_duplicates, BTreeMap::new(), "live duplicates");
        self
    }

    /// The process whose command line has this word.
    pub fn with_argument(&self, word: &str) -> &Process {
        let mut found = self
            .processes
            .iter()
            .filter(|p| p.arguments.iter().any(|a| a == word));
        let process = found.next().unwrap_or_else(|| {
            panic!("no process with the argument {word}: {:#?}", self.processes)
        });
        assert!(found.next().is_none(), "several processes with {word}");
        process
    }

    fn remove(&mut self, process: u32, address: u64, counts: bool) -> Option<bool> {
        let inherited = self.live.entry(process).or_default().remove(&address);
        if counts {
            match inherited {
                None => *self.unknown_frees.entry(process).or_default() += 1,
                Some(true) => *self.inherited_frees.entry(process).or_default() += 1,
                Some(false) => {}
            }
        }
        inherited
    }

    fn insert(&mut self, process: u32, address: u64, inherited: bool, counts: bool) {
        let displaced = self
            .live
            .entry(process)
            .or_default()
            .insert(address, inherited);
        if displaced.is_some() && counts {
            *self.live_duplicates.entry(process).or_default() += 1;
        }
    }

    /// Applies a step to the table of `process`; `inherited`: it is its parent's.
    fn apply(&mut self, process: u32, event: &Event, inherited: bool) {
        let thread = (process, event.thread);
        match event.step {
            Step::Alloc if event.address == 0 => {}
            Step::Alloc => self.insert(process, event.address, inherited, !inherited),
            Step::Free => {
                self.remove(process, event.address, !inherited);
            }
            Step::ReallocBegin => {
                let mut old = None;
                if event.old_address != 0 {
                    old = self
                        .live
                        .entry(process)
                        .or_default()
                        .remove(&event.old_address);
                    if old.is_none() && !inherited {
                        *self.unknown_frees.entry(process).or_default() += 1;
                    }
                }
                self.moving.insert(thread, old);
            }
            Step::ReallocEnd => {
                let old = self.moving.remove(&thread).flatten();
                if event.address != 0 {
                    let is_inherited = old.unwrap_or(inherited);
                    self.insert(process, event.address, is_inherited, !inherited);
                } else if let (Some(old), 0) = (old, event.flags & Event::FREED) {
                    self.insert(process, event.old_address, old, !inherited);
                }
            }
        }
    }
}

impl Consumer for Seen {
    fn event(&mut self, event: &Event) {
        assert!(event.time_ns >= self.last_ns, "time goes backwards");
        self.last_ns = event.time_ns;
        if event.counts() {
            let seen = self
                .threads
                .entry((event.process, event.thread))
                .or_default();
            if event.requested_bytes == Seen::END {
                seen.is_between = false;
            }
            if seen.is_between {
                *seen.between.0.entry(event.entry).or_default() += 1;
            }
            if event.requested_bytes == Seen::BEGIN {
                seen.is_between = true;
            }
            *seen.calls.0.entry(event.entry).or_default() += 1;
            seen.failed += u64::from(event.failed());
            if event.kind() != Kind::Free {
                *seen.sizes.entry(event.requested_bytes).or_default() += 1;
                let extra = (event.caller, event.usable_bytes);
                if extra != (0, 0) {
                    self.extra.insert(event.requested_bytes, extra);
                }
            }
        }
        self.apply(event.process, event, false);
    }

    fn fork(&mut self, child: u32, parent: u32, _time_ns: u64) {
        let inherited = self.live.get(&parent).cloned().unwrap_or_default();
        let inherited = inherited.into_keys().map(|address| (address, true));
        self.live.insert(child, inherited.collect());
    }

    fn inherit(&mut self, child: u32, event: &Event) {
        self.apply(child, event, true);
    }

    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        Some(
            self.live
                .get(&process)
                .is_some_and(|live| live.contains_key(&address)),
        )
    }
}
