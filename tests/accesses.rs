//! `rmtrace accesses` as a whole: counts that were made by hand, threads, files of other runs. Skipped where Valgrind is not
//! installed; fails then in continuous integration.

#[path = "recording/harness/built.rs"]
#[allow(dead_code)]
mod built;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs");

fn has_valgrind() -> bool {
    let found = Command::new("valgrind").arg("--version").output().is_ok();
    assert!(
        found || std::env::var_os("RMTRACE_CI").is_none(),
        "valgrind is not installed"
    );
    if !found {
        eprintln!("skipped: valgrind is not installed");
    }
    found
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn rmtrace(&self, arguments: &[&str]) -> Output {
        Command::new(built::rmtrace())
            .args(arguments)
            .current_dir(self.0.path())
            .env("RMTRACE_LIB", built::interposer())
            .env("XDG_CACHE_HOME", self.0.path())
            .output()
            .expect("rmtrace starts")
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.rmtrace(arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.rmtrace(arguments);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn build(&self, name: &str) -> String {
        let program = self.path(name);
        let built = Command::new("cc")
            .args(["-O0", "-g", "-fno-builtin", "-w", "-pthread", "-o"])
            .arg(&program)
            .arg(Path::new(PROGRAMS).join(format!("{name}.c")))
            .status();
        assert!(built.expect("a C compiler").success());
        program.to_string_lossy().into_owned()
    }

    fn blocks(&self, file: &str) -> Vec<Value> {
        let text = self.succeeds(&["accesses", "--show", file, "--blocks"]);
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    fn summary(&self, file: &str) -> Value {
        serde_json::from_str(&self.succeeds(&["accesses", "--show", file, "--json"])).expect("JSON")
    }
}

/// The sum of all numbers of an object.
fn sum(object: &Value) -> u64 {
    let numbers = object.as_object().expect("an object").values();
    numbers.filter_map(Value::as_u64).sum()
}

#[test]
fn accesses_are_those_counted_by_hand() {
    if !has_valgrind() {
        return;
    }
    let place = Place::new();
    let program = place.build("accesses");
    place.succeeds(&["accesses", "-q", "-o", "x.rma", "--", &program]);
    place.succeeds(&["verify", "x.rmt"]);
    let blocks = place.blocks("x.rma");
    let of = |bytes: u64| {
        let mut found = blocks.iter().filter(|block| block["bytes"] == bytes);
        let block = found
            .next()
            .unwrap_or_else(|| panic!("no block of {bytes} bytes"));
        assert!(found.next().is_none(), "two blocks of {bytes} bytes");
        (
            block["writes"].as_u64().unwrap_or(0),
            block["reads"].as_u64().unwrap_or(0),
        )
    };
    for (bytes, writes, reads) in [
        (101, 50, 20),
        (102, 0, 0),
        (103, 37, 5),
        (104, 1, 0),
        (105, 11, 0),
        (106, 13, 0),
        (4097, 0, 3),
        (1001, 10, 6),
        (1002, 20, 10),
        (107, 0, 0),
    ] {
        assert_eq!(of(bytes), (writes, reads), "the block of {bytes} bytes");
    }
    // 1 to 64 bytes at a time.
    let (set, read) = of(8192);
    let (copied, none) = of(8193);
    for count in [set, read, copied] {
        assert!((128..=8192).contains(&count), "{set} {read} {copied}");
    }
    assert_eq!(none, 0);
    let summary = place.summary("x.rma");
    assert_eq!(summary["places"]["freed"], 7);
    let after_free = summary["after_free"].as_array().expect("sites");
    assert!(
        after_free.iter().all(|site| site["bytes"] == 107),
        "{after_free:?}"
    );
    assert!(after_free.iter().all(|site| {
        site["file"]
            .as_str()
            .is_some_and(|file| file.ends_with("/accesses"))
    }));
    assert_eq!(sum(&summary["places"]), sum(&summary["accesses"]));
    assert_eq!(summary["threads"].as_array().map(Vec::len), Some(3));
    let in_blocks: u64 = blocks
        .iter()
        .map(|block| block["reads"].as_u64().unwrap_or(0) + block["writes"].as_u64().unwrap_or(0))
        .sum();
    // One that reads and writes is one access there.
    assert!(
        summary["places"]["blocks"]
            .as_u64()
            .is_some_and(|count| count <= in_blocks)
    );

    // The replay locks by it, and refuses it for another run.
    let locked = [
        "replay",
        "x.rmt",
        "-a",
        "rmalloc",
        "--rounds",
        "1",
        "--json",
        "--check",
        "--lock",
        "accesses:x.rma",
    ];
    let report: Value = serde_json::from_str(&place.succeeds(&locked)).expect("JSON");
    assert_eq!(report["settings"]["lock"], "accesses");
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/python.rmt");
    let refused = place.fails(&[
        "replay",
        python,
        "-a",
        "rmalloc",
        "--process",
        "0",
        "--lock",
        "accesses:x.rma",
    ]);
    assert!(
        refused.contains("of another run") && refused.contains("x.rmt"),
        "{refused}"
    );

    // A file cut short, and one of another kind.
    let whole = std::fs::read(place.path("x.rma")).expect("a file");
    std::fs::write(place.path("cut.rma"), &whole[..whole.len() - 5]).expect("written");
    let said = place.fails(&["accesses", "--show", "cut.rma"]);
    assert!(said.contains("cut short at byte"), "{said}");
    let said = place.fails(&["replay", "x.rmt", "--lock", "accesses:cut.rma"]);
    assert!(said.contains("cut short at byte"), "{said}");
    let said = place.fails(&["accesses", "--show", "x.rmt"]);
    assert!(said.contains("not a file of accesses"), "{said}");
    // Nothing is left beside the two files of the recording.
    let left = std::fs::read_dir(place.0.path())
        .expect("a directory")
        .flatten();
    assert!(
        left.map(|entry| entry.file_name().to_string_lossy().into_owned())
            .all(|name| !name.contains("x.rma."))
    );
}

#[test]
fn forked_children_are_in_the_trace_alone() {
    if !has_valgrind() {
        return;
    }
    let place = Place::new();
    let program = place.build("counted");
    let output = place.rmtrace(&[
        "accesses",
        "-q",
        "-o",
        "x.rma",
        "--",
        "/bin/sh",
        "-c",
        &format!("{program}; {program}; true"),
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let summary = place.summary("x.rma");
    let dumped = place.succeeds(&["info", "x.rmt"]);
    assert!(dumped.contains("counted"), "{dumped}");
    // The shell's own calls.
    assert_eq!(sum(&summary["places"]), sum(&summary["accesses"]));
    assert!(summary["calls"].as_u64().is_some_and(|calls| calls > 0));
}

#[test]
fn what_can_not_run_is_told() {
    if !has_valgrind() {
        return;
    }
    let place = Place::new();
    let output = place.rmtrace(&["accesses", "--", "/no/such/program"]);
    assert_eq!(output.status.code(), Some(127));
    let said = place.fails(&["accesses", "-o", "x.rmt", "--", "true"]);
    assert!(said.contains("give another one"), "{said}");
    // The command's own end.
    let output = place.rmtrace(&[
        "accesses", "-q", "-o", "x.rma", "--", "/bin/sh", "-c", "exit 7",
    ]);
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn every_lock_rule_replays_the_same_operations() {
    let place = Place::new();
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/gcc.rmt");
    let report = |rule: &str| -> Value {
        let arguments = [
            "replay", trace, "-a", "rmalloc", "--rounds", "1", "--json", "--check", "--lock", rule,
        ];
        serde_json::from_str(&place.succeeds(&arguments)).expect("JSON")
    };
    for rule in ["never", "life", "score", "share:5%,old"] {
        let report = report(rule);
        assert_eq!(report["fidelity"]["live_bytes"]["differing"], 0, "{rule}");
    }
    let said = place.fails(&["replay", trace, "--lock", "sometimes"]);
    assert!(said.contains("accesses:FILE.rma"), "{said}");
}
