//! Blocks by exact requested size: how many were born, how many lived at the peak of live bytes, and
//! for how long they lived at that size. What size classes would cost is worked out from these
//! counts ([`crate::size_classes`], [`crate::best_classes`]); nothing of classes is known here.
//!
//! Sizes to [`EXACT_MAX`] have a row each. Above it a row holds the sizes `(low, high]` of a 128th of
//! a power of two, with the exact sum of their bytes.

use crate::fact::{AtPeak, Fact, Measure, Peaks, What};
use crate::log_linear::LogLinear;
use serde::Serialize;

/// The greatest size that has a row of its own.
pub const EXACT_MAX: u64 = 32 << 10;
/// Rows that a report lists.
pub const LISTED: usize = 32;

/// Rows above [`EXACT_MAX`]: those of `bytes - 1`, so that a power of two ends a row.
type Rows = LogLinear<7>;

/// How a block counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Once if it was live at the peak of live bytes, at the size it had then.
    AtPeak,
    /// By the nanoseconds that it had a size.
    OverTime,
    /// Once, at its first size.
    Births,
}

impl Weight {
    /// All of them.
    pub const ALL: [Weight; 3] = [Weight::AtPeak, Weight::OverTime, Weight::Births];

    /// A sum of this weight as it is reported: of blocks or bytes over time the mean, 0 where no time
    /// passed.
    pub fn shown(self, sum: u128, duration_ns: u64) -> u64 {
        let shown = match self {
            Weight::OverTime => sum.checked_div(duration_ns.into()).unwrap_or(0),
            Weight::AtPeak | Weight::Births => sum,
        };
        u64::try_from(shown).unwrap_or(u64::MAX)
    }
}

/// The counts of a process while it runs: a hash table of one cache line for each size seen, nothing
/// before the first block.
///
/// Cost of a fact: about 60 instructions without a branch between births and frees; a multiplication
/// finds the cell, of a hundred facts one or two have to look at a second. One cache line is written,
/// two by a resize that changes the size and by a block above [`EXACT_MAX`]. No division; memory is
/// taken when the number of sizes doubles.
#[derive(Clone, Debug, Default)]
pub struct ExactSizes {
    /// None, or a power of two of them; at least two fifths are free.
    cells: Vec<Cell>,
    used: usize,
    /// 64 - binary logarithm of the number of cells.
    shift: u32,
}

/// An amount (blocks, or bytes) with one key, [`block_key`] or [`byte_key`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Cell {
    /// Sum of amount x (time of end - time of beginning), modulo 2^128: complete when all have ended.
    integral_ns: u128,
    live: AtPeak,
    born: u64,
    /// 0 in a free cell.
    key: u32,
}

const _: () = assert!(size_of::<Cell>() == 64);

/// What a fact changes in a cell, for each block or byte.
#[derive(Clone, Copy)]
struct Change {
    /// Modulo 2^64.
    live: u64,
    born: u64,
    /// Modulo 2^128.
    integral_ns: u128,
}

impl Change {
    #[inline]
    fn birth(time_ns: u64) -> Change {
        Change {
            live: 1,
            born: 1,
            integral_ns: u128::from(time_ns).wrapping_neg(),
        }
    }

    #[inline]
    fn end(time_ns: u64) -> Change {
        Change {
            live: 1u64.wrapping_neg(),
            born: 0,
            integral_ns: time_ns.into(),
        }
    }
}

impl Cell {
    #[inline]
    fn change(&mut self, peaks: u64, amount: u64, by: Change) {
        self.live.add(peaks, by.live.wrapping_mul(amount));
        self.born = self.born.wrapping_add(by.born.wrapping_mul(amount));
        let integral_ns = by.integral_ns.wrapping_mul(amount.into());
        self.integral_ns = self.integral_ns.wrapping_add(integral_ns);
    }
}

/// Key of the blocks of a size; not 0. Every second number from the first row on is left for bytes.
#[inline]
fn block_key(bytes: u64) -> u32 {
    if bytes <= EXACT_MAX {
        bytes as u32 + 1
    } else {
        FIRST_ROW + 2 * (Rows::index(bytes - 1) as u32)
    }
}

