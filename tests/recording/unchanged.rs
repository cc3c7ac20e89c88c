//! A program does and sees what it would without us.

use crate::counted::ROUND;
use crate::harness::{Counts, How, Lab, Run};
use std::collections::BTreeSet;

/// Runs it without, bare, and under `record`: same status and same output.
fn same(run: Run<'_>) {
    let plain = run.plain();
    for how in How::BOTH {
        let recorded = run.recorded(how).outcome;
        assert_eq!(recorded.text(), plain.text(), "{how:?}");
        assert_eq!(recorded.code(), plain.code(), "{how:?}");
        assert_eq!(recorded.stderr, plain.stderr, "{how:?}");
    }
}

#[test]
fn output_and_exit_status() {
    let lab = Lab::new();
    let program = lab.program("quiet.c");
    same(lab.run(&program).arg("say"));
}

#[test]
fn death_by_a_signal() {
    let lab = Lab::new();
    let program = lab.program("quiet.c");
    for signal in [
        libc::SIGTERM,
        libc::SIGSEGV,
        libc::SIGHUP,
        libc::SIGKILL,
        libc::SIGALRM,
    ] {
        same(lab.run(&program).arg("signal").arg(signal.to_string()));
    }
}

#[test]
fn errno_after_failures_and_successes() {
    let lab = Lab::new();
    same(lab.run(lab.program("quiet.c")).arg("errors"));
}

#[test]
fn signal_mask_limits_threads_and_children() {
    let lab = Lab::new();
    let run = lab.run(lab.program("quiet.c")).arg("self");
    let here = lab.path("here");
    std::fs::create_dir(&here).expect("a directory can be made");
    same(run.directory(&here).env("PWD_EXPECTED", &here));
}

#[test]
fn descriptor_numbers_that_it_is_given() {
    let lab = Lab::new();
    same(lab.run(lab.program("quiet.c")).arg("numbers"));
}

/// At most one more descriptor, out of the way.
#[test]
fn descriptors_that_it_has() {
    let lab = Lab::new();
    let run = lab.run(lab.program("quiet.c")).arg("descriptors");
    let numbers = |text: String| -> BTreeSet<u32> {
        text.lines()
            .map(|line| line.parse().expect("a number"))
            .collect()
    };
    let plain = numbers(run.plain().text());
    for how in How::BOTH {
        let with = numbers(run.recorded(how).outcome.text());
        let more: Vec<u32> = with.difference(&plain).copied().collect();
        assert!(plain.is_subset(&with), "{how:?}: {plain:?}, {with:?}");
        assert!(
            more.len() <= 1 && more.iter().all(|fd| *fd >= 900),
            "{how:?}: {more:?}"
        );
    }
}

/// One variable more, beside the one that preloads.
#[test]
fn its_environment() {
    let lab = Lab::new();
    let run = lab
        .run(lab.program("quiet.c"))
        .arg("environment")
        .env("KEPT", "a b=c");
    let variables = |text: String| -> BTreeSet<String> {
        // Which directory it is differs from run to run.
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("RMTRACE_DIR="));
        lines.map(str::to_owned).collect()
    };
    let plain = variables(run.plain().text());
    assert!(plain.contains("KEPT=a b=c"));
    for how in How::BOTH {
        let with = variables(run.recorded(how).outcome.text());
        let more: Vec<&str> = with
            .difference(&plain)
            .map(|line| line.split('=').next().unwrap_or(line))
            .collect();
        assert_eq!(more, ["LD_PRELOAD", "RMTRACE_SPOOL"], "{how:?}");
        assert!(plain.is_subset(&with), "{how:?}: {plain:?} {with:?}");
    }
}

/// A program that closes what it does not know and takes the numbers for itself receives nothing of
/// ours, goes on, and goes on being recorded.
#[test]
fn descriptors_that_it_takes_over() {
    let lab = Lab::new();
    let program = lab.program("descriptors.c");
    for how in How::BOTH {
        for mode in ["range", "loop", "dup2", "dup2-file"] {
            for child in [false, true] {
                let mut run = lab.run(&program).arg(mode);
                if child {
                    run = run.arg("child");
                }
                let recorded = run.recorded(how).ok();
                let case = format!("{how:?} {mode}, in a child: {child}");
                assert_eq!(recorded.outcome.text(), "received 0 of 1\n", "{case}");
                let seen = recorded.read().clean();
                assert_eq!(seen.between(), Counts::of(ROUND, 10_000), "{case}");
            }
        }
    }
}

/// Little address space: what the program gets of it when ours fits too, and that it runs unrecorded
/// when ours does not.
#[test]
fn a_limit_of_the_address_space() {
    let lab = Lab::new();
    let program = lab.program("quiet.c");
    let run = lab.run(&program).args(["memory", "40"]);
    let plain = run.plain();
    for megabytes in [400u64, 60] {
        let limited = run.clone().limit(libc::RLIMIT_AS, megabytes << 20);
        let (started, _) = limited.start_bare();
        let (status, stdout, _) = started.finish();
        assert!(status.success(), "{megabytes} MB: {status}");
        assert_eq!(stdout, plain.stdout, "{megabytes} MB");
    }
}

/// The current directory can't be written: one line says where the recording went.
#[test]
fn a_directory_that_cannot_be_written() {
    let lab = Lab::new();
    let runtime = lab.path("runtime");
    std::fs::create_dir(&runtime).expect("a directory can be made");
    let run = lab
        .run(lab.program("quiet.c"))
        .arg("say")
        .directory("/proc");
    let run = run.env("RMTRACE_DIR", "").env("XDG_RUNTIME_DIR", &runtime);
    let (started, _) = run.start_bare();
    let (status, stdout, stderr) = started.finish();
    assert_eq!(status.code(), Some(7));
    assert_eq!(stdout, b"out\n");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let lines: Vec<&str> = stderr.lines().collect();
    let [ours, "err"] = lines.as_slice() else {
        panic!("one line of ours: {stderr}");
    };
    assert!(ours.starts_with("rmtrace: "), "{ours}");
    assert!(ours.contains(&*runtime.to_string_lossy()), "{ours}");
    let entries = std::fs::read_dir(&runtime).expect("it is there");
    assert_eq!(entries.count(), 1);
}
