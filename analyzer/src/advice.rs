//! The advice for a handle table, from the reports of one or more traces: pure functions, the same
//! reports always give the same advice. `docs/handle-table.md` explains each figure.

mod bits;
mod entries;
mod settings;
mod student;
mod ways;

pub use bits::{GenerationPoint, Generations, RETIRED_PART, Split};
pub use entries::{Entries, LeftOut, Method};
pub use settings::{Setting, Value, header, settings, toml};
pub use ways::{Growth, MemoryPoint, Way, WayKind};

use crate::handle_table::HANDLE_BYTES;
use crate::handles::{HandlesReport, Over};
use crate::worth::{Unused, Worth};
use serde::Serialize;

/// Number of the schema of the advice and of `rmalloc.toml`.
pub const SCHEMA: u32 = 1;
/// Bytes of a header beside a block that the size threshold reckons with, beside the handle.
pub const HEADER_BYTES: u64 = 8;

/// A process of a trace, as the advice is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// Name of the trace.
    pub trace: String,
    /// Name of the program that was recorded; the same for two traces of the same program.
    pub program: String,
    /// Number of the process in the trace.
    pub process: u32,
    /// What a person calls the process.
    pub title: String,
    /// What it asked for.
    pub handles: HandlesReport,
    /// Most pages of 4 KiB that held a live block, where a measure of pages tells.
    pub pages_held_peak: Option<u64>,
    /// Bytes of held pages that blocks did not use, by the sizes of [`HandlesReport::sizes`].
    pub unused: Option<Vec<Unused>>,
}

/// What the advice is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// R: bytes of memory.
    pub memory: Option<u64>,
    /// P: the chance that a run needs more entries, in millionths.
    pub risk_ppm: Option<u64>,
}

/// A trace that the advice was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Its name.
    pub trace: String,
    /// The recorded program.
    pub program: String,
    /// Number of the process.
    pub process: u32,
    /// What a person calls the process.
    pub title: String,
    /// Most entries in use at once.
    pub entries_peak: u64,
    /// Blocks born.
    pub births: u64,
    /// From the start of the process to its end.
    pub duration_ns: u64,
}

/// The advice.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Advice {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The traces.
    pub sources: Vec<Source>,
    /// Place in `sources` of the trace with the highest peak (the first of equals): figures of a
    /// single process are of it.
    pub reference: usize,
    /// Whether all are traces of one program.
    pub same_program: bool,
    /// How many entries.
    pub entries: Entries,
    /// The ways to hold handles.
    pub ways: Vec<Way>,
    /// Time and births above a number of entries.
    pub overflow: Vec<Over>,
    /// The most blocks that a memory holds.
    pub memory: Vec<MemoryPoint>,
    /// R, where it was given.
    pub memory_bytes: Option<u64>,
    /// Generations.
    pub generations: Generations,
    /// The bits of entry and handle.
    pub split: Split,
    /// Segments of a growing table.
    pub growth: Growth,
    /// Which blocks are worth a handle.
    pub worth: Worth,
}

impl Advice {
    /// Makes the advice; `None` without a subject.
    pub fn new(subjects: &[Subject], wanted: Wanted) -> Option<Advice> {
        let highest = subjects.iter().map(|subject| subject.handles.entries_peak);
        let highest = highest.max()?;
        let is_highest = |subject: &Subject| subject.handles.entries_peak == highest;
        let reference = subjects.iter().position(is_highest)?;
        let of = &subjects[reference];
        let same_program = subjects.iter().all(|subject| subject.program == of.program);
        let entries = Entries::new(subjects, same_program, wanted.risk_ppm);
        let generations = Generations::new(subjects, entries.entries);
        let split = Split::new(entries.entries, generations.bits, wanted.memory);
        Some(Advice {
            schema: SCHEMA,
            sources: subjects.iter().map(source).collect(),
            reference,
            same_program,
            ways: ways::ways(of, entries.entries),
            overflow: of.handles.overflow.clone(),
            memory: ways::memory(&of.handles, wanted.memory),
            memory_bytes: wanted.memory,
            growth: Growth::new(subjects, entries.entries),
            worth: Worth::new(
                &of.handles.sizes,
                of.unused.as_deref(),
                HANDLE_BYTES + HEADER_BYTES,
            ),
            entries,
            generations,
            split,
        })
    }

    /// The way that is advised.
    pub fn way(&self) -> WayKind {
        ways::advised(&self.ways)
    }

    /// The trace with the highest peak.
    pub fn reference(&self) -> Option<&Source> {
        self.sources.get(self.reference)
    }
}

fn source(subject: &Subject) -> Source {
    Source {
        trace: subject.trace.clone(),
        program: subject.program.clone(),
        process: subject.process,
        title: subject.title.clone(),
        entries_peak: subject.handles.entries_peak,
        births: subject.handles.births,
        duration_ns: subject.handles.duration_ns,
    }
}

#[cfg(test)]
pub(crate) mod tests;