/// Key of the bytes of the row with this key.
#[inline]
fn byte_key(block_key: u32) -> u32 {
    block_key + 1
}

/// Above all keys of exact sizes, which reach to `EXACT_MAX + 1`.
const FIRST_ROW: u32 = EXACT_MAX as u32 + 2;

/// The sizes `[low, high]` with a key.
fn sizes_of(key: u32) -> (u64, u64) {
    if key < FIRST_ROW {
        return (u64::from(key) - 1, u64::from(key) - 1);
    }
    let (low, high) = Rows::bounds((key - FIRST_ROW) as usize / 2);
    (low + 1, high.saturating_add(1))
}

impl ExactSizes {
    /// Where the search for a key begins.
    #[inline]
    fn first(&self, key: u32) -> usize {
        // 2^64 / the golden ratio: the high bits of multiples of any step are well spread.
        let hash = u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> self.shift) as usize
    }

    /// Place of the cell with this key, or of the free one where it belongs.
    fn place(&self, key: u32) -> usize {
        let mask = self.cells.len().wrapping_sub(1);
        let mut at = self.first(key);
        while let Some(cell) = self.cells.get(at)
            && cell.key != key
            && cell.key != 0
        {
            at = (at + 1) & mask;
        }
        at
    }

    #[inline]
    fn cell(&mut self, key: u32) -> &mut Cell {
        let first = self.first(key);
        let at = match self.cells.get(first) {
            Some(cell) if cell.key == key => first,
            _ => self.search(key),
        };
        &mut self.cells[at]
    }

    /// Place of the cell with this key, which is entered if there is none.
    #[inline(never)]
    fn search(&mut self, key: u32) -> usize {
        let at = self.place(key);
        if let Some(cell) = self.cells.get(at)
            && cell.key == key
        {
            // Of two that want the same place, the one used more gets it: all places from the first to
            // this one are taken, so the other is still found.
            let first = self.first(key);
            if cell.born <= self.cells[first].born {
                return at;
            }
            self.cells.swap(first, at);
            return first;
        }
        if (self.used + 1) * 5 > self.cells.len() * 3 {
            let more = vec![Cell::default(); (self.cells.len() * 2).max(4)];
            self.shift = 64 - more.len().ilog2();
            for cell in std::mem::replace(&mut self.cells, more) {
                if cell.key != 0 {
                    let at = self.place(cell.key);
                    self.cells[at] = cell;
                }
            }
        }
        self.used += 1;
        let at = self.place(key);
        self.cells[at].key = key;
        at
    }

    /// Changes the count of blocks, and above [`EXACT_MAX`] also that of bytes.
    #[inline]
    fn change(&mut self, bytes: u64, peaks: u64, by: Change) {
        let key = block_key(bytes);
        self.cell(key).change(peaks, 1, by);
        if bytes > EXACT_MAX {
            self.cell(byte_key(key)).change(peaks, bytes, by);
        }
    }

    /// Facts other than births and frees of blocks up to [`EXACT_MAX`].
    #[inline(never)]
    fn rare(&mut self, fact: &Fact, peaks: u64) {
        let time_ns = fact.time_ns;
        match fact.what {
            What::Born => self.change(fact.bytes, peaks, Change::birth(time_ns)),
            What::Resized => {
                if fact.bytes != fact.old_bytes {
                    self.change(fact.old_bytes, peaks, Change::end(time_ns));
                    let grown = Change {
                        born: 0,
                        ..Change::birth(time_ns)
                    };
                    self.change(fact.bytes, peaks, grown);
                }
            }
            // With its process a kept block ends, too: nothing asks what is live after that.
            What::Freed | What::Displaced | What::Kept => {
                self.change(fact.bytes, peaks, Change::end(time_ns));
            }
            What::Nothing => {}
        }
    }

    /// The counts of a process that has ended, after the facts of kept blocks.
    pub fn finish(&self, peaks: Peaks) -> SizeCounts {
        let mut cells: Vec<&Cell> = self.cells.iter().filter(|cell| cell.key != 0).collect();
        cells.sort_unstable_by_key(|cell| cell.key);
        let amounts = |cell: &Cell| {
            [
                u128::from(cell.live.at_peak(peaks.bytes)),
                cell.integral_ns,
                u128::from(cell.born),
            ]
        };
        let mut rows: Vec<SizeCount> = Vec::new();
        for cell in cells {
            let amounts = amounts(cell);
            if cell.key >= FIRST_ROW && !(cell.key - FIRST_ROW).is_multiple_of(2) {
                if let Some(row) = rows.last_mut() {
                    row.bytes = amounts;
                }
                continue;
            }
            let (low, high) = sizes_of(cell.key);
            let bytes = amounts.map(|blocks| blocks.saturating_mul(low.into()));
            rows.push(SizeCount {
                low,
                high,
                blocks: amounts,
                bytes,
            });
        }
        SizeCounts { rows }
    }
}

