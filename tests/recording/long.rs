//! Long recordings: a limit of the trace's size, a trace of several files, and memory that does not grow.

use crate::harness::{
    Lab, Outcome, Recorded, Run, Started, installed, rmtrace, verify, wait_until,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);
/// One arena and no caches: addresses go from thread to thread, and events are hard to compress.
const TUNABLES: &str = "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0";

/// Two threads that exchange blocks: two events and a bit for each operation, 1.3 bytes each.
fn exchange(lab: &Lab, operations: u64) -> Run<'_> {
    let run = lab.run(lab.program("exchange.c")).arg("2");
    // With room for all of it nothing is dropped, however late the collector is.
    run.arg(operations.to_string())
        .env("GLIBC_TUNABLES", TUNABLES)
        .option("--pool=512M")
}

/// The files of a trace, the oldest first: number (that of the last one is 0) and bytes.
fn files(trace: &Path) -> Vec<(u32, u64)> {
    let name = trace.file_name().expect("a file").to_string_lossy();
    let directory = std::fs::read_dir(trace.parent().expect("a directory")).expect("it is there");
    let mut files: Vec<(u32, u64)> = directory
        .flatten()
        .filter_map(|entry| {
            let other = entry.file_name().to_string_lossy().into_owned();
            let number = match other.strip_prefix(&*name)? {
                "" => 0,
                rest => rest.strip_prefix('.')?.parse().ok()?,
            };
            Some((number, entry.metadata().ok()?.len()))
        })
        .collect();
    files.sort_by_key(|(number, _)| number.wrapping_sub(1));
    files
}

/// The first line of a command's output about a trace.
fn first_line(lab: &Lab, command: &str, trace: &Path) -> String {
    let (_, stdout, _) = lab.rmtrace(&[command.as_ref(), trace.as_ref()]);
    stdout.lines().next().unwrap_or_default().to_owned()
}

fn remarks(recorded: &Recorded) -> Vec<String> {
    let remarks = recorded.info()["run"]["remarks"].clone();
    serde_json::from_value(remarks).expect("a list of strings")
}

fn numbered(trace: &Path, number: u32) -> PathBuf {
    let mut name = trace.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// At the limit recording stops, the program goes on, and every report says so.
#[test]
fn a_limit_stops_the_recording() {
    let lab = Lab::new();
    let recorded = exchange(&lab, 2_000_000).option("--limit=2M").record().ok();
    assert!(recorded.outcome.text().trim().parse::<u64>().is_ok());
    let files = files(&recorded.trace);
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].1 <= 2 * MIB, "{files:?}");
    assert!(files[0].1 > MIB, "most of it is used: {files:?}");
    verify(&recorded.trace);
    for command in ["info", "analyze"] {
        let line = first_line(&lab, command, &recorded.trace);
        assert!(
            line.contains("stopped at its limit of 2097152 bytes"),
            "{line}"
        );
    }
    let report = recorded.analyze();
    for (key, value) in [
        ("/events/dropped", 0),
        ("/events/unknown_frees", 0),
        ("/events/live_duplicates", 0),
        ("/marks/total", 1),
    ] {
        assert_eq!(report.pointer(key), Some(&value.into()), "{key}");
    }
    assert_eq!(report["marks"]["listed"][0]["name"], "limit");
    assert!(report["events"]["total"].as_u64() < Some(6_000_000));
}

/// The limit holds for all processes together; those that begin behind it are not in the trace.
#[test]
fn a_limit_for_many_processes() {
    let lab = Lab::new();
    let program = lab.program("exchange.c");
    let script = "for i in 1 2 3 4 5 6 7 8; do \"$0\" 2 400000 & [ $((i % 2)) = 1 ] || wait; done; wait; exit 7";
    let run = lab.run("/bin/sh").arg("-c").arg(script).arg(&program);
    let recorded = run.option("--limit=1M").within(120).record();
    assert_eq!(recorded.outcome.code(), 7, "{:?}", recorded.outcome);
    let files = files(&recorded.trace);
    assert!(files.len() == 1 && files[0].1 <= MIB, "{files:?}");
    verify(&recorded.trace);
    let info = recorded.info();
    let processes = info["processes"].as_array().expect("a list").len();
    // The shell, and what it started before a third of the work was done.
    assert!((2..=5).contains(&processes), "{processes} processes");
    assert_eq!(info["events"]["dropped"], 0);
}

