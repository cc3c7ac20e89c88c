//! The ways to hold handles beside each other, how many blocks a memory holds with each, and the
//! segments of a table that grows.

use super::Subject;
use super::entries::whole_segments;
use crate::handle_table::{HANDLE_BYTES, SEGMENT_ENTRIES};
use crate::handles::{HandlesReport, quotient};
use serde::Serialize;

const MILLION: u128 = 1_000_000;
/// Bytes of a segment with its pointer in the directory.
const SEGMENT_BYTES: u64 = (SEGMENT_ENTRIES + 1) * HANDLE_BYTES;
/// Binary logarithms of the least and the most memory of the curve.
const MEMORY_BITS: std::ops::RangeInclusive<u32> = 20..=36;

/// Where handles are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WayKind {
    /// Option 1 of the seed: beside each block, with `used`.
    Beside,
    /// Option 2 of the seed: a region for the advised number of entries.
    Reserved,
    /// A table that grows and shrinks by segments.
    #[default]
    Segmented,
}

/// One way to hold handles, for the blocks of the trace with the highest peak.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Which.
    pub way: WayKind,
    /// Bytes that it takes at the peak.
    pub bytes_at_peak: u64,
    /// Bytes, mean over time.
    pub bytes_mean: u64,
    /// Bytes at the end.
    pub bytes_at_end: u64,
    /// Share of the live bytes at the peak, in millionths.
    pub share_at_peak_ppm: u64,
    /// Share of the live bytes over time, in millionths.
    pub share_mean_ppm: u64,
    /// Blocks at the peak whose handle lies in the heap and can't move.
    pub fixed_at_peak: u64,
    /// Of them, at the end.
    pub fixed_at_end: u64,
    /// Pages of 4 KiB in which such handles can lie, at most; `null` if pages were not measured.
    pub fixed_pages_most: Option<u64>,
    /// Most handles of freed blocks between two collections `collection_ns` apart.
    pub dead_most: u64,
    /// The time between collections that this reckons with.
    pub collection_ns: u64,
    /// Most entries at once that were paid for and not needed.
    pub stranded_most: u64,
    /// Their mean over time.
    pub stranded_mean: u64,
    /// At the end.
    pub stranded_at_end: u64,
    /// Cache lines that are touched from the handle to the first byte of the block, in thousandths.
    pub lines_milli: u64,
}

/// All ways for a process, the region having `entries`.
pub(super) fn ways(subject: &Subject, entries: u64) -> Vec<Way> {
    let handles = &subject.handles;
    let share = |bytes: u64, of: u64| quotient(u128::from(bytes) * MILLION, of);
    let way = |way, bytes_at_peak, bytes_mean, bytes_at_end| Way {
        way,
        bytes_at_peak,
        bytes_mean,
        bytes_at_end,
        share_at_peak_ppm: share(bytes_at_peak, handles.live_bytes_at_peak),
        share_mean_ppm: share(bytes_mean, handles.live_bytes_mean),
        ..Way::default()
    };
    let region = entries.saturating_mul(HANDLE_BYTES);
    let segments = handles.segments_of(SEGMENT_ENTRIES);
    let segments = segments.cloned().unwrap_or_default();
    let of_segments = |milli: u64, each: u64| quotient(u128::from(milli) * u128::from(each), 1000);
    let in_use_mean = handles.entries_mean_milli / 1000;
    vec![
        Way {
            fixed_at_peak: handles.entries_peak,
            fixed_at_end: handles.entries_at_end,
            fixed_pages_most: subject
                .pages_held_peak
                .map(|pages| pages.min(handles.entries_peak)),
            dead_most: handles.curve.frees.iter().copied().max().unwrap_or(0),
            collection_ns: handles.curve.step_ns,
            // Beside the block: in the same line, unless the block begins a line: 1 + 1/4.
            lines_milli: 1250,
            ..way(
                WayKind::Beside,
                handles.in_place_bytes_at_peak,
                handles.in_place_bytes_mean,
                handles.in_place_bytes_at_end,
            )
        },
        Way {
            stranded_most: entries,
            stranded_mean: entries.saturating_sub(in_use_mean),
            stranded_at_end: entries.saturating_sub(handles.entries_at_end),
            lines_milli: 2000,
            ..way(WayKind::Reserved, region, region, region)
        },
        Way {
            stranded_most: segments.stranded_most.saturating_mul(SEGMENT_ENTRIES),
            stranded_mean: of_segments(segments.stranded_mean_milli, SEGMENT_ENTRIES),
            stranded_at_end: segments.stranded_at_end.saturating_mul(SEGMENT_ENTRIES),
            lines_milli: 3000,
            ..way(
                WayKind::Segmented,
                segments.held_peak.saturating_mul(SEGMENT_BYTES),
                of_segments(segments.held_mean_milli, SEGMENT_BYTES),
                segments.held_at_end.saturating_mul(SEGMENT_BYTES),
            )
        },
    ]
}