impl Measure for ExactSizes {
    #[inline]
    fn fact(&mut self, fact: &Fact, peaks: Peaks) {
        if fact.is_inherited() {
            return;
        }
        if fact.bytes <= EXACT_MAX && matches!(fact.what, What::Born | What::Freed) {
            let cell = self.cell(block_key(fact.bytes));
            // No branch between the two, as nobody can guess which comes next: -x is !x + 1.
            let born = u64::from(fact.what == What::Born);
            let inverted = u128::from(born).wrapping_neg();
            let by = Change {
                live: born.wrapping_mul(2).wrapping_sub(1),
                born,
                integral_ns: (u128::from(fact.time_ns) ^ inverted).wrapping_add(born.into()),
            };
            cell.change(peaks.bytes, 1, by);
        } else {
            self.rare(fact, peaks.bytes);
        }
    }
}

/// One size, or above [`EXACT_MAX`] the sizes of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeCount {
    /// Fewest bytes.
    pub low: u64,
    /// Most bytes, the same as `low` to [`EXACT_MAX`].
    pub high: u64,
    /// Blocks, by [`Weight`].
    blocks: [u128; 3],
    /// Sum of their bytes, by [`Weight`].
    bytes: [u128; 3],
}

impl SizeCount {
    /// Blocks, weighted.
    pub fn blocks(&self, weight: Weight) -> u128 {
        self.blocks[weight as usize]
    }

    /// Sum of their bytes, weighted.
    pub fn bytes(&self, weight: Weight) -> u128 {
        self.bytes[weight as usize]
    }

    /// The size for which all blocks of the row are taken: the size, or in a row of several their
    /// mean, rounded up.
    pub fn typical(&self, weight: Weight) -> u64 {
        let blocks = self.blocks(weight);
        let mean = match self.low == self.high || blocks == 0 {
            true => return self.high,
            false => self.bytes(weight).div_ceil(blocks),
        };
        u64::try_from(mean).map_or(self.high, |mean| mean.clamp(self.low, self.high))
    }
}

/// The counts of a process that ended, or of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeCounts {
    /// By ascending size.
    rows: Vec<SizeCount>,
}

impl SizeCounts {
    /// Rows that ever held a block, by ascending size.
    pub fn rows(&self) -> &[SizeCount] {
        &self.rows
    }

    /// Requested bytes, weighted.
    pub fn bytes(&self, weight: Weight) -> u128 {
        let bytes = self.rows.iter().map(|row| row.bytes(weight));
        bytes.fold(0, u128::saturating_add)
    }

