//! Keeps the live blocks of all processes, and says of each call which block it began, changed or
//! ended ([`Fact`]). Takes the merged stream of a trace and fills batches of facts; between them
//! stand notes of what else happened (`Note`). Measures are elsewhere.

mod book;
mod inherited;
mod table;

use crate::fact::Fact;
use crate::first::First;
use book::Book;
use rmtrace_file::consumer::Consumer;
use rmtrace_file::merge::{MergeOptions, MergeStats};
use rmtrace_file::model::{Ended, Mark, Process, Sample};
use rmtrace_file::{ReadError, TraceReader};
use rmtrace_format::{Event, Kind};
use std::mem;
use std::ops::Range;

/// Processes with higher numbers are not taken: numbers come from a file.
const PROCESSES_MAX: u32 = 1 << 22;
/// Events that wait for their turn: enough for lookups to overlap, few enough for the second-level
/// cache.
const EVENTS_WAITING: usize = 256;
/// Events that need not wait for others.
const EVENTS_ALONE: usize = 64;
/// Facts of a batch that is worked through in the same thread: they stay in the second-level cache.
const BATCH_FACTS: usize = 512;

/// Which blocks measures are told of. Clocks count all calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only blocks whose first requested size is in the range.
    pub sizes: Option<Range<u64>>,
    /// Only blocks allocated by functions of this kind.
    pub kind: Option<Kind>,
}

impl Filter {
    /// Whether anything is left out.
    pub fn is_active(&self) -> bool {
        *self != Filter::default()
    }

    fn takes(&self, bytes: u64, kind: Kind) -> bool {
        self.sizes
            .as_ref()
            .is_none_or(|sizes| sizes.contains(&bytes))
            && self.kind.is_none_or(|wanted| wanted == kind)
    }
}

/// What happened beside the facts.
#[derive(Debug)]
pub(crate) enum Note {
    /// A process appeared.
    Started(Box<Process>, u64),
    /// `child` inherits what is live in `parent`, but for blocks of these sizes.
    Forked {
        child: u32,
        parent: u32,
        time_ns: u64,
        without: Vec<u64>,
    },
    /// An inherited block of the process turned out to be there, or not to be there.
    Inherited {
        process: u32,
        time_ns: u64,
        bytes: u64,
        is_there: bool,
    },
    /// A process ended; whether within the run is told by what follows.
    Leaving { process: u32, time_ns: u64 },
    /// A process is at its end, and what it held has been told of as kept.
    Ended {
        process: u32,
        time_ns: u64,
        /// Whether the run went on without it.
        released: bool,
        /// Blocks and bytes found in its tables, inherited ones included.
        blocks: u64,
        bytes: u64,
        /// Its first figures, if they were told on the way.
        first: Option<Box<First>>,
    },
    /// A mark.
    Mark(Box<Mark>, u64),
    /// A resident sample.
    Sample(Sample, u64),
    /// An event of a process that had ended.
    Stray,
}

/// Facts, and notes with the number of facts before each.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub facts: Vec<Fact>,
    pub notes: Vec<(usize, Note)>,
}

impl Batch {
    /// Leaves it empty.
    pub fn clear(&mut self) {
        self.facts.clear();
        self.notes.clear();
    }
}

/// Takes batches.
pub(crate) trait Sink {
    /// Takes what is in a batch, or the batch for an empty one.
    fn take(&mut self, batch: &mut Batch);
}

enum Slot {
    Unknown,
    Running(Box<Book>),
    /// It ended, and nothing has happened since: it may be the last of the run.
    Leaving(Box<Book>, u64),
    Ended,
}

/// The live blocks of all processes.
pub(crate) struct Ledger<S> {
    sink: S,
    filter: Filter,
    slots: Vec<Slot>,
    /// Processes whose slot is [`Slot::Leaving`]; all ended at the same time.
    leaving: Vec<u32>,
    waiting: Vec<Event>,
    batch: Batch,
    /// Facts after which a batch is handed on; it may have somewhat more.
    batch_facts: usize,
    /// Latest time of any record.
    last_ns: u64,
    was_paused: bool,
}

impl<S: Sink> Ledger<S> {
    /// A ledger without processes.
    pub fn new(sink: S, filter: Filter) -> Ledger<S> {
        Ledger::with_batches(sink, filter, BATCH_FACTS)
    }

