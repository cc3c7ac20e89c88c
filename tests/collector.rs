//! The live collector against a fake writer: whatever threads hand over is in the trace once, however
//! small the pool is and however the recording ends.

#[path = "../tracefile/tests/support/check.rs"]
mod check;
#[path = "../tracefile/tests/support/fake.rs"]
mod fake;

use check::{calls, count, differences};
use fake::{FakeRun, FakeSpool, FakeThread, Time, To};
use rmtrace::collector::{Collector, Options, run_path};
use rmtrace_file::gather::{PackOptions, pack};
use rmtrace_file::{Ended, StartedBy, TraceReader};
use rmtrace_format::chunk::{Counters, ForkPosition};
use rmtrace_format::event::Entry;
use rmtrace_format::record::Record;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

fn options(output: &Path) -> Options {
    Options {
        output: output.to_owned(),
        pool_bytes: 1 << 20,
        limit_bytes: 1 << 30,
        space: Default::default(),
        wait_ns: 100_000_000,
        callers: false,
        usable: false,
        paused: false,
        anonymous: false,
        command: vec!["fake".to_owned()],
    }
}

fn call(n: u64, time: &Time) -> Record {
    let tsc = time.stamp(0);
    let (entry, size) = match n % 3 {
        0 => (Entry::Malloc, n % 999),
        1 => (Entry::Free, 0),
        _ => (Entry::Realloc, n),
    };
    let is_realloc = entry == Entry::Realloc;
    Record {
        entry,
        align_log2: 0,
        freed: false,
        address: 0x1000 + 16 * (n % 1000),
        new_address: if is_realloc { 0x9000 } else { 0 },
        size,
        tsc,
        tsc_end: if is_realloc { time.stamp(0) } else { tsc },
        caller: 0,
        usable: 0,
    }
}

/// Threads that write until `stop`, or `calls` calls each; what they counted.
fn write(
    spool: &Arc<FakeSpool>,
    threads: u32,
    limit: u64,
    stop: &Arc<AtomicBool>,
) -> Vec<std::thread::JoinHandle<(Counters, u64)>> {
    (0..threads)
        .map(|n| {
            let (spool, stop) = (spool.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut thread = FakeThread::new(&spool, 0, n, To::Collector);
                thread.large = n % 2 == 0;
                let mut tries = 0;
                while tries < limit && !stop.load(Relaxed) {
                    let call = call(tries, &spool.time);
                    thread.push(&call);
                    tries += 1;
                }
                // The odd ones are killed: their last chunk stays active.
                if n % 2 == 0 {
                    thread.hand_over();
                }
                (thread.counters, thread.dropped)
            })
        })
        .collect()
}

fn wait_until_empty(collector: &Collector) {
    while collector.has_processes() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_small_pool_is_recycled_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("a trace.rmt");
    let collector = Collector::start(&options(&output)).unwrap();
    let pool = collector.pool_dir().to_owned();
    assert!(run_path(&output).is_dir());
    let mut run = FakeRun::of_collector(collector.run_dir(), Time::Real);
    let spool = run.spool(4_000_000, 1, 16, &["/bin/fake", "argument"]);
    let never = Arc::new(AtomicBool::new(false));
    // 600,000 calls are ten times the pool.
    let threads = write(&spool, 3, 200_000, &never);
    let counted: Vec<(Counters, u64)> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    // A fork while the collector runs.
    let position = ForkPosition {
        thread: 0,
        calls: counted[0].0.total(),
    };
    // One that there is: the collector looks whether it has gone.
    let child = spool.fork(std::process::id(), 0, &[position]);
    let mut forked = FakeThread::new(&spool, child, 0, To::Collector);
    forked.push(&call(0, &spool.time));
    spool.end(0);
    collector.hurry();
    assert!(collector.has_processes());
    drop((spool, forked));
    wait_until_empty(&collector);
    let summary = collector.finish().unwrap();
    assert!(!run_path(&output).exists() && !pool.exists());
    let reader = TraceReader::open(&output).unwrap();
    assert_eq!(reader.damage(), []);
    assert_eq!(differences(&reader), Vec::<String>::new());
    let read = calls(&reader);
    let mut total = 1;
    for (n, (counters, dropped)) in counted.iter().enumerate() {
        let mut got = count(&read[&(0, n as u32)]);
        got.dropped = counters.dropped;
        assert_eq!(got, *counters, "thread {n}");
        // A wait may time out on a busy machine; then the call is counted, not lost silently.
        assert_eq!(counters.total() + dropped, 200_000);
        total += counters.total();
    }
    assert_eq!((summary.calls, summary.processes), (total, 2));
    let processes = reader.processes();
    assert_eq!(processes[0].pid, 4_000_000);
    assert_eq!(processes[0].arguments, ["/bin/fake", "argument"]);
    assert_eq!(processes[0].ended, Ended::Exit(None));
    assert_eq!(processes[1].started_by, StartedBy::Fork);
    assert_eq!(processes[1].parent, Some(0));
    assert_eq!(processes[1].fork_positions, [(0, counted[0].0.total())]);
    assert_eq!(reader.info().command, ["fake"]);
    assert!(reader.info().collected);
}

