//! A program small enough to work out every figure with pencil and paper.

use rmtrace_analyzer::lifetime::Shares;
use rmtrace_analyzer::report::{Blocks, Bytes};
use rmtrace_analyzer::text::{self, Options};
use rmtrace_analyzer::{Analysis, Report, TraceInfo, bounds};
use rmtrace_file::consumer::Consumer;
use rmtrace_file::model::{Ended, Process, RunInfo, Sample, StartedBy, Thread};
use rmtrace_format::{Entry, Event, Step};

fn base(time_ns: u64, process: u32, thread: u32) -> Event {
    Event {
        time_ns,
        address: 0,
        old_address: 0,
        requested_bytes: 0,
        usable_bytes: 0,
        caller: 0,
        process,
        thread,
        entry: Entry::Malloc,
        step: Step::Alloc,
        align_log2: 0,
        flags: 0,
    }
}

fn alloc(time_ns: u64, process: u32, entry: Entry, address: u64, bytes: u64) -> Event {
    Event {
        address,
        entry,
        requested_bytes: bytes,
        ..base(time_ns, process, 0)
    }
}

fn free(time_ns: u64, process: u32, thread: u32, address: u64) -> Event {
    Event {
        address,
        entry: Entry::Free,
        step: Step::Free,
        ..base(time_ns, process, thread)
    }
}

fn realloc(begin_ns: u64, end_ns: u64, old_address: u64, address: u64, bytes: u64) -> [Event; 2] {
    let begin = Event {
        old_address,
        requested_bytes: bytes,
        entry: Entry::Realloc,
        step: Step::ReallocBegin,
        ..base(begin_ns, 0, 0)
    };
    let end = Event {
        time_ns: end_ns,
        address,
        step: Step::ReallocEnd,
        ..begin
    };
    [begin, end]
}

fn process(number: u32, name: &str, role: &str, threads: usize) -> Process {
    Process {
        number,
        pid: 100 + number,
        name: name.to_string(),
        role: role.to_string(),
        threads: vec![Thread::default(); threads],
        ended: Ended::Exit(Some(0)),
        ..Process::default()
    }
}

/// The parent: five blocks, one resized, one freed in another thread, one failure. The child takes
/// over what lives at 5 ms, frees one of these, allocates one, and ends.
fn program() -> Report {
    let mut analysis = Analysis::new();
    let parent = process(0, "sort", "main", 2);
    let child = Process {
        parent: Some(0),
        started_by: StartedBy::Fork,
        dropped: [0, 0, 2, 0, 0, 0, 0],
        ..process(1, "sort", "worker", 1)
    };
    analysis.process_started(&parent, 0);
    let mut events = vec![
        alloc(0, 0, Entry::Malloc, 0x1000, 100),
        alloc(1_000_000, 0, Entry::Calloc, 0x2000, 24),
        alloc(2_000_000, 0, Entry::NewAligned, 0x3000, 0),
        // Less than a microsecond.
        alloc(3_000_000, 0, Entry::Malloc, 0x4000, 16),
        free(3_000_500, 0, 0, 0x4000),
        // 24 bytes become 1,000 elsewhere; then 2,000 in place.
    ];
    events.extend(realloc(3_100_000, 3_200_000, 0x2000, 0x5000, 1_000));
    events.extend(realloc(3_300_000, 3_400_000, 0x5000, 0x5000, 2_000));
    events.push(alloc(4_000_000, 0, Entry::Malloc, 0, 1 << 40));
    events.iter().for_each(|event| analysis.event(event));
    let sample = Sample {
        tick: 0,
        process: 0,
        anonymous_bytes: 8192,
        file_bytes: 4096,
        shared_bytes: 0,
        virtual_bytes: 1 << 20,
    };
    analysis.sample(&sample, 4_500_000);
    analysis.process_started(&child, 5_000_000);
    analysis.fork(1, 0, 5_000_000);
    analysis.event(&alloc(5_500_000, 1, Entry::Malloc, 0x6000, 50));
    analysis.event(&free(5_600_000, 1, 0, 0x1000));
    analysis.process_ended(1, Ended::Exit(Some(0)), 6_000_000);
    analysis.event(&free(7_000_000, 0, 1, 0x1000));
    analysis.event(&free(10_000_000, 0, 0, 0x9000));
    analysis.process_ended(0, Ended::Exit(Some(0)), 10_000_000);
    let info = RunInfo {
        notes: vec!["made by hand".to_string()],
        ..RunInfo::default()
    };
    analysis.finish(&TraceInfo {
        name: "sort.rmt".to_string(),
        info: Some(&info),
        tick_ns: 25,
        processes: &[parent, child],
        ..TraceInfo::default()
    })
}

