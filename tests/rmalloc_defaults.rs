//! What `rmalloc` has from the other crates is what these give now: its default size classes, and the
//! sample of `rmtrace advise` that its own tests read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[allow(dead_code)] // Its `main`.
#[path = "../examples/rmalloc_classes.rs"]
mod rmalloc_classes;

fn at_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All whole numbers on lines that hold nothing else, as lists of sizes do.
fn sizes(text: &str) -> Vec<u32> {
    let lines = text.lines().map(str::trim);
    let of_line = |line: &str| -> Option<Vec<u32>> {
        let numbers = line.strip_suffix(',')?.split(", ");
        numbers.map(|number| number.parse().ok()).collect()
    };
    lines.filter_map(of_line).flatten().collect()
}

#[test]
fn the_default_classes_are_those_of_the_shipped_traces() {
    let traces = ["python", "sqlite", "gcc", "firefox-content"]
        .map(|name| at_root(&format!("traces/{name}.rmt")));
    let mut out = Vec::new();
    rmalloc_classes::run(&traces, &mut out).expect("whole traces");
    let printed = sizes(&String::from_utf8(out).expect("text"));
    assert_eq!(printed.len(), rmalloc_classes::CLASSES);
    let source = at_root("rmalloc/src/class/default_sizes.rs");
    let source = fs::read_to_string(source).expect("the default sizes");
    assert_eq!(printed, sizes(&source));
}

#[test]
fn the_sample_of_advise_is_what_it_writes() {
    let temp = tempfile::tempdir().expect("a directory");
    let written = temp.path().join("rmalloc.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .args(["advise", "--memory", "512M", "-o"])
        .arg(&written)
        .arg(at_root("traces/firefox-content.rmt"))
        .output()
        .expect("rmtrace starts");
    assert!(output.status.success(), "{output:?}");
    let written = fs::read_to_string(written).expect("rmalloc.toml");
    let sample = at_root("rmalloc/tests/data/advised.toml");
    assert_eq!(written, fs::read_to_string(sample).expect("the sample"));
}
