//! What an allocator with handles says of itself: its figures as the report has them.

use serde::{Deserialize, Serialize};

/// What the allocator counted by itself. Times in nanoseconds; bytes are usable ones, not requested ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Bytes resident by its own books.
    pub resident_bytes: u64,
    /// Of them those of the handle table.
    pub table_bytes: u64,
    /// Of them those that no block uses and that wait to be used again.
    pub dirty_bytes: u64,
    /// Entries of the table that are in use.
    pub entries_taken: u64,
    /// Entries that are never used again.
    pub entries_retired: u64,
    /// Blocks that compaction has given new addresses.
    pub moved_blocks: u64,
    /// Their bytes.
    pub moved_bytes: u64,
    /// Blocks that stayed because they were locked.
    pub pinned_blocks: u64,
    /// Copies given up because the block was locked or freed meanwhile.
    pub abandoned_blocks: u64,
    /// Bytes given back to the system by compaction.
    pub released_bytes: u64,
    /// Time spent looking for what to do.
    pub survey_ns: u64,
    /// Time spent moving blocks.
    pub move_ns: u64,
    /// Time spent giving memory back.
    pub release_ns: u64,
    /// Steps of compaction.
    pub steps: u64,
    /// The longest one: the longest pause.
    pub longest_pause_ns: u64,
}
