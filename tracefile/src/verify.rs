//! Checks a trace against what it says of itself: checksums, sequences, the threads' own counters,
//! order, and the address table.

use crate::error::{Damage, ReadError};
use crate::frame::{KIND_MARKS, KIND_PROCESS, KIND_RUN, KIND_SAMPLES};
use crate::index::FrameEntry;
use crate::model::{Call, Process, Thread};
use crate::reader::{FrameScratch, TraceReader};
use crate::scan::RECORD_BYTES_MAX;
use crate::table::{AddressTables, TableCounts};
use crate::{column, record};
use rmtrace_format::chunk::Counters;
use rmtrace_format::event::Kind;
use rmtrace_format::record::{Record, content_sum};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// Problems told in full; the rest is counted.
pub const PROBLEMS_MAX: usize = 100;

/// What a verification found.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// The first [`PROBLEMS_MAX`] problems, each a sentence.
    pub problems: Vec<String>,
    /// All problems.
    pub problem_count: u64,
    /// Things that are not as in an ideal trace but are no damage.
    pub notes: Vec<String>,
    /// Frames of all kinds.
    pub frames: u64,
    /// Calls in the frames.
    pub calls: u64,
    /// Threads whose counters were compared.
    pub threads_compared: u64,
    /// Times that several threads of a process had events at the same tick.
    pub ties: u64,
    /// Of these, those in which no order fits the address table.
    pub ties_unresolved: u64,
    /// The address tables, by process.
    pub tables: BTreeMap<u32, TableCounts>,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, problem: String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// What the records of one thread add up to.
#[derive(Clone, Copy, Default)]
struct Sums {
    counters: Counters,
    tick_sum: u64,
}

impl Sums {
    fn add(&mut self, call: &Call) {
        let kind = call.entry.kind();
        let counters = &mut self.counters;
        if let Some(count) = counters.calls.get_mut(kind as usize) {
            *count += 1;
        }
        counters.bytes = counters.bytes.wrapping_add(call.requested_bytes);
        counters.sum = content_sum(
            counters.sum,
            &Record {
                entry: call.entry,
                align_log2: call.align_log2,
                freed: call.freed,
                address: call.address,
                new_address: call.new_address,
                size: call.requested_bytes,
                tsc: 0,
                tsc_end: 0,
                caller: 0,
                usable: 0,
            },
        );
        self.tick_sum = self.tick_sum.wrapping_add(call.tick);
        if kind == Kind::Realloc {
            self.tick_sum = self.tick_sum.wrapping_add(call.tick_end);
        }
    }
}

/// A thread as its frames are read one after the other.
#[derive(Clone, Default)]
struct Stream {
    next_ordinal: u64,
    latest_tick: u64,
    sums: Sums,
    /// The sums without the last call: what the counters may be behind by.
    sums_before_last: Sums,
}

impl Stream {
    /// One whose first calls here are those from `ordinal` on: something is missing if there are others,
    /// unless the trace begins within its recording.
    fn of(reader: &TraceReader, ordinal: u64) -> Stream {
        Stream {
            next_ordinal: if reader.lacks_beginning() { ordinal } else { 0 },
            ..Stream::default()
        }
    }
}

/// Verifies a trace. Whatever is wrong with it is in the result; an error means that it can't be
/// read.
///
/// # Errors
/// When the file can't be read (not: when it is damaged).
pub fn verify(reader: &TraceReader) -> Result<Verification, ReadError> {
    let mut found = Verification::default();
    for damage in reader.damage() {
        found.problem(damage.to_string());
    }
    let paths: Vec<&Path> = reader.paths().collect();
    match paths.len() {
        1 => check_file(reader, &mut found)?,
        _ => {
            for path in paths {
                check_file(&TraceReader::open(path)?, &mut found)?;
            }
        }
    }
    if reader.lacks_beginning() {
        found.notes.push(
            "the recording's first files are not here: of what threads counted, the number of calls is \
             compared"
                .into(),
        );
    }
    let streams = check_frames(reader, &mut found)?;
    check_counters(reader, &streams, &mut found);
    check_addresses(reader, &mut found)?;
    Ok(found)
}

