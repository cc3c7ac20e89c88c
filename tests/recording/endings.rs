//! Every ending: whatever ends the program or the collector, each call is in the trace or counted as
//! dropped.

use crate::counted::ROUND;
use crate::harness::{
    Counts, How, Lab, PATIENCE, Recorded, Seen, Started, appears, touch, wait_until,
};
use rmtrace_file::Ended;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rounds of each of the four threads: 300,000 calls together, 7 MB of records.
const N: u64 = 2_500;

fn all_calls() -> Counts {
    Counts::of(ROUND, 4 * N)
}

#[test]
fn the_program_is_killed_or_crashes() {
    for how in How::BOTH {
        for (mode, signal) in [("kill", libc::SIGKILL), ("segv", libc::SIGSEGV)] {
            let lab = Lab::new();
            touch(&lab.path("go"));
            let run = lab.run(lab.program("endings.c")).arg(mode);
            let recorded = run.arg(N.to_string()).arg(lab.path("")).recorded(how);
            assert_eq!(recorded.outcome.code(), 1000 + signal, "{how:?}");
            let seen = recorded.read().clean();
            assert_eq!(seen.between(), all_calls(), "{how:?} {mode}");
            if how == How::Record {
                assert_eq!(seen.processes[0].ended, Ended::Signal(signal));
            }
        }
    }
}

/// A group of processes with little memory: the kernel kills what exceeds it.
struct Cage(PathBuf);

impl Cage {
    fn new(bytes: u64) -> Option<Cage> {
        let name = format!("rmtrace-test-{}", std::process::id());
        for (place, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let cage = Cage(Path::new(place).join(&name));
            if std::fs::create_dir(&cage.0).is_ok()
                && cage.0.join(limit).exists()
                && std::fs::write(cage.0.join(limit), bytes.to_string()).is_ok()
            {
                return Some(cage);
            }
        }
        eprintln!("skipped: no control group for memory can be made here");
        None
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        wait_until(Duration::from_secs(5), || {
            std::fs::remove_dir(&self.0).is_ok() || !self.0.exists()
        });
    }
}

/// Out of memory: the kernel's kill is a SIGKILL from nowhere.
#[test]
fn the_kernel_kills_for_memory() {
    let Some(cage) = Cage::new(192 << 20) else {
        return;
    };
    for how in How::BOTH {
        let lab = Lab::new();
        touch(&lab.path("go"));
        let program = lab.program("endings.c");
        // The shell goes into the cage, the program takes its place.
        let script = "echo $$ > \"$1/cgroup.procs\" && exec \"$2\" memory \"$3\" \"$4\"";
        let run = lab.run("/bin/sh").args(["-c", script, "sh"]);
        let run = run.arg(&cage.0).arg(program).arg(N.to_string());
        let recorded = run.arg(lab.path("")).recorded(how);
        assert_eq!(recorded.outcome.code(), 1000 + libc::SIGKILL, "{how:?}");
        let seen = recorded.read();
        assert_eq!(seen.dropped(), 0);
        assert_eq!(seen.between(), all_calls(), "{how:?}");
    }
}

/// Starts the program under the recorder with a small pool, up to where its threads are about to run.
fn ready(lab: &Lab, mode: &str, options: &[&str]) -> (Started, PathBuf) {
    let program = lab.program("endings.c");
    let run = lab.run(program).arg(mode).arg(N.to_string());
    let run = run.arg(lab.path(""));
    let run = options.iter().fold(run, |run, option| run.option(option));
    let (started, trace) = run.start_record();
    appears(&lab.path("ready"));
    (started, trace)
}

