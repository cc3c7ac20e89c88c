//! Nanoseconds per event of the analyzer alone, over synthetic streams: `cargo bench -p
//! rmtrace-analyzer`. Events are made in batches of the merge's size; only handing them over is
//! timed. Each result is checked before its time counts.

use rmtrace_analyzer::{Analysis, TraceInfo};
use rmtrace_file::consumer::Consumer;
use rmtrace_format::{Entry, Event, Step};
use std::time::{Duration, Instant};

const BATCH: usize = 256;

/// A small generator of numbers that are random enough (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

/// A program: how many blocks it keeps, how it frees, and in how many processes.
struct Workload {
    name: &'static str,
    processes: u32,
    /// Live blocks of each process.
    live: usize,
    /// Of 100 frees, those of a block among the latest 16; the rest is of any block.
    recent: u64,
    /// Of 100 steps, those that are a realloc.
    reallocs: u64,
    events: u64,
}

struct Process {
    live: Vec<u64>,
    free: Vec<u64>,
    next: u64,
}

/// Makes events; `freed` is what the analysis must agree with.
struct Maker {
    random: Random,
    processes: Vec<Process>,
    now_ns: u64,
    freed: u64,
    allocated: u64,
}

impl Maker {
    fn batch(&mut self, workload: &Workload, out: &mut Vec<Event>) {
        out.clear();
        let number = self.random.below(workload.processes.into()) as u32;
        let process = &mut self.processes[number as usize];
        while out.len() < BATCH {
            self.now_ns += 25 + 25 * self.random.below(4);
            let mut event = Event {
                time_ns: self.now_ns,
                address: 0,
                old_address: 0,
                requested_bytes: 0,
                usable_bytes: 0,
                caller: 0,
                process: number,
                thread: 0,
                entry: Entry::Malloc,
                step: Step::Alloc,
                align_log2: 0,
                flags: 0,
            };
            let count = process.live.len();
            let any = self.random.below(count.max(1) as u64) as usize;
            if count > 16 && self.random.below(100) < workload.reallocs {
                let address = process.live[any];
                let bytes = 16 + self.random.below(2000);
                let begin = Event {
                    old_address: address,
                    entry: Entry::Realloc,
                    step: Step::ReallocBegin,
                    requested_bytes: bytes,
                    ..event
                };
                out.push(begin);
                out.push(Event {
                    address,
                    step: Step::ReallocEnd,
                    ..begin
                });
                continue;
            }
            let free = count > 0 && self.random.below(2 * workload.live as u64) < count as u64;
            if free {
                let at = match self.random.below(100) < workload.recent {
                    true => count - 1 - any % 16.min(count),
                    false => any,
                };
                event.address = process.live.swap_remove(at);
                event.step = Step::Free;
                event.entry = Entry::Free;
                process.free.push(event.address);
                self.freed += 1;
            } else {
                let bytes = 16 + self.random.below(64) * self.random.below(16);
                event.requested_bytes = bytes;
                event.address = process.free.pop().unwrap_or_else(|| {
                    process.next += 16 + 16 * (bytes / 16);
                    process.next
                });
                process.live.push(event.address);
                self.allocated += 1;
            }
            out.push(event);
        }
    }
}

fn run(workload: &Workload) -> f64 {
    let mut maker = Maker {
        random: Random(0x2545_f491_4f6c_dd1d),
        processes: (0..workload.processes)
            .map(|_| Process {
                live: Vec::new(),
                free: Vec::new(),
                next: 0x5555_0000_0000,
            })
            .collect(),
        now_ns: 0,
        freed: 0,
        allocated: 0,
    };
    let mut analysis = Analysis::new();
    let mut batch = Vec::with_capacity(BATCH + 2);
    // What the table grows to is not timed: it belongs to the start of a run only.
    let warm = workload.live as u64 * u64::from(workload.processes) * 8;
    let mut fed = 0;
    while fed < warm {
        maker.batch(workload, &mut batch);
        batch.iter().for_each(|event| analysis.event(event));
        fed += batch.len() as u64;
    }
    let mut spent = Duration::ZERO;
    let mut timed = 0;
    while timed < workload.events {
        maker.batch(workload, &mut batch);
        let began = Instant::now();
        for event in &batch {
            analysis.event(event);
        }
        spent += began.elapsed();
        timed += batch.len() as u64;
    }
    let report = analysis.finish(&TraceInfo::default());
    assert_eq!(report.figures.blocks.freed, maker.freed);
    assert_eq!(report.figures.blocks.allocated, maker.allocated);
    assert_eq!(report.figures.events.unknown_frees, 0);
    assert!(report.figures.checks.all());
    spent.as_nanos() as f64 / timed as f64
}

fn main() {
    let workload = |name, processes, live, recent, reallocs| Workload {
        name,
        processes,
        live,
        recent,
        reallocs,
        events: 4_000_000,
    };
    let workloads = [
        workload(
            "python-like: 20,000 live, 90 % of frees recent",
            1,
            20_000,
            90,
            2,
        ),
        workload("random frees among 20,000", 1, 20_000, 0, 2),
        workload("random frees among 1,000,000", 1, 1_000_000, 0, 2),
        workload("eight processes of 20,000", 8, 20_000, 70, 5),
        workload("half of the steps reallocs", 1, 20_000, 70, 50),
    ];
    // An argument picks the workloads whose name holds it.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    for workload in workloads
        .iter()
        .filter(|workload| workload.name.contains(&wanted))
    {
        let best = (0..3).map(|_| run(workload)).fold(f64::MAX, f64::min);
        println!("{:<50} {best:6.1} ns per event", workload.name);
    }
}
