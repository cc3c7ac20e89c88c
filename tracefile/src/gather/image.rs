//! What a spool says of its program image and of its processes: the header page and the process
//! slots, parsed from copies. Every number in them may be anything.

use crate::model::Hooks;
use core::mem::offset_of;
use rmtrace_format::chunk::Triple;
use rmtrace_format::spool::{
    self, Drop, PROCESS_BYTES, ProcessSlot, SHARED_OFFSET, Shared, SpoolHeader,
};

/// The `N` bytes at `at`, zeros where there are none.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..at.saturating_add(N))
        .and_then(|b| b.try_into().ok())
        .unwrap_or([0; N])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn triple_at(bytes: &[u8], at: usize) -> Triple {
    Triple {
        tsc: u64_at(bytes, at),
        monotonic_ns: u64_at(bytes, at + 8),
        boottime_ns: u64_at(bytes, at + 16),
    }
}

/// A count that a program wrote, which may be anything. No true one comes near the limit (at one a
/// nanosecond it takes 52 days), and sums over many processes stay whole.
fn count_at(bytes: &[u8], at: usize) -> u64 {
    const COUNT_MAX: u64 = 1 << 52;
    let count = u64_at(bytes, at);
    if count > COUNT_MAX { 0 } else { count }
}

fn dropped_at(bytes: &[u8], at: usize) -> [u64; Drop::COUNT] {
    core::array::from_fn(|n| count_at(bytes, at + 8 * n).min(1 << 40))
}

/// The NUL-separated strings of a field, without empty ones at its end.
fn strings(field: &[u8]) -> Vec<String> {
    let end = field.iter().rposition(|&b| b != 0).map_or(0, |n| n + 1);
    if end == 0 {
        return Vec::new();
    }
    field[..end]
        .split(|&b| b == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// Identity of a spool.
pub type SpoolId = [u64; 2];

/// The header page of a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolImage {
    /// Identity.
    pub id: SpoolId,
    /// `FLAG_...` of [`spool`].
    pub flags: u32,
    /// Bytes of the file as its maker meant it.
    pub spool_bytes: u64,
    /// Process id of the first process, as it sees itself.
    pub pid: u32,
    /// Its parent's id.
    pub ppid: u32,
    /// When the library started.
    pub started: Triple,
    /// CLOCK_REALTIME then.
    pub realtime_ns: u64,
    /// Measured TSC frequency, or 0.
    pub tsc_hz: u64,
    /// Measured cost of recording one call in picoseconds, or 0.
    pub cost_ps: u64,
    /// How the entries were hooked.
    pub hooks: Hooks,
    /// Path of the program.
    pub program: String,
    /// Command line.
    pub arguments: Vec<String>,
    /// Processes so far.
    pub processes: u32,
    /// Slabs claimed so far; may exceed those that there are.
    pub slabs_claimed: u32,
    /// Calls dropped by processes without a slot.
    pub dropped: [u64; Drop::COUNT],
}

impl SpoolImage {
    /// Parses a header page; `None` if it is none, or of another version.
    pub fn parse(page: &[u8]) -> Option<SpoolImage> {
        if page.len() < spool::HEADER_BYTES
            || u64_at(page, offset_of!(SpoolHeader, magic)) != spool::MAGIC
            || u32_at(page, offset_of!(SpoolHeader, version)) != spool::VERSION
        {
            return None;
        }
        let text = |at: usize, length: usize| strings(page.get(at..at + length).unwrap_or(&[]));
        let shared = |at: usize| SHARED_OFFSET + at;
        Some(SpoolImage {
            id: [
                u64_at(page, offset_of!(SpoolHeader, id)),
                u64_at(page, offset_of!(SpoolHeader, id) + 8),
            ],
            flags: u32_at(page, offset_of!(SpoolHeader, flags)),
            spool_bytes: u64_at(page, offset_of!(SpoolHeader, spool_bytes)),
            pid: u32_at(page, offset_of!(SpoolHeader, pid)),
            ppid: u32_at(page, offset_of!(SpoolHeader, ppid)),
            started: triple_at(page, offset_of!(SpoolHeader, started)),
            realtime_ns: u64_at(page, offset_of!(SpoolHeader, realtime_ns)),
            tsc_hz: u64_at(page, offset_of!(SpoolHeader, tsc_hz)),
            cost_ps: u64_at(page, offset_of!(SpoolHeader, cost_ps)),
            hooks: Hooks {
                interposed: u64_at(page, offset_of!(SpoolHeader, interposed)),
                detoured: u64_at(page, offset_of!(SpoolHeader, detoured)),
                refused: u64_at(page, offset_of!(SpoolHeader, refused)),
            },
            program: text(spool::PROGRAM_OFFSET, spool::PROGRAM_BYTES)
                .into_iter()
                .next()
                .unwrap_or_default(),
            arguments: text(spool::ARGUMENTS_OFFSET, spool::ARGUMENTS_BYTES),
            processes: u32_at(page, shared(offset_of!(Shared, processes))),
            slabs_claimed: u32_at(page, shared(offset_of!(Shared, slabs_claimed))),
            dropped: dropped_at(page, shared(offset_of!(Shared, dropped))),
        })
    }
}

/// A process slot that its process has filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Number in the spool.
    pub number: u32,
    /// Process id as it sees itself.
    pub pid: u32,
    /// Its parent's id as it sees it.
    pub ppid: u32,
    /// `STARTED_...` of [`spool`].
    pub started_by: u32,
    /// Number of the process that forked it.
    pub parent: u32,
    /// Thread of the parent that forked.
    pub parent_thread: u32,
    /// Threads so far.
    pub threads: u32,
    /// At the first recorded call.
    pub started: Triple,
    /// When its exit handlers ran; zeros otherwise.
    pub ended: Triple,
    /// Calls dropped by reason.
    pub dropped: [u64; Drop::COUNT],
    /// Times waited for the collector, and nanoseconds.
    pub waits: (u64, u64),
    /// Chunks and bytes appended by itself.
    pub appended: (u64, u64),
    /// Fork chunks written.
    pub fork_chunks: u32,
    /// Threads that the parent had started before the fork.
    pub parent_threads: u32,
    /// What it shows as its command line.
    pub title: Vec<String>,
}

