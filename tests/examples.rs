//! The examples do what they say, on shipped traces.

use std::path::{Path, PathBuf};

#[allow(dead_code)] // Their `main`s.
#[path = "../examples/events_to_csv.rs"]
mod events_to_csv;
#[allow(dead_code)]
#[path = "../examples/one_measure.rs"]
mod one_measure;
#[allow(dead_code)]
#[path = "../examples/sizes.rs"]
mod sizes;

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("traces")
        .join(name)
}

fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).expect("text")
}

/// The blocks of traces/by_hand.rmt were of 100, 24, 50, 128 and 0 bytes (traces/README.md).
#[test]
fn sizes_counts_blocks() {
    let mut out = Vec::new();
    sizes::run(&sample("by_hand.rmt"), &mut out).expect("a whole trace");
    let rows: Vec<Vec<u64>> = text(out)
        .lines()
        .map(|line| {
            line.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect()
        })
        .collect();
    assert_eq!(rows, [[0, 1], [16, 1], [32, 1], [64, 1], [128, 1]]);
}

/// Of them 0, 24 and 50 were freed, each before ten more had been made.
#[test]
fn one_measure_finds_temporary_blocks() {
    let mut out = Vec::new();
    one_measure::run(&sample("by_hand.rmt"), &mut out).expect("a whole trace");
    let text = text(out);
    let share = |low: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(low));
        line.and_then(|line| line.split_once("blocks ")?.1.split_whitespace().next())
    };
    for (low, percent) in [
        ("0 ..", "100"),
        ("24 ..", "100"),
        ("48 ..", "100"),
        ("96 ..", "0"),
        ("128 ..", "0"),
    ] {
        assert_eq!(share(low), Some(percent), "{low} in\n{text}");
    }
}

#[test]
fn events_to_csv_writes_as_many_as_asked_for() {
    for (name, count, lines) in [
        ("by_hand.rmt", 3, 4),
        ("by_hand.rmt", 100, 13),
        ("tiny.rmt", 0, 1),
    ] {
        let mut out = Vec::new();
        events_to_csv::run(&sample(name), count, &mut out).expect("a whole trace");
        let text = text(out);
        // Ten calls, of them two reallocs of two halves.
        assert_eq!(text.lines().count(), lines, "{text}");
        assert!(text.lines().all(|line| line.split(',').count() == 6));
    }
    let missing = events_to_csv::run(Path::new("missing.rmt"), 1, &mut Vec::new());
    assert!(
        missing
            .expect_err("no such file")
            .to_string()
            .contains("missing.rmt")
    );
}
