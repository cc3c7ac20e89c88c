//! What relocatable blocks would cost: the seed's two places for handles, and how many entries a
//! reserved table should have. `docs/analysis.md` derives the formulas.

use crate::live::Live;
use serde::Serialize;

/// Bytes of a handle (h).
pub const HANDLE_BYTES: u64 = 8;
/// Margin above the peak of one trace, in percent.
pub const MARGIN_PERCENT: u64 = 25;
/// Entries of a segment: a page of 4 KiB.
pub const SEGMENT_ENTRIES: u64 = 4096 / HANDLE_BYTES;

/// Handles for the blocks that one process held at its peak of live blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HandleTable {
    /// Number of the process.
    pub process: u32,
    /// Bytes of a handle.
    pub handle_bytes: u64,
    /// Most live blocks at once: entries in use at the peak.
    pub entries_peak: u64,
    /// Entries to reserve.
    pub entries_recommended: u64,
    /// Why that many.
    pub reasoning: String,
    /// What was added to the peak, in percent, before rounding up to whole segments.
    pub margin_percent: u64,
    /// Option 2, a reserved region: bytes of all recommended entries, paid always.
    pub bytes_reserved: u64,
    /// Bytes of the entries in use at the peak.
    pub bytes_used_at_peak: u64,
    /// A region that grows by segments of 4 KiB, with a pointer to each: its bytes at the peak.
    pub bytes_segmented: u64,
    /// Option 1, a handle beside each block: what that adds at the peak after rounding blocks to 16.
    pub bytes_in_place: u64,
    /// Requested bytes live at the peak of live blocks.
    pub live_bytes_at_peak: u64,
    /// The same, each block rounded up to 16 bytes.
    pub live_bytes_rounded_at_peak: u64,
    /// M: mean requested bytes of a block live at the peak, in thousandths of a byte.
    pub m_mean_millibytes: u64,
    /// D of option 1: bytes added per block live at the peak, in thousandths.
    pub d_in_place_millibytes: u64,
    /// D of option 2: bytes reserved per block live at the peak, in thousandths.
    pub d_reserved_millibytes: u64,
    /// `bytes_reserved` as a share of the live bytes at the peak, in millionths.
    pub reserved_share_ppm: u64,
    /// `bytes_in_place` as a share of the live bytes at the peak, in millionths.
    pub in_place_share_ppm: u64,
    /// What fits in a given memory, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryFit>,
}

/// The largest number of blocks, of the sizes at the peak, in a given memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryFit {
    /// R: bytes of memory for blocks and handles.
    pub bytes: u64,
    /// Option 1: most blocks with a handle beside each.
    pub entries_in_place: u64,
    /// Option 2: most blocks, and entries, with a reserved region of just as many handles.
    pub entries_reserved: u64,
}

/// `value * by / of`, rounded down; 0 where `of` is.
fn scaled(value: u64, by: u64, of: u64) -> u64 {
    let scaled = (u128::from(value) * u128::from(by)).checked_div(of.into());
    u64::try_from(scaled.unwrap_or(0)).unwrap_or(u64::MAX)
}

impl HandleTable {
    /// For a process that held `most` at its peak of live blocks.
    pub(crate) fn new(process: u32, most: &Live) -> HandleTable {
        let entries_recommended = recommend(most.blocks);
        let bytes_reserved = entries_recommended.saturating_mul(HANDLE_BYTES);
        let segments = most.blocks.div_ceil(SEGMENT_ENTRIES);
        HandleTable {
            process,
            handle_bytes: HANDLE_BYTES,
            entries_peak: most.blocks,
            entries_recommended,
            reasoning: reasoning(most.blocks),
            margin_percent: MARGIN_PERCENT,
            bytes_reserved,
            bytes_used_at_peak: most.blocks.saturating_mul(HANDLE_BYTES),
            bytes_segmented: segments.saturating_mul((SEGMENT_ENTRIES + 1) * HANDLE_BYTES),
            bytes_in_place: most.in_place,
            live_bytes_at_peak: most.bytes,
            live_bytes_rounded_at_peak: most.rounded,
            m_mean_millibytes: scaled(most.bytes, 1000, most.blocks),
            d_in_place_millibytes: scaled(most.in_place, 1000, most.blocks),
            d_reserved_millibytes: scaled(bytes_reserved, 1000, most.blocks),
            reserved_share_ppm: scaled(bytes_reserved, 1_000_000, most.bytes),
            in_place_share_ppm: scaled(most.in_place, 1_000_000, most.bytes),
            memory: None,
        }
    }