#[test]
fn the_run() {
    let report = program();
    let figures = &report.figures;
    assert_eq!(report.duration_ns, 10_000_000);
    assert_eq!(report.threads, 3);
    let events = &figures.events;
    assert_eq!(events.total, 12);
    assert_eq!(
        (
            events.malloc,
            events.calloc,
            events.realloc,
            events.memalign,
            events.free
        ),
        (4, 1, 2, 1, 4)
    );
    assert_eq!(
        (
            events.failed,
            events.dropped,
            events.unknown_frees,
            events.live_duplicates
        ),
        (1, 2, 1, 0)
    );
    let blocks = Blocks {
        // 0x1000, 0x2000, 0x3000, 0x4000 and the child's.
        allocated: 5,
        // 0x1000 twice, once by the child that inherited it, and 0x4000.
        freed: 3,
        // 0x3000, 0x5000 and the child's.
        never_freed: 3,
        inherited: 3,
        released: 1,
        live_at_end: 2,
        displaced: 0,
        lost_in_pause: 0,
    };
    assert_eq!(figures.blocks, blocks);
    let bytes = Bytes {
        requested: 100 + 24 + 16 + 976 + 1_000 + 50,
        freed: 100 + 100 + 16,
        shrunk: 0,
        // 100 + 2,000, and the child's 50.
        peak_live: 2_150,
        live_at_end: 2_000,
        never_freed: 2_050,
        inherited: 2_100,
        released: 50,
        displaced: 0,
    };
    assert_eq!(figures.bytes, bytes);
    // Four at 3 ms, before 0x4000 is freed; again four with the child's, but later.
    assert_eq!(
        (figures.peak.live_blocks, figures.peak.at_ns),
        (4, 3_000_000)
    );
    assert_eq!(figures.peak.live_bytes_at_ns, 5_500_000);
    assert_eq!(
        (figures.peak.process, figures.peak.live_bytes_process),
        (0, 0)
    );
    assert_eq!(figures.frees.cross_thread, 1);
    assert_eq!((figures.frees.inherited, figures.frees.unknown), (1, 1));
    let shares = Shares {
        blocks: 5,
        below_1us: 1,
        below_1ms: 1,
        below_1s: 2,
        from_1s: 0,
        to_end: 3,
        displaced: 0,
    };
    assert_eq!(figures.lifetime.shares, shares);
    // 0x4000 lived 500 ns, 1 call, 0 bytes; 0x1000 7 ms, from the first call to the ninth, 2,016
    // bytes. The median is the first of two.
    assert_eq!(figures.lifetime.ns.p50, 501);
    assert_eq!(figures.lifetime.ns.max, 7_000_000);
    assert_eq!(
        (figures.lifetime.events.p50, figures.lifetime.events.max),
        (1, 8)
    );
    assert_eq!(
        (figures.lifetime.bytes.p50, figures.lifetime.bytes.max),
        (0, 2_016)
    );
    let realloc = &figures.realloc;
    assert_eq!(
        (
            realloc.resized,
            realloc.in_place,
            realloc.moved,
            realloc.grown
        ),
        (2, 1, 1, 2)
    );
    assert_eq!(
        (
            realloc.bytes_copied_max,
            realloc.blocks_grown,
            realloc.chain_longest
        ),
        (24, 1, 2)
    );
    let sizes: Vec<_> = figures
        .size_histogram
        .iter()
        .map(|bin| (bin.low, bin.high, bin.blocks, bin.bytes))
        .collect();
    assert_eq!(
        sizes,
        [
            (0, 1, 1, 0),
            (16, 20, 1, 16),
            (24, 28, 1, 24),
            (48, 56, 1, 50),
            (96, 112, 1, 100)
        ]
    );
    // At 3 ms the parent held 100, 24, 0 and 16 bytes: a handle makes 100 to 108 (112 as before), 24
    // to 32 (32 as before), 0 to 8 (16 instead of 0) and 16 to 24 (32 instead of 16).
    let table = &figures.handle_table;
    assert_eq!((table.process, table.entries_peak), (0, 4));
    assert_eq!(
        (
            table.entries_recommended,
            table.bytes_reserved,
            table.bytes_in_place
        ),
        (512, 4096, 32)
    );
    assert!(figures.checks.all());
}

