//! The table of blocks: a row for each block that a process allocated, written when it ends.
//! What the last fact of a block no longer says (its first size, who allocated it how) is kept here while
//! it lives, in the place that its handle names: 32 bytes for each block live at the peak.

use crate::column::{Column, Kind, Shape};
use crate::event::entry_names;
use crate::marks::{At, Marks};
use rmtrace_analyzer::fact::{Fact, What};
use rmtrace_analyzer::histogram::class_bounds;
use rmtrace_file::Process;
use rmtrace_format::Entry;

/// How a block ended, in the order of the names in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// By a free.
    Freed = 0,
    /// By a realloc that returned NULL.
    Realloc = 1,
    /// Its address was given out again: the free was not seen.
    Displaced = 2,
    /// Not at all: its process ended first, or the recording did.
    Kept = 3,
}

const ENDINGS: [(Ending, &str); 4] = [
    (Ending::Freed, "freed"),
    (Ending::Realloc, "realloc"),
    (Ending::Displaced, "displaced"),
    (Ending::Kept, "kept"),
];

const _: () = {
    let mut at = 0;
    while at < ENDINGS.len() {
        assert!(ENDINGS[at].0 as usize == at);
        at += 1;
    }
};

/// One row: a block and its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of its process in the trace.
    pub process: u32,
    /// Process id.
    pub pid: u32,
    /// Thread that allocated it.
    pub thread_born: u32,
    /// Thread that ended it; none where nobody did.
    pub thread_ended: Option<u32>,
    /// Where it was at first.
    pub address_first: u64,
    /// Where it was at last.
    pub address_last: u64,
    /// Requested bytes at first.
    pub bytes_first: u64,
    /// Requested bytes at last.
    pub bytes_last: u64,
    /// Size class of the first size ([`rmtrace_analyzer::histogram::size_class`]).
    pub class: u8,
    /// Birth in nanoseconds since the run's first record.
    pub born_ns: u64,
    /// Life in nanoseconds; of a kept block up to the end of its process.
    pub life_ns: u64,
    /// Life in calls of its process.
    pub life_events: u64,
    /// Life in bytes that its process allocated.
    pub life_bytes: u64,
    /// Life in blocks that its process allocated after it.
    pub life_allocations: u64,
    /// How it ended.
    pub ended: Ending,
    /// The function that allocated it.
    pub entry: Entry,
    /// The function that ended it.
    pub entry_ended: Option<Entry>,
    /// Binary logarithm of the alignment asked for at birth; 0 where none was.
    pub align_log2: u8,
    /// Times it was resized.
    pub resizes: u32,
    /// Of them those that gave it another address.
    pub moves: u32,
    /// Place of the last mark before its birth in the list of names.
    pub mark: Option<u32>,
}

/// The columns, in the order of the table; `marks` are those of the trace.
pub fn columns(marks: &Marks) -> Vec<Column<Block>> {
    use Kind::{Name, U8, U32, U64};
    use Shape::{Growing, Repeating, Scattered};
    let endings = ENDINGS.map(|(_, name)| name.to_owned()).into();
    vec![
        Column::new("process", U32, Repeating, |b: &Block| {
            Some(b.process.into())
        }),
        Column::new("pid", U32, Repeating, |b| Some(b.pid.into())),
        Column::new("thread_born", U32, Repeating, |b| {
            Some(b.thread_born.into())
        }),
        Column::new("thread_ended", U32, Repeating, |b: &Block| {
            b.thread_ended.map(u64::from)
        })
        .optional(),
        Column::new("address_first", U64, Scattered, |b| Some(b.address_first)),
        Column::new("address_last", U64, Scattered, |b| Some(b.address_last)),
        Column::new("bytes_first", U64, Repeating, |b| Some(b.bytes_first)),
        Column::new("bytes_last", U64, Repeating, |b| Some(b.bytes_last)),
        Column::new("class_low", U64, Repeating, |b| {
            Some(class_bounds(b.class).0)
        }),
        Column::new("class_high", U64, Repeating, |b| {
            Some(class_bounds(b.class).1)
        }),
        Column::new("born_ns", U64, Growing, |b| Some(b.born_ns)),
        Column::new("life_ns", U64, Scattered, |b| Some(b.life_ns)),
        Column::new("life_events", U64, Scattered, |b| Some(b.life_events)),
        Column::new("life_bytes", U64, Scattered, |b| Some(b.life_bytes)),
        Column::new("life_allocations", U64, Scattered, |b| {
            Some(b.life_allocations)
        }),
        Column::new("ended", Name(endings), Repeating, |b| Some(b.ended as u64)),
        Column::new("entry", Name(entry_names()), Repeating, |b| {
            Some(b.entry as u64)
        }),
        Column::new(
            "entry_ended",
            Name(entry_names()),
            Repeating,
            |b: &Block| b.entry_ended.map(|entry| entry as u64),
        )
        .optional(),
        Column::new("align_log2", U8, Repeating, |b| Some(b.align_log2.into())),
        Column::new("resizes", U32, Repeating, |b| Some(b.resizes.into())),
        Column::new("moves", U32, Repeating, |b| Some(b.moves.into())),
        Column::new(
            "mark",
            Name(marks.names().to_vec()),
            Repeating,
            |b: &Block| b.mark.map(u64::from),
        )
        .optional(),
    ]
}

