//! `rmtrace replay` as a whole: workers, real allocators, broken ones, and what the report says. Times are never
//! compared; counts, contents and messages are.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TRACES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/traces");
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs");

/// A test's own directory, with its own cache in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn replay(&self, trace: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_rmtrace"))
            .arg("replay")
            .arg(format!("{TRACES}/{trace}.rmt"))
            .args(arguments)
            .env("XDG_CACHE_HOME", self.path())
            .output()
            .expect("rmtrace starts")
    }

    fn json(&self, trace: &str, arguments: &[&str]) -> Value {
        let output = self.replay(trace, &[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn refused(&self, trace: &str, arguments: &[&str]) -> String {
        let output = self.replay(trace, arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Builds a shared library.
    fn library(&self, program: &str, option: &str) -> String {
        let path: PathBuf = self.path().join(format!("{program}{option}.so"));
        let built = Command::new("cc")
            .args(["-O1", "-fPIC", "-shared", "-fno-builtin", option, "-o"])
            .arg(&path)
            .arg(format!("{PROGRAMS}/{program}.c"))
            .output()
            .expect("a C compiler");
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        path.to_string_lossy().into_owned()
    }
}

fn number(value: &Value, pointer: &str) -> f64 {
    let number = value.pointer(pointer).and_then(Value::as_f64);
    number.unwrap_or_else(|| panic!("{pointer} is no number"))
}

fn programs_in(place: &Path) -> Vec<PathBuf> {
    let directory = std::fs::read_dir(place.join("rmtrace/replay")).expect("a cache");
    directory
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn every_sample_is_replayed_as_it_was_recorded() {
    let place = Place::new();
    for (trace, operations) in [
        ("python", 360_609),
        ("sqlite", 110_963),
        ("gcc", 132_156),
        ("firefox-content", 2_299_063),
    ] {
        let report = place.json(trace, &["-a", "system,mimalloc,null", "--rounds", "2"]);
        assert_eq!(number(&report, "/schema"), 1.0);
        assert_eq!(
            number(&report, "/program/operations"),
            f64::from(operations),
            "{trace}"
        );
        assert_eq!(number(&report, "/fidelity/live_bytes/differing"), 0.0);
        // 1,000 points, the peak and the end of three memory rounds, the end of six timed ones.
        assert_eq!(
            number(&report, "/fidelity/live_bytes/points"),
            3.0 * 1_002.0 + 6.0
        );
        let allocators = report["allocators"].as_array().expect("allocators");
        assert_eq!(allocators.len(), 3);
        for (allocator, name) in allocators.iter().zip(["system", "mimalloc", "null"]) {
            assert_eq!(allocator["name"], name);
            assert_eq!(
                allocator["ns_per_op"]["rounds"].as_array().map(Vec::len),
                Some(2)
            );
            let (low, high) = (
                number(allocator, "/ns_per_op/low"),
                number(allocator, "/ns_per_op/high"),
            );
            assert!(0.0 < low && low <= high);
        }
        assert_eq!(
            number(&report, "/replayer/ns_per_op"),
            number(&allocators[2], "/ns_per_op/median")
        );
        assert!(allocators[2].get("mean_resident_over_live").is_none());
        for allocator in &allocators[..2] {
            // All blocks are touched, so what is live is resident; bookkeeping within a few times that.
            let peak = number(allocator, "/peak_resident_over_live");
            assert!((0.9..4.0).contains(&peak), "{trace}: {allocator}");
            let resident = allocator["resident_bytes"].as_array().expect("a series");
            assert_eq!(resident.len(), 1_000);
            let sum: f64 = resident.iter().filter_map(Value::as_f64).sum();
            let live = report["series"]["live_bytes"].as_array().expect("a series");
            let live: f64 = live.iter().filter_map(Value::as_f64).sum();
            let ratio = number(allocator, "/mean_resident_over_live");
            assert!((sum / live - ratio).abs() < 1e-9, "{trace}: {ratio}");
        }
    }
}

#[test]
fn the_report_is_a_table() {
    let place = Place::new();
    let output = place.replay("by_hand", &["-a", "null,system", "--quick"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for wanted in [
        "by_hand.rmt, process 0",
        "9 operations",
        "1 failed calls left out",
        "3 timed rounds",
        "ns an operation",
        "glibc ",
        "live bytes were the recorded ones at",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn resident_memory_is_the_same_in_every_run() {
    let place = Place::new();
    let peak = || {
        let report = place.json("gcc", &["-a", "system", "--rounds", "1"]);
        number(&report, "/allocators/0/peak_resident_bytes")
    };
    let (first, second) = (peak(), peak());
    // Where the heap begins within a page differs from run to run.
    assert!((first - second).abs() <= 65_536.0, "{first} {second}");
    // Most of it is in blocks that nobody writes to if the replay does not.
    let report = place.json("gcc", &["-a", "system", "--touch", "none", "--rounds", "1"]);
    assert!(number(&report, "/allocators/0/peak_resident_over_live") < 0.5);
}

#[test]
fn a_program_is_made_once_and_made_anew_where_it_is_spoilt() {
    let place = Place::new();
    let made = |report: &Value| report["replayer"]["prepared_events_per_s"].is_number();
    let run = || place.json("python", &["-a", "null", "--rounds", "1"]);
    assert!(made(&run()));
    assert!(!made(&run()));
    let programs = programs_in(place.path());
    assert_eq!(programs.len(), 1);
    let whole = std::fs::read(&programs[0]).expect("the program");
    // Cut short, or with a wrong bit within.
    let mut wrong = whole.clone();
    wrong[whole.len() / 2] ^= 4;
    for spoilt in [&whole[..whole.len() / 2], &wrong] {
        std::fs::write(&programs[0], spoilt).expect("written");
        assert!(made(&run()));
        assert_eq!(std::fs::read(&programs[0]).expect("the program"), whole);
    }
    // With nothing kept it is made each time, and nothing is left behind.
    let without = || place.json("python", &["-a", "null", "--rounds", "1", "--no-cache"]);
    assert!(made(&without()) && made(&without()));
    assert_eq!(programs_in(place.path()), programs);
}

#[test]
fn broken_allocators_are_found_and_named() {
    let place = Place::new();
    let broken = |fault: &str| place.library("lib_broken", &format!("-DFAULT={fault}"));
    let sound = broken("0");
    let report = place.json("python", &["-a", &sound, "--check", "--rounds", "1"]);
    assert_eq!(report["settings"]["touch"], "check");
    for (fault, trace, wanted) in [
        (
            "OVERLAP",
            "python",
            ["which is live too: they overlap", " bytes holds at byte "],
        ),
        (
            "UNZEROED",
            "python",
            ["zeroed memory, block", "0x5555555555555555"],
        ),
        (
            "MISALIGN",
            "by_hand",
            ["a block aligned to 64 was put at", "operation"],
        ),
        (
            "LOST",
            "python",
            ["holds at byte 0", "something that no live block wrote"],
        ),
        ("REFUSE", "python", ["it refused", "operation"]),
    ] {
        let said = place.refused(trace, &["-a", &broken(fault), "--check"]);
        assert!(
            wanted.iter().all(|wanted| said.contains(wanted)),
            "{fault}: {said}"
        );
        assert!(said.contains("lib_broken"), "{said}");
    }
    for (fault, signal) in [("CRASH", "11 (SIGSEGV)"), ("KILL", "9 (SIGKILL")] {
        let said = place.refused("python", &["-a", &broken(fault)]);
        let killed = format!("killed by signal {signal}");
        assert!(
            said.contains(&killed) && said.contains("looks at memory"),
            "{said}"
        );
    }
}

#[test]
fn what_cannot_be_opened_late_is_preloaded() {
    let place = Place::new();
    let big = place.library("lib_broken", "-DBIG_TLS");
    let small = place.library("lib_broken", "-DFAULT=0");
    let report = place.json(
        "python",
        &["-a", &format!("{big},{small}"), "--rounds", "1", "--check"],
    );
    assert_eq!(report["allocators"][0]["loaded"], "preloaded");
    assert_eq!(report["allocators"][1]["loaded"], "opened");
}

/// rmalloc is linked in, or the user is told that it is not.
#[test]
fn the_linked_rmalloc_passes_the_check() {
    let place = Place::new();
    for rule in ["touched", "share:10%", "alloc:1ms"] {
        let output = place.replay(
            "python",
            &[
                "-a", "rmalloc", "--check", "--lock", rule, "--rounds", "1", "--json",
            ],
        );
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                said.contains("this rmtrace was built without it"),
                "{rule}: {said}"
            );
            continue;
        }
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            number(&report, "/fidelity/live_bytes/differing"),
            0.0,
            "{rule}"
        );
        assert!(number(&report, "/allocators/0/own/resident_bytes") > 0.0);
    }
}

#[test]
fn blocks_behind_handles_are_locked_as_the_rule_says() {
    let place = Place::new();
    let handles = place.library("lib_handles", "-DX");
    let run =
        |more: &[&str]| place.json("gcc", &[&["-a", &handles, "--rounds", "1"], more].concat());
    for rule in ["touched", "life", "share:10%", "alloc:1ms"] {
        let report = run(&["--lock", rule, "--check", "--compact-at", "end"]);
        assert_eq!(
            number(&report, "/fidelity/live_bytes/differing"),
            0.0,
            "{rule}"
        );
        assert_eq!(number(&report, "/allocators/0/compaction/status"), 0.0);
        assert_eq!(
            number(&report, "/allocators/0/compaction/live_bytes"),
            number(&report, "/program/end_live_bytes")
        );
    }
    let report = run(&["--touch", "none", "--compact-at", "peak"]);
    assert_eq!(report["allocators"][0]["compaction"]["at"], "peak");
    assert_eq!(
        number(&report, "/allocators/0/compaction/live_bytes"),
        number(&report, "/program/peak_live_bytes")
    );
}

#[test]
fn what_is_missing_or_meaningless_is_told() {
    let place = Place::new();
    let said = place.refused("by_hand", &["-a", "libno_such_allocator.so.7"]);
    assert!(
        said.contains("libno_such_allocator.so.7") && said.contains("can't be loaded"),
        "{said}"
    );
    // A library that is no allocator.
    let said = place.refused("by_hand", &["-a", "libm.so.6"]);
    assert!(said.contains("it has no malloc"), "{said}");
    for arguments in [
        ["-a", "jmalloc"],
        ["--touch", "some"],
        ["--lock", "share:2"],
        ["--rounds", "0"],
    ] {
        place.refused("by_hand", &arguments);
    }
}
