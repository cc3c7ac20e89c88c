//! What locking, compacting and moving cost: figures of one process, for `benches/rmalloc`.
//!
//! Owned here: three modes and their work, and the clocks they are measured with. Each result is a line of JSON; times are
//! in nanoseconds, bandwidths in bytes a nanosecond. Left to others: tables, repeats and circumstances (`benches/rmalloc`).
//!
//!     measure locks [--library librmalloc.so]     pairs of rmlock and rmunlock
//!     measure pauses [--gib N] [--budget-us B] [--threads 1|2] [--seconds S]
//!     measure moving [--gib N]                     compaction beside memcpy
//!
//! The functions are called through pointers that the compiler does not see through, as a C program calls a library. With
//! `--library` they are those of the shared library, else those linked into this program.

use rmalloc::ffi::{
    Options, memory_t, rmalloc as rm_alloc, rmfree, rmheap_alloc, rmheap_compact, rmheap_create,
    rmheap_destroy, rmheap_stats, rmheap_t, rmlock, rmlock_shared, rmunlock, status_t,
};
use rmalloc::{Compaction, Stats};
use std::ffi::{CStr, CString, c_void};
use std::hint::black_box;
use std::process::exit;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// Blocks that are locked in turn.
const BLOCKS: usize = 1_000;
/// Times that all of them are locked for one sample.
const TURNS: usize = 500;
const SAMPLES: usize = 40;
/// Blocks of `pauses`.
const SIZE_MIN: f64 = 64.0;
const SIZE_MAX: f64 = 65_536.0;
/// What a call may take beyond its budget.
const GRACE_NS: u64 = 100_000;
/// Rounds of `moving`.
const ROUNDS: usize = 5;
const GIB: usize = 1 << 30;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mode = arguments.first().map_or("", String::as_str);
    match mode {
        "locks" => {
            let library: Option<String> = option(&arguments, &["--library"], "--library");
            locks(&match library {
                Some(path) => Api::of_library(&path),
                None => Api::linked(),
            });
        }
        "pauses" => {
            let known = ["--gib", "--budget-us", "--threads", "--seconds"];
            let gib: usize = option(&arguments, &known, "--gib").unwrap_or(1);
            let budget_us: u64 = option(&arguments, &known, "--budget-us").unwrap_or(1_000);
            let threads: usize = option(&arguments, &known, "--threads").unwrap_or(1);
            let seconds: u64 = option(&arguments, &known, "--seconds").unwrap_or(12);
            if gib == 0 || budget_us == 0 || !(1..=2).contains(&threads) {
                fail("--gib and --budget-us are at least 1, --threads is 1 or 2");
            }
            pauses(gib * GIB, budget_us * 1_000, threads, seconds);
        }
        "moving" => {
            let gib: usize = option(&arguments, &["--gib"], "--gib").unwrap_or(1);
            if gib == 0 {
                fail("--gib is at least 1");
            }
            for size in [4 << 10, 16 << 10, 32 << 10] {
                moving(gib * GIB, size);
            }
        }
        _ => fail("give a mode: locks, pauses or moving"),
    }
}

fn fail(text: &str) -> ! {
    eprintln!("measure: {text}");
    exit(2)
}

/// The value of an option, if it is given; ends the program if one is not `known`.
fn option<T: std::str::FromStr>(arguments: &[String], known: &[&str], name: &str) -> Option<T> {
    let mut found = None;
    for pair in arguments[1..].chunks(2) {
        let [key, value] = pair else {
            fail(&format!("{} needs a value", pair[0]));
        };
        if !known.contains(&key.as_str()) {
            fail(&format!("unknown option {key}"));
        }
        if key == name {
            found = Some(value.parse().unwrap_or_else(|_| {
                fail(&format!("{key}: {value} can't be understood"));
            }));
        }
    }
    found
}

/// Ends the program if a call failed.
fn check(what: &str, status: status_t) {
    if status != 0 {
        eprintln!("measure: {what} failed with status {status}");
        exit(1);
    }
}

fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` can be written to; both clocks used here exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn wall_ns() -> u64 {
    now_ns(libc::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread, user and system.
fn cpu_ns() -> u64 {
    now_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Pseudo-random numbers (xorshift64*, Vigna 2016): the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        ((self.next() as u128 * end as u128) >> 64) as usize
    }

    /// A size of a block: each doubling is as likely as another.
    fn size(&mut self) -> usize {
        let part = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (SIZE_MIN * (SIZE_MAX / SIZE_MIN).powf(part)) as usize
    }
}

/// The value below which a share of the sorted values lies (nearest rank), 0 if there is none.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// ---- Locks ------------------------------------------------------------------------------------------------------

type Alloc = unsafe extern "C" fn(*mut *mut memory_t, isize) -> status_t;
type Lock = unsafe extern "C" fn(*mut memory_t, *mut *mut c_void) -> status_t;
type Give = unsafe extern "C" fn(*mut memory_t) -> status_t;

/// The functions that are measured.
struct Api {
    source: &'static str,
    alloc: Alloc,
    lock: Lock,
    lock_shared: Lock,
    unlock: Give,
    free: Give,
}

impl Api {
    fn linked() -> Api {
        Api {
            source: "linked",
            alloc: rm_alloc,
            lock: rmlock,
            lock_shared: rmlock_shared,
            unlock: rmunlock,
            free: rmfree,
        }
    }

    /// Those of `librmalloc.so`, which has a default heap of its own.
    fn of_library(path: &str) -> Api {
        let Ok(name) = CString::new(path) else {
            fail("the path has a zero byte");
        };
        // SAFETY: the library's constructors may run here; it stays loaded.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let symbol = |name: &CStr| {
            let at = if library.is_null() {
                std::ptr::null_mut()
            } else {
                // SAFETY: the library is loaded, the name ends with a zero.
                unsafe { libc::dlsym(library, name.as_ptr()) }
            };
            if at.is_null() {
                fail(&format!("{path} can't be loaded, or lacks {name:?}"));
            }
            at
        };
        // SAFETY: rmalloc.h gives the functions these types.
        unsafe {
            Api {
                source: "shared library",
                alloc: std::mem::transmute::<*mut c_void, Alloc>(symbol(c"rmalloc")),
                lock: std::mem::transmute::<*mut c_void, Lock>(symbol(c"rmlock")),
                lock_shared: std::mem::transmute::<*mut c_void, Lock>(symbol(c"rmlock_shared")),
                unlock: std::mem::transmute::<*mut c_void, Give>(symbol(c"rmunlock")),
                free: std::mem::transmute::<*mut c_void, Give>(symbol(c"rmfree")),
            }
        }
    }

    /// Blocks of 64 bytes, of the calling thread.
    fn blocks(&self) -> Blocks {
        let mut blocks = Vec::new();
        for _ in 0..BLOCKS {
            let mut block = std::ptr::null_mut();
            // SAFETY: `block` can be written to.
            check("rmalloc", unsafe { (self.alloc)(&mut block, 64) });
            blocks.push(block);
        }
        Blocks(blocks)
    }

    fn free(&self, blocks: Blocks) {
        for block in blocks.0 {
            // SAFETY: nobody uses the block any more.
            check("rmfree", unsafe { (self.free)(block) });
        }
    }

    /// CPU nanoseconds of a pair on each of the blocks in turn, one figure for each sample, sorted.
    fn pairs(&self, blocks: &Blocks, lock: Lock) -> Vec<f64> {
        let (lock, unlock) = (black_box(lock), black_box(self.unlock));
        let mut samples = Vec::new();
        for sample in 0..SAMPLES + 2 {
            let begin = cpu_ns();
            let mut failed = 0;
            for _ in 0..TURNS {
                for block in &blocks.0 {
                    let mut address = std::ptr::null_mut();
                    // SAFETY: `address` can be written to, the block is live.
                    unsafe {
                        failed |= lock(*block, &mut address);
                        black_box(address);
                        failed |= unlock(*block);
                    }
                }
            }
            check("a lock or unlock", failed);
            // The first ones warm up.
            if sample >= 2 {
                samples.push((cpu_ns() - begin) as f64 / (TURNS * BLOCKS) as f64);
            }
        }
        samples.sort_by(f64::total_cmp);
        samples
    }
}

struct Blocks(Vec<*mut memory_t>);
// SAFETY: handles are numbers; every thread may use them.
unsafe impl Send for Blocks {}
// SAFETY: as above.
unsafe impl Sync for Blocks {}

fn locks(api: &Api) {
    let line = |case: &str, samples: &[f64]| {
        println!(
            "{{\"mode\":\"locks\",\"source\":\"{}\",\"case\":\"{case}\",\"pairs\":{},\"min_ns\":{:.3},\"median_ns\":{:.3},\"max_ns\":{:.3}}}",
            api.source,
            SAMPLES * TURNS * BLOCKS,
            samples[0],
            samples[SAMPLES / 2],
            samples[SAMPLES - 1]
        );
    };
    let own = api.blocks();
    line("one thread", &api.pairs(&own, api.lock));
    line("one thread, shared lock", &api.pairs(&own, api.lock_shared));
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let workers = [(); 2].map(|()| {
            scope.spawn(|| {
                let blocks = api.blocks();
                start.wait();
                let samples = api.pairs(&blocks, api.lock);
                start.wait();
                api.free(blocks);
                samples
            })
        });
        for (number, worker) in workers.into_iter().enumerate() {
            match worker.join() {
                Ok(samples) => line(&format!("two threads, thread {}", number + 1), &samples),
                Err(_) => fail("a thread ended early"),
            }
        }
    });
    thread::scope(|scope| {
        let other = scope.spawn(|| (api.pairs(&own, api.lock), api.pairs(&own, api.lock_shared)));
        match other.join() {
            Ok((samples, shared)) => {
                line("another thread's blocks", &samples);
                line("another thread's blocks, shared lock", &shared);
            }
            Err(_) => fail("a thread ended early"),
        }
    });
    api.free(own);
}

// ---- A heap with blocks -------------------------------------------------------------------------------------------

/// A heap that compacts only when told to, and its blocks with their sizes.
struct Filled {
    heap: *mut rmheap_t,
    blocks: Vec<(*mut memory_t, usize)>,
    bytes: usize,
}

impl Filled {
    fn new() -> Filled {
        let options = Options {
            compaction: 1,
            ..Options::NONE
        };
        let mut heap = std::ptr::null_mut();
        // SAFETY: `heap` can be written to, `options` is whole.
        check("rmheap_create", unsafe {
            rmheap_create(&mut heap, &options)
        });
        Filled {
            heap,
            blocks: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds blocks until `bytes` are live. Every byte is written, and the first and last ones say which block it is.
    fn fill(&mut self, bytes: usize, mut size: impl FnMut() -> usize) {
        while self.bytes < bytes {
            let size = size();
            let block = alloc(self.heap, size);
            with_bytes(block, size, |contents| {
                contents.fill(1);
                let mark = (block as u64).to_le_bytes();
                contents[..8].copy_from_slice(&mark);
                contents[size - 8..].copy_from_slice(&mark);
            });
            self.blocks.push((block, size));
            self.bytes += size;
        }
    }

    /// Frees a share of the blocks, chosen at random.
    fn thin(&mut self, random: &mut Random, share: f64) {
        for _ in 0..(self.blocks.len() as f64 * share) as usize {
            let (block, size) = self.blocks.swap_remove(random.below(self.blocks.len()));
            check("rmfree", rmfree(block));
            self.bytes -= size;
        }
    }

    /// Ends the program if a block does not hold what was written.
    fn verify(&self) {
        for (block, size) in &self.blocks {
            with_bytes(*block, *size, |contents| {
                let mark = (*block as u64).to_le_bytes();
                if contents[..8] != mark || contents[size - 8..] != mark {
                    eprintln!("measure: a block of {size} bytes has lost its contents");
                    exit(1);
                }
            });
        }
    }

    fn compact(&self, budget_ns: u64) -> Compaction {
        let mut done = Compaction::default();
        // SAFETY: `done` can be written to.
        check("rmheap_compact", unsafe {
            rmheap_compact(self.heap, budget_ns, &mut done)
        });
        done
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        // SAFETY: `stats` can be written to.
        check("rmheap_stats", unsafe {
            rmheap_stats(self.heap, &mut stats)
        });
        stats
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        // SAFETY: no other thread uses the heap, and nobody its blocks.
        check("rmheap_destroy", unsafe { rmheap_destroy(self.heap) });
    }
}

fn alloc(heap: *mut rmheap_t, size: usize) -> *mut memory_t {
    let mut block = std::ptr::null_mut();
    // SAFETY: `block` can be written to.
    check("rmheap_alloc", unsafe {
        rmheap_alloc(heap, &mut block, size as isize)
    });
    block
}

/// Locks a block of `size` bytes meanwhile.
fn with_bytes(block: *mut memory_t, size: usize, work: impl FnOnce(&mut [u8])) {
    let mut address = std::ptr::null_mut();
    // SAFETY: `address` can be written to. The block is live, locked meanwhile, and only its own thread uses its contents;
    // they were written when the block was made, or are about to be.
    unsafe {
        check("rmlock", rmlock(block, &mut address));
        work(std::slice::from_raw_parts_mut(address.cast(), size));
    }
    check("rmunlock", rmunlock(block));
}

// ---- Pauses -----------------------------------------------------------------------------------------------------

/// A call of rmheap_compact.
struct Call {
    wall_ns: u64,
    cpu_ns: u64,
    done: Compaction,
}

fn pauses(bytes: usize, budget_ns: u64, threads: usize, seconds: u64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut sizes = Random(0xd1b5_4a32_d192_ed03);
    let mut filled = Filled::new();
    let mut calls: Vec<Call> = Vec::new();
    let mut rounds = 0;
    let (mut before, mut after) = (0, 0);
    let stop = AtomicBool::new(false);
    let heap = HeapPointer(filled.heap);
    thread::scope(|scope| {
        if threads == 2 {
            scope.spawn(|| work(&heap, &stop));
        }
        let end_ns = wall_ns() + seconds * 1_000_000_000;
        // At least two rounds: the second begins where the first compaction left the heap.
        while rounds < 2 || wall_ns() < end_ns {
            filled.fill(bytes, || sizes.size());
            filled.thin(&mut random, 0.35);
            before = filled.stats().resident_bytes;
            loop {
                let (wall, cpu) = (wall_ns(), cpu_ns());
                let done = filled.compact(budget_ns);
                let (cpu_ns, wall_ns) = (cpu_ns() - cpu, wall_ns() - wall);
                let finished = done.finished != 0;
                calls.push(Call {
                    wall_ns,
                    cpu_ns,
                    done,
                });
                if finished {
                    break;
                }
            }
            after = filled.stats().resident_bytes;
            rounds += 1;
        }
        stop.store(true, Relaxed);
    });
    filled.verify();
    let sum =
        |field: fn(&Compaction) -> u64| calls.iter().map(|call| field(&call.done)).sum::<u64>();
    let sorted = |field: fn(&Call) -> u64| {
        let mut values: Vec<u64> = calls.iter().map(field).collect();
        values.sort_unstable();
        values
    };
    let (wall, cpu) = (sorted(|call| call.wall_ns), sorted(|call| call.cpu_ns));
    let limit = budget_ns + GRACE_NS;
    let within = |values: &[u64]| {
        values.partition_point(|value| *value <= limit) as f64 / values.len() as f64
    };
    let times = |values: &[u64]| {
        format!(
            "\"p50\":{},\"p99\":{},\"p999\":{},\"max\":{},\"within\":{:.5}",
            quantile(values, 0.5),
            quantile(values, 0.99),
            quantile(values, 0.999),
            quantile(values, 1.0),
            within(values)
        )
    };
    // The calls that used most CPU time, by phase.
    let mut ordered: Vec<&Call> = calls.iter().collect();
    ordered.sort_by_key(|call| std::cmp::Reverse(call.cpu_ns));
    let worst: Vec<String> = ordered.iter().take(5).map(|call| {
        format!(
            "{{\"wall_ns\":{},\"cpu_ns\":{},\"survey_ns\":{},\"move_ns\":{},\"release_ns\":{},\"bytes_moved\":{},\"bytes_released\":{}}}",
            call.wall_ns,
            call.cpu_ns,
            call.done.survey_ns,
            call.done.move_ns,
            call.done.release_ns,
            call.done.bytes_moved,
            call.done.bytes_released
        )
    }).collect();
    println!(
        "{{\"mode\":\"pauses\",\"heap_bytes\":{bytes},\"budget_ns\":{budget_ns},\"threads\":{threads},\"rounds\":{rounds},\"calls\":{},\"wall\":{{{}}},\"cpu\":{{{}}},\"survey_ns\":{},\"move_ns\":{},\"release_ns\":{},\"bytes_moved\":{},\"bytes_released\":{},\"live_bytes\":{},\"resident_before\":{before},\"resident_after\":{after},\"worst\":[{}]}}",
        calls.len(),
        times(&wall),
        times(&cpu),
        sum(|done| done.survey_ns),
        sum(|done| done.move_ns),
        sum(|done| done.release_ns),
        sum(|done| done.bytes_moved),
        sum(|done| done.bytes_released),
        filled.bytes,
        worst.join(",")
    );
}

struct HeapPointer(*mut rmheap_t);
// SAFETY: every thread may use a heap that lives.
unsafe impl Sync for HeapPointer {}

/// Another thread of the program: it keeps 10,000 blocks, and replaces one after the other.
fn work(heap: &HeapPointer, stop: &AtomicBool) {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut blocks: Vec<*mut memory_t> = Vec::new();
    while !stop.load(Relaxed) {
        let size = random.size();
        let block = alloc(heap.0, size);
        with_bytes(block, size, |contents| contents[0] = 1);
        if blocks.len() < 10_000 {
            blocks.push(block);
        } else {
            let at = random.below(blocks.len());
            check("rmfree", rmfree(blocks[at]));
            blocks[at] = block;
        }
    }
    for block in blocks {
        check("rmfree", rmfree(block));
    }
}

// ---- Moving -----------------------------------------------------------------------------------------------------

/// Memory of its own, every byte of it written.
struct Buffer {
    at: *mut u8,
    bytes: usize,
}

impl Buffer {
    /// In pages of 4 KiB, as the heap's are.
    fn new(bytes: usize) -> Buffer {
        // SAFETY: new memory, nobody else's.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            fail("no memory for the buffers");
        }
        // SAFETY: the memory is ours.
        unsafe {
            libc::madvise(at, bytes, libc::MADV_NOHUGEPAGE);
            at.cast::<u8>().write_bytes(1, bytes);
        }
        Buffer {
            at: at.cast(),
            bytes,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the memory is ours, and not used any more.
        unsafe { libc::munmap(self.at.cast(), self.bytes) };
    }
}

/// Bytes a nanosecond of memcpy(3), in pieces of `size`. Half of the pieces, chosen at random, go to the front of the
/// other buffer: what a compaction of a heap that is half empty does.
fn memcpy_bandwidth(from: &Buffer, to: &Buffer, size: usize, random: &mut Random) -> f64 {
    let pieces: Vec<usize> = (0..from.bytes / size)
        .filter(|_| random.next() >> 63 == 0)
        .map(|piece| piece * size)
        .collect();
    let begin = wall_ns();
    for (number, piece) in pieces.iter().enumerate() {
        // SAFETY: both pieces lie in their buffers, which are apart.
        unsafe {
            libc::memcpy(
                to.at.add(number * size).cast(),
                from.at.add(*piece).cast(),
                black_box(size),
            );
        }
    }
    (pieces.len() * size) as f64 / (wall_ns() - begin) as f64
}

fn moving(bytes: usize, size: usize) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (from, to) = (Buffer::new(GIB), Buffer::new(GIB));
    let (mut copies, mut moves, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    let (mut blocks_moved, mut bytes_moved) = (0, 0);
    for _ in 0..ROUNDS {
        copies.push(memcpy_bandwidth(&from, &to, size, &mut random));
        let mut filled = Filled::new();
        filled.fill(bytes, || size);
        filled.thin(&mut random, 0.5);
        let begin = wall_ns();
        let done = filled.compact(0);
        let took = wall_ns() - begin;
        filled.verify();
        if done.bytes_moved == 0 {
            fail("no block was moved");
        }
        moves.push(done.bytes_moved as f64 / done.move_ns as f64);
        calls.push(done.bytes_moved as f64 / took as f64);
        blocks_moved += done.blocks_moved;
        bytes_moved += done.bytes_moved;
    }
    let (copy, moved, call) = (median(copies), median(moves), median(calls));
    println!(
        "{{\"mode\":\"moving\",\"heap_bytes\":{bytes},\"block_bytes\":{size},\"rounds\":{ROUNDS},\"blocks_moved\":{blocks_moved},\"bytes_moved\":{bytes_moved},\"memcpy\":{copy:.3},\"moving\":{moved:.3},\"ratio\":{:.3},\"whole_call\":{call:.3}}}",
        moved / copy
    );
}
