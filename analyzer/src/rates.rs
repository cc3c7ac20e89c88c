//! Rates over time: allocations, frees, resizes and their bytes, by bins of time that all processes
//! share. A process counts its own; the run's are the sum of those of its processes, exactly.
//! Inherited blocks are left out.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::grid::Grid;
use crate::series::BINS_RUN;
use crate::tally::{Amount, Held, Tally};
use serde::Serialize;

/// What calls did, by bins of time. Bin n of each list is the time from `start_ns + n x step_ns` on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RatesReport {
    /// Where the first bin begins, in nanoseconds since the run's first record: a multiple of
    /// `step_ns`, so at most one bin before the process began.
    pub start_ns: u64,
    /// Width of a bin in nanoseconds, a power of two.
    pub step_ns: u64,
    /// Blocks born.
    pub allocations: Vec<u64>,
    /// Blocks freed or displaced.
    pub frees: Vec<u64>,
    /// Resizes of blocks.
    pub reallocs: Vec<u64>,
    /// Bytes of new blocks and what resizes added.
    pub bytes_allocated: Vec<u64>,
    /// Bytes of blocks freed or displaced, and what resizes took away.
    pub bytes_freed: Vec<u64>,
    /// Blocks that processes held when they ended before the end; empty where there are none.
    pub blocks_released: Vec<u64>,
    /// Bytes that they held; empty where there are none.
    pub bytes_released: Vec<u64>,
}

/// A bin that something happened in.
#[derive(Clone, Copy, Debug)]
struct Cell {
    bin: u64,
    tally: Tally,
}

/// Counts by bins of time. Bins in which nothing happened take no room: a process of ten calls has
/// ten bins at most.
#[derive(Clone, Debug)]
pub struct Rates {
    grid: Grid,
    /// The current bin.
    now: Tally,
    /// The bins before it and, by doubling, maybe its own first part; by number.
    cells: Vec<Cell>,
    /// What was held at the end.
    held: Held,
}

impl Rates {
    /// Of a process that begins at `start_ns`; of the run, with 0.
    pub fn new(start_ns: u64) -> Rates {
        Rates {
            grid: Grid::new(start_ns, BINS_RUN),
            now: Tally::default(),
            cells: Vec::new(),
            held: Held::default(),
        }
    }

    /// When the process began.
    pub fn start_ns(&self) -> u64 {
        self.grid.start_ns
    }

    #[cold]
    fn turn(&mut self, now_ns: u64) {
        self.close();
        let shift = self.grid.shift;
        self.grid.advance(now_ns);
        self.widen(shift);
    }

    /// Puts the current bin to the others.
    fn close(&mut self) {
        let tally = std::mem::take(&mut self.now);
        self.enter(self.grid.current(), &tally);
    }

    /// Adds to the bin of this number; mostly it is the last one.
    fn enter(&mut self, bin: u64, tally: &Tally) {
        if tally.is_empty() {
            return;
        }
        let at = match self.cells.last() {
            Some(last) if last.bin < bin => self.cells.len(),
            _ => self.cells.partition_point(|cell| cell.bin < bin),
        };
        match self.cells.get_mut(at) {
            Some(cell) if cell.bin == bin => cell.tally.add(tally),
            _ => self.cells.insert(at, Cell { bin, tally: *tally }),
        }
    }

    /// The bins had the width `shift`, now they have the grid's.
    fn widen(&mut self, shift: u32) {
        if shift != self.grid.shift {
            let wider = self.grid.shift - shift;
            self.cells = widened(self.cells.iter().copied(), wider);
        }
    }

    /// Adds what calls of another process did.
    pub fn merge(&mut self, other: &Rates) {
        self.close();
        let shift = self.grid.shift;
        let last_ns = self.grid.begin_ns.max(other.grid.begin_ns);
        self.grid.start_ns = self.grid.start_ns.min(other.grid.start_ns);
        self.grid.shift = shift.max(other.grid.shift);
        self.grid.advance(last_ns);
        self.widen(shift);
        let wider = self.grid.shift - other.grid.shift;
        for cell in widened(other.all(), wider) {
            self.enter(cell.bin, &cell.tally);
        }
        if let Some(released) = self.held.take(other.held) {
            self.release(&released);
        }
    }

    fn release(&mut self, held: &Held) {
        if held.at_ns >= self.grid.end_ns {
            self.turn(held.at_ns);
        }
        self.enter(self.grid.bin(held.at_ns), &held.released());
    }

