//! What passes between the replay and its workers: a task on the command line, an outcome in a file.

use crate::own::Own;
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
    /// Resident memory.
    Memory(Option<CompactAt>),
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
    /// What is measured.
    pub round: Round,
    /// How fast a memory round goes.
    pub pace: Pace,
    /// How blocks are touched.
    pub touched: Touched,
    /// When blocks are locked.
    pub lock: Lock,
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
    /// What an allocator with handles counted by itself until the last operation.
    pub own: Option<Own>,
    /// Of a memory round.
    pub memory: Option<Memory>,
}

/// Resident memory over recorded time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Where the figures are from.
    pub source: String,
    /// Resident bytes at each point.
    pub resident_bytes: Vec<u64>,
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
