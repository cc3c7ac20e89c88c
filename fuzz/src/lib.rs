//! Fuzz targets. Each is one plain function over bytes that panics where it finds a fault, so that
//! cargo-fuzz (`fuzz_targets/`) and the driver for stable Rust (`src/bin/smoke.rs`) run the same.
//!
//! Checksums would keep almost every changed input out of the decoders: targets also make them right
//! again and read once more ([`seal`]).

pub mod blocks;
pub mod mutate;
pub mod pieces;
pub mod seal;
pub mod seeds;

use pieces::{Pieces, Scene};
use rmtrace_analyzer::ledger::Filter;
use rmtrace_analyzer::{Options, Report, analyze, text};
use rmtrace_file::frame::Frame;
use rmtrace_file::gather::{PackOptions, pack};
use rmtrace_file::merge::MergeOptions;
use rmtrace_file::reader::FrameScratch;
use rmtrace_file::table::AddressTables;
use rmtrace_file::{
    Consumer, Ended, Mark, Process, Sample, Segment, TraceReader, TraceWriter, Window,
    WindowEncoder, verify,
};
use rmtrace_format::record::{Item, RECORD_BYTES_MAX, Records, UNIT_BYTES, encode};
use rmtrace_format::{Event, Kind};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A target: its name, its function, the folder of its seeds.
pub struct Target {
    /// Name on the command line.
    pub name: &'static str,
    /// The function.
    pub function: fn(&[u8]),
    /// Folder below `seeds/`.
    pub seeds: &'static str,
    /// Whether it is run when none is named.
    pub wanted: bool,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("trace", target_trace, "trace", true),
    target("analyze", target_analyze, "trace", true),
    target("frame", target_frame, "trace", true),
    target("records", target_records, "records", true),
    target("run", target_run, "run", true),
    target("rmalloc", target_rmalloc, "rmalloc", true),
    target("fails_on_purpose", target_fails_on_purpose, "trace", false),
    target("hangs_on_purpose", target_hangs_on_purpose, "trace", false),
];

const fn target(
    name: &'static str,
    function: fn(&[u8]),
    seeds: &'static str,
    wanted: bool,
) -> Target {
    Target {
        name,
        function,
        seeds,
        wanted,
    }
}

/// Names the directory for files of targets, in place of one of the system's.
pub const SCRATCH: &str = "RMTRACE_FUZZ_SCRATCH";

