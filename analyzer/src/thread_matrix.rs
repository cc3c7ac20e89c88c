//! Who frees whose blocks: for each pair of threads of a process that has them, the blocks that one
//! allocated and the other freed, their bytes and lifetimes. `lifetime_by_thread` takes the lifetimes
//! of freed blocks from here.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::log_linear::{LogLinear, percentile};
use serde::Serialize;
use std::cmp::Reverse;

/// Bits of the histograms of lifetimes: exact below 16 ns, then at most 1/8 too high.
pub const BITS: u32 = 3;
/// Pairs of different threads that are listed.
pub const PAIRS_LISTED: usize = 64;
/// Threads of the picture.
pub const PICTURE_THREADS: usize = 12;
/// Pairs that a process keeps apart; blocks of further ones are counted together.
const PAIRS_MAX: usize = 1 << 16;

/// Freed blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FreedBlocks {
    /// Blocks.
    pub blocks: u64,
    /// Bytes that they had when they were freed.
    pub bytes: u64,
    /// Median lifetime in nanoseconds (within 1/8).
    pub p50_ns: u64,
    /// 90th percentile (within 1/8).
    pub p90_ns: u64,
    /// The longest, exactly.
    pub max_ns: u64,
}

/// Blocks that a thread allocated and another freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThreadPair {
    /// Process.
    pub process: u32,
    /// Thread that allocated them.
    pub born_thread: u32,
    /// Thread that freed them.
    pub freed_thread: u32,
    /// The blocks.
    #[serde(flatten)]
    pub freed: FreedBlocks,
}

/// Blocks freed by each thread of each thread, for the threads of a process that take part in most
/// frees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// The threads, by number.
    pub threads: Vec<u32>,
    /// A row for each thread that allocated, in it the blocks by the thread that freed them.
    pub blocks: Vec<Vec<u64>>,
    /// Whether all threads of the process that allocated or freed a freed block are in it.
    pub is_whole: bool,
}

/// Frees by pair of threads, of a process or of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThreadMatrixReport {
    /// Blocks freed by the thread that allocated them.
    pub same: FreedBlocks,
    /// Blocks freed by another thread.
    pub other: FreedBlocks,
    /// Pairs of different threads.
    pub pairs: u64,
    /// Those with most blocks, at most [`PAIRS_LISTED`].
    pub listed: Vec<ThreadPair>,
    /// The blocks of the pairs that are not listed.
    pub rest: FreedBlocks,
    /// Of a process: its busiest threads, at most [`PICTURE_THREADS`]; of a run nothing.
    pub picture: Option<Picture>,
}

/// Blocks, bytes and lifetimes of one pair, or of several together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freed {
    pub bytes: u64,
    pub lives: LogLinear<BITS>,
}

impl Freed {
    #[inline]
    fn add(&mut self, fact: &Fact) {
        self.bytes = self.bytes.wrapping_add(fact.bytes);
        self.lives.record(fact.life_ns);
    }

    pub fn merge(&mut self, other: &Freed) {
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.lives.merge(&other.lives);
    }

    pub fn blocks(&self) -> u64 {
        self.lives.count()
    }

    fn report(&self) -> FreedBlocks {
        let counts = self.lives.counts();
        FreedBlocks {
            blocks: self.blocks(),
            bytes: self.bytes,
            p50_ns: percentile(&counts, 50),
            p90_ns: percentile(&counts, 90),
            max_ns: self.lives.max(),
        }
    }
}

/// The frees of a pair of threads.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub born_thread: u32,
    pub freed_thread: u32,
    pub freed: Freed,
}

impl Cell {
    fn is_same(&self) -> bool {
        self.born_thread == self.freed_thread
    }
}

/// Places of keys in a list beside it: a hash table of the places alone, since whoever finds a place
/// reads what lies there anyway.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// One more than a place, or 0; a power of two of slots, at least half of them empty.
    slots: Vec<u32>,
    count: usize,
}

impl Places {
    #[inline]
    fn hash(key: u64) -> usize {
        let product = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (product >> 32) as usize
    }

