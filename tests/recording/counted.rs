//! Calls counted by hand (`tests/programs/rounds.h`): each is in the trace, wherever it was made and
//! however the program ended.

use crate::harness::{Counts, How, Lab, Recorded, Seen};
use rmtrace_file::{Ended, StartedBy};
use rmtrace_format::event::Entry;

/// What one round of `rounds.h` calls.
pub const ROUND: &[(Entry, u64)] = &[
    // strdup and strndup are the C library's: their calls of malloc are what is seen.
    (Entry::Malloc, 4),
    (Entry::Calloc, 2),
    (Entry::Realloc, 5),
    (Entry::Reallocarray, 3),
    (Entry::Free, 10),
    (Entry::PosixMemalign, 2),
    (Entry::AlignedAlloc, 1),
    (Entry::Memalign, 1),
    (Entry::Valloc, 1),
    (Entry::Pvalloc, 1),
];
/// Its calls that fail.
pub const ROUND_FAILED: u64 = 5;
/// The bytes that it asks for and gets, what resizes add included.
const ROUND_BYTES: u64 = 100 + 150 + 40 + 3960 + 40 + 40 + 200 + 256 + 48 + 10 + 5000 + 13 + 7;
/// The blocks that it allocates: all of them are freed.
const ROUND_BLOCKS: u64 = 11;

const N: u64 = 400;

fn run(lab: &Lab, how: How, mode: &str, n: u64) -> Recorded {
    let program = lab.path("counted");
    let run = lab.run(&program).arg(mode).arg(n.to_string());
    run.recorded(how)
}

/// Runs `mode` with N and 2N rounds; the difference in the process that `pick` names is N rounds.
fn differ(how: How, mode: &str, code: i32, pick: impl Fn(&Seen) -> u32) -> [Seen; 2] {
    let lab = Lab::new();
    lab.program("counted.c");
    let runs = [N, 2 * N].map(|n| {
        let recorded = run(&lab, how, mode, n);
        assert_eq!(recorded.outcome.code(), code, "{:?}", recorded.outcome);
        recorded
    });
    let seen = [runs[0].read().clean(), runs[1].read().clean()];
    let [once, twice] = [0, 1].map(|i| (pick(&seen[i]), &seen[i]));
    let difference = twice.1.of(twice.0).minus(&once.1.of(once.0));
    assert_eq!(difference, Counts::of(ROUND, N), "{how:?} {mode}");
    let failed = twice.1.failed(twice.0) - once.1.failed(once.0);
    assert_eq!(failed, ROUND_FAILED * N);
    seen
}

fn root(seen: &Seen) -> u32 {
    assert_eq!(seen.processes.len(), 1, "{:#?}", seen.processes);
    assert_eq!(seen.processes[0].started_by, StartedBy::Root);
    0
}

fn forked(seen: &Seen) -> u32 {
    assert_eq!(seen.processes.len(), 2, "{:#?}", seen.processes);
    assert_eq!(seen.processes[1].started_by, StartedBy::Fork);
    assert_eq!(seen.processes[1].parent, Some(0));
    1
}

fn executed(seen: &Seen, how: StartedBy) -> u32 {
    let process = seen.with_argument("the-child");
    assert_eq!(process.started_by, how, "{:#?}", seen.processes);
    assert_eq!(process.parent, Some(0));
    process.number
}

#[test]
fn rounds_in_one_thread() {
    for how in How::BOTH {
        differ(how, "one", 0, root);
    }
}

#[test]
fn rounds_in_four_threads() {
    for how in How::BOTH {
        let lab = Lab::new();
        lab.program("counted.c");
        let seen = run(&lab, how, "threads", N).ok().read().clean();
        assert_eq!(root(&seen), 0);
        // Each thread makes no other calls: its own are exact.
        let workers: Vec<_> = seen
            .threads
            .iter()
            .filter(|(place, _)| place.1 != 0)
            .collect();
        assert_eq!(workers.len(), 4);
        for (place, thread) in workers {
            assert_eq!(thread.calls, Counts::of(ROUND, N), "{how:?} {place:?}");
            assert_eq!(thread.failed, ROUND_FAILED * N);
        }
    }
}

#[test]
fn rounds_in_a_forked_child() {
    for how in How::BOTH {
        differ(how, "fork", 5, forked);
    }
}

