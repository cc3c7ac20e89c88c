//! From a trace to a program: one pass over the merged stream. What can't be replayed as it is gets repaired or
//! left out, with counts ([`Facts`]); `heap.rs` has the rules of what an event does, `program.rs` the file, and
//! `prepare/streams.rs` parts the operations by threads.

mod streams;
pub(crate) use streams::Known;

use crate::error::ReplayError;
use crate::heap::{Change, Correction, Heap};
use crate::lock::{Holder, Lifetimes, Locked, Old, Rule, Score, Spans, Turn};
use crate::program::{Facts, POINTS, Point, Writer};
use crate::reuse::Reuse;
use crate::word::{self, Op};
use rmtrace_file::TraceReader;
use rmtrace_file::consumer::Consumer;
use rmtrace_file::merge::MergeOptions;
use rmtrace_file::model::Sample;
use rmtrace_format::{Event, Kind, Step};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

/// Events that wait for each other, so that lookups overlap.
const EVENTS_WAITING: usize = 256;
/// Cuts of a process of which each has no more operations than a window.
const CUTS: u64 = 100;

/// What to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Number of the process in the trace.
    pub process: u32,
    /// Locks that begin with a block end after so many nanoseconds of recorded time; `None`: no such locks.
    pub lock_ns: Option<u64>,
    /// Another rule of locks that the program is to carry.
    pub rule: Option<Rule<'a>>,
}

/// The process of a trace with most events.
pub fn busiest(reader: &TraceReader) -> Option<u32> {
    let processes = reader.processes().iter().rev();
    let busiest = processes.max_by_key(|process| reader.calls_of(process.number));
    busiest.map(|process| process.number)
}

/// Writes the program of a process to `file`, which is empty. `progress` is told the events read so far.
///
/// # Errors
/// When the trace can't be read or is damaged, holds what no program can, or the file can't be written.
pub fn prepare(
    reader: &TraceReader,
    wanted: Wanted<'_>,
    file: File,
    path: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Facts, ReplayError> {
    let output = Merged {
        writer: Writer::new(file, path)?,
        words: 0,
    };
    let holder = holder(reader, wanted, path)?;
    pass(reader, wanted, output, holder, &mut progress)?.finish()
}

/// As [`prepare`], for real threads: a stream for each of the process (`streams.rs`), with a cut after every hundredth of its
/// operations, or after `window` operations if that is less.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_streams(
    reader: &TraceReader,
    wanted: Wanted<'_>,
    window: u64,
    file: File,
    path: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Facts, ReplayError> {
    let between = window.min(reader.calls_of(wanted.process).div_ceil(CUTS));
    let output = streams::Streams::new(Writer::new(file, path)?, between);
    let holder = holder(reader, wanted, path)?;
    pass(reader, wanted, output, holder, &mut progress)?.finish()
}

/// What holds the locks of a rule.
fn holder(
    reader: &TraceReader,
    wanted: Wanted<'_>,
    path: &Path,
) -> Result<Option<Holder>, ReplayError> {
    Ok(match wanted.rule {
        None => None,
        Some(Rule::Score) => Some(Holder::Score(Score::default())),
        Some(Rule::Accesses(accesses)) => {
            let spans = Spans::open(accesses, reader, wanted.process)?;
            Some(Holder::Accesses(spans))
        }
        Some(Rule::Old(millionths)) => {
            // A pass before, whose program is thrown away.
            let unused = tempfile::tempfile().map_err(|source| ReplayError::File {
                path: std::env::temp_dir(),
                source,
            })?;
            let holder = Some(Holder::Lifetimes(Lifetimes::default()));
            let output = Merged {
                writer: Writer::new(unused, path)?,
                words: 0,
            };
            let survey = pass(reader, wanted, output, holder, &mut |_| {})?;
            match survey.script.held.map(|held| held.holder) {
                Some(Holder::Lifetimes(lifetimes)) => {
                    Some(Holder::Old(Old::new(lifetimes, millionths)))
                }
                _ => None,
            }
        }
    })
}

/// One pass over the merged trace.
fn pass<O: Output>(
    reader: &TraceReader,
    wanted: Wanted<'_>,
    output: O,
    holder: Option<Holder>,
    progress: &mut dyn FnMut(u64),
) -> Result<Preparation<O>, ReplayError> {
    let chain = reader.with_ancestors(wanted.process);
    let mut preparation = Preparation::new(reader, wanted, &chain, output);
    preparation.script.held = holder.map(Locked::new);
    let options = MergeOptions {
        processes: Some(chain),
        progress: Some(&mut |events| {
            progress(events);
            ControlFlow::Continue(())
        }),
        workers: 2,
        ..MergeOptions::default()
    };
    reader.merge_with(&mut preparation, options)?;
    preparation.flush();
    Ok(preparation)
}

/// Live blocks and bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Live {
    bytes: u64,
    blocks: u64,
    rounded: u64,
}

