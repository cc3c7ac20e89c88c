//! `rmtrace ctl`, pauses, and marks that programs set.

use crate::counted::ROUND;
use crate::harness::{
    Counts, Lab, PATIENCE, Recorded, appears, rmtrace, runs_in, touch, wait_until,
};
use rmtrace_format::event::Entry;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const N: u64 = 500;

/// `rmtrace ctl` with arguments, in `directory`.
fn ctl<T: AsRef<OsStr>>(directory: &Path, arguments: &[T]) -> Output {
    Command::new(rmtrace())
        .arg("ctl")
        .args(arguments)
        .current_dir(directory)
        .env_remove("RMTRACE_SPOOL")
        .output()
        .expect("rmtrace runs")
}

/// The same, which works and says nothing.
fn ctl_quietly<T: AsRef<OsStr>>(directory: &Path, arguments: &[T]) {
    let output = ctl(directory, arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"", "{output:?}");
    assert_eq!(output.stderr, b"", "{output:?}");
}

/// What it says when it fails.
fn ctl_fails<T: AsRef<OsStr>>(directory: &Path, arguments: &[T]) -> String {
    let output = ctl(directory, arguments);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stdout, b"", "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn status(directory: &Path) -> Value {
    let output = ctl(directory, &["status", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Where the run directory of a recording is.
fn beside(trace: &Path) -> PathBuf {
    trace.parent().expect("a directory").to_owned()
}

/// What `phases.c` calls outside of the pause: its rounds, and the blocks that take places which were given
/// back in the pause.
fn phases() -> Counts {
    Counts::of(ROUND, 4 * N).plus(&Counts::of(&[(Entry::Malloc, 5)], 1))
}

/// Stopped, started and marked from outside and from within: what was called outside of the pause is
/// in the trace, call by call, and nothing else.
#[test]
fn phases_with_a_pause() {
    let lab = Lab::new();
    let run = lab.run(lab.program("phases.c"));
    let run = run.arg(N.to_string()).arg(lab.path(""));
    let (started, trace) = run.start_record();
    let here = beside(&trace);
    appears(&lab.path("stop.please"));
    assert_eq!(status(&here)["paused"], false);
    ctl_quietly(&here, &["stop"]);
    assert_eq!(status(&here)["paused"], true);
    let again = ctl(&here, &["stop"]);
    assert!(again.status.success(), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("already"));
    touch(&lab.path("stopped"));
    appears(&lab.path("start.please"));
    let trace_name: &OsStr = trace.as_ref();
    ctl_quietly(
        Path::new("/"),
        &["-r".as_ref(), trace_name, "start".as_ref()],
    );
    ctl_quietly(&here, &["mark", "it goes on"]);
    touch(&lab.path("started"));
    let recorded = Recorded::of(started, trace).ok();
    let seen = recorded.read();
    assert_eq!(seen.between(), phases());
    assert_eq!(seen.dropped(), 0);
    let report = recorded.analyze();
    for (key, value) in [
        ("/events/unknown_frees", 0),
        ("/events/live_duplicates", 0),
        ("/frees/before_start", 3),
        ("/blocks/lost_in_pause", 5),
        ("/blocks/displaced", 5),
        ("/marks/total", 6),
    ] {
        assert_eq!(report.pointer(key), Some(&value.into()), "{key}");
    }
    assert_eq!(report["checks"]["blocks"], true);
    let listed = report["marks"]["listed"].as_array().expect("a list");
    let names: Vec<(&str, bool)> = listed
        .iter()
        .map(|mark| {
            let name = mark["name"].as_str().expect("a name");
            (name, mark["of_run"].as_bool().expect("a truth"))
        })
        .collect();
    assert_eq!(
        names,
        [
            ("first", false),
            ("stop", true),
            ("in the pause", false),
            ("start", true),
            ("it goes on", true),
            // The character at the end does not fit.
            (
                "a name that is longer than all the bytes that there are for it",
                false
            ),
        ]
    );
    let info = recorded.info();
    assert_eq!(info["marks"], 6);
    assert!(info["run"]["notes"].to_string().contains("paused once"));
}

/// A child that is forked in a pause is recorded from the start on.
#[test]
fn a_fork_in_a_pause() {
    let lab = Lab::new();
    let run = lab.run(lab.program("phases.c"));
    let run = run.arg(N.to_string()).arg(lab.path("")).arg("fork");
    let (started, trace) = run.start_record();
    let here = beside(&trace);
    appears(&lab.path("stop.please"));
    ctl_quietly(&here, &["stop"]);
    touch(&lab.path("stopped"));
    appears(&lab.path("start.please"));
    appears(&lab.path("child"));
    ctl_quietly(&here, &["start"]);
    touch(&lab.path("started"));
    let recorded = Recorded::of(started, trace).ok();
    let seen = recorded.read();
    assert_eq!(seen.processes.len(), 2, "{:#?}", seen.processes);
    assert_eq!(seen.of(1), Counts::of(ROUND, N));
    assert_eq!(seen.between(), phases());
}

/// Nothing of a program is recorded until it is told to.
#[test]
fn paused_from_the_start() {
    let lab = Lab::new();
    let run = lab.run(lab.program("steps.c"));
    let run = run.arg(N.to_string()).arg(lab.path("")).option("--paused");
    let (started, trace) = run.start_record();
    let here = beside(&trace);
    appears(&lab.path("ready"));
    let before = status(&here);
    assert_eq!(
        (&before["paused"], &before["pauses"], &before["events"]),
        (&true.into(), &1.into(), &0.into())
    );
    ctl_quietly(&here, &["start"]);
    touch(&lab.path("go"));
    let recorded = Recorded::of(started, trace).ok();
    let seen = recorded.read();
    // The last one is the allocation that ends what other tests count.
    let rest = seen.all().minus(&Counts::of(ROUND, N));
    assert_eq!(rest, Counts::of(&[(Entry::Malloc, 1)], 1));
    assert_eq!(seen.dropped(), 0);
}

/// The functions of rmtrace.h in a program that nobody records, however it is linked.
#[test]
fn marks_without_the_library() {
    let lab = Lab::new();
    for (name, flags) in [
        ("pie", ["-fPIE", "-pie"]),
        ("fixed", ["-fno-pie", "-no-pie"]),
    ] {
        let program = lab.compile(&["phases.c"], name, &flags);
        lab.run(&program).arg("without").plain().ok();
        // And they are found when it is there.
        let recorded = lab.run(&program).arg("without").bare();
        assert_eq!(recorded.outcome.code(), 1, "{:?}", recorded.outcome);
        assert_eq!(recorded.analyze()["marks"]["total"], 1);
    }
}

/// The program of the next test: this one, under the recorder.
#[test]
#[ignore = "run by marks_of_a_rust_program"]
fn a_rust_program_with_marks() {
    assert!(rmtrace_marks::is_recording());
    assert!(rmtrace_marks::mark("from Rust"));
    assert!(rmtrace_marks::mark(&"\u{e4}".repeat(40)));
}

#[test]
fn marks_of_a_rust_program() {
    assert!(!rmtrace_marks::mark("nobody hears it"));
    assert!(!rmtrace_marks::is_recording());
    let lab = Lab::new();
    let run = lab.run(std::env::current_exe().expect("this program"));
    let name = "ctl::a_rust_program_with_marks";
    let recorded = run.args(["--ignored", "--exact", name]).record().ok();
    assert!(recorded.outcome.text().contains("1 passed"));
    let marks = recorded.analyze()["marks"].clone();
    let names: Vec<&Value> = marks["listed"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|mark| &mark["name"])
        .collect();
    assert_eq!(names, ["from Rust", &"\u{e4}".repeat(31)]);
}

/// Every way in which there is nothing to talk to has words of its own.
#[test]
fn nothing_to_talk_to() {
    let lab = Lab::new();
    let here = lab.path("");
    assert!(ctl_fails(&here, &["status"]).contains("nothing is being recorded"));
    assert!(ctl_fails(&here, &["-r", "none.rmt", "stop"]).contains("none.rmt.rmspool"));
    let output = ctl(&here, &["mark", "two\nlines"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let bare = lab.run("/bin/true").bare();
    let path = bare.trace.to_string_lossy().into_owned();
    assert!(ctl_fails(&here, &["-r", &path, "status"]).contains("no collector"));

    // A collector that was killed.
    let run = lab.run(lab.program("steps.c")).arg("10").arg(lab.path(""));
    let (mut started, trace) = run.start_record();
    appears(&lab.path("ready"));
    let left = trace.with_extension("rmt.rmspool");
    let socket = std::fs::metadata(left.join("pool/ctl")).expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    started.signal(libc::SIGKILL, false);
    started.wait_program();
    let left_name = left.to_string_lossy().into_owned();
    assert!(ctl_fails(&here, &["-r", &left_name, "stop"]).contains("is gone"));
    assert!(ctl_fails(&beside(&trace), &["stop"]).contains("nothing is being recorded"));
    touch(&lab.path("go"));
    assert!(wait_until(PATIENCE, || !started.group_lives()), "it ends");
    assert_eq!(runs_in(&beside(&trace)), [left]);
}

/// Whatever comes to the socket, the recording goes on and answers the next one.
#[test]
fn whatever_comes_to_the_socket() {
    let lab = Lab::new();
    let run = lab.run(lab.program("steps.c"));
    let run = run.arg(N.to_string()).arg(lab.path(""));
    let (started, trace) = run.start_record();
    let here = beside(&trace);
    appears(&lab.path("ready"));
    let pool = std::fs::canonicalize(trace.with_extension("rmt.rmspool").join("pool"));
    let socket = pool.expect("a pool").join("ctl");
    let connect = || UnixStream::connect(&socket).expect("it listens");
    // Says nothing, and stays.
    let silent = connect();
    let long = vec![b'x'; 1 << 20];
    let requests: [&[u8]; 6] = [b"", b"\n", b"\0\xff\n", b"mark \n", b"start", &long];
    for request in requests {
        let mut stream = connect();
        // It may have gone away already.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        if stream.read_to_end(&mut answer).is_ok() {
            let text = String::from_utf8_lossy(&answer);
            assert!(text.is_empty() || text.contains("error"), "{text}");
        }
    }
    assert_eq!(status(&here)["paused"], false);
    drop(silent);
    touch(&lab.path("go"));
    let seen = Recorded::of(started, trace).ok().read().clean();
    assert_eq!(seen.between(), Counts::of(ROUND, 2 * N));
}