    /// All bins, the current one last: its first part may stand before it under the same number.
    fn all(&self) -> impl Iterator<Item = Cell> + '_ {
        let now = Cell {
            bin: self.grid.current(),
            tally: self.now,
        };
        self.cells.iter().copied().chain([now])
    }

    /// The curves up to `end_ns`, in at most `bins_max` bins as narrow as they can be. What is held
    /// at `end_ns` is not released.
    pub fn report(&self, end_ns: u64, bins_max: usize) -> RatesReport {
        let (shift, tallies) = self.bins(end_ns, bins_max);
        let column = |of: fn(&Tally) -> u64| -> Vec<u64> { tallies.iter().map(of).collect() };
        let column_if = |of: fn(&Tally) -> u64| match tallies.iter().all(|tally| of(tally) == 0) {
            true => Vec::new(),
            false => column(of),
        };
        RatesReport {
            start_ns: self.grid.start_ns >> shift << shift,
            step_ns: 1 << shift,
            allocations: column(|tally| tally.allocations),
            frees: column(|tally| tally.frees),
            reallocs: column(|tally| tally.reallocs),
            bytes_allocated: column(|tally| tally.bytes_allocated),
            bytes_freed: column(|tally| tally.bytes_freed),
            blocks_released: column_if(|tally| tally.blocks_released),
            bytes_released: column_if(|tally| tally.bytes_released),
        }
    }

    /// Binary logarithm of the width, and each bin from that of the start to that of the end.
    pub(crate) fn bins(&self, end_ns: u64, bins_max: usize) -> (u32, Vec<Tally>) {
        let (from_ns, bins_max) = (self.grid.start_ns, bins_max.max(1) as u64);
        let last_ns = end_ns.max(self.grid.begin_ns).max(self.held.at_ns);
        let shift = self.grid.shift_for(from_ns, last_ns, bins_max);
        let first = from_ns >> shift;
        let count = (last_ns >> shift).saturating_sub(first).min(bins_max - 1) as usize + 1;
        let mut tallies = vec![Tally::default(); count];
        let wider = shift - self.grid.shift;
        let mut add = |bin: u64, tally: &Tally| {
            let at = bin.saturating_sub(first) as usize;
            if let Some(to) = tallies.get_mut(at) {
                to.add(tally);
            }
        };
        for cell in self.all() {
            add(cell.bin >> wider, &cell.tally);
        }
        if self.held.at_ns < end_ns {
            add(self.held.at_ns >> shift, &self.held.released());
        }
        (shift, tallies)
    }
}

/// Bins in order of their numbers as bins that are `2^wider` as wide.
fn widened(cells: impl Iterator<Item = Cell>, wider: u32) -> Vec<Cell> {
    let mut all: Vec<Cell> = Vec::new();
    for cell in cells.filter(|cell| !cell.tally.is_empty()) {
        let bin = cell.bin >> wider;
        match all.last_mut() {
            Some(last) if last.bin == bin => last.tally.add(&cell.tally),
            _ => all.push(Cell { bin, ..cell }),
        }
    }
    all
}

