//! Run directories made by a fake writer become traces that hold exactly what was written.

#[path = "support/check.rs"]
mod check;
#[path = "support/fake.rs"]
mod fake;

use check::{calls, differences};
use fake::{FakeRun, FakeThread, Time, To};
use proptest::prelude::*;
use rmtrace_file::frame::CALLS_MAX;
use rmtrace_file::gather::{PackOptions, PackReport, RunDir, pack};
use rmtrace_file::reader::FrameScratch;
use rmtrace_file::{Call, Ended, Process, StartedBy, TraceReader};
use rmtrace_format::chunk::{Counters, ForkPosition};
use rmtrace_format::event::{Entry, Kind};
use rmtrace_format::record::Record;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

const TICK_NS: u64 = 25;
const START_NS: u64 = 1_000_000_000;

fn packed(run: &Path) -> (TraceReader, PackReport) {
    let file = tempfile::tempfile().unwrap();
    let (file, report) = pack(run, file, &PackOptions::default(), &mut |_| {}).unwrap();
    let reader = TraceReader::from_file(file, Path::new("packed")).unwrap();
    assert_eq!(reader.damage(), []);
    (reader, report)
}

fn record(entry: Entry, address: u64, size: u64, tsc: u64) -> Record {
    Record {
        entry,
        align_log2: 0,
        freed: false,
        address,
        new_address: 0,
        size,
        tsc,
        tsc_end: tsc,
        caller: 0,
        usable: 0,
    }
}

fn expected(record: &Record) -> Call {
    let tick = |tsc: u64| (tsc / 3 - START_NS) / TICK_NS;
    Call {
        entry: record.entry,
        align_log2: record.align_log2,
        freed: record.freed,
        address: record.address,
        new_address: record.new_address,
        requested_bytes: record.size,
        tick: tick(record.tsc),
        tick_end: tick(record.tsc_end),
        caller: record.caller,
        usable_bytes: record.usable,
    }
}

/// A varied call at the next moment.
fn varied(n: u64, time: &Time, step_ns: u64) -> Record {
    let tsc = time.stamp(step_ns);
    let address = 0x7f00_0000_0000 + (n % 977) * 16;
    match n % 7 {
        0..=2 => record(Entry::Malloc, address, n % 5000, tsc),
        3 => record(Entry::Free, address, 0, tsc),
        4 => Record {
            new_address: address + 32,
            tsc_end: time.stamp(10 * TICK_NS),
            ..record(Entry::Realloc, address, n, tsc)
        },
        5 => record(Entry::Calloc, address, (n % 3) << 30, tsc),
        _ => Record {
            align_log2: 6,
            ..record(Entry::Memalign, address, 64, tsc)
        },
    }
}

#[test]
fn calls_of_one_moment_that_exceed_a_frame_become_several() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::set(START_NS);
    let mut run = FakeRun::new(dir.path(), time.clone());
    let spool = run.spool(500, 400, 64, &["/usr/bin/busy"]);
    let mut threads: Vec<FakeThread> = (0..2)
        .map(|n| FakeThread::new(&spool, 0, n, To::File))
        .collect();
    let tsc = time.stamp(TICK_NS);
    let count = CALLS_MAX * 3 / 4;
    for n in 0..count {
        threads[0].push(&record(Entry::Malloc, 0x10_0000 + n * 64, 64, tsc));
        threads[1].push(&record(Entry::Calloc, 0x7000_0000_0000 + n * 16, 3, tsc));
    }
    threads.iter_mut().for_each(FakeThread::hand_over);
    drop((threads, spool));
    let (reader, report) = packed(dir.path());
    assert_eq!((report.calls, report.missing), (2 * count, 0));
    assert_eq!(differences(&reader), Vec::<String>::new());
    assert_eq!(reader.frames().len(), 2);
    assert!(
        reader
            .frames()
            .iter()
            .all(|frame| frame.calls() <= CALLS_MAX)
    );
    for (thread, first) in [(0, 0x10_0000), (1, 0x7000_0000_0000)] {
        let read = &calls(&reader)[&(0, thread)];
        assert_eq!(read.len() as u64, count);
        assert_eq!(read[0].address, first);
    }
}

