//! The report of a replay, and its JSON form (schema 1). `docs/replay.md` defines every key.

use crate::distribution::{ClockReport, LatencyReport};
use crate::figure::{Figure, Ratio};
use crate::fragmentation::{Internal, JohnstoneWilson, PageUse};
use crate::own::Own;
use crate::program::Facts;
use crate::scores::Score;
use crate::task::Compaction;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;
/// Bytes of overhead a block that the second bound allows.
pub const OVERHEAD_BYTES: u64 = 12;

/// Live bytes above the recorded ones, over their peak, up to which memory can be compared.
pub const EXCESS_SHARE_MAX: f64 = 0.02;

/// What a replay found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The trace.
    pub trace: Trace,
    /// How it was replayed.
    pub settings: Settings,
    /// Where.
    pub machine: Machine,
    /// What the program of operations holds.
    pub program: Facts,
    /// The replayer itself.
    pub replayer: Replayer,
    /// How near the replay is to the recorded run.
    pub fidelity: Fidelity,
    /// The allocators, in the order they were named.
    pub allocators: Vec<AllocatorReport>,
    /// Those that could not be loaded, and why.
    pub missing: Vec<Missing>,
    /// Recorded memory over time.
    pub series: Series,
}

/// The trace.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Trace {
    /// Its file name.
    pub name: String,
    /// Number of the process.
    pub process: u32,
    /// What the process is called.
    pub title: String,
    /// Processes in the trace.
    pub processes: u64,
    /// Recorded time of the process in nanoseconds.
    pub duration_ns: u64,
}

/// How it was replayed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Settings {
    /// `one`: the merged order, in one thread; `real`: each recorded thread is a thread.
    pub threads: &'static str,
    /// In real threads: operations of the merged order that a thread may be ahead of another one at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
    /// Of memory rounds. `flat`: as fast as it goes; `recorded`: no faster than the recorded process.
    pub pace: &'static str,
    /// Rounds that were timed.
    pub rounds: u32,
    /// Rounds in which single operations were timed.
    pub latency_rounds: u32,
    /// Durations ranked for the scores: of every so-manieth operation; absent without them.
    pub scored_every: Option<u64>,
    /// `none`, `first`, `all` or `check`.
    pub touch: String,
    /// When blocks behind handles are locked.
    pub lock: String,
}

/// Where it was replayed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Processors that may be used.
    pub processors: usize,
    /// Release of Linux.
    pub kernel: String,
    /// When the system gives huge pages: `always`, `madvise`, `never`.
    pub huge_pages: String,
    /// Version of rmtrace.
    pub rmtrace: String,
}

/// The replayer itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Replayer {
    /// Its own cost an operation, touching included: the median of `null`. Absent without it.
    pub ns_per_op: Option<f64>,
    /// The same in CPU time.
    pub cpu_ns_per_op: Option<f64>,
    /// The clock of latency rounds; absent without them.
    pub clock: Option<ClockReport>,
    /// Events read a second while the program was made; absent if it was there.
    pub prepared_events_per_s: Option<f64>,
}

/// How near the replay is to the recorded run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Fidelity {
    /// Live bytes.
    pub live_bytes: LiveBytes,
    /// `merged`: the recorded order of all threads; `dependencies`: that of each thread, and of each block's operations.
    pub order: &'static str,
    /// Of real threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<Together>,
    /// Allocations at addresses freed just before, as recorded.
    pub reuse: RecordedReuse,
    /// Resident memory as recorded beside that of the replayed C library; absent without samples.
    pub resident: Option<ResidentFidelity>,
}

/// What keeps real threads in order.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Together {
    /// Recorded threads that have operations.
    pub threads: u64,
    /// Most of them at once, recorded and replayed.
    pub at_once: u64,
    /// Operations on a block whose latest operation was another thread's: all are kept behind it.
    pub dependencies: u64,
    /// Waits in the program that keep them where nothing else does.
    pub waits: u64,
    /// Words of the program over operations.
    pub words_per_op: f64,
    /// Moments of the merged order at which all threads meet, in every round.
    pub cuts: u64,
    /// Operations of the merged order that a thread can be ahead of another one: the most between two cuts.
    pub lead_max: u64,
}

