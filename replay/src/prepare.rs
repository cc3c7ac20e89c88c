//! From a trace to a program: one pass over the merged stream. What can't be replayed as it is gets repaired or
//! left out, with counts ([`Facts`]); `heap.rs` has the rules of what an event does, `program.rs` the file.

use crate::error::ReplayError;
use crate::heap::{Change, Correction, Heap};
use crate::program::{Facts, POINTS, Point, Writer};
use crate::word::{self, Op};
use rmtrace_file::TraceReader;
use rmtrace_file::consumer::Consumer;
use rmtrace_file::merge::MergeOptions;
use rmtrace_format::{Event, Kind};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

/// Events that wait for each other, so that lookups overlap.
const EVENTS_WAITING: usize = 256;

/// What to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Number of the process in the trace.
    pub process: u32,
    /// Locks that begin with a block end after so many nanoseconds of recorded time; `None`: no such locks.
    pub lock_ns: Option<u64>,
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
    wanted: Wanted,
    file: File,
    path: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Facts, ReplayError> {
    let chain = reader.with_ancestors(wanted.process);
    let mut preparation = Preparation::new(reader, wanted, &chain, Writer::new(file, path)?);
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
    preparation.finish()
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

struct Preparation {
    target: u32,
    /// The process and those that it was forked from, by number.
    heaps: Vec<(u32, Heap)>,
    waiting: Vec<Event>,
    script: Script,
}

/// What is written of the process.
struct Script {
    writer: Writer,
    facts: Facts,
    live: Live,
    peak: Live,
    /// Blocks that are allocated before the clock starts, by slot.
    setup: BTreeMap<u32, u64>,
    points: Vec<Point>,
    /// When the next point is; `u64::MAX`: all are there.
    next_point_ns: u64,
    locks: Option<Locks>,
    error: Option<ReplayError>,
}

/// Blocks that are still locked from their birth.
struct Locks {
    ns: u64,
    /// End of the lock, slot, number of the block that it belongs to.
    ends: VecDeque<(u64, u32, u64)>,
    /// Number of the block in a slot, from 1; 0: none.
    blocks: Vec<u64>,
}

impl Preparation {
    fn new(reader: &TraceReader, wanted: Wanted, chain: &[u32], writer: Writer) -> Preparation {
        let process = reader.process(wanted.process);
        let (start_ns, end_ns) = process.map_or((0, 0), |process| {
            (reader.ns(process.started), reader.ns(process.ended_at))
        });
        let dropped = process.map_or(0, |process| process.dropped.iter().sum());
        let mut script = Script {
            writer,
            facts: Facts {
                process: u64::from(wanted.process),
                dropped,
                start_ns,
                end_ns: end_ns.max(start_ns),
                lock_ns_plus_one: wanted.lock_ns.map_or(0, |ns| ns + 1),
                ..Facts::default()
            },
            live: Live::default(),
            peak: Live::default(),
            setup: BTreeMap::new(),
            points: Vec::with_capacity(POINTS as usize),
            next_point_ns: 0,
            locks: wanted.lock_ns.map(|ns| Locks {
                ns,
                ends: VecDeque::new(),
                blocks: Vec::new(),
            }),
            error: None,
        };
        script.next_point_ns = script.point_ns();
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

impl Consumer for Preparation {
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

    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        self.flush();
        Some(self.heap(process).is_some_and(|heap| heap.is_live(address)))
    }
}

impl Script {
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
        self.points.push(Point {
            word: self.facts.op_words,
            time_ns,
            live_bytes: self.live.bytes,
            live_blocks: self.live.blocks,
            live_rounded_bytes: self.live.rounded,
        });
        self.next_point_ns = self.point_ns();
    }

    /// Does what is due before something that happens at `time_ns`.
    #[cold]
    fn advance(&mut self, time_ns: u64) {
        loop {
            let end = self
                .locks
                .as_ref()
                .and_then(|locks| locks.ends.front().copied());
            match end {
                Some((end_ns, slot, block))
                    if end_ns <= time_ns && end_ns <= self.next_point_ns =>
                {
                    let locks = self.locks.as_mut();
                    let is_there = locks.is_some_and(|locks| {
                        locks.ends.pop_front();
                        locks.blocks[slot as usize] == block
                    });
                    if is_there {
                        self.facts.unlocks += 1;
                        self.op(word::UNLOCK, slot, 0, 0);
                    }
                }
                _ if self.next_point_ns < time_ns => self.point(self.next_point_ns),
                _ => break,
            }
        }
    }

    /// Adds an operation.
    #[inline]
    fn op(&mut self, kind: u64, slot: u32, bytes: u64, align_log2: u8) {
        if bytes > word::BYTES_MAX || align_log2 > word::ALIGN_LOG2_MAX {
            return self.unfit(bytes, align_log2);
        }
        let op = Op {
            kind,
            slot,
            bytes,
            align_log2,
        };
        let (wide, word) = op.encode();
        if let Some(wide) = wide {
            self.word(wide);
        }
        self.word(word);
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.facts.op_words += 1;
        if let Err(error) = self.writer.word(word) {
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
            self.advance(event.time_ns);
        }
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
                self.op(kind, slot, bytes, event.align_log2);
                self.seek_peak();
                if let Some(locks) = &mut self.locks {
                    locks.born(event.time_ns, slot, self.facts.allocations);
                }
            }
            Change::Freed { slot, bytes } => self.freed(slot, bytes),
            Change::Displaced { slot, bytes } => {
                self.facts.displaced += 1;
                self.freed(slot, bytes);
            }
            Change::Resized { slot, from, to } => {
                self.facts.resizes += 1;
                self.facts.requested_bytes += to.saturating_sub(from);
                self.facts.largest_bytes = self.facts.largest_bytes.max(to);
                self.live.sub(from);
                self.live.add(to);
                self.op(word::RESIZE, slot, to, 0);
                self.seek_peak();
            }
            Change::Failed => self.facts.failed += 1,
            Change::Unknown => self.facts.unknown_frees += 1,
        }
    }

    #[inline]
    fn freed(&mut self, slot: u32, bytes: u64) {
        self.facts.frees += 1;
        self.live.sub(bytes);
        self.op(word::FREE, slot, 0, 0);
        if let Some(locks) = &mut self.locks {
            locks.freed(slot);
        }
    }

    #[inline]
    fn seek_peak(&mut self) {
        if self.live.bytes > self.peak.bytes {
            self.peak = self.live;
            self.facts.peak_word = self.facts.op_words;
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
                self.setup.insert(slot, bytes);
            }
            Correction::Gone { slot, .. } => {
                self.setup.remove(&slot);
            }
        }
    }

    fn finish(mut self, slots: u64) -> Result<Facts, ReplayError> {
        self.advance(self.facts.end_ns);
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
        facts.slots = slots;
        facts.operations = facts.allocations + facts.resizes + facts.frees;
        facts.inherited_blocks = setup.len() as u64;
        facts.inherited_bytes = self.setup.values().sum();
        facts.peak_live_bytes = self.peak.bytes;
        facts.peak_live_blocks = self.peak.blocks;
        facts.peak_live_rounded_bytes = self.peak.rounded;
        facts.end_live_bytes = self.live.bytes;
        facts.end_live_blocks = self.live.blocks;
        facts.end_live_rounded_bytes = self.live.rounded;
        self.writer.finish(self.facts, &setup, &self.points)
    }
}

impl Locks {
    fn born(&mut self, time_ns: u64, slot: u32, block: u64) {
        let slot_at = slot as usize;
        if slot_at >= self.blocks.len() {
            self.blocks.resize(slot_at + 1, 0);
        }
        self.blocks[slot_at] = block;
        self.ends
            .push_back((time_ns.saturating_add(self.ns), slot, block));
    }

    fn freed(&mut self, slot: u32) {
        if let Some(block) = self.blocks.get_mut(slot as usize) {
            *block = 0;
        }
    }
}

#[cfg(test)]
mod twin;
