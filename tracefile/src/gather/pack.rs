//! A run directory becomes a trace file; a trace that its collector did not end is continued.

use super::buffers::Buffers;
use super::clock::{Clock, Stamps};
use super::cutter::{ProcessStreams, Reading};
use super::encoders::Encoders;
use super::error::GatherError;
use super::image::{Slot, SpoolId, SpoolImage};
use super::journal::Journal;
use super::processes::{Family, Link, Origin, anonymize, complete, describe, slot_of_image};
use super::run_dir::{JOURNAL_NAME, RunDir, stamps_of};
use super::stream::{Noticed, Scratch, ThreadStream, Until};
use crate::frame::FramePacker;
use crate::model::{Mark, Part, Process, RunInfo, StartedBy, TICK_NS_DEFAULT};
use crate::reader::{FrameScratch, TraceReader};
use crate::writer::TraceWriter;
use rmtrace_format::chunk::Triple;
use rmtrace_format::event::{Entry, Kind};
use rmtrace_format::record::MARK_SUSPEND;
use rmtrace_format::spool::{FLAG_LATE, FLAG_NO_ALLOCATOR, FLAG_NO_HOOKS, FLAG_ON_DISK};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// How to pack.
#[derive(Clone, Debug, Default)]
pub struct PackOptions {
    /// Leave out command lines, paths and the date.
    pub anonymous: bool,
    /// A trace of the same run that its collector did not end: its frames come first.
    pub begun: Option<PathBuf>,
}

/// What packing did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackReport {
    /// Calls in the trace.
    pub calls: u64,
    /// Of them, those that were in the trace that was continued.
    pub calls_begun: u64,
    /// Processes.
    pub processes: u32,
    /// Calls that were not recorded.
    pub dropped: u64,
    /// Bytes of the trace.
    pub bytes: u64,
    /// Calls that the threads' counters know of and the trace does not have.
    pub missing: u64,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// One process on its way into the trace.
struct Member {
    link: Link,
    image: Option<SpoolImage>,
    slot: Slot,
    streams: ProcessStreams,
    /// What the begun trace says of it.
    begun: Option<Process>,
    /// Whether it may still be running.
    in_use: bool,
}

impl Member {
    fn describe(&self, clock: &Clock, anonymous: bool) -> Process {
        let number = self.streams.process;
        let image = self.image.as_ref();
        let mut process = describe(number, self.link, image, &self.slot, &self.streams, clock);
        if let Some(begun) = &self.begun {
            merge_begun(&mut process, begun);
        }
        if anonymous {
            anonymize(&mut process);
        }
        process
    }
}

/// What only the collector could know stays.
fn merge_begun(process: &mut Process, begun: &Process) {
    process.pid = begun.pid;
    process.parent = begun.parent;
    process.started_by = begun.started_by;
    process.started = process.started.min(begun.started);
    process.ended_at = process.ended_at.max(begun.ended_at);
    if process.ended == crate::model::Ended::Unknown {
        process.ended = begun.ended;
    }
    if process.fork_positions.len() < begun.fork_positions.len() {
        process.fork_positions = begun.fork_positions.clone();
    }
    process.parent_threads = process.parent_threads.max(begun.parent_threads);
    if process.name.is_empty() {
        process.name = begun.name.clone();
    }
    if process.program.is_empty() {
        process.program = begun.program.clone();
        process.hooks = begun.hooks;
        process.flags = begun.flags;
        process.cost_ps = begun.cost_ps;
        process.dropped = begun.dropped;
        process.waits = begun.waits;
    }
    if process.arguments.is_empty() {
        process.arguments = begun.arguments.clone();
    }
    if !begun.role.is_empty() {
        process.role = begun.role.clone();
    }
    for thread in &mut process.threads {
        if let Some(known) = begun.threads.iter().find(|t| t.number == thread.number) {
            thread.name = known.name.clone();
            thread.chunks_missing = thread.chunks_missing.max(known.chunks_missing);
            if known.counters.total() > thread.counters.total() {
                thread.counters = known.counters;
                thread.counters_may_lag = known.counters_may_lag;
                thread.chunks = thread.chunks.max(known.chunks);
            }
        }
    }
    for known in &begun.threads {
        if !process.threads.iter().any(|t| t.number == known.number) {
            process.threads.push(known.clone());
        }
    }
    process.threads.sort_by_key(|t| t.number);
}

