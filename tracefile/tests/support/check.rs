//! Compares a trace with what its threads counted themselves.
#![allow(dead_code)] // Each test binary uses a part of it.

use rmtrace_file::reader::FrameScratch;
use rmtrace_file::{Call, TraceReader};
use rmtrace_format::chunk::Counters;
use rmtrace_format::event::Kind;
use rmtrace_format::record::{Record, content_sum};
use std::collections::BTreeMap;

/// Every thread's calls, put together from the frames.
pub fn calls(reader: &TraceReader) -> BTreeMap<(u32, u32), Vec<Call>> {
    let mut all: BTreeMap<(u32, u32), Vec<Call>> = BTreeMap::new();
    let mut scratch = FrameScratch::default();
    for entry in reader.frames() {
        let frame = reader.frame(entry, &mut scratch).unwrap();
        for (n, segment) in frame.segments.iter().enumerate() {
            let to = all.entry((frame.process, segment.thread)).or_default();
            assert_eq!(segment.first_ordinal, to.len() as u64, "a gap");
            to.extend(frame.calls(n).unwrap());
        }
    }
    all
}

pub fn record_of(call: &Call) -> Record {
    Record {
        entry: call.entry,
        align_log2: call.align_log2,
        freed: call.freed,
        address: call.address,
        new_address: call.new_address,
        size: call.requested_bytes,
        tsc: call.tick,
        tsc_end: call.tick_end,
        caller: call.caller,
        usable: call.usable_bytes,
    }
}

/// What a thread that made these calls counts.
pub fn count(calls: &[Call]) -> Counters {
    let mut counters = Counters::default();
    for call in calls {
        counters.calls[call.entry.kind() as usize] += 1;
        if call.entry.kind() != Kind::Free {
            counters.bytes = counters.bytes.wrapping_add(call.requested_bytes);
        }
        counters.sum = content_sum(counters.sum, &record_of(call));
    }
    counters
}

/// The differences between a trace and its threads' counters.
pub fn differences(reader: &TraceReader) -> Vec<String> {
    let mut found = Vec::new();
    let all = calls(reader);
    for process in reader.processes() {
        for thread in &process.threads {
            let key = (process.number, thread.number);
            let calls = all.get(&key).map(Vec::as_slice).unwrap_or_default();
            let mut counters = thread.counters;
            counters.dropped = 0;
            // A kill between the stores leaves each counter with or without the last call.
            let all = count(calls);
            let before = match (thread.counters_may_lag, calls.split_last()) {
                (true, Some((_, before))) => count(before),
                _ => all,
            };
            let either = |a: u64, b: u64, n: u64| n == a || n == b;
            let same = either(all.bytes, before.bytes, counters.bytes)
                && either(all.sum, before.sum, counters.sum)
                && (0..counters.calls.len())
                    .all(|n| either(all.calls[n], before.calls[n], counters.calls[n]));
            if !same {
                found.push(format!(
                    "process {} ({}) thread {}: {} calls, counted {}, may lag {}",
                    process.number,
                    process.pid,
                    thread.number,
                    calls.len(),
                    counters.total(),
                    thread.counters_may_lag
                ));
            }
            let mut last = 0;
            let mut sum = 0u64;
            for call in calls {
                if call.tick < last || call.tick_end < call.tick {
                    found.push(format!("{key:?}: time goes backwards"));
                    break;
                }
                last = call.tick_end;
                sum = sum.wrapping_add(call.tick);
                if call.entry.kind() == Kind::Realloc {
                    sum = sum.wrapping_add(call.tick_end);
                }
            }
            if sum != thread.tick_sum {
                found.push(format!("{key:?}: tick sum differs"));
            }
        }
        let known = |thread: u32| process.threads.iter().any(|t| t.number == thread);
        for (of, thread) in all.keys() {
            if *of == process.number && !known(*thread) {
                found.push(format!("process {of} does not know its thread {thread}"));
            }
        }
    }
    found
}
