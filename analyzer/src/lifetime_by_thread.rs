//! Lifetimes by the thread that allocated. Those of freed blocks are what [`ThreadMatrix`] has of all
//! pairs with that thread; only blocks whose free was not seen are counted here.

use crate::fact::{Fact, Measure, Peaks, What};
use crate::log_linear::percentile;
use crate::thread_matrix::{Freed, Places, ThreadMatrix};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Threads that are listed.
pub const THREADS_LISTED: usize = 32;
/// Threads that a process keeps apart; blocks of further ones are counted together.
const THREADS_MAX: usize = 1 << 16;

/// Blocks that a thread allocated, or several threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThreadLives {
    /// Blocks allocated: freed, kept and displaced ones.
    pub blocks: u64,
    /// Bytes that they had last.
    pub bytes: u64,
    /// Blocks freed, by whatever thread.
    pub freed: u64,
    /// Blocks not freed by the end of the process.
    pub kept: u64,
    /// Bytes of those.
    pub kept_bytes: u64,
    /// Blocks that ended unseen.
    pub displaced: u64,
    /// Median lifetime of the freed ones in nanoseconds (within 1/8).
    pub p50_ns: u64,
    /// 90th percentile (within 1/8).
    pub p90_ns: u64,
    /// 99th percentile (within 1/8).
    pub p99_ns: u64,
    /// The longest, exactly.
    pub max_ns: u64,
}

/// Blocks of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LifetimeByThread {
    /// Process.
    pub process: u32,
    /// Thread that allocated them.
    pub thread: u32,
    /// The blocks.
    #[serde(flatten)]
    pub lives: ThreadLives,
}

/// Lifetimes by thread, of a process or of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LifetimeByThreadReport {
    /// Threads that allocated a block.
    pub threads: u64,
    /// Those with most blocks, at most [`THREADS_LISTED`].
    pub listed: Vec<LifetimeByThread>,
    /// The blocks of the others.
    pub rest: ThreadLives,
}

/// Blocks of a thread whose free was not seen.
#[derive(Clone, Copy, Debug, Default)]
struct Unfreed {
    thread: u32,
    kept: u64,
    kept_bytes: u64,
    displaced: u64,
    displaced_bytes: u64,
}

impl Unfreed {
    #[inline]
    fn add(&mut self, fact: &Fact) {
        let (blocks, bytes) = match fact.what {
            What::Kept => (&mut self.kept, &mut self.kept_bytes),
            _ => (&mut self.displaced, &mut self.displaced_bytes),
        };
        *blocks += 1;
        *bytes = bytes.wrapping_add(fact.bytes);
    }

    fn merge(&mut self, other: &Unfreed) {
        self.kept += other.kept;
        self.kept_bytes = self.kept_bytes.wrapping_add(other.kept_bytes);
        self.displaced += other.displaced;
        self.displaced_bytes = self.displaced_bytes.wrapping_add(other.displaced_bytes);
    }
}

/// Collects the blocks of a process by thread, beside its [`ThreadMatrix`].
#[derive(Clone, Debug, Default)]
pub struct ByThread {
    unfreed: Vec<Unfreed>,
    places: Places,
    process: u32,
    /// Threads beyond [`THREADS_MAX`], together.
    beyond: Unfreed,
}

impl Measure for ByThread {
    /// Costs a comparison, and about 25 instructions for a block that is kept or displaced.
    #[inline]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        if matches!(fact.what, What::Kept | What::Displaced) && !fact.is_inherited() {
            self.add(fact);
        }
    }
}

impl ByThread {
    fn add(&mut self, fact: &Fact) {
        let key_at = |unfreed: &[Unfreed], place: usize| {
            let at = unfreed.get(place);
            at.map(|unfreed| u64::from(unfreed.thread))
        };
        let thread = u64::from(fact.born_thread);
        let place = match self.places.find(thread, |at| key_at(&self.unfreed, at)) {
            Some(place) => place,
            None if self.unfreed.len() < THREADS_MAX => {
                self.process = fact.process;
                self.places.push(thread, |at| key_at(&self.unfreed, at));
                self.unfreed.push(Unfreed {
                    thread: fact.born_thread,
                    ..Unfreed::default()
                });
                self.unfreed.len() - 1
            }
            None => return self.beyond.add(fact),
        };
        if let Some(unfreed) = self.unfreed.get_mut(place) {
            unfreed.add(fact);
        }
    }

