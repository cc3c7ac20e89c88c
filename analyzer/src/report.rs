//! The report: JSON schema 1. Every key is explained in `docs/analysis.md`. All numbers are exact
//! integers.

use crate::counts::{Dropped, Events};
use crate::cross_thread::Frees;
use crate::handle_table::HandleTable;
use crate::handles::HandlesReport;
use crate::histogram::SizeBin;
use crate::invisible::Invisible;
use crate::lifetime::{LifetimeBySize, LifetimeReport, MacroLifetime};
use crate::live::{Mean, Peak};
use crate::realloc::Reallocs;
use crate::resident::Resident;
use crate::series::Curve;
use serde::Serialize;

/// Number of the JSON schema.
pub const SCHEMA: u32 = 1;

/// Blocks by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blocks {
    /// Allocated by the process.
    pub allocated: u64,
    /// Freed by the process, inherited ones included.
    pub freed: u64,
    /// Allocated by the process and not freed by it by its end.
    pub never_freed: u64,
    /// Live at the fork that the process began with.
    pub inherited: u64,
    /// Held by the process when it ended by exit, signal or exec within the run.
    pub released: u64,
    /// Held by the process when the run ended.
    pub live_at_end: u64,
    /// Ended unseen: their address was given out again, by a live duplicate or after a pause.
    pub displaced: u64,
    /// Of them, those displaced after recording had been paused: they ended in a pause.
    pub lost_in_pause: u64,
}

/// Bytes, as requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Asked for and got: sizes of allocations and what resizes added. The bytes clock.
    pub requested: u64,
    /// Of blocks when they were freed.
    pub freed: u64,
    /// What resizes took away.
    pub shrunk: u64,
    /// Greatest live bytes.
    pub peak_live: u64,
    /// Held when the run ended.
    pub live_at_end: u64,
    /// Held in blocks that the process allocated and did not free by its end.
    pub never_freed: u64,
    /// Inherited.
    pub inherited: u64,
    /// Held when the process ended within the run.
    pub released: u64,
    /// Of blocks when they were displaced.
    pub displaced: u64,
}

/// Whether the figures agree with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checks {
    /// `inherited + allocated = freed + displaced + released + live_at_end` holds for each process,
    /// what lives being counted in the table of addresses.
    pub blocks: bool,
    /// `inherited + requested = freed + shrunk + displaced + released + live_at_end` in bytes, too.
    pub bytes: bool,
    /// The kinds sum to the total.
    pub events: bool,
}

impl Checks {
    /// Whether all hold.
    pub fn all(&self) -> bool {
        self.blocks && self.bytes && self.events
    }
}

