//! The header of a chunk: who wrote it, when, and what its thread had written by then.
//!
//! A chunk is a header and records, or a header and the positions of a fork. The writer keeps the
//! header in shared memory ([`ChunkHeader`]); a reader copies the chunk and parses it ([`Chunk`]).

use crate::event::Kind;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// `RMCH`, little-endian.
pub const MAGIC: u32 = u32::from_le_bytes(*b"RMCH");
/// Bytes of the header; records begin behind it.
pub const HEADER_BYTES: usize = 256;
/// Bytes of a small chunk: what a thread starts with.
pub const SMALL_BYTES: usize = 4096;
/// Bytes of a large chunk: what a busy thread goes on with.
pub const LARGE_BYTES: usize = 65536;

/// Kind of a chunk: records of one thread.
pub const KIND_EVENTS: u32 = 1;
/// Kind of a chunk: stream positions of the parent's threads at a fork ([`ForkPosition`]).
pub const KIND_FORK: u32 = 2;

/// More calls than a thread can make; headers that count as many are damaged.
pub const ORDINALS_MAX: u64 = 1 << 62;

/// State of a chunk in the spool: nobody's.
pub const STATE_FREE: u32 = 0;
/// A thread is filling it.
pub const STATE_ACTIVE: u32 = 1;
/// Its thread is done with it; the collector or a reader takes it.
pub const STATE_FULL: u32 = 2;

/// A stamp on three clocks: TSC, CLOCK_MONOTONIC and CLOCK_BOOTTIME (nanoseconds).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Triple {
    /// Time-stamp counter, or CLOCK_MONOTONIC nanoseconds where that is not to be trusted.
    pub tsc: u64,
    /// CLOCK_MONOTONIC in nanoseconds, read between two reads of `tsc`.
    pub monotonic_ns: u64,
    /// CLOCK_BOOTTIME in nanoseconds.
    pub boottime_ns: u64,
}

/// What a thread has written since its first record, counted apart from the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls by [`Kind`].
    pub calls: [u64; Kind::COUNT],
    /// Sum of the requested bytes of all calls, failed ones included, modulo 2^64.
    pub bytes: u64,
    /// Content sum ([`crate::record::content_sum`]).
    pub sum: u64,
    /// Calls dropped by this thread.
    pub dropped: u64,
}

impl Counters {
    /// All calls.
    pub fn total(&self) -> u64 {
        self.calls.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }
}

/// The header as it lies in shared memory. One thread writes, others read.
#[repr(C)]
pub struct ChunkHeader {
    /// [`MAGIC`].
    pub magic: AtomicU32,
    /// `KIND_...`.
    pub kind: AtomicU32,
    /// `STATE_...`.
    pub state: AtomicU32,
    /// Bytes of the chunk, this header included.
    pub chunk_bytes: AtomicU32,
    /// Bytes of records published behind the header.
    pub committed: AtomicU32,
    /// Number of the process in its spool.
    pub process: AtomicU32,
    /// Number of the thread in its process.
    pub thread: AtomicU32,
    /// Number of the chunk in its thread's stream, from 0 without gaps.
    pub sequence: AtomicU32,
    /// Identity of the spool.
    pub spool_id: [AtomicU64; 2],
    /// Kernel's id of the thread as the process sees it.
    pub tid: AtomicU32,
    /// Next chunk of the list this one is on (chunk number + 1), 0 at the end.
    pub next: AtomicU32,
    /// Check word over the fields that do not change while the chunk is active.
    pub check: AtomicU64,
    /// Taken when claimed; `tsc` is the time base of the first records.
    pub opened: [AtomicU64; 3],
    /// Taken when handed over; 0 before.
    pub closed: [AtomicU64; 3],
    /// Thread's calls before this chunk.
    pub first_ordinal: AtomicU64,
    /// Thread's calls by kind, this chunk included.
    pub calls: [AtomicU64; Kind::COUNT],
    /// As in [`Counters::bytes`].
    pub bytes: AtomicU64,
    /// As in [`Counters::sum`].
    pub sum: AtomicU64,
    /// As in [`Counters::dropped`].
    pub dropped: AtomicU64,
    /// Where the thread's private state lies in its process. Its first word, the guard, is stored to when a recorded
    /// call begins and when it ends: what reads the program's stores (`rmtrace accesses`) sees both by it.
    pub state_at: AtomicU64,
    /// Zero.
    pub reserved: [u64; 8],
}

const _: () = assert!(size_of::<ChunkHeader>() == HEADER_BYTES);
const _: () = assert!(core::mem::offset_of!(ChunkHeader, committed) == 16);
const _: () = assert!(core::mem::offset_of!(ChunkHeader, spool_id) == 32);
const _: () = assert!(core::mem::offset_of!(ChunkHeader, opened) == 64);
const _: () = assert!(core::mem::offset_of!(ChunkHeader, closed) == 88);
const _: () = assert!(core::mem::offset_of!(ChunkHeader, first_ordinal) == 112);
const _: () = assert!(core::mem::offset_of!(ChunkHeader, calls) == 120);
const _: () = assert!(core::mem::offset_of!(ChunkHeader, bytes) == 160);
const _: () = assert!(core::mem::offset_of!(ChunkHeader, dropped) == 176);
const _: () = assert!(core::mem::offset_of!(ChunkHeader, state_at) == 184);

