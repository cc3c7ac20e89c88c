//! What is written is read: calls of every kind, in windows of every length, and the records.

mod common;

use common::{Run, all_calls, any_call, in_order, open_bytes, thread_of};
use proptest::collection::vec;
use proptest::prelude::*;
use rmtrace_file::frame::CALLS_MAX;
use rmtrace_file::model::*;
use rmtrace_file::{TraceWriter, WindowEncoder};
use rmtrace_format::event::Entry;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_come_back_as_they_were(
        threads in vec((0u32..3, vec(any_call(), 0..120)), 1..5),
        window_calls in 1usize..100,
    ) {
        let mut run = Run { window_calls, ..Run::default() };
        for number in 0..3 {
            run.processes.push(Process { number, ..Process::default() });
        }
        for (n, (process, calls)) in threads.into_iter().enumerate() {
            run.threads.push((process, n as u32, in_order(calls, n as u64)));
        }
        let reader = open_bytes(&run.to_trace()).unwrap();
        prop_assert!(reader.damage().is_empty());
        let mut all = all_calls(&reader).unwrap();
        for (process, thread, calls) in &run.threads {
            prop_assert_eq!(&all.remove(&(*process, *thread)).unwrap_or_default(), calls);
            prop_assert_eq!(reader.next_ordinal(*process, *thread), calls.len() as u64);
            let stored = &reader.process(*process).unwrap().threads;
            prop_assert!(stored.contains(&thread_of(*thread, calls)));
        }
        prop_assert!(all.is_empty());
    }

    #[test]
    fn blocks_of_any_length_decode_to_the_same(calls in vec(any_call(), 1..300), block in 1u64..300) {
        let calls = in_order(calls, 7);
        let window = Window { process: 3, segments: vec![Segment { thread: 2, first_ordinal: 9, calls: calls.clone() }] };
        let encoded = WindowEncoder::new().encode(&window);
        let payload = &encoded.bytes[rmtrace_file::frame::HEADER_BYTES..];
        let frame = rmtrace_file::frame::Frame::open(payload, &mut Default::default()).unwrap();
        let mut decoder = frame.decoder(0).unwrap();
        let mut back = Vec::new();
        while decoder.left() > 0 {
            let before = back.len();
            decoder.decode(frame.columns(), block, |call| back.push(*call)).unwrap();
            prop_assert!((back.len() - before) as u64 <= block);
        }
        prop_assert_eq!(back, calls);
    }
}

#[test]
fn an_encoder_forgets_between_segments() {
    let mut encoder = WindowEncoder::new();
    let run = common::true_run(5, 1, 3, 2000, 4);
    let windows: Vec<Window> = run
        .threads
        .iter()
        .map(|(process, thread, calls)| Window {
            process: *process,
            segments: vec![Segment {
                thread: *thread,
                first_ordinal: 0,
                calls: calls.clone(),
            }],
        })
        .collect();
    for window in windows.iter().chain(&windows) {
        assert_eq!(encoder.encode(window), WindowEncoder::new().encode(window));
    }
}

#[test]
fn a_window_beyond_the_limit_becomes_several_frames() {
    let call = |n: u64| Call {
        entry: if n.is_multiple_of(2) {
            Entry::Malloc
        } else {
            Entry::Free
        },
        align_log2: 0,
        freed: false,
        address: 0x1000 + n / 2 % 1000 * 64,
        new_address: 0,
        requested_bytes: if n.is_multiple_of(2) { 40 } else { 0 },
        tick: n,
        tick_end: n,
        caller: 0,
        usable_bytes: 0,
    };
    let long: Vec<Call> = (0..CALLS_MAX + 5).map(call).collect();
    let window = Window {
        process: 0,
        segments: vec![
            Segment {
                thread: 0,
                first_ordinal: 10,
                calls: long.clone(),
            },
            Segment {
                thread: 1,
                first_ordinal: 0,
                calls: vec![],
            },
            Segment {
                thread: 2,
                first_ordinal: 0,
                calls: long[..20].to_vec(),
            },
        ],
    };
    let encoded = WindowEncoder::new().encode(&window);
    assert_eq!(encoded.entries.len(), 2);
    assert_eq!(encoded.calls(), CALLS_MAX + 25);
    let mut writer = TraceWriter::new(Vec::new(), &RunInfo::default(), 25).unwrap();
    writer.frame(&encoded).unwrap();
    let bytes = writer.finish(&RunInfo::default()).unwrap();
    let all = all_calls(&open_bytes(&bytes).unwrap()).unwrap();
    assert!(all[&(0, 0)] == long);
    assert!(all[&(0, 2)] == long[..20]);
    assert_eq!(all.len(), 2);
}

