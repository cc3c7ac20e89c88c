//! The load of the stress tests: threads that allocate, lock, write, verify, resize, free and hand over blocks of the
//! default heap while others compact it. Every byte of every block is known at any time.
//!
//! What it owns: the blocks' patterns, the workers, the wrong-byte report. When it runs, for how long and on what heap
//! is the tests' business. A fault ends the process at once, with its story on standard error: state stays as it is
//! for a debugger, and no other thread hides the first cause.

use rmalloc::ffi::*;
use rmalloc::{Compaction, Error, Stats};
use std::ffi::c_void;
use std::io::Write;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

/// Ends the process with a message that no test runner keeps to itself.
pub fn fault(text: std::fmt::Arguments) -> ! {
    let _ = writeln!(std::io::stderr(), "stress: {text}");
    std::process::abort()
}

macro_rules! demand {
    ($left:expr, $right:expr, $($what:tt)*) => {{
        let (left, right) = ($left, $right);
        if left != right {
            $crate::load::fault(format_args!("{}:{}: {left:?} instead of {right:?}: {}", file!(), line!(), format_args!($($what)*)));
        }
    }};
}
#[allow(unused_imports)]
pub(crate) use demand;

/// Numbers that depend on the seed alone (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Bytes of a block: mostly small, now and then large.
    pub fn size(&mut self) -> usize {
        match self.below(1000) {
            0..700 => 1 + self.below(256),
            700..900 => 1 + self.below(2048),
            900..985 => 1 + self.below(12_000),
            985..998 => 1 + self.below(80_000),
            _ => 1 + self.below(600_000),
        }
    }
}

/// A block and what is in it.
pub struct Block {
    /// The bits of the handle.
    pub handle: usize,
    pub size: usize,
    pub seed: u64,
    /// Where it is, if it came over locked.
    pub locked_at: Option<usize>,
}

impl Block {
    pub fn memory(&self) -> *mut memory_t {
        self.handle as *mut memory_t
    }
}

