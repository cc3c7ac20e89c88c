//! Reads a trace and says what that took: what `benches/decode` runs.
//!
//! usage: read PART TRACE ROUNDS
//!
//! PART is `open` (frames read, checked, decompressed), `decode` (the same, and every call decoded),
//! `merge` (all calls of all threads in one order) or `verify`. Prints the calls of a round and the
//! microseconds of CPU time of the fastest.

use rmtrace_file::{Consumer, TraceReader, reader::FrameScratch, verify};
use std::process::ExitCode;

/// Counts what it is given.
#[derive(Default)]
struct Counter {
    events: u64,
}

impl Consumer for Counter {
    fn event(&mut self, _: &rmtrace_format::Event) {
        self.events += 1;
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
    match name {
        "open" => frames(reader, false),
        "decode" => frames(reader, true),
        "merge" => {
            let mut counter = Counter::default();
            reader.merge(&mut counter)?;
            if counter.events < reader.calls() {
                return Err("merging delivered fewer events than there are calls".into());
            }
            Ok(reader.calls())
        }
        "verify" => {
            if !verify::verify(reader)?.passed() {
                return Err("the trace is not whole".into());
            }
            Ok(reader.calls())
        }
        _ => Err(format!("`{name}` is none of open, decode, merge, verify").into()),
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
    for _ in 0..rounds.parse::<u32>()? {
        let before = cpu_us();
        let calls = part(name, &reader)?;
        if calls != reader.calls() {
            return Err(format!("{calls} of {} calls were seen", reader.calls()).into());
        }
        best = best.min(cpu_us() - before);
    }
    println!("{} {best}", reader.calls());
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