    /// Adds a process: births and times are summed. Peaks of processes are at different times, so what
    /// is told of the peak is that of the process with more bytes then; of equals, of the one added
    /// first.
    pub fn merge(&mut self, other: &SizeCounts) {
        let peak = Weight::AtPeak as usize;
        let takes = other.bytes(Weight::AtPeak) > self.bytes(Weight::AtPeak);
        let own = std::mem::take(&mut self.rows);
        self.rows.reserve(own.len().max(other.rows.len()));
        let (mut ours, mut theirs) = (own.iter().peekable(), other.rows.iter().peekable());
        loop {
            let low = match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) => a.low.min(b.low),
                (Some(one), None) | (None, Some(one)) => one.low,
                (None, None) => break,
            };
            let a = ours.next_if(|row| row.low == low).copied();
            let b = theirs.next_if(|row| row.low == low).copied();
            let mut row = a.or(b).unwrap_or_default();
            let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
            for at in 0..row.blocks.len() {
                row.blocks[at] = a.blocks[at].saturating_add(b.blocks[at]);
                row.bytes[at] = a.bytes[at].saturating_add(b.bytes[at]);
            }
            let from = if takes { b } else { a };
            row.blocks[peak] = from.blocks[peak];
            row.bytes[peak] = from.bytes[peak];
            self.rows.push(row);
        }
    }

    /// The sizes asked for most. `duration_ns` is that of the process, or of the run.
    pub fn report(&self, duration_ns: u64) -> ExactSizesReport {
        let mut most: Vec<&SizeCount> = self.rows.iter().collect();
        most.sort_by_key(|row| (std::cmp::Reverse(row.blocks(Weight::Births)), row.low));
        most.truncate(LISTED);
        let listed = |row: &&SizeCount| {
            let blocks = |weight: Weight| weight.shown(row.blocks(weight), duration_ns);
            let over_time = row.blocks(Weight::OverTime).saturating_mul(1_000);
            ExactSize {
                low: row.low,
                high: row.high.saturating_add(1),
                blocks: blocks(Weight::Births),
                bytes: Weight::Births.shown(row.bytes(Weight::Births), duration_ns),
                live_blocks_at_peak: blocks(Weight::AtPeak),
                live_milliblocks_mean: Weight::OverTime.shown(over_time, duration_ns),
            }
        };
        ExactSizesReport {
            exact_max: EXACT_MAX,
            sizes: self.rows.len() as u64,
            most: most.iter().map(listed).collect(),
        }
    }
}

/// The sizes asked for most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExactSizesReport {
    /// The greatest size that is counted alone; larger ones by 128ths of a power of two.
    pub exact_max: u64,
    /// Different sizes (rows of sizes above `exact_max`) that blocks ever had.
    pub sizes: u64,
    /// Those at which most blocks were born, at most [`LISTED`] of them.
    pub most: Vec<ExactSize>,
}