/// Where files of targets go: memory, if there is room.
pub fn scratch_directory() -> PathBuf {
    if let Some(named) = std::env::var_os(SCRATCH) {
        return named.into();
    }
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

thread_local! {
    static TRACE_FILE: RefCell<File> = RefCell::new(
        tempfile::tempfile_in(scratch_directory()).expect("a temporary file")
    );
    static SCENE: RefCell<Scene> = RefCell::new(Scene::new());
}

/// A file with these bytes; it is the same file at every call of a thread.
fn file_of(bytes: &[u8]) -> File {
    TRACE_FILE.with_borrow(|file| {
        file.set_len(0).expect("a temporary file is cut");
        file.write_all_at(bytes, 0)
            .expect("a temporary file is written");
        file.try_clone().expect("a descriptor is cloned")
    })
}

/// Counts what merging delivers, and holds it to what [`Consumer`] promises of any trace.
#[derive(Default)]
struct Count {
    events: u64,
    now_ns: u64,
}

impl Count {
    fn at(&mut self, time_ns: u64) {
        assert!(time_ns >= self.now_ns, "time goes backwards");
        self.now_ns = time_ns;
    }
}

impl Consumer for Count {
    fn event(&mut self, event: &Event) {
        self.at(event.time_ns);
        self.events += 1;
    }
    fn process_started(&mut self, _: &Process, time_ns: u64) {
        self.at(time_ns);
    }
    fn fork(&mut self, _: u32, _: u32, time_ns: u64) {
        self.at(time_ns);
    }
    fn process_ended(&mut self, _: u32, _: Ended, time_ns: u64) {
        self.at(time_ns);
    }
    fn mark(&mut self, _: &Mark, time_ns: u64) {
        self.at(time_ns);
    }
    fn sample(&mut self, _: &Sample, time_ns: u64) {
        self.at(time_ns);
    }
}

/// Operations on a heap and on a map from handles to contents: nothing differs, all invariants hold.
///
/// # Panics
/// What differs.
pub fn target_rmalloc(bytes: &[u8]) {
    let (skip, steps) = blocks::steps(bytes);
    if let Err(difference) = blocks::drive(&steps, blocks::HEAP_BYTES, skip, 1) {
        panic!("{difference}");
    }
}

/// Everything that commands do with a trace. Returns whether nothing of it ended with an error.
fn read_all(reader: &TraceReader) -> bool {
    let mut whole = true;
    let mut count = Count::default();
    match reader.merge(&mut count) {
        Ok(stats) => {
            assert!(
                stats.events <= reader.calls().saturating_mul(2),
                "more events than calls have"
            );
        }
        Err(_) => whole = false,
    }
    let mut tables = AddressTables::default();
    whole &= reader.merge(&mut tables).is_ok();
    tables.counts();
    match verify::verify(reader) {
        Ok(verification) => {
            assert!(verification.problems.len() <= verify::PROBLEMS_MAX);
            assert!(whole || !verification.passed(), "verified, but not read");
        }
        Err(_) => whole = false,
    }
    for side in reader.sides() {
        whole &= reader.samples(side).is_ok() && reader.marks(side).is_ok();
    }
    for process in reader.processes() {
        reader.with_ancestors(process.number);
        for (thread, ordinal) in reader.threads_of(process.number) {
            assert_eq!(*ordinal, reader.next_ordinal(process.number, *thread));
        }
    }
    reader.ticks();
    let mut scan = reader.scan();
    while let Ok(Some(_)) = scan.next_frame() {}
    whole
}

/// Trace files: any bytes are opened, merged and verified, as they are and with every checksum right.
pub fn target_trace(data: &[u8]) {
    let path = Path::new("input");
    if let Ok(reader) = TraceReader::from_file(file_of(data), path) {
        read_all(&reader);
    }
    let sealed = seal::trace(data);
    if sealed != data
        && let Ok(reader) = TraceReader::from_file(file_of(&sealed), path)
    {
        read_all(&reader);
    }
}

/// Which part of a trace is analyzed, from 64 bits.
#[derive(Clone, Copy)]
struct Part(u64);

impl Part {
    /// Some bits from `at` on, below `below`.
    fn bits(self, at: u32, below: u64) -> u64 {
        (self.0 >> at) % below
    }

    fn merge(self, reader: &TraceReader) -> MergeOptions<'static> {
        let last_ns = reader.ticks().map_or(0, |(_, last)| reader.ns(last));
        let moment = |eighths: u64| (u128::from(last_ns) * u128::from(eighths) / 8) as u64;
        let from = self.bits(8, 8);
        let to = from + 1 + self.bits(12, 8);
        MergeOptions {
            processes: (self.bits(0, 4) == 1)
                .then(|| reader.with_ancestors(self.bits(16, 4) as u32)),
            threads: (self.bits(2, 4) == 1).then(|| vec![0, self.bits(20, 8) as u32]),
            window: (self.bits(4, 2) == 1).then(|| moment(from)..moment(to).max(moment(from) + 1)),
            ..MergeOptions::default()
        }
    }

    fn filter(self) -> Filter {
        let kinds = [Kind::Malloc, Kind::Calloc, Kind::Realloc, Kind::Memalign];
        let low = self.bits(32, 256);
        Filter {
            sizes: (self.bits(5, 2) == 1).then(|| low..low + 1 + self.bits(40, 1 << 12)),
            kind: (self.bits(6, 4) == 1).then(|| kinds[self.bits(52, 4) as usize]),
        }
    }
}

/// A report of a part, and whether reading ended early.
fn analyzed(reader: &TraceReader, part: Part, filter: Filter, threads: usize) -> (Report, bool) {
    let options = Options {
        filter,
        merge: part.merge(reader),
        threads,
        ..Options::default()
    };
    let (report, error) = analyze(reader, "input", options);
    (report, error.is_some())
}

/// Analyzes a part with one thread and with several, and renders it. Returns the blocks allocated and
/// the first size above the largest.
fn analyze_part(reader: &TraceReader, part: Part, threads: usize) -> (u64, u64) {
    let one = analyzed(reader, part, part.filter(), 1);
    let more = analyzed(reader, part, part.filter(), threads);
    assert!(one == more, "{threads} threads say something else");
    let (report, _) = one;
    let of = &report.figures;
    let details = of.details.as_ref().expect("details of the run");
    let (temporary, survival) = (&details.temporary.fates, &details.survival);
    assert_eq!(temporary.blocks, of.blocks.allocated);
    assert_eq!(survival.freed + survival.censored, of.blocks.allocated);
    let born: u64 = details.rates.allocations.iter().sum();
    assert_eq!(born, of.blocks.allocated);
    for all_processes in [false, true] {
        text::render(&report, text::Options { all_processes });
    }
    let above = of.size_histogram.last().map_or(0, |bin| bin.high);
    (of.blocks.allocated, above)
}

/// Analyzes all of a trace and a part of it.
fn analyze_parts(reader: &TraceReader, part: Part) {
    let threads = 2 + 2 * part.bits(56, 2) as usize;
    let (allocated, above) = analyze_part(reader, Part(0), threads);
    analyze_part(reader, part, 6 - threads);
    // Blocks below and above some size are all blocks; one of 2^64 - 1 bytes is below no limit.
    let limit = 1 + part.bits(24, 512);
    let parts = [0..limit, limit..u64::MAX].map(|sizes| {
        let filter = Filter {
            sizes: Some(sizes),
            kind: None,
        };
        analyzed(reader, Part(0), filter, 1)
            .0
            .figures
            .blocks
            .allocated
    });
    assert!(above == u64::MAX || parts[0] + parts[1] == allocated);
}

