//! Makes a long trace of a short one: what `benches/billion` runs.
//!
//! usage: repeat SOURCE OUT CALLS
//!
//! Repeats the calls of the process of SOURCE that made most, as further stretches of the same process,
//! until there are CALLS of them, to the end of a frame. What lives at the end of a stretch is freed
//! there, by the process' first thread, so that the live set of the whole is that of one stretch. Each
//! stretch begins with a mark, `stretch N`, from 0. The trace has no counters of the threads' own:
//! `rmtrace verify` misses them.
//!
//! A frame is held at a time, whatever CALLS is. Prints the calls written and how many stretches there
//! are, the last one cut short.

use rmtrace_file::reader::FrameScratch;
use rmtrace_file::{
    Call, Consumer, Ended, Mark, MergeOptions, Process, Segment, StartedBy, TraceReader,
    TraceWriter, Window, WindowEncoder,
};
use rmtrace_format::event::{Entry, Event, Step};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

/// Ticks between a stretch and the next.
const GAP_TICKS: u64 = 40;
/// Frees that are put into a frame.
const FREES: usize = 100_000;

/// The addresses of live blocks.
#[derive(Default)]
struct Live {
    blocks: BTreeSet<u64>,
    /// Blocks whose realloc has begun, by thread.
    moving: HashMap<u32, u64>,
}

impl Consumer for Live {
    fn event(&mut self, event: &Event) {
        match event.step {
            Step::Alloc => drop(self.blocks.insert(event.address)),
            Step::Free => drop(self.blocks.remove(&event.address)),
            Step::ReallocBegin => {
                if self.blocks.remove(&event.old_address) {
                    self.moving.insert(event.thread, event.old_address);
                }
            }
            Step::ReallocEnd => {
                let moved = self.moving.remove(&event.thread);
                if event.address != 0 {
                    self.blocks.insert(event.address);
                } else if event.flags & Event::FREED == 0 {
                    self.blocks.extend(moved);
                }
            }
        }
    }
}

/// The process with most calls.
fn busiest(reader: &TraceReader) -> Option<&Process> {
    let mut calls: HashMap<u32, u64> = HashMap::new();
    for frame in reader.frames() {
        *calls.entry(frame.process).or_default() += frame.calls();
    }
    let most = calls
        .iter()
        .max_by_key(|(number, calls)| (**calls, **number));
    reader.process(*most?.0)
}

fn free(address: u64, tick: u64) -> Call {
    Call {
        entry: Entry::Free,
        align_log2: 0,
        freed: false,
        address,
        new_address: 0,
        requested_bytes: 0,
        tick,
        tick_end: tick,
        caller: 0,
        usable_bytes: 0,
    }
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, out, wanted] = arguments.as_slice() else {
        return Err("usage: repeat SOURCE OUT CALLS".into());
    };
    let wanted: u64 = wanted.parse()?;
    let reader = TraceReader::open(source.as_ref())?;
    let source = busiest(&reader).ok_or("the trace has no calls")?;
    let mut live = Live::default();
    let options = MergeOptions {
        processes: Some(vec![source.number]),
        ..MergeOptions::default()
    };
    reader.merge_with(&mut live, options)?;
    live.blocks.remove(&0);

    let mut writer = TraceWriter::new(
        BufWriter::new(File::create(out)?),
        reader.info(),
        reader.tick_ns(),
    )?;
    let mut process = Process {
        number: 0,
        parent: None,
        started_by: StartedBy::Root,
        fork_positions: Vec::new(),
        threads: Vec::new(),
        ended: Ended::Unknown,
        ..source.clone()
    };
    writer.process(&process)?;
    let frames = || {
        reader
            .frames()
            .iter()
            .filter(|frame| frame.process == source.number)
    };
    let first = frames().map(|frame| frame.first_tick()).min().unwrap_or(0);
    let last = frames().map(|frame| frame.last_tick()).max().unwrap_or(0);
    let frees = live.blocks.len() as u64;
    let thread = reader.threads_of(source.number).next();
    let freeing = thread.map_or(0, |(thread, _)| *thread);

    let mut scratch = FrameScratch::default();
    let mut encoder = WindowEncoder::new();
    let mut marks = Vec::new();
    let (mut written, mut stretch, mut shift, mut end) = (0, 0, 0, 0);
    // Calls of each thread in the stretches before.
    let mut before: HashMap<u32, u64> = HashMap::new();
    'stretches: while written < wanted {
        marks.push(Mark {
            tick: first + shift,
            process: 0,
            thread: freeing,
            ordinal: before.get(&freeing).copied().unwrap_or(0),
            number: 4,
            value: 0,
            name: format!("stretch {stretch}"),
        });
        stretch += 1;
        for entry in frames() {
            let frame = reader.frame(entry, &mut scratch)?;
            let mut segments = Vec::new();
            for (n, segment) in frame.segments.iter().enumerate() {
                let mut calls = frame.calls(n)?;
                for call in &mut calls {
                    call.tick += shift;
                    call.tick_end += shift;
                    end = call.tick_end.max(end);
                }
                segments.push(Segment {
                    thread: segment.thread,
                    first_ordinal: segment.first_ordinal
                        + before.get(&segment.thread).copied().unwrap_or(0),
                    calls,
                });
            }
            let encoded = encoder.encode(&Window {
                process: 0,
                segments,
            });
            writer.frame(&encoded)?;
            written += encoded.calls();
            if written >= wanted {
                break 'stretches;
            }
        }
        for (thread, calls) in reader.threads_of(source.number) {
            *before.entry(*thread).or_default() += calls;
        }
        let addresses: Vec<u64> = live.blocks.iter().copied().collect();
        let mut tick = last + shift;
        for some in addresses.chunks(FREES) {
            let ordinal = before.entry(freeing).or_default();
            let calls: Vec<Call> = some
                .iter()
                .zip(tick + 1..)
                .map(|(a, at)| free(*a, at))
                .collect();
            tick += calls.len() as u64;
            let segment = Segment {
                thread: freeing,
                first_ordinal: *ordinal,
                calls,
            };
            *ordinal += some.len() as u64;
            let encoded = encoder.encode(&Window {
                process: 0,
                segments: vec![segment],
            });
            writer.frame(&encoded)?;
            written += encoded.calls();
            end = tick.max(end);
        }
        shift += last - first + frees + GAP_TICKS;
    }
    writer.marks(&marks)?;
    process.started = first;
    process.ended_at = end;
    process.ended = Ended::Exit(Some(0));
    writer.process(&process)?;
    writer.finish(reader.info())?;
    println!("{written} {stretch}");
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("repeat: {error}");
            ExitCode::from(2)
        }
    }
}