    /// A ledger without processes that hands on batches of so many facts.
    pub fn with_batches(sink: S, filter: Filter, batch_facts: usize) -> Ledger<S> {
        Ledger {
            sink,
            filter,
            slots: Vec::new(),
            leaving: Vec::new(),
            waiting: Vec::with_capacity(EVENTS_WAITING),
            batch: Batch::default(),
            batch_facts,
            last_ns: 0,
            was_paused: false,
        }
    }

    fn note(&mut self, note: Note) {
        self.batch.notes.push((self.batch.facts.len(), note));
    }

    fn hand_on(&mut self) {
        self.sink.take(&mut self.batch);
        self.batch.clear();
    }

    fn slot(&mut self, number: u32) -> Option<&mut Slot> {
        if number >= PROCESSES_MAX {
            return None;
        }
        let at = number as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || Slot::Unknown);
        }
        self.slots.get_mut(at)
    }

    fn start(&mut self, process: &Process, time_ns: u64) {
        let book = Book::new(process.number, time_ns, self.filter.clone());
        if let Some(slot @ Slot::Unknown) = self.slot(process.number) {
            *slot = Slot::Running(Box::new(book));
            self.note(Note::Started(Box::new(process.clone()), time_ns));
        }
    }

    /// Takes the book of a running process out.
    fn take(&mut self, number: u32) -> Option<Box<Book>> {
        let slot = self.slots.get_mut(number as usize)?;
        match mem::replace(slot, Slot::Unknown) {
            Slot::Running(book) => Some(book),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Works through the events that wait.
    fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = mem::take(&mut self.waiting);
        self.work(&waiting);
        self.waiting = waiting;
        self.waiting.clear();
    }

    fn work(&mut self, events: &[Event]) {
        for run in events.chunk_by(|one, next| one.process == next.process) {
            let process = run[0].process;
            self.last_ns = self.last_ns.max(run[run.len() - 1].time_ns);
            if !self.leaving.is_empty() {
                self.let_go(true);
            }
            match self.slots.get_mut(process as usize) {
                Some(Slot::Running(book)) => {
                    book.events(run, self.was_paused, &mut self.batch.facts)
                }
                _ => self.stray(run),
            }
            if self.batch.facts.len() >= self.batch_facts {
                self.hand_on();
            }
        }
    }

    #[cold]
    fn stray(&mut self, run: &[Event]) {
        let (number, time_ns) = (run[0].process, run[0].time_ns);
        if let Some(Slot::Unknown) = self.slot(number) {
            let process = Process {
                number,
                ..Process::default()
            };
            self.start(&process, time_ns);
            self.work(run);
        } else {
            for _ in run {
                self.note(Note::Stray);
            }
        }
    }

    fn end(&mut self, mut book: Box<Book>, time_ns: u64, released: bool) {
        let process = book.number();
        let (sink, notes, most) = (&mut self.sink, &mut self.batch.notes, self.batch_facts);
        let (blocks, bytes) = book.close(time_ns, &mut self.batch.facts, |facts| {
            if facts.len() >= most {
                let mut batch = Batch {
                    facts: mem::take(facts),
                    notes: mem::take(notes),
                };
                sink.take(&mut batch);
                batch.clear();
                (*facts, *notes) = (batch.facts, batch.notes);
            }
        });
        self.note(Note::Ended {
            process,
            time_ns,
            released,
            blocks,
            bytes,
            first: None,
        });
        if let Some(slot) = self.slot(process) {
            *slot = Slot::Ended;
        }
        self.hand_on();
    }

    /// Ends the processes that were leaving.
    #[cold]
    fn let_go(&mut self, released: bool) {
        for number in mem::take(&mut self.leaving) {
            let Some(slot) = self.slots.get_mut(number as usize) else {
                continue;
            };
            match mem::replace(slot, Slot::Unknown) {
                Slot::Leaving(book, time_ns) => self.end(book, time_ns, released),
                other => *slot = other,
            }
        }
    }

    /// Everything has been delivered: ends all processes, those of `all` without events too. Returns
    /// the sink and the latest time.
    pub fn finish(mut self, all: &[Process]) -> (S, u64) {
        self.flush();
        let last_ns = self.last_ns;
        // What the last process held was not given back within the run.
        let others = self
            .slots
            .iter()
            .any(|slot| matches!(slot, Slot::Running(_)));
        self.let_go(others);
        for process in all {
            self.start(process, last_ns);
        }
        for number in 0..self.slots.len() as u32 {
            if let Some(book) = self.take(number) {
                self.end(book, last_ns, false);
            }
        }
        self.hand_on();
        (self.sink, last_ns)
    }

    /// Takes the deliveries out of the way of what is asked for now.
    fn up_to(&mut self, time_ns: u64) {
        self.flush();
        self.last_ns = self.last_ns.max(time_ns);
    }
}

