//! The shipped trace whose report was worked out by hand (traces/README.md).

use serde_json::{Value, json};
use std::process::Command;

fn report() -> Value {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/by_hand.rmt");
    let output = Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .args(["analyze", "--json", trace])
        .output()
        .expect("rmtrace starts");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a JSON report")
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
    let report = report();
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
