//! Blocks are told after which mark they were born.

use rmtrace_export::{Form, Options, Table, export};
use rmtrace_file::model::{Call, Mark, Process, RunInfo, Segment, Window};
use rmtrace_file::{TraceReader, TraceWriter, WindowEncoder};
use rmtrace_format::Entry;
use rmtrace_format::record::{MARK_NAMED, MARK_RUN, MARK_SUSPEND};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

/// Allocations in each process, and marks of the run and of process 1.
fn trace() -> TraceReader {
    let info = RunInfo::default();
    let mut writer = TraceWriter::new(Vec::new(), &info, 25).expect("memory takes it");
    let mut encoder = WindowEncoder::new();
    for number in 0..2 {
        let process = Process {
            number,
            ..Process::default()
        };
        writer.process(&process).expect("memory takes it");
        let calls = [100, 110, 120, 130].map(|tick| Call {
            entry: Entry::Malloc,
            align_log2: 0,
            freed: false,
            address: tick * 64,
            new_address: 0,
            requested_bytes: tick,
            tick,
            tick_end: tick,
            caller: 0,
            usable_bytes: 0,
        });
        let window = Window {
            process: number,
            segments: vec![Segment {
                thread: 0,
                first_ordinal: 0,
                calls: calls.into(),
            }],
        };
        writer
            .frame(&encoder.encode(&window))
            .expect("memory takes it");
    }
    let of_process = Mark {
        process: 1,
        ..Mark::of_run(115, MARK_NAMED, "mine")
    };
    let marks = [
        Mark::of_run(105, MARK_RUN, "load"),
        Mark::of_run(112, MARK_SUSPEND, "no mark of anybody"),
        of_process,
        Mark::of_run(125, MARK_RUN, "idle"),
    ];
    writer.marks(&marks).expect("memory takes it");
    let bytes = writer.finish(&info).expect("memory takes it");
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&bytes).expect("it can be written");
    TraceReader::from_file(file, Path::new("marks.rmt")).expect("a trace")
}

#[test]
fn a_block_has_the_last_mark_of_its_process_or_the_run() {
    let mut bytes = Vec::new();
    let options = Options {
        table: Table::Blocks,
        form: Form::JsonLines,
        process: None,
        threads: None,
        window: None,
        filter: Default::default(),
        progress: &mut |_| ControlFlow::Continue(()),
    };
    let exported = export(&trace(), &mut bytes, options).expect("memory takes it");
    assert_eq!(exported.rows, 8);
    let text = String::from_utf8(bytes).expect("text");
    let mut found: Vec<(u64, u64, String)> = text
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect("an object");
            let number = |key: &str| row[key].as_u64().expect("a number");
            (
                number("process"),
                number("bytes_first"),
                row["mark"].to_string(),
            )
        })
        .collect();
    found.sort();
    let expected = [
        (0, 100, "null"),
        (0, 110, "\"load\""),
        (0, 120, "\"load\""),
        (0, 130, "\"idle\""),
        (1, 100, "null"),
        (1, 110, "\"load\""),
        (1, 120, "\"mine\""),
        (1, 130, "\"idle\""),
    ]
    .map(|(process, bytes, mark)| (process, bytes, mark.to_owned()));
    assert_eq!(found, expected);
}
