//! The driver sees faults: targets that fail on purpose are reported, with an input that fails again.

use std::path::Path;
use std::process::{Command, Output};

fn smoke(words: &[&str], artifacts: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_smoke"))
        .args(words)
        .arg("--artifacts")
        .arg(artifacts)
        .output()
        .unwrap()
}

fn fault_is_seen(target: &str, more: &[&str], complaint: &str) {
    let artifacts = tempfile::tempdir().unwrap();
    let mut words = vec!["--targets", target];
    words.extend(more);
    words.extend(["--iterations", "100000"]);
    let found = smoke(&words, artifacts.path());
    let text = String::from_utf8(found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(1), "{text}");
    assert!(text.contains(complaint), "{text}");
    let inputs: Vec<_> = std::fs::read_dir(artifacts.path())
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(inputs.len(), 1, "{text}");
    let input = std::fs::read(inputs[0].path()).unwrap();
    assert!(
        input[8] > 1 && input[8] % 2 == 1,
        "not the input that failed"
    );
    // Alone it fails again.
    let path = inputs[0].path();
    let mut words = vec!["--targets", target];
    words.extend(more);
    words.push(path.to_str().unwrap());
    let again = smoke(&words, artifacts.path());
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stdout).unwrap().contains(complaint));
}

#[test]
fn a_panic_is_reported() {
    fault_is_seen("fails_on_purpose", &[], "this target fails on purpose");
}

#[test]
fn an_input_without_end_is_reported() {
    fault_is_seen(
        "hangs_on_purpose",
        &["--input-seconds", "1"],
        "an input takes more than 1 s",
    );
}

#[test]
fn no_fault_is_success() {
    let artifacts = tempfile::tempdir().unwrap();
    let done = smoke(
        &["--targets", "records", "--iterations", "100"],
        artifacts.path(),
    );
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&done.stdout)
    );
    assert!(
        std::fs::read_dir(artifacts.path())
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn what_is_misspelt_is_refused() {
    let artifacts = tempfile::tempdir().unwrap();
    assert_eq!(
        smoke(&["--targets", "recorsd"], artifacts.path())
            .status
            .code(),
        Some(2)
    );
}

/// Also without the driver: what failed once and was kept must not fail again, and a whole seed is
/// read as one.
#[test]
fn every_seed_passes() {
    for target in rmtrace_fuzz::TARGETS.iter().filter(|target| target.wanted) {
        let folder = rmtrace_fuzz::seeds::directory().join(target.seeds);
        let seeds = rmtrace_fuzz::seeds::read(&folder).unwrap();
        assert!(seeds.len() > 3, "{} has no seeds", target.name);
        for (_, bytes) in seeds {
            (target.function)(&bytes);
        }
    }
}