/// Analysis: any trace that opens has a report, of the whole and of a part that follows from the bytes,
/// the same with any number of threads.
pub fn target_analyze(data: &[u8]) {
    let path = Path::new("input");
    let low = u64::from(crc32fast::hash(data));
    let part = Part(low << 32 | u64::from(crc32fast::hash(&low.to_le_bytes())));
    if let Ok(reader) = TraceReader::from_file(file_of(data), path) {
        analyze_parts(&reader, part);
    }
    let sealed = seal::trace(data);
    if sealed != data
        && let Ok(reader) = TraceReader::from_file(file_of(&sealed), path)
    {
        analyze_parts(&reader, part);
    }
}

/// Frames of events: decodes every payload of a trace, without the file around it, and one that
/// is the whole input. What could be decoded is encoded anew and must come back.
pub fn target_frame(data: &[u8]) {
    let mut unpacker = Default::default();
    for payload in seal::payloads(data).into_iter().chain([data]) {
        let Ok(frame) = Frame::open(payload, &mut unpacker) else {
            continue;
        };
        let mut segments = Vec::new();
        for (n, entry) in frame.segments.iter().enumerate() {
            let Ok(calls) = frame.calls(n) else {
                continue;
            };
            assert_eq!(calls.len() as u64, entry.count);
            segments.push(Segment {
                thread: entry.thread,
                first_ordinal: entry.first_ordinal,
                calls,
            });
        }
        let window = Window {
            process: frame.process,
            segments,
        };
        let encoded = WindowEncoder::new().encode(&window);
        let mut at = 0;
        let mut back = Vec::new();
        for entry in &encoded.entries {
            let end = at + entry.bytes as usize;
            let payload = &encoded.bytes[at + rmtrace_file::frame::HEADER_BYTES..end];
            let frame = Frame::open(payload, &mut unpacker).expect("what we encode is whole");
            for n in 0..frame.segments.len() {
                back.extend(frame.calls(n).expect("what we encode can be decoded"));
            }
            at = end;
        }
        let calls: Vec<_> = window.segments.into_iter().flat_map(|s| s.calls).collect();
        assert_eq!(calls, back, "calls differ after another encoding");
    }
}

/// Records: decoding ends, moves forward, and what it finds is encoded to the same.
pub fn target_records(data: &[u8]) {
    let (base, bytes) = match data.split_first_chunk::<8>() {
        Some((base, bytes)) => (u64::from_le_bytes(*base), bytes),
        None => (0, data),
    };
    let mut records = Records::new(bytes, base);
    let mut out = [0; RECORD_BYTES_MAX];
    loop {
        let (before, base_before) = (records.offset(), records.base());
        let Some(item) = records.next() else { break };
        assert!(records.offset() > before && records.offset() <= bytes.len());
        let Ok(item) = item else {
            assert!(records.next().is_none(), "records behind a damaged one");
            break;
        };
        let again = Records::resume(bytes, before, base_before).next();
        assert_eq!(again, Some(Ok(item)), "resumed, it reads differently");
        if let Item::Call(record) = item
            && let Some(length) = encode(&record, records.base(), &mut out)
        {
            assert_eq!(length % UNIT_BYTES, 0);
            let back = Records::new(&out[..length], records.base()).next();
            assert_eq!(back, Some(Ok(item)), "encoded anew, it reads differently");
        }
    }
}

/// Run directories: spools, appended chunks, the journal and a trace that was begun, made of the
/// input's pieces ([`pieces`]), are packed. What comes out is a whole trace.
pub fn target_run(data: &[u8]) {
    let pieces = Pieces::parse(data);
    let packed = SCENE.with_borrow_mut(|scene| {
        scene.set(&pieces);
        let options = PackOptions {
            anonymous: pieces.anonymous,
            begun: scene.begun(),
        };
        pack(scene.path(), Vec::new(), &options, &mut |_| {})
    });
    let Ok((bytes, report)) = packed else { return };
    let reader = TraceReader::from_file(file_of(&bytes), Path::new("packed"))
        .expect("what was packed is a trace");
    assert_eq!(reader.damage(), &[], "what was packed is damaged");
    assert_eq!(reader.calls(), report.calls);
    assert!(read_all(&reader), "what was packed can't be read");
    let mut writer =
        TraceWriter::new(Vec::new(), reader.info(), reader.tick_ns()).expect("in memory");
    let mut scratch = FrameScratch::default();
    for entry in reader.frames() {
        reader
            .frame(entry, &mut scratch)
            .expect("a frame of our own");
        writer
            .frame(&reader.raw_frame(entry).expect("a frame of our own"))
            .expect("in memory");
    }
}

/// Fails for inputs whose ninth byte is odd and above 1: proof that failures are seen.
pub fn target_fails_on_purpose(data: &[u8]) {
    let ninth = data.get(8).copied().unwrap_or(0);
    assert!(ninth < 2 || ninth % 2 == 0, "this target fails on purpose");
}

/// Does not return for the inputs that [`target_fails_on_purpose`] fails for.
pub fn target_hangs_on_purpose(data: &[u8]) {
    while data
        .get(8)
        .is_some_and(|ninth| *ninth > 1 && ninth % 2 == 1)
    {
        std::hint::spin_loop();
    }
}
