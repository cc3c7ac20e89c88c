//! The process: its number, its fork, its table of threads, its slot in the spool.
//!
//! A forked child never runs our constructor, and in a sandbox no handler either; a page that the
//! kernel wipes on fork tells it at its first hooked call. All of it works on memory that is already
//! mapped: the only system calls after the start are those that every sandbox allows.

use crate::thread::{self, Thread};
use crate::{clock, spool, start, sys};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use rmtrace_format::chunk::{self, ForkPosition};
use rmtrace_format::event::Kind;
use rmtrace_format::record::Record;
use rmtrace_format::spool::{Drop, ProcessSlot, STARTED_EXEC, STARTED_FORK};

/// Threads that a process can have at a time.
pub const THREADS_MAX: usize = 65536;
/// Epoch of a process that has not yet been told apart from the one it was forked from.
const EPOCH_WIPED: u64 = 0;
/// One of its threads is finding out.
const EPOCH_BUSY: u64 = 1;
/// Process `n` of the spool has epoch `EPOCH_FIRST + n`.
const EPOCH_FIRST: u64 = 2;

/// The page that the kernel wipes on fork, mapped anew at the start.
#[repr(C, align(4096))]
struct WipedPage {
    epoch: AtomicU64,
    /// All ones where `epoch` is a process' own, else 0.
    alive: AtomicUsize,
    rest: UnsafeCell<[u8; 4080]>,
}

// SAFETY: `rest` is not used.
unsafe impl Sync for WipedPage {}

static WIPED: WipedPage = WipedPage {
    epoch: AtomicU64::new(0),
    alive: AtomicUsize::new(0),
    rest: UnsafeCell::new([0; 4080]),
};

static STARTED: AtomicBool = AtomicBool::new(false);
static THREADS: AtomicPtr<Thread> = AtomicPtr::new(null_mut());
/// Thread states handed out so far.
static STATES: AtomicU32 = AtomicU32::new(0);
/// Free states: `tag << 32 | index + 1`.
static FREE_STATES: AtomicU64 = AtomicU64::new(0);
/// Threads of this process so far.
static NUMBERS: AtomicU32 = AtomicU32::new(0);
/// Whether at most one thread has recorded in this process.
static ALONE: AtomicBool = AtomicBool::new(true);
static SLOT: AtomicPtr<ProcessSlot> = AtomicPtr::new(null_mut());
/// Drops before there was a slot.
static EARLY_DROPS: AtomicU64 = AtomicU64::new(0);
static CALLERS: AtomicBool = AtomicBool::new(false);
/// `malloc_usable_size`, where usable sizes are wanted; else 0.
static USABLE_SIZE: AtomicUsize = AtomicUsize::new(0);
/// The argument area, which programs overwrite to change their title: its start, the length of the
/// arguments, and the length with the environment behind them.
static TITLE: AtomicUsize = AtomicUsize::new(0);
static TITLE_LENGTH: AtomicUsize = AtomicUsize::new(0);
static TITLE_AREA: AtomicUsize = AtomicUsize::new(0);

/// The C library's functions for a destructor per thread, and our key.
static SET_SPECIFIC: AtomicUsize = AtomicUsize::new(0);
static EXIT_KEY: AtomicU32 = AtomicU32::new(0);

type SetSpecific = unsafe extern "C" fn(u32, *const Thread) -> i32;
type KeyCreate = unsafe extern "C" fn(*mut u32, unsafe extern "C" fn(*mut Thread)) -> i32;
type UsableSize = unsafe extern "C" fn(usize) -> usize;

/// What tells this process from the one it was forked from.
#[inline(always)]
pub fn epoch() -> u64 {
    WIPED.epoch.load(Relaxed)
}

/// Whether this process was forked from one that records, and has not said so yet.
pub fn is_newborn() -> bool {
    epoch() == EPOCH_WIPED && is_started()
}

/// All ones, but 0 in a process that was forked and does not know it yet.
#[inline(always)]
pub fn alive_mask() -> usize {
    WIPED.alive.load(Acquire)
}

/// Number of this process in the spool.
pub fn number() -> u32 {
    epoch().wrapping_sub(EPOCH_FIRST) as u32
}

/// Whether at most one thread has recorded in this process: nobody's order depends on a fence.
#[inline(always)]
pub fn is_alone() -> bool {
    ALONE.load(Relaxed)
}

