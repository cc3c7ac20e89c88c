//! How threads of a replay keep each other's order: each tells how many words of its stream it has done, and waits where its
//! stream says so. A thread that has to wait looks for a moment, gives way to others, and then sleeps until it is
//! woken: the processors are for those that can go on.

use crate::run::Order;
use crate::slot::Fault;
use crate::system::clock_ns;
use crate::word;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// Looks at a word before others are given way, and at how many times those are before it sleeps.
const LOOKS: u32 = 100;
const TIMES_TO_GIVE_WAY: u32 = 4;
/// A sleeper looks by itself after so long, whether it was woken or not.
const SLEEP_NS: i64 = 2_000_000;
/// Operations of a thread from one sum of live bytes to the next, where these are looked at.
const OPERATIONS_A_SAMPLE: u32 = 64;

/// How far a thread is. Two cache lines of its own: processors fetch them in pairs.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Lane {
    /// Words done.
    done: AtomicU64,
    /// The smallest number of words that a sleeper waits for.
    wanted: AtomicU64,
    /// Counts up whenever sleepers are woken.
    bell: AtomicU32,
}

impl Default for Lane {
    fn default() -> Lane {
        Lane {
            done: AtomicU64::new(0),
            wanted: AtomicU64::new(u64::MAX),
            bell: AtomicU32::new(0),
        }
    }
}

impl Lane {
    /// Wakes whoever waits for what is done by now.
    #[cold]
    fn ring(&self) {
        self.wanted.store(u64::MAX, Ordering::SeqCst);
        self.bell.fetch_add(1, Ordering::SeqCst);
        wake(&self.bell, i32::MAX);
    }

    /// The thread pauses: nobody may sleep for what it has done.
    pub fn settle(&self) {
        // A sleeper says what it wants before it looks at what is done, both in one order with this.
        fence(Ordering::SeqCst);
        if self.wanted.load(Ordering::SeqCst) <= self.done.load(Ordering::Relaxed) {
            self.ring();
        }
    }
}

/// Sleeps while `word` is `value`, at most `ns` if that is given, now and then for no reason.
pub fn sleep(word: &AtomicU32, value: u32, ns: Option<i64>) {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: ns.unwrap_or_default(),
    };
    let time = ns.map_or(std::ptr::null(), |_| &raw const time);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: futex(2) reads the word and the time, which live through the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, time) };
}

/// Wakes so many that sleep at `word`.
pub fn wake(word: &AtomicU32, sleepers: i32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: futex(2) uses the address alone to find sleepers.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, sleepers) };
}

/// What waiting took a thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Waits whose words were not done yet.
    pub waits: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Wall time of these waits in nanoseconds.
    pub wait_ns: u64,
    /// CPU time of these waits.
    pub wait_cpu_ns: u64,
    /// Most live bytes of all threads above what was recorded at most at the time.
    pub excess_bytes: u64,
}

impl Tally {
    /// Adds another one's.
    pub fn add(&mut self, other: &Tally) {
        self.waits += other.waits;
        self.sleeps += other.sleeps;
        self.wait_ns += other.wait_ns;
        self.wait_cpu_ns += other.wait_cpu_ns;
        self.excess_bytes = self.excess_bytes.max(other.excess_bytes);
    }
}

/// Live bytes of one seat, as far as they are told.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct LiveBytes(pub AtomicU64);

/// What all threads know.
pub struct Common {
    /// The threads, by number.
    pub lanes: Vec<Lane>,
    /// Live bytes, by seat.
    pub live: Vec<LiveBytes>,
    /// Live bytes before the first operation.
    pub setup_bytes: AtomicU64,
    /// Most live bytes of the segment, as recorded.
    pub most_live_bytes: AtomicU64,
    /// The replay ends: a thread met a fault.
    pub stops: AtomicBool,
    /// Times to look before others are given way: none where there is one processor.
    looks: u32,
}

impl Common {
    /// For so many threads and seats.
    pub fn new(threads: usize, seats: usize) -> Common {
        let several =
            std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        Common {
            lanes: (0..threads).map(|_| Lane::default()).collect(),
            live: (0..seats).map(|_| LiveBytes::default()).collect(),
            setup_bytes: AtomicU64::new(0),
            most_live_bytes: AtomicU64::new(0),
            stops: AtomicBool::new(false),
            looks: if several { LOOKS } else { 0 },
        }
    }
}