/// What is said of processes counts, too: short ones that make a call each.
#[test]
fn a_limit_for_thousands_of_processes() {
    let lab = Lab::new();
    let run = lab.run(lab.program("crowds.c")).args(["fork", "4000"]);
    let recorded = run.option("--limit=1M").within(120).record().ok();
    let files = files(&recorded.trace);
    assert!(files.len() == 1 && files[0].1 <= MIB, "{files:?}");
    verify(&recorded.trace);
    let reader = rmtrace_file::open(&recorded.trace).expect("a trace");
    let processes = reader.processes().len();
    assert!((100..4000).contains(&processes), "{processes} processes");
    assert_eq!(
        remarks(&recorded),
        ["stopped at its limit of 1048576 bytes"]
    );
}

/// Each file is readable by itself, and all together are the whole recording.
#[test]
fn a_trace_of_several_files() {
    let lab = Lab::new();
    let recorded = exchange(&lab, 1_000_000)
        .option("--rotate=1M")
        .record()
        .ok();
    let files = files(&recorded.trace);
    assert!(files.len() >= 4, "{files:?}");
    assert!(files.iter().all(|(_, bytes)| *bytes <= MIB), "{files:?}");
    let seen = recorded.read().clean();
    assert!(seen.all().total() >= 4_000_000);
    assert_eq!(remarks(&recorded), [""; 0]);
    let report = recorded.analyze();
    let crossed: u64 = recorded.outcome.text().trim().parse().expect("a number");
    assert_eq!(report["frees"]["cross_thread"], crossed);
    assert_eq!(report["frees"]["before_start"], 0);
    let text = verify(&recorded.trace);
    assert!(text.contains("counters of 3 threads"), "{text}");
    // One by one: they add up, and only the first knows of nothing before it.
    let mut sum = 0;
    for (number, _) in &files[..files.len() - 1] {
        let part = Recorded {
            outcome: Outcome {
                status: recorded.outcome.status,
                stdout: Vec::new(),
                stderr: String::new(),
            },
            trace: numbered(&recorded.trace, *number),
        };
        verify(&part.trace);
        sum += part.info()["events"]["total"].as_u64().expect("a number");
        let begins = part.analyze()["frees"]["before_start"].as_u64() == Some(0);
        assert_eq!(begins, *number == 1, "file {number}");
        let remarks = remarks(&part);
        assert_eq!(remarks.len(), 1 + usize::from(*number > 1), "{remarks:?}");
    }
    let last = lab.path("alone.rmt");
    std::fs::copy(&recorded.trace, &last).expect("it can be copied");
    verify(&last);
    let reader = rmtrace_file::open(&last).expect("a trace");
    assert!(reader.lacks_beginning());
    assert_eq!(sum + reader.calls(), seen.all().total());
    // With a file missing in between, what follows it is one trace.
    std::fs::remove_file(numbered(&recorded.trace, 2)).expect("it is there");
    let rest = rmtrace_file::open(&recorded.trace).expect("a trace");
    assert_eq!(rest.paths().count(), files.len() - 2);
    verify(&recorded.trace);
}

