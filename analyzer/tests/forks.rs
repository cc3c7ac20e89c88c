//! Ten thousand children of one parent that holds 50,000 blocks: they share what they inherit. Alone
//! in its file, since it looks at the memory of its process.

use rmtrace_analyzer::{Analysis, TraceInfo};
use rmtrace_file::consumer::Consumer;
use rmtrace_file::model::{Process, StartedBy};
use rmtrace_format::{Entry, Event, Step};

const BLOCKS: u64 = 50_000;
const CHILDREN: u32 = 10_000;

fn event(process: u32, step: Step, address: u64, bytes: u64, time_ns: u64) -> Event {
    Event {
        time_ns,
        address,
        old_address: 0,
        requested_bytes: bytes,
        usable_bytes: 0,
        caller: 0,
        process,
        thread: 0,
        entry: if step == Step::Free {
            Entry::Free
        } else {
            Entry::Malloc
        },
        step,
        align_log2: 0,
        flags: 0,
    }
}

fn memory_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn ten_thousand_children_share_what_they_inherit() {
    let mut analysis = Analysis::new();
    analysis.process_started(&Process::default(), 0);
    for n in 1..=BLOCKS {
        analysis.event(&event(0, Step::Alloc, n * 64, 32, n));
    }
    let mut now = BLOCKS;
    for child in 1..=CHILDREN {
        // The parent goes on a little between two forks: one block comes, another goes.
        now += 1000;
        let n = u64::from(child);
        analysis.event(&event(0, Step::Free, n * 64, 0, now));
        analysis.event(&event(0, Step::Alloc, (BLOCKS + n) * 64, 32, now));
        let process = Process {
            number: child,
            parent: Some(0),
            started_by: StartedBy::Fork,
            ..Process::default()
        };
        analysis.process_started(&process, now);
        analysis.fork(child, 0, now);
        // The child frees what the parent got last, cannot free what was gone, and adds one.
        analysis.event(&event(child, Step::Free, (BLOCKS + n) * 64, 0, now));
        analysis.event(&event(child, Step::Free, n * 64, 0, now));
        analysis.event(&event(child, Step::Alloc, n * 64, 16, now));
        // No child ever ends: all of them are held until the end.
    }
    let report = analysis.finish(&TraceInfo::default());
    assert_eq!(report.processes.len(), CHILDREN as usize + 1);
    for process in &report.processes[1..] {
        let figures = &process.figures;
        assert_eq!(figures.blocks.inherited, BLOCKS);
        assert_eq!(figures.bytes.inherited, BLOCKS * 32);
        assert_eq!(figures.frees.inherited, 1);
        assert_eq!(figures.events.unknown_frees, 1);
        assert_eq!(figures.blocks.live_at_end, BLOCKS);
        assert_eq!(figures.peak.live_blocks, BLOCKS);
    }
    // Inherited blocks are the parent's: the run holds one more for each child.
    assert_eq!(
        report.figures.peak.live_blocks,
        BLOCKS + u64::from(CHILDREN)
    );
    assert_eq!(
        report.figures.blocks.inherited,
        BLOCKS * u64::from(CHILDREN)
    );
    assert!(report.figures.checks.all());
    // A copy for each child would be 8 GB.
    let peak = memory_peak_kib();
    assert!(peak < 400 << 10, "{peak} KiB");
    println!("{peak} KiB");
}