/// Whether recording runs.
pub fn is_started() -> bool {
    STARTED.load(Acquire)
}

/// Whether records carry the callers' addresses.
pub fn wants_callers() -> bool {
    CALLERS.load(Relaxed)
}

/// Whether records carry extra columns, which take the cold path.
pub fn has_extra() -> bool {
    CALLERS.load(Relaxed) || USABLE_SIZE.load(Relaxed) != 0
}

/// A hooked function was called before our constructor ran: start now if that can be.
pub fn start_early() -> bool {
    start::start_once();
    if !is_started() {
        EARLY_DROPS.fetch_add(1, Relaxed);
        return false;
    }
    true
}

/// The area of the initial stack that a program's title is shown from.
#[derive(Clone, Copy, Default)]
pub struct Title {
    /// Its start.
    pub start: usize,
    /// Bytes of the arguments, the last NUL included.
    pub arguments: usize,
    /// Bytes of the arguments and the environment.
    pub area: usize,
}

/// What the process needs beside the spool.
pub struct Setup {
    /// Records carry callers.
    pub callers: bool,
    /// Address of `malloc_usable_size` if usable sizes are wanted, else 0.
    pub usable_size: usize,
    /// Where the arguments lie.
    pub title: Title,
    /// Addresses of `pthread_key_create` and `pthread_setspecific`, or 0.
    pub key_create: usize,
    /// See `key_create`.
    pub set_specific: usize,
}

/// Makes the first process of a spool ready to record. The spool is mapped.
pub fn start(setup: &Setup) -> bool {
    let page = &raw const WIPED as usize;
    let flags = sys::MAP_FIXED | sys::MAP_PRIVATE | sys::MAP_ANONYMOUS;
    let protection = sys::PROT_READ | sys::PROT_WRITE;
    // SAFETY: the page is ours, aligned, a page long, and nobody has used it yet.
    if unsafe { sys::mmap(page, 4096, protection, flags, -1) } != page as isize {
        return false;
    }
    if sys::madvise(page, 4096, sys::MADV_WIPEONFORK) != 0 {
        return false;
    }
    let bytes = THREADS_MAX.wrapping_mul(size_of::<Thread>());
    let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_NORESERVE;
    // SAFETY: a new mapping.
    let threads = unsafe { sys::mmap(0, bytes, protection, flags, -1) };
    if threads <= 0 {
        return false;
    }
    THREADS.store(threads as *mut Thread, Relaxed);
    CALLERS.store(setup.callers, Relaxed);
    USABLE_SIZE.store(setup.usable_size, Relaxed);
    TITLE.store(setup.title.start, Relaxed);
    TITLE_LENGTH.store(setup.title.arguments, Relaxed);
    TITLE_AREA.store(setup.title.area, Relaxed);
    if setup.key_create != 0 && setup.set_specific != 0 {
        // SAFETY: the address was found under this name in the C library.
        let create = unsafe { core::mem::transmute::<usize, KeyCreate>(setup.key_create) };
        let mut key = 0;
        // SAFETY: a key whose destructor lives as long as the process (`-z nodelete`).
        if unsafe { create(&mut key, thread::on_exit) } == 0 {
            EXIT_KEY.store(key, Relaxed);
            SET_SPECIFIC.store(setup.set_specific, Relaxed);
        }
    }
    let number = spool::next_process();
    claim_slot(number, STARTED_EXEC, number, 0, 0);
    WIPED
        .epoch
        .store(EPOCH_FIRST.wrapping_add(number as u64), Release);
    WIPED.alive.store(usize::MAX, Release);
    true
}

/// Recording runs from here on.
pub fn started() {
    if let Some(slot) = slot()
        && let Some(count) = slot.dropped.get(Drop::Early as usize)
    {
        count.fetch_add(EARLY_DROPS.load(Relaxed), Relaxed);
    }
    STARTED.store(true, Release);
}

fn slot() -> Option<&'static ProcessSlot> {
    // SAFETY: a slot in the spool's mapping, which is never unmapped.
    unsafe { SLOT.load(Relaxed).as_ref() }
}