fn rounded(bytes: u64) -> u64 {
    bytes.next_multiple_of(16)
}

impl Live {
    #[inline]
    fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_add(bytes);
        self.blocks = self.blocks.wrapping_add(1);
        self.rounded = self.rounded.wrapping_add(rounded(bytes));
    }

    #[inline]
    fn sub(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_sub(bytes);
        self.blocks = self.blocks.wrapping_sub(1);
        self.rounded = self.rounded.wrapping_sub(rounded(bytes));
    }
}

/// Where operations go.
trait Output: Sized {
    /// Adds an operation of a thread, whose slot is the block's number in the heap; `live_bytes` live after it.
    fn op(&mut self, thread: u32, op: Op, live_bytes: u64) -> Result<(), ReplayError>;

    /// Nothing is left to add of the latest event.
    #[inline]
    fn may_cut(&mut self) -> Result<(), ReplayError> {
        Ok(())
    }

    /// How far the program is: where its points are, and its peak.
    fn position(&self) -> u64;

    /// More bytes live than ever before.
    #[inline]
    fn peak(&mut self) {}

    /// Memory will be looked at here.
    fn point(&mut self) {}

    /// A block of the heap is there from the start on; its slot.
    fn there(&mut self, block: u32, _bytes: u64) -> Result<u32, ReplayError> {
        Ok(block)
    }

    /// It is not; the slot that it had.
    fn gone(&mut self, block: u32, _bytes: u64) -> u32 {
        block
    }

    /// How many slots are needed for so many blocks of the heap.
    fn slots(&self, blocks: u64) -> u64 {
        blocks
    }

    /// Writes what follows the operations; the facts with what is known now.
    fn finish(self, facts: Facts, setup: &[Op], points: &[Point]) -> Result<Facts, ReplayError>;
}

/// The operations in their merged order.
struct Merged {
    writer: Writer,
    words: u64,
}

impl Output for Merged {
    #[inline]
    fn op(&mut self, _thread: u32, op: Op, _live_bytes: u64) -> Result<(), ReplayError> {
        let (wide, word) = op.encode();
        if let Some(wide) = wide {
            self.words += 1;
            self.writer.word(wide)?;
        }
        self.words += 1;
        self.writer.word(word)
    }

    #[inline]
    fn position(&self) -> u64 {
        self.words
    }

    fn finish(
        self,
        mut facts: Facts,
        setup: &[Op],
        points: &[Point],
    ) -> Result<Facts, ReplayError> {
        facts.op_words = self.words;
        self.writer.finish(facts, setup, points)
    }
}

struct Preparation<O> {
    target: u32,
    /// The process and those that it was forked from, by number.
    heaps: Vec<(u32, Heap)>,
    waiting: Vec<Event>,
    script: Script<O>,
}

/// What is written of the process.
struct Script<O> {
    output: O,
    facts: Facts,
    live: Live,
    peak: Live,
    /// Blocks that are allocated before the clock starts, by slot.
    setup: BTreeMap<u32, u64>,
    points: Vec<Point>,
    /// When the next point is; `u64::MAX`: all are there.
    next_point_ns: u64,
    /// The thread that locks were looked at for.
    latest_thread: u32,
    locks: Option<Locks>,
    /// The thread that allocated the block in a slot; [`NO_THREAD`]: of the parent.
    owners: Vec<u32>,
    reuse: Reuse,
    /// The same of each thread, by its number.
    reuse_of: Vec<Reuse>,
    /// Another rule of locks, and what it has locked.
    held: Option<Locked>,
    error: Option<ReplayError>,
}

