//! A child in a sandbox: whatever is done there for the recording needs no system call that browsers'
//! sandboxes refuse.

use crate::counted::ROUND;
use crate::harness::{Counts, How, Lab, Recorded, rmtrace, touch, wait_until};
use rmtrace_format::event::Entry;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const N: u64 = 300;
const LIMIT: Duration = Duration::from_secs(120);

/// The child's calls: its rounds and, if it allocates before the sandbox, one block.
fn expected(early: bool) -> Counts {
    let first = Counts::of(&[(Entry::Malloc, 1), (Entry::Free, 1)], u64::from(early));
    Counts::of(ROUND, N).plus(&first)
}

fn is_shut_in(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.len() == 1)
}

#[test]
fn a_sandboxed_child() {
    for when in ["early", "late"] {
        let lab = Lab::new();
        let run = lab.run(lab.program("sandbox.c"));
        let run = run.arg(N.to_string()).arg(lab.path("")).arg(when);
        touch(&lab.path("go"));
        for how in How::BOTH {
            let recorded = run.recorded(how);
            assert_eq!(recorded.outcome.code(), 0, "{:?}", recorded.outcome);
            let seen = recorded.read().clean();
            assert_eq!(seen.of(1), expected(when == "early"), "{when}");
        }
    }
}

/// The recording is started when the child is in its sandbox already.
#[test]
fn a_child_that_was_sandboxed_in_a_pause() {
    for when in ["early", "late"] {
        let lab = Lab::new();
        let run = lab.run(lab.program("sandbox.c"));
        let run = run.arg(N.to_string()).arg(lab.path("")).arg(when);
        let (started, trace) = run.option("--paused").start_record();
        let ready = lab.path("ready");
        assert!(wait_until(LIMIT, || is_shut_in(&ready)));
        let output = Command::new(rmtrace())
            .args(["ctl", "start", "-r"])
            .arg(&trace)
            .output()
            .expect("rmtrace runs");
        assert!(output.status.success(), "{output:?}");
        touch(&lab.path("go"));
        let recorded = Recorded::of(started, trace);
        assert_eq!(recorded.outcome.code(), 0, "{:?}", recorded.outcome);
        let seen = recorded.read();
        assert_eq!(seen.dropped(), 0);
        assert_eq!(seen.of(1), expected(false), "{when}");
    }
}
