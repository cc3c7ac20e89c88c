//! Made-up runs, and traces of them.
#![allow(dead_code)] // Each test uses a part.

use proptest::prelude::*;
use rmtrace_file::model::*;
use rmtrace_file::{TraceReader, TraceWriter, WindowEncoder};
use rmtrace_format::event::{Entry, Kind};
use rmtrace_format::record::{Record, content_sum};
use std::path::Path;

/// Anything that a call can hold, with times after `tick`.
pub fn any_call() -> impl Strategy<Value = Call> {
    let address = prop_oneof![
        4 => (0u64..40).prop_map(|n| 0x5555_5555_0000 + n * 16),
        1 => Just(0),
        1 => any::<u64>(),
    ];
    let size = prop_oneof![6 => 0u64..200, 1 => any::<u64>()];
    let delta = prop_oneof![6 => 0u64..5, 1 => 0u64..1 << 40];
    (
        0..Entry::ALL.len(),
        (0u8..64, any::<bool>()),
        (address.clone(), address),
        size,
        (delta.clone(), delta),
        (0u64..3, 0u64..3),
    )
        .prop_map(
            |(entry, (align, freed), (address, new), size, (delta, duration), (caller, usable))| {
                let entry = Entry::ALL[entry];
                let is_realloc = entry.kind() == Kind::Realloc;
                Call {
                    entry,
                    align_log2: if align < 50 { 0 } else { align },
                    freed: freed && is_realloc,
                    address,
                    new_address: if is_realloc { new } else { 0 },
                    requested_bytes: if entry.kind() == Kind::Free { 0 } else { size },
                    tick: delta,
                    tick_end: if is_realloc { duration } else { 0 },
                    caller: caller << 40,
                    usable_bytes: (size / 2).wrapping_mul(usable),
                }
            },
        )
}

/// Makes the differences in `calls` into times that follow each other.
pub fn in_order(mut calls: Vec<Call>, start: u64) -> Vec<Call> {
    let mut tick = start;
    for call in &mut calls {
        tick += call.tick;
        call.tick = tick;
        tick += call.tick_end;
        call.tick_end = tick;
    }
    calls
}

/// What a thread with these calls would have counted.
pub fn thread_of(number: u32, calls: &[Call]) -> Thread {
    let mut thread = Thread {
        number,
        tid: 1000 + number,
        chunks: 1,
        ..Thread::default()
    };
    for call in calls {
        let kind = call.entry.kind();
        thread.counters.calls[kind as usize] += 1;
        thread.counters.bytes = thread.counters.bytes.wrapping_add(call.requested_bytes);
        let record = Record {
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
        };
        thread.counters.sum = content_sum(thread.counters.sum, &record);
        thread.tick_sum = thread.tick_sum.wrapping_add(call.tick);
        if kind == Kind::Realloc {
            thread.tick_sum = thread.tick_sum.wrapping_add(call.tick_end);
        }
    }
    thread
}

/// A run: processes, the calls of their threads, and how they are cut into windows.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub processes: Vec<Process>,
    /// Process, thread, calls.
    pub threads: Vec<(u32, u32, Vec<Call>)>,
    /// Calls of a thread in a window, on average.
    pub window_calls: usize,
    pub samples: Vec<Sample>,
    pub marks: Vec<Mark>,
}

impl Run {
    /// The bytes of a trace of this run.
    pub fn to_trace(&self) -> Vec<u8> {
        let info = RunInfo {
            command: vec!["demo".into()],
            writer: "test".into(),
            ..RunInfo::default()
        };
        let mut writer = TraceWriter::new(Vec::new(), &info, 25).unwrap();
        for process in &self.processes {
            writer.process(process).unwrap();
        }
        let mut encoder = WindowEncoder::new();
        // Threads hand over at their own pace, so the times of frames overlap.
        let mut random = Random(self.window_calls as u64 * 77 + 1);
        let mut positions = vec![0usize; self.threads.len()];
        let left = |positions: &[usize]| {
            let lists = self.threads.iter().map(|thread| thread.2.len());
            lists.zip(positions).any(|(calls, at)| *at < calls)
        };
        while left(&positions) {
            for process in &self.processes {
                let mut segments = Vec::new();
                for ((number, thread, calls), at) in self.threads.iter().zip(&mut positions) {
                    let take = random.below(2 * self.window_calls as u64 + 1) as usize;
                    let end = calls.len().min(*at + take);
                    if *number != process.number || end == *at {
                        continue;
                    }
                    segments.push(Segment {
                        thread: *thread,
                        first_ordinal: *at as u64,
                        calls: calls[*at..end].to_vec(),
                    });
                    *at = end;
                }
                let window = Window {
                    process: process.number,
                    segments,
                };
                writer.frame(&encoder.encode(&window)).unwrap();
            }
        }
        writer.samples(&self.samples).unwrap();
        writer.marks(&self.marks).unwrap();
        for process in &self.processes {
            let mut process = process.clone();
            process.threads = self
                .threads
                .iter()
                .filter(|(number, ..)| *number == process.number)
                .map(|(_, thread, calls)| thread_of(*thread, calls))
                .collect();
            writer.process(&process).unwrap();
        }
        writer.finish(&info).unwrap()
    }
}