#[test]
fn calls_come_back_wherever_their_chunks_are() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::set(START_NS);
    let mut run = FakeRun::new(dir.path(), time.clone());
    let spool = run.spool(500, 400, 64, &["/usr/bin/some program", "-x", "two words"]);
    let places = [
        To::File,
        To::Stays,
        To::Collector,
        To::FileAndStays,
        To::FileCut(7_777),
    ];
    let mut threads: Vec<FakeThread> = (0..5)
        .map(|n| FakeThread::new(&spool, 0, n, places[n as usize]))
        .collect();
    threads[1].large = false;
    let mut written: Vec<Vec<Record>> = vec![Vec::new(); 5];
    for n in 0..60_000u64 {
        let thread = ((n + n / 7) % 5) as usize;
        let record = varied(n, &time, 75);
        threads[thread].push(&record);
        written[thread].push(record);
    }
    threads[2].mark(1, 4711, time.stamp(25));
    // Threads 0 and 3 end; the others are killed.
    threads[0].hand_over();
    threads[3].hand_over();
    let counted: Vec<Counters> = threads.iter().map(|thread| thread.counters).collect();
    drop((threads, spool));
    let (reader, report) = packed(dir.path());
    let read = calls(&reader);
    assert_eq!(differences(&reader), Vec::<String>::new());
    for (n, records) in written.iter().enumerate() {
        let expected: Vec<Call> = records.iter().map(expected).collect();
        let got = read
            .get(&(0, n as u32))
            .map(Vec::as_slice)
            .unwrap_or_default();
        assert_eq!(got.len(), expected.len(), "thread {n}");
        assert!(got == expected, "thread {n}");
        let thread = &reader.processes()[0].threads[n];
        assert_eq!(thread.counters, counted[n]);
        assert_eq!(thread.chunks_missing, 0);
        let sum = expected.iter().fold(0u64, |sum, call| {
            let end = if call.entry.kind() == Kind::Realloc {
                call.tick_end
            } else {
                0
            };
            sum.wrapping_add(call.tick).wrapping_add(end)
        });
        assert_eq!(thread.tick_sum, sum);
        assert_eq!(thread.counters_may_lag, !matches!(n, 0 | 3));
    }
    assert_eq!(
        (report.calls, report.missing, report.processes),
        (60_000, 0, 1)
    );
    let process = &reader.processes()[0];
    assert_eq!(process.name, "some");
    assert_eq!(
        process.arguments,
        ["/usr/bin/some program", "-x", "two words"]
    );
    assert_eq!((process.pid, process.started), (500, 0));
    assert_eq!(process.ended, Ended::Unknown);
    let marks: Vec<_> = reader
        .sides()
        .iter()
        .flat_map(|s| reader.marks(s).unwrap())
        .collect();
    assert_eq!(marks.len(), 1);
    assert_eq!(
        (marks[0].value, marks[0].ordinal),
        (4711, written[2].len() as u64)
    );
    // Cut writes were reported.
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("no whole chunk"))
    );
}

#[test]
fn windows_hold_true_spans_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::set(START_NS);
    let mut run = FakeRun::new(dir.path(), time.clone());
    let spool = run.spool(500, 400, 400, &["p"]);
    let mut threads: Vec<FakeThread> = (0..8)
        .map(|n| FakeThread::new(&spool, 0, n, To::File))
        .collect();
    for n in 0..800_000u64 {
        // A busy thread at a time, and one that calls rarely all along.
        let thread = if n % 1000 == 0 { 7 } else { (n / 100_000) % 7 };
        let tsc = time.stamp(50);
        threads[thread as usize].push(&record(Entry::Malloc, 16 + n, 8, tsc));
    }
    let (reader, _) = packed(dir.path());
    assert_eq!(reader.calls(), 800_000);
    let frames = reader.frames();
    assert!(
        frames.len() >= 5 && frames.len() <= 20,
        "{} frames",
        frames.len()
    );
    for pair in frames.windows(2) {
        assert!(pair[0].last_tick() <= pair[1].first_tick());
    }
    let longest = frames.iter().map(|frame| frame.calls()).max();
    assert!(longest < Some(200_000), "{longest:?}");
}

