//! `rmtrace pack --process` keeps one process of a trace.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn rmtrace(arguments: &[&str], paths: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .args(arguments)
        .args(paths)
        .output()
        .expect("rmtrace starts")
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/gcc.rmt")
}

#[test]
fn one_process_is_kept_and_verifies() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("cc1.rmt");
    let out_text = out.to_str().expect("a plain path");
    let packed = rmtrace(&["pack", "--process", "1", "-o", out_text], &[&sample()]);
    assert!(packed.status.success(), "{packed:?}");
    let verified = rmtrace(&["verify"], &[&out]);
    assert!(verified.status.success(), "{verified:?}");
    let report = |trace: &Path| -> serde_json::Value {
        let output = rmtrace(&["analyze", "--json"], &[trace]);
        serde_json::from_slice(&output.stdout).expect("a JSON report")
    };
    let (all, one) = (report(&sample()), report(&out));
    let processes = one["processes"].as_array().expect("processes");
    assert_eq!(processes.len(), 1);
    assert_eq!(processes[0]["number"], 1);
    // What it did stays, what it came from is not there.
    assert_eq!(processes[0]["parent"], serde_json::Value::Null);
    for group in ["events", "frees", "realloc", "lifetime"] {
        assert_eq!(processes[0][group], all["processes"][1][group], "{group}");
    }
    // It is the last of its run now, so what it held is live at the end, not released before.
    for key in ["allocated", "freed", "never_freed"] {
        let of = |processes: &serde_json::Value| processes["blocks"][key].clone();
        assert_eq!(of(&processes[0]), of(&all["processes"][1]), "{key}");
    }
}

#[test]
fn a_process_that_is_not_there_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("none.rmt");
    let out_text = out.to_str().expect("a plain path");
    let packed = rmtrace(&["pack", "--process", "77", "-o", out_text], &[&sample()]);
    assert_eq!(packed.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&packed.stderr).contains("no process 77"));
    assert!(!out.exists());
}
