//! What is known of a recording of accesses as a whole: the last frame of its file, as JSON.

use serde::{Deserialize, Serialize};

/// Of a whole recording. Every number is exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Number of the process in the trace beside the file.
    pub process: u32,
    /// File name of that trace.
    pub trace: String,
    /// Accesses of one block that are at most so many instructions apart are of one span.
    pub gap_instructions: u64,
    /// Instructions executed.
    pub instructions: u64,
    /// Recorded calls of the process.
    pub calls: u64,
    /// The same of each thread, by its number.
    pub threads: Vec<ThreadCalls>,
    /// Loads, stores, and both in one.
    pub accesses: Accesses,
    /// The same by what they were of.
    pub places: Places,
    /// Blocks.
    pub blocks: BlockCounts,
    /// Times that blocks were in use.
    pub spans: SpanCounts,
    /// Accesses to freed blocks, by the code that made them: the first ones found.
    pub after_free: Vec<AfterFree>,
    /// Freed blocks whose place was not watched, as there were too many.
    pub freed_unwatched: u64,
    /// Lines of the stream that are neither instructions nor accesses.
    pub other_lines: u64,
    /// What the recording cost.
    pub cost: Cost,
}

/// Calls of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadCalls {
    /// How many.
    pub calls: u64,
    /// Their content sum (docs/spool.md, section 8).
    pub sum: u64,
}

/// Accesses by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accesses {
    /// Reads.
    pub loads: u64,
    /// Writes.
    pub stores: u64,
    /// Reads and writes in one.
    pub modifies: u64,
}

impl Accesses {
    /// All.
    pub fn total(&self) -> u64 {
        self.loads + self.stores + self.modifies
    }
}

/// Accesses by what they are of. The sum is all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Of a block that was live.
    pub blocks: u64,
    /// Of a block that had been freed.
    pub freed: u64,
    /// Anything while a recorded call was at work: the allocator and the recorder.
    pub allocator: u64,
    /// The recorder's own memory, outside of calls.
    pub recorder: u64,
    /// Stacks.
    pub stack: u64,
    /// Code and data of programs and libraries, mapped files.
    pub files: u64,
    /// Anything else: headers and slack of blocks, memory that other allocators took from the system.
    pub other: u64,
}

impl Places {
    /// All.
    pub fn total(&self) -> u64 {
        self.blocks
            + self.freed
            + self.allocator
            + self.recorder
            + self.stack
            + self.files
            + self.other
    }
}

/// Counts of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCounts {
    /// All.
    pub recorded: u64,
    /// Without any access.
    pub never_touched: u64,
    /// Without any load.
    pub never_read: u64,
    /// Live when the program ended.
    pub live_at_end: u64,
}

/// Counts of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanCounts {
    /// All.
    pub all: u64,
    /// With calls of the process within: those that are in the file.
    pub crossing: u64,
}

/// Accesses after a free that one instruction made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AfterFree {
    /// Address of the instruction.
    pub code: u64,
    /// Its file, and the place in it; empty where unknown.
    pub file: String,
    /// See `file`.
    pub file_offset: u64,
    /// How many.
    pub accesses: u64,
    /// Of the first one: the call that had made the block, its bytes, and the offset in it.
    pub birth: u64,
    /// See `birth`.
    pub bytes: u64,
    /// See `birth`.
    pub offset: u64,
    /// Whether the first one wrote.
    pub writes: bool,
}

/// What a recording cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Bytes of lackey's text.
    pub stream_bytes: u64,
    /// Wall time of the program under Valgrind in nanoseconds.
    pub wall_ns: u64,
    /// CPU time of the program and Valgrind.
    pub cpu_ns: u64,
    /// CPU time of reading and matching.
    pub reader_cpu_ns: u64,
    /// Wall time of a plain run; 0: there was none.
    pub plain_wall_ns: u64,
    /// CPU time of it.
    pub plain_cpu_ns: u64,
}