#[test]
fn forks_execs_and_images_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::set(START_NS);
    let mut run = FakeRun::new(dir.path(), time.clone());
    let first = run.spool(500, 400, 16, &["/usr/bin/firefox", "--headless"]);
    let mut thread = FakeThread::new(&first, 0, 0, To::File);
    thread.push(&record(Entry::Malloc, 16, 8, time.stamp(50)));
    let at_fork = ForkPosition {
        thread: 0,
        calls: 1,
    };
    time.stamp(100);
    let child = first.fork(1, 0, &[at_fork]);
    assert_eq!(child, 1);
    thread.push(&record(Entry::Free, 16, 0, time.stamp(50)));
    let mut forked = FakeThread::new(&first, child, 0, To::Stays);
    forked.push(&record(Entry::Free, 16, 0, time.stamp(50)));
    // The first process becomes another image.
    time.stamp(100);
    let second = run.spool(500, 400, 16, &["/usr/lib/tab", "-contentproc", "3", "tab"]);
    let mut image = FakeThread::new(&second, 0, 0, To::File);
    image.push(&record(Entry::Malloc, 16, 8, time.stamp(50)));
    image.hand_over();
    time.stamp(50);
    second.end(0);
    let (reader, _) = packed(dir.path());
    let summary = |p: &Process| (p.pid, p.parent, p.started_by, p.ended);
    let processes = reader.processes();
    assert_eq!(
        summary(&processes[0]),
        (500, None, StartedBy::Root, Ended::Exec)
    );
    assert_eq!(
        summary(&processes[1]),
        (1, Some(0), StartedBy::Fork, Ended::Unknown)
    );
    assert_eq!(
        summary(&processes[2]),
        (500, Some(0), StartedBy::Exec, Ended::Exit(None))
    );
    assert_eq!(processes[1].fork_positions, [(0, 1)]);
    assert_eq!(processes[1].parent_threads, 1);
    assert_eq!(processes[0].role, "main");
    assert_eq!(processes[2].role, "tab");
    assert_eq!(processes[0].ended_at, processes[2].started);
}

