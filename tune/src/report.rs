//! What a search found: the report as `--json` has it, schema 1 (`docs/tuning.md`).

use crate::bench::Subject;
use crate::score::{Estimate, Limits};
use rmtrace_replay::report::Machine;
use serde::Serialize;

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// The report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// 1.
    pub schema: u32,
    /// Where, and the version.
    pub machine: Machine,
    /// What was asked for.
    pub options: Asked,
    /// The traces, those of `--test` last.
    pub traces: Vec<Traced>,
    /// How the search went.
    pub search: Course,
    /// What was chosen.
    pub result: Outcome,
    /// Each setting of `rmalloc.toml`.
    pub settings: Vec<Setting>,
    /// The best candidates, at most ten.
    pub best: Vec<Tried>,
    /// What would be chosen without a trace, and what it does there.
    pub leave_one_out: Vec<LeftOut>,
    /// All candidates, in the order in which they were tried.
    pub candidates: Vec<Tried>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// `time`, `memory` or `both`.
    pub objective: &'static str,
    /// The limits.
    pub limits: Limits,
    /// Of the numbers by chance.
    pub seed: u64,
    /// Seconds, if they were limited.
    pub time_s: Option<f64>,
    /// Touch, locks, pace.
    pub measured: String,
}

/// A trace.
#[derive(Clone, Debug, Serialize)]
pub struct Traced {
    /// Name, process, checksum.
    #[serde(flatten)]
    pub subject: Subject,
    /// Whether the search saw it; false: `--test`.
    pub searched: bool,
    /// The defaults on it.
    pub defaults: Option<Level>,
    /// The result on it.
    pub result: Option<Level>,
    /// Ratio of the result's CPU time to that of the defaults.
    pub time: Option<Estimate>,
    /// The same of memory.
    pub memory: Option<Estimate>,
    /// The same of the objective.
    pub objective: Option<Estimate>,
}

/// What a configuration does on a trace: medians of the confirming rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Level {
    /// CPU time an operation in nanoseconds, the replayer's own included.
    pub cpu_ns_per_op: f64,
    /// Sum of resident bytes over the sum of live + D.
    pub resident_over_rounded: f64,
    /// Most resident bytes.
    pub peak_resident_bytes: u64,
    /// The longest step of compaction in nanoseconds: the least of the rounds.
    pub pause_ns: Option<u64>,
    /// Bytes that compaction moved.
    pub moved_bytes: u64,
}

/// How the search went.
#[derive(Clone, Debug, Serialize)]
pub struct Course {
    /// Candidates measured, whole or in part.
    pub tried: usize,
    /// Of them those that went all the way.
    pub finished: usize,
    /// Dropped as a limit was exceeded or they failed.
    pub refused: usize,
    /// Rounds measured by this run.
    pub rounds: u64,
    /// Rounds that were in the journal.
    pub resumed_rounds: u64,
    /// `exhausted`, `time`, `candidates` or `interrupted`.
    pub ended: &'static str,
    /// What of a score is chance, as a share: two standard deviations of the defaults beside themselves.
    pub noise: f64,
}

/// What was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Settings other than the defaults, in a line.
    pub name: String,
    /// The defaults stay: nothing was better by more than noise.
    pub is_default: bool,
    /// Why, in a sentence.
    pub why: String,
    /// Rounds of their own that confirmed it.
    pub rounds: usize,
    /// Ratio of the objective to that of the defaults, over the traces of the search.
    pub objective: Option<Estimate>,
    /// The same of CPU time.
    pub time: Option<Estimate>,
    /// The same of memory.
    pub memory: Option<Estimate>,
}

/// A setting.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// `section.key`.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Its default.
    pub default: String,
    /// Values of it that were tried, the default included.
    pub tried: usize,
    /// Ratio of the objective without it (put back to its default) to that with it; null where it is the default.
    pub without: Option<Estimate>,
    /// The comment in the file.
    pub comment: String,
}

/// A candidate.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// Settings other than the defaults, in a line.
    pub name: String,
    /// Why it was tried.
    pub origin: String,
    /// Rungs that it was measured on.
    pub rungs: usize,
    /// Whether it went all the way: its ratios are of all traces.
    pub finished: bool,
    /// Ratio of the objective on the last of its rungs.
    pub objective: Option<Estimate>,
    /// The same of CPU time.
    pub time: Option<Estimate>,
    /// The same of memory.
    pub memory: Option<Estimate>,
    /// Why it went no further.
    pub dropped: Option<String>,
}

/// A trace left out.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// The trace.
    pub trace: String,
    /// What is best on the others.
    pub name: String,
    /// Ratio of its objective on the trace left out.
    pub objective: Estimate,
}
