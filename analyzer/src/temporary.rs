//! Temporary blocks: freed before the process had allocated 1, 2, 11, 101 or 1,001 more blocks; and
//! the blocks that stay to the end. All together and by powers of two of the first size.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::histogram::{class_row, row_bounds};
use crate::ratio::ppm;
use serde::Serialize;

/// A block is temporary within n when at most n blocks were allocated in its life. With 0 no
/// allocation came between.
pub const WITHIN: [u64; 5] = [0, 1, 10, 100, 1_000];

/// Steps of a row: freed within each number and not within the one before, freed later, kept,
/// displaced.
const STEPS: usize = WITHIN.len() + 3;
const LATER: usize = WITHIN.len();
const KEPT: usize = WITHIN.len() + 1;
const DISPLACED: usize = WITHIN.len() + 2;

/// The step of a freed block by the allocations in its life, up to the greatest number: nearly all
/// blocks that are freed soon read its first line.
static STEP_OF: [u8; WITHIN[WITHIN.len() - 1] as usize + 1] = {
    let mut steps = [0; WITHIN[WITHIN.len() - 1] as usize + 1];
    let mut allocations = 0;
    while allocations < steps.len() {
        let mut step = 0;
        while WITHIN[step] < allocations as u64 {
            step += 1;
        }
        steps[allocations] = step as u8;
        allocations += 1;
    }
    steps
};

/// Blocks and bytes, and their share of all the process allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Blocks.
    pub blocks: u64,
    /// Their share of all blocks, in millionths.
    pub blocks_ppm: u64,
    /// Bytes that they had last.
    pub bytes: u64,
    /// The share of the bytes that all blocks had last, in millionths.
    pub bytes_ppm: u64,
}

/// Blocks that were freed while few others were allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TemporaryWithin {
    /// At most so many blocks were allocated in their life.
    pub allocations: u64,
    /// How many they are, those of smaller numbers included.
    #[serde(flatten)]
    pub part: Part,
}

/// What became of all blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fates {
    /// All blocks.
    pub blocks: u64,
    /// Bytes that they had last.
    pub bytes: u64,
    /// Temporary ones, for each number of [`WITHIN`].
    pub within: Vec<TemporaryWithin>,
    /// Freed later than all of these.
    pub later: Part,
    /// Not freed by the end of the process.
    pub kept: Part,
    /// Ended unseen.
    pub displaced: Part,
}

/// What became of the blocks of a power of two of first sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FatesBySize {
    /// Fewest bytes.
    pub low: u64,
    /// First number of bytes above.
    pub high: u64,
    /// All blocks.
    pub blocks: u64,
    /// Bytes that they had last.
    pub bytes: u64,
    /// Temporary blocks, for each number of [`WITHIN`], those of smaller numbers included.
    pub within_blocks: [u64; WITHIN.len()],
    /// Their bytes.
    pub within_bytes: [u64; WITHIN.len()],
    /// Blocks freed later.
    pub later_blocks: u64,
    /// Their bytes.
    pub later_bytes: u64,
    /// Blocks not freed by the end of the process.
    pub kept_blocks: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Blocks that ended unseen.
    pub displaced_blocks: u64,
    /// Their bytes.
    pub displaced_bytes: u64,
}

/// Temporary and lasting blocks of a process or of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TemporaryReport {
    /// Of all sizes.
    #[serde(flatten)]
    pub fates: Fates,
    /// By first size, rows without blocks left out.
    pub by_size: Vec<FatesBySize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    blocks: u64,
    bytes: u64,
}

/// Two cache lines.
type Row = [Cell; STEPS];

/// Collects what became of blocks.
#[derive(Clone, Debug, Default)]
pub struct Temporary {
    /// By first size, as far as any was used.
    rows: Vec<Row>,
}