    /// The threads of the process, whose frees `matrix` was told of.
    pub fn report(&self, matrix: &ThreadMatrix) -> LifetimeByThreadReport {
        let mut sums = ThreadSums::default();
        sums.merge(self, matrix);
        sums.report()
    }
}

#[derive(Clone, Debug, Default)]
struct Sum {
    freed: Freed,
    unfreed: Unfreed,
}

impl Sum {
    fn merge(&mut self, other: &Sum) {
        self.freed.merge(&other.freed);
        self.unfreed.merge(&other.unfreed);
    }

    fn blocks(&self) -> u64 {
        self.freed.blocks() + self.unfreed.kept + self.unfreed.displaced
    }

    fn report(&self) -> ThreadLives {
        let counts = self.freed.lives.counts();
        let Unfreed {
            kept,
            kept_bytes,
            displaced,
            displaced_bytes,
            ..
        } = self.unfreed;
        ThreadLives {
            blocks: self.blocks(),
            bytes: self
                .freed
                .bytes
                .wrapping_add(kept_bytes)
                .wrapping_add(displaced_bytes),
            freed: self.freed.blocks(),
            kept,
            kept_bytes,
            displaced,
            p50_ns: percentile(&counts, 50),
            p90_ns: percentile(&counts, 90),
            p99_ns: percentile(&counts, 99),
            max_ns: self.freed.lives.max(),
        }
    }
}

/// The threads of several processes: those with most blocks one by one, the rest together.
#[derive(Clone, Debug, Default)]
pub struct ThreadSums {
    /// Blocks, process, thread.
    listed: Vec<(u64, u32, u32, Sum)>,
    threads: u64,
    rest: Sum,
}

impl ThreadSums {
    /// Adds a process, which was not added before: a thread that is not listed now will never be.
    pub fn merge(&mut self, process: &ByThread, matrix: &ThreadMatrix) {
        let mut threads: BTreeMap<u32, Sum> = BTreeMap::new();
        for cell in matrix.cells() {
            let sum = threads.entry(cell.born_thread).or_default();
            sum.freed.merge(&cell.freed);
        }
        for unfreed in &process.unfreed {
            let sum = threads.entry(unfreed.thread).or_default();
            sum.unfreed.merge(unfreed);
        }
        for freed in matrix.beyond() {
            self.rest.freed.merge(freed);
        }
        self.rest.unfreed.merge(&process.beyond);
        self.threads += threads.len() as u64;
        // Whichever of the two was told of a block knows the process.
        let number = match matrix.cells().is_empty() {
            true => process.process,
            false => matrix.process(),
        };
        let rows = threads.into_iter();
        self.listed
            .extend(rows.map(|(thread, sum)| (sum.blocks(), number, thread, sum)));
        self.listed
            .sort_by_key(|(blocks, process, thread, _)| (Reverse(*blocks), *process, *thread));
        let listed = self.listed.len().min(THREADS_LISTED);
        for (_, _, _, sum) in self.listed.drain(listed..) {
            self.rest.merge(&sum);
        }
    }

