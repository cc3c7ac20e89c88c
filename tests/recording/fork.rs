//! Children that begin as copies: what they inherit, and that nothing is lost between parent and child.

use crate::counted::ROUND;
use crate::harness::{Counts, How, Lab, Recorded, Seen};
use rmtrace_file::StartedBy;
use serde_json::Value;

fn run(lab: &Lab, how: How, mode: &str, n: u64) -> Recorded {
    let run = lab.run(lab.program("forks.c")).arg(mode).arg(n.to_string());
    run.recorded(how).ok()
}

/// Inherited and allocated blocks are freed, released or live at the end, in each process; and the
/// report knows what a plain table of addresses knows.
fn balanced(recorded: &Recorded, seen: &Seen) -> Vec<Value> {
    let report = recorded.analyze();
    let processes = report["processes"].as_array().expect("a list").clone();
    assert_eq!(processes.len(), seen.processes.len());
    for process in &processes {
        let blocks = |name: &str| process["blocks"][name].as_u64().expect("a number");
        assert_eq!(
            blocks("inherited") + blocks("allocated"),
            blocks("freed") + blocks("displaced") + blocks("released") + blocks("live_at_end"),
            "{process}"
        );
        let number = process["number"].as_u64().expect("a number") as u32;
        let inherited = seen.inherited_frees.get(&number).copied().unwrap_or(0);
        assert_eq!(process["frees"]["inherited"], inherited, "process {number}");
        assert_eq!(process["events"]["unknown_frees"], 0, "process {number}");
        let live = blocks("released") + blocks("live_at_end");
        assert_eq!(live, seen.live(number), "process {number}");
    }
    processes
}

#[test]
fn a_child_frees_what_it_inherited() {
    for how in How::BOTH {
        let lab = Lab::new();
        let recorded = run(&lab, how, "inherit", 1000);
        let seen = recorded.read().clean();
        let processes = balanced(&recorded, &seen);
        let [_, child, grandchild] = processes.as_slice() else {
            panic!("three processes: {processes:#?}");
        };
        assert_eq!(child["started_by"], "fork");
        assert_eq!(child["frees"]["inherited"], 1000);
        assert_eq!(child["blocks"]["allocated"], 10);
        assert_eq!(grandchild["parent"], 1);
        assert_eq!(grandchild["frees"]["inherited"], 10);
        assert_eq!(grandchild["blocks"]["allocated"], 1);
    }
}

/// The child calls nothing before its parent is gone: it still knows its parent's blocks.
#[test]
fn a_child_that_outlives_its_parent() {
    for how in How::BOTH {
        let lab = Lab::new();
        let recorded = run(&lab, how, "daemon", 1000);
        let seen = recorded.read().clean();
        let processes = balanced(&recorded, &seen);
        assert_eq!(processes.len(), 2, "{how:?}");
        assert_eq!(processes[1]["started_by"], "fork", "{how:?}");
        assert_eq!(processes[1]["frees"]["inherited"], 1000, "{how:?}");
    }
}

/// A fork that the C library does not know of.
#[test]
fn a_child_by_a_raw_clone() {
    for how in How::BOTH {
        let lab = Lab::new();
        let recorded = run(&lab, how, "clone", 300);
        let seen = recorded.read().clean();
        balanced(&recorded, &seen);
        assert_eq!(seen.processes.len(), 2);
        assert_eq!(seen.processes[1].started_by, StartedBy::Fork);
        assert_eq!(seen.threads[&(1, 0)].between, Counts::of(ROUND, 300));
        assert_eq!(seen.inherited_frees[&1], 1);
    }
}

/// Forks while four other threads allocate and free: each child has its calls and knows every block.
#[test]
fn forks_of_a_busy_program() {
    const CHILDREN: u64 = 60;
    for how in How::BOTH {
        let lab = Lab::new();
        let recorded = run(&lab, how, "stress", CHILDREN);
        let seen = recorded.read().clean();
        balanced(&recorded, &seen);
        assert_eq!(seen.processes.len() as u64, 1 + CHILDREN);
        for child in &seen.processes[1..] {
            assert_eq!(child.started_by, StartedBy::Fork);
            assert_eq!(child.parent, Some(0));
            let between = &seen.threads[&(child.number, 0)].between;
            assert_eq!(*between, Counts::of(ROUND, 20), "{how:?} {}", child.number);
        }
    }
}

#[test]
fn three_hundred_children() {
    for how in How::BOTH {
        let lab = Lab::new();
        let recorded = run(&lab, how, "many", 300);
        let seen = recorded.read().clean();
        balanced(&recorded, &seen);
        assert_eq!(seen.processes.len(), 301);
        for child in &seen.processes[1..] {
            let sizes = &seen.threads[&(child.number, 0)].sizes;
            assert_eq!(sizes.get(&8004), Some(&1), "{how:?} {}", child.number);
        }
    }
}