impl Slot {
    /// Parses slot `number`; `None` unless its process is done filling it.
    pub fn parse(number: u32, bytes: &[u8]) -> Option<Slot> {
        if bytes.len() < PROCESS_BYTES || u32_at(bytes, offset_of!(ProcessSlot, state)) != 2 {
            return None;
        }
        let pair = |at: usize| (count_at(bytes, at), count_at(bytes, at + 8));
        Some(Slot {
            number,
            pid: u32_at(bytes, offset_of!(ProcessSlot, pid)),
            ppid: u32_at(bytes, offset_of!(ProcessSlot, ppid)),
            started_by: u32_at(bytes, offset_of!(ProcessSlot, started_by)),
            parent: u32_at(bytes, offset_of!(ProcessSlot, parent)),
            parent_thread: u32_at(bytes, offset_of!(ProcessSlot, parent_thread)),
            threads: u32_at(bytes, offset_of!(ProcessSlot, threads)),
            started: triple_at(bytes, offset_of!(ProcessSlot, started)),
            ended: triple_at(bytes, offset_of!(ProcessSlot, ended)),
            dropped: dropped_at(bytes, offset_of!(ProcessSlot, dropped)),
            waits: pair(offset_of!(ProcessSlot, waits)),
            appended: pair(offset_of!(ProcessSlot, appended)),
            fork_chunks: u32_at(bytes, offset_of!(ProcessSlot, fork_chunks)),
            parent_threads: u32_at(bytes, offset_of!(ProcessSlot, parent_threads)),
            title: strings(
                bytes
                    .get(offset_of!(ProcessSlot, title)..)
                    .unwrap_or_default(),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_end_where_their_last_byte_is() {
        assert_eq!(strings(b"a\0bc\0\0\0"), ["a", "bc"]);
        assert_eq!(strings(b"a\0\0c"), ["a", "", "c"]);
        assert!(strings(b"\0\0").is_empty());
        assert!(strings(b"").is_empty());
    }

    proptest! {
        /// Whatever the bytes, parsing returns.
        #[test]
        fn any_page_is_survived(mut page in proptest::collection::vec(any::<u8>(), 0..5000)) {
            SpoolImage::parse(&page);
            Slot::parse(0, &page);
            if page.len() >= 12 {
                page[..8].copy_from_slice(&spool::MAGIC.to_le_bytes());
                page[8..12].copy_from_slice(&spool::VERSION.to_le_bytes());
                prop_assert_eq!(SpoolImage::parse(&page).is_some(), page.len() >= 4096);
                page[..4].copy_from_slice(&2u32.to_le_bytes());
                prop_assert_eq!(Slot::parse(0, &page).is_some(), page.len() >= PROCESS_BYTES);
            }
        }
    }
}