/// No thread of the process.
const NO_THREAD: u32 = u32::MAX;

/// Blocks that are still locked from their birth.
struct Locks {
    ns: u64,
    ends: VecDeque<LockEnd>,
    /// Number of the block in a slot, from 1; 0: none.
    blocks: Vec<u64>,
    /// Calls that each thread has still to make, where the trace tells.
    calls: HashMap<u32, u64>,
}

#[derive(Clone, Copy)]
struct LockEnd {
    time_ns: u64,
    slot: u32,
    /// Number of the block that it belongs to.
    block: u64,
    /// The thread that it was born in.
    thread: u32,
}

impl<O: Output> Preparation<O> {
    fn new(reader: &TraceReader, wanted: Wanted<'_>, chain: &[u32], output: O) -> Preparation<O> {
        let process = reader.process(wanted.process);
        let (start_ns, end_ns) = process.map_or((0, 0), |process| {
            (reader.ns(process.started), reader.ns(process.ended_at))
        });
        let dropped = process.map_or(0, |process| process.dropped.iter().sum());
        let facts = Facts {
            process: u64::from(wanted.process),
            dropped,
            start_ns,
            end_ns: end_ns.max(start_ns),
            lock_ns_plus_one: wanted.lock_ns.map_or(0, |ns| ns + 1),
            ..Facts::default()
        };
        let locks = wanted.lock_ns.map(|ns| Locks {
            ns,
            ends: VecDeque::new(),
            blocks: Vec::new(),
            calls: reader
                .threads_of(wanted.process)
                .map(|(thread, calls)| (*thread, *calls))
                .collect(),
        });
        let script = Script::new(facts, locks, output);
        Preparation {
            target: wanted.process,
            heaps: chain
                .iter()
                .map(|number| (*number, Heap::default()))
                .collect(),
            waiting: Vec::with_capacity(EVENTS_WAITING),
            script,
        }
    }

    fn flush(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.work(&waiting);
        self.waiting = waiting;
        self.waiting.clear();
    }

    fn work(&mut self, events: &[Event]) {
        for run in events.chunk_by(|one, next| one.process == next.process) {
            let process = run[0].process;
            let Some((_, heap)) = self.heaps.iter_mut().find(|(number, _)| *number == process)
            else {
                continue;
            };
            if process == self.target {
                let script = &mut self.script;
                if let Some(locks) = &mut script.locks {
                    // All at once: a thread whose last calls are among these leaves its locks to others a little sooner.
                    run.iter().for_each(|event| locks.called(event));
                }
                heap.events(run, |event, change| script.change(event, change));
            } else {
                heap.events(run, |_, _| {});
            }
        }
    }

    fn heap(&mut self, process: u32) -> Option<&mut Heap> {
        let mut heaps = self.heaps.iter_mut();
        heaps
            .find(|(number, _)| *number == process)
            .map(|(_, heap)| heap)
    }

    fn finish(mut self) -> Result<Facts, ReplayError> {
        self.flush();
        let slots = self.heap(self.target).map_or(0, |heap| heap.slots());
        self.script.finish(slots)
    }
}

impl<O: Output> Consumer for Preparation<O> {
    #[inline]
    fn event(&mut self, event: &Event) {
        self.waiting.push(*event);
        if self.waiting.len() >= EVENTS_WAITING {
            self.flush();
        }
    }

    fn events(&mut self, events: &[Event]) {
        self.flush();
        self.work(events);
    }

    fn fork(&mut self, child: u32, parent: u32, _time_ns: u64) {
        self.flush();
        let Some((copy, inherited)) = self.heap(parent).map(|heap| heap.fork()) else {
            return;
        };
        let target = self.target;
        if let Some(heap) = self.heap(child) {
            *heap = copy;
            if child == target {
                for (slot, bytes) in inherited {
                    self.script.correct(Correction::There { slot, bytes });
                }
            }
        }
    }

    fn inherit(&mut self, child: u32, event: &Event) {
        self.flush();
        let Some((_, heap)) = self.heaps.iter_mut().find(|(number, _)| *number == child) else {
            return;
        };
        let (script, is_target) = (&mut self.script, child == self.target);
        heap.inherit(event, |correction| {
            if is_target {
                script.correct(correction);
            }
        });
    }

