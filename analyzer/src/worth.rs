//! Which blocks are worth a handle: what blocks of each size took at the peak and over time, what
//! relocating them could give back at most, and the size below which handle and header cost more.

use crate::handles::quotient;
use crate::live::{handle_in_place, round16};
use serde::Serialize;

/// Blocks of at least so many bytes have pages of their own, so no neighbour holds their place.
pub const PAGE_BYTES: u64 = 4096;
/// Rows by steps of 16 bytes; then by powers of two.
const STEPS: u64 = 8;

/// Row of a size: 0 for zero bytes, one for each 16 bytes up to 128, one for each power of two above.
#[inline]
fn row(bytes: u64) -> usize {
    // Both are worked out, so that nothing is branched on.
    let step = bytes.wrapping_add(15) / 16;
    let power = STEPS + 1 + u64::from(((bytes.wrapping_sub(1) / (16 * STEPS)) | 1).ilog2());
    (if bytes <= 16 * STEPS { step } else { power }) as usize
}

/// Sizes `[low, high)` of a row; the last ends at `u64::MAX` and holds it.
fn bounds(row: usize) -> (u64, u64) {
    let row = row as u64;
    let end = |row: u64| match row {
        0..=STEPS => 16 * row,
        _ => (16 * STEPS)
            .checked_shl((row - STEPS) as u32)
            .filter(|end| end >> (row - STEPS) == 16 * STEPS)
            .unwrap_or(u64::MAX),
    };
    match row {
        0 => (0, 1),
        _ => (end(row - 1) + 1, end(row).saturating_add(1)),
    }
}

/// Live blocks of a range of sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SizeRow {
    /// Fewest bytes.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Live at the peak of entries.
    pub blocks_at_peak: u64,
    /// Requested bytes of these.
    pub bytes_at_peak: u64,
    /// The same, each block rounded up to 16 bytes.
    pub rounded_at_peak: u64,
    /// What a handle of 8 bytes beside each block adds to that after rounding.
    pub in_place_at_peak: u64,
    /// Live, mean over time, in thousandths of a block.
    pub blocks_mean_milli: u64,
    /// Requested bytes live, mean over time.
    pub bytes_mean: u64,
    /// What a handle beside each block adds, mean over time.
    pub in_place_mean: u64,
    /// The most requested bytes that were live until then, mean over time.
    pub most_so_far_mean: u64,
}

/// What is live of a range of sizes.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    blocks: u64,
    bytes: u64,
    rounded: u64,
    beside: u64,
}

/// Sums over time, modulo 2^128.
#[derive(Clone, Copy, Debug, Default)]
struct Area {
    blocks: u128,
    bytes: u128,
    beside: u128,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    now: Sum,
    at_peak: Sum,
    /// Peaks when `at_peak` was noted, as in [`crate::fact::AtPeak`].
    peaks: u64,
    /// Most bytes so far.
    most: u64,
    /// Of `most`: minus the times of its rises, times what they were.
    most_ns: u128,
    lived: Area,
}

impl Cell {
    #[inline]
    fn note_peak(&mut self, peaks: u64) {
        if self.peaks != peaks {
            self.at_peak = self.now;
            self.peaks = peaks;
        }
    }

    /// A block is live from now on.
    #[inline]
    fn add(&mut self, peaks: u64, now_ns: u64, bytes: u64) {
        self.note_peak(peaks);
        self.now.blocks = self.now.blocks.wrapping_add(1);
        self.now.bytes = self.now.bytes.wrapping_add(bytes);
        self.now.rounded = self.now.rounded.wrapping_add(round16(bytes));
        self.now.beside = self.now.beside.wrapping_add(handle_in_place(bytes));
        if self.now.bytes > self.most {
            let rise = u128::from(self.now.bytes - self.most);
            self.most_ns = self.most_ns.wrapping_sub(rise * u128::from(now_ns));
            self.most = self.now.bytes;
        }
    }

