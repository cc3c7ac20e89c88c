//! What a measurement of one configuration on one trace is, and who makes it. A search knows nothing of replays: in
//! tests a function with a known optimum stands in their place.

use crate::error::TuneError;
use rmalloc::config::Config;
use serde::{Deserialize, Serialize};

/// A trace to measure on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The file's name.
    pub name: String,
    /// The process, in words.
    pub title: String,
    /// Number of the process in the trace.
    pub process: u32,
    /// What tells this trace and process from others: hexadecimal CRC-32.
    pub checksum: String,
    /// Points of recorded time: [`Part::points`] may be fewer.
    pub points: u64,
    /// Operations that reach the allocator.
    pub operations: u64,
    /// How long a round of all points takes, in nanoseconds, about.
    pub round_ns: u64,
}

/// A configuration and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it has other than the defaults: [`crate::space::Space::name`]. Two with the same name are the same.
    pub name: String,
    /// The settings; they were checked.
    pub config: Config,
}

/// Which part of which trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// Place among the subjects.
    pub subject: usize,
    /// Up to this one of its points.
    pub points: u64,
}

/// One round: resident memory once, and CPU time in turn with the defaults.
///
/// `cpu_ns` and `reference_cpu_ns` are net: without compaction and without page faults (at
/// [`crate::replayed::FAULT_NS`]), which depend on the pace and are in `paced_ns`, from the round that looks at memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Sum of resident bytes over the sum of live blocks, rounded up to 16 with 12 bytes for each.
    pub resident_over_rounded: f64,
    /// Most resident bytes.
    pub peak_resident_bytes: u64,
    /// CPU time of all operations in nanoseconds, net, each time.
    pub cpu_ns: Vec<f64>,
    /// The same of the defaults, measured in turn.
    pub reference_cpu_ns: Vec<f64>,
    /// Time of compaction and of page faults in nanoseconds.
    pub paced_ns: f64,
    /// Bytes that compaction moved.
    pub moved_bytes: u64,
    /// Bytes that it gave back.
    pub released_bytes: u64,
    /// The longest step in nanoseconds, in the round that looks at memory. `None`: the library does not tell.
    pub pause_ns: Option<u64>,
}

/// Why there is no sample.
#[derive(Debug)]
pub enum Refusal {
    /// The configuration can't do the work.
    Failed(String),
    /// The time is over, or the user interrupted.
    Stopped,
    /// The search can't go on.
    Fatal(TuneError),
}

/// Measures.
pub trait Bench {
    /// The traces.
    fn subjects(&self) -> &[Subject];

    /// One round. What is measured may differ between rounds, and is by chance in part.
    ///
    /// # Errors
    /// When the configuration fails; when the user interrupts; when nothing can be measured.
    fn measure(&mut self, candidate: &Candidate, part: Part, round: u32)
    -> Result<Sample, Refusal>;
}
