//! Many processes, many threads.

use crate::harness::{How, Lab};
use rmtrace_file::StartedBy;
use rmtrace_format::event::Entry;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const PROCESSES: u64 = 10_000;
const THREADS: u64 = 5_000;

/// Memory that the spools of a run take.
fn pool_bytes(run: &Path) -> u64 {
    let entries = std::fs::read_dir(run.join("pool")).expect("the pool is there");
    let files = entries.flatten().filter_map(|entry| entry.metadata().ok());
    files.map(|metadata| metadata.blocks() * 512).sum()
}

/// Children of one parent that allocate and are gone: nothing is dropped with the default limits.
#[test]
fn ten_thousand_forked_children() {
    for how in How::BOTH {
        let lab = Lab::new();
        let run = lab.run(lab.program("crowds.c")).arg("fork");
        let run = run.arg(PROCESSES.to_string()).within(120);
        let recorded = run.recorded(how).ok();
        let reader = rmtrace_file::open(&recorded.trace).expect("a trace");
        let processes = reader.processes();
        assert_eq!(processes.iter().flat_map(|p| p.dropped).sum::<u64>(), 0);
        assert_eq!(processes.len() as u64, 1 + PROCESSES, "{how:?}");
        assert_eq!(reader.calls(), PROCESSES, "{how:?}");
        if how == How::Bare {
            let bytes = pool_bytes(&recorded.trace);
            assert!(bytes < PROCESSES * 5300, "{bytes} bytes of memory");
        }
    }
}

/// The same with an exec of another image each.
#[test]
fn ten_thousand_executed_children() {
    let lab = Lab::new();
    let run = lab.run(lab.program("crowds.c")).arg("exec");
    let recorded = run.arg(PROCESSES.to_string()).within(240).bare().ok();
    // A header page and a slot for each image, a chunk and a slot for each child before.
    let bytes = pool_bytes(&recorded.trace);
    assert!(bytes < PROCESSES * (2 * 4096 + 5300), "{bytes} bytes");
    let packed = lab.path("packed.rmt");
    let arguments: [&std::ffi::OsStr; 4] = [
        "pack".as_ref(),
        recorded.trace.as_ref(),
        "-o".as_ref(),
        packed.as_ref(),
    ];
    let (status, _, stderr) = lab.rmtrace(&arguments);
    assert!(status.success(), "{stderr}");
    let reader = rmtrace_file::open(&packed).expect("a trace");
    let processes = reader.processes();
    assert_eq!(processes.len() as u64, 1 + 2 * PROCESSES);
    assert_eq!(processes.iter().flat_map(|p| p.dropped).sum::<u64>(), 0);
    let by = |how| processes.iter().filter(|p| p.started_by == how).count() as u64;
    assert_eq!(by(StartedBy::Fork), PROCESSES);
    assert_eq!(by(StartedBy::Exec), PROCESSES);
}

#[test]
fn a_thousand_executed_children_with_a_collector() {
    let lab = Lab::new();
    let run = lab.run(lab.program("crowds.c")).args(["exec", "1000"]);
    let seen = run.within(120).record().ok().read().clean();
    assert_eq!(seen.processes.len(), 2001);
    assert_eq!(seen.all().get(Entry::Malloc), 1000);
}

/// Threads that wait, each with a few calls, all at once: each holds a small chunk.
#[test]
fn five_thousand_idle_threads() {
    for how in How::BOTH {
        let lab = Lab::new();
        let run = lab.run(lab.program("crowds.c")).arg("threads");
        let recorded = run.arg(THREADS.to_string()).recorded(how).ok();
        let seen = recorded.read().clean();
        assert_eq!(seen.processes.len(), 1);
        let own = (0..THREADS).filter(|i| {
            let size = 10_000 + i;
            seen.threads
                .values()
                .any(|thread| thread.sizes.contains_key(&size))
        });
        assert_eq!(own.count() as u64, THREADS, "{how:?}");
        if how == How::Bare {
            let bytes = pool_bytes(&recorded.trace);
            assert!(bytes < THREADS * 4608, "{bytes} bytes of memory");
        }
    }
}

/// Busy once, idle then, more of them than the pool has large chunks: the rest is small, and none waits.
#[test]
fn many_threads_that_were_busy() {
    for how in How::BOTH {
        let lab = Lab::new();
        let run = lab.run(lab.program("crowds.c")).args(["busy", "1500"]);
        let recorded = run.recorded(how).ok();
        let seen = recorded.read().clean();
        assert_eq!(seen.all().get(Entry::Malloc), 1500 * 301 + 1, "{how:?}");
        for process in &seen.processes {
            assert_eq!(process.waits.0, 0, "{how:?}");
        }
    }
}

/// A tree of short processes, several at a time, shells among them.
#[test]
fn a_tree_of_short_processes() {
    for how in How::BOTH {
        let lab = Lab::new();
        let program = lab.program("counted.c");
        let script = "for i in 1 2 3 4; do (for k in 1 2 3 4 5 6 7 8 9 10; do \
                      \"$0\" forkexec 10 || exit 1; done) & done; wait";
        let run = lab.run("/bin/sh").args(["-c", script]);
        let seen = run.arg(&program).recorded(how).ok().read().clean();
        let children = seen.processes.iter();
        let children = children.filter(|p| p.arguments.iter().any(|a| a == "the-child"));
        // The image that the child was before has the same command line: the last one counts.
        let numbers: Vec<u32> = children.map(|p| p.number).collect();
        assert_eq!(numbers.len(), 40, "{how:?}");
        for number in numbers {
            assert!(seen.of(number).total() >= 300, "{how:?} {number}");
        }
    }
}
