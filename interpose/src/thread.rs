//! A thread's private state and the hot path: guard, stamp, record, publish.
//!
//! Costs (see docs/benchmarks.md): a recorded malloc or free is about 45 instructions here, one
//! `rdtsc`, in a process with several threads one `lfence` on the allocation side.
//!
//! Invariants:
//! 1. A thread's state lies in private memory that is never unmapped, so a forked child sees a copy
//!    of every thread's state as it was at the fork.
//! 2. `cursor` and `calls` change after the record is published; the shared counters change between
//!    the two. Whoever is killed in between leaves counters at most one call behind.
//! 3. While `guard` is odd the thread is inside our own code and must not record.

use crate::{clock, process, rundir, spool, sys};
use core::arch::{asm, global_asm};
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize, compiler_fence};
use rmtrace_format::chunk::{ChunkHeader, HEADER_BYTES};
use rmtrace_format::event::{Entry, Kind};
use rmtrace_format::record::{self, Item, Name, Record, Records};
use rmtrace_format::spool::Drop;

// The thread's pointer to its state: initial-exec TLS, so reading it is two loads and no call.
global_asm!(
    ".pushsection .tbss, \"awT\", @nobits",
    ".globl rmtrace_thread",
    ".hidden rmtrace_thread",
    ".type rmtrace_thread, @object",
    ".size rmtrace_thread, 8",
    ".balign 8",
    "rmtrace_thread: .zero 8",
    ".popsection",
);

/// State of one thread, 192 bytes in the table of [`process`].
#[repr(C, align(64))]
pub struct Thread {
    /// 0 outside of hooked functions, else the outermost call's stack pointer; plus 1 while our own
    /// code works.
    pub guard: AtomicUsize,
    /// Address of the next record; 0 without a chunk.
    cursor: AtomicUsize,
    /// Where the chunk ends; 0 where every record takes the cold path (no chunk, extra columns).
    end: usize,
    /// Time base of the next record.
    base: u64,
    /// Process that the state belongs to ([`process::epoch`]).
    epoch: u64,
    /// Header of the chunk, or null.
    header: *mut ChunkHeader,
    /// Calls recorded by this thread.
    pub calls: AtomicU64,
    /// Entry and size of a call that may leave by an exception, `entry << 58 | 1 << 57 | size`; or 0.
    pub pending: u64,
    /// Number of the chunk in the spool.
    chunk: u32,
    /// Number of the thread in its process.
    pub number: u32,
    /// Number of the next chunk in the stream.
    sequence: u32,
    /// The kernel's id.
    pub tid: u32,
    /// Free list of states (index + 1).
    pub next_free: u32,
    /// Times that the thread's exit was announced.
    exits: u32,
    /// Whether the state is a living thread's.
    pub live: bool,
    /// Whether the thread filled a small chunk.
    busy: bool,
    /// Counters carried from chunk to chunk while there is none.
    counts: [u64; Kind::COUNT],
    bytes: u64,
    sum: u64,
    dropped: u64,
}

/// The time base that every chunk begins with.
const BASE_BYTES: u32 = record::UNIT_BYTES as u32;

/// What a hooked function does with its call.
pub enum Guard {
    /// Record it.
    Record(&'static mut Thread),
    /// It is part of another recorded call, or can't be recorded (counted already).
    Pass,
}

#[inline(always)]
fn current() -> *mut Thread {
    let thread: *mut Thread;
    // SAFETY: reads our own thread-local variable.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + rmtrace_thread@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0}]",
            out(reg) thread,
            options(nostack, readonly, preserves_flags)
        );
    }
    thread
}

fn set_current(thread: *mut Thread) {
    // SAFETY: writes our own thread-local variable.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + rmtrace_thread@GOTTPOFF]",
            "mov qword ptr fs:[{0}], {1}",
            out(reg) _,
            in(reg) thread,
            options(nostack, preserves_flags)
        );
    }
}

