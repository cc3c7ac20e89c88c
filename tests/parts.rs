//! Parts of a trace on the command line: what `rmtrace analyze` makes of --process, --thread, --from, --to,
//! --size and --kind, and what it says of wrong ones. The figures of parts are held to slow twins in
//! `analyzer/tests/samples.rs`.

use rmtrace::file::model::{Call, Mark, Process, RunInfo, Segment, Thread, Window};
use rmtrace::file::{TraceWriter, WindowEncoder};
use rmtrace::format::Entry;
use rmtrace::format::record::{MARK_NAMED, MARK_RUN};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn analyze(trace: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .arg("analyze")
        .args(options)
        .arg(trace)
        .output()
        .expect("rmtrace starts")
}

fn report(trace: &Path, options: &[&str]) -> Value {
    let output = analyze(trace, &[&["--json"], options].concat());
    assert!(output.status.success(), "{options:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("a JSON report")
}

/// What is said of options that can't be used.
fn refused(trace: &Path, options: &[&str]) -> String {
    let output = analyze(trace, options);
    assert_eq!(output.status.code(), Some(2), "{options:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{options:?}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// Two processes with two threads each. Every thread allocates `tick` bytes at the ticks 100, 110,
/// 120 and 130 (of 25 ns, so 0, 250, 500 and 750 ns after the first), by malloc in thread 0 and by
/// calloc in thread 1; the run has the marks `load` at 105 and `idle` at 125, process 1 `mine` at 115.
fn trace(directory: &Path) -> PathBuf {
    let info = RunInfo::default();
    let mut writer = TraceWriter::new(Vec::new(), &info, 25).expect("memory takes it");
    let mut encoder = WindowEncoder::new();
    for number in 0..2 {
        let thread = |of: u32| Thread {
            number: of,
            tid: 100 * (number + 1) + of,
            name: ["main", "helper"][of as usize].to_string(),
            ..Thread::default()
        };
        let process = Process {
            number,
            pid: 100 * (number + 1),
            name: ["first", "second"][number as usize].to_string(),
            threads: vec![thread(0), thread(1)],
            ..Process::default()
        };
        writer.process(&process).expect("memory takes it");
        let segment = |thread: u32| {
            let calls = [100, 110, 120, 130].map(|tick| Call {
                entry: [Entry::Malloc, Entry::Calloc][thread as usize],
                align_log2: 0,
                freed: false,
                address: (tick + u64::from(thread)) * 256,
                new_address: 0,
                requested_bytes: tick,
                tick,
                tick_end: tick,
                caller: 0,
                usable_bytes: 0,
            });
            Segment {
                thread,
                first_ordinal: 0,
                calls: calls.into(),
            }
        };
        let window = Window {
            process: number,
            segments: vec![segment(0), segment(1)],
        };
        writer
            .frame(&encoder.encode(&window))
            .expect("memory takes it");
    }
    let of_process = Mark {
        process: 1,
        ..Mark::of_run(115, MARK_NAMED, "mine")
    };
    let marks = [
        Mark::of_run(105, MARK_RUN, "load"),
        of_process,
        Mark::of_run(125, MARK_RUN, "idle"),
    ];
    writer.marks(&marks).expect("memory takes it");
    let bytes = writer.finish(&info).expect("memory takes it");
    let path = directory.join("parts.rmt");
    fs::write(&path, bytes).expect("a temporary file");
    path
}

#[test]
fn every_option_takes_its_part() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let trace = trace(directory.path());
    // Options, blocks, bytes.
    let parts: [(&[&str], u64, u64); 17] = [
        (&[], 16, 4 * 460),
        (&["--process", "1"], 8, 2 * 460),
        (&["--process", "200"], 8, 2 * 460),
        (&["--process", "second"], 8, 2 * 460),
        (&["--thread", "0"], 8, 2 * 460),
        (&["--thread", "helper"], 8, 2 * 460),
        (&["--thread", "main,helper"], 16, 4 * 460),
        (&["--process", "first", "--thread", "101"], 4, 460),
        (&["--from", "load"], 12, 4 * 360),
        (&["--from", "load", "--to", "idle"], 8, 4 * 230),
        (&["--from", "mine", "--process", "1"], 4, 2 * 250),
        (&["--to", "500ns"], 8, 4 * 210),
        (&["--from", "500ns"], 8, 4 * 250),
        (&["--from", "20%", "--to", "50%"], 4, 4 * 110),
        (&["--size", "110..130"], 8, 4 * 230),
        (&["--kind", "calloc"], 8, 2 * 460),
        (
            &["--kind", "malloc", "--size", "..101", "--process", "0"],
            1,
            100,
        ),
    ];
    for (options, blocks, bytes) in parts {
        let report = report(&trace, options);
        let found = (
            &report["blocks"]["allocated"],
            &report["bytes"]["requested"],
        );
        assert_eq!(found, (&blocks.into(), &bytes.into()), "{options:?}");
        assert_eq!(report["peak"]["live_bytes"], bytes, "{options:?}");
        for check in ["blocks", "bytes", "events"] {
            assert_eq!(report["checks"][check], true, "{options:?}: {check}");
        }
        // That it is a part is said, but for a process, whose report is whole.
        let is_part = options
            .iter()
            .any(|option| option.starts_with("--") && *option != "--process");
        let remarks = report["trace"]["remarks"].as_array().expect("remarks");
        let said = remarks.iter().filter(|remark| {
            remark
                .as_str()
                .is_some_and(|remark| remark.starts_with("only "))
        });
        assert_eq!(said.count() != 0, is_part, "{options:?}: {remarks:?}");
    }
}

#[test]
fn what_is_not_there_is_said() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let trace = trace(directory.path());
    let wrong: [(&[&str], &str); 11] = [
        (
            &["--process", "nobody"],
            "no process has the number, pid, role or name `nobody`",
        ),
        (
            &["--thread", "nobody"],
            "no thread has the number, tid or name `nobody`",
        ),
        // A thread of another process.
        (
            &["--process", "0", "--thread", "201"],
            "no thread has the number, tid or name `201`",
        ),
        (&["--from", "loaded"], "its marks are load, mine, idle"),
        (&["--to", "loaded"], "its marks are load, mine, idle"),
        (
            &["--from", "idle", "--to", "load"],
            "--from is not before --to",
        ),
        (
            &["--from", "50%", "--to", "20%"],
            "--from is not before --to",
        ),
        (
            &["--from", "load", "--to", "load"],
            "--from is not before --to",
        ),
        (&["--size", "64..16"], "no size is in it"),
        (&["--kind", "free"], "malloc, calloc, realloc, memalign"),
        (&["--from", "101%"], "a percentage is between 0 and 100"),
    ];
    for (options, complaint) in wrong {
        let said = refused(&trace, options);
        assert!(said.contains(complaint), "{options:?}: {said}");
    }
    let none = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/sqlite.rmt");
    let said = refused(&none, &["--from", "loaded"]);
    assert!(said.contains("the trace has no named marks"), "{said}");
}
