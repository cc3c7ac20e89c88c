//! The library's edges and the arrows between the crates (ARCHITECTURE.md).

use crate::harness::{interposer, metadata};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

fn names(option: &str) -> BTreeSet<String> {
    let output = Command::new("nm")
        .args(["-D", option])
        .arg(interposer())
        .output()
        .expect("nm is installed with the compiler");
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Nothing of the C library is used, so nothing of it can be missing or interposed.
#[test]
fn undefined_symbols_of_the_library() {
    let expected = set(&["_r_debug", "_dl_debug_addr", "__libc_stack_end"]);
    assert_eq!(names("--undefined-only"), expected);
}

#[test]
fn exported_symbols_of_the_library() {
    let expected = set(&[
        "malloc",
        "calloc",
        "realloc",
        "reallocarray",
        "free",
        "cfree",
        "free_sized",
        "free_aligned_sized",
        "posix_memalign",
        "aligned_alloc",
        "memalign",
        "valloc",
        "pvalloc",
        "longjmp",
        "_longjmp",
        "siglongjmp",
        "__longjmp_chk",
        "__libc_start_main",
        "rmtrace_mark",
        "rmtrace_is_recording",
    ]);
    assert_eq!(names("--defined-only"), expected);
}

/// Crates of the workspace that each depends on, and what the library may use at all.
#[test]
fn arrows_between_the_crates() {
    let metadata = metadata();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("a list") {
        let dependencies = package["dependencies"].as_array().expect("a list");
        // Neither tests nor build scripts, which do not ship.
        let normal = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].is_null());
        let names = normal.filter_map(|dependency| dependency["name"].as_str());
        let name = package["name"].as_str().expect("a name").to_owned();
        uses.insert(name, names.map(str::to_owned).collect());
    }
    let ours: BTreeSet<String> = uses.keys().cloned().collect();
    let arrows = |name: &str| -> BTreeSet<String> {
        uses.get(name)
            .into_iter()
            .flatten()
            .filter(|used| ours.contains(*used))
            .cloned()
            .collect()
    };
    assert_eq!(
        uses["rmtrace-interpose"],
        set(&["rmtrace-format", "iced-x86"])
    );
    assert_eq!(uses["rmtrace-format"], set(&[]));
    assert_eq!(arrows("rmtrace-file"), set(&["rmtrace-format"]));
    assert_eq!(
        arrows("rmtrace-analyzer"),
        set(&["rmtrace-format", "rmtrace-file"])
    );
    assert_eq!(
        arrows("rmtrace-export"),
        set(&["rmtrace-format", "rmtrace-file", "rmtrace-analyzer"])
    );
    let of_root = set(&["rmtrace-format", "rmtrace-file", "rmtrace-analyzer"]);
    assert!(arrows("rmtrace").is_superset(&of_root));
    assert!(!arrows("rmtrace").contains("rmtrace-interpose"));
    // rmalloc knows none of the others, and the command line is the root's alone.
    assert_eq!(arrows("rmalloc"), set(&[]));
    assert_eq!(arrows("rmalloc-c"), set(&["rmalloc"]));
    assert_eq!(
        arrows("rmtrace-replay"),
        set(&[
            "rmtrace-format",
            "rmtrace-file",
            "rmtrace-accesses",
            "rmalloc"
        ])
    );
    assert_eq!(arrows("rmtrace-accesses"), set(&["rmtrace-format"]));
    assert_eq!(arrows("rmtrace-tune"), set(&["rmtrace-replay", "rmalloc"]));
    for (name, uses) in &uses {
        assert_eq!(uses.contains("clap"), name == "rmtrace", "{name}");
    }
}
