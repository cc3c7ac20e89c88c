//! What a trace holds, apart from how it is stored: processes, threads, calls, marks, samples.

use rmtrace_format::chunk::Counters;
use rmtrace_format::event::Entry;
use rmtrace_format::record;
use rmtrace_format::spool;

/// Time unit of stored times in nanoseconds, unless the writer is told otherwise.
pub const TICK_NS_DEFAULT: u64 = 25;

/// How a process came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartedBy {
    /// The command that was recorded, or a process whose parent was not recorded.
    #[default]
    Root,
    /// Fork without exec of a recorded process ([`Process::parent`]); inherits its live blocks.
    Fork,
    /// Exec in place: the process [`Process::parent`] became this one, same pid.
    Exec,
    /// Started by a recorded process through vfork, posix_spawn, or a fork that made no recorded call
    /// before its exec.
    Spawn,
}

/// How a process ended, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ended {
    /// Not seen: it still ran when the recording ended, or nobody looked (bare mode).
    #[default]
    Unknown,
    /// By exit or return from main, with this status where it is known.
    Exit(Option<i32>),
    /// By this signal.
    Signal(i32),
    /// Its image was replaced by an exec.
    Exec,
}

/// One recorded process: an image from its exec, or a fork, to its exit or next exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Number in the trace, from 0 in order of the starts.
    pub number: u32,
    /// Process id outside of containers and sandboxes where that is known, else as it saw itself.
    pub pid: u32,
    /// Process id as the process saw itself.
    pub pid_inside: u32,
    /// Number of the process it came from, if that is in the trace.
    pub parent: Option<u32>,
    /// How it started.
    pub started_by: StartedBy,
    /// Thread of the parent that forked (with [`StartedBy::Fork`]).
    pub parent_thread: u32,
    /// Short name: base name of the program.
    pub name: String,
    /// What it does in its program: `main`, `tab`, `gpu-process`, `zygote` ...; empty where unknown.
    pub role: String,
    /// Path of the executable; empty in anonymous traces.
    pub program: String,
    /// Command line as last seen; empty in anonymous traces.
    pub arguments: Vec<String>,
    /// First stamp, in ticks.
    pub started: u64,
    /// End, in ticks; the last stamp where the end was not seen.
    pub ended_at: u64,
    /// How it ended.
    pub ended: Ended,
    /// With [`StartedBy::Fork`]: calls of each of the parent's threads before the fork. Threads below
    /// `parent_threads` that are not listed had ended before it; other threads began later.
    pub fork_positions: Vec<(u32, u64)>,
    /// With [`StartedBy::Fork`]: threads that the parent had started before the fork.
    pub parent_threads: u32,
    /// Its threads, by number.
    pub threads: Vec<Thread>,
    /// Calls dropped by reason ([`spool::Drop`]).
    pub dropped: [u64; spool::Drop::COUNT],
    /// Times a thread waited for the collector, and nanoseconds waited in all.
    pub waits: (u64, u64),
    /// Entries (bit = entry number) that were seen by symbol interposition, by patching, and refused.
    pub hooks: Hooks,
    /// `FLAG_...` of [`spool`].
    pub flags: u32,
    /// Measured cost of recording one call in picoseconds; 0 where not measured.
    pub cost_ps: u64,
}

/// How each entry was hooked; bit = entry number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Through symbol interposition.
    pub interposed: u64,
    /// Through a patched function.
    pub detoured: u64,
    /// Could not be patched.
    pub refused: u64,
}

/// One thread and what it counted itself, apart from its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Number in its process, from 0 in order of the first recorded calls.
    pub number: u32,
    /// The kernel's thread id as the process saw it.
    pub tid: u32,
    /// Name, where known.
    pub name: String,
    /// Chunks it handed over; their sequence numbers were 0 to this, without gaps.
    pub chunks: u32,
    /// Chunks missing from the sequence.
    pub chunks_missing: u32,
    /// What the thread counted in shared memory.
    pub counters: Counters,
    /// Whether `counters` may be one call behind the records (the thread was killed in a call).
    pub counters_may_lag: bool,
    /// Sum (modulo 2^64) of the stored ticks of all calls (both stamps of a realloc), formed when
    /// stamps were converted.
    pub tick_sum: u64,
}