/// What is worked out beside each figure is B x ms of the blocks, over the 10 ms of the parent.
#[test]
fn the_details() {
    let report = program();
    let of = report.figures.details.as_ref().unwrap();
    // Of its own the parent had most: 100 + 0 + 2,000. The child's 2,150 were inherited but for 50.
    let bounds = &of.heap.bounds;
    assert_eq!(of.heap.process, 0);
    let peak = |of: bounds::Peak| (of.bytes, of.at_ns);
    assert_eq!(peak(bounds.live_peak), (2_100, 3_400_000));
    // 112, 16 for the block of no bytes, 2,000.
    assert_eq!(peak(bounds.rounded_peak), (2_128, 3_400_000));
    // (112 + 8) + (16 + 8) + (2,016 + 8).
    assert_eq!(peak(bounds.compacted_peak), (2_168, 3_400_000));
    // A page for each of the four blocks at 3 ms, that of no bytes too.
    assert_eq!(peak(bounds.recorded_peak), (4 * 4096, 3_000_000));
    assert_eq!(
        (bounds.saving.bytes, bounds.saving.ppm),
        (3 * 4096, 750_000)
    );
    // 100 x 7 + 24 x 2.2 + 16 x 0.0005 + 1,000 x 0.2 + 2,000 x 6.6.
    assert_eq!(bounds.mean.live_bytes, 1_415);
    // 112 x 7 + 32 x 2.2 + 16 x 8 + 16 x 0.0005 + 1,008 x 0.2 + 2,000 x 6.6.
    assert_eq!(bounds.mean.rounded_bytes, 1_438);
    // 120 x 7 + 40 x 2.2 + 24 x 8 + 40 x 0.0005 + 1,016 x 0.2 + 2,024 x 6.6.
    assert_eq!(bounds.mean.compacted_bytes, 1_468);
    // Pages: 7 + 2.2 + 8 + 0.0005 + 6.8, of 4,096 bytes.
    assert_eq!(
        (
            of.heap.pages.over_time.mean.pages,
            bounds.mean.recorded_bytes
        ),
        (2, 9_830)
    );
    let age = of.heap.age.as_ref().unwrap();
    assert_eq!((age.at_ns, age.blocks, age.bytes), (3_400_000, 3, 2_100));
    // The child's page was held for half a millisecond of its one.
    let child = report.processes[1].figures.details.as_ref().unwrap();
    assert_eq!(child.heap.bounds.mean.recorded_bytes, 2_048);
    assert_eq!(child.heap.bounds.mean.live_bytes, 25);
    // In all heaps that is a twentieth of the run: 9,830.6 and 204.8.
    let all = of.all_heaps.as_ref().unwrap();
    assert_eq!(
        (all.bounds.recorded_bytes, all.bounds.live_bytes),
        (10_035, 1_417)
    );

    let sizes = &of.size_classes;
    assert_eq!(
        (sizes.requested_at_peak, sizes.requested_over_time),
        (2_100, 1_417)
    );
    assert_eq!(sizes.requested_births, 100 + 24 + 16 + 50);
    // 0x4000 by its own thread, 0x1000 by the other; what the child freed was not its own.
    let matrix = &of.thread_matrix;
    assert_eq!((matrix.same.blocks, matrix.same.bytes), (1, 16));
    assert_eq!((matrix.other.blocks, matrix.other.bytes), (1, 100));
    let pair = &matrix.listed[0];
    assert_eq!(
        (pair.process, pair.born_thread, pair.freed_thread),
        (0, 0, 1)
    );
    assert_eq!((of.survival.freed, of.survival.censored), (2, 3));
    // 24 to 1,000 is 41.7 times, copied; 1,000 to 2,000 twice, in place.
    let growth = &of.growth;
    let factors: Vec<_> = growth
        .factors
        .iter()
        .map(|bin| (bin.low_thousandths, bin.resizes))
        .collect();
    assert_eq!(factors, [(2_000, 1), (16_000, 1)]);
    assert_eq!(
        (growth.bytes_copied_growing, growth.final_bytes),
        (24, 2_000)
    );
    assert_eq!(growth.copied_per_final_ppm, 12_000);
    let odd = &of.odd_requests;
    assert_eq!((odd.zeros.memalign, odd.powers_of_two), (1, 1));
    assert_eq!((odd.largest_bytes, odd.largest_at_ns), (2_000, 3_400_000));
    let failed: Vec<_> = odd
        .failed
        .iter()
        .map(|bin| (bin.low, bin.high, bin.calls))
        .collect();
    assert_eq!(failed, [(1 << 40, 1 << 41, 1)]);
    let rates = &of.rates;
    assert_eq!(rates.allocations.iter().sum::<u64>(), 5);
    assert_eq!(rates.frees.iter().sum::<u64>(), 2);
    assert_eq!(rates.bytes_allocated.iter().sum::<u64>(), 2_166);
    assert_eq!(rates.bytes_freed.iter().sum::<u64>(), 116);
    // The child's block.
    assert_eq!(rates.blocks_released.iter().sum::<u64>(), 1);
}

