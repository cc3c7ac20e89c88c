//! When the store's blocks are moved together, and what that took. How they are moved is the store's.
//!
//! - While requests come: when the store says that so much of its memory is held by no block, for a share of the
//!   time at most, until half of that is left.
//! - While nothing is asked of the server: step after step, with a look for requests between any two, until a step
//!   finds nothing to do; then not before [`STALE_BYTES`] more were freed.
//! - At rest, too: when the table of handles is much larger than the live ones need, every block gets a new
//!   handle, some at a time ([`Cache::renew`]).

use super::cache::Cache;
use super::histogram::Histogram;
use super::options::Serve;
use super::os::{self, Process};
use super::store::Store;
use std::io;
use std::time::{Duration, Instant};

/// Freed bytes that make another step worthwhile after one that found nothing to do.
const STALE_BYTES: u64 = 1 << 20;
/// How long the store's figures are believed while requests come: asking takes some ten microseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// After a step that found nothing to do while requests come.
const BACK_OFF: Duration = Duration::from_millis(50);
/// Bytes of the table of handles above which, and above a quarter more than is needed, handles are renewed.
const TABLE_BYTES_LEFT: u64 = 1 << 20;
/// How often all handles are renewed without much being freed in between.
const RENEWALS_MAX: u32 = 3;

/// The policy, and its account.
pub struct Compaction {
    step_ns: u64,
    percent: u32,
    slack_percent: u32,
    process: Process,
    /// Resident bytes before anything was stored.
    base_bytes: u64,
    /// Not before this while requests come.
    next: Instant,
    /// Too much memory was held by no block, and still more than half of that is.
    active: bool,
    /// Whether a step at rest would find something to do.
    more: bool,
    /// Bytes freed until the last step.
    freed_bytes: u64,
    /// Where renewing goes on.
    renewing: Option<usize>,
    /// Bytes freed when renewing was found worthwhile last, and how often it was done since.
    renewed_at: u64,
    renewed: u32,
    /// Wall time of each step, of compaction or of renewing.
    pub steps: Histogram,
    /// CPU time of each step, which other processes do not lengthen.
    pub steps_cpu: Histogram,
    /// Bytes of blocks that were moved.
    pub moved_bytes: u64,
    /// Blocks that were moved.
    pub moved_blocks: u64,
    /// Bytes given back to the system.
    pub returned_bytes: u64,
    /// How often renewing went through all blocks.
    pub renewals: u64,
}

impl Compaction {
    /// A policy that has done nothing.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn new(options: &Serve) -> io::Result<Compaction> {
        let process = Process::open(None)?;
        Ok(Compaction {
            step_ns: options.step_ns,
            percent: options.compaction_percent,
            slack_percent: options.slack_percent,
            base_bytes: process.resident_bytes()?,
            process,
            next: Instant::now(),
            active: false,
            more: false,
            freed_bytes: 0,
            renewing: None,
            renewed_at: 0,
            renewed: 0,
            steps: Histogram::default(),
            steps_cpu: Histogram::default(),
            moved_bytes: 0,
            moved_blocks: 0,
            returned_bytes: 0,
            renewals: 0,
        })
    }

    /// Resident bytes of the process now; 0 if they can't be read.
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes().unwrap_or(0)
    }

    /// Resident bytes before anything was stored.
    pub fn base_bytes(&self) -> u64 {
        self.base_bytes
    }

    /// Begins the durations anew.
    pub fn reset(&mut self) {
        self.steps = Histogram::default();
        self.steps_cpu = Histogram::default();
    }

    /// Whether a step is worthwhile if nothing else is to be done.
    pub fn wanted_at_rest<S: Store>(&mut self, cache: &Cache<S>) -> bool {
        if cache.counts().freed_bytes >= self.freed_bytes + STALE_BYTES {
            self.more = true;
        }
        self.more || self.renewing.is_some()
    }

    /// A step while nothing is asked of the server.
    pub fn at_rest<S: Store>(&mut self, cache: &mut Cache<S>) {
        if let Some(from) = self.renewing {
            let (began, cpu) = (Instant::now(), os::thread_cpu_ns());
            self.renewing = cache.renew(from);
            self.account(began, cpu);
            if self.renewing.is_none() {
                self.renewals += 1;
                self.more = true;
            }
            return;
        }
        self.step(cache);
        if !self.more && self.should_renew(cache) {
            self.renewing = Some(0);
        }
    }

    /// Perhaps a step, between requests.
    pub fn between<S: Store>(&mut self, cache: &mut Cache<S>, now: Instant) {
        if now < self.next || self.percent == 0 {
            return;
        }
        let Some(figures) = cache.figures() else {
            // A store that does not move blocks: never again.
            self.percent = 0;
            return;
        };
        let slack = figures.resident_bytes / 100 * u64::from(self.slack_percent);
        let unused = figures
            .resident_bytes
            .saturating_sub(figures.usable_bytes + figures.table_bytes);
        self.active = unused > if self.active { slack / 2 } else { slack };
        if !self.active {
            self.next = now + LOOK_AGAIN;
            return;
        }
        self.step(cache);
        let after = Instant::now();
        let pause = (after - now) * (100 - self.percent) / self.percent;
        self.next = after
            + if self.more {
                pause
            } else {
                pause.max(BACK_OFF)
            };
    }

    /// Whether to begin to renew all handles: the table is much too large, and this was not done [`RENEWALS_MAX`] times since much was freed.
    /// (Once is not enough, as an allocator uses some old handles again.)
    fn should_renew<S: Store>(&mut self, cache: &Cache<S>) -> bool {
        let Some(figures) = cache.figures() else {
            return false;
        };
        let (table, needed) = (figures.table_bytes, figures.table_bytes_needed);
        if table <= needed + needed / 4 + TABLE_BYTES_LEFT {
            return false;
        }
        let freed = cache.counts().freed_bytes;
        if freed >= self.renewed_at + cache.live_bytes() / 4 {
            self.renewed_at = freed;
            self.renewed = 0;
        }
        self.renewed += 1;
        self.renewed <= RENEWALS_MAX
    }

    /// Counts the time of a step.
    fn account(&mut self, began: Instant, cpu_ns: u64) {
        self.steps_cpu.add(os::thread_cpu_ns() - cpu_ns);
        self.steps.add(began.elapsed().as_nanos() as u64);
    }

    fn step<S: Store>(&mut self, cache: &mut Cache<S>) {
        let (began, cpu) = (Instant::now(), os::thread_cpu_ns());
        let step = cache.compact(self.step_ns);
        self.freed_bytes = cache.counts().freed_bytes;
        self.more = step.is_some_and(|step| step.more);
        let Some(step) = step else {
            return;
        };
        self.account(began, cpu);
        self.moved_bytes += step.moved_bytes;
        self.moved_blocks += step.moved_blocks;
        self.returned_bytes += step.returned_bytes;
    }
}
