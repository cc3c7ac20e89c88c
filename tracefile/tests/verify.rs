//! `verify` passes what is true and notices every record that was removed, repeated or altered after
//! the threads had counted it, checksums made right.

mod common;

use common::{Run, open_bytes, thread_of, true_run};
use proptest::prelude::*;
use rmtrace_file::model::*;
use rmtrace_file::verify::{Verification, verify};
use rmtrace_file::{TraceWriter, WindowEncoder};
use rmtrace_format::event::{Entry, Kind};
use rmtrace_format::record::{MARK_START, MARK_STOP};

fn verified(run: &Run) -> Verification {
    verify(&open_bytes(&run.to_trace()).unwrap()).unwrap()
}

/// A whole trace, right checksums, of `calls`, in which the thread says that it counted `counted`.
fn forged(calls: &[Call], counted: &Thread) -> Verification {
    forged_with(calls, counted, &[])
}

fn forged_with(calls: &[Call], counted: &Thread, marks: &[Mark]) -> Verification {
    let info = RunInfo::default();
    let mut writer = TraceWriter::new(Vec::new(), &info, 25).unwrap();
    let window = Window {
        process: 0,
        segments: vec![Segment {
            thread: 0,
            first_ordinal: 0,
            calls: calls.to_vec(),
        }],
    };
    writer.frame(&WindowEncoder::new().encode(&window)).unwrap();
    let process = Process {
        threads: vec![counted.clone()],
        ..Process::default()
    };
    writer.process(&process).unwrap();
    if !marks.is_empty() {
        writer.marks(marks).unwrap();
    }
    verify(&open_bytes(&writer.finish(&info).unwrap()).unwrap()).unwrap()
}

fn one_thread(seed: u64) -> Vec<Call> {
    true_run(seed, 1, 1, 120, 5).threads.remove(0).2
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn true_traces_pass(seed: u64, processes in 1u32..3, threads in 1u32..4) {
        let run = true_run(seed, processes, threads, 600, 3);
        let found = verified(&run);
        prop_assert!(found.passed(), "{:?}", found.problems);
        prop_assert_eq!(found.calls as usize, run.threads.iter().map(|t| t.2.len()).sum::<usize>());
        prop_assert!(found.notes.is_empty(), "{:?}", found.notes);
    }

    /// Whatever part of a run was not recorded, as long as the trace says so.
    #[test]
    fn a_pause_explains_what_it_leaves(seed: u64, from: prop::sample::Index, length in 1usize..100) {
        let mut calls = one_thread(seed);
        let from = from.index(calls.len() - 1);
        let until = (from + length).min(calls.len() - 1);
        let marks = [(from, MARK_STOP), (until, MARK_START)]
            .map(|(at, number)| Mark::of_run(calls[at].tick, number, ""));
        calls.drain(from..until);
        let found = forged_with(&calls, &thread_of(0, &calls), &marks);
        prop_assert!(found.passed(), "{:?}", found.problems);
        let counts = &found.tables[&0];
        prop_assert_eq!((counts.unknown_frees, counts.live_duplicates), (0, 0));
    }

    #[test]
    fn a_removed_record_is_noticed(seed: u64, at: prop::sample::Index) {
        let mut calls = one_thread(seed);
        let counted = thread_of(0, &calls);
        prop_assert!(forged(&calls, &counted).passed());
        calls.remove(at.index(calls.len()));
        prop_assert!(!forged(&calls, &counted).passed());
    }

    #[test]
    fn a_repeated_record_is_noticed(seed: u64, at: prop::sample::Index) {
        let mut calls = one_thread(seed);
        let counted = thread_of(0, &calls);
        let at = at.index(calls.len());
        calls.insert(at, calls[at]);
        prop_assert!(!forged(&calls, &counted).passed());
    }

    #[test]
    fn exchanged_records_are_noticed(seed: u64, at: prop::sample::Index) {
        let mut calls = one_thread(seed);
        let counted = thread_of(0, &calls);
        let at = at.index(calls.len() - 1);
        let (a, b) = (calls[at], calls[at + 1]);
        prop_assume!(a.address != b.address || a.entry != b.entry);
        // Contents exchanged, times left, so that the times do not betray it.
        (calls[at], calls[at + 1]) = (Call { tick: a.tick, tick_end: a.tick_end, ..b }, Call { tick: b.tick, tick_end: b.tick_end, ..a });
        prop_assert!(!forged(&calls, &counted).passed());
    }

    #[test]
    fn an_altered_field_is_noticed(seed: u64, at: prop::sample::Index, field in 0..8, by in 1u64..1000) {
        let mut calls = one_thread(seed);
        let counted = thread_of(0, &calls);
        let at = at.index(calls.len());
        let call = &mut calls[at];
        let is_realloc = call.entry.kind() == Kind::Realloc;
        match field {
            0 => call.entry = match call.entry.kind() {
                // Another function of the same kind, which no count by kind shows.
                Kind::Malloc => Entry::New,
                Kind::Free => Entry::Delete,
                Kind::Realloc => Entry::Reallocarray,
                other => panic!("{other:?}"),
            },
            1 if call.entry.kind() != Kind::Free => call.requested_bytes += by,
            2 => call.address += by,
            3 if is_realloc => call.new_address += by,
            4 => { call.tick += by; call.tick_end += by; }
            5 if is_realloc => call.tick_end += by,
            6 => call.align_log2 = 1 + (by % 60) as u8,
            7 if is_realloc => call.freed = !call.freed,
            _ => return Ok(()),
        }
        let found = forged(&calls, &counted);
        prop_assert!(!found.passed());
        prop_assert!(found.problems.iter().any(|problem| problem.contains("process 0 thread 0")));
    }
}

