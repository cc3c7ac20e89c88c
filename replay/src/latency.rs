//! The duration of single operations: what a worker keeps of them in a latency round ([`Timed`]), and what is sent to
//! the replay. Timed is what the allocator does, locks around touching included; touching itself is not.

use crate::error::ReplayError;
use crate::histogram::{BUCKETS, Histogram, bucket};
use crate::probe::Probe;
use crate::region::Region;
use crate::slot::{Fault, Slot};
use crate::ticks::{Calibration, Cost, Ticks};
use crate::touch::Touch;
use crate::word;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Operations that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// An allocation.
    Malloc,
    /// One of zeroed memory.
    Calloc,
    /// One with an alignment.
    Aligned,
    /// A resize.
    Realloc,
    /// A free by the thread that allocated the block when it was recorded.
    FreeSame,
    /// A free by another one.
    FreeCross,
}

/// All kinds, in the order of their numbers.
pub const KINDS: [Kind; 6] = [
    Kind::Malloc,
    Kind::Calloc,
    Kind::Aligned,
    Kind::Realloc,
    Kind::FreeSame,
    Kind::FreeCross,
];
/// Classes of sizes: 0, then powers of two: class c holds 2^(c-1) to 2^c - 1 bytes.
pub const CLASSES: usize = 48;
/// Words of a histogram: buckets, the sum, the greatest.
const CELL_WORDS: usize = BUCKETS + 2;

impl Kind {
    /// The kind of an operation's word; of what does not reach the allocator none.
    #[inline(always)]
    pub fn of(word: u64, aligned: bool) -> Option<Kind> {
        Some(match word::kind(word) {
            word::ALLOC if aligned => Kind::Aligned,
            word::ALLOC => Kind::Malloc,
            word::ZEROED => Kind::Calloc,
            word::RESIZE => Kind::Realloc,
            word::FREE if word::is_cross_thread(word) => Kind::FreeCross,
            word::FREE => Kind::FreeSame,
            _ => return None,
        })
    }
}

/// The class of a size.
#[inline(always)]
pub fn class(bytes: usize) -> usize {
    ((usize::BITS - bytes.leading_zeros()) as usize).min(CLASSES - 1)
}

/// The sizes of a class in bytes: the least, and the least above them.
pub fn class_bounds(class: usize) -> (u64, u64) {
    match class {
        0 => (0, 1),
        class => (1 << (class - 1), 1 << class),
    }
}

/// Durations of one kind and class, in ticks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    /// Number of the [`Kind`].
    pub kind: usize,
    /// The class of sizes.
    pub class: usize,
    /// The durations.
    pub ticks: Histogram,
}

/// What a latency round saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Name of the clock.
    pub clock: String,
    /// Nanoseconds of a tick.
    pub ns_per_tick: f64,
    /// Ticks that reading the clock twice takes: the median.
    pub cost: u64,
    /// What 99 % of such readings stay within.
    pub cost_high: u64,
    /// All differences between readings are multiples of so many ticks.
    pub step: u64,
    /// The durations.
    pub cells: Vec<Cell>,
    /// Durations in the file: of every so-manieth operation.
    pub every: u64,
    /// How many of them.
    pub kept: u64,
}

/// Touches blocks as another one does, and keeps how long operations take without it.
pub struct Timed<T> {
    inner: T,
    clock: Ticks,
    cost: Cost,
    calibration: Calibration,
    /// The allocator works before and after touching: locks.
    locks: bool,
    /// When the span that is timed began.
    from: u64,
    /// Ticks of the operation before that.
    spent: u64,
    runs: bool,
    cells: Region,
    durations: Durations,
}

/// The duration of every n-th operation, in their order.
struct Durations {
    region: Region,
    room: usize,
    every: u64,
    /// Operations until the next one that is kept.
    wait: u64,
    kept: usize,
}

impl<T> Timed<T> {
    /// For a program of so many operations, of which at most `durations` are kept one by one.
    ///
    /// # Errors
    /// When the system refuses memory.
    pub fn new(
        inner: T,
        locks: bool,
        operations: u64,
        durations: u64,
    ) -> Result<Timed<T>, ReplayError> {
        let clock = Ticks::best();
        let every = operations.div_ceil(durations.max(1)).max(1);
        let room = operations.div_ceil(every) as usize;
        Ok(Timed {
            inner,
            clock,
            cost: Cost::of(clock),
            calibration: Calibration::begin(clock),
            locks,
            from: 0,
            spent: 0,
            runs: false,
            cells: Region::zeroed(KINDS.len() * CLASSES * CELL_WORDS * 8, true)?,
            durations: Durations {
                region: Region::zeroed(room * size_of::<u32>(), true)?,
                room,
                every,
                wait: 0,
                kept: 0,
            },
        })
    }