/// Check word of a header's fixed fields.
#[allow(clippy::too_many_arguments)] // The fields it covers, in their order.
pub const fn check_word(
    kind: u32,
    chunk_bytes: u32,
    process: u32,
    thread: u32,
    sequence: u32,
    spool_id: [u64; 2],
    opened_tsc: u64,
) -> u64 {
    use crate::record::content_step;
    let sum = content_step(MAGIC as u64, (kind as u64) << 32 | chunk_bytes as u64);
    let sum = content_step(sum, (process as u64) << 32 | thread as u64);
    let sum = content_step(sum, sequence as u64);
    let sum = content_step(content_step(sum, spool_id[0]), spool_id[1]);
    content_step(sum, opened_tsc)
}

/// One entry of a fork chunk: the calls of a parent's thread that happened before the fork, as the
/// child's private copy shows them. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkPosition {
    /// Thread of the parent.
    pub thread: u32,
    /// Its calls before the fork.
    pub calls: u64,
}

impl ForkPosition {
    /// Bytes of an entry.
    pub const BYTES: usize = 16;

    /// Reads the entries of a fork chunk's data; a rest of less than an entry is left out.
    pub fn parse_all(bytes: &[u8]) -> impl Iterator<Item = ForkPosition> {
        bytes.chunks_exact(Self::BYTES).map(|entry| ForkPosition {
            thread: u32_at(entry, 0),
            calls: u64_at(entry, 8),
        })
    }
}

/// A chunk's header, parsed from a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// `KIND_...`.
    pub kind: u32,
    /// `STATE_...`.
    pub state: u32,
    /// Bytes of the chunk with its header.
    pub chunk_bytes: u32,
    /// Bytes of records behind the header.
    pub committed: u32,
    /// Number of the process in its spool.
    pub process: u32,
    /// Number of the thread in its process.
    pub thread: u32,
    /// Number of the chunk in its thread's stream.
    pub sequence: u32,
    /// Identity of the spool.
    pub spool_id: [u64; 2],
    /// The kernel's thread id, as the process sees it.
    pub tid: u32,
    /// Next chunk on a list, plus one.
    pub next: u32,
    /// When it was claimed.
    pub opened: Triple,
    /// When it was handed over; zeros before.
    pub closed: Triple,
    /// Thread's calls before this chunk.
    pub first_ordinal: u64,
    /// Thread's counters, this chunk included.
    pub counters: Counters,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Fewer bytes than a header.
    CutShort,
    /// Another magic.
    NotAChunk,
    /// Lengths that can't be, or a wrong check word.
    Damaged,
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            HeaderError::CutShort => "the chunk header is cut short",
            HeaderError::NotAChunk => "no chunk header is here",
            HeaderError::Damaged => "the chunk header is damaged",
        })
    }
}

impl core::error::Error for HeaderError {}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

fn triple_at(bytes: &[u8], at: usize) -> Triple {
    Triple {
        tsc: u64_at(bytes, at),
        monotonic_ns: u64_at(bytes, at + 8),
        boottime_ns: u64_at(bytes, at + 16),
    }
}

impl Chunk {
    /// Parses a header and checks what can be checked without the records.
    pub fn parse(bytes: &[u8]) -> Result<Chunk, HeaderError> {
        if bytes.len() < HEADER_BYTES {
            return Err(HeaderError::CutShort);
        }
        if u32_at(bytes, 0) != MAGIC {
            return Err(HeaderError::NotAChunk);
        }
        let mut calls = [0; Kind::COUNT];
        for (n, count) in calls.iter_mut().enumerate() {
            *count = u64_at(bytes, 120 + 8 * n);
        }
        let chunk = Chunk {
            kind: u32_at(bytes, 4),
            state: u32_at(bytes, 8),
            chunk_bytes: u32_at(bytes, 12),
            committed: u32_at(bytes, 16),
            process: u32_at(bytes, 20),
            thread: u32_at(bytes, 24),
            sequence: u32_at(bytes, 28),
            spool_id: [u64_at(bytes, 32), u64_at(bytes, 40)],
            tid: u32_at(bytes, 48),
            next: u32_at(bytes, 52),
            opened: triple_at(bytes, 64),
            closed: triple_at(bytes, 88),
            first_ordinal: u64_at(bytes, 112),
            counters: Counters {
                calls,
                bytes: u64_at(bytes, 160),
                sum: u64_at(bytes, 168),
                dropped: u64_at(bytes, 176),
            },
        };
        let lengths_fit = matches!(chunk.chunk_bytes as usize, SMALL_BYTES | LARGE_BYTES)
            && chunk.committed as usize <= chunk.chunk_bytes as usize - HEADER_BYTES
            && chunk.committed.is_multiple_of(16)
            && chunk.first_ordinal < ORDINALS_MAX;
        if !lengths_fit || chunk.check_word() != u64_at(bytes, 56) {
            return Err(HeaderError::Damaged);
        }
        Ok(chunk)
    }

    /// The check word that a header of this content carries; it tells chunks apart that used the same
    /// place.
    pub const fn check_word(&self) -> u64 {
        check_word(
            self.kind,
            self.chunk_bytes,
            self.process,
            self.thread,
            self.sequence,
            self.spool_id,
            self.opened.tsc,
        )
    }
}