    fn sample(&mut self, sample: &Sample, _time_ns: u64) {
        if sample.process == self.target {
            let facts = &mut self.script.facts;
            facts.resident_samples += 1;
            facts.resident_peak_bytes = facts.resident_peak_bytes.max(sample.anonymous_bytes);
        }
    }

    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        self.flush();
        Some(self.heap(process).is_some_and(|heap| heap.is_live(address)))
    }
}

impl<O: Output> Script<O> {
    fn new(facts: Facts, locks: Option<Locks>, output: O) -> Script<O> {
        let mut script = Script {
            output,
            facts,
            live: Live::default(),
            peak: Live::default(),
            setup: BTreeMap::new(),
            points: Vec::with_capacity(POINTS as usize),
            next_point_ns: 0,
            latest_thread: 0,
            locks,
            owners: Vec::new(),
            reuse: Reuse::default(),
            reuse_of: Vec::new(),
            held: None,
            error: None,
        };
        script.next_point_ns = script.point_ns();
        script
    }

    /// When the point after those that there are is: they part the process' time equally, the last is its end.
    fn point_ns(&self) -> u64 {
        let number = self.points.len() as u64 + 1;
        if number > POINTS {
            return u64::MAX;
        }
        let span = u128::from(self.facts.end_ns - self.facts.start_ns);
        self.facts.start_ns + (span * u128::from(number) / u128::from(POINTS)) as u64
    }

    fn point(&mut self, time_ns: u64) {
        self.output.point();
        self.facts.locked_blocks_sum += self.held.as_ref().map_or(0, |held| held.blocks);
        self.facts.live_blocks_sum += self.live.blocks;
        self.points.push(Point {
            word: self.output.position(),
            time_ns,
            live_bytes: self.live.bytes,
            live_blocks: self.live.blocks,
            live_rounded_bytes: self.live.rounded,
        });
        self.next_point_ns = self.point_ns();
    }

    /// Does what is due before something that a thread does at `time_ns`.
    #[cold]
    fn advance(&mut self, time_ns: u64, thread: u32) {
        self.latest_thread = thread;
        loop {
            let end = self
                .locks
                .as_ref()
                .and_then(|locks| locks.ends.front().copied());
            match end {
                Some(end) if end.time_ns <= time_ns && end.time_ns <= self.next_point_ns => {
                    let mut by = thread;
                    let locks = self.locks.as_mut();
                    let is_there = locks.is_some_and(|locks| {
                        locks.ends.pop_front();
                        if !locks.has_ended(end.thread) {
                            by = end.thread;
                        }
                        locks.blocks[end.slot as usize] == end.block
                    });
                    if is_there {
                        self.facts.unlocks += 1;
                        self.op(by, word::UNLOCK, end.slot, 0, 0);
                        let cut = self.output.may_cut();
                        self.note(cut);
                    }
                }
                _ if self.next_point_ns < time_ns => self.point(self.next_point_ns),
                _ => break,
            }
        }
    }

    /// Adds an operation.
    #[inline]
    fn op(&mut self, thread: u32, kind: u64, slot: u32, bytes: u64, align_log2: u8) {
        if bytes > word::BYTES_MAX || align_log2 > word::ALIGN_LOG2_MAX {
            return self.unfit(bytes, align_log2);
        }
        let op = Op {
            kind,
            slot,
            bytes,
            align_log2,
        };
        let added = self.output.op(thread, op, self.live.bytes);
        self.note(added);
    }

    /// Keeps the first error.
    #[inline]
    fn note(&mut self, done: Result<(), ReplayError>) {
        if let Err(error) = done {
            self.error.get_or_insert(error);
        }
    }

    #[cold]
    fn unfit(&mut self, bytes: u64, align_log2: u8) {
        let process = self.facts.process as u32;
        self.error.get_or_insert(ReplayError::Unfit {
            process,
            what: format!("a block of {bytes} bytes aligned to 2^{align_log2} can't be replayed"),
        });
    }

