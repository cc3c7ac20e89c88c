//! `rmtrace info`: what a trace holds and what it lost, without reading its events.

use anyhow::Context;
use rmtrace::file::model::{Ended, Mark, Process, StartedBy};
use rmtrace::file::{TraceReader, reader::FrameScratch};
use rmtrace::format::event::{Entry, Kind};
use rmtrace::format::spool;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Show what a trace holds: processes, threads, times, counts, losses, bytes per event.
#[derive(clap::Args)]
pub struct Args {
    /// Trace file, or the directory that LD_PRELOAD left.
    trace: PathBuf,
    /// One JSON object with exact integers (schema 1).
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reader = rmtrace::file::open(&args.trace)?;
    let counts = Counts::of(&reader)?;
    let name = args.trace.display().to_string();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = if args.json {
        writeln!(out, "{:#}", to_json(&reader, &counts, &name))
    } else {
        write_text(&mut out, &reader, &counts, &name)
    };
    finish(written.and_then(|()| out.flush()))?;
    Ok(warn_of_damage(&reader))
}

/// Tells on stderr what is missing; the exit status that belongs to it.
pub(super) fn warn_of_damage(reader: &TraceReader) -> ExitCode {
    for damage in reader.damage() {
        eprintln!("rmtrace: {}: {damage}", reader.path().display());
    }
    if reader.damage().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(super::EXIT_DAMAGED)
    }
}

/// Writing to a closed pipe is no failure: whoever reads has enough.
pub(super) fn finish(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing the result"),
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration with a fitting unit.
pub(super) fn duration(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        10_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// A number with its noun, in the singular or plural.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let plural = match (number, noun) {
        (1, _) => noun.to_string(),
        (_, "process") => "processes".to_string(),
        _ => format!("{noun}s"),
    };
    format!("{} {plural}", thousands(number))
}

/// Name of how a process started, as in JSON.
pub(super) fn started_by(process: &Process) -> &'static str {
    match process.started_by {
        StartedBy::Root => "root",
        StartedBy::Fork => "fork",
        StartedBy::Exec => "exec",
        StartedBy::Spawn => "spawn",
    }
}

/// Name of a process, with its role where it has one: `firefox-esr (tab)`.
pub(super) fn name_and_role(process: &Process) -> String {
    match (process.name.as_str(), process.role.as_str()) {
        (name, "") => name.to_string(),
        (name, role) => format!("{name} ({role})"),
    }
}

/// How a process ended, readable.
pub(super) fn ended(how: Ended) -> String {
    match how {
        Ended::Unknown => "end not seen".into(),
        Ended::Exit(None) => "exited".into(),
        Ended::Exit(Some(status)) => format!("exit status {status}"),
        Ended::Signal(signal) => format!("killed by signal {signal}"),
        Ended::Exec => "replaced by exec".into(),
    }
}

/// Calls by kind, and what was dropped.
#[derive(Clone, Copy, Default)]
struct Kinds([u64; Kind::COUNT]);

impl Kinds {
    fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn add(&mut self, other: &Kinds) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

/// Counts of each process, in the reader's order.
struct Counts {
    /// Of each process, calls of each of its threads by number.
    threads: Vec<Vec<(u32, Kinds)>>,
}

impl Counts {
    /// From what the threads counted, or from the events where that does not match the frames (a
    /// trace cut short).
    fn of(reader: &TraceReader) -> anyhow::Result<Counts> {
        let mut counts = Counts {
            threads: Vec::new(),
        };
        for process in reader.processes() {
            let threads = process.threads.iter();
            counts.threads.push(
                threads
                    .map(|thread| (thread.number, Kinds(thread.counters.calls)))
                    .collect(),
            );
        }
        if counts.total().total() == reader.calls() {
            return Ok(counts);
        }
        counts.threads.iter_mut().for_each(Vec::clear);
        let mut scratch = FrameScratch::default();
        for entry in reader.frames() {
            let frame = reader.frame(entry, &mut scratch)?;
            let at = reader
                .processes()
                .binary_search_by_key(&entry.process, |process| process.number);
            let Some(threads) = at.ok().and_then(|at| counts.threads.get_mut(at)) else {
                continue;
            };
            for (n, segment) in frame.segments.iter().enumerate() {
                let mut kinds = Kinds::default();
                if let Some(mut decoder) = frame.decoder(n) {
                    decoder
                        .decode(frame.columns(), u64::MAX, |call| {
                            kinds.0[call.entry.kind() as usize] += 1;
                        })
                        .with_context(|| format!("the frame at byte {}", entry.offset))?;
                }
                match threads
                    .iter_mut()
                    .find(|(thread, _)| *thread == segment.thread)
                {
                    Some((_, sum)) => sum.add(&kinds),
                    None => threads.push((segment.thread, kinds)),
                }
            }
        }
        Ok(counts)
    }