fn pattern(seed: u64, at: usize) -> u64 {
    seed.wrapping_add(at as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Writes the pattern of `seed` from byte `from` (a multiple of 8) to the end.
///
/// # Safety
/// `size` bytes at `place` may be written.
pub unsafe fn write(place: *mut u8, from: usize, size: usize, seed: u64) {
    for at in (from..size).step_by(8) {
        let bytes = pattern(seed, at).to_le_bytes();
        // SAFETY: the caller's promise.
        unsafe {
            place
                .add(at)
                .copy_from_nonoverlapping(bytes.as_ptr(), (size - at).min(8))
        };
    }
}

/// The first byte that is not as the pattern says.
///
/// # Safety
/// `size` bytes at `place` may be read.
pub unsafe fn wrong_byte(place: *const u8, size: usize, seed: u64) -> Option<usize> {
    for at in (0..size).step_by(8) {
        let mut found = [0; 8];
        let count = (size - at).min(8);
        // SAFETY: the caller's promise.
        unsafe {
            found
                .as_mut_ptr()
                .copy_from_nonoverlapping(place.add(at), count)
        };
        let wanted = pattern(seed, at).to_le_bytes();
        if found[..count] != wanted[..count] {
            return Some(
                at + (0..count)
                    .find(|&byte| found[byte] != wanted[byte])
                    .unwrap_or(0),
            );
        }
    }
    None
}

/// Locks the block; where it is.
pub fn lock(block: &Block) -> *mut u8 {
    let mut place: *mut c_void = null_mut();
    // SAFETY: writes one pointer.
    let status = unsafe { rmlock(block.memory(), &mut place) };
    demand!(
        status,
        0,
        "rmlock of {:#x}, {} bytes",
        block.handle,
        block.size
    );
    place.cast()
}

/// As [`lock`], by a lock that another thread may give back.
pub fn lock_shared(block: &Block) -> *mut u8 {
    let mut place: *mut c_void = null_mut();
    // SAFETY: writes one pointer.
    let status = unsafe { rmlock_shared(block.memory(), &mut place) };
    demand!(
        status,
        0,
        "rmlock_shared of {:#x}, {} bytes",
        block.handle,
        block.size
    );
    place.cast()
}

pub fn unlock(block: &Block) {
    demand!(
        rmunlock(block.memory()),
        0,
        "rmunlock of {:#x}",
        block.handle
    );
}

/// Compares all bytes of a locked block.
pub fn verify_at(block: &Block, place: *mut u8, when: &str) {
    // SAFETY: the block is locked and has these bytes.
    if let Some(at) = unsafe { wrong_byte(place, block.size, block.seed) } {
        fault(format_args!(
            "wrong byte {at} of {}, {when}, handle {:#x} at {place:?}",
            block.size, block.handle
        ));
    }
}

pub fn verify(block: &Block, when: &str) {
    let place = lock(block);
    verify_at(block, place, when);
    unlock(block);
}

/// Gives the block new contents.
pub fn rewrite(block: &mut Block, seed: u64) {
    let place = lock(block);
    verify_at(block, place, "before it is rewritten");
    block.seed = seed;
    // SAFETY: locked, and that many bytes.
    unsafe { write(place, 0, block.size, seed) };
    unlock(block);
}

/// A block of `size` bytes with the pattern of `seed`; `None`: no memory.
pub fn allocate(size: usize, alignment: usize, seed: u64) -> Option<Block> {
    let mut memory: *mut memory_t = null_mut();
    // SAFETY: writes one handle.
    let status = unsafe {
        if alignment > 16 {
            rmalloc_aligned(&mut memory, size as isize, alignment)
        } else {
            rmalloc(&mut memory, size as isize)
        }
    };
    if status == Error::Memory as i32 {
        return None;
    }
    demand!(status, 0, "rmalloc of {size} bytes");
    let block = Block {
        handle: memory as usize,
        size,
        seed,
        locked_at: None,
    };
    let place = lock(&block);
    demand!(
        place as usize % alignment.max(16),
        0,
        "alignment of {place:?}"
    );
    // SAFETY: locked, and that many bytes.
    unsafe { write(place, 0, size, seed) };
    unlock(&block);
    Some(block)
}

/// Verifies a block and ends it.
pub fn end(block: Block) {
    verify(&block, "before it is freed");
    demand!(
        rmfree(block.memory()),
        0,
        "rmfree of {:#x}, {} bytes",
        block.handle,
        block.size
    );
}

/// Gives the block another size; what is new is written.
pub fn resize(block: &mut Block, size: usize) {
    let status = rmresize(block.memory(), size as isize);
    if status == Error::Memory as i32 {
        return;
    }
    demand!(
        status,
        0,
        "rmresize of {:#x} from {} to {size} bytes",
        block.handle,
        block.size
    );
    let kept = block.size.min(size);
    block.size = size;
    let place = lock(block);
    // SAFETY: locked, and `kept` bytes are old, the others may be written.
    unsafe {
        if let Some(at) = wrong_byte(place, kept, block.seed) {
            fault(format_args!(
                "wrong byte {at} of {kept} after a resize to {size}, handle {:#x}",
                block.handle
            ));
        }
        write(place, kept / 8 * 8, size, block.seed);
    }
    unlock(block);
}

/// Statistics of the default heap.
pub fn stats() -> Stats {
    let mut stats = Stats::default();
    // SAFETY: writes one value.
    demand!(unsafe { rmstats(&mut stats) }, 0, "rmstats");
    stats
}

/// Compacts the default heap; `None`: another thread is at it.
pub fn compact(budget_ns: u64) -> Option<Compaction> {
    let mut done = Compaction::default();
    // SAFETY: writes one value.
    let status = unsafe { rmcompact(budget_ns, &mut done) };
    if status == Error::Busy as i32 {
        return None;
    }
    demand!(status, 0, "rmcompact for {budget_ns} ns");
    Some(done)
}

/// What the threads of a load share.
pub struct Load {
    stop: AtomicBool,
    /// Blocks on their way to somebody.
    inboxes: Vec<Mutex<Vec<Block>>>,
    /// Blocks that all threads use at a time, read by several.
    common: Vec<RwLock<Option<Block>>>,
    /// Calls made, for the report.
    pub calls: AtomicU64,
    seed: u64,
}

/// Workers that stay.
const WORKERS: usize = 6;
/// Most blocks of a worker.
const BLOCKS: usize = 3000;

impl Load {
    /// Runs for `time`; when it returns no thread is in a call and no block is left.
    pub fn run(seed: u64, time: Duration) -> Load {
        let load = Load {
            stop: AtomicBool::new(false),
            inboxes: (0..WORKERS).map(|_| Mutex::new(Vec::new())).collect(),
            common: (0..64).map(|_| RwLock::new(None)).collect(),
            calls: AtomicU64::new(0),
            seed,
        };
        std::thread::scope(|scope| {
            let load = &load;
            let mut threads: Vec<_> = (0..WORKERS)
                .map(|number| scope.spawn(move || load.work(number)))
                .collect();
            threads.push(scope.spawn(|| load.compact()));
            threads.push(scope.spawn(|| load.come_and_go()));
            let end = Instant::now() + time;
            while Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
            load.stop.store(true, Relaxed);
            // The end of the scope waits for what threads do, joining for their ends as well.
            threads
                .into_iter()
                .for_each(|thread| thread.join().expect("a fault ends the process"));
        });
        for inbox in &load.inboxes {
            for block in inbox.lock().unwrap().drain(..) {
                load.receive(block).into_iter().for_each(end);
            }
        }
        for place in &load.common {
            place.write().unwrap().take().into_iter().for_each(end);
        }
        load
    }

    fn work(&self, number: usize) {
        let mut random = Random(self.seed ^ (number as u64 + 1) << 32);
        let mut own: Vec<Block> = Vec::new();
        let mut calls = 0u64;
        let mut most = BLOCKS;
        while !self.stop.load(Relaxed) {
            calls += 1;
            if calls.is_multiple_of(20_000) {
                // Now and then most blocks end, so that regions run thin.
                most = 20 + random.below(BLOCKS);
            }
            while own.len() > most {
                let pick = random.below(own.len());
                end(own.swap_remove(pick));
            }
            self.step(number, &mut random, &mut own);
            if calls.is_multiple_of(64) {
                let came: Vec<Block> = self.inboxes[number].lock().unwrap().drain(..).collect();
                own.extend(came.into_iter().filter_map(|block| self.receive(block)));
            }
        }
        own.into_iter().for_each(end);
        self.calls.fetch_add(calls, Relaxed);
    }

    fn step(&self, number: usize, random: &mut Random, own: &mut Vec<Block>) {
        let seed = random.next();
        if own.is_empty() {
            own.extend(allocate(random.size(), 16, seed));
            return;
        }
        let pick = random.below(own.len());
        match random.below(100) {
            0..30 => own.extend(allocate(random.size(), 16, seed)),
            30..33 => own.extend(allocate(random.size(), 1 << random.below(13), seed)),
            33..58 => end(own.swap_remove(pick)),
            58..68 => verify(&own[pick], "at rest"),
            68..75 => rewrite(&mut own[pick], seed),
            75..80 => {
                let size = random.size();
                resize(&mut own[pick], size);
            }
            80..83 => {
                let mut usable = 0;
                let block = &own[pick];
                // SAFETY: writes one number.
                demand!(unsafe { rmsize(block.memory(), &mut usable) }, 0, "rmsize");
                // Blocks that shrank a little stay where they are; large ones have whole pages.
                let most = (block.size + block.size / 4 + 128).next_multiple_of(4096);
                if usable < block.size || usable > most {
                    fault(format_args!(
                        "rmsize says {usable} of {} bytes, handle {:#x}",
                        block.size, block.handle
                    ));
                }
            }
            83..87 => nested(random, own),
            87..93 => self.share(random),
            93..99 => {
                let to = random.below(WORKERS);
                let mut block = own.swap_remove(pick);
                if random.below(4) == 0 {
                    block.locked_at = Some(lock_shared(&block) as usize);
                }
                if to == number {
                    own.extend(self.receive(block));
                } else {
                    self.inboxes[to].lock().unwrap().push(block);
                }
            }
            _ => {
                let stale = own.swap_remove(pick);
                let memory = stale.memory();
                end(stale);
                demand!(
                    rmfree(memory),
                    Error::Handle as i32,
                    "rmfree of a stale handle"
                );
                demand!(
                    rmunlock(memory),
                    Error::Handle as i32,
                    "rmunlock of a stale handle"
                );
            }
        }
    }

    /// Takes in a block of another thread; one that is locked has stayed where it was.
    fn receive(&self, mut block: Block) -> Option<Block> {
        if let Some(place) = block.locked_at.take() {
            verify_at(&block, place as *mut u8, "locked by another thread");
            demand!(
                rmfree(block.memory()),
                Error::Locked as i32,
                "rmfree of a block that another thread locked"
            );
            demand!(
                lock(&block) as usize,
                place,
                "place of a block that was locked all the time"
            );
            unlock(&block);
            unlock(&block);
        }
        if block.seed.is_multiple_of(3) {
            end(block);
            return None;
        }
        verify(&block, "from another thread");
        Some(block)
    }

    /// Reads a block that others read too, or changes one that nobody reads.
    fn share(&self, random: &mut Random) {
        let place = &self.common[random.below(self.common.len())];
        let seed = random.next();
        if random.below(4) != 0 {
            if let Some(block) = &*place.read().unwrap() {
                verify(block, "read by several threads");
            }
            return;
        }
        let mut place = place.write().unwrap();
        match &mut *place {
            None => *place = allocate(random.size(), 16, seed),
            Some(block) => match random.below(3) {
                0 => rewrite(block, seed),
                1 => resize(block, random.size()),
                _ => place.take().into_iter().for_each(end),
            },
        }
    }

    fn compact(&self) {
        let mut random = Random(self.seed ^ 0xc0de);
        while !self.stop.load(Relaxed) {
            let budget = [0, 1, 5_000, 20_000, 50_000, 200_000, 1_000_000][random.below(7)];
            compact(budget);
            if random.below(50) == 0 {
                stats();
            }
            if random.below(8) == 0 {
                std::thread::sleep(Duration::from_micros(random.next() % 2000));
            }
        }
    }

    /// Threads that live for a moment and leave blocks behind: some locked, with locks that were never given back.
    fn come_and_go(&self) {
        let mut random = Random(self.seed ^ 0x90e5);
        while !self.stop.load(Relaxed) {
            std::thread::scope(|scope| {
                let visits: Vec<_> = (0..1 + random.below(3))
                    .map(|_| {
                        let seed = random.next();
                        scope.spawn(move || self.visit(seed))
                    })
                    .collect();
                for visit in visits {
                    // Its locks can be given back by others once it has ended.
                    for block in visit.join().expect("a fault ends the process") {
                        self.inboxes[random.below(WORKERS)]
                            .lock()
                            .unwrap()
                            .push(block);
                    }
                }
            });
        }
    }

    fn visit(&self, seed: u64) -> Vec<Block> {
        let mut random = Random(seed);
        let mut own: Vec<Block> = Vec::new();
        for _ in 0..random.below(600) {
            self.step(usize::MAX, &mut random, &mut own);
        }
        let mut locks = 0;
        for block in &mut own {
            // More locks than a thread has records for.
            if locks < 12 && random.below(8) == 0 {
                locks += 1;
                let place = lock(block);
                verify_at(block, place, "before its thread ends");
                block.locked_at = Some(place as usize);
            }
        }
        own
    }
}

/// Several locks at a time, given back in another order; blocks are read and written meanwhile.
fn nested(random: &mut Random, own: &mut [Block]) {
    let count = 2 + random.below(12);
    let mut held: Vec<(usize, *mut u8)> = Vec::new();
    for _ in 0..count {
        let pick = random.below(own.len());
        if held.iter().filter(|(other, _)| *other == pick).count() < 3 {
            held.push((pick, lock(&own[pick])));
        }
    }
    for &(pick, place) in &held {
        verify_at(&own[pick], place, "one of several locks");
        own[pick].seed = random.next();
        // SAFETY: locked, and that many bytes.
        unsafe { write(place, 0, own[pick].size, own[pick].seed) };
    }
    let (first, _) = held[0];
    demand!(
        rmfree(own[first].memory()),
        Error::Locked as i32,
        "rmfree of a locked block"
    );
    demand!(
        rmresize(own[first].memory(), 999_999),
        Error::Locked as i32,
        "rmresize of a locked block"
    );
    while !held.is_empty() {
        let (pick, place) = held.swap_remove(random.below(held.len()));
        verify_at(&own[pick], place, "before its lock is given back");
        unlock(&own[pick]);
    }
    demand!(
        rmunlock(own[first].memory()),
        Error::NotLocked as i32,
        "rmunlock of a block without locks"
    );
}