    /// A block is not live any more.
    #[inline]
    fn sub(&mut self, peaks: u64, bytes: u64) {
        self.note_peak(peaks);
        self.now.blocks = self.now.blocks.wrapping_sub(1);
        self.now.bytes = self.now.bytes.wrapping_sub(bytes);
        self.now.rounded = self.now.rounded.wrapping_sub(round16(bytes));
        self.now.beside = self.now.beside.wrapping_sub(handle_in_place(bytes));
    }

    /// A block that has ended, or is kept, lived so long.
    #[inline]
    fn lived(&mut self, life_ns: u64, bytes: u64) {
        let (life, area) = (u128::from(life_ns), &mut self.lived);
        area.blocks = area.blocks.wrapping_add(life);
        area.bytes = area.bytes.wrapping_add(life * u128::from(bytes));
        area.beside = area
            .beside
            .wrapping_add(life * u128::from(handle_in_place(bytes)));
    }
}

/// Collects live blocks by size: a cell of two or three cache lines a change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes {
    cells: Vec<Cell>,
}

impl Sizes {
    #[inline]
    fn cell(&mut self, bytes: u64) -> &mut Cell {
        let row = row(bytes);
        if row >= self.cells.len() {
            self.reach(row);
        }
        &mut self.cells[row]
    }

    #[cold]
    fn reach(&mut self, row: usize) {
        self.cells.resize(row + 1, Cell::default());
    }

    /// A block is born. `peaks` are those before.
    #[inline]
    pub fn born(&mut self, peaks: u64, now_ns: u64, bytes: u64) {
        self.cell(bytes).add(peaks, now_ns, bytes);
    }

    /// A block ends.
    #[inline]
    pub fn ended(&mut self, peaks: u64, life_ns: u64, bytes: u64) {
        let cell = self.cell(bytes);
        cell.sub(peaks, bytes);
        cell.lived(life_ns, bytes);
    }

    /// A block is kept to the end of the process.
    pub fn kept(&mut self, life_ns: u64, bytes: u64) {
        self.cell(bytes).lived(life_ns, bytes);
    }

    /// A block of age `life_ns` has another size now. When it ends it counts for its whole life with
    /// its last size, so its age moves from there to the old one.
    pub fn resized(&mut self, peaks: u64, now_ns: u64, life_ns: u64, old: u64, new: u64) {
        self.ended(peaks, life_ns, old);
        let cell = self.cell(new);
        cell.add(peaks, now_ns, new);
        let (life, area) = (u128::from(life_ns), &mut cell.lived);
        area.blocks = area.blocks.wrapping_sub(life);
        area.bytes = area.bytes.wrapping_sub(life * u128::from(new));
        area.beside = area
            .beside
            .wrapping_sub(life * u128::from(handle_in_place(new)));
    }

    /// What a handle of 8 bytes beside each live block adds now.
    pub fn in_place_now(&self) -> u64 {
        let all = self.cells.iter();
        all.fold(0, |all, cell| all.wrapping_add(cell.now.beside))
    }

