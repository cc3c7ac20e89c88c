//! Blocks by the time they were born in and the time they ended in, in coarse bins of time that all
//! processes share. Phases are found after the pass; their tables are added up from these bins.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::grid::Grid;
use crate::tally::{Amount, reach};

/// Bins of time at most. Phases begin at bins.
pub const BINS: usize = 128;

/// Cells that two processes may have together before equal ones are joined.
const CELLS_MANY: usize = BINS * BINS;

/// Blocks born in one bin that ended in another.
#[derive(Clone, Copy, Debug)]
struct Cell {
    born: u64,
    ended: u64,
    amount: Amount,
}

/// Blocks by birth and end.
#[derive(Clone, Debug)]
pub struct Outlive {
    grid: Grid,
    /// Born and ended in the current bin.
    own: Amount,
    /// Ended in the current bin, by bin of birth.
    row: Vec<Amount>,
    /// Ended in bins before it.
    cells: Vec<Cell>,
    /// Not freed by the end of their process, by bin of birth.
    kept: Vec<Amount>,
}

/// What became of the blocks born in one phase; their bytes are those that they had at their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// By the phase they ended in: their own one first, then the ones after it.
    pub ended: Vec<Amount>,
    /// Those that were not freed.
    pub kept: Amount,
}

impl Outlive {
    /// Of a process that begins at `start_ns`; of the run, with 0.
    pub fn new(start_ns: u64) -> Outlive {
        Outlive {
            grid: Grid::new(start_ns, BINS),
            own: Amount::default(),
            row: Vec::new(),
            cells: Vec::new(),
            kept: Vec::new(),
        }
    }

    #[cold]
    fn turn(&mut self, now_ns: u64) {
        self.close();
        let before = self.grid;
        self.grid.advance(now_ns);
        self.widen(&before);
    }

    /// Puts what ended in the current bin to the others.
    fn close(&mut self) {
        let (first, ended) = (self.grid.first(), self.grid.current());
        let own = std::mem::take(&mut self.own);
        let row = (first..).zip(self.row.drain(..));
        let all = row.chain([(ended, own)]);
        let cells = all.map(|(born, amount)| Cell {
            born,
            ended,
            amount,
        });
        self.cells
            .extend(cells.filter(|cell| cell.amount != Amount::default()));
    }

    /// The bins were those of `before`, now they are the grid's.
    fn widen(&mut self, before: &Grid) {
        let wider = self.grid.shift - before.shift;
        if wider == 0 && before.first() == self.grid.first() {
            return;
        }
        for cell in &mut self.cells {
            cell.born >>= wider;
            cell.ended >>= wider;
        }
        self.join();
        for (born, amount) in (before.first()..).zip(std::mem::take(&mut self.kept)) {
            self.keep(born >> wider, amount);
        }
    }

    /// Makes one of equal cells.
    fn join(&mut self) {
        self.cells
            .sort_unstable_by_key(|cell| (cell.ended, cell.born));
        self.cells.dedup_by(|cell, before| {
            let same = (cell.ended, cell.born) == (before.ended, before.born);
            if same {
                before.amount.add(cell.amount);
            }
            same
        });
    }

    fn keep(&mut self, born: u64, amount: Amount) {
        add(
            &mut self.kept,
            born.saturating_sub(self.grid.first()),
            amount,
        );
    }

    /// Adds the blocks of another process.
    pub fn merge(&mut self, other: &Outlive) {
        self.close();
        let before = self.grid;
        let last_ns = before.begin_ns.max(other.grid.begin_ns);
        self.grid.start_ns = before.start_ns.min(other.grid.start_ns);
        self.grid.shift = before.shift.max(other.grid.shift);
        self.grid.advance(last_ns);
        self.widen(&before);
        let mut other = other.clone();
        other.close();
        let wider = self.grid.shift - other.grid.shift;
        let cells = other.cells.iter().map(|cell| Cell {
            born: cell.born >> wider,
            ended: cell.ended >> wider,
            ..*cell
        });
        self.cells.extend(cells);
        if self.cells.len() > CELLS_MANY {
            self.join();
        }
        for (born, amount) in (other.grid.first()..).zip(other.kept) {
            self.keep(born >> wider, amount);
        }
    }