impl Measure for Temporary {
    /// Costs about 25 instructions and a cache line of a table of 4 KiB for a block that ends, a
    /// comparison for other facts.
    #[inline]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        let step = match fact.what {
            What::Freed => match STEP_OF.get(fact.life_allocations as usize) {
                Some(step) => usize::from(*step),
                None => LATER,
            },
            What::Kept => KEPT,
            What::Displaced => DISPLACED,
            What::Born | What::Resized | What::Nothing => return,
        };
        if fact.is_inherited() {
            return;
        }
        let row = class_row(fact.class);
        if row >= self.rows.len() {
            self.reach(row);
        }
        if let Some(cell) = self.rows[row].get_mut(step) {
            cell.blocks += 1;
            cell.bytes = cell.bytes.wrapping_add(fact.bytes);
        }
    }
}

impl Temporary {
    #[cold]
    fn reach(&mut self, row: usize) {
        self.rows.resize(row + 1, Row::default());
    }

    /// Adds all of another process.
    pub fn merge(&mut self, other: &Temporary) {
        if other.rows.len() > self.rows.len() {
            self.rows.resize(other.rows.len(), Row::default());
        }
        for (to, from) in self.rows.iter_mut().zip(&other.rows) {
            add_row(to, from);
        }
    }

    /// What became of the blocks.
    pub fn report(&self) -> TemporaryReport {
        let mut all = Row::default();
        let mut by_size = Vec::new();
        for (row, cells) in self.rows.iter().enumerate() {
            add_row(&mut all, cells);
            if cells.iter().any(|cell| cell.blocks != 0) {
                by_size.push(fates_by_size(row, cells));
            }
        }
        TemporaryReport {
            fates: fates(&all),
            by_size,
        }
    }
}

fn add(to: &mut Cell, from: Cell) {
    to.blocks += from.blocks;
    to.bytes = to.bytes.wrapping_add(from.bytes);
}

fn add_row(to: &mut Row, from: &Row) {
    for (to, from) in to.iter_mut().zip(from) {
        add(to, *from);
    }
}

fn fates(row: &Row) -> Fates {
    let mut all = Cell::default();
    for cell in row {
        add(&mut all, *cell);
    }
    let part = |cell: Cell| Part {
        blocks: cell.blocks,
        blocks_ppm: ppm(cell.blocks.into(), all.blocks.into()),
        bytes: cell.bytes,
        bytes_ppm: ppm(cell.bytes.into(), all.bytes.into()),
    };
    let mut sum = Cell::default();
    let mut within = Vec::new();
    for (allocations, cell) in WITHIN.into_iter().zip(row) {
        add(&mut sum, *cell);
        within.push(TemporaryWithin {
            allocations,
            part: part(sum),
        });
    }
    Fates {
        blocks: all.blocks,
        bytes: all.bytes,
        within,
        later: part(row[LATER]),
        kept: part(row[KEPT]),
        displaced: part(row[DISPLACED]),
    }
}