/// The figures of a process or of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Calls.
    pub events: Events,
    /// Blocks.
    pub blocks: Blocks,
    /// Bytes.
    pub bytes: Bytes,
    /// Peaks.
    pub peak: Peak,
    /// Means over time.
    pub mean: Mean,
    /// Blocks by first size.
    pub size_histogram: Vec<SizeBin>,
    /// Lifetimes.
    pub lifetime: LifetimeReport,
    /// Lifetimes as shares of the run.
    pub macro_lifetime: MacroLifetime,
    /// Lifetimes by first size.
    pub lifetime_by_size: Vec<LifetimeBySize>,
    /// How blocks ended.
    pub frees: Frees,
    /// Resizes.
    pub realloc: Reallocs,
    /// Handles.
    pub handle_table: HandleTable,
    /// What a handle table would see; for the run, of the process of `handle_table`.
    pub handles: HandlesReport,
    /// Live blocks and bytes over time.
    pub live: Curve,
    /// Resident memory; `null` where no samples were taken.
    pub resident: Option<Resident>,
    /// Whether the figures agree.
    pub checks: Checks,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessReport {
    /// Number in the trace.
    pub number: u32,
    /// Process id.
    pub pid: u32,
    /// Name of the program.
    pub name: String,
    /// What it does in its program; empty where unknown.
    pub role: String,
    /// Number of the process it came from.
    pub parent: Option<u32>,
    /// `root`, `fork`, `exec` or `spawn`.
    pub started_by: &'static str,
    /// `unknown`, `exit`, `signal` or `exec`.
    pub ended_by: &'static str,
    /// Exit status or signal, where known.
    pub ended_status: Option<i32>,
    /// Recorded threads.
    pub threads: u64,
    /// First record, in nanoseconds since the run's first.
    pub start_ns: u64,
    /// End of the process, or of the run.
    pub end_ns: u64,
    /// From its start to its end.
    pub duration_ns: u64,
    /// Its live blocks, inherited ones left out, when those of the run were most.
    pub live_blocks_at_run_peak: u64,
    /// Its live bytes, inherited ones left out, when those of the run were most.
    pub live_bytes_at_run_peak: u64,
    /// Calls that were dropped, by reason.
    pub dropped: Vec<Dropped>,
    /// Measured cost of recording a call in its threads, in picoseconds; 0 where not measured.
    pub cost_ps: u64,
    /// Resident memory that no recorded call accounts for; `null` where it can't be said.
    pub invisible: Option<Invisible>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Something that happened beside the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MarkReport {
    /// When, in nanoseconds since the run's first record.
    pub at_ns: u64,
    /// Process.
    pub process: u32,
    /// Thread.
    pub thread: u32,
    /// Whether it is of the run; process and thread are 0 then.
    pub of_run: bool,
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: u64,
}

/// All marks, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Marks {
    /// Marks in the trace.
    pub total: u64,
    /// The first [`Marks::LISTED_MAX`].
    pub listed: Vec<MarkReport>,
}

impl Marks {
    /// Marks that are listed at most.
    pub const LISTED_MAX: usize = 100;
}

/// What the trace says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TraceReport {
    /// Its name, without directories.
    pub name: String,
    /// Recorded command; empty in anonymous traces.
    pub command: Vec<String>,
    /// When recording began, nanoseconds since 1970; 0 in anonymous traces.
    pub realtime_ns: u64,
    /// Version of rmtrace that wrote it.
    pub writer: String,
    /// Processor model.
    pub machine: String,
    /// Whether a collector ran.
    pub collected: bool,
    /// Time unit in nanoseconds.
    pub tick_ns: u64,
    /// Whether stamps came from CLOCK_MONOTONIC in any process.
    pub monotonic_clock: bool,
    /// Why it is not the whole of the run, if it is not.
    pub remarks: Vec<String>,
    /// Notes of the recording.
    pub notes: Vec<String>,
    /// What is damaged or missing; empty for a whole trace.
    pub damage: Vec<String>,
    /// Times several threads of a process had events at the same tick.
    pub ties: u64,
    /// Of these, those for which no order fits the table of addresses.
    pub ties_unresolved: u64,
}

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The trace.
    pub trace: TraceReport,
    /// Number of the one process that the figures are of, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// From the run's first record to its last.
    pub duration_ns: u64,
    /// Recorded threads of all processes.
    pub threads: u64,
    /// The figures of the run.
    #[serde(flatten)]
    pub figures: Figures,
    /// Marks.
    pub marks: Marks,
    /// Each process.
    pub processes: Vec<ProcessReport>,
}

impl Report {
    /// The report of one process alone: its figures take the place of the run's.
    pub fn of_process(mut self, number: u32) -> Option<Report> {
        self.processes.retain(|process| process.number == number);
        let process = self.processes.first()?;
        self.process = Some(number);
        self.duration_ns = process.duration_ns;
        self.threads = process.threads;
        self.figures = process.figures.clone();
        let marks = &mut self.marks.listed;
        marks.retain(|mark| mark.of_run || mark.process == number);
        Some(self)
    }

    /// Works out what fits in `bytes` of memory, for the run and each process.
    pub fn fit_memory(&mut self, bytes: u64) {
        self.figures.handle_table.fit(bytes);
        for process in &mut self.processes {
            process.figures.handle_table.fit(bytes);
        }
    }
}