    /// The rows that ever held a block, after `peaks`; and one of all sizes.
    pub fn rows(&self, peaks: u64, end_ns: u64, duration_ns: u64) -> (Vec<SizeRow>, SizeRow) {
        let mean = |area: u128| quotient(area, duration_ns);
        let report = |low, high, cell: &Cell| {
            let at_peak = if cell.peaks == peaks {
                cell.at_peak
            } else {
                cell.now
            };
            let most_ns = cell
                .most_ns
                .wrapping_add(u128::from(cell.most) * u128::from(end_ns));
            SizeRow {
                low,
                high,
                blocks_at_peak: at_peak.blocks,
                bytes_at_peak: at_peak.bytes,
                rounded_at_peak: at_peak.rounded,
                in_place_at_peak: at_peak.beside,
                blocks_mean_milli: mean(cell.lived.blocks.saturating_mul(1000)),
                bytes_mean: mean(cell.lived.bytes),
                in_place_mean: mean(cell.lived.beside),
                most_so_far_mean: mean(most_ns),
            }
        };
        let mut all = Cell {
            peaks,
            ..Cell::default()
        };
        for cell in &self.cells {
            let at_peak = if cell.peaks == peaks {
                cell.at_peak
            } else {
                cell.now
            };
            let to = &mut all.at_peak;
            to.blocks = to.blocks.wrapping_add(at_peak.blocks);
            to.bytes = to.bytes.wrapping_add(at_peak.bytes);
            to.rounded = to.rounded.wrapping_add(at_peak.rounded);
            to.beside = to.beside.wrapping_add(at_peak.beside);
            let to = &mut all.lived;
            to.blocks = to.blocks.wrapping_add(cell.lived.blocks);
            to.bytes = to.bytes.wrapping_add(cell.lived.bytes);
            to.beside = to.beside.wrapping_add(cell.lived.beside);
        }
        let rows = self.cells.iter().enumerate().map(|(row, cell)| {
            let (low, high) = bounds(row);
            report(low, high, cell)
        });
        let rows = rows
            .filter(|row| row.blocks_mean_milli | row.blocks_at_peak | row.most_so_far_mean != 0)
            .collect();
        (rows, report(0, u64::MAX, &all))
    }
}

/// Bytes of held pages that blocks of a range of sizes did not use, mean over time; from a measure of
/// pages, where there is one. The ranges need not be those of [`SizeRow`]: the bytes go to the rows
/// whose middle lies in the range, shared by live blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unused {
    /// Fewest bytes of a block.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Bytes unused, mean over time.
    pub bytes_mean: u64,
}

/// A row of [`Worth`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorthRow {
    /// Fewest bytes.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Live blocks, mean over time, in thousandths.
    pub blocks_mean_milli: u64,
    /// Their requested bytes, mean over time.
    pub bytes_mean: u64,
    /// What their handles and headers take, mean over time.
    pub cost_mean: u64,
    /// What relocating them could give back, mean over time: at most.
    pub saving_mean: u64,
}

/// Which blocks are worth a handle, by their mean over the time of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Worth {
    /// `estimate`, of what each size held before and does not hold now; or `pages`.
    pub source: &'static str,
    /// Bytes of handle and header of a block.
    pub cost_bytes: u64,
    /// Blocks below this many bytes are not worth a handle; `null` if no blocks are.
    pub from_bytes: Option<u64>,
    /// Share of live blocks (mean over time) that lies below, in millionths.
    pub blocks_below_ppm: u64,
    /// Share of their requested bytes, in millionths.
    pub bytes_below_ppm: u64,
    /// What handles and headers take from there on, mean over time.
    pub cost_mean: u64,
    /// What relocation could give back from there on at most, mean over time.
    pub saving_mean: u64,
    /// If all blocks had handles: what these take.
    pub cost_of_all_mean: u64,
    /// If all blocks had handles: what relocation could give back at most.
    pub saving_of_all_mean: u64,
    /// By size.
    pub rows: Vec<WorthRow>,
}

/// What relocation could give back at most of blocks of a row, mean over time. A size takes its most
/// bytes so far if what was freed in its pages can be used for nothing else; but a page that holds no
/// block of it can be given back, so it is less than a page for each block. Blocks of a page and more
/// have pages of their own, which go with them.
fn estimate(row: &SizeRow) -> u64 {
    if row.low >= PAGE_BYTES {
        return 0;
    }
    let holes = row.most_so_far_mean.saturating_sub(row.bytes_mean);
    let pages = u128::from(row.blocks_mean_milli) * u128::from(PAGE_BYTES) / 1000;
    let rest = pages.saturating_sub(row.bytes_mean.into());
    holes.min(u64::try_from(rest).unwrap_or(u64::MAX))
}