#[test]
fn a_recording_that_is_ended_early_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("trace.rmt");
    let collector = Collector::start(&options(&output)).unwrap();
    let mut run = FakeRun::of_collector(collector.run_dir(), Time::Real);
    let spool = run.spool(4_000_000, 1, 64, &["/bin/fake"]);
    let stop = Arc::new(AtomicBool::new(false));
    let threads = write(&spool, 3, u64::MAX, &stop);
    while collector.status().calls.load(Relaxed) < 100_000 {
        std::thread::sleep(Duration::from_millis(1));
    }
    collector.finish().unwrap();
    stop.store(true, Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!run_path(&output).exists());
    let reader = TraceReader::open(&output).unwrap();
    assert_eq!(reader.damage(), []);
    assert_eq!(differences(&reader), Vec::<String>::new());
    assert!(reader.calls() >= 100_000);
    assert!(
        reader
            .info()
            .notes
            .iter()
            .any(|note| note.contains("went on"))
    );
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to);
        } else if entry.path().is_file() {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_trace_whose_collector_died_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("trace.rmt");
    let collector = Collector::start(&options(&output)).unwrap();
    let mut run = FakeRun::of_collector(collector.run_dir(), Time::Real);
    // A process that is over, of which nothing is left in the pool, and one that goes on.
    let first = run.spool(4_000_000, 1, 16, &["/bin/first"]);
    let never = Arc::new(AtomicBool::new(false));
    for thread in write(&first, 2, 30_000, &never) {
        thread.join().unwrap();
    }
    drop(first);
    wait_until_empty(&collector);
    let second = run.spool(4_000_001, 4_000_000, 16, &["/bin/second"]);
    let mut threads: Vec<FakeThread> = (0..3)
        .map(|n| FakeThread::new(&second, 0, n, To::Collector))
        .collect();
    // The last thread ends early: its last chunk is given back before the collector dies.
    for n in 0..150_000u64 {
        let thread = if n < 1_000 { n % 3 } else { n % 2 };
        let call = call(n, &second.time);
        threads[thread as usize].push(&call);
        if n == 1_000 {
            threads[2].hand_over();
        }
    }
    // At rest, but for windows that the collector still makes of what it has: any moment is as good
    // as the next. The file is copied first, as it holds less than what was given back later never.
    let died = dir.path().join("died.rmt");
    let died_run = run_path(&died);
    let mut before = u64::MAX;
    while collector.status().bytes.load(Relaxed) != before {
        before = collector.status().bytes.load(Relaxed);
        std::thread::sleep(Duration::from_millis(1_500));
    }
    std::fs::copy(&output, &died).unwrap();
    copy_dir(collector.run_dir(), &died_run);
    // Half a frame at the end is what a death in the middle of a write leaves.
    std::fs::OpenOptions::new()
        .append(true)
        .open(&died)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"RMFR and nothing more"))
        .unwrap();
    // Threads that found the collector dead append themselves.
    let begun = PackOptions {
        begun: Some(died.clone()),
        ..PackOptions::default()
    };
    let file = tempfile::tempfile().unwrap();
    let (file, report) = pack(&died_run, file, &begun, &mut |_| {}).unwrap();
    let reader = TraceReader::from_file(file, Path::new("continued")).unwrap();
    assert_eq!(reader.damage(), []);
    assert_eq!(differences(&reader), Vec::<String>::new());
    assert!(report.calls_begun >= 60_000, "{report:?}");
    assert_eq!((report.processes, report.missing), (2, 0));
    let read = calls(&reader);
    for (n, thread) in threads.iter().enumerate() {
        assert_eq!(count(&read[&(1, n as u32)]), thread.counters, "thread {n}");
    }
    assert_eq!(reader.processes()[0].name, "first");
    assert_eq!(reader.processes()[1].started_by, StartedBy::Spawn);
    drop((threads, second));
    wait_until_empty(&collector);
    collector.finish().unwrap();
}

#[test]
fn an_earlier_recording_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("trace.rmt");
    std::fs::write(&output, "precious").unwrap();
    std::fs::create_dir(run_path(&output)).unwrap();
    let error = Collector::start(&options(&output))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("an earlier recording"), "{error}");
    assert_eq!(std::fs::read(&output).unwrap(), b"precious");
}
