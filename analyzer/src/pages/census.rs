//! Who holds nearly empty pages: the blocks in them by size and by age, each with its share of the
//! pages: a page is divided evenly among the blocks that begin or end in it.

use super::SPARSE_BYTES;
use super::span::Span;
use super::table::Table;
use crate::histogram::{row_bounds, row_of};
use serde::Serialize;

/// Millionths of a page in a page.
const WHOLE: u64 = 1_000_000;

/// Blocks that hold nearly empty pages, of one power of two of sizes or ages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SparseRow {
    /// Least number of bytes, or least age in nanoseconds.
    pub low: u64,
    /// First number above (the last row ends at `u64::MAX` and holds it).
    pub high: u64,
    /// Blocks.
    pub blocks: u64,
    /// Their requested bytes.
    pub bytes: u64,
    /// Their shares of nearly empty pages, in thousandths of a page.
    pub pages_milli: u64,
}

/// Blocks that hold nearly empty pages at one moment: those with a byte in a page at most an eighth
/// full (of zero bytes: at an address in one).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sparse {
    /// All of them; `low` and `high` are 0.
    pub all: SparseRow,
    /// By requested bytes.
    pub by_size: Vec<SparseRow>,
    /// By age in nanoseconds.
    pub by_age: Vec<SparseRow>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    blocks: u64,
    bytes: u64,
    millionths: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.blocks += other.blocks;
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.millionths = self.millionths.wrapping_add(other.millionths);
    }

    fn row(&self, (low, high): (u64, u64)) -> SparseRow {
        SparseRow {
            low,
            high,
            blocks: self.blocks,
            bytes: self.bytes,
            // Millionths of a page are rounded down once for each block: as near as can be.
            pages_milli: self.millionths.saturating_add(500) / 1_000,
        }
    }
}

/// Counts them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    by_size: Vec<Count>,
    by_age: Vec<Count>,
}

fn count(rows: &mut Vec<Count>, row: usize, count: Count) {
    if row >= rows.len() {
        rows.resize(row + 1, Count::default());
    }
    rows[row].add(count);
}

impl Census {
    /// Looks at a live block.
    pub fn look(&mut self, table: &Table, span: &Span, bytes: u64, age_ns: u64) {
        let share = |page: u64| {
            let held = table.get(page);
            if held.bytes() > SPARSE_BYTES {
                return None;
            }
            WHOLE.checked_div(held.blocks().into())
        };
        let first = share(span.first);
        let last = match span.last == span.first {
            true => None,
            false => share(span.last),
        };
        if first.is_none() && last.is_none() {
            return;
        }
        let one = Count {
            blocks: 1,
            bytes,
            millionths: first.unwrap_or(0) + last.unwrap_or(0),
        };
        count(&mut self.by_size, row_of(bytes), one);
        count(&mut self.by_age, row_of(age_ns), one);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Census) {
        let rows = [
            (&mut self.by_size, &other.by_size),
            (&mut self.by_age, &other.by_age),
        ];
        for (to, from) in rows {
            for (row, of) in from.iter().enumerate() {
                count(to, row, *of);
            }
        }
    }

    /// What was counted.
    pub fn report(&self) -> Sparse {
        let rows = |counts: &[Count]| {
            let rows = counts.iter().enumerate();
            let rows = rows.map(|(row, of)| of.row(row_bounds(row)));
            rows.filter(|row| row.blocks != 0).collect()
        };
        let mut all = Count::default();
        self.by_size.iter().for_each(|of| all.add(*of));
        Sparse {
            all: all.row((0, 0)),
            by_size: rows(&self.by_size),
            by_age: rows(&self.by_age),
        }
    }
}