#[inline(always)]
fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Begins a hooked call: at most one per thread is recorded at a time, the outermost, and none while
/// recording is paused.
#[inline(always)]
pub fn enter() -> Guard {
    if rundir::is_paused() {
        pause();
        return Guard::Pass;
    }
    enter_always()
}

/// In a pause nothing is recorded, but a forked child still joins the run at its first call: before it
/// may be in a sandbox.
#[cold]
#[inline(never)]
fn pause() {
    if process::is_newborn()
        && let Guard::Record(state) = enter_always()
    {
        state.join();
        state.leave();
    }
}

/// As [`enter`], for what is recorded in a pause too.
#[inline(always)]
pub fn enter_always() -> Guard {
    let (thread, pointer) = (current(), stack_pointer());
    if !thread.is_null() {
        // SAFETY: invariant 1; the state is this thread's own.
        let state = unsafe { &mut *thread };
        if state.guard.load(Relaxed) == 0 {
            state.guard.store(pointer, Relaxed);
            compiler_fence(Release);
            return Guard::Record(state);
        }
    }
    enter_cold(thread, pointer)
}

#[cold]
#[inline(never)]
fn enter_cold(thread: *mut Thread, pointer: usize) -> Guard {
    let thread = if thread.is_null() {
        if !process::is_started() && !process::start_early() {
            return Guard::Pass;
        }
        let mask = sys::block_signals();
        let new = process::claim_thread();
        if let Some(new) = &new {
            set_current(&raw const **new as *mut Thread);
        }
        sys::restore_signals(mask);
        let Some(new) = new else {
            process::count_drop(Drop::ThreadSlots);
            return Guard::Pass;
        };
        new
    } else {
        thread
    };
    // SAFETY: invariant 1; this thread's own.
    let state = unsafe { &mut *thread };
    let guard = state.guard.load(Relaxed);
    if guard != 0 {
        let inside_us = guard & 1 != 0;
        let deeper = pointer < guard & !1;
        if inside_us && (deeper || sys::on_signal_stack()) {
            // A signal handler interrupted our own code.
            process::count_drop(Drop::Nested);
            return Guard::Pass;
        }
        if deeper {
            return Guard::Pass;
        }
        // The call that set the guard was left by longjmp or an exception.
        state.finish_pending();
    }
    state.guard.store(pointer & !1, Relaxed);
    compiler_fence(Release);
    Guard::Record(state)
}

/// The call in progress on this thread is left by an exception.
pub fn abandon() {
    abandon_below(usize::MAX);
}

/// The frames of this thread below the stack pointer `target` are left without a return; the call in
/// progress too if it is among them.
pub fn abandon_below(target: usize) {
    let thread = current();
    // SAFETY: invariant 1; this thread's own.
    let Some(state) = (unsafe { thread.as_mut() }) else {
        return;
    };
    let guard = state.guard.load(Relaxed);
    if guard == 0 || target < guard & !1 {
        return;
    }
    if guard & 1 != 0 {
        // Out of a signal handler that interrupted the hot path: the cold ones block signals.
        state.recount();
    }
    state.finish_pending();
    state.leave();
}

const fn blank(entry: Entry, tsc: u64) -> Record {
    Record {
        entry,
        align_log2: 0,
        freed: false,
        address: 0,
        new_address: 0,
        size: 0,
        tsc,
        tsc_end: tsc,
        caller: 0,
        usable: 0,
    }
}

impl Thread {
    /// Ends a hooked call.
    #[inline(always)]
    pub fn leave(&mut self) {
        compiler_fence(Release);
        self.guard.store(0, Relaxed);
    }

    #[inline(always)]
    fn begin(&mut self) {
        self.guard.store(self.guard.load(Relaxed) | 1, Relaxed);
        compiler_fence(Release);
    }

    #[inline(always)]
    fn end(&mut self) {
        compiler_fence(Release);
        self.guard.store(self.guard.load(Relaxed) & !1, Relaxed);
    }