    /// Forgets what was seen so far.
    pub fn clear(&mut self) {
        self.cells.words_mut().fill(0);
        (self.durations.kept, self.durations.wait) = (0, 0);
        self.calibration = Calibration::begin(self.clock);
    }

    #[inline(always)]
    fn stop(&mut self) {
        self.spent = self
            .clock
            .stop()
            .wrapping_sub(self.from)
            .wrapping_add(self.spent);
        self.runs = false;
    }

    #[inline(always)]
    fn start(&mut self) {
        self.runs = true;
        self.from = self.clock.start();
    }

    /// As `start`, after a first span: what the clock takes is in the operation's time once, as everywhere.
    #[inline(always)]
    fn resume(&mut self) {
        self.spent = self.spent.saturating_sub(self.cost.median);
        self.start();
    }

    /// What was seen; the single durations go to a file: 32-bit little-endian ticks, the greatest for all that are longer.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn seen(&self, path: Option<&Path>) -> io::Result<Latency> {
        if let Some(path) = path {
            let kept = &self.durations;
            // SAFETY: the region has `room` of 4 bytes, `kept` of them or fewer were written, and it lives longer.
            let bytes = unsafe { std::slice::from_raw_parts(kept.region.start(), kept.kept * 4) };
            File::create(path)?.write_all(bytes)?;
        }
        let cells = self.cells.words().chunks_exact(CELL_WORDS).enumerate();
        let cells = cells.map(|(at, words)| Cell {
            kind: at / CLASSES,
            class: at % CLASSES,
            ticks: Histogram {
                buckets: (0u32..)
                    .zip(words[..BUCKETS].iter().copied())
                    .filter(|(_, count)| *count != 0)
                    .collect(),
                sum: words[BUCKETS],
                max: words[BUCKETS + 1],
            },
        });
        Ok(Latency {
            clock: self.clock.name().to_string(),
            ns_per_tick: self.calibration.end(),
            cost: self.cost.median,
            cost_high: self.cost.high,
            step: self.cost.step,
            cells: cells
                .filter(|cell| !cell.ticks.buckets.is_empty())
                .collect(),
            every: self.durations.every,
            kept: self.durations.kept as u64,
        })
    }

    /// How blocks are touched.
    pub fn inner(&self) -> &T {
        &self.inner
    }
}

impl Durations {
    #[inline(always)]
    fn put(&mut self, ticks: u64) {
        if self.wait != 0 {
            self.wait -= 1;
            return;
        }
        self.wait = self.every - 1;
        if self.kept < self.room {
            // SAFETY: `kept` is below `room`, of which the region has 4 bytes each; it is page aligned.
            unsafe {
                let at = self.region.start().cast::<u32>().add(self.kept);
                at.write(ticks.min(u32::MAX.into()) as u32);
            }
            self.kept += 1;
        }
    }
}

impl<T: Touch> Probe for Timed<T> {
    #[inline(always)]
    fn begins(&mut self) {
        self.spent = 0;
        self.start();
    }

    #[inline(always)]
    fn ended(&mut self, word: u64, _number: usize, slot: &Slot, aligned: bool) {
        if self.runs {
            self.stop();
        }
        let Some(kind) = Kind::of(word, aligned) else {
            return;
        };
        let cell = (kind as usize * CLASSES + class(slot.len())) * CELL_WORDS;
        if let Some(words) = self.cells.words_mut().get_mut(cell..cell + CELL_WORDS) {
            words[bucket(self.spent)] += 1;
            words[BUCKETS] = words[BUCKETS].wrapping_add(self.spent);
            words[BUCKETS + 1] = words[BUCKETS + 1].max(self.spent);
        }
        self.durations.put(self.spent);
    }
}

impl<T: Touch> Touch for Timed<T> {
    const TOUCHES: bool = T::TOUCHES;

    #[inline(always)]
    unsafe fn born(
        &mut self,
        slot: usize,
        block: *mut u8,
        bytes: usize,
        zeroed: bool,
    ) -> Result<(), Fault> {
        self.stop();
        // SAFETY: the caller's.
        unsafe { self.inner.born(slot, block, bytes, zeroed)? };
        if self.locks {
            self.resume();
        }
        Ok(())
    }

    #[inline(always)]
    unsafe fn resized(
        &mut self,
        slot: usize,
        block: *mut u8,
        from: usize,
        to: usize,
    ) -> Result<(), Fault> {
        self.stop();
        // SAFETY: the caller's.
        unsafe { self.inner.resized(slot, block, from, to)? };
        if self.locks {
            self.resume();
        }
        Ok(())
    }