    fn process(&self, at: usize) -> Kinds {
        let mut sum = Kinds::default();
        for (_, kinds) in self.threads.get(at).into_iter().flatten() {
            sum.add(kinds);
        }
        sum
    }

    fn total(&self) -> Kinds {
        let mut sum = Kinds::default();
        for at in 0..self.threads.len() {
            sum.add(&self.process(at));
        }
        sum
    }
}

/// All marks; `None` if they can't be read.
fn marks(reader: &TraceReader) -> Option<Vec<Mark>> {
    let mut marks = Vec::new();
    for side in reader.sides() {
        marks.extend(reader.marks(side).ok()?);
    }
    Some(marks)
}

/// Number of the marks, and the names of the first.
fn marks_text(reader: &TraceReader) -> Option<String> {
    const SHOWN: usize = 8;
    let mut marks = marks(reader).filter(|marks| !marks.is_empty())?;
    marks.sort_by_key(|mark| mark.tick);
    let named = marks.iter().filter(|mark| !mark.name.is_empty());
    let mut names: Vec<&str> = named.map(|mark| mark.name.as_str()).collect();
    if names.len() > SHOWN {
        names.truncate(SHOWN);
        names.push("...");
    }
    let names = names.join(", ");
    let colon = if names.is_empty() { "" } else { ": " };
    Some(format!("{}{colon}{names}", thousands(marks.len() as u64)))
}

/// Calls dropped in all processes, by reason.
fn dropped(processes: &[Process]) -> [u64; spool::Drop::COUNT] {
    let mut sum = [0u64; spool::Drop::COUNT];
    for process in processes {
        for (sum, count) in sum.iter_mut().zip(process.dropped) {
            *sum = sum.saturating_add(count);
        }
    }
    sum
}

fn dropped_json(dropped: &[u64; spool::Drop::COUNT]) -> Value {
    let reasons = spool::Drop::ALL.iter().zip(dropped);
    reasons
        .map(|(reason, count)| (reason.name().to_string(), json!(count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// `0 dropped`, or the number with its reasons.
fn dropped_text(dropped: &[u64; spool::Drop::COUNT]) -> String {
    let total: u64 = dropped.iter().sum();
    let reasons: Vec<String> = spool::Drop::ALL
        .iter()
        .zip(dropped)
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{} {}", reason.name(), thousands(*count)))
        .collect();
    if reasons.is_empty() {
        "0 dropped".into()
    } else {
        format!("{} dropped ({})", thousands(total), reasons.join(", "))
    }
}

/// Names of the entries whose bits are set.
fn entry_names(bits: u64) -> Vec<&'static str> {
    Entry::ALL
        .iter()
        .filter(|entry| bits >> (**entry as u8) & 1 == 1)
        .map(|entry| entry.name())
        .collect()
}

const FLAGS: [(u32, &str); 7] = [
    (spool::FLAG_MONOTONIC, "monotonic_clock"),
    (spool::FLAG_CALLERS, "callers"),
    (spool::FLAG_USABLE, "usable"),
    (spool::FLAG_LATE, "late"),
    (spool::FLAG_ON_DISK, "pool_on_disk"),
    (spool::FLAG_NO_HOOKS, "no_hooks"),
    (spool::FLAG_NO_ALLOCATOR, "no_allocator"),
];

fn flag_names(flags: u32) -> Vec<&'static str> {
    FLAGS
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, name)| *name)
        .collect()
}

fn kinds_json(kinds: &Kinds, dropped: u64) -> Value {
    let mut map = serde_json::Map::new();
    map.insert("total".into(), json!(kinds.total()));
    for kind in Kind::ALL {
        map.insert(kind.name().into(), json!(kinds.0[kind as usize]));
    }
    map.insert("dropped".into(), json!(dropped));
    map.into()
}

/// Nanoseconds since the first record.
fn since_start(reader: &TraceReader, tick: u64) -> u64 {
    let origin = reader.ticks().map_or(0, |(first, _)| first);
    tick.saturating_sub(origin).saturating_mul(reader.tick_ns())
}

fn bytes_per_event(reader: &TraceReader) -> Option<f64> {
    let calls = reader.calls();
    (calls > 0).then(|| reader.file_bytes() as f64 / calls as f64)
}

/// Mean cost of recording a call over the processes where it was measured, weighted by calls.
fn cost_ns(reader: &TraceReader, counts: &Counts) -> Option<f64> {
    let (mut cost, mut calls) = (0.0, 0u64);
    for (at, process) in reader.processes().iter().enumerate() {
        if process.cost_ps > 0 {
            let n = counts.process(at).total();
            cost += process.cost_ps as f64 / 1000.0 * n as f64;
            calls += n;
        }
    }
    (calls > 0).then(|| cost / calls as f64)
}

fn process_json(reader: &TraceReader, counts: &Counts, at: usize, process: &Process) -> Value {
    let threads: Vec<Value> = counts.threads[at]
        .iter()
        .map(|(number, kinds)| {
            let thread = process.threads.iter().find(|t| t.number == *number);
            json!({
                "number": number,
                "tid": thread.map(|thread| thread.tid),
                "name": thread.map(|thread| thread.name.as_str()),
                "chunks": thread.map(|thread| thread.chunks),
                "chunks_missing": thread.map(|thread| thread.chunks_missing),
                "events": kinds_json(kinds, thread.map_or(0, |thread| thread.counters.dropped)),
            })
        })
        .collect();
    let (ended_by, status) = match process.ended {
        Ended::Unknown => ("unknown", None),
        Ended::Exit(status) => ("exit", status),
        Ended::Signal(signal) => ("signal", Some(signal)),
        Ended::Exec => ("exec", None),
    };
    let hooks = &process.hooks;
    json!({
        "number": process.number,
        "pid": process.pid,
        "pid_inside": process.pid_inside,
        "name": process.name,
        "role": process.role,
        "program": process.program,
        "arguments": process.arguments,
        "parent": process.parent,
        "started_by": started_by(process),
        "started_ns": since_start(reader, process.started),
        "ended_ns": since_start(reader, process.ended_at),
        "ended": ended_by,
        "ended_status": status,
        "events": kinds_json(&counts.process(at), process.dropped.iter().sum()),
        "dropped": dropped_json(&process.dropped),
        "waits": { "count": process.waits.0, "ns": process.waits.1 },
        "hooks": {
            "interposed": entry_names(hooks.interposed),
            "detoured": entry_names(hooks.detoured),
            "refused": entry_names(hooks.refused),
        },
        "flags": flag_names(process.flags),
        "cost_ps_per_event": process.cost_ps,
        "threads": threads,
    })
}

fn to_json(reader: &TraceReader, counts: &Counts, name: &str) -> Value {
    let info = reader.info();
    let processes = reader.processes();
    let dropped = dropped(processes);
    let process_values: Vec<Value> = processes
        .iter()
        .enumerate()
        .map(|(at, process)| process_json(reader, counts, at, process))
        .collect();
    json!({
        "schema": 1,
        "trace": name,
        "file_bytes": reader.file_bytes(),
        "files": reader.paths().count(),
        "bytes_per_event": bytes_per_event(reader),
        "tick_ns": reader.tick_ns(),
        "duration_ns": reader.ticks().map_or(0, |(_, last)| since_start(reader, last)),
        "events": kinds_json(&counts.total(), dropped.iter().sum()),
        "dropped": dropped_json(&dropped),
        "damage": reader.damage().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "cost_ns_per_event": cost_ns(reader, counts),
        "frames": reader.frames().len(),
        "marks": marks(reader).map(|marks| marks.len()).unwrap_or(0),
        "run": {
            "command": info.command,
            "writer": info.writer,
            "machine": info.machine,
            "collected": info.collected,
            "monotonic_clock": info.monotonic_clock,
            "realtime_ns": info.realtime_ns,
            "notes": info.notes,
            "remarks": info.remarks(),
        },
        "processes": process_values,
    })
}

fn write_text(
    out: &mut impl Write,
    reader: &TraceReader,
    counts: &Counts,
    name: &str,
) -> io::Result<()> {
    let processes = reader.processes();
    let threads: usize = counts.threads.iter().map(Vec::len).sum();
    let total = counts.total();
    let length = reader
        .ticks()
        .map_or(0, |(_, last)| since_start(reader, last));
    let damaged = match reader.damage().len() {
        0 => "",
        _ => ", DAMAGED or cut short",
    };
    let remarks: String = reader
        .info()
        .remarks()
        .iter()
        .map(|remark| format!(", {remark}"))
        .collect();
    writeln!(
        out,
        "{name}: {}, {}, {}, {}, {}{remarks}{damaged}",
        counted(total.total(), "event"),
        counted(processes.len() as u64, "process"),
        counted(threads as u64, "thread"),
        duration(length),
        dropped_text(&dropped(processes)),
    )?;
    let info = reader.info();
    if !info.command.is_empty() {
        writeln!(out, "command     {}", info.command.join(" "))?;
    }
    let how = if info.collected {
        "recorded by rmtrace record"
    } else {
        "packed from what LD_PRELOAD left"
    };
    writeln!(out, "written     {how}, {}", info.writer)?;
    if !info.machine.is_empty() {
        writeln!(out, "machine     {}", info.machine)?;
    }
    let clock = if info.monotonic_clock {
        "CLOCK_MONOTONIC"
    } else {
        "time-stamp counter"
    };
    writeln!(
        out,
        "clock       {clock}, stored in units of {} ns",
        reader.tick_ns()
    )?;
    write!(out, "size        {} bytes", thousands(reader.file_bytes()))?;
    match reader.paths().count() {
        0 | 1 => {}
        files => write!(out, " in {files} files")?,
    }
    match bytes_per_event(reader) {
        Some(bytes) => writeln!(out, ", {bytes:.2} per event")?,
        None => writeln!(out)?,
    }
    if let Some(cost) = cost_ns(reader, counts) {
        writeln!(
            out,
            "cost        {cost:.1} ns per event, as measured at the start"
        )?;
    }
    write!(out, "calls      ")?;
    for kind in Kind::ALL {
        write!(
            out,
            " {} {}",
            kind.name(),
            thousands(total.0[kind as usize])
        )?;
    }
    writeln!(out)?;
    if let Some(marks) = marks_text(reader) {
        writeln!(out, "marks       {marks}")?;
    }
    for note in &info.notes {
        writeln!(out, "note        {note}")?;
    }
    for (at, process) in processes.iter().enumerate() {
        write_process(out, reader, counts, at, process)?;
    }
    Ok(())
}

fn write_process(
    out: &mut impl Write,
    reader: &TraceReader,
    counts: &Counts,
    at: usize,
    process: &Process,
) -> io::Result<()> {
    let parent = match process.parent {
        Some(parent) => format!(", {} of process {parent}", started_by(process)),
        None => String::new(),
    };
    writeln!(
        out,
        "\nprocess {}: {}, pid {}{parent}, {}",
        process.number,
        name_and_role(process),
        process.pid,
        ended(process.ended),
    )?;
    writeln!(
        out,
        "  {} to {}, {}, {}, {}",
        duration(since_start(reader, process.started)),
        duration(since_start(reader, process.ended_at)),
        counted(counts.process(at).total(), "event"),
        counted(counts.threads[at].len() as u64, "thread"),
        dropped_text(&process.dropped),
    )?;
    let hooks = [
        ("interposed", process.hooks.interposed),
        ("patched", process.hooks.detoured),
        ("refused", process.hooks.refused),
    ];
    for (how, bits) in hooks.into_iter().filter(|(_, bits)| *bits != 0) {
        writeln!(out, "  {how:<10}  {}", entry_names(bits).join(", "))?;
    }
    if process.waits.0 > 0 {
        writeln!(
            out,
            "  waited      {} for the collector, {} in all",
            counted(process.waits.0, "time"),
            duration(process.waits.1)
        )?;
    }
    let flags = flag_names(process.flags);
    if !flags.is_empty() {
        writeln!(out, "  flags       {}", flags.join(", "))?;
    }
    let missing: u64 = process
        .threads
        .iter()
        .map(|thread| u64::from(thread.chunks_missing))
        .sum();
    if missing > 0 {
        writeln!(out, "  missing     {}", counted(missing, "chunk"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let grouped = [0, 12, 999, 1000, 1_234_567].map(thousands);
        assert_eq!(grouped, ["0", "12", "999", "1,000", "1,234,567"]);
        assert_eq!(counted(1, "process"), "1 process");
        assert_eq!(counted(2000, "process"), "2,000 processes");
        assert_eq!(counted(0, "event"), "0 events");
    }

    #[test]
    fn losses_are_named() {
        assert_eq!(dropped_text(&[0; spool::Drop::COUNT]), "0 dropped");
        let mut dropped = [0; spool::Drop::COUNT];
        dropped[spool::Drop::Nested as usize] = 1200;
        dropped[spool::Drop::PoolFull as usize] = 3;
        assert_eq!(
            dropped_text(&dropped),
            "1,203 dropped (pool_full 3, nested 1,200)"
        );
    }
}