/// What threads waited for each other on one allocator. Medians of the timed rounds; the excess is of the memory round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Waiting {
    /// Wall time of the whole round over operations, waits and meetings included.
    pub elapsed_ns_per_op: f64,
    /// Waits for what was not done yet, over operations.
    pub waiting_share: f64,
    /// Times that a thread slept in them, over operations.
    pub sleeping_share: f64,
    /// Wall time of these waits, of all threads, over operations.
    pub wait_ns_per_op: f64,
    /// CPU time of waits and meetings over operations: in no other figure.
    pub other_cpu_ns_per_op: f64,
    /// Most live bytes above those recorded at most from one meeting to the next.
    pub excess_live_bytes: u64,
    /// Over the peak of live bytes.
    pub excess_share: f64,
    /// Whether that is at most [`EXCESS_SHARE_MAX`].
    pub memory_is_comparable: bool,
}

/// Shares of all allocations.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReuseReport {
    /// At the address of the latest free.
    pub last: f64,
    /// At the address of one of the 16 latest frees.
    pub recent: f64,
}

/// Shares of all recorded allocations.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RecordedReuse {
    /// After the latest free of any thread: what the replay in one thread is to be compared with.
    #[serde(flatten)]
    pub merged: ReuseReport,
    /// After the latest free of the same thread.
    pub in_thread: ReuseReport,
}

/// Recorded and replayed resident memory.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ResidentFidelity {
    /// Samples that the recording took of the process.
    pub samples: u64,
    /// The most anonymous memory in one, program data and stacks included.
    pub recorded_peak_bytes: u64,
    /// The peak of `system` here, if it was replayed.
    pub system_peak_bytes: Option<u64>,
}

/// Live bytes of the replays against the recorded ones.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveBytes {
    /// Points compared, of all allocators.
    pub points: u64,
    /// Points at which they differed: 0, or the replay failed.
    pub differing: u64,
}

/// An allocator.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AllocatorReport {
    /// As the user named it, settings included.
    pub name: String,
    /// Environment variables that change it, where they are set: for all, or for this row.
    pub environment: BTreeMap<String, String>,
    /// What it says of its version.
    pub version: String,
    /// The library's file name.
    pub file: String,
    /// `linked`, `opened` or `preloaded`.
    pub loaded: &'static str,
    /// Wall time an operation; in real threads the CPU time of the threads, waits not included.
    pub ns_per_op: Figure,
    /// CPU time of the process an operation, threads of the allocator included.
    pub cpu_ns_per_op: Figure,
    /// Wall time an operation above that of `null`.
    pub over_null_ns_per_op: Option<f64>,
    /// Of real threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<Waiting>,
    /// Wall time an operation over that of the reference, the first allocator named that is not `null`.
    pub relative: Option<Ratio>,
    /// Durations of single operations; absent without latency rounds.
    pub latency_ns: Option<LatencyReport>,
    /// Ranks among all allocators; not of `null`, nor without latency rounds.
    pub scores: Option<AllocatorScores>,
    /// Allocations at addresses freed just before; not of `null`.
    pub reuse: Option<ReuseReport>,
    /// System calls of one round by name, `others` and `total` among them; absent where tracing is refused.
    pub system_calls: Option<BTreeMap<&'static str, u64>>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_calls_why: Option<String>,
    /// Instructions in user space an operation as the processor counts them, the median of the timed rounds.
    pub instructions_per_op: Option<f64>,
    /// The same as callgrind counts them, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callgrind: Option<CallgrindReport>,
    /// Page faults of a timed round, the median.
    pub page_faults: u64,
    /// Of them those that read from disk, in all rounds.
    pub major_faults: u64,
    /// What rmalloc counted by itself in a timed round until the last operation: in the round with the longest pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<Own>,
    /// Time in compaction over the time of all operations, the median of the timed rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction_share: Option<f64>,
    /// Resident memory; absent for `null`.
    #[serde(flatten)]
    pub memory: Option<MemoryReport>,
}

