//! The report of a replay, and its JSON form (schema 1). `docs/replay.md` defines every key.

use crate::figure::Figure;
use crate::own::Own;
use crate::program::Facts;
use crate::task::Compaction;
use serde::Serialize;

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;
/// Bytes of overhead a block that the second bound allows.
pub const OVERHEAD_BYTES: u64 = 12;

/// What a replay found.
#[derive(Clone, Debug, Serialize)]
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
    /// `one`: the merged order, in one thread.
    pub threads: &'static str,
    /// Of memory rounds. `flat`: as fast as it goes; `recorded`: no faster than the recorded process.
    pub pace: &'static str,
    /// Rounds that were timed.
    pub rounds: u32,
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
    /// Events read a second while the program was made; absent if it was there.
    pub prepared_events_per_s: Option<f64>,
}

/// How near the replay is to the recorded run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Fidelity {
    /// Live bytes.
    pub live_bytes: LiveBytes,
    /// `merged`: the recorded order of all threads.
    pub order: &'static str,
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
    /// As the user named it.
    pub name: String,
    /// What it says of its version.
    pub version: String,
    /// The library's file name.
    pub file: String,
    /// `linked`, `opened` or `preloaded`.
    pub loaded: &'static str,
    /// Wall time an operation.
    pub ns_per_op: Figure,
    /// CPU time of the process an operation, threads of the allocator included.
    pub cpu_ns_per_op: Figure,
    /// Wall time an operation above that of `null`.
    pub over_null_ns_per_op: Option<f64>,
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