/// Packs the run in directory `run` into `out`. `progress` gets the calls written so far.
///
/// # Errors
/// When the run can't be read, nothing was recorded, or `out` can't be written.
pub fn pack<W: Write>(
    run: &Path,
    out: W,
    options: &PackOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<(W, PackReport), GatherError> {
    let mut dir = RunDir::open(run)?;
    let begun = match &options.begun {
        // With the files before it: the packed trace is one file.
        Some(path) => Some(crate::open(path)?),
        None => None,
    };
    let journal = Journal::read(&run.join(JOURNAL_NAME));
    let mut notes = Vec::new();
    let begun = match (begun, &journal) {
        (Some(_), None) => {
            notes
                .push("the collector's journal is missing: its trace was not continued".to_owned());
            None
        }
        (begun, _) => begun,
    };
    let journal = journal.filter(|_| begun.is_some());
    let tick_ns = begun.as_ref().map_or(TICK_NS_DEFAULT, TraceReader::tick_ns);
    let (clock, suspends) = make_clock(&dir, journal.as_ref(), tick_ns, &mut notes);
    let mut members = number(&mut dir, journal.as_ref(), begun.as_ref());
    if members.is_empty() {
        return Err(GatherError::Nothing {
            path: run.to_owned(),
        });
    }
    let mut report = PackReport::default();
    if let Some(begun) = &begun {
        resume(&mut members, begun, journal.as_ref(), &mut report)?;
    }
    let mut info = match &begun {
        Some(begun) => begun.info().clone(),
        None => run_info(&dir, &members, &clock),
    };
    // One file takes the place of several; those before the first one that is here stay away.
    info.part = match info.part {
        part @ Part { number: 1.., .. } => Part {
            goes_on: false,
            ..part
        },
        _ => Part::default(),
    };
    if info.part.number == 0 {
        info.part = Part::default();
    }
    if options.anonymous {
        info.command.clear();
        info.realtime_ns = 0;
    }
    let mut writer = TraceWriter::new(out, &info, tick_ns)?;
    for member in &members {
        writer.process(&member.describe(&clock, options.anonymous))?;
    }
    // Those that only the begun trace knows, as the journal lost them.
    let mut others: Vec<Process> = begun
        .iter()
        .flat_map(TraceReader::processes)
        .filter(|process| process.number as usize >= members.len())
        .cloned()
        .collect();
    for other in &mut others {
        if options.anonymous {
            anonymize(other);
        }
        writer.process(other)?;
    }
    if let Some(begun) = &begun {
        copy_begun(begun, &mut writer, &mut report)?;
        progress(report.calls);
    }
    let mut seen_marks = begun_marks(begun.as_ref())?;
    let suspend_marks: Vec<Mark> = suspends
        .iter()
        .map(|&(at_ns, length_ns)| suspend_mark(&clock, at_ns, length_ns))
        .filter(|mark| seen_marks.insert(key(mark)))
        .collect();
    if !suspend_marks.is_empty() {
        writer.marks(&suspend_marks)?;
    }
    let mut noticed = Noticed::default();
    let buffers = Buffers::default();
    std::thread::scope(|scope| -> Result<(), GatherError> {
        let count = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let mut encoders = Encoders::start(scope, count, FramePacker::default, &buffers);
        let mut scratch = Scratch::default();
        for member in &mut members {
            let mut reading = Reading {
                clock: &clock,
                files: &dir.files,
                scratch: &mut scratch,
                buffers: &buffers,
                noticed: &mut noticed,
            };
            let limit = end_of(&member.streams);
            loop {
                let cut = member.streams.next_cut(limit);
                let until = Until {
                    stamp: cut.unwrap_or(u64::MAX),
                    missing_is_lost: true,
                    open_is_done: !member.in_use,
                };
                let mut marks = Vec::new();
                let (window, again) =
                    member
                        .streams
                        .window(until, &mut reading, &mut marks, |_, _| {});
                marks.retain(|mark| seen_marks.is_empty() || !seen_marks.contains(&key(mark)));
                if !marks.is_empty() {
                    writer.marks(&marks)?;
                }
                let empty = window.segments.is_empty();
                if !empty {
                    encoders.send(window);
                }
                while let Some(frame) = encoders.take(false) {
                    report.calls += frame.calls();
                    writer.frame(&frame)?;
                    buffers.give_encoded(frame);
                    progress(report.calls);
                }
                if cut.is_none() && !again {
                    break;
                }
            }
            if member.in_use {
                // What it counted since is not in this trace.
                for stream in member.streams.threads.values_mut() {
                    stream.stop_at_taken(&dir.files);
                }
            }
        }
        while let Some(frame) = encoders.take(true) {
            report.calls += frame.calls();
            writer.frame(&frame)?;
            progress(report.calls);
        }
        Ok(())
    })?;
    let mut processes: Vec<Process> = members
        .iter()
        .map(|member| member.describe(&clock, options.anonymous))
        .chain(others)
        .collect();
    complete(&mut processes);
    for process in &processes {
        writer.process(process)?;
        let dropped = process
            .dropped
            .iter()
            .fold(0u64, |s, n| s.saturating_add(*n));
        report.dropped = report.dropped.saturating_add(dropped);
    }
    report.processes = processes.len() as u32;
    for member in &members {
        for stream in member.streams.threads.values() {
            let total = stream.counters.total();
            let missing = total.saturating_sub(stream.next_ordinal());
            report.missing = report.missing.saturating_add(missing);
        }
    }
    notes.extend(run_notes(&dir, &members, &noticed, &report));
    info.notes.extend(notes.iter().cloned());
    report.notes = notes;
    // What follows is the index; its size is small against the frames.
    let out = writer.finish(&info)?;
    Ok((out, report))
}

/// What tells marks apart.
type MarkKey = (u32, u32, u64, u32, u64, String);

fn key(mark: &Mark) -> MarkKey {
    (
        mark.process,
        mark.thread,
        mark.ordinal,
        mark.number,
        mark.value,
        mark.name.clone(),
    )
}

/// The mark of a suspend that ended at `at_ns` on CLOCK_MONOTONIC. It belongs to no process; number
/// 0 stands for the run.
pub fn suspend_mark(clock: &Clock, at_ns: u64, length_ns: u64) -> Mark {
    Mark {
        tick: clock.tick_of_monotonic(at_ns),
        process: 0,
        thread: 0,
        ordinal: 0,
        number: MARK_SUSPEND as u32,
        value: length_ns,
        name: "suspend".to_owned(),
    }
}

/// A stamp behind everything.
fn end_of(streams: &ProcessStreams) -> u64 {
    streams
        .threads
        .values()
        .flat_map(ThreadStream::left)
        .map(|(from, until, _)| from.max(until))
        .max()
        .unwrap_or(0)
        .saturating_add(1)
}

fn make_clock(
    dir: &RunDir,
    journal: Option<&Journal>,
    tick_ns: u64,
    notes: &mut Vec<String>,
) -> (Clock, Vec<(u64, u64)>) {
    // Spools whose stamps are CLOCK_MONOTONIC say nothing about the TSC.
    let readings: Vec<Triple> = dir
        .readings
        .iter()
        .copied()
        .filter(|r| r.tsc != r.monotonic_ns)
        .collect();
    let hz = dir
        .spools
        .values()
        .filter_map(|spool| spool.image.as_ref())
        .map(|image| image.tsc_hz)
        .find(|hz| *hz != 0);
    let origin_ns = match journal {
        Some(journal) => journal.origin_ns,
        None => {
            let earliest = dir.readings.iter().map(|r| r.monotonic_ns);
            earliest.filter(|ns| *ns != 0).min().unwrap_or(0)
        }
    };
    let mut clock = Clock::new(origin_ns, tick_ns);
    let hz = hz.or(journal.map(|j| j.tsc_hz)).unwrap_or(0);
    for reading in journal.iter().flat_map(|journal| &journal.clock) {
        clock.push(reading, hz);
    }
    let report = clock.fit(&readings, hz);
    notes.extend(report.note());
    (clock, report.suspends)
}

/// Numbers the processes of a run and finds out where each came from.
fn number(dir: &mut RunDir, journal: Option<&Journal>, begun: Option<&TraceReader>) -> Vec<Member> {
    let mut found: BTreeMap<(SpoolId, u32), (Origin, Member)> = BTreeMap::new();
    for (id, spool) in &mut dir.spools {
        if let Some(image) = &spool.image
            && !spool.slots.contains_key(&0)
        {
            spool.slots.insert(0, slot_of_image(image));
        }
        let numbers: BTreeSet<u32> = spool
            .slots
            .keys()
            .chain(spool.processes.keys())
            .copied()
            .collect();
        for number in numbers {
            let mut streams = spool.processes.remove(&number).unwrap_or_default();
            streams.stamps = stamps_of(spool.image.as_ref());
            let slot = spool.slots.get(&number).cloned().unwrap_or_else(|| Slot {
                number,
                started: first_reading(&streams),
                ..Slot::default()
            });
            let member = Member {
                link: Link::default(),
                image: spool.image.clone(),
                slot,
                streams,
                begun: None,
                in_use: spool.in_use,
            };
            let origin = Origin::new(*id, &member.slot);
            found.insert((*id, number), (origin, member));
        }
    }
    let mut family = Family::default();
    let mut members = Vec::new();
    // Those that the journal numbered keep their numbers, also if nothing is left of them.
    for (number, (id, in_spool)) in journal.iter().flat_map(|journal| &journal.processes) {
        if *number != family.len() {
            break;
        }
        let known = begun.and_then(|begun| begun.process(*number)).cloned();
        let (origin, mut member) = found.remove(&(*id, *in_spool)).unwrap_or_else(|| {
            let slot = Slot {
                number: *in_spool,
                pid: known.as_ref().map_or(0, |p| p.pid_inside),
                ..Slot::default()
            };
            let member = Member {
                link: Link::default(),
                image: None,
                slot,
                streams: ProcessStreams::default(),
                begun: None,
                in_use: false,
            };
            (Origin::new(*id, &member.slot), member)
        });
        (member.streams.process, member.link) = family.add(origin);
        member.begun = known;
        members.push(member);
    }
    let mut rest: Vec<(Origin, Member)> = found.into_values().collect();
    rest.sort_by_key(|(origin, _)| (origin.started_ns, origin.spool, origin.number_in_spool));
    for (origin, mut member) in rest {
        (member.streams.process, member.link) = family.add(origin);
        members.push(member);
    }
    members
}

/// When a process that left no slot began, as far as its chunks tell.
fn first_reading(streams: &ProcessStreams) -> Triple {
    let stamp = streams
        .threads
        .values()
        .flat_map(ThreadStream::left)
        .map(|(from, _, _)| from)
        .min()
        .unwrap_or(0);
    Triple {
        tsc: stamp,
        monotonic_ns: u64::MAX,
        boottime_ns: 0,
    }
}

/// Sets every stream behind what the begun trace holds of it.
fn resume(
    members: &mut [Member],
    begun: &TraceReader,
    journal: Option<&Journal>,
    report: &mut PackReport,
) -> Result<(), GatherError> {
    let mut sums: BTreeMap<(u32, u32), (u64, u64, u64)> = BTreeMap::new();
    let mut scratch = FrameScratch::default();
    for entry in begun.frames() {
        let frame = begun.frame(entry, &mut scratch)?;
        for (n, segment) in frame.segments.iter().enumerate() {
            let calls = frame
                .calls(n)
                .map_err(|found| crate::error::ReadError::Damaged {
                    path: begun.path().to_owned(),
                    offset: entry.offset,
                    what: "the frame of events",
                    found: found.to_string(),
                })?;
            let (sum, last, first) =
                sums.entry((frame.process, segment.thread))
                    .or_insert((0, 0, segment.first_tick));
            *first = segment.first_tick.min(*first);
            for call in &calls {
                *sum = sum.wrapping_add(call.tick);
                if call.entry.kind() == Kind::Realloc {
                    *sum = sum.wrapping_add(call.tick_end);
                }
                *last = call.tick_end.max(*last);
            }
        }
    }
    report.calls_begun = begun.calls();
    for ((process, thread), (sum, last, first)) in sums {
        let calls = begun.next_ordinal(process, thread);
        if let Some(member) = members.get_mut(process as usize) {
            let stream = member.streams.thread(thread);
            stream.resume(calls, last, sum, first);
        }
    }
    for ((process, thread), state) in journal.iter().flat_map(|journal| &journal.threads) {
        if let Some(member) = members.get_mut(*process as usize) {
            let stream = member.streams.thread(*thread);
            if begun.lacks_beginning() && stream.next_ordinal() == 0 {
                // All that it called until then was in files that are gone.
                let first = begun.ticks().map_or(0, |(first, _)| first);
                stream.resume(state.counters.total(), 0, 0, first);
            }
            stream.known(state.tid, state.sequence, &state.counters);
        }
    }
    Ok(())
}

fn begun_marks(begun: Option<&TraceReader>) -> Result<BTreeSet<MarkKey>, GatherError> {
    let mut seen = BTreeSet::new();
    if let Some(begun) = begun {
        for side in begun.sides() {
            seen.extend(begun.marks(side)?.iter().map(key));
        }
    }
    Ok(seen)
}

fn copy_begun<W: Write>(
    begun: &TraceReader,
    writer: &mut TraceWriter<W>,
    report: &mut PackReport,
) -> Result<(), GatherError> {
    for entry in begun.frames() {
        writer.frame(&begun.raw_frame(entry)?)?;
        report.calls += entry.calls();
    }
    for side in begun.sides() {
        let samples = begun.samples(side)?;
        if !samples.is_empty() {
            writer.samples(&samples)?;
        }
        let marks = begun.marks(side)?;
        if !marks.is_empty() {
            writer.marks(&marks)?;
        }
    }
    Ok(())
}

fn run_info(dir: &RunDir, members: &[Member], clock: &Clock) -> RunInfo {
    let first = members.iter().find_map(|m| m.image.as_ref());
    let realtime_ns = first.map_or(0, |image| {
        let since = image.started.monotonic_ns.saturating_sub(clock.origin_ns());
        image.realtime_ns.saturating_sub(since)
    });
    RunInfo {
        command: first
            .map(|image| image.arguments.clone())
            .unwrap_or_default(),
        realtime_ns,
        writer: concat!("rmtrace ", env!("CARGO_PKG_VERSION")).to_owned(),
        // Where the pool is, the run was recorded.
        machine: match &dir.pool {
            Some(_) => machine(),
            None => String::new(),
        },
        collected: false,
        monotonic_clock: members
            .iter()
            .any(|m| m.image.is_some() && m.streams.stamps == Stamps::Monotonic),
        ..RunInfo::default()
    }
}

/// The processor's model.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'))
        .map(|(_, name)| name.trim().to_owned())
        .unwrap_or_default()
}

