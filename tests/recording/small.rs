//! `rmtrace pack --small`: of a run and of a trace.

use crate::harness::{How, Lab, Recorded, rmtrace, verify};
use std::path::Path;
use std::process::{Command, Output};

fn pack(arguments: &[&str], from: &Path, to: Option<&Path>) -> Output {
    let mut command = Command::new(rmtrace());
    command.arg("pack").args(arguments).arg(from);
    if let Some(to) = to {
        command.arg("-o").arg(to);
    }
    command.output().expect("rmtrace runs")
}

/// What `rmtrace dump` says of the calls.
fn calls(trace: &Path) -> Vec<u8> {
    let output = Command::new(rmtrace())
        .args(["dump", "--json-lines"])
        .arg(trace)
        .output()
        .expect("rmtrace runs");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_run_and_a_trace_become_small() {
    for how in How::BOTH {
        let lab = Lab::new();
        let program = lab.program("exchange.c");
        let run = lab.run(&program).args(["2", "20000"]);
        let recorded = run.recorded(how).ok();
        let trace = &recorded.trace;
        let place = tempfile::tempdir().expect("a directory");
        let (small, plain) = (place.path().join("small"), place.path().join("plain.rmt"));
        let output = pack(&["--small"], trace, Some(&small));
        assert!(output.status.success(), "{output:?}");
        verify(&small);
        let plain = match how {
            How::Record => trace,
            How::Bare => {
                assert!(pack(&[], trace, Some(&plain)).status.success());
                &plain
            }
        };
        let bytes = |path: &Path| path.metadata().expect("it is there").len();
        assert!(bytes(&small) < bytes(plain));
        assert_eq!(calls(&small), calls(plain));
        // By default it is put beside the trace, which stays.
        let output = pack(&["--small", "--anonymous"], plain, None);
        assert!(output.status.success(), "{output:?}");
        verify(&plain.with_extension("small.rmt"));
        verify(plain);
        // Nothing else is left behind.
        let parts = std::fs::read_dir(place.path()).expect("it is there");
        let parts = parts.flatten().filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().ends_with(".part")
        });
        assert_eq!(parts.count(), 0);
    }
}

#[test]
fn a_trace_is_not_packed_for_nothing() {
    let lab = Lab::new();
    let program = lab.program("by_hand.c");
    let recorded = lab.run(&program).record().ok();
    let output = pack(&[], &recorded.trace, None);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is a trace already"));
    let output = pack(&["--small", "--remove"], &recorded.trace, None);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    recorded.verify();
}

/// A recording of several files becomes one.
#[test]
fn files_become_one() {
    let lab = Lab::new();
    let program = lab.program("exchange.c");
    let run = lab.run(&program).args(["2", "500000"]);
    let recorded = run
        .option("--pool=512M")
        .option("--rotate=1M")
        .record()
        .ok();
    let before = recorded.info();
    assert_ne!(before["files"], 1, "{before}");
    let small = recorded.trace.with_extension("one.rmt");
    let output = pack(&["--small"], &recorded.trace, Some(&small));
    assert!(output.status.success(), "{output:?}");
    verify(&small);
    let one = Recorded {
        outcome: recorded.outcome,
        trace: small,
    };
    let after = one.info();
    assert_eq!(after["events"], before["events"]);
    assert_eq!(after["run"]["remarks"], serde_json::json!([]));
}