    /// What became of the blocks born in each of the phases that begin at these moments, in order. A
    /// bin belongs to the phase in which it begins; what lies before the first belongs to the first.
    pub(crate) fn fates(&self, begins_ns: &[u64]) -> Vec<Fate> {
        let shift = self.grid.shift;
        let phase = |bin: u64| {
            let begun = begins_ns.partition_point(|begin_ns| *begin_ns <= bin << shift);
            begun.saturating_sub(1)
        };
        let count = begins_ns.len();
        let mut fates: Vec<Fate> = (0..count)
            .map(|at| Fate {
                ended: vec![Amount::default(); count - at],
                kept: Amount::default(),
            })
            .collect();
        let mut all = self.clone();
        all.close();
        for cell in &all.cells {
            let (born, ended) = (phase(cell.born), phase(cell.ended));
            if let Some(fate) = fates.get_mut(born.min(ended))
                && let Some(amount) = fate.ended.get_mut(ended.saturating_sub(born))
            {
                amount.add(cell.amount);
            }
        }
        for (born, amount) in (self.grid.first()..).zip(&self.kept) {
            if let Some(fate) = fates.get_mut(phase(born)) {
                fate.kept.add(*amount);
            }
        }
        fates
    }

    #[inline]
    fn ended(&mut self, fact: &Fact) {
        if fact.time_ns >= self.grid.end_ns {
            self.turn(fact.time_ns);
        }
        let born_ns = fact.born_ns();
        if born_ns >= self.grid.begin_ns {
            self.own.count(fact.bytes);
            return;
        }
        let born = self.grid.bin(born_ns).saturating_sub(self.grid.first());
        match self.row.get_mut(born as usize) {
            Some(amount) => amount.count(fact.bytes),
            None => self.ended_first(born, fact.bytes),
        }
    }

    #[cold]
    fn ended_first(&mut self, born: u64, bytes: u64) {
        let before = self.grid.current().saturating_sub(self.grid.first());
        self.row.resize(before as usize, Amount::default());
        add(&mut self.row, born, Amount { blocks: 1, bytes });
    }

    #[cold]
    fn kept(&mut self, fact: &Fact) {
        if fact.time_ns >= self.grid.end_ns {
            self.turn(fact.time_ns);
        }
        let (blocks, bytes) = (1, fact.bytes);
        self.keep(self.grid.bin(fact.born_ns()), Amount { blocks, bytes });
    }
}

/// Adds to the element at `at`, which is less than [`BINS`] with all times of a process in order.
fn add(amounts: &mut Vec<Amount>, at: u64, amount: Amount) {
    reach(amounts, at.min(BINS as u64 - 1) as usize).add(amount);
}

impl Measure for Outlive {
    /// Some 11 instructions a fact (callgrind, a browser's trace). A birth costs a look at what it is;
    /// an end two compares and two additions, and of a block born in another bin one more cache line,
    /// of at most 2 KiB that all such ends share.
    #[inline]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        match fact.what {
            What::Freed | What::Displaced if !fact.is_inherited() => self.ended(fact),
            What::Kept if !fact.is_inherited() => self.kept(fact),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use crate::series::SHIFT_MIN;
    use crate::tally::slow::tell_later;
    use proptest::prelude::*;