/// The order among several threads, as one of them keeps it. With `SAMPLED` live bytes of all are summed up now and then.
pub struct Together<'a, const SAMPLED: bool> {
    common: &'a Common,
    lane: &'a Lane,
    seat: usize,
    /// What makes words done of a place among all words.
    offset: u64,
    until_sample: u32,
    /// What waiting took.
    pub tally: Tally,
}

impl<'a, const SAMPLED: bool> Together<'a, SAMPLED> {
    /// Of a thread in a seat that has done `done` words and goes on at word `at`.
    pub fn new(common: &'a Common, thread: usize, seat: usize, done: u64, at: u64) -> Self {
        Together {
            common,
            lane: &common.lanes[thread],
            seat,
            offset: done.wrapping_sub(at),
            until_sample: OPERATIONS_A_SAMPLE,
            tally: Tally::default(),
        }
    }

    #[cold]
    fn sample(&mut self) {
        self.until_sample = OPERATIONS_A_SAMPLE;
        let setup = self.common.setup_bytes.load(Ordering::Relaxed);
        let told = self.common.live.iter();
        let live = told.fold(setup, |sum, one| {
            sum.wrapping_add(one.0.load(Ordering::Relaxed))
        });
        let most = self.common.most_live_bytes.load(Ordering::Relaxed);
        // Sums of moments a little apart can be below zero.
        let excess = live.wrapping_sub(most) as i64;
        self.tally.excess_bytes = self.tally.excess_bytes.max(excess.max(0) as u64);
    }

    /// Waits until `other` has done so many words.
    #[cold]
    fn await_words(&mut self, other: &Lane, words: u64) -> Result<(), Fault> {
        // Whoever waits for this thread must not wait for this wait.
        self.lane.settle();
        let is_done = || other.done.load(Ordering::Acquire) >= words;
        let begun_ns = clock_ns(libc::CLOCK_MONOTONIC);
        self.tally.waits += 1;
        let mut looks = 0;
        while looks < self.common.looks && !is_done() {
            std::hint::spin_loop();
            looks += 1;
        }
        if is_done() {
            let ns = clock_ns(libc::CLOCK_MONOTONIC) - begun_ns;
            self.tally.wait_ns += ns;
            self.tally.wait_cpu_ns += ns;
            return Ok(());
        }
        let looked_ns = clock_ns(libc::CLOCK_MONOTONIC) - begun_ns;
        let before_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
        let done = self.give_way(other, words);
        let cpu_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID) - before_ns;
        self.tally.wait_cpu_ns += looked_ns + cpu_ns;
        self.tally.wait_ns += clock_ns(libc::CLOCK_MONOTONIC) - begun_ns;
        done
    }

    fn give_way(&mut self, other: &Lane, words: u64) -> Result<(), Fault> {
        for _ in 0..TIMES_TO_GIVE_WAY {
            // SAFETY: sched_yield(2) has no requirements.
            unsafe { libc::sched_yield() };
            if other.done.load(Ordering::Acquire) >= words {
                return Ok(());
            }
        }
        loop {
            let bell = other.bell.load(Ordering::SeqCst);
            other.wanted.fetch_min(words, Ordering::SeqCst);
            if other.done.load(Ordering::SeqCst) >= words {
                return Ok(());
            }
            if self.common.stops.load(Ordering::Relaxed) {
                return Err(Fault::Elsewhere);
            }
            self.tally.sleeps += 1;
            sleep(&other.bell, bell, Some(SLEEP_NS));
        }
    }
}

impl<const SAMPLED: bool> Order for Together<'_, SAMPLED> {
    #[inline(always)]
    fn done(&mut self, at: usize, live_bytes: u64) {
        let done = (at as u64).wrapping_add(self.offset);
        self.lane.done.store(done, Ordering::Release);
        // Read before the store is seen by others, perhaps: then the next operation or `settle` wakes them.
        if self.lane.wanted.load(Ordering::Relaxed) <= done {
            self.lane.ring();
        }
        if SAMPLED {
            let told = &self.common.live[self.seat].0;
            told.store(live_bytes, Ordering::Relaxed);
            self.until_sample -= 1;
            if self.until_sample == 0 {
                self.sample();
            }
        }
    }

    #[inline(always)]
    fn wait(&mut self, word: u64) -> Result<(), Fault> {
        let (thread, words) = word::waited(word);
        // The threads of waits were proven; a panic here is impossible, not undefined.
        let other = &self.common.lanes[thread as usize];
        match other.done.load(Ordering::Acquire) >= words {
            true => Ok(()),
            false => self.await_words(other, words),
        }
    }
}
