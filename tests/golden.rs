//! The shipped traces (traces/README.md): one whose report was worked out by hand, and recordings of
//! real programs whose reports may not change unnoticed.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn traces() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces")
}

/// What `rmtrace analyze` says of a shipped trace.
fn analyzed(trace: &str, options: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .arg("analyze")
        .args(options)
        .arg(traces().join(trace))
        .output()
        .expect("rmtrace starts");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn json_of(trace: &str) -> Value {
    serde_json::from_slice(&analyzed(trace, &["--json"])).expect("a JSON report")
}

/// Lists where two values differ.
fn differences(expected: &Value, found: &Value, path: &str, out: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys = expected
                .keys()
                .chain(found.keys().filter(|key| !expected.contains_key(*key)));
            for key in keys {
                let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned();
                let (expected, found) = (of(expected), of(found));
                let path = format!("{path}.{key}");
                match (expected, found) {
                    (Some(expected), Some(found)) => differences(&expected, &found, &path, out),
                    (Some(_), None) => out.push(format!("{path}: is gone")),
                    _ => out.push(format!("{path}: is new")),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (n, (expected, found)) in expected.iter().zip(found).enumerate() {
                differences(expected, found, &format!("{path}[{n}]"), out);
            }
        }
        _ if expected == found => {}
        _ => out.push(format!("{path}: {expected} became {found}")),
    }
}

/// With RMTRACE_BLESS=1 the reports as they are now become the expected ones.
#[test]
fn the_reports_of_real_programs_are_those_stored() {
    const HINT: &str = "if that is meant: RMTRACE_BLESS=1 cargo test --release --test golden";
    let bless = std::env::var_os("RMTRACE_BLESS").is_some_and(|value| value == "1");
    for name in ["sqlite", "python", "gcc", "firefox-content"] {
        let stored = |ending: &str| traces().join(format!("{name}.{ending}"));
        let trace = format!("{name}.rmt");
        let report = json_of(&trace);
        let text = String::from_utf8(analyzed(&trace, &[])).expect("text");
        if bless {
            let pretty = serde_json::to_string_pretty(&report).expect("JSON") + "\n";
            fs::write(stored("json"), pretty).expect("traces/ can be written");
            fs::write(stored("txt"), text).expect("traces/ can be written");
            continue;
        }
        let expected = fs::read(stored("json")).expect("a stored report");
        let expected: Value = serde_json::from_slice(&expected).expect("JSON");
        let mut found = Vec::new();
        differences(&expected, &report, "", &mut found);
        let count = found.len();
        found.truncate(20);
        assert!(
            count == 0,
            "the report of {name} differs in {count} places ({HINT}):\n{}",
            found.join("\n")
        );
        let expected = fs::read_to_string(stored("txt")).expect("a stored report");
        if let Some((was, is)) = expected.lines().zip(text.lines()).find(|(a, b)| a != b) {
            panic!("the text of {name} ({HINT}):\nwas {was}\nis  {is}");
        }
        assert_eq!(
            expected.lines().count(),
            text.lines().count(),
            "lines of the text of {name} ({HINT})"
        );
    }
}

#[test]
fn differences_are_found() {
    let mut found = Vec::new();
    let before = json!({ "a": 1, "b": [1, 2], "c": { "d": 4 }, "gone": 0 });
    let after = json!({ "a": 2, "b": [1, 3], "c": { "d": 4, "e": 5 } });
    differences(&before, &after, "", &mut found);
    assert_eq!(
        found,
        [
            ".a: 1 became 2",
            ".b[1]: 2 became 3",
            ".c.e: is new",
            ".gone: is gone"
        ]
    );
}

/// Asserts that `report` has every key of `expected` with the same value.
fn assert_has(report: &Value, expected: &Value, path: &str) {
    match expected {
        Value::Object(keys) => {
            for (key, value) in keys {
                assert_has(&report[key], value, &format!("{path}.{key}"));
            }
        }
        value => assert_eq!(report, value, "{path}"),
    }
}

#[test]
fn the_report_of_ten_calls() {
    let expected = json!({
        "schema": 1,
        "events": {
            "total": 10, "malloc": 3, "calloc": 1, "realloc": 2, "memalign": 1, "free": 3,
            "failed": 1, "dropped": 0, "unknown_frees": 0, "live_duplicates": 0,
        },
        "blocks": { "allocated": 5, "freed": 3, "never_freed": 2, "inherited": 0 },
        "bytes": { "requested": 402, "peak_live": 378, "live_at_end": 328 },
        "peak": { "live_blocks": 4, "live_bytes": 378 },
        "size_histogram": [
            { "low": 0, "high": 1, "blocks": 1, "bytes": 0 },
            { "low": 24, "high": 28, "blocks": 1, "bytes": 24 },
            { "low": 48, "high": 56, "blocks": 1, "bytes": 50 },
            { "low": 96, "high": 112, "blocks": 1, "bytes": 100 },
            { "low": 128, "high": 160, "blocks": 1, "bytes": 128 },
        ],
        "lifetime": {
            "events": { "p50": 3, "p90": 7, "p99": 7, "max": 7 },
            "bytes": { "p50": 150, "p90": 228, "p99": 228, "max": 228 },
        },
        "frees": { "cross_thread": 0, "inherited": 0 },
        "realloc": { "resized": 1, "moved": 1, "grown": 1, "from_null": 1, "to_zero": 0, "chain_longest": 1 },
        "handle_table": {
            "process": 0, "entries_peak": 4, "entries_recommended": 512,
            "bytes_reserved": 4096, "bytes_in_place": 32,
        },
    });
    let report = json_of("by_hand.rmt");
    assert_has(&report, &expected, "");
    let process = &report["processes"][0];
    assert_eq!(process["name"], "by_hand");
    for group in ["events", "blocks", "bytes", "frees", "lifetime"] {
        assert_has(process, &json!({ group: expected[group] }), "processes[0]");
    }
    let at = |key: &str| report["peak"][key].as_u64().expect("nanoseconds");
    // The peak of bytes comes with the fourth block, that of blocks with the fifth.
    assert!(at("live_bytes_at_ns") < at("live_blocks_at_ns"));
    assert_eq!(at("at_ns"), at("live_blocks_at_ns"));
}