#[test]
fn a_missing_chunk_is_a_gap_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::set(START_NS);
    let mut run = FakeRun::new(dir.path(), time.clone());
    let spool = run.spool(500, 400, 16, &["p"]);
    let mut thread = FakeThread::new(&spool, 0, 0, To::File);
    thread.large = false;
    for n in 0..2_000u64 {
        // The third chunk of 238 calls gets lost.
        thread.to = if (600..610).contains(&n) {
            To::FileCut(0)
        } else {
            To::File
        };
        if n == 605 {
            thread.hand_over();
            // Its place is used again.
            for chunk in 0..16 {
                if spool.chunk(chunk).state.load(Relaxed) == 2 {
                    spool.chunk(chunk).state.store(0, Relaxed);
                }
            }
        }
        thread.push(&record(Entry::Malloc, 16 + n, 8, time.stamp(50)));
    }
    drop((thread, spool));
    let file = tempfile::tempfile().unwrap();
    let (file, report) = pack(dir.path(), file, &PackOptions::default(), &mut |_| {}).unwrap();
    let reader = TraceReader::from_file(file, Path::new("packed")).unwrap();
    let stream = &reader.processes()[0].threads[0];
    assert_eq!(stream.chunks_missing, 1);
    assert!(
        report.calls < 2_000 && report.calls > 1_500,
        "{}",
        report.calls
    );
    assert_eq!(stream.counters.total(), 2_000);
    let segments: Vec<(u64, u64)> = reader
        .frames()
        .iter()
        .flat_map(|f| f.segments.iter().map(|s| (s.first_ordinal, s.count)))
        .collect();
    assert_eq!(segments.len(), 2);
    assert_eq!(segments[1].0 + segments[1].1, 2_000);
    assert!(segments[1].0 > segments[0].1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever happens to the files, packing ends without a panic, and what it delivers is part of
    /// what was written.
    #[test]
    fn damaged_runs_are_survived(
        flips in proptest::collection::vec((any::<bool>(), any::<u32>(), any::<u8>()), 0..60),
        cuts in proptest::option::of((any::<bool>(), any::<u32>())),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let time = Time::set(START_NS);
        let mut run = FakeRun::new(dir.path(), time.clone());
        let spool = run.spool(500, 400, 2, &["p"]);
        let mut threads = [
            FakeThread::new(&spool, 0, 0, To::File),
            FakeThread::new(&spool, 0, 1, To::Stays),
        ];
        threads[1].large = false;
        for n in 0..1_500u64 {
            let thread = (n % 2) as usize;
            let call = varied(n, &time, 75);
            threads[thread].push(&call);
        }
        let chunks = dir.path().join("chunks");
        let spool_path = spool.path.clone();
        drop(threads);
        drop(spool);
        let slabs = rmtrace_format::spool::SLABS_OFFSET as u64;
        for (appended, at, value) in flips {
            use std::os::unix::fs::FileExt;
            let path = if appended { &chunks } else { &spool_path };
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            // Headers are what hurts most.
            let at = if appended { u64::from(at) % length.max(1) }
                else if at % 3 == 0 { u64::from(at) % 8192 }
                else { slabs + u64::from(at) % (1 << 17) };
            if at < length {
                file.write_all_at(&[value], at).unwrap();
            }
        }
        if let Some((appended, at)) = cuts {
            let path = if appended { &chunks } else { &spool_path };
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(u64::from(at) % length.max(1)).unwrap();
        }
        if let Ok((file, _)) = pack(dir.path(), tempfile::tempfile().unwrap(), &PackOptions::default(), &mut |_| {}) {
            let reader = TraceReader::from_file(file, Path::new("packed")).unwrap();
            let mut scratch = FrameScratch::default();
            for entry in reader.frames() {
                let frame = reader.frame(entry, &mut scratch).unwrap();
                for n in 0..frame.segments.len() {
                    frame.calls(n).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_run_that_goes_on_is_packed_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::set(START_NS);
    let mut run = FakeRun::new(dir.path(), time.clone());
    let spool = run.spool(500, 400, 16, &["p"]);
    let mut threads = [
        FakeThread::new(&spool, 0, 0, To::File),
        FakeThread::new(&spool, 0, 1, To::Stays),
    ];
    for n in 0..20_000u64 {
        threads[(n % 2) as usize].push(&varied(n, &time, 75));
    }
    // A header that is ahead of the records, as one that is read while its thread works.
    let active = (0..16 * 16)
        .find(|chunk| spool.chunk(*chunk).state.load(Relaxed) == 1)
        .unwrap();
    spool.chunk(active).calls[0].fetch_add(3, Relaxed);
    let (reader, report) = packed(dir.path());
    assert_eq!((report.calls, report.missing), (20_000, 0));
    assert_eq!(differences(&reader), Vec::<String>::new());
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("still running"))
    );
}

#[test]
fn what_is_no_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = RunDir::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("not a run directory"), "{error}");
    // A pipe in place of a file is not waited for.
    std::fs::create_dir(dir.path().join("pool")).unwrap();
    let pipe = std::ffi::CString::new(dir.path().join("chunks").to_str().unwrap()).unwrap();
    // SAFETY: a C string.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    assert!(RunDir::open(dir.path()).is_err());
}