    /// Records an allocation that returned `address` (0: failed), and ends the hooked call.
    #[inline(always)]
    pub fn allocated(
        &mut self,
        entry: Entry,
        align_log2: u8,
        address: usize,
        size: usize,
        caller: usize,
    ) {
        self.begin();
        let tsc = clock::stamp_after(process::is_alone());
        let low = (align_log2 as u64) << record::ALIGN_SHIFT | entry as u64;
        self.push(entry, low, address as u64, size as u64, tsc, caller);
        self.leave();
    }

    /// Records a free that is about to happen.
    #[inline(always)]
    pub fn freeing(&mut self, entry: Entry, address: usize, caller: usize) {
        self.begin();
        let tsc = clock::stamp_before();
        self.push(entry, entry as u64, address as u64, 0, tsc, caller);
        self.end();
    }

    /// Records a realloc whose stamp `tsc` was taken before the call.
    #[inline(never)]
    pub fn reallocated(&mut self, record: &mut Record) {
        self.begin();
        record.tsc_end = clock::stamp_after(process::is_alone());
        self.push_cold(record);
        self.leave();
    }

    /// Joins the process that the thread is in by now.
    fn join(&mut self) {
        self.begin();
        if self.epoch != process::epoch() {
            let mask = sys::block_signals();
            process::attach(self);
            sys::restore_signals(mask);
        }
        self.end();
    }

    /// Leaves a mark in the stream.
    #[cold]
    pub fn mark(&mut self, number: u64, value: u64) {
        self.begin();
        let tsc = clock::stamp_before();
        if self.ready(tsc, record::UNIT_BYTES) {
            let delta = tsc.wrapping_sub(self.base);
            let words = [
                value << 16 | record::CODE_MARK,
                number << record::DELTA_BITS | delta,
            ];
            self.store(&words, None);
        }
        self.end();
    }

    /// Leaves a mark with a name in the stream. Whether there was room.
    #[cold]
    pub fn mark_named(&mut self, name: &Name) -> bool {
        self.begin();
        let tsc = clock::stamp_before();
        let ready = self.ready(tsc, record::ITEM_BYTES_MAX);
        if ready {
            let delta = tsc.wrapping_sub(self.base);
            let mut words = [0u64; record::ITEM_BYTES_MAX / 8];
            let first = [
                (name.bytes().len() as u64) << 16 | record::CODE_MARK,
                record::MARK_NAMED << record::DELTA_BITS | delta,
            ];
            let mut length = 0;
            for (slot, word) in words.iter_mut().zip(first.into_iter().chain(name.words())) {
                *slot = word;
                length += 1;
            }
            self.store(words.get(..length).unwrap_or_default(), None);
        }
        self.end();
        ready
    }

    /// The hot path: a record of one unit into the chunk at hand; everything else goes to the cold.
    #[inline(always)]
    fn push(&mut self, entry: Entry, low: u64, address: u64, size: u64, tsc: u64, caller: usize) {
        let cursor = self.cursor.load(Relaxed);
        let delta = tsc.wrapping_sub(self.base);
        let wide = delta >> record::DELTA_BITS | size >> record::SIZE_LOW_BITS | address >> 48;
        let next = cursor.wrapping_add(record::UNIT_BYTES);
        if next > self.end || self.epoch != process::epoch() || wide != 0 {
            let align_log2 = (low >> record::ALIGN_SHIFT) as u8 & 63;
            let record = Record {
                align_log2,
                address,
                size,
                caller: caller as u64,
                ..blank(entry, tsc)
            };
            self.push_cold(&record);
            return;
        }
        let word = address << 16 | low;
        let header = self.header;
        // SAFETY: `end` is not 0, so the chunk is mapped, present and this thread's; `next` is within.
        unsafe {
            (cursor as *mut u64).write(word);
            ((cursor as *mut u64).add(1)).write(size << record::DELTA_BITS | delta);
            let data = header as usize + HEADER_BYTES;
            (*header)
                .committed
                .store(next.wrapping_sub(data) as u32, Release);
            let count = &raw const (*header).calls as *const AtomicU64;
            add(&*count.add(entry.kind() as usize), 1);
            if !matches!(entry.kind(), Kind::Free) {
                add(&(*header).bytes, size);
            }
            let sum = (*header).sum.load(Relaxed);
            let sum = record::content_step(sum, word ^ size.rotate_left(48));
            (*header).sum.store(sum, Relaxed);
        }
        compiler_fence(Release);
        self.cursor.store(next, Relaxed);
        add(&self.calls, 1);
    }