#[test]
fn callers_and_usable_bytes_may_begin_anywhere_in_a_segment() {
    let run = common::true_run(3, 1, 1, 2000, 2);
    let mut calls = run.threads[0].2.clone();
    calls.iter_mut().for_each(|call| {
        (call.caller, call.usable_bytes) = (0, 0);
    });
    let kinds: Vec<_> = calls.iter().map(|call| call.entry.kind()).collect();
    assert!(kinds.contains(&rmtrace_format::event::Kind::Realloc));
    for (caller_at, usable_at) in [(0, 1000), (1000, 0), (700, 701), (255, 256), (1999, 1999)] {
        let mut calls = calls.clone();
        calls[caller_at..]
            .iter_mut()
            .for_each(|c| c.caller = 0x5555_0000);
        calls[usable_at..]
            .iter_mut()
            .for_each(|c| c.usable_bytes = c.requested_bytes + 8);
        let segment = Segment {
            thread: 0,
            first_ordinal: 0,
            calls: calls.clone(),
        };
        let window = Window {
            process: 0,
            segments: vec![segment],
        };
        let encoded = WindowEncoder::new().encode(&window);
        let payload = &encoded.bytes[rmtrace_file::frame::HEADER_BYTES..];
        let frame = rmtrace_file::frame::Frame::open(payload, &mut Default::default()).unwrap();
        assert!(frame.calls(0).unwrap() == calls, "{caller_at} {usable_at}");
    }
}

#[test]
fn frames_can_be_copied_as_they_are() {
    let run = common::true_run(11, 2, 2, 500, 3);
    let reader = open_bytes(&run.to_trace()).unwrap();
    let mut writer = TraceWriter::new(Vec::new(), reader.info(), reader.tick_ns()).unwrap();
    for entry in reader.frames() {
        writer.frame(&reader.raw_frame(entry).unwrap()).unwrap();
    }
    for process in reader.processes() {
        writer.process(process).unwrap();
    }
    let copy = open_bytes(&writer.finish(reader.info()).unwrap()).unwrap();
    assert_eq!(all_calls(&copy).unwrap(), all_calls(&reader).unwrap());
    assert!(rmtrace_file::verify::verify(&copy).unwrap().passed());
}

#[test]
fn samples_marks_and_the_run_come_back() {
    let sample = Sample {
        tick: 77,
        process: 0,
        anonymous_bytes: 1 << 40,
        file_bytes: 2,
        shared_bytes: 3,
        virtual_bytes: 4,
    };
    let mark = Mark {
        tick: 5,
        process: 0,
        thread: 1,
        ordinal: 2,
        number: 1,
        value: 9,
        name: "arena".into(),
    };
    let run = Run {
        processes: vec![Process::default()],
        samples: vec![sample; 50],
        marks: vec![mark.clone()],
        ..Run::default()
    };
    let reader = open_bytes(&run.to_trace()).unwrap();
    let mut samples = Vec::new();
    let mut marks = Vec::new();
    for side in reader.sides() {
        samples.extend(reader.samples(side).unwrap());
        marks.extend(reader.marks(side).unwrap());
    }
    assert_eq!(samples, vec![sample; 50]);
    assert_eq!(marks, [mark]);
    assert_eq!(reader.info().command, ["demo"]);
    assert_eq!(reader.tick_ns(), 25);
    assert_eq!(reader.ticks(), None);
}