/// Opens bytes as a trace.
pub fn open_bytes(bytes: &[u8]) -> Result<TraceReader, rmtrace_file::ReadError> {
    use std::io::Write;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    TraceReader::from_file(file, Path::new("test.rmt"))
}

/// All calls of a trace by process and thread, in the order of the file.
pub fn all_calls(
    reader: &TraceReader,
) -> Result<std::collections::BTreeMap<(u32, u32), Vec<Call>>, rmtrace_file::ReadError> {
    let mut scratch = Default::default();
    let mut all = std::collections::BTreeMap::<(u32, u32), Vec<Call>>::new();
    for entry in reader.frames() {
        let frame = reader.frame(entry, &mut scratch)?;
        for (n, segment) in frame.segments.iter().enumerate() {
            let calls = frame
                .calls(n)
                .map_err(|found| rmtrace_file::ReadError::Damaged {
                    path: "test".into(),
                    offset: entry.offset,
                    what: "frame",
                    found: found.to_string(),
                })?;
            all.entry((entry.process, segment.thread))
                .or_default()
                .extend(calls);
        }
    }
    Ok(all)
}

/// A run that an allocator could have produced: threads that allocate, free and resize blocks, their
/// own and each other's, with times so close that many are equal.
pub fn true_run(seed: u64, processes: u32, threads: u32, calls: usize, gap: u64) -> Run {
    let mut random = Random(seed | 1);
    let mut run = Run {
        window_calls: 1 + random.below(300) as usize,
        ..Run::default()
    };
    let mut tick = 5;
    for number in 0..processes {
        let mut lists: Vec<Vec<Call>> = vec![Vec::new(); threads as usize];
        let mut clocks = vec![0u64; threads as usize];
        let mut live: Vec<u64> = Vec::new();
        let mut free: Vec<u64> = (1..60).map(|n| n * 32).collect();
        let started = tick;
        for _ in 0..calls {
            tick += random.below(gap);
            let t = random.below(u64::from(threads)) as usize;
            if clocks[t] > tick {
                continue;
            }
            let mut call = Call {
                entry: Entry::Malloc,
                align_log2: 0,
                freed: false,
                address: 0,
                new_address: 0,
                requested_bytes: random.below(32),
                tick,
                tick_end: tick,
                caller: 0,
                usable_bytes: 0,
            };
            match random.below(5) {
                0 | 1 if !free.is_empty() => {
                    call.address = free.pop().unwrap();
                    live.push(call.address);
                }
                2 | 3 if !live.is_empty() => {
                    call.entry = Entry::Free;
                    call.requested_bytes = 0;
                    call.address = live.swap_remove(random.below(live.len() as u64) as usize);
                    free.push(call.address);
                }
                4 if !live.is_empty() && !free.is_empty() => {
                    call.entry = Entry::Realloc;
                    let n = random.below(live.len() as u64) as usize;
                    call.address = live.swap_remove(n);
                    if random.below(2) == 0 {
                        call.new_address = call.address;
                    } else {
                        free.insert(0, call.address);
                        call.new_address = free.pop().unwrap();
                    }
                    live.push(call.new_address);
                    tick += random.below(gap);
                    call.tick_end = tick;
                }
                _ => {}
            }
            clocks[t] = call.tick_end;
            lists[t].push(call);
        }
        run.processes.push(Process {
            number,
            pid: 100 + number,
            name: "demo".into(),
            started,
            ended_at: tick,
            ended: Ended::Exit(Some(0)),
            ..Process::default()
        });
        for (t, list) in lists.into_iter().enumerate() {
            run.threads.push((number, t as u32, list));
        }
        if random.below(2) == 0 {
            tick = started + random.below(1 + tick - started);
        }
    }
    run
}

/// xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit.max(1)
    }
}
