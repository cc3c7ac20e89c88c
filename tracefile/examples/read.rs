//! Reads a trace and says what that took: what `benches/decode` runs.
//!
//! usage: read PART TRACE ROUNDS
//!
//! PART is `open` (frames read, checked, decompressed), `decode` (the same, and every call decoded),
//! `merge` (all calls of all threads in one order), `table` (the same, and each put into a table of live
//! blocks), `window` (as `merge`, of the hundredth of the time in the middle) or `verify`. `merge+N` and `table+N` have the help of N threads. Prints the calls of a round
//! and the microseconds of the fastest: of CPU time, with help of time.

use rmtrace_file::table::AddressTables;
use rmtrace_file::{Consumer, MergeOptions, TraceReader, reader::FrameScratch, verify};
use std::process::ExitCode;
use std::time::Instant;

/// Counts what it is given.
#[derive(Default)]
struct Counter {
    events: u64,
    calls: u64,
}

impl Consumer for Counter {
    fn event(&mut self, event: &rmtrace_format::Event) {
        self.events += 1;
        self.calls += u64::from(event.counts());
    }
}

type Failure = Box<dyn std::error::Error>;

/// Opens every frame, and with `calls` decodes what is in it. The calls seen.
fn frames(reader: &TraceReader, calls: bool) -> Result<u64, Failure> {
    let mut scratch = FrameScratch::default();
    let (mut seen, mut addresses) = (0, 0u64);
    for entry in reader.frames() {
        let frame = reader.frame(entry, &mut scratch)?;
        for segment in 0..frame.segments.len() {
            let Some(mut decoder) = frame.decoder(segment) else {
                return Err("a frame without one of its segments".into());
            };
            if calls {
                let sink = |call: &rmtrace_file::Call| {
                    seen += 1;
                    addresses = addresses.rotate_left(1) ^ call.address ^ call.tick;
                };
                decoder.decode(frame.columns(), u64::MAX, sink)?;
            } else {
                seen += decoder.left();
            }
        }
    }
    std::hint::black_box(addresses);
    Ok(seen)
}

fn part(name: &str, reader: &TraceReader) -> Result<u64, Failure> {
    let (name, workers) = match name.split_once('+') {
        Some((name, workers)) => (name, workers.parse()?),
        None => (name, 0),
    };
    let options = MergeOptions {
        workers,
        ..MergeOptions::default()
    };
    match name {
        "open" => frames(reader, false),
        "decode" => frames(reader, true),
        "merge" => {
            let mut counter = Counter::default();
            reader.merge_with(&mut counter, options)?;
            if counter.events < reader.calls() {
                return Err("merging delivered fewer events than there are calls".into());
            }
            Ok(reader.calls())
        }
        "window" => {
            let last_ns = reader.ticks().map_or(0, |(_, last)| reader.ns(last));
            let from = last_ns / 200 * 99;
            let options = MergeOptions {
                window: Some(from..from + last_ns / 100),
                ..options
            };
            let mut counter = Counter::default();
            reader.merge_with(&mut counter, options)?;
            Ok(counter.calls)
        }
        "table" => {
            let mut tables = AddressTables::default();
            reader.merge_with(&mut tables, options)?;
            Ok(tables.calls.values().sum())
        }
        "verify" => {
            if !verify::verify(reader)?.passed() {
                return Err("the trace is not whole".into());
            }
            Ok(reader.calls())
        }
        _ => Err(format!("`{name}` is none of open, decode, merge, table, window, verify").into()),
    }
}

fn cpu_us() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, trace, rounds] = arguments.as_slice() else {
        return Err("usage: read PART TRACE ROUNDS".into());
    };
    let reader = TraceReader::open(trace.as_ref())?;
    let mut best = u64::MAX;
    let mut seen = 0;
    let has_help = name.contains('+');
    for _ in 0..rounds.parse::<u32>()? {
        let (before, began) = (cpu_us(), Instant::now());
        let calls = part(name, &reader)?;
        seen = calls;
        if calls != reader.calls() && name != "window" {
            return Err(format!("{calls} of {} calls were seen", reader.calls()).into());
        }
        best = best.min(match has_help {
            true => began.elapsed().as_micros() as u64,
            false => cpu_us() - before,
        });
    }
    println!("{seen} {best}");
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("read: {error}");
            ExitCode::from(2)
        }
    }
}