/// What is kept of a block while it lives.
#[derive(Clone, Copy, Default)]
struct Birth {
    address: u64,
    bytes: u64,
    resizes: u32,
    moves: u32,
    /// Place of its mark plus one; 0: none.
    mark: u32,
    entry: Entry,
    align_log2: u8,
}

const _: () = assert!(size_of::<Birth>() <= 32);

/// The live blocks of one process.
#[derive(Default)]
struct Own {
    number: u32,
    pid: u32,
    /// By handle.
    births: Vec<Birth>,
    live: usize,
    marks: At,
}

/// Makes rows of the facts of a trace.
#[derive(Default)]
pub struct Blocks {
    marks: Marks,
    /// Ordered by number.
    processes: Vec<Own>,
    /// Place of the process that the last fact was of.
    last: usize,
}

impl Blocks {
    /// For the facts of a trace with these `processes`, ordered by number, and `marks`.
    pub fn new(processes: &[Process], marks: Marks) -> Blocks {
        let own = processes.iter().map(|process| Own {
            number: process.number,
            pid: process.pid,
            ..Own::default()
        });
        Blocks {
            marks,
            processes: own.collect(),
            ..Blocks::default()
        }
    }

    /// Takes a fact; gives the row of a block that ended with it. Inherited blocks make no rows: they
    /// are in those of the process that allocated them.
    pub fn fact(&mut self, fact: &Fact) -> Option<Block> {
        if fact.is_inherited() || fact.handle == Fact::NO_HANDLE {
            return None;
        }
        let is_of = |own: Option<&Own>| own.is_some_and(|own| own.number == fact.process);
        if !is_of(self.processes.get(self.last)) {
            self.last = self
                .processes
                .binary_search_by_key(&fact.process, |own| own.number)
                .ok()?;
        }
        self.processes.get_mut(self.last)?.fact(fact, &self.marks)
    }
}

impl Own {
    /// The place of the block that `fact` is about.
    fn birth(&mut self, fact: &Fact) -> &mut Birth {
        let at = fact.handle as usize;
        if at >= self.births.len() {
            self.births.resize(at + 1, Birth::default());
        }
        &mut self.births[at]
    }

