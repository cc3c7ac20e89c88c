//! `rmtrace record` itself: its exit status, its signals, its death.

use crate::counted::ROUND;
use crate::harness::{
    Counts, How, Lab, Outcome, PATIENCE, Seen, Started, appears, rmtrace, touch, wait_until,
};
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

const N: u64 = 20_000;

/// The collector is killed while the program runs: the program ends as ever, and packing what is left
/// gives every call.
#[test]
fn the_collector_is_killed() {
    let lab = Lab::new();
    let program = lab.program("steps.c");
    let run = lab.run(&program).arg(N.to_string()).arg(lab.path(""));
    let (mut started, trace) = run.start_record();
    appears(&lab.path("ready"));
    started.signal(libc::SIGKILL, false);
    assert_eq!(started.wait_program().signal(), Some(libc::SIGKILL));
    touch(&lab.path("go"));
    appears(&lab.path("done"));
    assert!(
        wait_until(PATIENCE, || !started.group_lives()),
        "the program ends"
    );
    let packed = lab.packed(&trace);
    let seen = Seen::read(&packed).clean();
    assert_eq!(seen.between(), Counts::of(ROUND, 2 * N));
}

/// What the bare mode left, packed: the same events as read in place.
#[test]
fn packing_a_bare_run() {
    let lab = Lab::new();
    let run = lab.run(lab.program("counted.c")).args(["threads", "2000"]);
    let recorded = run.bare().ok();
    let packed = lab.path("packed.rmt");
    let from: &OsStr = recorded.trace.as_ref();
    let (status, stdout, stderr) =
        lab.rmtrace(&["pack".as_ref(), from, "-o".as_ref(), packed.as_ref()]);
    assert!(status.success(), "{stdout}{stderr}");
    let (seen, in_place) = (Seen::read(&packed).clean(), recorded.read());
    assert_eq!(seen.all(), in_place.all());
    let workers = seen.threads.iter().filter(|(place, _)| place.1 != 0);
    for (_, thread) in workers {
        assert_eq!(thread.calls, Counts::of(ROUND, 2000));
    }
}

fn stop_with(lab: &Lab, mode: &str, signals: u32) -> (Started, std::path::PathBuf) {
    let program = lab.program("steps.c");
    let run = lab
        .run(&program)
        .arg(N.to_string())
        .arg(lab.path(""))
        .arg(mode);
    let (started, trace) = run.start_record();
    appears(&lab.path("ready"));
    for n in 0..signals {
        if n > 0 {
            // Two Ctrl-C are told apart by time.
            std::thread::sleep(Duration::from_millis(300));
        }
        started.signal(libc::SIGINT, true);
    }
    (started, trace)
}

/// One Ctrl-C is the program's.
#[test]
fn an_interrupt_belongs_to_the_program() {
    for (mode, code, signal) in [("catch", Some(42), None), ("die", None, Some(libc::SIGINT))] {
        let lab = Lab::new();
        let (started, trace) = stop_with(&lab, mode, 1);
        let (status, _, _) = started.finish();
        assert_eq!((status.code(), status.signal()), (code, signal), "{mode}");
        let seen = Seen::read(&trace);
        assert_eq!(seen.dropped(), 0);
        assert_eq!(seen.between(), Counts::of(ROUND, N), "{mode}");
    }
}

/// A second one ends the recording with a complete trace; the program runs on.
#[test]
fn a_second_interrupt_ends_the_recording() {
    let lab = Lab::new();
    let (mut started, trace) = stop_with(&lab, "ignore", 2);
    started.wait_program();
    assert!(started.group_lives(), "the program runs on");
    let seen = Seen::read(&trace);
    assert_eq!(seen.between(), Counts::of(ROUND, N));
    touch(&lab.path("go"));
    appears(&lab.path("done"));
    assert!(
        wait_until(PATIENCE, || !started.group_lives()),
        "the program ends"
    );
}

/// Its own failures, as those of env(1).
#[test]
fn failures_before_the_program_starts() {
    let lab = Lab::new();
    let out = lab.path("trace.rmt");
    let record = |out: &Path, program: &Path| -> Outcome {
        let arguments: [&OsStr; 5] = [
            "record".as_ref(),
            "-o".as_ref(),
            out.as_ref(),
            "--".as_ref(),
            program.as_ref(),
        ];
        let (status, stdout, stderr) = lab.rmtrace(&arguments);
        Outcome {
            status,
            stdout: stdout.into_bytes(),
            stderr,
        }
    };
    let absent = record(&out, &lab.path("absent"));
    assert_eq!(absent.code(), 127, "{absent:?}");
    assert!(absent.stderr.contains("absent"), "{absent:?}");
    let plain = lab.path("plain");
    touch(&plain);
    assert_eq!(record(&out, &plain).code(), 126);
    let nowhere = record(
        &lab.path("no/such/directory/trace.rmt"),
        Path::new("/bin/true"),
    );
    assert_eq!(nowhere.code(), 125, "{nowhere:?}");
    assert!(!out.exists(), "no trace of what never ran");
}

/// Names with spaces and colons, of the trace and of the library.
#[test]
fn awkward_paths() {
    let lab = Lab::new();
    let directory = lab.path("a b:c");
    std::fs::create_dir(&directory).expect("a directory can be made");
    // Installed side by side, as `make install` does it.
    for path in [rmtrace(), crate::harness::interposer()] {
        let name = path.file_name().expect("a file");
        std::fs::copy(path, directory.join(name)).expect("it can be copied");
    }
    let trace = directory.join("the trace.rmt");
    let output = std::process::Command::new(directory.join("rmtrace"))
        .args(["record", "-o"])
        .arg(&trace)
        .arg("--")
        .arg(lab.program("counted.c"))
        .args(["one", "100"])
        .env_remove("RMTRACE_LIB")
        .output()
        .expect("it runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seen = Seen::read(&trace).clean();
    assert!(seen.all().total() >= 3000, "{:?}", seen.all());
}

/// The trace is whole when `record` ends, and nothing else is left beside it.
#[test]
fn nothing_is_left_but_the_trace() {
    let lab = Lab::new();
    let run = lab.run(lab.program("counted.c")).args(["forkexec", "100"]);
    let recorded = run.recorded(How::Record).ok();
    let beside = recorded.trace.parent().expect("a directory");
    let mut names: Vec<String> = std::fs::read_dir(beside)
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["cwd", "program.err", "program.out", "trace.rmt"]);
}