/// A call with its stamps in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function.
    pub entry: Entry,
    /// Binary logarithm of the alignment, or 0.
    pub align_log2: u8,
    /// Realloc that returned NULL and ended its block.
    pub freed: bool,
    /// Block returned or freed; of a realloc the old block.
    pub address: u64,
    /// Of a realloc, the block returned; else 0.
    pub new_address: u64,
    /// Requested bytes; 0 for frees.
    pub requested_bytes: u64,
    /// Stamp in ticks; of a realloc the one before it.
    pub tick: u64,
    /// Of a realloc the stamp after it; else equal to `tick`.
    pub tick_end: u64,
    /// Return address, or 0.
    pub caller: u64,
    /// Usable bytes, or 0.
    pub usable_bytes: u64,
}

/// Something that happened beside the calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When, in ticks.
    pub tick: u64,
    /// Process it belongs to.
    pub process: u32,
    /// Thread it belongs to.
    pub thread: u32,
    /// Calls of that thread before it.
    pub ordinal: u64,
    /// `MARK_...` of [`rmtrace_format::record`].
    pub number: u32,
    /// Arena, calls dropped ...
    pub value: u64,
    /// Name, for marks that have one.
    pub name: String,
}

impl Mark {
    /// A mark of the run at `tick`.
    pub fn of_run(tick: u64, number: u64, name: &str) -> Mark {
        Mark {
            tick,
            process: 0,
            thread: 0,
            ordinal: 0,
            number: number as u32,
            value: 0,
            name: name.to_owned(),
        }
    }

    /// Whether it is of the run: its process and thread are 0 and say nothing then.
    pub fn is_of_run(&self) -> bool {
        matches!(
            u64::from(self.number),
            record::MARK_SUSPEND | record::MARK_START | record::MARK_STOP | record::MARK_RUN
        )
    }

    /// Whether somebody set it to name a moment: the program, or a person from outside.
    pub fn is_named(&self) -> bool {
        matches!(
            u64::from(self.number),
            record::MARK_NAMED | record::MARK_RUN
        )
    }

    /// Whether it is an end of a pause: calls may be missing between a stop and the next start.
    pub fn is_pause(&self) -> bool {
        matches!(
            u64::from(self.number),
            record::MARK_START | record::MARK_STOP
        )
    }
}

/// Resident memory of a process, taken from outside; the spool's own pages are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When, in ticks.
    pub tick: u64,
    /// Process.
    pub process: u32,
    /// Resident anonymous bytes.
    pub anonymous_bytes: u64,
    /// Resident file-backed bytes.
    pub file_bytes: u64,
    /// Resident shared-memory bytes, our spool left out.
    pub shared_bytes: u64,
    /// Virtual bytes, our spool left out.
    pub virtual_bytes: u64,
}

/// A part of a thread's stream: its calls `first_ordinal..first_ordinal + calls.len()`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Thread in its process.
    pub thread: u32,
    /// Calls of the thread before this segment.
    pub first_ordinal: u64,
    /// The calls, in the order of the stream.
    pub calls: Vec<Call>,
}

/// What becomes one frame: segments of the threads of one process in a window of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Process.
    pub process: u32,
    /// At most one segment a thread, ordered by thread.
    pub segments: Vec<Segment>,
}

/// What is said of the whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunInfo {
    /// Command line of the recorded command; empty in anonymous traces.
    pub command: Vec<String>,
    /// CLOCK_REALTIME of tick 0, nanoseconds since 1970; 0 in anonymous traces.
    pub realtime_ns: u64,
    /// Version of rmtrace that wrote the trace.
    pub writer: String,
    /// Processor model; empty where unknown.
    pub machine: String,
    /// Whether a collector ran (`rmtrace record`) or the trace was packed from the bare mode.
    pub collected: bool,
    /// Whether stamps came from CLOCK_MONOTONIC instead of the TSC in any process.
    pub monotonic_clock: bool,
    /// Notes for the reader of a report (static children, refused hooks, a pool on disk ...).
    pub notes: Vec<String>,
    /// The place of the file in a recording of several files.
    pub part: Part,
    /// The size at which recording stopped for good while the program went on; 0: it did not.
    pub stopped_at_bytes: u64,
}

impl RunInfo {
    /// What has to be said first: the trace is not the whole of the run.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.part.number > 0 {
            remarks.push("begins within the recording".to_owned());
        }
        if self.part.goes_on {
            remarks.push("goes on in the next file".to_owned());
        }
        if self.stopped_at_bytes > 0 {
            remarks.push(format!(
                "stopped at its limit of {} bytes",
                self.stopped_at_bytes
            ));
        }
        remarks
    }
}

/// A file's place in a recording whose trace is a sequence of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The same in all files of the recording; 0: the trace is one file.
    pub recording: u64,
    /// Files of the recording before this one; of several that are read as one trace, before the first.
    pub number: u32,
    /// Whether the recording goes on in the file of the next number.
    pub goes_on: bool,
}