    /// The place whose key is `key`; `key_at` tells the key of a place.
    #[inline]
    pub fn find(&self, key: u64, key_at: impl Fn(usize) -> Option<u64>) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = Self::hash(key) & mask;
        loop {
            let place = (*self.slots.get(slot)? as usize).checked_sub(1)?;
            if key_at(place) == Some(key) {
                return Some(place);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Enters the next place, the number of those entered so far, and its key, which is in none.
    pub fn push(&mut self, key: u64, key_at: impl Fn(usize) -> Option<u64>) {
        if (self.count + 1) * 2 > self.slots.len() {
            self.slots = vec![0; (self.slots.len() * 2).max(8)];
            for place in 0..self.count {
                self.put(key_at(place).unwrap_or_default(), place);
            }
        }
        self.put(key, self.count);
        self.count += 1;
    }

    fn put(&mut self, key: u64, place: usize) {
        let mask = self.slots.len() - 1;
        let mut slot = Self::hash(key) & mask;
        while self.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = place as u32 + 1;
    }
}

/// Collects the frees of a process by pair of threads.
#[derive(Clone, Debug, Default)]
pub struct ThreadMatrix {
    cells: Vec<Cell>,
    places: Places,
    /// The place of the latest free.
    latest: usize,
    process: u32,
    /// Pairs beyond [`PAIRS_MAX`], together.
    beyond: Freed,
    beyond_same: Freed,
}

fn key(born_thread: u32, freed_thread: u32) -> u64 {
    u64::from(born_thread) << 32 | u64::from(freed_thread)
}

impl Measure for ThreadMatrix {
    /// Costs about 25 instructions and two or three cache lines for a free of the same pair as the
    /// one before, 20 and a line more for another pair, a comparison for other facts.
    #[inline]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        if fact.what != What::Freed || fact.is_inherited() {
            return;
        }
        if let Some(cell) = self.cells.get_mut(self.latest)
            && cell.born_thread == fact.born_thread
            && cell.freed_thread == fact.thread
        {
            return cell.freed.add(fact);
        }
        self.turn(fact);
    }
}

impl ThreadMatrix {
    fn turn(&mut self, fact: &Fact) {
        let key_at = |cells: &[Cell], place: usize| {
            let cell = cells.get(place);
            cell.map(|cell| key(cell.born_thread, cell.freed_thread))
        };
        let pair = key(fact.born_thread, fact.thread);
        match self.places.find(pair, |place| key_at(&self.cells, place)) {
            Some(place) => self.latest = place,
            None if self.cells.len() < PAIRS_MAX => {
                self.process = fact.process;
                self.places.push(pair, |place| key_at(&self.cells, place));
                self.latest = self.cells.len();
                self.cells.push(Cell {
                    born_thread: fact.born_thread,
                    freed_thread: fact.thread,
                    freed: Freed::default(),
                });
            }
            None if fact.born_thread == fact.thread => return self.beyond_same.add(fact),
            None => return self.beyond.add(fact),
        }
        if let Some(cell) = self.cells.get_mut(self.latest) {
            cell.freed.add(fact);
        }
    }

    /// The pairs that were kept apart.
    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The others.
    pub(crate) fn beyond(&self) -> [&Freed; 2] {
        [&self.beyond, &self.beyond_same]
    }

    /// The process that frees were told of.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// The frees of the process.
    pub fn report(&self) -> ThreadMatrixReport {
        let mut sums = ThreadPairs::default();
        sums.merge(self);
        ThreadMatrixReport {
            picture: Some(self.picture()),
            ..sums.report()
        }
    }

    fn picture(&self) -> Picture {
        let mut parts: Vec<(u32, u64)> = Vec::new();
        for cell in &self.cells {
            let blocks = cell.freed.blocks();
            parts.push((cell.born_thread, blocks));
            if !cell.is_same() {
                parts.push((cell.freed_thread, blocks));
            }
        }
        parts.sort_unstable();
        parts.dedup_by(|next, sum| {
            let same = next.0 == sum.0;
            if same {
                sum.1 += next.1;
            }
            same
        });
        let is_whole = parts.len() <= PICTURE_THREADS && self.cells.len() < PAIRS_MAX;
        parts.sort_unstable_by_key(|(thread, blocks)| (Reverse(*blocks), *thread));
        parts.truncate(PICTURE_THREADS);
        let mut threads: Vec<u32> = parts.iter().map(|(thread, _)| *thread).collect();
        threads.sort_unstable();
        let mut blocks = vec![vec![0; threads.len()]; threads.len()];
        for cell in &self.cells {
            let from = threads.binary_search(&cell.born_thread);
            let to = threads.binary_search(&cell.freed_thread);
            if let (Ok(from), Ok(to)) = (from, to) {
                blocks[from][to] = cell.freed.blocks();
            }
        }
        Picture {
            threads,
            blocks,
            is_whole,
        }
    }
}

