//! The tables of docs/spool.md say what the layouts of the format crate are.

use rmtrace_format::chunk::{self, ChunkHeader};
use rmtrace_format::spool::{self, Control, ProcessSlot, SHARED_OFFSET, Shared, SpoolHeader};
use std::mem::offset_of;

/// Rows `| offset | size | name` that the document must have.
macro_rules! rows {
    ($type:ty, $from:expr, $($field:ident = $name:literal $size:literal),* $(,)?) => {
        [$(format!("| {} | {} | {} |", thousands($from + offset_of!($type, $field)), $size, $name)),*]
    };
}

fn thousands(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/spool.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_tables_hold_the_offsets() {
    let mut rows = Vec::new();
    rows.extend(
        rows!(Control, 0, magic = "magic" 8, version = "version" 4, flags = "flags" 4,
        pool_bytes = "pool_bytes" 8, limit_bytes = "limit_bytes" 8, wait_ns = "wait_ns" 8,
        collector_ns = "collector_ns" 8),
    );
    rows.extend(
        rows!(SpoolHeader, 0, magic = "magic" 8, version = "version" 4, flags = "flags" 4,
        id = "id" 16, spool_bytes = "spool_bytes" 8, slabs = "slabs" 4, pid = "pid" 4,
        ppid = "ppid" 4, arguments = "arguments" 4, started = "started" 24,
        realtime_ns = "realtime_ns" 8, tsc_hz = "tsc_hz" 8, cost_ps = "cost_ps" 8,
        interposed = "interposed" 8, detoured = "detoured" 8, refused = "refused" 8,
        mapped_at = "mapped_at" 8),
    );
    rows.extend(rows!(Shared, SHARED_OFFSET, processes = "processes" 4,
        slabs_claimed = "slabs_claimed" 4, small_next = "small_next" 8,
        free_small = "free_small" 8, free_large = "free_large" 8, full = "full" 8,
        dropped = "dropped" 64));
    rows.extend(
        rows!(ProcessSlot, 0, state = "state" 4, number = "number" 4, pid = "pid" 4,
        ppid = "ppid" 4, started_by = "started_by" 4, parent = "parent" 4,
        parent_thread = "parent_thread" 4, threads = "threads" 4, started = "started" 24,
        ended = "ended" 24, dropped = "dropped" 64, waits = "waits" 16, appended = "appended" 16,
        fork_chunks = "fork_chunks" 4, parent_threads = "parent_threads" 4, title = "title" 640),
    );
    rows.extend(
        rows!(ChunkHeader, 0, magic = "magic" 4, kind = "kind" 4, state = "state" 4,
        chunk_bytes = "chunk_bytes" 4, committed = "committed" 4, process = "process" 4,
        thread = "thread" 4, sequence = "sequence" 4, spool_id = "spool_id" 16, tid = "tid" 4,
        next = "next" 4, check = "check" 8, opened = "opened" 24, closed = "closed" 24,
        first_ordinal = "first_ordinal" 8, calls = "calls" 40, bytes = "bytes" 8, sum = "sum" 8,
        dropped = "dropped" 8, state_at = "state_at" 8),
    );
    let document = document();
    let missing: Vec<&String> = rows.iter().filter(|row| !document.contains(*row)).collect();
    assert!(missing.is_empty(), "docs/spool.md lacks {missing:#?}");
}

#[test]
fn the_text_holds_the_sizes() {
    let document = document();
    for number in [
        spool::PROCESSES_OFFSET,
        spool::SLABS_OFFSET,
        spool::SLABS_MAX,
        spool::PROCESSES_MAX,
        spool::PROGRAM_OFFSET,
        spool::ARGUMENTS_OFFSET,
        chunk::SMALL_BYTES,
        chunk::LARGE_BYTES,
    ] {
        let number = thousands(number);
        assert!(document.contains(&number), "docs/spool.md lacks {number}");
    }
    assert_eq!(spool::COLLECTOR_ALIVE_NS, 1_000_000_000);
    assert_eq!(spool::VERSION, 1);
}