#[test]
fn rounds_in_threads_of_a_forked_child() {
    for how in How::BOTH {
        let lab = Lab::new();
        lab.program("counted.c");
        let recorded = run(&lab, how, "forked-threads", N);
        assert_eq!(recorded.outcome.code(), 5);
        let seen = recorded.read().clean();
        let child = forked(&seen);
        let threads = seen.threads.range((child, 1)..=(child, u32::MAX));
        let calls: Vec<_> = threads.map(|(_, thread)| thread.calls.clone()).collect();
        assert_eq!(calls, vec![Counts::of(ROUND, N); 3], "{how:?}");
    }
}

#[test]
fn rounds_after_exec() {
    for how in How::BOTH {
        for mode in ["forkexec", "vforkexec", "spawn"] {
            differ(how, mode, 0, |seen| executed(seen, StartedBy::Spawn));
        }
    }
}

#[test]
fn rounds_before_and_after_an_exec_in_place() {
    for how in How::BOTH {
        let seen = differ(how, "exec", 0, |seen| executed(seen, StartedBy::Exec));
        let [once, twice] = &seen;
        assert_eq!(twice.of(0).minus(&once.of(0)), Counts::of(ROUND, N));
        let [before, after] = twice.processes.as_slice() else {
            panic!("{:#?}", twice.processes)
        };
        assert_eq!(before.ended, Ended::Exec);
        assert_eq!(before.pid, after.pid);
    }
}

#[test]
fn rounds_and_every_way_to_end() {
    for how in How::BOTH {
        for (mode, code) in [
            ("_exit", 3),
            ("exit_group", 4),
            ("quick_exit", 6),
            ("abort", 1000 + libc::SIGABRT),
        ] {
            differ(how, mode, code, root);
        }
    }
}

/// Killed in the middle: each thread has told in shared memory what it began and what it ended.
#[test]
fn a_kill_loses_at_most_one_call_per_thread() {
    for how in How::BOTH {
        let lab = Lab::new();
        let counters = lab.path("counters");
        let run = lab.run(lab.program("counted.c")).args(["kill", "60000"]);
        let recorded = run.arg(&counters).recorded(how);
        assert_eq!(recorded.outcome.code(), 1000 + libc::SIGKILL);
        let seen = recorded.read();
        assert_eq!(seen.dropped(), 0);
        let bytes = std::fs::read(&counters).expect("the program made it");
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        for slot in 0..3 {
            let size = 1000 + slot as u64;
            let (started, done) = (word(slot * 128), word(slot * 128 + 8));
            let threads = seen.threads.values();
            let thread = threads.filter(|thread| thread.sizes.contains_key(&size));
            let calls: u64 = thread.map(|thread| thread.calls.total()).sum();
            assert!(
                (done..=started).contains(&calls) && started <= done + 1,
                "{how:?}: {calls} recorded, {done} done, {started} started"
            );
        }
    }
}

/// The same figures in the report.
#[test]
fn the_report_of_known_calls() {
    for how in How::BOTH {
        let lab = Lab::new();
        lab.program("counted.c");
        let [once, twice] = [N, 2 * N].map(|n| run(&lab, how, "one", n).ok().analyze());
        let difference = |key: &str| {
            let number = |report: &serde_json::Value| {
                let value = report.pointer(key).and_then(serde_json::Value::as_u64);
                value.unwrap_or_else(|| panic!("no {key} in the report"))
            };
            number(&twice) - number(&once)
        };
        for (key, per_round) in [
            ("/events/malloc", 4),
            ("/events/calloc", 2),
            ("/events/realloc", 8),
            ("/events/memalign", 6),
            ("/events/free", 10),
            ("/events/total", 30),
            ("/events/failed", ROUND_FAILED),
            ("/events/dropped", 0),
            ("/events/unknown_frees", 0),
            ("/events/live_duplicates", 0),
            ("/blocks/allocated", ROUND_BLOCKS),
            ("/blocks/freed", ROUND_BLOCKS),
            ("/blocks/never_freed", 0),
            ("/bytes/requested", ROUND_BYTES),
            ("/bytes/live_at_end", 0),
            ("/frees/cross_thread", 0),
        ] {
            assert_eq!(difference(key), per_round * N, "{how:?} {key}");
        }
        assert_eq!(twice["schema"], 1);
        let seen = run(&lab, how, "one", N).ok().read();
        let arguments = &seen.processes[0].arguments;
        assert_eq!(arguments[1..], ["one".to_owned(), N.to_string()], "{how:?}");
    }
}