fn fates_by_size(row: usize, cells: &Row) -> FatesBySize {
    let (low, high) = row_bounds(row);
    let fates = fates(cells);
    let mut of = FatesBySize {
        low,
        high,
        blocks: fates.blocks,
        bytes: fates.bytes,
        later_blocks: fates.later.blocks,
        later_bytes: fates.later.bytes,
        kept_blocks: fates.kept.blocks,
        kept_bytes: fates.kept.bytes,
        displaced_blocks: fates.displaced.blocks,
        displaced_bytes: fates.displaced.bytes,
        ..FatesBySize::default()
    };
    for (n, within) in fates.within.iter().enumerate() {
        of.within_blocks[n] = within.part.blocks;
        of.within_bytes[n] = within.part.bytes;
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use proptest::prelude::*;

    /// First size, last size, how it ended, and how many blocks were born between, counted.
    fn lives(stream: &Stream) -> Vec<(u64, u64, What, u64)> {
        let life = |history: &Vec<usize>| {
            let (from, to) = (history[0], history[history.len() - 1]);
            let between = stream.told[from + 1..to].iter();
            let born = between.filter(|(fact, _)| fact.what == What::Born).count();
            let last = stream.told[to].0;
            (
                stream.told[from].0.bytes,
                last.bytes,
                last.what,
                born as u64,
            )
        };
        stream.histories().iter().map(life).collect()
    }

    fn check(found: &Fates, lives: &[(u64, u64, What, u64)]) -> Result<(), TestCaseError> {
        let blocks = lives.len() as u64;
        let bytes: u64 = lives.iter().map(|life| life.1).sum();
        prop_assert_eq!((found.blocks, found.bytes), (blocks, bytes));
        let part = |is_in: &dyn Fn(What, u64) -> bool| {
            let of: Vec<u64> = lives
                .iter()
                .filter(|life| is_in(life.2, life.3))
                .map(|life| life.1)
                .collect();
            let (part_blocks, part_bytes) = (of.len() as u64, of.iter().sum::<u64>());
            Part {
                blocks: part_blocks,
                blocks_ppm: part_blocks * 1_000_000 / blocks.max(1),
                bytes: part_bytes,
                bytes_ppm: part_bytes * 1_000_000 / bytes.max(1),
            }
        };
        prop_assert_eq!(found.within.len(), WITHIN.len());
        for within in &found.within {
            let most = within.allocations;
            prop_assert_eq!(
                within.part,
                part(&|what, born| what == What::Freed && born <= most)
            );
        }
        prop_assert_eq!(
            found.later,
            part(&|what, born| what == What::Freed && born > 1_000)
        );
        prop_assert_eq!(found.kept, part(&|what, _| what == What::Kept));
        prop_assert_eq!(found.displaced, part(&|what, _| what == What::Displaced));
        Ok(())
    }

    fn check_all(
        report: &TemporaryReport,
        lives: &[(u64, u64, What, u64)],
    ) -> Result<(), TestCaseError> {
        check(&report.fates, lives)?;
        let mut seen = 0;
        for row in &report.by_size {
            let is_in = |life: &&(u64, u64, What, u64)| (row.low..row.high).contains(&life.0);
            let of_row: Vec<_> = lives.iter().filter(is_in).copied().collect();
            let sum = |is_in: &dyn Fn(What, u64) -> bool| {
                let of: Vec<u64> = of_row
                    .iter()
                    .filter(|life| is_in(life.2, life.3))
                    .map(|life| life.1)
                    .collect();
                (of.len() as u64, of.iter().sum::<u64>())
            };
            prop_assert!(row.blocks != 0);
            prop_assert_eq!((row.blocks, row.bytes), sum(&|_, _| true));
            for (n, most) in WITHIN.into_iter().enumerate() {
                let within = sum(&|what, born| what == What::Freed && born <= most);
                prop_assert_eq!((row.within_blocks[n], row.within_bytes[n]), within);
            }
            let later = sum(&|what, born| what == What::Freed && born > 1_000);
            prop_assert_eq!((row.later_blocks, row.later_bytes), later);
            let kept = sum(&|what, _| what == What::Kept);
            prop_assert_eq!((row.kept_blocks, row.kept_bytes), kept);
            let displaced = sum(&|what, _| what == What::Displaced);
            prop_assert_eq!((row.displaced_blocks, row.displaced_bytes), displaced);
            seen += of_row.len();
        }
        prop_assert_eq!(seen, lives.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn blocks_are_temporary_by_the_births_in_their_life(one in streams(60), other in streams(600)) {
            let (mut first, mut second) = (Temporary::default(), Temporary::default());
            one.tell(&mut first);
            other.tell(&mut second);
            check_all(&first.report(), &lives(&one))?;
            check_all(&second.report(), &lives(&other))?;
            first.merge(&second);
            check_all(&first.report(), &[lives(&one), lives(&other)].concat())?;
        }
    }

    #[test]
    fn the_numbers_themselves_are_within() {
        let mut measure = Temporary::default();
        for life_allocations in [0, 1, 2, 10, 11, 1_000, 1_001, u64::MAX] {
            let fact = Fact {
                life_allocations,
                what: What::Freed,
                bytes: 10,
                ..Fact::default()
            };
            measure.fact(&fact, Peaks::default());
        }
        let fates = measure.report().fates;
        let blocks: Vec<u64> = fates.within.iter().map(|of| of.part.blocks).collect();
        assert_eq!(blocks, [1, 2, 4, 5, 6]);
        assert_eq!(
            fates.later,
            Part {
                blocks: 2,
                blocks_ppm: 250_000,
                bytes: 20,
                bytes_ppm: 250_000
            }
        );
    }
}