/// The oldest files go, so that the rest stays below the limit: what is kept is the end.
#[test]
fn the_last_of_a_recording() {
    let lab = Lab::new();
    let run = exchange(&lab, 2_400_000).option("--limit=8M");
    let recorded = run.option("--keep=last").record().ok();
    let files = files(&recorded.trace);
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    assert!(bytes <= 8 * MIB, "{files:?}");
    assert!(bytes > 5 * MIB, "most of it is used: {files:?}");
    assert!(files[0].0 > 1, "the first is gone: {files:?}");
    verify(&recorded.trace);
    assert_eq!(remarks(&recorded), ["begins within the recording"]);
    let line = first_line(&lab, "analyze", &recorded.trace);
    assert!(line.contains("begins within the recording"), "{line}");
    let report = recorded.analyze();
    assert_eq!(report["events"]["unknown_frees"], 0);
    assert_eq!(report["events"]["live_duplicates"], 0);
    let before = report["frees"]["before_start"].as_u64().expect("a number");
    // Blocks in the slots, and those that a thread had in its hands.
    assert!((1..=66).contains(&before), "{before}");
    // The program gives everything back at its end.
    assert_eq!(report["blocks"]["live_at_end"].as_u64().unwrap_or(0), 0);
}

/// The collector is killed in its third file: packing gives one trace of everything.
#[test]
fn a_killed_collector_of_several_files() {
    let lab = Lab::new();
    let run = exchange(&lab, 1_500_000).option("--rotate=1M");
    let (mut started, trace) = run.start_record();
    let third = numbered(&trace, 2);
    assert!(wait_until(LIMIT, || third.exists()), "{third:?} never came");
    started.signal(libc::SIGKILL, false);
    started.wait_program();
    assert!(wait_until(LIMIT, || !started.group_lives()), "it ends");
    let packed = lab.packed(&trace);
    let reader = rmtrace_file::open(&packed).expect("a trace");
    assert!(!reader.lacks_beginning() && reader.paths().count() == 1);
    let dropped: u64 = reader.processes().iter().flat_map(|p| p.dropped).sum();
    // Each operation allocates; frees and the reallocs of one in sixteen come on top.
    assert!(
        reader.calls() + dropped >= 2 * 1_500_000 * 2,
        "{} calls",
        reader.calls()
    );
}

/// Settings that make no sense are refused before the program starts.
#[test]
fn limits_that_make_no_sense() {
    let lab = Lab::new();
    for (options, code, word) in [
        (vec!["--limit=10K"], 2, "at least 1M"),
        (vec!["--keep=last"], 2, "--limit"),
        (vec!["--limit=2M", "--keep=last"], 125, "larger --limit"),
        (vec!["--limit=2M", "--rotate=2M"], 125, "smaller --rotate"),
    ] {
        let run = lab.run("/bin/true");
        let run = options.iter().fold(run, |run, option| run.option(option));
        let (started, trace) = run.start_record();
        let (status, _, stderr) = started.finish();
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(code), "{options:?}: {stderr}");
        assert!(stderr.contains(word), "{options:?}: {stderr}");
        assert!(!trace.exists());
    }
}

/// A line of /proc/PID/status in bytes.
fn status_bytes(pid: u64, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    number
        .and_then(|n| n.parse::<u64>().ok())
        .expect("a number")
        << 10
}

