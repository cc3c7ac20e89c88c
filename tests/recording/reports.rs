//! What `rmtrace info` and `rmtrace dump` print of real recordings: its structure, and that it agrees with
//! itself.

use crate::counted::ROUND;
use crate::harness::{Counts, How, Lab, Recorded};
use rmtrace_format::event::{Entry, Kind};
use serde_json::Value;
use std::ffi::OsStr;

const ROUNDS: u64 = 50;

fn recorded(lab: &Lab, how: How) -> Recorded {
    let run = lab.run(lab.program("counted.c"));
    run.args(["threads", &ROUNDS.to_string()])
        .recorded(how)
        .ok()
}

/// Output of a command about the trace, which works.
fn output(lab: &Lab, trace: &OsStr, words: &[&str]) -> String {
    let mut arguments: Vec<&OsStr> = vec![words[0].as_ref(), trace];
    arguments.extend(words[1..].iter().map(OsStr::new));
    let (status, stdout, stderr) = lab.rmtrace(&arguments);
    assert!(status.success(), "{words:?}: {stdout}{stderr}");
    assert_eq!(stderr, "", "{words:?}");
    stdout
}

/// Calls of all functions of a kind.
fn of_kind(counts: &Counts, kind: Kind) -> u64 {
    let entries = Entry::ALL.iter().filter(|entry| entry.kind() == kind);
    entries.map(|entry| counts.get(*entry)).sum()
}

fn sum(list: &Value, key: &str) -> u64 {
    let items = list.as_array().expect("a list").iter();
    items
        .map(|item| item.pointer(key).and_then(Value::as_u64).expect("a number"))
        .sum()
}

#[test]
fn info_as_text_and_as_json() {
    for how in How::BOTH {
        let lab = Lab::new();
        let recorded = recorded(&lab, how);
        let trace = recorded.trace.as_os_str();
        let info: Value =
            serde_json::from_str(&output(&lab, trace, &["info", "--json"])).expect("JSON");
        assert_eq!(info["schema"], 1);
        assert_eq!(info["run"]["collected"], how == How::Record);
        assert_eq!(info["damage"], serde_json::json!([]));
        assert_eq!(info["files"], 1);
        assert_eq!(info["tick_ns"], 25);
        let events = &info["events"];
        let total = events["total"].as_u64().expect("a number");
        let kinds = ["malloc", "calloc", "realloc", "memalign", "free"];
        let by_kind: u64 = kinds
            .iter()
            .map(|kind| events[kind].as_u64().expect("a number"))
            .sum();
        assert_eq!(by_kind, total);
        assert_eq!(sum(&info["processes"], "/events/total"), total);
        let process = &info["processes"][0];
        let threads = process["threads"].as_array().expect("a list").len();
        assert!(threads >= 2, "{process}");
        for key in [
            "number",
            "pid",
            "name",
            "started_by",
            "hooks",
            "dropped",
            "waits",
        ] {
            assert!(!process[key].is_null(), "{key} in {process}");
        }
        let seen = recorded.read();
        assert_eq!(seen.all().total(), total);

        let text = output(&lab, trace, &["info"]);
        let mut lines = text.lines();
        let first = lines.next().expect("a line");
        let start = format!("{}: ", recorded.trace.display());
        assert!(first.starts_with(&start), "{first}");
        for part in [
            " 1 process, ",
            &format!(" {threads} threads, "),
            ", 0 dropped",
        ] {
            assert!(first.contains(part), "{part:?} in {first}");
        }
        for head in ["command ", "written ", "clock ", "size ", "calls "] {
            let found = text.lines().filter(|line| line.starts_with(head));
            assert_eq!(found.count(), 1, "{head}:\n{text}");
        }
        let process_line = format!("process 0: {}", process["name"].as_str().expect("a name"));
        assert!(lines.any(|line| line.starts_with(&process_line)), "{text}");
        assert!(text.contains("\n  interposed  malloc, "), "{text}");
    }
}

#[test]
fn dump_as_text_and_as_json() {
    for how in How::BOTH {
        let lab = Lab::new();
        let recorded = recorded(&lab, how);
        let trace = recorded.trace.as_os_str();
        let all = recorded.read().all();
        // A realloc is two steps.
        let steps = all.total() + of_kind(&all, Kind::Realloc);
        let lines = output(&lab, trace, &["dump", "--json-lines"]);
        let mut events = 0;
        let mut latest = 0;
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            if line["type"] != "event" {
                continue;
            }
            events += 1;
            let time = line["time_ns"].as_u64().expect("a number");
            assert!(time >= latest, "in time order");
            latest = time;
            let step = line["step"].as_str().expect("a word").to_owned();
            *counts.entry(step).or_default() += 1;
            for key in ["process", "thread", "requested_bytes", "address"] {
                assert!(line[key].is_u64(), "{key} in {line}");
            }
        }
        assert_eq!(events, steps);
        assert_eq!(counts["free"], of_kind(&all, Kind::Free));
        assert_eq!(counts["realloc_begin"], counts["realloc_end"]);

        let text = output(&lab, trace, &["dump"]);
        let head = text.lines().next().expect("a line");
        for word in ["ns", "proc", "thr", "call", "bytes", "address"] {
            assert!(head.split_whitespace().any(|w| w == word), "{head}");
        }
        let with_address = text.lines().filter(|line| line.contains(" 0x"));
        assert!(with_address.count() as u64 >= all.total() / 2, "{how:?}");
        assert!(text.contains(" starts\n"), "processes are told of");

        // Parts of it.
        let of = |words: &[&str]| -> u64 {
            let lines = output(&lab, trace, words);
            lines
                .lines()
                .filter(|line| line.contains("\"type\":\"event\""))
                .count() as u64
        };
        assert_eq!(of(&["dump", "--json-lines", "--limit", "7"]), 7);
        assert_eq!(of(&["dump", "--json-lines", "--process", "0"]), steps);
        // Threads of the program that make rounds and nothing else.
        let round = Counts::of(ROUND, ROUNDS);
        let seen = recorded.read();
        let workers = seen.threads.iter().filter(|(place, _)| place.1 != 0);
        for (place, thread) in workers {
            assert_eq!(thread.calls, round);
            let number = place.1.to_string();
            let found = of(&["dump", "--json-lines", "--thread", &number]);
            assert_eq!(found, round.total() + of_kind(&round, Kind::Realloc));
        }
    }
}