    /// Records anything, whatever has to happen first: a new process after fork, a new chunk, a new
    /// time base, extra columns.
    #[cold]
    #[inline(never)]
    fn push_cold(&mut self, record: &Record) {
        if (record.address | record.new_address) >> 48 != 0 {
            return self.drop_one(Drop::WideAddress);
        }
        let mut record = *record;
        process::fill_extra(&mut record);
        // A realloc's base is settled by its first stamp, and the longest record must fit.
        if !self.ready(record.tsc, record::RECORD_BYTES_MAX) {
            return;
        }
        let mut bytes = [0; record::RECORD_BYTES_MAX];
        let Some(length) = record::encode(&record, self.base, &mut bytes) else {
            return self.drop_one(Drop::WideAddress);
        };
        let mut words = [0u64; record::RECORD_BYTES_MAX / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        self.store(words.get(..length / 8).unwrap_or_default(), Some(&record));
    }

    /// Makes sure that a record of up to `bytes` bytes with this stamp fits. Counts a drop if not.
    fn ready(&mut self, tsc: u64, bytes: usize) -> bool {
        let needed = bytes.wrapping_add(record::UNIT_BYTES);
        if self.epoch != process::epoch() || self.room() < needed {
            // A signal handler that jumps away from here would leave a chunk behind.
            let mask = sys::block_signals();
            let result = self.prepare(tsc, needed);
            sys::restore_signals(mask);
            match result {
                Ok(true) => {}
                Ok(false) => return false,
                Err(reason) => {
                    self.drop_one(reason);
                    return false;
                }
            }
        }
        if tsc.wrapping_sub(self.base) > record::DELTA_MASK {
            self.base = tsc;
            self.store(&[record::CODE_BASE, tsc], None);
        }
        true
    }

    /// Joins the process that the thread is in by now, and gets a chunk with room. False: the drop is
    /// counted already.
    #[inline(never)]
    fn prepare(&mut self, tsc: u64, needed: usize) -> Result<bool, Drop> {
        if self.epoch != process::epoch() && !process::attach(self) {
            return Ok(false);
        }
        if self.room() < needed {
            self.next_chunk(tsc)?;
        }
        Ok(true)
    }

    fn room(&self) -> usize {
        if self.header.is_null() {
            return 0;
        }
        spool::chunk_end(self.header).wrapping_sub(self.cursor.load(Relaxed))
    }

    /// Writes words that are known to fit, and counts `call`.
    fn store(&mut self, words: &[u64], call: Option<&Record>) {
        let mut at = self.cursor.load(Relaxed);
        let header = self.header;
        for word in words {
            // SAFETY: `ready` has found room for the record in this thread's chunk.
            unsafe { (at as *mut u64).write(*word) };
            at = at.wrapping_add(8);
        }
        let data = (header as usize).wrapping_add(HEADER_BYTES);
        // SAFETY: the chunk is mapped and this thread's.
        let shared = unsafe { &*header };
        shared
            .committed
            .store(at.wrapping_sub(data) as u32, Release);
        if let Some(record) = call {
            if let Some(count) = shared.calls.get(record.entry.kind() as usize) {
                add(count, 1);
            }
            add(&shared.bytes, record.size);
            shared.sum.store(
                record::content_sum(shared.sum.load(Relaxed), record),
                Relaxed,
            );
        }
        compiler_fence(Release);
        self.cursor.store(at, Relaxed);
        if call.is_some() {
            add(&self.calls, 1);
        }
    }

    /// Makes cursor and counters agree with what was published, after the hot path was left between
    /// its stores.
    fn recount(&mut self) {
        if self.header.is_null() {
            return;
        }
        // SAFETY: the chunk is mapped and this thread's.
        let shared = unsafe { &*self.header };
        let length = shared.committed.load(Relaxed) as usize;
        let data = (self.header as usize).wrapping_add(HEADER_BYTES);
        // SAFETY: published records of this thread's chunk, which nobody else writes.
        let bytes = unsafe { core::slice::from_raw_parts(data as *const u8, length) };
        let (mut counts, mut size, mut sum) = (self.counts, self.bytes, self.sum);
        let mut calls = shared.first_ordinal.load(Relaxed);
        for item in Records::new(bytes, 0).flatten() {
            if let Item::Call(call) = item {
                if let Some(count) = counts.get_mut(call.entry.kind() as usize) {
                    *count = count.wrapping_add(1);
                }
                size = size.wrapping_add(call.size);
                sum = record::content_sum(sum, &call);
                calls = calls.wrapping_add(1);
            }
        }
        for (count, value) in shared.calls.iter().zip(counts) {
            count.store(value, Relaxed);
        }
        shared.bytes.store(size, Relaxed);
        shared.sum.store(sum, Relaxed);
        self.calls.store(calls, Relaxed);
        self.cursor.store(data.wrapping_add(length), Relaxed);
    }

    /// Records a throwing allocation that did not return as failed.
    fn finish_pending(&mut self) {
        if self.pending == 0 {
            return;
        }
        let (entry, size) = (self.pending >> 58, self.pending & ((1 << 56) - 1));
        self.pending = 0;
        if let Some(entry) = Entry::from_number(entry as u8) {
            self.begin();
            let tsc = clock::stamp_before();
            self.push_cold(&Record {
                size,
                ..blank(entry, tsc)
            });
            self.end();
        }
    }

    #[cold]
    fn drop_one(&mut self, reason: Drop) {
        self.dropped = self.dropped.wrapping_add(1);
        if !self.header.is_null() {
            // SAFETY: the chunk is mapped and this thread's.
            unsafe { &(*self.header).dropped }.store(self.dropped, Relaxed);
        }
        process::count_drop(reason);
    }

    /// Hands over the full chunk and begins another.
    fn next_chunk(&mut self, tsc: u64) -> Result<(), Drop> {
        self.busy |= !self.header.is_null();
        let kept = self.hand_over(self.busy);
        let claimed = match kept {
            Some(chunk) => chunk,
            None => spool::claim(self.busy)?,
        };
        self.begin_chunk(claimed, tsc);
        Ok(())
    }

    /// Gives the chunk away; `Some` if it was written out and may be used again. With `keep` a chunk
    /// is kept only if it is large.
    fn hand_over(&mut self, keep: bool) -> Option<u32> {
        let header = self.header;
        if header.is_null() {
            return None;
        }
        // SAFETY: the chunk is mapped and this thread's.
        let shared = unsafe { &*header };
        for (kept, count) in self.counts.iter_mut().zip(&shared.calls) {
            *kept = count.load(Relaxed);
        }
        self.bytes = shared.bytes.load(Relaxed);
        self.sum = shared.sum.load(Relaxed);
        let (chunk, empty) = (self.chunk, shared.committed.load(Relaxed) <= BASE_BYTES);
        self.header = null_mut();
        self.end = 0;
        compiler_fence(Release);
        self.cursor.store(0, Relaxed);
        if empty {
            spool::release(chunk, header);
            self.sequence = self.sequence.wrapping_sub(1);
            return None;
        }
        spool::hand_over(chunk, header, keep)
    }

    fn begin_chunk(&mut self, chunk: u32, tsc: u64) {
        let header = spool::header(chunk);
        let opened = clock::triple();
        // The first record was stamped before the chunk was claimed.
        self.base = tsc;
        // SAFETY: claimed chunks are mapped, present and nobody else's.
        let shared = unsafe { &*header };
        spool::begin(shared, self, process::number(), opened, self.sequence);
        for (count, kept) in shared.calls.iter().zip(&self.counts) {
            count.store(*kept, Relaxed);
        }
        shared.bytes.store(self.bytes, Relaxed);
        shared.sum.store(self.sum, Relaxed);
        shared.dropped.store(self.dropped, Relaxed);
        shared
            .first_ordinal
            .store(self.calls.load(Relaxed), Relaxed);
        spool::activate(shared);
        self.sequence = self.sequence.wrapping_add(1);
        self.chunk = chunk;
        self.header = header;
        self.cursor
            .store((header as usize).wrapping_add(HEADER_BYTES), Relaxed);
        self.end = if process::has_extra() {
            0
        } else {
            spool::chunk_end(header)
        };
        // The chunk's base is `opened.tsc`; records count from `self.base`, said by a base record.
        self.store(&[record::CODE_BASE, self.base], None);
        process::refresh_title();
        process::watch_exit(self);
    }

    /// Begins the life of a state for a thread of process `epoch`.
    pub fn reset(&mut self, epoch: u64, number: u32, tid: u32) {
        self.header = null_mut();
        self.cursor.store(0, Relaxed);
        self.end = 0;
        self.base = 0;
        self.epoch = epoch;
        self.calls.store(0, Relaxed);
        self.pending = 0;
        self.number = number;
        self.sequence = 0;
        self.tid = tid;
        self.exits = 0;
        self.live = true;
        self.busy = false;
        self.counts = [0; Kind::COUNT];
        self.bytes = 0;
        self.sum = 0;
        self.dropped = 0;
    }

    /// Epoch that the state belongs to.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// Adds to a counter that this thread alone changes.
#[inline(always)]
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
}

/// What the C library calls when a thread ends, up to four times while destructors of others may
/// still allocate: each time the chunk goes, the last time the state too.
pub unsafe extern "C" fn on_exit(thread: *mut Thread) {
    let own = current();
    if own.is_null() || own != thread {
        return;
    }
    // SAFETY: invariant 1; this thread's own.
    let state = unsafe { &mut *thread };
    if state.guard.load(Relaxed) != 0 || state.epoch != process::epoch() {
        return;
    }
    let mask = sys::block_signals();
    state.guard.store(stack_pointer() | 1, Relaxed);
    compiler_fence(Release);
    if let Some(chunk) = state.hand_over(true) {
        spool::release(chunk, spool::header(chunk));
    }
    state.exits = state.exits.wrapping_add(1);
    if state.exits < 4 {
        process::rearm_exit(state);
        state.leave();
    } else {
        state.leave();
        set_current(null_mut());
        process::release_thread(state);
    }
    sys::restore_signals(mask);
}

/// Measures what recording one call costs, in picoseconds, on a page of its own that is thrown away; 0
/// where that can't be.
pub fn measure_own_cost() -> u64 {
    const CALLS: usize = 200;
    let Some(state) = process::scratch_thread() else {
        return 0;
    };
    let protection = sys::PROT_READ | sys::PROT_WRITE;
    let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS;
    // SAFETY: a new mapping.
    let page = unsafe { sys::mmap(0, 4096, protection, flags, -1) };
    if page <= 0 {
        return 0;
    }
    let page = page as usize;
    let mut best = u64::MAX;
    for _ in 0..4 {
        state.reset(process::epoch(), u32::MAX, 0);
        state.header = page as *mut ChunkHeader;
        state.base = clock::stamp_before();
        state.cursor.store(page.wrapping_add(HEADER_BYTES), Relaxed);
        state.end = page.wrapping_add(4096);
        let before = clock::monotonic_ns();
        for size in 0..CALLS / 2 {
            state.allocated(Entry::Malloc, 0, 0x1000, size, 0);
            state.freeing(Entry::Free, 0x1000, 0);
            state.leave();
        }
        let took = clock::monotonic_ns().wrapping_sub(before);
        best = best.min(took.wrapping_mul(1000) / CALLS as u64);
    }
    state.reset(0, u32::MAX, 0);
    state.live = false;
    sys::munmap(page, 4096);
    best
}