    #[inline]
    fn change(&mut self, event: &Event, change: Change) {
        if event.time_ns > self.next_point_ns || self.locks.is_some() {
            self.advance(event.time_ns, event.thread);
        }
        if self.held.is_some() {
            self.turn(event.thread, |held| held.before(event.thread));
        }
        self.apply(event, change);
        if self.held.is_some() {
            self.turn(event.thread, |held| {
                held.after(event.time_ns, event.thread, change)
            });
        }
    }

    /// Writes locks and ends of locks of a rule; `thread` performs them.
    fn turn(&mut self, thread: u32, due: impl FnOnce(&mut Locked) -> Vec<Turn>) {
        let Some(mut held) = self.held.take() else {
            return;
        };
        let turns = due(&mut held);
        for turn in &turns {
            match turn.locks {
                true => self.facts.locks += 1,
                false => self.facts.unlocks += 1,
            }
            self.op(thread, word::UNLOCK, turn.slot, u64::from(turn.locks), 0);
        }
        held.done(turns);
        self.held = Some(held);
    }

    #[inline]
    fn apply(&mut self, event: &Event, change: Change) {
        let thread = event.thread;
        match change {
            Change::Born {
                slot,
                bytes,
                unknown,
            } => {
                let kind = match event.kind() {
                    Kind::Calloc if event.align_log2 == 0 => word::ZEROED,
                    _ => word::ALLOC,
                };
                self.facts.unknown_resizes += u64::from(unknown);
                self.facts.allocations += 1;
                self.facts.zeroed += u64::from(kind == word::ZEROED);
                self.facts.aligned += u64::from(event.align_log2 != 0);
                self.facts.requested_bytes = self.facts.requested_bytes.wrapping_add(bytes);
                self.facts.largest_bytes = self.facts.largest_bytes.max(bytes);
                self.live.add(bytes);
                self.op(thread, kind, slot, bytes, event.align_log2);
                self.seek_peak();
                self.owned(slot, event.thread);
                self.reuse.allocated(event.address);
                self.reuse_of(event.thread).allocated(event.address);
                if let Some(locks) = &mut self.locks {
                    locks.born(event, slot, self.facts.allocations);
                }
            }
            Change::Freed { slot, bytes } => {
                self.freed(thread, slot, bytes, event.thread);
                // That of a realloc that freed is the old one.
                let address = event.address | event.old_address;
                self.reuse.freed(address);
                self.reuse_of(event.thread).freed(address);
            }
            Change::Displaced { slot, bytes } => {
                self.facts.displaced += 1;
                self.freed(thread, slot, bytes, NO_THREAD);
            }
            Change::Resized { slot, from, to } => {
                self.facts.resizes += 1;
                self.facts.requested_bytes += to.saturating_sub(from);
                self.facts.largest_bytes = self.facts.largest_bytes.max(to);
                self.live.sub(from);
                self.live.add(to);
                self.op(thread, word::RESIZE, slot, to, 0);
                self.seek_peak();
            }
            Change::Failed => self.facts.failed += 1,
            Change::Unknown => self.facts.unknown_frees += 1,
        }
        let cut = self.output.may_cut();
        self.note(cut);
    }

    #[inline]
    fn freed(&mut self, thread: u32, slot: u32, bytes: u64, by: u32) {
        self.facts.frees += 1;
        self.live.sub(bytes);
        let owner = self.owners.get(slot as usize).copied();
        let owner = owner.unwrap_or(NO_THREAD);
        let is_cross = owner != by && owner != NO_THREAD && by != NO_THREAD;
        self.facts.cross_thread_frees += u64::from(is_cross);
        self.op(thread, word::FREE, slot, u64::from(is_cross), 0);
        if let Some(locks) = &mut self.locks {
            locks.freed(slot);
        }
    }

    /// Says who allocated the block in a slot.
    #[inline]
    fn owned(&mut self, slot: u32, thread: u32) {
        let slot = slot as usize;
        if slot >= self.owners.len() {
            self.owners.resize(slot + 1, NO_THREAD);
        }
        self.owners[slot] = thread;
    }

    #[inline]
    fn reuse_of(&mut self, thread: u32) -> &mut Reuse {
        let thread = thread as usize;
        if thread >= self.reuse_of.len() {
            self.reuse_of.resize(thread + 1, Reuse::default());
        }
        &mut self.reuse_of[thread]
    }