    /// The threads of all.
    pub fn report(&self) -> LifetimeByThreadReport {
        let row = |(_, process, thread, sum): &(u64, u32, u32, Sum)| LifetimeByThread {
            process: *process,
            thread: *thread,
            lives: sum.report(),
        };
        LifetimeByThreadReport {
            threads: self.threads,
            listed: self.listed.iter().map(row).collect(),
            rest: self.rest.report(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use proptest::prelude::*;

    /// A block: process, thread, how it ended, bytes then, lifetime.
    type Life = (u32, u32, What, u64, u64);

    fn lives(stream: &Stream, process: u32) -> Vec<Life> {
        let histories = stream.histories();
        let life = |history: &Vec<usize>| {
            let (born, last) = (
                stream.told[history[0]].0,
                stream.told[history[history.len() - 1]].0,
            );
            (
                process,
                born.thread,
                last.what,
                last.bytes,
                last.time_ns - born.time_ns,
            )
        };
        histories.iter().map(life).collect()
    }

    fn check(found: ThreadLives, lives: &[Life]) -> Result<(), TestCaseError> {
        let ended = |what: What| lives.iter().filter(move |life| life.2 == what);
        prop_assert_eq!(found.blocks, lives.len() as u64);
        prop_assert_eq!(found.bytes, lives.iter().map(|life| life.3).sum::<u64>());
        prop_assert_eq!(found.freed, ended(What::Freed).count() as u64);
        prop_assert_eq!(found.kept, ended(What::Kept).count() as u64);
        prop_assert_eq!(
            found.kept_bytes,
            ended(What::Kept).map(|life| life.3).sum::<u64>()
        );
        prop_assert_eq!(found.displaced, ended(What::Displaced).count() as u64);
        let mut sorted: Vec<u64> = ended(What::Freed).map(|life| life.4).collect();
        sorted.sort_unstable();
        prop_assert_eq!(found.max_ns, sorted.last().copied().unwrap_or(0));
        for (found_ns, percent) in [(found.p50_ns, 50), (found.p90_ns, 90), (found.p99_ns, 99)] {
            let Some(rank) = (sorted.len() * percent).div_ceil(100).checked_sub(1) else {
                prop_assert_eq!(found_ns, 0);
                continue;
            };
            let exact = sorted[rank];
            prop_assert!(
                exact <= found_ns && found_ns <= found.max_ns && found_ns <= exact + exact / 8
            );
        }
        Ok(())
    }

    fn check_all(report: &LifetimeByThreadReport, lives: &[Life]) -> Result<(), TestCaseError> {
        let mut threads: Vec<(u32, u32)> = lives.iter().map(|life| (life.0, life.1)).collect();
        threads.sort_unstable();
        threads.dedup();
        prop_assert_eq!(report.threads, threads.len() as u64);
        let of = |thread: &(u32, u32)| -> Vec<Life> {
            lives
                .iter()
                .filter(|life| (life.0, life.1) == *thread)
                .copied()
                .collect()
        };
        threads.sort_by_key(|thread| (Reverse(of(thread).len()), *thread));
        prop_assert_eq!(report.listed.len(), threads.len().min(THREADS_LISTED));
        for (found, thread) in report.listed.iter().zip(&threads) {
            prop_assert_eq!((found.process, found.thread), *thread);
            check(found.lives, &of(thread))?;
        }
        let rest: Vec<Life> = threads.iter().skip(THREADS_LISTED).flat_map(of).collect();
        check(report.rest, &rest)
    }

    /// Spreads the few threads of a stream over more.
    fn spread(mut stream: Stream, over: u64) -> Stream {
        for (fact, _) in &mut stream.told {
            let born = fact.clock_allocations - fact.life_allocations;
            fact.born_thread = (born * born % over) as u32;
            if !matches!(fact.what, What::Freed | What::Resized) {
                fact.thread = fact.born_thread;
            }
        }
        stream
    }

    proptest! {
        #[test]
        fn lifetimes_are_those_of_the_blocks_of_each_thread(
            one in streams(300), other in streams(500), over in 1u64..90,
        ) {
            let other = spread(other, over);
            let mut first = (ByThread::default(), ThreadMatrix::default());
            let mut second = first.clone();
            one.tell(&mut first.0);
            one.tell(&mut first.1);
            for (fact, peaks) in &other.told {
                let fact = Fact { process: 3, ..*fact };
                second.0.fact(&fact, *peaks);
                second.1.fact(&fact, *peaks);
            }
            check_all(&first.0.report(&first.1), &lives(&one, 0))?;
            check_all(&second.0.report(&second.1), &lives(&other, 3))?;
            let mut run = ThreadSums::default();
            run.merge(&second.0, &second.1);
            run.merge(&first.0, &first.1);
            check_all(&run.report(), &[lives(&one, 0), lives(&other, 3)].concat())?;
        }
    }

    #[test]
    fn threads_beyond_the_most_are_summed() {
        let mut measure = ByThread::default();
        let threads = THREADS_MAX as u32 + 10;
        for thread in 0..threads {
            for what in [What::Kept, What::Displaced] {
                let fact = Fact {
                    what,
                    born_thread: thread,
                    bytes: 5,
                    ..Fact::default()
                };
                measure.fact(&fact, Peaks::default());
            }
        }
        assert_eq!(measure.unfreed.len(), THREADS_MAX);
        let report = measure.report(&ThreadMatrix::default());
        assert_eq!(report.threads, THREADS_MAX as u64);
        let listed: u64 = report.listed.iter().map(|of| of.lives.blocks).sum();
        assert_eq!(listed + report.rest.blocks, 2 * u64::from(threads));
    }
}