    /// The definition: of each block, the phases of its birth and of its end. Birth and end count at
    /// the begin of their bins.
    fn slowly(streams: &[(&Stream, u64)], begins_ns: &[u64], step_ns: u64) -> Vec<Fate> {
        let phase = |at_ns: u64| {
            let bin_ns = at_ns / step_ns * step_ns;
            let begun = begins_ns.iter().filter(|begin| **begin <= bin_ns).count();
            begun.max(1) - 1
        };
        let mut fates = Vec::new();
        for at in 0..begins_ns.len() {
            fates.push(Fate {
                ended: vec![Amount::default(); begins_ns.len() - at],
                kept: Amount::default(),
            });
        }
        for (stream, later_ns) in streams {
            for history in stream.histories() {
                let (birth, _) = stream.told[history[0]];
                let (end, _) = stream.told[history[history.len() - 1]];
                let born = phase(birth.time_ns + later_ns);
                let amount = match end.what {
                    What::Kept => &mut fates[born].kept,
                    _ => &mut fates[born].ended[phase(end.time_ns + later_ns) - born],
                };
                amount.count(end.bytes);
            }
        }
        fates
    }

    fn measured(stream: &Stream, later_ns: u64) -> Outlive {
        let mut outlive = Outlive::new(later_ns);
        tell_later(stream, later_ns, &mut outlive);
        outlive
    }

    proptest! {
        /// Every block is in the phases of its birth and its end, in a process and in two together.
        #[test]
        fn blocks_are_where_they_were_born_and_ended(
            a in streams(150),
            b in streams(150),
            later_ns in prop_oneof![0u64..3_000, 0u64..20_000_000_000],
            cuts in proptest::collection::vec(0u64..128, 0..6),
        ) {
            let one = measured(&a, 0);
            let other = measured(&b, later_ns);
            for (all, start_ns, end_ns) in [
                (vec![(&a, 0)], 0, a.end_ns),
                (vec![(&b, later_ns)], later_ns, b.end_ns + later_ns),
                (vec![(&a, 0), (&b, later_ns)], 0, a.end_ns.max(b.end_ns + later_ns)),
            ] {
                let shift = (SHIFT_MIN..).find(|shift| (end_ns >> shift) - (start_ns >> shift) < 128);
                let step_ns = 1 << shift.unwrap();
                let mut begins_ns: Vec<u64> =
                    cuts.iter().map(|cut| (start_ns / step_ns + cut) * step_ns).collect();
                begins_ns.push(start_ns);
                begins_ns.sort_unstable();
                begins_ns.dedup();
                let measure = match all[..] {
                    [(_, 0)] if std::ptr::eq(all[0].0, &a) => one.clone(),
                    [_] => other.clone(),
                    _ => {
                        let mut run = Outlive::new(0);
                        run.merge(&other);
                        run.merge(&one);
                        run
                    }
                };
                prop_assert_eq!(measure.fates(&begins_ns), slowly(&all, &begins_ns, step_ns));
            }
        }
    }

    #[test]
    fn any_time_is_taken() {
        let mut outlive = Outlive::new(1 << 40);
        for (time_ns, life_ns) in [(u64::MAX, 5), (3, u64::MAX), (u64::MAX, 1 << 63), (0, 0)] {
            for what in [What::Freed, What::Kept] {
                let fact = Fact {
                    time_ns,
                    life_ns,
                    what,
                    ..Fact::default()
                };
                outlive.fact(&fact, Peaks::default());
            }
        }
        let mut run = Outlive::new(0);
        run.merge(&outlive);
        run.merge(&outlive);
        for begins_ns in [&[][..], &[0], &[0, 1 << 50, u64::MAX]] {
            let fates = run.fates(begins_ns);
            let ended = fates.iter().flat_map(|fate| &fate.ended);
            let blocks = |amounts: &mut dyn Iterator<Item = &Amount>| -> u64 {
                amounts.map(|amount| amount.blocks).sum()
            };
            let expected = if begins_ns.is_empty() { 0 } else { 8 };
            assert_eq!(blocks(&mut ended.into_iter()), expected);
            let kept = fates.iter().map(|fate| &fate.kept);
            assert_eq!(blocks(&mut kept.into_iter()), expected);
        }
    }
}