/// Fills the slot of process `number` and makes it the current one.
fn claim_slot(number: u32, started_by: u32, parent: u32, parent_thread: u32, parent_threads: u32) {
    // A sandbox may trap getppid, and a fork knows its parent.
    let ppid = match self::slot() {
        Some(parent) if started_by == STARTED_FORK => parent.pid.load(Relaxed),
        _ => sys::getppid(),
    };
    let slot = spool::process_slot(number);
    SLOT.store(slot, Relaxed);
    // SAFETY: `process_slot` gives null or a present slot of the mapping.
    let Some(slot) = (unsafe { slot.as_ref() }) else {
        return;
    };
    slot.state.store(1, Relaxed);
    slot.number.store(number, Relaxed);
    slot.pid.store(sys::getpid(), Relaxed);
    slot.ppid.store(ppid, Relaxed);
    slot.started_by.store(started_by, Relaxed);
    slot.parent.store(parent, Relaxed);
    slot.parent_thread.store(parent_thread, Relaxed);
    slot.parent_threads.store(parent_threads, Relaxed);
    spool::store_triple(&slot.started, clock::triple());
    refresh_title();
    slot.state.store(2, Release);
}

/// Copies what the program shows as its title into the slot, by the kernel's rule for
/// /proc/PID/cmdline: the arguments; or, where the NUL behind them was overwritten, one text that goes
/// on into the environment.
pub fn refresh_title() {
    let Some(slot) = slot() else { return };
    let (title, arguments) = (TITLE.load(Relaxed), TITLE_LENGTH.load(Relaxed));
    // SAFETY: the argument area is part of the initial stack, which stays mapped.
    let byte_at = |at: usize| unsafe { (title.wrapping_add(at) as *const u8).read_volatile() };
    let is_one_text = arguments > 0 && byte_at(arguments.wrapping_sub(1)) != 0;
    let length = if is_one_text {
        TITLE_AREA.load(Relaxed)
    } else {
        arguments
    };
    let mut at = 0usize;
    let mut ended = false;
    for word in &slot.title {
        let mut bytes = [0u8; 8];
        for byte in &mut bytes {
            if at < length && !ended {
                *byte = byte_at(at);
                ended = is_one_text && *byte == 0;
            }
            at = at.wrapping_add(1);
        }
        word.store(u64::from_le_bytes(bytes), Relaxed);
    }
}

/// Counts a call that was not recorded.
#[cold]
pub fn count_drop(reason: Drop) {
    match slot() {
        Some(slot) => {
            if let Some(count) = slot.dropped.get(reason as usize) {
                count.fetch_add(1, Relaxed);
            }
        }
        None => spool::count_drop(reason),
    }
}

/// Counts a chunk of `bytes` bytes that was appended.
pub fn count_appended(bytes: u64) {
    if let Some(slot) = slot() {
        let [chunks, total] = &slot.appended;
        chunks.fetch_add(1, Relaxed);
        total.fetch_add(bytes, Relaxed);
    }
}

/// Counts a wait of `ns` nanoseconds for the collector.
pub fn count_wait(ns: u64) {
    if let Some(slot) = slot() {
        let [waits, total] = &slot.waits;
        waits.fetch_add(1, Relaxed);
        total.fetch_add(ns, Relaxed);
    }
}

/// Whether the caller is a vfork child, which lives in its parent's memory.
pub fn is_vfork_child() -> bool {
    slot().is_some_and(|slot| slot.pid.load(Relaxed) != sys::getpid())
}

fn state_at(index: u32) -> Option<&'static mut Thread> {
    let threads = THREADS.load(Relaxed);
    if threads.is_null() || index as usize >= THREADS_MAX {
        return None;
    }
    // SAFETY: within the table; each state is used by the thread that claimed it alone, and by a
    // forked child while it has one thread.
    Some(unsafe { &mut *threads.wrapping_add(index as usize) })
}

fn index_of(state: &Thread) -> u32 {
    let bytes = (&raw const *state as usize).wrapping_sub(THREADS.load(Relaxed) as usize);
    (bytes / size_of::<Thread>()) as u32
}

