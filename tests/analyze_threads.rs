//! `rmtrace analyze` says the same with any number of threads: of whole traces, of parts, of damaged ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("traces")
        .join(name)
}

fn analyze(trace: &Path, threads: &str, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .args(["analyze", "--json", "--threads", threads])
        .args(options)
        .arg(trace)
        .output()
        .expect("rmtrace starts")
}

/// Asserts that all say the same; returns what.
fn same(trace: &Path, options: &[&str]) -> Output {
    let one = analyze(trace, "1", options);
    for threads in ["2", "3", "4"] {
        let more = analyze(trace, threads, options);
        let what = format!("{} {options:?} with {threads} threads", trace.display());
        assert_eq!(more.status, one.status, "{what}: {more:?}");
        assert_eq!(more.stderr, one.stderr, "{what}");
        assert!(more.stdout == one.stdout, "{what}: another report");
    }
    one
}

#[test]
fn the_report_of_a_trace_is_the_same() {
    for name in [
        "tiny",
        "by_hand",
        "sqlite",
        "python",
        "gcc",
        "firefox-content",
    ] {
        let output = same(&sample(&format!("{name}.rmt")), &[]);
        assert_eq!(output.status.code(), Some(0), "{name}");
    }
}

#[test]
fn the_report_of_a_part_is_the_same() {
    let parts: [&[&str]; 5] = [
        &["--from", "20%", "--to", "60%"],
        &["--size", "16..256"],
        &["--kind", "calloc", "--from", "10%"],
        &["--thread", "0"],
        &["--process", "cc1", "--to", "50%"],
    ];
    for options in parts {
        let output = same(&sample("gcc.rmt"), options);
        assert_eq!(output.status.code(), Some(0), "{options:?}");
    }
}

#[test]
fn the_report_of_a_damaged_trace_is_the_same() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("damaged.rmt");
    let (mut cut, mut flipped) = ([0; 3], [0; 3]);
    let count = |to: &mut [u32; 3], output: &Output| {
        let status = output.status.code().expect("no signal") as usize;
        to[status] += 1;
        if status != 2 {
            let report: serde_json::Value =
                serde_json::from_slice(&output.stdout).expect("a JSON report");
            let damage = report["trace"]["damage"].as_array().expect("damage");
            assert_eq!(damage.is_empty(), status == 0, "{damage:?}");
        }
    };
    for name in ["sqlite.rmt", "gcc.rmt"] {
        let whole = fs::read(sample(name)).expect("a sample");
        for at in [
            0,
            7,
            40,
            whole.len() / 3,
            whole.len() / 2,
            whole.len() - 1_000,
            whole.len() - 1,
        ] {
            fs::write(&path, &whole[..at]).expect("a temporary file");
            count(&mut cut, &same(&path, &[]));
        }
        for part in 1..8 {
            let mut bytes = whole.clone();
            bytes[whole.len() / 8 * part] ^= 0x10;
            fs::write(&path, &bytes).expect("a temporary file");
            count(&mut flipped, &same(&path, &[]));
        }
    }
    // Some are cut within the head, some later; a changed byte is always seen.
    assert!(cut[0] == 0 && cut[1] > 4 && cut[2] > 2, "{cut:?}");
    assert!(flipped[0] == 0 && flipped[1] > 4, "{flipped:?}");
}
