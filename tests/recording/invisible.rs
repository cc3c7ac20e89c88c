//! Memory that comes from elsewhere than recorded calls is told, and only that.

use crate::harness::{How, Lab, Recorded, rmtrace};
use serde_json::Value;
use std::ffi::OsStr;
use std::process::Command;

const MIB: u64 = 100;

/// The report's text.
fn text(recorded: &Recorded) -> String {
    let arguments: [&OsStr; 2] = ["analyze".as_ref(), recorded.trace.as_ref()];
    let output = Command::new(rmtrace()).args(arguments).output();
    let output = output.expect("rmtrace runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the program until a sample has seen its memory: how soon the collector looks is not certain.
fn sampled(lab: &Lab, from: &str) -> (Recorded, Value) {
    let program = lab.program("memory.c");
    for hold_ms in [500, 2_000, 8_000, 30_000] {
        let run = lab.run(&program).arg(from).arg(MIB.to_string());
        let recorded = run.arg(hold_ms.to_string()).record().ok();
        let process = recorded.analyze()["processes"][0].take();
        if process["resident"]["anonymous_bytes_peak"].as_u64() > Some(MIB << 20) {
            return (recorded, process);
        }
    }
    panic!("no sample has seen the memory");
}

#[test]
fn mapped_memory_is_told() {
    let lab = Lab::new();
    let (recorded, process) = sampled(&lab, "mmap");
    let invisible = &process["invisible"];
    assert_eq!(invisible["warned"], true, "{invisible}");
    let bytes = invisible["invisible_bytes"].as_u64().unwrap_or(0);
    // The first sample may have been late: then up to 16 MiB count as what was there before.
    assert!((MIB - 17) << 20 <= bytes, "{invisible}");
    assert!(bytes < (MIB + 17) << 20, "{invisible}");
    assert!(invisible["invisible_ppm"].as_u64() > Some(980_000));
    let text = text(&recorded);
    assert!(text.contains("\n  invisible: "), "{text}");
    assert!(text.contains(" process 0 (memory, main), pid "), "{text}");
}

#[test]
fn allocated_memory_is_no_reason_to_warn() {
    let lab = Lab::new();
    let (recorded, process) = sampled(&lab, "malloc");
    let invisible = &process["invisible"];
    assert_eq!(invisible["warned"], false, "{invisible}");
    assert!(invisible["live_bytes_peak"].as_u64() >= Some(MIB << 20));
    assert!(!text(&recorded).contains("invisible"));
}

/// Without samples nothing is said.
#[test]
fn the_bare_mode_does_not_guess() {
    let lab = Lab::new();
    let run = lab.run(lab.program("memory.c"));
    let recorded = run.args(["mmap", "100", "1"]).recorded(How::Bare).ok();
    assert_eq!(recorded.analyze()["processes"][0]["invisible"], Value::Null);
    assert!(!text(&recorded).contains("invisible"));
}