/// A state for the calling thread.
pub fn claim_thread() -> Option<&'static mut Thread> {
    if epoch() < EPOCH_FIRST && !renew() {
        return None;
    }
    let index = pop_state().or_else(|| {
        let index = STATES.fetch_add(1, Relaxed);
        if index as usize >= THREADS_MAX - 1 {
            STATES.fetch_sub(1, Relaxed);
            return None;
        }
        Some(index)
    })?;
    let state = state_at(index)?;
    let number = NUMBERS.fetch_add(1, Relaxed);
    if number > 0 {
        ALONE.store(false, Relaxed);
    }
    if let Some(slot) = slot() {
        slot.threads.fetch_max(number.wrapping_add(1), Relaxed);
    }
    state.reset(epoch(), number, sys::gettid());
    Some(state)
}

/// A state for measuring, never a thread's.
pub fn scratch_thread() -> Option<&'static mut Thread> {
    state_at(THREADS_MAX as u32 - 1)
}

fn pop_state() -> Option<u32> {
    let mut head = FREE_STATES.load(Acquire);
    loop {
        let index = (head as u32).checked_sub(1)?;
        let next = state_at(index)?.next_free;
        let new = (head >> 32).wrapping_add(1) << 32 | next as u64;
        match FREE_STATES.compare_exchange_weak(head, new, AcqRel, Acquire) {
            Ok(_) => return Some(index),
            Err(now) => head = now,
        }
    }
}