/// Unused bytes by row.
fn spread(unused: &[Unused], rows: &[SizeRow]) -> Vec<u64> {
    let mut bytes = vec![0u64; rows.len()];
    for of in unused {
        let is_in = |low: u64, high: u64, size: u64| low <= size && size < high;
        let middle = |row: &SizeRow| row.low + (row.high - row.low) / 2;
        let mut to: Vec<usize> = (0..rows.len())
            .filter(|at| is_in(of.low, of.high, middle(&rows[*at])))
            .collect();
        if to.is_empty() {
            to = (0..rows.len())
                .filter(|at| is_in(rows[*at].low, rows[*at].high, of.low))
                .collect();
        }
        let all = to.iter().fold(0u64, |all, at| {
            all.saturating_add(rows[*at].blocks_mean_milli)
        });
        let mut left = of.bytes_mean;
        for (nth, at) in to.iter().enumerate() {
            let share = u128::from(of.bytes_mean) * u128::from(rows[*at].blocks_mean_milli);
            let share = match nth + 1 == to.len() {
                true => left,
                false => quotient(share, all).min(left),
            };
            left -= share;
            bytes[*at] = bytes[*at].saturating_add(share);
        }
    }
    bytes
}

impl Worth {
    /// Weighs `rows` with `cost_bytes` for handle and header of a block. The size that is named is the
    /// one from which on all together gain most; the smaller one of equals.
    pub fn new(rows: &[SizeRow], unused: Option<&[Unused]>, cost_bytes: u64) -> Worth {
        let known = unused.map(|unused| spread(unused, rows));
        let weigh = |(at, row): (usize, &SizeRow)| {
            let cost = u128::from(row.blocks_mean_milli) * u128::from(cost_bytes) / 1000;
            WorthRow {
                low: row.low,
                high: row.high,
                blocks_mean_milli: row.blocks_mean_milli,
                bytes_mean: row.bytes_mean,
                cost_mean: u64::try_from(cost).unwrap_or(u64::MAX),
                saving_mean: match &known {
                    Some(known) => known[at],
                    None => estimate(row),
                },
            }
        };
        let rows: Vec<WorthRow> = rows.iter().enumerate().map(weigh).collect();
        let (mut best, mut gain, mut gain_best) = (rows.len(), 0i128, 0i128);
        for (at, row) in rows.iter().enumerate().rev() {
            gain += i128::from(row.saving_mean) - i128::from(row.cost_mean);
            if row.saving_mean != 0 && gain >= gain_best {
                (best, gain_best) = (at, gain);
            }
        }
        let (below, above) = rows.split_at(best);
        let sum = |rows: &[WorthRow], of: fn(&WorthRow) -> u64| {
            rows.iter().map(of).fold(0, u64::saturating_add)
        };
        let share = |of: fn(&WorthRow) -> u64| {
            quotient(u128::from(sum(below, of)) * 1_000_000, sum(&rows, of))
        };
        Worth {
            source: if unused.is_some() {
                "pages"
            } else {
                "estimate"
            },
            cost_bytes,
            from_bytes: above.first().map(|row| row.low),
            blocks_below_ppm: share(|row| row.blocks_mean_milli),
            bytes_below_ppm: share(|row| row.bytes_mean),
            cost_mean: sum(above, |row| row.cost_mean),
            saving_mean: sum(above, |row| row.saving_mean),
            cost_of_all_mean: sum(&rows, |row| row.cost_mean),
            saving_of_all_mean: sum(&rows, |row| row.saving_mean),
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn rows_follow_each_other_and_hold_their_sizes() {
        let last = row(u64::MAX);
        for at in 1..=last {
            assert_eq!(bounds(at).0, bounds(at - 1).1, "{at}");
        }
        assert_eq!(bounds(last).1, u64::MAX);
        for bytes in
            (0..5_000).chain((13..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]))
        {
            let (low, high) = bounds(row(bytes));
            assert!(low <= bytes && bytes < high, "{bytes}: {low} .. {high}");
        }
        assert_eq!(bounds(row(16)), (1, 17));
        assert_eq!(bounds(row(129)), (129, 257));
        assert_eq!(bounds(row(4097)), (4097, 8193));
    }

    fn one(low: u64, high: u64, blocks: u64, most: u64) -> SizeRow {
        SizeRow {
            low,
            high,
            blocks_mean_milli: blocks * 1000,
            bytes_mean: blocks * (high - 1),
            most_so_far_mean: most,
            ..SizeRow::default()
        }
    }

    #[test]
    fn a_threshold_by_hand() {
        // 1,000 blocks of 16 that always live, 100 of 128 of which there were 1,000 once, 10 of 1,024
        // that were 1,000; one of 8 KiB that were five.
        let rows = [
            one(1, 17, 1_000, 16_000),
            one(113, 129, 100, 128_000),
            one(513, 1025, 10, 1_024_000),
            one(4097, 8193, 1, 40_960),
        ];
        let worth = Worth::new(&rows, None, 16);
        assert_eq!(worth.source, "estimate");
        assert_eq!(worth.from_bytes, Some(113));
        let savings: Vec<u64> = worth.rows.iter().map(|row| row.saving_mean).collect();
        // Ten blocks of 1,024 hold ten pages at most: 40,960 bytes, of which they use 10,240.
        assert_eq!(savings, [0, 128_000 - 12_800, 30_720, 0]);
        assert_eq!(worth.cost_mean, (100 + 10 + 1) * 16);
        assert_eq!(worth.cost_of_all_mean, (1_000 + 100 + 10 + 1) * 16);
        assert_eq!(worth.blocks_below_ppm, 1_000 * 1_000_000 / 1_111);
        assert_eq!(
            worth.bytes_below_ppm,
            16_000 * 1_000_000 / (16_000 + 12_800 + 10_240 + 8_192)
        );
        // Nothing ever fell: nothing to gain.
        let worth = Worth::new(&rows[..1], None, 16);
        assert_eq!(worth.from_bytes, None);
        assert_eq!(worth.blocks_below_ppm, 1_000_000);
        assert_eq!(worth.saving_mean, 0);
    }

    #[test]
    fn ranges_of_others_are_spread_over_the_rows() {
        let rows = [
            one(1, 17, 5, 0),
            one(17, 33, 10, 0),
            one(33, 49, 30, 0),
            one(49, 65, 10, 0),
            one(129, 257, 1, 0),
        ];
        let unused = |low, high, bytes_mean| Unused {
            low,
            high,
            bytes_mean,
        };
        let all = [
            unused(4, 8, 7),
            unused(8, 16, 20),
            unused(16, 32, 100),
            unused(32, 64, 81),
            unused(128, 256, 9),
            unused(1 << 20, 2 << 20, 1_000),
        ];
        assert_eq!(spread(&all, &rows), [27, 100, 60, 21, 9]);
        assert_eq!(Worth::new(&rows, Some(&all), 16).source, "pages");
    }

    proptest! {
        /// The cut that is named gains at least as much as every other.
        #[test]
        fn no_other_size_gains_more(
            told in vec((0u64..500, 0u64..100_000, 0u64..20_000), 1..20),
            cost in 1u64..40,
        ) {
            let rows: Vec<SizeRow> = told.iter().zip(0..).map(|((blocks, most, _), at)| {
                let (low, high) = bounds(at);
                one(low, high, *blocks, *most)
            }).collect();
            let unused: Vec<Unused> = told.iter().zip(&rows).map(|((_, _, bytes_mean), row)| Unused {
                low: row.low,
                high: row.high,
                bytes_mean: *bytes_mean,
            }).collect();
            let worth = Worth::new(&rows, Some(&unused), cost);
            let gain_from = |from: usize| -> i64 {
                (from..rows.len()).map(|at| told[at].2 as i64 - (told[at].0 * cost) as i64).sum()
            };
            let at = rows.iter().position(|row| Some(row.low) == worth.from_bytes).unwrap_or(rows.len());
            prop_assert_eq!(worth.saving_mean as i64 - worth.cost_mean as i64, gain_from(at));
            for from in 0..=rows.len() {
                prop_assert!(gain_from(at) >= gain_from(from));
            }
        }
    }
}
