//! A trace written anew says the same.

mod common;

use common::{Run, all_calls, any_call, in_order, open_bytes, thread_of, true_run};
use proptest::collection::vec;
use proptest::prelude::*;
use rmtrace_file::gather::{RepackOptions, is_trace, repack};
use rmtrace_file::model::*;
use rmtrace_file::verify::verify;

fn sides(reader: &rmtrace_file::TraceReader) -> (Vec<Sample>, Vec<Mark>) {
    let mut all = (Vec::new(), Vec::new());
    for side in reader.sides() {
        all.0.extend(reader.samples(side).unwrap());
        all.1.extend(reader.marks(side).unwrap());
    }
    all
}

fn run_of(threads: Vec<(u32, Vec<Call>)>, window_calls: usize) -> Run {
    let mut run = Run {
        window_calls,
        ..Run::default()
    };
    for (n, (process, calls)) in threads.into_iter().enumerate() {
        run.threads
            .push((process, n as u32, in_order(calls, n as u64)));
    }
    for number in 0..3 {
        let threads = run.threads.iter().filter(|(p, ..)| *p == number);
        run.processes.push(Process {
            number,
            pid: 100 + number,
            program: "/usr/bin/demo".into(),
            arguments: vec!["demo".into(), "secret".into()],
            threads: threads.map(|(_, n, calls)| thread_of(*n, calls)).collect(),
            ..Process::default()
        });
        run.samples.push(Sample {
            tick: u64::from(number),
            process: number,
            anonymous_bytes: 4096,
            file_bytes: 1,
            shared_bytes: 2,
            virtual_bytes: 3,
        });
    }
    run.marks.push(Mark::of_run(2, 7, "half"));
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_small_trace_says_the_same(
        threads in vec((0u32..3, vec(any_call(), 0..400)), 1..5),
        window_calls in 1usize..300,
    ) {
        let before = open_bytes(&run_of(threads, window_calls).to_trace()).unwrap();
        let mut reported = 0;
        let bytes = repack(&before, Vec::new(), RepackOptions::default(), &mut |calls| reported = calls).unwrap();
        prop_assert_eq!(reported, before.calls());
        let after = open_bytes(&bytes).unwrap();
        prop_assert_eq!(after.damage(), []);
        prop_assert_eq!(after.info(), before.info());
        prop_assert_eq!(after.tick_ns(), before.tick_ns());
        prop_assert_eq!(after.processes(), before.processes());
        prop_assert_eq!(after.frames().len(), before.frames().len());
        prop_assert_eq!(all_calls(&after).unwrap(), all_calls(&before).unwrap());
        prop_assert_eq!(sides(&after), sides(&before));
        prop_assert_eq!(verify(&after).unwrap().problems, verify(&before).unwrap().problems);
    }
}

fn repeating() -> Run {
    let calls: Vec<Call> = (0..4000u64)
        .map(|n| Call {
            entry: rmtrace_format::event::Entry::Malloc,
            address: 0x1000 + (n * n % 251) * 16,
            requested_bytes: n * 7 % 113,
            tick: 3 + n % 5,
            tick_end: 0,
            align_log2: 0,
            freed: false,
            new_address: 0,
            caller: 0,
            usable_bytes: 0,
        })
        .collect();
    run_of(vec![(0, calls)], 4000)
}

#[test]
fn it_is_smaller() {
    let bytes = repeating().to_trace();
    let before = open_bytes(&bytes).unwrap();
    let small = repack(&before, Vec::new(), RepackOptions::default(), &mut |_| {}).unwrap();
    assert!(small.len() < bytes.len(), "{} {}", small.len(), bytes.len());
}

#[test]
fn names_are_left_out_where_wanted() {
    let bytes = repeating().to_trace();
    let before = open_bytes(&bytes).unwrap();
    assert!(
        bytes.windows(6).any(|w| w == b"secret") || !before.processes()[0].arguments.is_empty()
    );
    let options = RepackOptions {
        anonymous: true,
        ..RepackOptions::default()
    };
    let bytes = repack(&before, Vec::new(), options, &mut |_| {}).unwrap();
    let after = open_bytes(&bytes).unwrap();
    assert!(after.info().command.is_empty());
    assert_eq!(after.info().realtime_ns, 0);
    for process in after.processes() {
        assert!(process.arguments.is_empty() && process.program.is_empty());
    }
    assert_eq!(all_calls(&after).unwrap(), all_calls(&before).unwrap());
}

#[test]
fn a_process_is_kept_with_those_it_inherited_from() {
    // 0 spawned 1, which forked 2; 3 is a stranger.
    let mut run = true_run(7, 4, 2, 300, 5);
    run.processes[1].parent = Some(0);
    run.processes[1].started_by = StartedBy::Spawn;
    run.processes[2].parent = Some(1);
    run.processes[2].started_by = StartedBy::Fork;
    run.processes[2].fork_positions = vec![(1, 50)];
    for process in 0..4 {
        run.samples.push(Sample {
            tick: 6,
            process,
            anonymous_bytes: 4096,
            file_bytes: 1,
            shared_bytes: 2,
            virtual_bytes: 3,
        });
    }
    run.marks.push(Mark::of_run(2, 7, "half"));
    run.marks.push(Mark {
        process: 3,
        ..Mark::of_run(2, 4, "of a stranger")
    });
    let before = open_bytes(&run.to_trace()).unwrap();
    let options = RepackOptions {
        process: Some(2),
        ..RepackOptions::default()
    };
    let after = open_bytes(&repack(&before, Vec::new(), options, &mut |_| {}).unwrap()).unwrap();
    assert_eq!(after.damage(), []);
    let numbers: Vec<u32> = after.processes().iter().map(|p| p.number).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(after.processes()[0].parent, None);
    assert_eq!(after.processes()[0].started_by, StartedBy::Root);
    assert_eq!(after.processes()[1], before.processes()[2]);
    let mut expected = all_calls(&before).unwrap();
    expected.retain(|(process, _), _| [1, 2].contains(process));
    assert!(expected.len() > 2, "of both");
    assert_eq!(all_calls(&after).unwrap(), expected);
    let (samples, marks) = sides(&after);
    assert!(
        samples
            .iter()
            .all(|sample| [1, 2].contains(&sample.process))
    );
    assert_eq!(samples.len(), 2);
    assert_eq!(marks, [Mark::of_run(2, 7, "half")]);
    assert_eq!(verify(&after).unwrap().problems, Vec::<String>::new());
}

#[test]
fn what_is_cut_short_is_refused() {
    let bytes = repeating().to_trace();
    for length in [bytes.len() - 1, bytes.len() / 2] {
        let before = open_bytes(&bytes[..length]).unwrap();
        let error = repack(&before, Vec::new(), RepackOptions::default(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("cut short"), "{error}");
    }
}

#[test]
fn traces_are_known_by_their_first_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    assert!(!is_trace(&path) && !is_trace(dir.path()));
    std::fs::write(&path, "RMTRACE").unwrap();
    assert!(!is_trace(&path));
    std::fs::write(&path, repeating().to_trace()).unwrap();
    assert!(is_trace(&path));
}
