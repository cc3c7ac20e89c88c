//! `traces/tiny.rmt` is what the writer writes today, and `docs/format.md` shows its bytes.
//!
//! After a deliberate change of the format: `RMTRACE_REGENERATE=1 cargo test -p rmtrace-file --test
//! golden`, then bring the dump in the document up to date.

mod common;

use common::{all_calls, thread_of};
use rmtrace_file::model::*;
use rmtrace_file::{TraceReader, TraceWriter, WindowEncoder};
use rmtrace_format::event::Entry;
use std::path::PathBuf;

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

/// The calls of `docs/format.md`, section "A whole trace".
fn calls() -> Vec<Call> {
    let call = |entry, address, requested_bytes, tick| Call {
        entry,
        align_log2: 0,
        freed: false,
        address,
        new_address: 0,
        requested_bytes,
        tick,
        tick_end: tick,
        caller: 0,
        usable_bytes: 0,
    };
    vec![
        call(Entry::Malloc, 0x5000, 24, 100),
        call(Entry::Calloc, 0x5020, 100, 103),
        Call {
            new_address: 0x5090,
            tick_end: 112,
            ..call(Entry::Realloc, 0x5000, 40, 110)
        },
        call(Entry::Free, 0x5020, 0, 120),
        call(Entry::Malloc, 0x5020, 104, 121),
        Call {
            align_log2: 6,
            ..call(Entry::PosixMemalign, 0x5100, 64, 130)
        },
        call(Entry::Free, 0x5090, 0, 400),
    ]
}

fn tiny() -> Vec<u8> {
    let info = RunInfo {
        command: vec!["demo".into()],
        writer: "rmtrace 0.1.0".into(),
        collected: true,
        ..RunInfo::default()
    };
    let mut writer = TraceWriter::new(Vec::new(), &info, 25).unwrap();
    writer.store_only();
    let window = Window {
        process: 0,
        segments: vec![Segment {
            thread: 0,
            first_ordinal: 0,
            calls: calls(),
        }],
    };
    writer.frame(&WindowEncoder::new().encode(&window)).unwrap();
    let process = Process {
        pid: 4711,
        pid_inside: 4711,
        name: "demo".into(),
        started: 100,
        ended_at: 401,
        ended: Ended::Exit(Some(0)),
        threads: vec![thread_of(0, &calls())],
        ..Process::default()
    };
    writer.process(&process).unwrap();
    let sample = Sample {
        tick: 300,
        process: 0,
        anonymous_bytes: 4096,
        file_bytes: 0,
        shared_bytes: 0,
        virtual_bytes: 65536,
    };
    writer.samples(&[sample]).unwrap();
    writer.finish(&info).unwrap()
}

#[test]
fn the_tiny_trace_is_what_is_written_today() {
    let path = root("traces/tiny.rmt");
    if std::env::var_os("RMTRACE_REGENERATE").is_some() {
        std::fs::write(&path, tiny()).unwrap();
    }
    let stored = std::fs::read(&path).unwrap();
    assert_eq!(
        stored,
        tiny(),
        "the format has changed: see the head of this test"
    );
    let reader = TraceReader::open(&path).unwrap();
    assert!(reader.damage().is_empty());
    assert_eq!(all_calls(&reader).unwrap()[&(0, 0)], calls());
    assert!(rmtrace_file::verify::verify(&reader).unwrap().passed());
}

#[test]
fn the_document_shows_the_bytes_of_the_tiny_trace() {
    let text = std::fs::read_to_string(root("docs/format.md")).unwrap();
    let mut shown = Vec::new();
    for line in text.lines() {
        // "0040  52 4d ...  |text": offset, bytes, what they are.
        let Some((offset, rest)) = line.split_once("  ") else {
            continue;
        };
        let Ok(offset) = usize::from_str_radix(offset, 16) else {
            continue;
        };
        if offset != shown.len() || line.len() < 6 || !rest.contains('|') {
            continue;
        }
        let bytes = rest
            .split('|')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        shown.extend(bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    assert_eq!(shown, std::fs::read(root("traces/tiny.rmt")).unwrap());
}