#[test]
fn the_child() {
    let report = program().of_process(1).unwrap();
    let figures = &report.figures;
    assert_eq!(report.duration_ns, 1_000_000);
    assert_eq!((figures.events.total, figures.events.dropped), (2, 2));
    let blocks = &figures.blocks;
    assert_eq!(
        (blocks.inherited, blocks.allocated, blocks.freed),
        (3, 1, 1)
    );
    assert_eq!(
        (blocks.released, blocks.live_at_end, blocks.never_freed),
        (3, 0, 1)
    );
    // What it inherited is in its heap.
    assert_eq!(
        (figures.peak.live_blocks, figures.peak.live_bytes),
        (4, 2_150)
    );
    assert_eq!(figures.size_histogram.len(), 1);
    assert_eq!(figures.lifetime.shares.to_end, 1);
}

/// The keys that others rely on.
#[test]
fn the_keys_of_schema_1() {
    let json = serde_json::to_value(program()).unwrap();
    assert_eq!(json["schema"], 1);
    let process = &json["processes"][1];
    for figures in [&json, process] {
        for path in [
            "events/total events/malloc events/calloc events/realloc events/memalign events/free events/failed",
            "events/dropped events/unknown_frees events/live_duplicates",
            "blocks/allocated blocks/freed blocks/never_freed blocks/inherited blocks/released blocks/live_at_end",
            "bytes/requested bytes/peak_live bytes/live_at_end bytes/freed",
            "peak/live_blocks peak/live_bytes peak/at_ns peak/live_blocks_at_ns peak/live_bytes_at_ns peak/process",
            "size_histogram/0/low size_histogram/0/high size_histogram/0/blocks size_histogram/0/bytes",
            "lifetime/ns/p50 lifetime/ns/p90 lifetime/ns/p99 lifetime/ns/max lifetime/events/p50 lifetime/bytes/p50",
            "frees/cross_thread frees/inherited",
            "handle_table/process handle_table/entries_peak handle_table/entries_recommended",
            "handle_table/bytes_reserved handle_table/bytes_in_place",
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        {
            let value = figures.pointer(&format!("/{path}"));
            assert!(value.is_some_and(serde_json::Value::is_u64), "{path}: {value:?}");
        }
    }
    assert_eq!(
        (process["name"].as_str(), process["pid"].as_u64()),
        (Some("sort"), Some(101))
    );
    assert_eq!(
        (process["parent"].as_u64(), process["started_by"].as_str()),
        (Some(0), Some("fork"))
    );
    assert_eq!(process["role"], "worker");
    assert_eq!(json["resident"]["anonymous_bytes_peak"], 8192);
    assert!(process["resident"].is_null());
}

/// Every key of the JSON is named in `docs/analysis.md`.
#[test]
fn every_key_is_documented() {
    fn keys(value: &serde_json::Value, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    out.push(key.clone());
                    keys(value, out);
                }
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| keys(value, out)),
            _ => {}
        }
    }
    let mut report = program();
    report.fit_memory(1);
    let mut all = Vec::new();
    keys(&serde_json::to_value(report).unwrap(), &mut all);
    assert!(all.len() > 100);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/analysis.md");
    let document = std::fs::read_to_string(path).unwrap();
    let words: Vec<&str> = document
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .collect();
    all.retain(|key| !words.contains(&key.as_str()));
    assert!(all.is_empty(), "not in docs/analysis.md: {all:?}");
}

/// With RMTRACE_BLESS=1 the text as it is now becomes the expected one: every new figure has to be
/// worked out by hand first.
#[test]
fn the_text() {
    let mut report = program();
    report.fit_memory(512 << 20);
    let text = text::render(&report, Options::default());
    let stored = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/by_hand.txt");
    if std::env::var_os("RMTRACE_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(stored, &text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(stored).unwrap();
    if let Some((was, is)) = expected.lines().zip(text.lines()).find(|(a, b)| a != b) {
        panic!("was {was}\nis  {is}\n\n{text}");
    }
    assert_eq!(text, expected);
}