    /// Works out what fits in `bytes` of memory: with N blocks of the mean rounded size at the peak,
    /// `N * (rounded size + D) <= R`.
    pub fn fit(&mut self, bytes: u64) {
        let blocks = self.live_bytes_rounded_at_peak;
        let in_place = blocks.saturating_add(self.bytes_in_place);
        let reserved = blocks.saturating_add(self.bytes_used_at_peak);
        self.memory = Some(MemoryFit {
            bytes,
            entries_in_place: scaled(bytes, self.entries_peak, in_place),
            entries_reserved: scaled(bytes, self.entries_peak, reserved),
        });
    }
}

/// Entries for a peak that one trace showed: the margin on top, in whole segments.
fn recommend(entries_peak: u64) -> u64 {
    let with_margin = scaled(entries_peak, 100 + MARGIN_PERCENT, 100);
    let rounded_down =
        u128::from(with_margin) * 100 < u128::from(entries_peak) * u128::from(100 + MARGIN_PERCENT);
    let entries = with_margin.saturating_add(u64::from(rounded_down));
    entries
        .checked_next_multiple_of(SEGMENT_ENTRIES)
        .unwrap_or(u64::MAX)
}

fn reasoning(entries_peak: u64) -> String {
    if entries_peak == 0 {
        return "no block was ever live, so nothing is to be reserved".to_string();
    }
    format!(
        "the peak of {} live blocks plus {MARGIN_PERCENT} %, rounded up to whole pages of {SEGMENT_ENTRIES} handles; \
         from one trace no probability can be given that another run stays below it",
        crate::text::units::count(entries_peak)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn live(blocks: &[u64]) -> Live {
        let mut live = Live::default();
        blocks.iter().for_each(|bytes| live.add(*bytes));
        live
    }

    proptest! {
        /// The recommendation is the smallest whole number of pages that holds peak and margin.
        #[test]
        fn the_recommendation_is_the_fewest_pages(peak in 0u64..10_000_000) {
            let pages = (0..).find(|pages| pages * 512 * 100 >= peak * 125).unwrap();
            prop_assert_eq!(recommend(peak), pages * 512);
        }

        /// The largest N is the last for which N blocks with their D fit.
        #[test]
        fn one_more_block_would_not_fit(blocks in proptest::collection::vec(0u64..5_000, 1..40), memory in 0u64..1 << 40) {
            let mut table = HandleTable::new(0, &live(&blocks));
            table.fit(memory);
            let fit = table.memory.clone().unwrap();
            let rounded: u64 = blocks.iter().map(|bytes| bytes.div_ceil(16) * 16).sum();
            let in_place: u64 = blocks.iter().map(|bytes| (bytes + 8).div_ceil(16) * 16).sum();
            let count = blocks.len() as u128;
            for (entries, total) in [(fit.entries_in_place, in_place), (fit.entries_reserved, rounded + 8 * blocks.len() as u64)] {
                if total == 0 {
                    continue;
                }
                prop_assert!(u128::from(entries) * u128::from(total) <= u128::from(memory) * count);
                prop_assert!(u128::from(entries + 1) * u128::from(total) > u128::from(memory) * count);
            }
        }
    }

    #[test]
    fn a_table_by_hand() {
        // 100 blocks of 24 bytes: 32 each, and with a handle still 32; 28 blocks of 16: 16, then 32.
        let blocks: Vec<u64> = [vec![24; 100], vec![16; 28]].concat();
        let table = HandleTable::new(7, &live(&blocks));
        assert_eq!(table.entries_peak, 128);
        assert_eq!(table.entries_recommended, 512);
        assert_eq!(table.bytes_reserved, 4096);
        assert_eq!(table.bytes_in_place, 28 * 16);
        assert_eq!(table.live_bytes_at_peak, 2848);
        assert_eq!(table.d_in_place_millibytes, 3500);
        assert_eq!(table.d_reserved_millibytes, 32_000);
        assert_eq!(table.bytes_segmented, 4096 + 8);
    }
}
