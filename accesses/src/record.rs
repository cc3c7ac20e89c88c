//! What is kept of a block.

/// A time during which a block was used: lock before call `from`, unlock before call `to`. Both count the calls of the
/// process in the order of the stream, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Calls before the span's first access.
    pub from: u64,
    /// Calls before its last access: more than `from`.
    pub to: u64,
}

/// A block and its accesses. Resizes do not end a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockRecord {
    /// Number of the call that made it, in the order of the stream, from 0.
    pub birth: u64,
    /// Number of the call that ended it; `None`: it was live at the end.
    pub end: Option<u64>,
    /// Bytes that were asked for at its birth.
    pub bytes: u64,
    /// Instructions of the process before its birth.
    pub born_at: u64,
    /// Loads, and stores that read as well.
    pub reads: u64,
    /// Stores.
    pub writes: u64,
    /// Instructions from its birth to its first access.
    pub first_access: u64,
    /// Instructions from its first access to its last.
    pub used_for: u64,
    /// Spans, those within which nothing was called included.
    pub spans: u64,
    /// Instructions within spans.
    pub locked_instructions: u64,
    /// Spans with calls within, in their order, apart from each other.
    pub crossing: Vec<Span>,
    /// Spans before these are in an earlier record of the same block, or more are in a later one: everything but
    /// `birth` and `crossing` is 0 except in the last.
    pub is_part: bool,
}

impl BlockRecord {
    /// Loads and stores; one that does both is two.
    pub fn accesses(&self) -> u64 {
        self.reads + self.writes
    }
}
