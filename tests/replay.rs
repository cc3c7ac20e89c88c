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

/// Every operation is timed once, in the place where it belongs, and ranked; counts are exact.
#[test]
fn single_operations_are_timed_and_ranked() {
    let place = Place::new();
    let report = place.json(
        "firefox-content",
        &["-a", "system,mimalloc,null", "--quick"],
    );
    let program = |key: &str| number(&report, &format!("/program/{key}"));
    let clock = |key: &str| number(&report, &format!("/replayer/clock/{key}_ns"));
    assert!(clock("step") > 0.0 && clock("cost") < clock("floor"));
    let mallocs = program("allocations") - program("zeroed") - program("aligned");
    for (at, name) in ["system", "mimalloc", "null"].iter().enumerate() {
        let allocator = &report["allocators"][at];
        let counted = |kind: &str| number(allocator, &format!("/latency_ns/{kind}/count"));
        assert_eq!(counted("all"), program("operations"), "{name}");
        assert_eq!(counted("malloc"), mallocs);
        assert_eq!(counted("calloc"), program("zeroed"));
        assert_eq!(counted("aligned"), program("aligned"));
        assert_eq!(counted("realloc"), program("resizes"));
        assert_eq!(counted("free"), program("frees"));
        assert_eq!(counted("free_cross_thread"), program("cross_thread_frees"));
        assert_eq!(
            counted("free_same_thread") + counted("free_cross_thread"),
            counted("free")
        );
        for kind in ["malloc", "free"] {
            let of = |key: &str| number(allocator, &format!("/latency_ns/{kind}/{key}"));
            let order = ["p50", "p90", "p99", "p999", "p9999", "max"].map(of);
            assert!(order[0] > 0.0 && order.is_sorted(), "{name}: {order:?}");
        }
        let sizes = allocator["latency_ns"]["by_size"]
            .as_array()
            .expect("sizes");
        let sum: f64 = sizes.iter().map(|size| number(size, "/free/count")).sum();
        assert_eq!(sum, program("frees"));
    }
    assert!(report["allocators"][2]["scores"].is_null());
    for kind in ["all", "malloc", "realloc", "free", "space"] {
        let of =
            |at: u32, key: &str| number(&report, &format!("/allocators/{at}/scores/{kind}/{key}"));
        // At each place one of two is the best and one the worst, or both are.
        let (best, worst) = (
            of(0, "best") + of(1, "best"),
            of(0, "worst") + of(1, "worst"),
        );
        assert!(
            best > 0.999 && (best - worst).abs() < 1e-9,
            "{kind}: {best} {worst}"
        );
        // Where they differ, one has rank 1 of two.
        let penalties = of(0, "penalty_c") + of(1, "penalty_c");
        assert!(
            (penalties - (2.0 - best) / 2.0).abs() < 1e-9,
            "{kind}: {penalties}"
        );
    }
    let text = place.replay("by_hand", &["-a", "null,system", "--quick", "-v"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for wanted in ["latency", "penalty c", "JW 4", "p99.99", "latency by size"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

/// The replayed C library gives out addresses again as the recorded one did; blocks are where they are said to be.
#[test]
fn addresses_pages_and_system_calls_are_counted() {
    let place = Place::new();
    let report = place.json(
        "gcc",
        &[
            "-a",
            "system,null",
            "--rounds",
            "1",
            "--latency-rounds",
            "0",
        ],
    );
    for key in ["last", "recent"] {
        let recorded = number(&report, &format!("/fidelity/reuse/{key}"));
        let replayed = number(&report, &format!("/allocators/0/reuse/{key}"));
        assert!(
            recorded > 0.1 && (recorded - replayed).abs() < 0.02,
            "{recorded} {replayed}"
        );
    }
    assert!(number(&report, "/fidelity/resident/samples") > 0.0);
    let system = &report["allocators"][0];
    assert!(system["latency_ns"].is_null() && system["scores"].is_null());
    let internal = number(system, "/internal_fragmentation/at_peak");
    assert!(internal > 0.0 && internal < 0.1, "{internal}");
    let uses = system["page_use"].as_array().expect("page use");
    assert_eq!(uses.len(), 20);
    for of in uses {
        let (filled, empty) = (number(of, "/filled"), number(of, "/empty_share"));
        assert!(
            filled > 0.5 && filled <= 1.0 && (0.0..0.5).contains(&empty),
            "{of}"
        );
    }
    for key in [
        "mean_over_time",
        "at_peak_live",
        "at_peak_resident",
        "peak_over_peak",
    ] {
        assert!((0.9..2.0).contains(&number(system, &format!("/johnstone_wilson/{key}"))));
    }
    assert_eq!(
        number(system, "/johnstone_wilson/peak_over_peak"),
        number(system, "/peak_resident_over_live")
    );
    // Where tracing is refused the reason is there instead.
    if system["system_calls"].is_null() {
        assert!(system["system_calls_why"].is_string());
    } else {
        let calls =
            |at: u32, key: &str| number(&report, &format!("/allocators/{at}/system_calls/{key}"));
        // glibc grows its heap by 132 KiB at a time, and maps what is larger.
        assert!(
            calls(0, "brk") > 100.0 && calls(0, "mmap") > 10.0,
            "{system}"
        );
        assert_eq!(calls(1, "total"), 0.0);
    }
    assert!(report["allocators"][1].get("page_use").is_none());
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

#[test]
fn recorded_threads_are_threads_that_wait_for_each_other() {
    let place = Place::new();
    let arguments = [
        "--threads",
        "real",
        "-a",
        "rmalloc,mimalloc",
        "--rounds",
        "1",
    ];
    let report = place.json("firefox-content", &arguments);
    assert_eq!(report["settings"]["threads"], "real");
    assert_eq!(report["fidelity"]["order"], "dependencies");
    assert_eq!(number(&report, "/program/operations"), 2_299_063.0);
    let real = &report["fidelity"]["threads"];
    assert_eq!(
        (number(real, "/threads"), number(real, "/at_once")),
        (20.0, 10.0)
    );
    assert_eq!(number(real, "/cuts"), 100.0);
    assert!(number(real, "/lead_max") <= 22_991.0);
    let (waits, dependencies) = (number(real, "/waits"), number(real, "/dependencies"));
    assert!(0.0 < waits && waits <= dependencies, "{real}");
    // One word an operation, the waits, and one more for each of the few alignments.
    let (words, aligned) = (
        number(&report, "/program/op_words"),
        number(&report, "/program/aligned"),
    );
    assert_eq!(words, 2_299_063.0 + waits + aligned);
    assert_eq!(number(&report, "/fidelity/live_bytes/differing"), 0.0);
    // 1,000 points, the peak, the end and the meetings of each memory round; 100 cuts of each timed one.
    assert!(number(&report, "/fidelity/live_bytes/points") > 2.0 * 1_102.0);
    for allocator in report["allocators"].as_array().expect("allocators") {
        assert!(number(allocator, "/ns_per_op/median") > 0.0);
        assert_eq!(
            allocator["threads"]["memory_is_comparable"], true,
            "{allocator}"
        );
        let peak = number(allocator, "/peak_resident_over_live");
        assert!((0.9..4.0).contains(&peak), "{peak}");
    }
}

#[test]
fn blocks_that_other_threads_free_may_hold_locks_and_a_window_is_kept() {
    let place = Place::new();
    for lock in ["life", "share:10%", "alloc:1ms", "score", "share:10%,old"] {
        let report = place.json(
            "firefox-content",
            &[
                "--threads",
                "real",
                "--window",
                "5000",
                "-a",
                "rmalloc",
                "--lock",
                lock,
                "--rounds",
                "1",
            ],
        );
        assert_eq!(
            number(&report, "/fidelity/live_bytes/differing"),
            0.0,
            "{lock}"
        );
        assert!(number(&report, "/settings/window") <= 5_001.0, "{lock}");
    }
    let said = place.refused("by_hand", &["--window", "100"]);
    assert!(said.contains("--threads real"), "{said}");
    let said = place.refused("by_hand", &["--threads", "two"]);
    assert!(said.contains("real or one"), "{said}");
    // The same trace has a program of each kind, and each is found again.
    for _ in 0..2 {
        place.json("by_hand", &["-a", "null", "--quick"]);
        place.json("by_hand", &["-a", "null", "--quick", "--threads", "real"]);
    }
    assert_eq!(programs_in(place.path()).len(), 4 + 2);
}

#[test]
fn broken_allocators_are_found_and_named_in_threads_too() {
    let place = Place::new();
    for (fault, wanted) in [
        ("OVERLAP", "which is live too: they overlap"),
        ("REFUSE", "it refused"),
    ] {
        let broken = place.library("lib_broken", &format!("-DFAULT={fault}"));
        let said = place.refused("python", &["--threads", "real", "-a", &broken, "--check"]);
        assert!(
            said.contains(wanted) && said.contains("in thread 0"),
            "{said}"
        );
    }
}