impl<S: Sink> Consumer for Ledger<S> {
    #[inline]
    fn event(&mut self, event: &Event) {
        self.waiting.push(*event);
        if self.waiting.len() >= EVENTS_WAITING {
            self.flush();
        }
    }

    fn events(&mut self, events: &[Event]) {
        if self.waiting.is_empty() && events.len() >= EVENTS_ALONE {
            self.work(events);
            return;
        }
        self.waiting.extend_from_slice(events);
        if self.waiting.len() >= EVENTS_WAITING {
            self.flush();
        }
    }

    fn process_started(&mut self, process: &Process, time_ns: u64) {
        self.up_to(time_ns);
        self.let_go(true);
        self.start(process, time_ns);
    }

    fn fork(&mut self, child: u32, parent: u32, time_ns: u64) {
        self.up_to(time_ns);
        let Some(mut book) = self.take(child) else {
            return;
        };
        let mut without = None;
        if let Some(Slot::Running(parent)) = self.slots.get_mut(parent as usize) {
            without = Some(book.fork_from(parent));
        }
        if let Some(slot) = self.slot(child) {
            *slot = Slot::Running(book);
        }
        // Of which kind inherited blocks are is not known: a filter leaves them out.
        if let Some(without) = without.filter(|_| !self.filter.is_active()) {
            self.note(Note::Forked {
                child,
                parent,
                time_ns,
                without,
            });
        }
    }

    fn inherit(&mut self, child: u32, event: &Event) {
        self.flush();
        let Some(Slot::Running(book)) = self.slots.get_mut(child as usize) else {
            return;
        };
        let time_ns = self.last_ns.max(event.time_ns).max(book.start_ns());
        let changes = book.inherit(event);
        if self.filter.is_active() {
            return;
        }
        for (bytes, is_there) in changes.into_iter().flatten() {
            self.note(Note::Inherited {
                process: child,
                time_ns,
                bytes,
                is_there,
            });
        }
    }

    fn process_ended(&mut self, process: u32, _how: Ended, time_ns: u64) {
        self.flush();
        let earlier = self
            .leaving
            .first()
            .and_then(|number| self.slots.get(*number as usize));
        if matches!(earlier, Some(Slot::Leaving(_, earlier_ns)) if *earlier_ns != time_ns) {
            self.let_go(true);
        }
        self.last_ns = self.last_ns.max(time_ns);
        let Some(book) = self.take(process) else {
            return;
        };
        self.note(Note::Leaving { process, time_ns });
        if let Some(slot) = self.slot(process) {
            *slot = Slot::Leaving(book, time_ns);
            self.leaving.push(process);
        }
    }

    fn mark(&mut self, mark: &Mark, time_ns: u64) {
        self.flush();
        self.was_paused |= mark.is_pause();
        self.note(Note::Mark(Box::new(mark.clone()), time_ns));
    }

    fn sample(&mut self, sample: &Sample, time_ns: u64) {
        self.flush();
        self.note(Note::Sample(*sample, time_ns));
    }

    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        self.flush();
        match self.slots.get(process as usize) {
            Some(Slot::Running(book)) => Some(book.is_live(address)),
            _ => Some(false),
        }
    }
}

struct Each<F>(F);

impl<F: FnMut(&Fact)> Sink for Each<F> {
    fn take(&mut self, batch: &mut Batch) {
        batch.facts.iter().for_each(&mut self.0);
    }
}

/// Hands every fact of a trace to `each`, in time order; at the end of each process its blocks that
/// were kept.
///
/// # Errors
/// When a frame can't be read or is damaged; what came before was told.
pub fn facts(
    reader: &TraceReader,
    options: MergeOptions<'_>,
    filter: &Filter,
    each: impl FnMut(&Fact),
) -> Result<MergeStats, ReadError> {
    let mut ledger = Ledger::new(Each(each), filter.clone());
    let merged = reader.merge_with(&mut ledger, options);
    ledger.finish(&[]);
    merged
}