#[test]
fn counters_may_lag_by_one_call_where_they_say_so() {
    let calls = one_thread(77);
    let mut counted = thread_of(0, &calls[..calls.len() - 1]);
    counted.tick_sum = thread_of(0, &calls).tick_sum;
    assert!(!forged(&calls, &counted).passed());
    counted.counters_may_lag = true;
    assert!(forged(&calls, &counted).passed());
    // Killed between its stores: the calls are counted, the sum is not yet there.
    let mut between = thread_of(0, &calls);
    between.counters_may_lag = true;
    between.counters.sum = counted.counters.sum;
    assert!(forged(&calls, &between).passed());
    between.counters.sum ^= 1;
    assert!(!forged(&calls, &between).passed());
    let mut two_behind = thread_of(0, &calls[..calls.len() - 2]);
    two_behind.tick_sum = counted.tick_sum;
    two_behind.counters_may_lag = true;
    assert!(!forged(&calls, &two_behind).passed());
}

#[test]
fn missing_chunks_gaps_and_disorder_are_told() {
    let calls = one_thread(5);
    let mut counted = thread_of(0, &calls);
    counted.chunks_missing = 1;
    let found = forged(&calls, &counted);
    assert_eq!(
        found.problems,
        ["process 0 thread 0: 1 of 1 chunks are missing"]
    );

    let info = RunInfo::default();
    let mut writer = TraceWriter::new(Vec::new(), &info, 25).unwrap();
    let mut encoder = WindowEncoder::new();
    for (first_ordinal, part) in [(0, &calls[..50]), (51, &calls[50..])] {
        let segments = vec![Segment {
            thread: 0,
            first_ordinal,
            calls: part.to_vec(),
        }];
        writer
            .frame(&encoder.encode(&Window {
                process: 0,
                segments,
            }))
            .unwrap();
    }
    let process = Process {
        threads: vec![thread_of(0, &calls)],
        ..Process::default()
    };
    writer.process(&process).unwrap();
    let found = verify(&open_bytes(&writer.finish(&info).unwrap()).unwrap()).unwrap();
    assert_eq!(found.problem_count, 1);
    assert!(found.problems[0].contains("goes on with call 51, expected was call 50"));

    let mut calls = one_thread(5);
    calls[10].tick -= 1_000.min(calls[10].tick);
    calls[10].tick_end = calls[10].tick;
    let found = forged(&calls, &thread_of(0, &calls));
    assert!(
        found
            .problems
            .iter()
            .any(|p| p.contains("call 10 is before the one before it"))
    );
}

#[test]
fn an_inversion_is_told() {
    let call = |entry, tick| Call {
        entry,
        align_log2: 0,
        freed: false,
        address: 64,
        new_address: 0,
        requested_bytes: if entry == Entry::Free { 0 } else { 8 },
        tick,
        tick_end: tick,
        caller: 0,
        usable_bytes: 0,
    };
    let run = Run {
        processes: vec![Process::default()],
        // Thread 1 freed before thread 0 allocated again, but the times say otherwise; thread 0's own
        // free of the second block is the proof.
        threads: vec![
            (
                0,
                0,
                vec![
                    call(Entry::Malloc, 0),
                    call(Entry::Malloc, 100),
                    call(Entry::Free, 90_000),
                ],
            ),
            (0, 1, vec![call(Entry::Free, 101)]),
        ],
        window_calls: 10,
        ..Run::default()
    };
    let found = verified(&run);
    assert_eq!(
        found.problems,
        ["process 0: 1 times a free came after the next allocation of its address"]
    );
    assert_eq!(found.tables[&0].live_duplicates, 1);
}

#[test]
fn blocks_are_followed_through_forks() {
    let call = |entry, address, tick| Call {
        entry,
        align_log2: 0,
        freed: false,
        address,
        new_address: 0,
        requested_bytes: if entry == Entry::Free { 0 } else { 8 },
        tick,
        tick_end: tick,
        caller: 0,
        usable_bytes: 0,
    };
    let run = Run {
        processes: vec![
            Process::default(),
            Process {
                number: 1,
                parent: Some(0),
                started_by: StartedBy::Fork,
                fork_positions: vec![(0, 2)],
                parent_threads: 1,
                started: 50,
                ended_at: 60,
                ..Process::default()
            },
        ],
        threads: vec![
            (
                0,
                0,
                vec![
                    call(Entry::Malloc, 16, 0),
                    call(Entry::Malloc, 32, 1),
                    call(Entry::Free, 16, 20),
                    call(Entry::Malloc, 48, 30),
                ],
            ),
            (
                1,
                0,
                vec![
                    call(Entry::Free, 16, 50),
                    call(Entry::Free, 32, 51),
                    call(Entry::Malloc, 48, 60),
                ],
            ),
        ],
        window_calls: 10,
        ..Run::default()
    };
    let found = verified(&run);
    assert!(
        found.passed() && found.notes.is_empty(),
        "{:?} {:?}",
        found.problems,
        found.notes
    );
    let child = &found.tables[&1];
    assert_eq!(
        (child.inherited, child.allocated, child.freed, child.live),
        (2, 1, 2, 1)
    );
    let parent = &found.tables[&0];
    assert_eq!(
        (
            parent.inherited,
            parent.allocated,
            parent.freed,
            parent.live
        ),
        (0, 3, 1, 2)
    );
}