/// How an allocator ranks among all but `null`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AllocatorScores {
    /// By the duration of operations, in nanoseconds: all of them.
    pub all: Score,
    /// Allocations.
    pub malloc: Score,
    /// Resizes.
    pub realloc: Score,
    /// Frees.
    pub free: Score,
    /// By resident less live bytes at the 1,000 points, in bytes.
    pub space: Score,
}

/// What callgrind counted of all operations.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CallgrindReport {
    /// Instructions an operation, the replayer's own included.
    pub instructions_per_op: f64,
    /// Less those of `null`, if it was replayed.
    pub over_null_per_op: Option<f64>,
    /// Functions of the allocator, where its symbols are there.
    pub functions: BTreeMap<&'static str, CallgrindFunction>,
}

/// A function, what it calls included.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CallgrindFunction {
    /// Calls.
    pub calls: u64,
    /// Instructions a call.
    pub instructions_per_call: f64,
}

/// Resident memory of an allocator.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemoryReport {
    /// Where the figures are from.
    pub resident_source: String,
    /// The most, at the points, the peak of live bytes and the end.
    pub peak_resident_bytes: u64,
    /// Over the peak of live bytes.
    pub peak_resident_over_live: f64,
    /// Over the blocks live at that peak, rounded up to 16, with [`OVERHEAD_BYTES`] each.
    pub peak_resident_over_rounded: f64,
    /// Mean over recorded time.
    pub mean_resident_bytes: u64,
    /// Sum over time over that of live bytes.
    pub mean_resident_over_live: f64,
    /// Sum over time over that of live blocks rounded up to 16, with [`OVERHEAD_BYTES`] each.
    pub mean_resident_over_rounded: f64,
    /// After the last operation.
    pub end_resident_bytes: u64,
    /// The same less live bytes.
    pub end_resident_less_live_bytes: i64,
    /// In huge pages, when most was resident.
    pub huge_page_bytes: u64,
    /// What loading the library took, which is in none of these.
    pub loading_bytes: u64,
    /// Usable bytes that nobody asked for; absent where the allocator does not tell.
    pub internal_fragmentation: Option<Internal>,
    /// The pages that live blocks lie on, at 20 points; empty unless every page of each block is touched.
    pub page_use: Vec<PageUse>,
    /// Resident over live bytes in four ways.
    pub johnstone_wilson: JohnstoneWilson,
    /// Of `resident_bytes` those in huge pages; 0 where the counters are read.
    pub huge_bytes: Vec<u64>,
    /// A full compaction that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction: Option<CompactionReport>,
    /// At each point of `series.time_ns`.
    pub resident_bytes: Vec<u64>,
}

/// A full compaction.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CompactionReport {
    /// What was seen.
    #[serde(flatten)]
    pub seen: Compaction,
    /// Resident after it over live bytes.
    pub after_over_live: f64,
    /// Resident after it over live blocks rounded up to 16, with [`OVERHEAD_BYTES`] each.
    pub after_over_rounded: f64,
}

/// An allocator that could not be loaded.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Missing {
    /// As the user named it.
    pub name: String,
    /// Why, and what to install.
    pub why: String,
}

/// Recorded memory over time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Series {
    /// Nanoseconds since the run's first record.
    pub time_ns: Vec<u64>,
    /// Live bytes.
    pub live_bytes: Vec<u64>,
    /// Live blocks.
    pub live_blocks: Vec<u64>,
    /// Live bytes, each block rounded up to 16.
    pub live_rounded_bytes: Vec<u64>,
}