/// Notes on what the spools' flags say; used by the collector too.
pub fn flag_notes(flags: impl Iterator<Item = u32> + Clone) -> Vec<String> {
    let count = |flag: u32| flags.clone().filter(|f| f & flag != 0).count();
    let mut notes = Vec::new();
    let mut say = |flag: u32, what: &str| {
        let n = count(flag);
        if n > 0 {
            notes.push(format!("{n} of the processes: {what}"));
        }
    };
    say(
        FLAG_LATE,
        "other libraries or threads ran before the recorder could start; calls before that are missing",
    );
    say(
        FLAG_ON_DISK,
        "the pool was not on a memory file system, which slows the program down",
    );
    say(FLAG_NO_HOOKS, "no allocation function could be hooked");
    say(
        FLAG_NO_ALLOCATOR,
        "the program calls no allocation function that could be found: if it has an allocator of its own, \
         that is not recorded (its debug symbols, in Debian a -dbgsym package, can help)",
    );
    notes
}

/// A note on functions that could not be patched, of processes' bits of them; used by the collector too.
pub fn refused_note(refused: impl Iterator<Item = u64>) -> Option<String> {
    let (processes, bits) = refused
        .filter(|bits| *bits != 0)
        .fold((0, 0), |(count, all), bits| (count + 1, all | bits));
    let names: Vec<&str> = Entry::ALL
        .iter()
        .filter(|entry| bits >> (**entry as u8) & 1 == 1)
        .map(|entry| entry.name())
        .collect();
    (processes > 0).then(|| {
        format!(
            "{processes} of the processes: some functions could not be patched, and calls of them may be \
             missing: {}",
            names.join(", ")
        )
    })
}