/// What the collector says of itself.
fn ctl_status(trace: &Path) -> Value {
    let output = Command::new(rmtrace())
        .args(["ctl", "-r"])
        .arg(trace)
        .args(["status", "--json"])
        .output()
        .expect("rmtrace runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Memory of the collector and of the program at the end of a stage, with everything written.
fn memory(lab: &Lab, started: &Started, trace: &Path, stage: u64, events: u64) -> [u64; 3] {
    let done = lab.path(&format!("done-{stage}"));
    assert!(
        wait_until(LIMIT, || done.exists()),
        "stage {stage} never ends"
    );
    let all = || {
        let status = ctl_status(trace);
        let [events_now, dropped] = ["events", "dropped"].map(|key| status[key].as_u64());
        events_now.unwrap_or(0) + dropped.unwrap_or(0) >= events
    };
    assert!(wait_until(LIMIT, all), "stage {stage} is never written");
    let pid = std::fs::read_to_string(&done).expect("it was read");
    let program: u64 = pid.parse().expect("a process id");
    let collector = started.pid() as u64;
    let found = [
        status_bytes(collector, "RssAnon"),
        status_bytes(program, "RssAnon"),
        status_bytes(program, "RssShmem"),
    ];
    std::fs::write(lab.path(&format!("go-{stage}")), "").expect("the directory can be written");
    found
}

/// Five times the events do not take more memory: not in the program, and in the collector only the index.
#[test]
fn memory_does_not_grow() {
    const CALLS: u64 = 4_000_000;
    const STAGES: u64 = 5;
    let lab = Lab::new();
    let run = lab.run(lab.program("stages.c")).arg(CALLS.to_string());
    let run = run.arg(STAGES.to_string()).arg(lab.path("")).within(120);
    let (started, trace) = run.option("--pool=16M").start_record();
    let mut found = Vec::new();
    for stage in 0..STAGES {
        let events = 2 * CALLS * (stage + 1);
        found.push(memory(&lab, &started, &trace, stage, events));
    }
    let (status, _, stderr) = started.finish();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let reader = rmtrace_file::open(&trace).expect("a trace");
    let dropped: u64 = reader.processes().iter().flat_map(|p| p.dropped).sum();
    assert!(reader.calls() + dropped >= 2 * CALLS * STAGES);
    // docs/capture.md says what a frame takes in the index.
    let index = 200 * reader.frames().len() as u64;
    let ([collector, program, spool], [first, program_first, _]) =
        (found[STAGES as usize - 1], found[0]);
    assert!(
        collector <= first + 6 * MIB + index,
        "the collector: {found:?}"
    );
    assert!(program <= program_first + MIB / 2, "the program: {found:?}");
    assert!(spool <= 17 * MIB, "the spool: {found:?}");
}

/// A tree of short processes: make, the compiler's driver, the compiler and the assembler for each file.
#[test]
fn a_tree_of_compilers() {
    let (Some(make), Some(_)) = (installed(&["make"], "make"), installed(&["gcc"], "gcc")) else {
        return;
    };
    const FILES: usize = 24;
    for how in crate::harness::How::BOTH {
        let lab = Lab::new();
        let directory = lab.path("tree");
        std::fs::create_dir(&directory).expect("a directory can be made");
        let mut makefile = String::from("all:");
        for n in 0..FILES {
            let source = format!("int f{n}(int x) {{ return x * {n} + 1; }}\n");
            std::fs::write(directory.join(format!("f{n}.c")), source).expect("it is ours");
            makefile.push_str(&format!(" f{n}.o"));
        }
        makefile.push_str("\n%.o: %.c\n\tgcc -O1 -c $< -o $@\n");
        std::fs::write(directory.join("Makefile"), makefile).expect("it is ours");
        let run = lab.run(&make).args(["-j4", "all"]).directory(&directory);
        let recorded = run.within(120).recorded(how).ok();
        let objects = (0..FILES).filter(|n| directory.join(format!("f{n}.o")).is_file());
        assert_eq!(objects.count(), FILES);
        recorded.verify();
        let reader = rmtrace_file::open(&recorded.trace).expect("a trace");
        let processes = reader.processes();
        assert_eq!(processes.iter().flat_map(|p| p.dropped).sum::<u64>(), 0);
        for name in ["gcc", "cc1", "as"] {
            let of_name = processes.iter().filter(|process| {
                process.name == name
                    || process.name.ends_with(&format!("-{name}"))
                    || name == "gcc" && process.name.contains("gcc")
            });
            assert!(
                of_name.count() >= FILES,
                "{name}, {how:?}: {:?}",
                processes
                    .iter()
                    .map(|p| p.name.as_str())
                    .collect::<Vec<_>>()
            );
        }
    }
}
