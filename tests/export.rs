//! `rmtrace export`, as other programs read it: DuckDB and pyarrow find in the tables what
//! `rmtrace analyze` reports. They come from the Python package index into a virtual environment beside the
//! build's results; where that can't be had, as without a network, the test is skipped and says so. The
//! tables are read back without them in `export/tests/read_back.rs`.
#![cfg(feature = "export")]

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn rmtrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rmtrace"))
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("traces")
        .join(name)
}

fn run(command: &mut Command) -> Output {
    command.output().expect("it starts")
}

fn succeed(command: &mut Command) -> Output {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn report(trace: &Path) -> Value {
    let output = succeed(rmtrace().args(["analyze", "--json"]).arg(trace));
    serde_json::from_slice(&output.stdout).expect("a JSON report")
}

/// A Python that has DuckDB and pyarrow.
fn python() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("export-readers");
    let python = place.join("bin/python");
    let works = |python: &Path| {
        Command::new(python)
            .args(["-c", "import duckdb, pyarrow.parquet"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if works(&python) {
        return Some(python);
    }
    let _ = fs::remove_dir_all(&place);
    let steps = [
        Command::new("python3")
            .args(["-m", "venv"])
            .arg(&place)
            .output(),
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"])
            .args(["duckdb>=1", "pyarrow>=15"])
            .output(),
    ];
    if works(&python) {
        return Some(python);
    }
    eprintln!(
        "skipped: DuckDB and pyarrow can't be had (no python3-venv, or no package index): {steps:?}"
    );
    None
}

/// Exports `trace` in a form and gives the file.
fn exported(trace: &Path, directory: &Path, table: &str, ending: &str) -> PathBuf {
    let file = directory.join(format!("{table}.{ending}"));
    let table = format!("--{table}");
    succeed(
        rmtrace()
            .arg("export")
            .arg(trace)
            .arg(table)
            .arg("-o")
            .arg(&file),
    );
    file
}

/// What the readers find in the files, each.
fn found(python: &Path, table: &str, files: &[PathBuf]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/read_export.py");
    let output = succeed(Command::new(python).arg(script).arg(table).args(files));
    let text = String::from_utf8(output.stdout).expect("text");
    let values: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(values.len(), files.len());
    values
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// Holds the table of blocks to the report of the same trace.
fn compare_blocks(report: &Value, found: &Value) {
    let (blocks, frees) = (&report["blocks"], &report["frees"]);
    assert_eq!(found["allocated"], blocks["allocated"]);
    assert_eq!(found["never_freed"], blocks["never_freed"]);
    // Inherited blocks are rows of those who allocated them.
    let freed = number(&blocks["freed"]) - number(&frees["inherited"]);
    assert_eq!(number(&found["freed"]), freed);
    assert_eq!(found["never_freed_bytes"], report["bytes"]["never_freed"]);
    assert_eq!(found["cross_thread"], frees["cross_thread"]);
    for clock in ["ns", "events", "bytes"] {
        let longest = &found[format!("longest_{clock}")];
        assert_eq!(longest, &report["lifetime"][clock]["max"], "{clock}");
    }
    let keys = ["low", "high", "blocks", "bytes"];
    let of = |rows: &Value| -> Vec<[Value; 4]> {
        let rows = rows.as_array().expect("rows").iter();
        rows.map(|row| keys.map(|key| row[key].clone())).collect()
    };
    assert_eq!(of(&found["sizes"]), of(&report["size_histogram"]));
    for process in found["processes"].as_array().expect("rows") {
        let processes = report["processes"].as_array().expect("processes");
        let told = processes
            .iter()
            .find(|told| told["number"] == process["process"])
            .expect("a process of the report");
        assert_eq!(process["pid"], told["pid"]);
        assert_eq!(process["allocated"], told["blocks"]["allocated"]);
    }
}

fn compare_events(report: &Value, found: &Value) {
    let events = &report["events"];
    let kinds = found["kinds"].as_array().expect("rows");
    for kind in kinds {
        let name = kind["kind"].as_str().expect("a name");
        assert_eq!(kind["calls"], events[name], "{name}");
    }
    let sum = |key: &str| kinds.iter().map(|kind| number(&kind[key])).sum::<u64>();
    assert_eq!(sum("calls"), number(&events["total"]));
    assert_eq!(sum("failed"), number(&events["failed"]));
    assert_eq!(found["backwards"], 0, "rows are in time order");
}

#[test]
fn duckdb_and_pyarrow_find_what_the_report_says() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    for (name, endings) in [
        ("by_hand.rmt", &["parquet", "csv", "jsonl"][..]),
        ("gcc.rmt", &["parquet", "csv", "jsonl"]),
        ("firefox-content.rmt", &["parquet"]),
    ] {
        let trace = sample(name);
        let report = report(&trace);
        let files = |table: &str| -> Vec<PathBuf> {
            let endings = endings.iter();
            endings
                .map(|ending| exported(&trace, directory, table, ending))
                .collect()
        };
        for found in found(&python, "blocks", &files("blocks")) {
            compare_blocks(&report, &found);
            if number(&report["blocks"]["inherited"]) == 0 {
                assert_eq!(found["resized"], report["realloc"]["resized"], "{name}");
                assert_eq!(found["moved"], report["realloc"]["moved"], "{name}");
            }
            let pyarrow = &found["pyarrow"];
            if !pyarrow.is_null() {
                assert_eq!(pyarrow["rows"], found["allocated"]);
                assert_eq!(pyarrow["sum"], found["first_bytes"]);
                let types = &pyarrow["types"];
                assert_eq!(types["life_ns"], "uint64");
                assert_eq!(types["thread_ended"], "uint32");
                assert_eq!(types["align_log2"], "uint8");
                assert_eq!(types["entry_ended"], "string");
                // Memory is bounded by the group: a large trace has several.
                let groups = number(&found["allocated"]).div_ceil(128 * 1024);
                assert_eq!(number(&pyarrow["groups"]), groups);
            }
        }
        for found in found(&python, "events", &files("events")) {
            compare_events(&report, &found);
        }
    }
}

#[test]
fn one_process_is_exported_alone() {
    let trace = sample("gcc.rmt");
    let lines = |process: &[&str]| {
        let mut command = rmtrace();
        command
            .arg("export")
            .arg(&trace)
            .args(["-o", "-"])
            .args(process);
        let output = succeed(&mut command);
        String::from_utf8(output.stdout).expect("text")
    };
    let all = lines(&[]);
    let one = lines(&["--process", "cc1"]);
    let header = all.lines().next().expect("a header");
    let of_cc1 = all.lines().skip(1).filter(|line| line.starts_with("1,"));
    let expected: Vec<&str> = std::iter::once(header).chain(of_cc1).collect();
    assert!(expected.len() > 1000 && expected.len() < all.lines().count());
    assert!(one.lines().eq(expected), "the rows of process 1");
    let mut unknown = rmtrace();
    unknown
        .arg("export")
        .arg(&trace)
        .args(["-o", "-", "--process", "nobody"]);
    let unknown = run(&mut unknown);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("rmtrace info"));
}

#[test]
fn a_closed_pipe_is_success() {
    for table in ["--blocks", "--events"] {
        let mut child = rmtrace()
            .arg("export")
            .arg(sample("python.rmt"))
            .args(["-o", "-", "--format", "jsonl", table])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("rmtrace starts");
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut first).expect("a line");
        drop(out);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        let first: Value = serde_json::from_str(&first).expect("JSON");
        assert_eq!(first["process"], 0);
    }
}

#[test]
fn what_a_cut_trace_still_has_is_exported() {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = fs::read(sample("gcc.rmt")).expect("the sample");
    let cut = directory.path().join("cut.rmt");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("it can be written");
    let file = directory.path().join("cut.jsonl");
    let mut command = rmtrace();
    command
        .arg("export")
        .arg(&cut)
        .arg("--events")
        .arg("-o")
        .arg(&file);
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = fs::read_to_string(&file).expect("the export");
    let output = run(rmtrace().args(["analyze", "--json"]).arg(&cut));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON report");
    let calls = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|event| event["step"] != "realloc_begin")
        .count();
    assert!(calls > 0);
    assert_eq!(report["events"]["total"], json!(calls));
}

#[test]
fn arguments_that_make_no_sense_are_refused_and_leave_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    for (arguments, hint) in [
        (&["-o", "table"][..], ".parquet"),
        (&["-o", "-", "--format", "parquet"], "FILE.parquet"),
        (&["-o", "x.csv", "--compression", "zstd"], "--compression"),
        (&["-o", "missing/x.csv"], "missing/x.csv"),
    ] {
        let mut command = rmtrace();
        command
            .current_dir(directory)
            .arg("export")
            .arg(sample("tiny.rmt"));
        let output = run(command.args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(hint), "{arguments:?}: {said}");
    }
    let left: Vec<_> = fs::read_dir(directory).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}