    #[inline]
    fn seek_peak(&mut self) {
        if self.live.bytes > self.peak.bytes {
            self.peak = self.live;
            self.output.peak();
            self.facts.peak_word = self.output.position();
        }
    }

    /// A block is there from the start on, or is not: everything that was seen since moves with it.
    fn correct(&mut self, correction: Correction) {
        let each = |live: &mut Live| match correction {
            Correction::There { bytes, .. } => live.add(bytes),
            Correction::Gone { bytes, .. } => live.sub(bytes),
        };
        each(&mut self.live);
        each(&mut self.peak);
        for point in &mut self.points {
            let mut live = Live {
                bytes: point.live_bytes,
                blocks: point.live_blocks,
                rounded: point.live_rounded_bytes,
            };
            each(&mut live);
            (point.live_bytes, point.live_blocks) = (live.bytes, live.blocks);
            point.live_rounded_bytes = live.rounded;
        }
        match correction {
            Correction::There { slot, bytes } => {
                self.facts.largest_bytes = self.facts.largest_bytes.max(bytes);
                match self.output.there(slot, bytes) {
                    Ok(slot) => drop(self.setup.insert(slot, bytes)),
                    Err(error) => self.note(Err(error)),
                }
            }
            Correction::Gone { slot, bytes } => {
                let slot = self.output.gone(slot, bytes);
                self.setup.remove(&slot);
            }
        }
    }

    fn finish(mut self, slots: u64) -> Result<Facts, ReplayError> {
        self.advance(self.facts.end_ns, self.latest_thread);
        while self.next_point_ns != u64::MAX {
            self.point(self.next_point_ns);
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        let setup: Vec<Op> = self
            .setup
            .iter()
            .map(|(&slot, &bytes)| Op {
                kind: word::ALLOC,
                slot,
                bytes,
                align_log2: 0,
            })
            .collect();
        let facts = &mut self.facts;
        facts.slots = self.output.slots(slots);
        facts.operations = facts.allocations + facts.resizes + facts.frees;
        facts.inherited_blocks = setup.len() as u64;
        facts.inherited_bytes = self.setup.values().sum();
        facts.peak_live_bytes = self.peak.bytes;
        facts.peak_live_blocks = self.peak.blocks;
        facts.peak_live_rounded_bytes = self.peak.rounded;
        facts.end_live_bytes = self.live.bytes;
        facts.end_live_blocks = self.live.blocks;
        facts.end_live_rounded_bytes = self.live.rounded;
        let of_threads = || self.reuse_of.iter().map(|reuse| reuse.counts);
        facts.reused_last = self.reuse.counts.last;
        facts.reused_recent = self.reuse.counts.recent;
        facts.reused_last_in_thread = of_threads().map(|counts| counts.last).sum();
        facts.reused_recent_in_thread = of_threads().map(|counts| counts.recent).sum();
        self.output.finish(self.facts, &setup, &self.points)
    }
}

impl Locks {
    fn born(&mut self, event: &Event, slot: u32, block: u64) {
        let slot_at = slot as usize;
        if slot_at >= self.blocks.len() {
            self.blocks.resize(slot_at + 1, 0);
        }
        self.blocks[slot_at] = block;
        self.ends.push_back(LockEnd {
            time_ns: event.time_ns.saturating_add(self.ns),
            slot,
            block,
            thread: event.thread,
        });
    }

    /// A thread has made a call.
    #[inline]
    fn called(&mut self, event: &Event) {
        // Of the two halves of a realloc the second.
        if event.step != Step::ReallocBegin
            && let Some(calls) = self.calls.get_mut(&event.thread)
        {
            *calls = calls.saturating_sub(1);
        }
    }

    /// Whether a thread has made all its calls.
    fn has_ended(&self, thread: u32) -> bool {
        self.calls.get(&thread) == Some(&0)
    }

    fn freed(&mut self, slot: u32) {
        if let Some(block) = self.blocks.get_mut(slot as usize) {
            *block = 0;
        }
    }
}

#[cfg(test)]
mod schedules;
#[cfg(test)]
mod twin;