/// Walks over the file without the index and compares it with the index.
fn check_file(reader: &TraceReader, found: &mut Verification) -> Result<(), ReadError> {
    let mut scan = reader.scan();
    let mut processes: BTreeMap<u32, Process> = BTreeMap::new();
    let mut event_frames = 0u64;
    while let Some(frame) = scan.next_frame()? {
        found.frames += 1;
        let result = match frame.kind {
            KIND_RUN => column::unpack_blob(frame.payload, RECORD_BYTES_MAX)
                .and_then(|raw| record::run_from_bytes(&raw).map(drop)),
            KIND_PROCESS => column::unpack_blob(frame.payload, RECORD_BYTES_MAX)
                .and_then(|raw| record::process_from_bytes(&raw))
                .map(|process| drop(processes.insert(process.number, process))),
            KIND_SAMPLES => column::unpack_blob(frame.payload, RECORD_BYTES_MAX)
                .and_then(|raw| record::samples_from_bytes(&raw).map(drop)),
            KIND_MARKS => column::unpack_blob(frame.payload, RECORD_BYTES_MAX)
                .and_then(|raw| record::marks_from_bytes(&raw).map(drop)),
            crate::frame::KIND_EVENTS => {
                event_frames += 1;
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(what) = result {
            found.problem(format!("the record at byte {}: {what}", frame.offset));
        }
    }
    if !reader.damage().is_empty() {
        return Ok(()); // The scan has been told of already.
    }
    for damage in &scan.damage {
        found.problem(damage.to_string());
    }
    if event_frames != reader.frames().len() as u64 {
        found.problem(format!(
            "the file has {event_frames} whole frames of events, the index names {}",
            reader.frames().len()
        ));
    }
    for process in reader.processes() {
        if processes.get(&process.number) != Some(process) {
            found.problem(format!(
                "the index and the last record of process {} differ",
                process.number
            ));
        }
    }
    for number in processes.keys() {
        if reader.process(*number).is_none() {
            found.problem(format!("the index does not know process {number}"));
        }
    }
    Ok(())
}

/// Decodes every frame and checks the order of each thread.
fn check_frames(
    reader: &TraceReader,
    found: &mut Verification,
) -> Result<HashMap<(u32, u32), Stream>, ReadError> {
    let mut streams: HashMap<(u32, u32), Stream> = HashMap::new();
    let mut scratch = FrameScratch::default();
    for entry in reader.frames() {
        let frame = match reader.frame(entry, &mut scratch) {
            Ok(frame) => frame,
            Err(error @ ReadError::Damaged { .. }) => {
                found.problem(error.to_string());
                skip_frame(entry, &mut streams);
                continue;
            }
            Err(error) => return Err(error),
        };
        for (n, segment) in frame.segments.iter().enumerate() {
            let name = format!("process {} thread {}", entry.process, segment.thread);
            let stream = streams
                .entry((entry.process, segment.thread))
                .or_insert_with(|| Stream::of(reader, segment.first_ordinal));
            if segment.first_ordinal != stream.next_ordinal {
                found.problem(format!(
                    "{name}: the frame at byte {} goes on with call {}, expected was call {}",
                    entry.offset, segment.first_ordinal, stream.next_ordinal
                ));
            }
            stream.next_ordinal = segment.first_ordinal.saturating_add(segment.count);
            let Some(mut decoder) = frame.decoder(n) else {
                continue;
            };
            let mut ordinal = segment.first_ordinal;
            let mut first = None;
            let mut bad_order = None;
            let decoded = decoder.decode(frame.columns(), u64::MAX, |call| {
                first.get_or_insert(call.tick);
                if call.tick < stream.latest_tick || call.tick_end < call.tick {
                    bad_order.get_or_insert(ordinal);
                }
                stream.latest_tick = call.tick_end;
                stream.sums_before_last = stream.sums;
                stream.sums.add(call);
                ordinal += 1;
            });
            found.calls += segment.count;
            if let Err(what) = decoded {
                found.problem(format!(
                    "{name}: the frame at byte {}: {what}",
                    entry.offset
                ));
                continue;
            }
            if let Some(ordinal) = bad_order {
                found.problem(format!(
                    "{name}: call {ordinal} is before the one before it"
                ));
            }
            if first != Some(segment.first_tick) || stream.latest_tick != segment.last_tick {
                found.problem(format!(
                    "{name}: the frame at byte {} has other times than it says",
                    entry.offset
                ));
            }
        }
    }
    Ok(streams)
}

/// A frame that can't be read was told of once; its calls are not missed a second time.
fn skip_frame(entry: &FrameEntry, streams: &mut HashMap<(u32, u32), Stream>) {
    for segment in &entry.segments {
        let stream = streams.entry((entry.process, segment.thread)).or_default();
        stream.next_ordinal = segment.first_ordinal.saturating_add(segment.count);
    }
}

/// Compares what the records add up to with what the threads counted.
fn check_counters(
    reader: &TraceReader,
    streams: &HashMap<(u32, u32), Stream>,
    found: &mut Verification,
) {
    let unfinished = reader
        .damage()
        .iter()
        .any(|damage| matches!(damage, Damage::CutShort { .. } | Damage::NoEnd { .. }));
    if reader.lacks_end() {
        found.notes.push(
            "the threads' counters are not compared: the recording goes on in the next file".into(),
        );
        return;
    }
    if unfinished {
        found
            .notes
            .push("the threads' counters are not compared: their last values are missing".into());
        return;
    }
    let mut known = HashSet::new();
    for process in reader.processes() {
        for thread in &process.threads {
            let key = (process.number, thread.number);
            if !known.insert(key) {
                found.problem(format!(
                    "process {} thread {} is described twice",
                    key.0, key.1
                ));
            }
            found.threads_compared += 1;
            let empty = Stream::default();
            let stream = streams.get(&key).unwrap_or(&empty);
            if reader.lacks_beginning() {
                check_length(process, thread, stream, found);
                continue;
            }
            check_thread(process, thread, stream, found);
        }
    }
    let unknown = streams.keys().filter(|key| !known.contains(key)).count();
    if unknown > 0 {
        found.problem(format!(
            "{unknown} threads have events but no record of what they counted"
        ));
    }
}

/// Compares the number of a thread's calls, those in files that are not here included.
fn check_length(process: &Process, thread: &Thread, stream: &Stream, found: &mut Verification) {
    let counted = thread.counters.total();
    let behind = stream.next_ordinal.checked_sub(counted);
    let fits = match behind {
        Some(0) => true,
        Some(1) => thread.counters_may_lag,
        // All that it called is in the files that are not here.
        _ => stream.next_ordinal == 0,
    };
    if !fits {
        found.problem(format!(
            "process {} thread {}: the trace ends with its call {}, the thread counted {counted}",
            process.number, thread.number, stream.next_ordinal
        ));
    }
}

fn check_thread(process: &Process, thread: &Thread, stream: &Stream, found: &mut Verification) {
    let name = format!("process {} thread {}", process.number, thread.number);
    if thread.chunks_missing != 0 {
        found.problem(format!(
            "{name}: {} of {} chunks are missing",
            thread.chunks_missing, thread.chunks
        ));
    }
    // A thread that was killed between its stores leaves each counter with or without the last call.
    let (a, b) = (&stream.sums.counters, &thread.counters);
    let before = match thread.counters_may_lag {
        true => &stream.sums_before_last.counters,
        false => a,
    };
    let same_calls = (0..Kind::COUNT).all(|n| [a.calls[n], before.calls[n]].contains(&b.calls[n]));
    let same_sums =
        [a.bytes, before.bytes].contains(&b.bytes) && [a.sum, before.sum].contains(&b.sum);
    if !same_calls || !same_sums {
        for kind in Kind::ALL {
            let n = kind as usize;
            if a.calls[n] != b.calls[n] {
                found.problem(format!(
                    "{name}: {} calls of {} are there, the thread counted {}",
                    a.calls[n],
                    kind.name(),
                    b.calls[n]
                ));
            }
        }
        if a.bytes != b.bytes {
            found.problem(format!(
                "{name}: the requested bytes sum to {}, the thread counted {}",
                a.bytes, b.bytes
            ));
        }
        if a.calls == b.calls && a.sum != b.sum {
            found.problem(format!(
                "{name}: the calls are not those that were made (content sum {:016x}, the thread's is {:016x})",
                a.sum, b.sum
            ));
        }
    }
    if stream.sums.tick_sum != thread.tick_sum {
        found.problem(format!(
            "{name}: the times sum to {}, they did to {} when they were written",
            stream.sums.tick_sum, thread.tick_sum
        ));
    }
}

/// Replays the address tables.
fn check_addresses(reader: &TraceReader, found: &mut Verification) -> Result<(), ReadError> {
    let mut tables = AddressTables::default();
    match reader.merge(&mut tables) {
        Ok(stats) => {
            found.ties = stats.ties;
            found.ties_unresolved = stats.ties_unresolved;
        }
        Err(ReadError::Damaged { .. }) if found.problem_count > 0 => {
            found
                .notes
                .push("the address tables are not checked: a frame is damaged".into());
            return Ok(());
        }
        Err(error @ ReadError::Damaged { .. }) => {
            found.problem(error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    if tables.backwards > 0 {
        found.problem(format!(
            "{} events were delivered out of order",
            tables.backwards
        ));
    }
    let delivered: u64 = tables.calls.values().sum();
    if delivered != reader.calls() {
        found.problem(format!(
            "{delivered} calls were delivered, the frames have {}",
            reader.calls()
        ));
    }
    found.tables = tables.counts();
    for (number, counts) in found.tables.clone() {
        let calls = tables.calls.get(&number).copied().unwrap_or(0);
        if !counts.balanced() {
            found.problem(format!(
                "process {number}: {} inherited + {} allocated is not {} freed + {} live + {} allocated twice",
                counts.inherited,
                counts.allocated,
                counts.freed,
                counts.live,
                counts.live_duplicates + counts.lost_in_pause
            ));
        }
        if counts.inversions > 0 {
            found.problem(format!(
                "process {number}: {} times a free came after the next allocation of its address",
                counts.inversions
            ));
        }
        if counts.unknown_frees + counts.live_duplicates > 0 {
            found.notes.push(format!(
                "process {number}: {} unknown frees, {} allocations at live addresses, in {calls} calls",
                counts.unknown_frees, counts.live_duplicates
            ));
        }
        if counts.before_start + counts.lost_in_pause > 0 {
            found.notes.push(format!(
                "process {number}: recording was paused: {} frees of blocks from a pause or from before \
                 the start, {} blocks that ended in a pause",
                counts.before_start, counts.lost_in_pause
            ));
        }
    }
    Ok(())
}