    fn fact(&mut self, fact: &Fact, marks: &Marks) -> Option<Block> {
        let ended = match fact.what {
            What::Born => {
                let mark = marks.at(&mut self.marks, fact.process, fact.time_ns);
                self.live += 1;
                *self.birth(fact) = Birth {
                    address: fact.address,
                    bytes: fact.bytes,
                    mark: mark.map_or(0, |mark| mark.saturating_add(1)),
                    entry: fact.entry,
                    align_log2: fact.align_log2,
                    ..Birth::default()
                };
                return None;
            }
            What::Resized => {
                let birth = self.birth(fact);
                birth.resizes = birth.resizes.saturating_add(1);
                let moved = fact.address != fact.old_address;
                birth.moves = birth.moves.saturating_add(moved.into());
                return None;
            }
            What::Nothing => return None,
            What::Freed if fact.is_realloc() => Ending::Realloc,
            What::Freed => Ending::Freed,
            What::Displaced => Ending::Displaced,
            What::Kept => Ending::Kept,
        };
        let birth = *self.birth(fact);
        let by_call = fact.what == What::Freed;
        self.live = self.live.saturating_sub(1);
        if self.live == 0 {
            self.births = Vec::new(); // Of thousands of processes few live at a time.
        }
        Some(Block {
            process: fact.process,
            pid: self.pid,
            thread_born: fact.born_thread,
            thread_ended: by_call.then_some(fact.thread),
            address_first: birth.address,
            address_last: fact.address,
            bytes_first: birth.bytes,
            bytes_last: fact.bytes,
            class: fact.class,
            born_ns: fact.born_ns(),
            life_ns: fact.life_ns,
            life_events: fact.life_events,
            life_bytes: fact.life_bytes,
            life_allocations: fact.life_allocations,
            ended,
            entry: birth.entry,
            entry_ended: by_call.then_some(fact.entry),
            align_log2: birth.align_log2,
            resizes: birth.resizes,
            moves: birth.moves,
            mark: birth.mark.checked_sub(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(facts: &[Fact]) -> Vec<Block> {
        let process = |number, pid| Process {
            number,
            pid,
            ..Process::default()
        };
        let mut blocks = Blocks::new(&[process(1, 100), process(4, 400)], Marks::default());
        facts.iter().filter_map(|fact| blocks.fact(fact)).collect()
    }

    fn born(process: u32, handle: u32, address: u64, bytes: u64, entry: Entry) -> Fact {
        Fact {
            process,
            handle,
            address,
            bytes,
            entry,
            what: What::Born,
            ..Fact::default()
        }
    }

    #[test]
    fn a_row_joins_birth_and_end() {
        let first = Fact {
            time_ns: 5,
            thread: 2,
            align_log2: 6,
            ..born(4, 0, 0x100, 10, Entry::Memalign)
        };
        let resized = Fact {
            what: What::Resized,
            address: 0x200,
            old_address: 0x100,
            bytes: 90,
            old_bytes: 10,
            entry: Entry::Realloc,
            ..first
        };
        let again = Fact {
            old_address: 0x200,
            bytes: 80,
            ..resized
        };
        let freed = Fact {
            what: What::Freed,
            time_ns: 30,
            life_ns: 25,
            life_events: 4,
            life_bytes: 100,
            life_allocations: 2,
            thread: 3,
            born_thread: 2,
            class: 13,
            entry: Entry::Delete,
            ..again
        };
        let row = rows(&[first, resized, again, freed])[0];
        let expected = Block {
            process: 4,
            pid: 400,
            thread_born: 2,
            thread_ended: Some(3),
            address_first: 0x100,
            address_last: 0x200,
            bytes_first: 10,
            bytes_last: 80,
            class: 13,
            born_ns: 5,
            life_ns: 25,
            life_events: 4,
            life_bytes: 100,
            life_allocations: 2,
            ended: Ending::Freed,
            entry: Entry::Memalign,
            entry_ended: Some(Entry::Delete),
            align_log2: 6,
            resizes: 2,
            moves: 1,
            mark: None,
        };
        assert_eq!(row, expected);
    }

    #[test]
    fn endings_are_told_apart_and_entries_are_used_again() {
        let end = |what, fact: Fact, entry| Fact {
            what,
            entry,
            ..fact
        };
        let a = born(1, 0, 0x10, 1, Entry::Malloc);
        let b = born(1, 1, 0x20, 2, Entry::Calloc);
        let c = born(4, 0, 0x10, 3, Entry::New);
        let d = born(1, 0, 0x30, 4, Entry::Strdup);
        let rows = rows(&[
            a,
            b,
            c,
            end(What::Displaced, a, Entry::Malloc),
            d,
            end(What::Freed, d, Entry::Realloc),
            end(What::Kept, b, Entry::Calloc),
            end(What::Freed, c, Entry::Delete),
        ]);
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.bytes_first, row.entry, row.ended, row.entry_ended))
            .collect();
        assert_eq!(
            told,
            [
                (1, Entry::Malloc, Ending::Displaced, None),
                (4, Entry::Strdup, Ending::Realloc, Some(Entry::Realloc)),
                (2, Entry::Calloc, Ending::Kept, None),
                (3, Entry::New, Ending::Freed, Some(Entry::Delete)),
            ]
        );
    }

    #[test]
    fn what_is_not_of_an_own_block_makes_no_row() {
        let freed = Fact {
            what: What::Freed,
            ..born(1, 0, 0x10, 1, Entry::Free)
        };
        let inherited = Fact {
            flags: Fact::INHERITED,
            handle: Fact::NO_HANDLE,
            ..freed
        };
        let unknown = Fact {
            what: What::Nothing,
            flags: Fact::UNKNOWN,
            ..freed
        };
        let stranger = Fact {
            process: u32::MAX,
            ..freed
        };
        assert_eq!(rows(&[inherited, unknown, stranger]), []);
    }
}