/// The pool is full and threads wait for the collector, which never comes back: they notice at once,
/// write out what waits for it, what it had taken too, and every call is there.
#[test]
fn the_collector_is_killed_while_threads_wait() {
    let lab = Lab::new();
    let (mut started, trace) = ready(&lab, "end", &["--pool=1M"]);
    touch(&lab.path("go"));
    appears(&lab.path("begun"));
    started.signal(libc::SIGSTOP, false);
    // The pool is full within some milliseconds.
    std::thread::sleep(Duration::from_millis(300));
    assert!(!lab.path("done").exists(), "the threads wait");
    started.signal(libc::SIGKILL, false);
    assert_eq!(started.wait_program().signal(), Some(libc::SIGKILL));
    appears(&lab.path("done"));
    assert!(wait_until(PATIENCE, || !started.group_lives()));
    assert_eq!(
        Seen::read(&lab.packed(&trace)).clean().between(),
        all_calls()
    );
}

/// The same at full speed, without warning, at several moments.
#[test]
fn the_collector_is_killed_at_full_speed() {
    for pause_ms in [0, 7, 30] {
        let lab = Lab::new();
        let (mut started, trace) = ready(&lab, "end", &["--pool=1M"]);
        touch(&lab.path("go"));
        appears(&lab.path("begun"));
        std::thread::sleep(Duration::from_millis(pause_ms));
        started.signal(libc::SIGKILL, false);
        started.wait_program();
        appears(&lab.path("done"));
        assert!(wait_until(PATIENCE, || !started.group_lives()));
        assert_eq!(
            Seen::read(&lab.packed(&trace)).clean().between(),
            all_calls()
        );
    }
}

/// Suspended for longer than a collector without a sign of life counts as alive: the threads write
/// out what they can. Awake again it finds that, and the trace is whole.
#[test]
fn the_collector_is_suspended() {
    let lab = Lab::new();
    let (started, trace) = ready(&lab, "end", &[]);
    started.signal(libc::SIGSTOP, false);
    touch(&lab.path("go"));
    appears(&lab.path("done"));
    std::thread::sleep(Duration::from_millis(1200));
    started.signal(libc::SIGCONT, false);
    let (status, _, stderr) = started.finish();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let recorded = read(trace, status);
    assert_eq!(recorded.clean().between(), all_calls());
}

/// A trace that `rmtrace verify` has nothing to say against.
fn read(trace: PathBuf, status: std::process::ExitStatus) -> Seen {
    let outcome = crate::harness::Outcome {
        status,
        stdout: Vec::new(),
        stderr: String::new(),
    };
    Recorded { outcome, trace }.read()
}

#[test]
fn both_are_killed() {
    let lab = Lab::new();
    let (mut started, trace) = ready(&lab, "pause", &[]);
    touch(&lab.path("go"));
    appears(&lab.path("done"));
    started.signal(libc::SIGKILL, true);
    started.wait_program();
    assert!(wait_until(PATIENCE, || !started.group_lives()));
    assert_eq!(
        Seen::read(&lab.packed(&trace)).clean().between(),
        all_calls()
    );
}

/// Two threads at full speed and a pool that is much too small: with `wait` every call is there and the
/// trace tells how long threads waited; with `drop` the rest is counted.
#[test]
fn what_a_full_pool_means_is_the_users_choice() {
    for policy in ["wait", "drop"] {
        let lab = Lab::new();
        touch(&lab.path("go"));
        let run = lab.run(lab.program("endings.c")).arg("end");
        let run = run.arg(N.to_string()).arg(lab.path(""));
        let options = ["--pool=256K", "--on-full", policy];
        let recorded = run.option_for(How::Record, &options).record().ok();
        let seen = recorded.read();
        let waits = &recorded.info()["processes"][0]["waits"];
        let count = waits["count"].as_u64().expect("a number");
        // Those that bracket the rounds may be among what is dropped: all calls count.
        let calls = seen.all().total() + seen.dropped();
        assert!(calls >= all_calls().total(), "{calls}");
        if policy == "wait" {
            // A call is dropped only where a wait was in vain.
            assert!(
                seen.dropped() <= count,
                "{} dropped, {waits}",
                seen.dropped()
            );
            assert_ne!(count, 0);
            assert_ne!(waits["ns"], 0, "{waits}");
        } else {
            assert_eq!(count, 0, "{waits}");
        }
    }
}