/// One size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExactSize {
    /// Fewest bytes.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// Blocks born at it.
    pub blocks: u64,
    /// Sum of their first sizes.
    pub bytes: u64,
    /// Blocks that had it at the peak of live bytes.
    pub live_blocks_at_peak: u64,
    /// Mean number of live blocks that had it, in thousandths.
    pub live_milliblocks_mean: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The sizes of a row, from the definition: cut the power of two below `bytes - 1` in 128.
    fn row_slowly(bytes: u64) -> (u64, u64) {
        if bytes <= EXACT_MAX {
            return (bytes, bytes);
        }
        let power = 1 << (bytes - 1).ilog2();
        let step = power / 128;
        let low = power + (bytes - 1 - power) / step * step;
        (low + 1, low.saturating_add(step))
    }

    /// Every block by itself: at which size it was born, how long it had each.
    fn slowly(stream: &Stream) -> SizeCounts {
        let mut rows: BTreeMap<(u64, u64), ([u128; 3], [u128; 3])> = BTreeMap::new();
        let mut add = |bytes: u64, weight: Weight, amount: u64| {
            let (blocks, sums) = rows.entry(row_slowly(bytes)).or_default();
            blocks[weight as usize] += u128::from(amount);
            sums[weight as usize] += u128::from(amount) * u128::from(bytes);
        };
        for history in stream.histories() {
            let facts: Vec<Fact> = history.iter().map(|at| stream.told[*at].0).collect();
            add(facts[0].bytes, Weight::Births, 1);
            for pair in facts.windows(2) {
                let lived = pair[1].time_ns - pair[0].time_ns;
                add(pair[0].bytes, Weight::OverTime, lived);
            }
        }
        for fact in (stream.bytes_peak_at.iter()).flat_map(|at| stream.live_after(*at)) {
            add(fact.bytes, Weight::AtPeak, 1);
        }
        let rows = rows.into_iter();
        SizeCounts {
            rows: rows
                .map(|((low, high), (blocks, bytes))| SizeCount {
                    low,
                    high,
                    blocks,
                    bytes,
                })
                .collect(),
        }
    }

    fn counts(stream: &Stream) -> SizeCounts {
        let mut sizes = ExactSizes::default();
        stream.tell(&mut sizes);
        sizes.finish(stream.peaks)
    }

    proptest! {
        #[test]
        fn every_block_counts_at_its_sizes(stream in streams(400)) {
            prop_assert_eq!(counts(&stream), slowly(&stream));
        }

        #[test]
        fn processes_are_summed_but_for_the_peak(a in streams(100), b in streams(100)) {
            let (one, other) = (slowly(&a), slowly(&b));
            let mut both = counts(&a);
            both.merge(&counts(&b));
            let at = |counts: &SizeCounts, low| {
                let row = counts.rows().iter().find(|row| row.low == low);
                row.copied().unwrap_or_default()
            };
            let higher = if other.bytes(Weight::AtPeak) > one.bytes(Weight::AtPeak) { &other } else { &one };
            prop_assert!(both.rows().is_sorted_by(|a, b| a.high < b.low));
            for low in one.rows().iter().chain(other.rows()).map(|row| row.low) {
                let row = at(&both, low);
                for weight in [Weight::OverTime, Weight::Births] {
                    prop_assert_eq!(row.blocks(weight), at(&one, low).blocks(weight) + at(&other, low).blocks(weight));
                    prop_assert_eq!(row.bytes(weight), at(&one, low).bytes(weight) + at(&other, low).bytes(weight));
                }
                prop_assert_eq!(row.blocks(Weight::AtPeak), at(higher, low).blocks(Weight::AtPeak));
            }
        }

        #[test]
        fn every_size_is_in_its_row(seed: u64, shift in 0u32..64) {
            let bytes = seed >> shift;
            prop_assert_eq!(sizes_of(block_key(bytes)), row_slowly(bytes));
        }

        #[test]
        fn the_report_lists_sizes_by_births(stream in streams(300), duration in 1u64..1 << 40) {
            let slow = slowly(&stream);
            let report = counts(&stream).report(duration);
            let mut births: Vec<u128> = slow.rows().iter().map(|row| row.blocks(Weight::Births)).collect();
            births.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(report.sizes, births.len() as u64);
            prop_assert_eq!(report.most.len(), births.len().min(LISTED));
            for (size, births) in report.most.iter().zip(births) {
                let row = slow.rows().iter().find(|row| row.low == size.low).unwrap();
                prop_assert_eq!(u128::from(size.blocks), births);
                prop_assert_eq!(row.high + 1, size.high);
                let mean = row.blocks(Weight::OverTime) * 1000 / u128::from(duration);
                prop_assert_eq!(u128::from(size.live_milliblocks_mean), mean);
            }
        }
    }

    #[test]
    fn little_seen_is_little_held_and_any_number_is_taken() {
        assert!(ExactSizes::default().cells.is_empty());
        let mut sizes = ExactSizes::default();
        let fact = Fact {
            bytes: u64::MAX,
            time_ns: u64::MAX,
            ..Fact::default()
        };
        for what in [What::Born, What::Born, What::Freed, What::Freed, What::Kept] {
            sizes.fact(&Fact { what, ..fact }, Peaks::default());
        }
        assert_eq!(sizes.cells.len() * size_of::<Cell>(), 256);
        let counts = sizes.finish(Peaks::default());
        assert_eq!(counts.rows().len(), 1);
        assert_eq!(counts.rows()[0].blocks(Weight::Births), 2);
        assert_eq!(counts.rows()[0].high, u64::MAX);
        assert_eq!(counts.report(0).most[0].live_milliblocks_mean, 0);
    }
}