/// Segments, unless they take more over time than the region: only then is the bound of a region
/// worth it. A handle beside a block leaves the block in place, so it is never advised.
pub(super) fn advised(ways: &[Way]) -> WayKind {
    let mean = |kind| {
        ways.iter()
            .find(|way| way.way == kind)
            .map_or(0, |way| way.bytes_mean)
    };
    if mean(WayKind::Segmented) <= mean(WayKind::Reserved) {
        WayKind::Segmented
    } else {
        WayKind::Reserved
    }
}

/// The most blocks, of the sizes at the peak, that a memory holds together with their handles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryPoint {
    /// R.
    pub bytes: u64,
    /// N with handles beside the blocks.
    pub beside: u64,
    /// N with a region of just as many entries.
    pub reserved: u64,
    /// N with segments and their directory.
    pub segmented: u64,
}

/// N for R in powers of two, and for the memory that was given.
pub(super) fn memory(handles: &HandlesReport, given: Option<u64>) -> Vec<MemoryPoint> {
    let blocks = u128::from(handles.entries_peak);
    let rounded = u128::from(handles.live_bytes_rounded_at_peak);
    // All times 512, so that a part of a segment is a whole number.
    let segment = u128::from(SEGMENT_ENTRIES);
    let beside = (rounded + u128::from(handles.in_place_bytes_at_peak)) * segment;
    let reserved = (rounded + blocks * u128::from(HANDLE_BYTES)) * segment;
    let segmented = rounded * segment + blocks * u128::from(SEGMENT_BYTES);
    let point = |bytes: u64| {
        let fit = |taken: u128| {
            let most = (u128::from(bytes) * segment)
                .saturating_mul(blocks)
                .checked_div(taken);
            u64::try_from(most.unwrap_or(0)).unwrap_or(u64::MAX)
        };
        MemoryPoint {
            bytes,
            beside: fit(beside),
            reserved: fit(reserved),
            segmented: fit(segmented),
        }
    };
    let mut all: Vec<u64> = MEMORY_BITS.map(|bits| 1 << bits).chain(given).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(point).collect()
}

/// Segments of a growing table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// Entries of the first segment: enough for half of the time of every trace.
    pub first_entries: u64,
    /// Entries of each that follows.
    pub step_entries: u64,
    /// Times the table grows until it has the advised number.
    pub steps: u64,
}

/// Times a table should grow at most.
const STEPS_MOST: u64 = 16;

impl Growth {
    pub(super) fn new(subjects: &[Subject], entries: u64) -> Growth {
        let half = subjects
            .iter()
            .map(|subject| subject.handles.entries_half_of_time);
        let whole = |entries: u64| whole_segments(entries.max(1));
        let first_entries = whole(half.max().unwrap_or(0).min(entries));
        let rest = entries.saturating_sub(first_entries);
        let step_entries = whole(rest.div_ceil(STEPS_MOST));
        Growth {
            first_entries,
            step_entries,
            steps: rest.div_ceil(step_entries),
        }
    }
}