    #[inline(always)]
    unsafe fn ends(&mut self, slot: usize, block: *mut u8, bytes: usize) -> Result<(), Fault> {
        // Without locks the allocator has done nothing before.
        if self.locks {
            self.stop();
        }
        // SAFETY: the caller's.
        unsafe { self.inner.ends(slot, block, bytes)? };
        self.resume();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::touch::Nothing;
    use crate::word::Op;

    fn word(kind: u64, bytes: u64) -> u64 {
        let op = Op {
            kind,
            slot: 0,
            bytes,
            align_log2: 0,
        };
        op.encode().1
    }

    fn slot(bytes: u64) -> Slot {
        Slot { block: 0, bytes }
    }

    #[test]
    fn each_operation_is_kept_where_it_belongs() {
        let mut timed = Timed::new(Nothing, false, 9, 5).unwrap();
        let operations = [
            (word(word::ALLOC, 100), 100, false),
            (word(word::ALLOC, 100), 100, true),
            (word(word::ZEROED, 0), 0, false),
            (word(word::RESIZE, 128), 128, false),
            (word(word::FREE, 0), 127, false),
            (word(word::FREE, 1), 1, false),
            (word(word::UNLOCK, 0), 100, false),
        ];
        timed.begins();
        timed.ended(operations[0].0, 0, &slot(100), false);
        timed.clear();
        for (word, bytes, aligned) in operations {
            timed.begins();
            timed.ended(word, 0, &slot(bytes), aligned);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let seen = timed.seen(Some(file.path())).unwrap();
        let cells = seen
            .cells
            .iter()
            .map(|cell| (cell.kind, cell.class, cell.ticks.count()));
        // The unlock is none.
        assert_eq!(
            cells.collect::<Vec<_>>(),
            [
                (0, 7, 1),
                (1, 0, 1),
                (2, 7, 1),
                (3, 8, 1),
                (4, 7, 1),
                (5, 1, 1)
            ]
        );
        // 9 operations are announced and 5 may be kept: every second one is, and of six there are three.
        assert_eq!((seen.every, seen.kept), (2, 3));
        assert_eq!(std::fs::read(file.path()).unwrap().len(), 12);
        for class in 0..CLASSES {
            let (low, above) = class_bounds(class);
            assert_eq!(
                (super::class(low as usize), super::class(above as usize - 1)),
                (class, class)
            );
        }
    }

    /// Touching takes long, the call nothing: what is kept is the call alone, whether a lock surrounds it or not.
    #[test]
    fn touching_is_not_timed() {
        struct Slow;
        impl Probe for Slow {}
        impl Slow {
            fn wait(&self) -> Result<(), Fault> {
                std::thread::sleep(std::time::Duration::from_millis(20));
                Ok(())
            }
        }
        impl Touch for Slow {
            const TOUCHES: bool = true;
            unsafe fn born(
                &mut self,
                _: usize,
                _: *mut u8,
                _: usize,
                _: bool,
            ) -> Result<(), Fault> {
                self.wait()
            }
            unsafe fn resized(
                &mut self,
                _: usize,
                _: *mut u8,
                _: usize,
                _: usize,
            ) -> Result<(), Fault> {
                self.wait()
            }
            unsafe fn ends(&mut self, _: usize, _: *mut u8, _: usize) -> Result<(), Fault> {
                self.wait()
            }
        }
        for locks in [false, true] {
            let mut timed = Timed::new(Slow, locks, 3, 3).unwrap();
            let block = std::ptr::null_mut();
            // SAFETY: nothing is touched.
            unsafe {
                timed.begins();
                timed.born(0, block, 8, false).unwrap();
                timed.ended(word(word::ALLOC, 8), 0, &slot(8), false);
                timed.begins();
                timed.resized(0, block, 8, 9).unwrap();
                timed.ended(word(word::RESIZE, 9), 0, &slot(9), false);
                timed.begins();
                timed.ends(0, block, 9).unwrap();
                timed.ended(word(word::FREE, 0), 0, &slot(9), false);
            }
            // All three would be 60 ms; what an interrupted call takes is far below one of them, mostly.
            let seen = timed.seen(None).unwrap();
            let least = seen.cells.iter().map(|cell| cell.ticks.max).min().unwrap();
            assert_eq!(seen.cells.len(), 3);
            assert!((least as f64) * seen.ns_per_tick < 20e6, "{seen:?}");
        }
    }
}