impl Measure for Rates {
    /// Some 13 instructions a fact (callgrind, a browser's trace): a compare with the end of the bin
    /// and two additions, within 64 bytes that every call touches. About 2,000 times in a run a bin
    /// ends, which copies it.
    #[inline]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        if fact.is_inherited() {
            return;
        }
        if fact.what == What::Kept {
            let (blocks, bytes) = (1, fact.bytes);
            let what = Amount { blocks, bytes };
            let at_ns = fact.time_ns;
            if let Some(released) = self.held.take(Held { at_ns, what }) {
                self.release(&released);
            }
            return;
        }
        if fact.time_ns >= self.grid.end_ns {
            self.turn(fact.time_ns);
        }
        self.now.count(fact);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use crate::series::{BINS_PROCESS, SHIFT_MIN};
    use crate::tally::slow::tell_later;
    use proptest::prelude::*;

    /// The definition: the smallest width that suffices; each bin adds up the facts of its time.
    fn slowly(streams: &[(&Stream, u64)], start_ns: u64, end_ns: u64, bins: u64) -> RatesReport {
        let shift = (SHIFT_MIN..).find(|shift| (end_ns >> shift) - (start_ns >> shift) < bins);
        let step_ns = 1u64 << shift.unwrap();
        let first_ns = start_ns / step_ns * step_ns;
        let mut report = RatesReport {
            start_ns: first_ns,
            step_ns,
            ..RatesReport::default()
        };
        for from_ns in (first_ns..=end_ns).step_by(step_ns as usize) {
            let facts = || {
                let all = streams.iter().flat_map(|(stream, later)| {
                    stream.told.iter().map(move |(fact, _)| Fact {
                        time_ns: fact.time_ns + later,
                        ..*fact
                    })
                });
                all.filter(|fact| (from_ns..from_ns + step_ns).contains(&fact.time_ns))
            };
            let of = |what: &[What]| -> Vec<Fact> {
                facts().filter(|fact| what.contains(&fact.what)).collect()
            };
            let born = of(&[What::Born]);
            let ended = of(&[What::Freed, What::Displaced]);
            let resized = of(&[What::Resized]);
            let kept = of(&[What::Kept]);
            let kept = kept.iter().filter(|fact| fact.time_ns != end_ns);
            let bytes = |facts: &[Fact]| facts.iter().map(|fact| fact.bytes).sum::<u64>();
            let grown = resized.iter().filter(|fact| fact.bytes > fact.old_bytes);
            let shrunk = resized.iter().filter(|fact| fact.bytes < fact.old_bytes);
            let more: u64 = grown.map(|fact| fact.bytes - fact.old_bytes).sum();
            let less: u64 = shrunk.map(|fact| fact.old_bytes - fact.bytes).sum();
            report.allocations.push(born.len() as u64);
            report.frees.push(ended.len() as u64);
            report.reallocs.push(resized.len() as u64);
            report.bytes_allocated.push(bytes(&born) + more);
            report.bytes_freed.push(bytes(&ended) + less);
            report.blocks_released.push(kept.clone().count() as u64);
            report
                .bytes_released
                .push(kept.map(|fact| fact.bytes).sum());
        }
        for released in [&mut report.blocks_released, &mut report.bytes_released] {
            if released.iter().all(|value| *value == 0) {
                released.clear();
            }
        }
        report
    }

    /// The measure of a process whose facts come `later_ns` later.
    fn measured(stream: &Stream, later_ns: u64) -> Rates {
        let mut rates = Rates::new(later_ns);
        tell_later(stream, later_ns, &mut rates);
        rates
    }

    proptest! {
        /// Each bin holds what happened in its time, in a process and in the sum of two.
        #[test]
        fn bins_hold_what_happened_in_their_time(
            a in streams(120),
            b in streams(120),
            later_ns in prop_oneof![0u64..3_000, 0u64..20_000_000_000],
            idle_ns in 0u64..1_000_000,
        ) {
            let one = measured(&a, 0);
            let end_ns = a.end_ns;
            prop_assert_eq!(one.report(end_ns, BINS_PROCESS), slowly(&[(&a, 0)], 0, end_ns, 128));
            let other = measured(&b, later_ns);
            let end_ns = b.end_ns + later_ns;
            let by_hand = slowly(&[(&b, later_ns)], later_ns, end_ns, 128);
            prop_assert_eq!(other.report(end_ns, BINS_PROCESS), by_hand);

            let end_ns = a.end_ns.max(b.end_ns + later_ns) + idle_ns;
            for bins in [512, 128, 3, 1] {
                let by_hand = slowly(&[(&a, 0), (&b, later_ns)], 0, end_ns, bins);
                for order in [[&one, &other], [&other, &one]] {
                    let mut run = Rates::new(0);
                    order.iter().for_each(|rates| run.merge(rates));
                    prop_assert_eq!(&run.report(end_ns, bins as usize), &by_hand);
                }
            }
        }
    }

    #[test]
    fn any_time_is_taken() {
        let mut rates = Rates::new(u64::MAX - 5);
        for time_ns in [u64::MAX, 0, u64::MAX, 7] {
            let what = What::Born;
            let fact = Fact {
                time_ns,
                what,
                ..Fact::default()
            };
            rates.fact(&fact, Peaks::default());
            let what = What::Kept;
            rates.fact(&Fact { what, ..fact }, Peaks::default());
        }
        let mut run = Rates::new(0);
        run.merge(&rates);
        run.merge(&rates);
        let report = run.report(5, 128);
        assert!(report.allocations.len() <= 128);
        assert_eq!(report.allocations.iter().sum::<u64>(), 8);
    }
}