fn run_notes(
    dir: &RunDir,
    members: &[Member],
    noticed: &Noticed,
    report: &PackReport,
) -> Vec<String> {
    let mut notes = flag_notes(members.iter().filter_map(|m| Some(m.image.as_ref()?.flags)));
    let refused = members.iter().filter_map(|m| m.image.as_ref());
    notes.extend(refused_note(refused.map(|image| image.hooks.refused)));
    if members
        .iter()
        .any(|m| m.link.started_by != StartedBy::Root && m.link.parent.is_none())
    {
        notes.push("the parent of a process was not recorded".to_owned());
    }
    if members.iter().any(|m| m.in_use) {
        notes.push("processes were still running: what they did later is missing".to_owned());
    }
    if dir.torn_bytes > 0 {
        notes.push(format!(
            "{} bytes of `chunks` belong to no whole chunk (writes that were cut short)",
            dir.torn_bytes
        ));
    }
    notes.extend(noticed_notes(noticed));
    if report.missing > 0 {
        notes.push(format!(
            "{} calls that the threads counted are not there",
            report.missing
        ));
    }
    notes
}

/// Notes on what decoding noticed.
pub fn noticed_notes(noticed: &Noticed) -> Vec<String> {
    let mut notes = Vec::new();
    if noticed.damaged > 0 {
        notes.push(format!(
            "{} chunks could not be decoded to their end",
            noticed.damaged
        ));
    }
    if noticed.repaired > 0 {
        notes.push(format!(
            "{} stamps lay before their predecessor's in the same thread and were set to it",
            noticed.repaired
        ));
    }
    notes
}
