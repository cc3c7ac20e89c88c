//! What passes between the replay and its workers: a task on the command line, an outcome in a file.

use crate::latency::Latency;
use crate::own::Own;
use crate::reuse::Counts;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which allocator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The C library's.
    System,
    /// The replayer's own cost.
    Null,
    /// The linked-in rmalloc.
    Rmalloc,
    /// A shared library.
    Library {
        /// As the dynamic linker takes it.
        name: String,
        /// Whether it was preloaded.
        preloaded: bool,
    },
}

/// How much of each block is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Touched {
    /// Nothing.
    None,
    /// The first word.
    First,
    /// The first word, the last one, and one in every 4 KiB.
    All,
    /// Every byte, with a pattern that is looked at.
    Check,
}

/// When blocks behind handles are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    /// Only while they are touched.
    Touched,
    /// From birth to the end.
    Life,
    /// A share of the blocks for life, in millionths.
    Share(u32),
    /// From birth on for so many nanoseconds of recorded time.
    Alloc(u64),
    /// A share of the blocks for life, in millionths: those that live longest.
    Old(u32),
    /// While own operations outweigh others'.
    Score,
    /// When recorded accesses used them.
    Accesses,
}

impl Lock {
    /// As the command line has it, without a file.
    pub fn name(self) -> String {
        let percent = |millionths: u32| f64::from(millionths) / 10_000.0;
        match self {
            Lock::Touched => "touched".to_string(),
            Lock::Life => "life".to_string(),
            Lock::Share(millionths) => format!("share:{}%", percent(millionths)),
            Lock::Old(millionths) => format!("share:{}%,old", percent(millionths)),
            Lock::Alloc(ns) => format!("alloc:{ns}ns"),
            Lock::Score => "score".to_string(),
            Lock::Accesses => "accesses".to_string(),
        }
    }
}

/// When a full compaction is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompactAt {
    /// After the last operation.
    End,
    /// At the peak of live bytes; the round ends there.
    Peak,
}

/// How fast a memory round goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// As fast as it goes.
    Flat,
    /// No point of recorded time is reached sooner than the recorded process reached it. What an allocator gives back
    /// after a time it can give back as it would have done there.
    Recorded,
}

/// What a round is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Round {
    /// Time and page faults.
    Time,
    /// The duration of each operation.
    Latency,
    /// As `Time`, between two marks that a tracer sees.
    Calls,
    /// Nothing but what is there before the clock starts.
    Setup,
    /// Resident memory.
    Memory(Option<CompactAt>),
}

/// In how many threads a replay works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Threads {
    /// In one: the merged order.
    #[default]
    One,
    /// In as many as were recorded.
    Real,
}

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The allocator.
    pub which: Which,
    /// The program.
    pub program: PathBuf,
    /// The same with ends of locks, for an allocator with handles.
    pub locked: Option<PathBuf>,
    /// Where the outcome goes.
    pub outcome: PathBuf,
    /// Whether the programs are streams of several threads.
    pub threads: Threads,
    /// Where a latency round puts the duration of single operations, and of how many at most.
    pub durations: Option<(PathBuf, u64)>,
    /// What is measured.
    pub round: Round,
    /// How fast a memory round goes.
    pub pace: Pace,
    /// How blocks are touched.
    pub touched: Touched,
    /// When blocks are locked.
    pub lock: Lock,
    /// Only up to this one of the program's points.
    #[serde(default)]
    pub points: Option<u64>,
}

/// What a worker saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The library can't be opened, and why.
    pub load_error: Option<String>,
    /// The allocator, or the replay, failed, and how.
    pub fault: Option<String>,
    /// What the allocator says of its version.
    pub version: String,
    /// The library's file.
    pub file: String,
    /// Anonymous bytes that loading the library took.
    pub loading_bytes: u64,
    /// Wall time of all operations in nanoseconds.
    pub wall_ns: u64,
    /// CPU time of the replaying thread.
    pub thread_cpu_ns: u64,
    /// CPU time of the process.
    pub cpu_ns: u64,
    /// Page faults without reading.
    pub minor_faults: u64,
    /// Page faults with reading.
    pub major_faults: u64,
    /// Live bytes when the round ended.
    pub live_bytes: u64,
    /// Points at which live bytes were not the recorded ones.
    pub points_differing: u64,
    /// What an allocator with handles counted by itself until the last operation; after a compaction that was asked
    /// for, that one included.
    pub own: Option<Own>,
    /// Of a memory round.
    pub memory: Option<Memory>,
    /// Of a replay in several threads.
    pub waits: Option<Waits>,
    /// Of a latency round.
    pub latency: Option<Latency>,
    /// Instructions of all operations in user space, of all threads, where the machine counts them.
    pub instructions: Option<u64>,
}

/// What threads waited for each other in a round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Waits {
    /// Meetings at which live bytes were compared.
    pub meetings: u64,
    /// Waits for what was not done yet.
    pub waits: u64,
    /// Times that a thread slept in them.
    pub sleeps: u64,
    /// Wall time in them, of all threads.
    pub wall_ns: u64,
    /// CPU time in them and at meetings.
    pub cpu_ns: u64,
    /// Of a memory round: most live bytes above the recorded ones of the time.
    pub excess_bytes: u64,
}

/// Resident memory over recorded time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Where the figures are from.
    pub source: String,
    /// Resident bytes at each point.
    pub resident_bytes: Vec<u64>,
    /// Of them those in huge pages.
    pub huge_bytes_at: Vec<u64>,
    /// Usable bytes of live blocks at each point; empty: the allocator does not tell.
    pub usable_bytes: Vec<u64>,
    /// Pages of 4 KiB that hold a byte of a live block, at some points.
    pub pages: Vec<Pages>,
    /// Usable bytes of live blocks at the peak of live bytes.
    pub usable_at_peak_bytes: Option<u64>,
    /// Addresses given out again; none where blocks are not touched, behind handles.
    pub reuse: Counts,
    /// Resident bytes at the peak of live bytes.
    pub at_peak_bytes: u64,
    /// The most of all of these and the end.
    pub peak_bytes: u64,
    /// Bytes in huge pages when that was.
    pub huge_bytes: u64,
    /// Resident bytes after the last operation.
    pub end_bytes: u64,
    /// The compaction that was asked for.
    pub compaction: Option<Compaction>,
}

/// Where live blocks are at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// Number of the point.
    pub point: usize,
    /// Pages of 4 KiB that hold a byte of a live block.
    pub used: u64,
    /// Resident bytes then.
    pub resident_bytes: u64,
    /// Requested bytes of live blocks then.
    pub live_bytes: u64,
}

/// A full compaction.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Compaction {
    /// When: `end` or `peak`.
    pub at: String,
    /// Live bytes then.
    pub live_bytes: u64,
    /// Live bytes rounded up to 16 block by block.
    pub live_rounded_bytes: u64,
    /// Live blocks.
    pub live_blocks: u64,
    /// Resident bytes before.
    pub before_bytes: u64,
    /// Resident bytes after.
    pub after_bytes: u64,
    /// How long it took.
    pub wall_ns: u64,
    /// CPU time of the calling thread.
    pub cpu_ns: u64,
    /// What `rmcompact` returned.
    pub status: i32,
    /// What the allocator counted by itself, this compaction included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<Own>,
}