/// The pairs of several processes: those with most blocks one by one, the rest together.
#[derive(Clone, Debug, Default)]
pub struct ThreadPairs {
    listed: Vec<(u64, u32, Cell)>,
    pairs: u64,
    rest: Freed,
    same: Freed,
}

impl ThreadPairs {
    /// Adds a process, which was not added before: a pair that is not listed now will never be.
    pub fn merge(&mut self, process: &ThreadMatrix) {
        self.same.merge(&process.beyond_same);
        self.rest.merge(&process.beyond);
        for cell in &process.cells {
            if cell.is_same() {
                self.same.merge(&cell.freed);
            } else {
                self.pairs += 1;
                let blocks = cell.freed.blocks();
                self.listed.push((blocks, process.process, cell.clone()));
            }
        }
        self.listed.sort_by_key(|(blocks, process, cell)| {
            let pair = key(cell.born_thread, cell.freed_thread);
            (Reverse(*blocks), *process, pair)
        });
        let listed = self.listed.len().min(PAIRS_LISTED);
        for (_, _, cell) in self.listed.drain(listed..) {
            self.rest.merge(&cell.freed);
        }
    }

    /// The frees of all.
    pub fn report(&self) -> ThreadMatrixReport {
        let mut other = self.rest.clone();
        let mut listed = Vec::new();
        for (_, process, cell) in &self.listed {
            other.merge(&cell.freed);
            listed.push(ThreadPair {
                process: *process,
                born_thread: cell.born_thread,
                freed_thread: cell.freed_thread,
                freed: cell.freed.report(),
            });
        }
        ThreadMatrixReport {
            same: self.same.report(),
            other: other.report(),
            pairs: self.pairs,
            listed,
            rest: self.rest.report(),
            picture: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use proptest::prelude::*;

    /// A freed block: process, threads, bytes, lifetime.
    type Free = (u32, u32, u32, u64, u64);

    fn frees(stream: &Stream, process: u32) -> Vec<Free> {
        let histories = stream.histories();
        let free = |history: &Vec<usize>| {
            let (born, last) = (
                stream.told[history[0]].0,
                stream.told[history[history.len() - 1]].0,
            );
            let life_ns = last.time_ns - born.time_ns;
            let is_freed = last.what == What::Freed;
            is_freed.then_some((process, born.thread, last.thread, last.bytes, life_ns))
        };
        histories.iter().filter_map(free).collect()
    }

    /// Percentiles may be an eighth above those of the sorted lifetimes, not above the longest.
    fn check(found: FreedBlocks, frees: &[Free]) -> Result<(), TestCaseError> {
        let mut lives: Vec<u64> = frees.iter().map(|free| free.4).collect();
        lives.sort_unstable();
        prop_assert_eq!(found.blocks, frees.len() as u64);
        prop_assert_eq!(found.bytes, frees.iter().map(|free| free.3).sum::<u64>());
        prop_assert_eq!(found.max_ns, lives.last().copied().unwrap_or(0));
        for (found_ns, percent) in [(found.p50_ns, 50), (found.p90_ns, 90)] {
            let Some(rank) = (lives.len() * percent).div_ceil(100).checked_sub(1) else {
                prop_assert_eq!(found_ns, 0);
                continue;
            };
            let exact = lives[rank];
            prop_assert!(
                exact <= found_ns && found_ns <= found.max_ns && found_ns <= exact + exact / 8
            );
        }
        Ok(())
    }

    fn check_all(report: &ThreadMatrixReport, frees: &[Free]) -> Result<(), TestCaseError> {
        let (same, other): (Vec<Free>, Vec<Free>) = frees.iter().partition(|free| free.1 == free.2);
        check(report.same, &same)?;
        check(report.other, &other)?;
        let mut pairs: Vec<(u32, u32, u32)> =
            other.iter().map(|free| (free.0, free.1, free.2)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        prop_assert_eq!(report.pairs, pairs.len() as u64);
        let of = |pair: &(u32, u32, u32)| -> Vec<Free> {
            other
                .iter()
                .filter(|free| (free.0, free.1, free.2) == *pair)
                .copied()
                .collect()
        };
        // Most blocks first; of equals the lower numbers.
        pairs.sort_by_key(|pair| (Reverse(of(pair).len()), *pair));
        prop_assert_eq!(report.listed.len(), pairs.len().min(PAIRS_LISTED));
        for (found, pair) in report.listed.iter().zip(&pairs) {
            prop_assert_eq!(
                (found.process, found.born_thread, found.freed_thread),
                *pair
            );
            check(found.freed, &of(pair))?;
        }
        let rest: Vec<Free> = pairs.iter().skip(PAIRS_LISTED).flat_map(of).collect();
        check(report.rest, &rest)
    }

    /// Spreads the few threads of a stream over more.
    fn spread(mut stream: Stream, over: u32) -> Stream {
        for (at, (fact, _)) in stream.told.iter_mut().enumerate() {
            let more = |seed: u64| (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u32 % over;
            fact.born_thread = more(fact.clock_allocations - fact.life_allocations);
            fact.thread = if matches!(fact.what, What::Freed | What::Resized) {
                more(at as u64 / 2)
            } else {
                fact.born_thread
            };
        }
        stream
    }

    proptest! {
        #[test]
        fn pairs_are_those_of_the_frees(one in streams(300), other in streams(600), over in 1u32..40) {
            let other = spread(other, over);
            let (mut first, mut second) = (ThreadMatrix::default(), ThreadMatrix::default());
            one.tell(&mut first);
            for (fact, peaks) in &other.told {
                second.fact(&Fact { process: 7, ..*fact }, *peaks);
            }
            check_all(&first.report(), &frees(&one, 0))?;
            check_all(&second.report(), &frees(&other, 7))?;
            let mut run = ThreadPairs::default();
            run.merge(&second);
            run.merge(&first);
            check_all(&run.report(), &[frees(&one, 0), frees(&other, 7)].concat())?;
        }

        /// The picture is of the threads with most frees as either side.
        #[test]
        fn the_picture_has_the_busiest_threads(stream in streams(500), over in 1u32..30) {
            let stream = spread(stream, over);
            let mut measure = ThreadMatrix::default();
            stream.tell(&mut measure);
            let picture = measure.report().picture.unwrap();
            let frees = frees(&stream, 0);
            let part = |thread: u32| frees.iter().filter(|free| free.1 == thread || free.2 == thread).count();
            let mut threads: Vec<u32> = (0..over).filter(|thread| part(*thread) != 0).collect();
            threads.sort_by_key(|thread| (Reverse(part(*thread)), *thread));
            prop_assert_eq!(picture.is_whole, threads.len() <= PICTURE_THREADS);
            threads.truncate(PICTURE_THREADS);
            threads.sort_unstable();
            prop_assert_eq!(&picture.threads, &threads);
            for (from, row) in threads.iter().zip(&picture.blocks) {
                for (to, blocks) in threads.iter().zip(row) {
                    let of = frees.iter().filter(|free| (free.1, free.2) == (*from, *to)).count();
                    prop_assert_eq!(*blocks, of as u64);
                }
            }
        }
    }

    /// More pairs than are kept apart: nothing is lost from the sums.
    #[test]
    fn pairs_beyond_the_most_are_summed() {
        let mut measure = ThreadMatrix::default();
        let threads = PAIRS_MAX as u32 + 100;
        for thread in 0..threads {
            let fact = Fact {
                what: What::Freed,
                born_thread: thread,
                thread: u32::MAX - thread / 2 * 2,
                bytes: 3,
                ..Fact::default()
            };
            measure.fact(&fact, Peaks::default());
            measure.fact(&Fact { thread, ..fact }, Peaks::default());
        }
        let report = measure.report();
        assert_eq!(measure.cells.len(), PAIRS_MAX);
        assert_eq!(report.same.blocks, u64::from(threads));
        assert_eq!(report.other.blocks, u64::from(threads));
        assert_eq!(report.other.bytes, 3 * u64::from(threads));
        assert!(!report.picture.unwrap().is_whole);
    }
}