/// Takes back the state of a thread that has ended.
pub fn release_thread(state: &mut Thread) {
    state.live = false;
    let index = index_of(state);
    let mut head = FREE_STATES.load(Acquire);
    loop {
        state.next_free = head as u32;
        let new = (head >> 32).wrapping_add(1) << 32 | index.wrapping_add(1) as u64;
        match FREE_STATES.compare_exchange_weak(head, new, AcqRel, Acquire) {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}

/// Asks the C library to tell when this thread ends.
pub fn watch_exit(state: &Thread) {
    if state.number == u32::MAX {
        return;
    }
    rearm_exit(state);
}

/// See [`watch_exit`]; also from the destructor itself, to be called once more.
pub fn rearm_exit(state: &Thread) {
    let set = SET_SPECIFIC.load(Relaxed);
    if set == 0 {
        return;
    }
    // SAFETY: the address was found under this name in the C library; the key is ours.
    let set = unsafe { core::mem::transmute::<usize, SetSpecific>(set) };
    // SAFETY: as above; a value of a key is not interpreted.
    unsafe { set(EXIT_KEY.load(Relaxed), state) };
}

/// The state belongs to another process: this one was forked from it. Makes it the state of this
/// process' first thread. Whether recording can go on.
#[cold]
pub fn attach(state: &mut Thread) -> bool {
    if epoch() < EPOCH_FIRST && !renew_from(Some(state)) {
        return false;
    }
    if state.epoch() != epoch() {
        let number = NUMBERS.fetch_add(1, Relaxed);
        if number > 0 {
            ALONE.store(false, Relaxed);
        }
        if let Some(slot) = slot() {
            slot.threads.fetch_max(number.wrapping_add(1), Relaxed);
        }
        state.reset(epoch(), number, sys::gettid());
    }
    true
}

fn renew() -> bool {
    renew_from(None)
}

/// Gives a forked child its own identity; `forker` is the state of the thread that noticed.
fn renew_from(forker: Option<&Thread>) -> bool {
    match WIPED
        .epoch
        .compare_exchange(EPOCH_WIPED, EPOCH_BUSY, AcqRel, Acquire)
    {
        Ok(_) => {}
        Err(EPOCH_BUSY) => {
            // Another new thread of the child is at it.
            for _ in 0..1000 {
                if WIPED.epoch.load(Acquire) >= EPOCH_FIRST {
                    return true;
                }
                sys::sleep(10_000);
            }
            count_drop(Drop::Nested);
            return false;
        }
        Err(_) => return true,
    }
    let parent = match slot() {
        Some(slot) => slot.number.load(Relaxed),
        None => 0,
    };
    let parent_threads = NUMBERS.load(Relaxed);
    let parent_thread = forker.map_or(0, |state| state.number);
    let number = spool::next_process();
    claim_slot(number, STARTED_FORK, parent, parent_thread, parent_threads);
    write_positions(number, parent, forker);
    FREE_STATES.store(0, Relaxed);
    NUMBERS.store(0, Relaxed);
    ALONE.store(true, Relaxed);
    // The hot path of a thread that has not called yet must not find the parent's chunk behind `alive`:
    // it loads that first, `end` then.
    for state in (0..STATES.load(Relaxed)).filter_map(state_at) {
        state.unsettle();
    }
    // The states of the parent's other threads belong to nobody here. Without a forker the forking
    // thread has not called yet, and one of the states is its own: then none is used again.
    if let Some(own) = forker.map(index_of) {
        for index in (0..STATES.load(Relaxed)).rev() {
            if index != own
                && let Some(state) = state_at(index)
            {
                state.guard.store(0, Relaxed);
                release_thread(state);
            }
        }
    }
    WIPED
        .epoch
        .store(EPOCH_FIRST.wrapping_add(number as u64), Release);
    WIPED.alive.store(usize::MAX, Release);
    true
}

/// Writes where each of the parent's living threads was at the fork, as this private copy shows it.
fn write_positions(number: u32, parent: u32, forker: Option<&Thread>) {
    let parent_epoch = EPOCH_FIRST.wrapping_add(parent as u64);
    let per_chunk = (chunk::LARGE_BYTES - chunk::HEADER_BYTES) / ForkPosition::BYTES;
    let mut sequence = 0u32;
    let mut open: Option<(u32, usize)> = None;
    let forker_index = forker.map(index_of);
    for index in 0..STATES.load(Relaxed) {
        let position = match (Some(index) == forker_index, forker) {
            (true, Some(state)) => Some((state.number, state.calls())),
            _ => state_at(index)
                .filter(|state| state.live && state.epoch() == parent_epoch)
                .map(|state| (state.number, state.calls())),
        };
        let Some((thread, calls)) = position else {
            continue;
        };
        if open.is_none_or(|(_, used)| used >= per_chunk) {
            if let Some((chunk, used)) = open {
                finish_positions(chunk, used);
            }
            let few = STATES.load(Relaxed) < 200;
            let Ok(chunk) = spool::claim(!few) else {
                count_drop(Drop::PoolFull);
                return;
            };
            // SAFETY: a claimed chunk is mapped, present and ours.
            let header = unsafe { &*spool::header(chunk) };
            spool::begin_fork(header, number, clock::triple(), sequence);
            sequence = sequence.wrapping_add(1);
            open = Some((chunk, 0));
        }
        if let Some((chunk, used)) = &mut open {
            let at = (spool::header(*chunk) as usize)
                .wrapping_add(chunk::HEADER_BYTES)
                .wrapping_add(used.wrapping_mul(ForkPosition::BYTES));
            // SAFETY: `used` is below what the chunk holds.
            unsafe {
                (at as *mut u64).write(thread as u64);
                (at as *mut u64).add(1).write(calls);
            }
            *used = used.wrapping_add(1);
        }
    }
    if let Some((chunk, used)) = open {
        finish_positions(chunk, used);
    }
    if let Some(slot) = slot() {
        slot.fork_chunks.store(sequence, Relaxed);
    }
}

fn finish_positions(chunk: u32, used: usize) {
    let header = spool::header(chunk);
    // SAFETY: claimed by us.
    let shared = unsafe { &*header };
    shared
        .committed
        .store(used.wrapping_mul(ForkPosition::BYTES) as u32, Release);
    spool::activate(shared);
    if let Some(chunk) = spool::hand_over(chunk, header, true) {
        spool::release(chunk, header);
    }
}

/// Fills the extra columns that are wanted, and clears the others.
pub fn fill_extra(record: &mut Record) {
    if !CALLERS.load(Relaxed) {
        record.caller = 0;
    }
    let usable = USABLE_SIZE.load(Relaxed);
    let block = if record.entry.kind() == Kind::Realloc {
        record.new_address
    } else {
        record.address
    };
    if usable != 0 && record.entry.kind() != Kind::Free && block != 0 {
        // SAFETY: the address was found under `malloc_usable_size`, beside the allocator's `malloc`.
        let usable = unsafe { core::mem::transmute::<usize, UsableSize>(usable) };
        // SAFETY: the block was just allocated.
        record.usable = unsafe { usable(block as usize) } as u64;
    }
}

/// The program ends normally: notes when.
pub extern "C" fn ending() {
    if !is_started() || epoch() < EPOCH_FIRST || is_vfork_child() {
        return;
    }
    refresh_title();
    if let Some(slot) = slot() {
        spool::store_triple(&slot.ended, clock::triple());
    }
}
