//! A thread's private state and the hot path: guard, stamp, record, publish.
//!
//! Costs (see docs/benchmarks.md, and benches/instructions for the figures of today): a recorded call
//! is 60 to 110 instructions, one `rdtsc` (a realloc two), in a process with several threads one
//! `lfence` on the allocation side.
//!
//! Invariants:
//! 1. A thread's state lies in private memory that is never unmapped, so a forked child sees a copy
//!    of every thread's state as it was at the fork.
//! 2. `position` changes after the record is published; the shared counters change between the two.
//!    Whoever is killed in between leaves counters at most one call behind. It is one word, so that a
//!    process forked meanwhile by another thread sees a call whole or not at all.
//! 3. While `guard` is odd the thread is inside our own code and must not record.
//! 4. Whatever the hot path can't do is found by one comparison, as each makes a number large: no
//!    chunk or a full one, extra columns, a clock that is no counter (`end` is 0 or small), a forked
//!    process ([`process::alive_mask`] is 0), a stamp far from the time base, a wide size or address.

use crate::{clock, process, rundir, spool, sys};
use core::arch::{asm, global_asm};
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize, compiler_fence};
use rmtrace_format::chunk::{ChunkHeader, HEADER_BYTES, LARGE_BYTES};
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
    /// 0 outside of hooked functions, else the outermost call's stack pointer as it is called, where its
    /// return address lies; plus 1 while our own code works.
    pub guard: AtomicUsize,
    /// Calls recorded by this thread above [`CALL_SHIFT`]; below, the bytes of records in the chunk, as
    /// published in its header; 0 without a chunk.
    position: AtomicU64,
    /// Bytes of records that the chunk holds; 0 where every record takes the cold path (no chunk, extra
    /// columns, a clock other than the time-stamp counter).
    end: AtomicUsize,
    /// Time base of the next record.
    base: u64,
    /// Header of the chunk, or null.
    header: *mut ChunkHeader,
    /// Process that the state belongs to ([`process::epoch`]).
    epoch: u64,
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

const _: () = assert!(core::mem::offset_of!(Thread, guard) == 0);

/// Place of the calls in a thread's position.
const CALL_SHIFT: u32 = 16;
const _: () = assert!(LARGE_BYTES - HEADER_BYTES < 1 << CALL_SHIFT);

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

/// Begins a hooked call whose return address lies at `frame`: at most one per thread is recorded at a
/// time, the outermost, and none while recording is paused.
#[inline(always)]
pub fn enter(frame: usize) -> Guard {
    let (paused, thread) = (rundir::paused(), current());
    if !thread.is_null() {
        // SAFETY: invariant 1; the state is this thread's own.
        let state = unsafe { &mut *thread };
        if paused as usize | state.guard.load(Relaxed) == 0 {
            state.guard.store(frame, Relaxed);
            compiler_fence(Release);
            return Guard::Record(state);
        }
    }
    enter_cold(thread, frame)
}

/// As [`enter`], with our own code at work from the first moment on: for calls that are recorded before
/// they happen.
#[inline(always)]
pub fn enter_inside(frame: usize) -> Guard {
    enter(frame | 1)
}

/// As [`enter`], for what is recorded in a pause too.
pub fn enter_always() -> Guard {
    enter_even_paused(current(), stack_pointer())
}

#[cold]
#[inline(never)]
fn enter_cold(thread: *mut Thread, pointer: usize) -> Guard {
    if rundir::paused() != 0 {
        // Nothing is recorded, but a forked child still joins the run at its first call: before it may
        // be in a sandbox.
        if process::is_newborn()
            && let Guard::Record(state) = enter_even_paused(thread, pointer)
        {
            state.join();
            state.leave();
        }
        return Guard::Pass;
    }
    enter_even_paused(thread, pointer)
}

fn enter_even_paused(thread: *mut Thread, pointer: usize) -> Guard {
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
        let deeper = pointer & !1 < guard & !1;
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
    state.guard.store(pointer, Relaxed);
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

    // Both are one instruction that reads and writes, which tells them from the plain stores that begin and end a call to
    // who reads the program's accesses (docs/accesses.md).
    #[inline(always)]
    fn begin(&mut self) {
        let guard = self.guard.as_ptr();
        // SAFETY: our own word, which this thread alone writes to.
        unsafe { asm!("or qword ptr [{}], 1", in(reg) guard, options(nostack)) };
    }

    #[inline(always)]
    fn end(&mut self) {
        let guard = self.guard.as_ptr();
        // SAFETY: as above.
        unsafe { asm!("and qword ptr [{}], -2", in(reg) guard, options(nostack)) };
    }

    /// Records an allocation that returned `address` (0: failed), and ends the hooked call. `address`.
    #[inline(always)]
    pub fn allocated(
        &mut self,
        entry: Entry,
        align_log2: u8,
        address: usize,
        size: usize,
    ) -> usize {
        self.begin();
        let ticks = clock::ticks_after(process::is_alone());
        let low = (align_log2 as u64) << record::ALIGN_SHIFT | entry as u64;
        if !self.push(entry, low, address as u64, size as u64, ticks) {
            return self.allocated_rare(low, address, size, ticks);
        }
        self.leave();
        address
    }

    #[cold]
    #[inline(never)]
    fn allocated_rare(&mut self, low: u64, address: usize, size: usize, ticks: u64) -> usize {
        self.push_rare(low, address as u64, size as u64, ticks);
        self.leave();
        address
    }

    /// Records a free that is about to happen, in a call begun with [`enter_inside`]. Whether it could: if
    /// not, [`Thread::freeing_rare`] can.
    #[inline(always)]
    pub fn freeing(&mut self, entry: Entry, address: usize) -> bool {
        let ticks = clock::ticks();
        let recorded = self.push(entry, entry as u64, address as u64, 0, ticks);
        if recorded {
            self.end();
        }
        recorded
    }

    /// See [`Thread::freeing`].
    pub fn freeing_rare(&mut self, entry: Entry, address: usize) {
        self.push_rare(entry as u64, address as u64, 0, clock::ticks());
        self.end();
    }

    /// Records a realloc that returned, and ends the hooked call. Whether it could: if not,
    /// [`Thread::reallocated_rare`] can.
    #[inline(always)]
    pub fn reallocated(
        &mut self,
        entry: Entry,
        block: usize,
        new: usize,
        size: usize,
        before: u64,
    ) -> bool {
        self.begin();
        let after = clock::ticks_after(process::is_alone());
        let (block, new, size) = (block as u64, new as u64, size as u64);
        let delta = before.wrapping_sub(self.base);
        let took = after.wrapping_sub(before);
        let Some(used) = self.fits(2, block | new, size, delta | took) else {
            return false;
        };
        if new == 0 {
            return false;
        }
        let word = block << 16 | entry as u64;
        let header = self.header;
        // SAFETY: `fits` says that this thread's chunk is mapped and has room for two units behind `used`.
        unsafe {
            let at = header.cast::<u8>().add(HEADER_BYTES).add(used) as *mut u64;
            at.write(word | record::LONG);
            at.add(1).write(size << record::DELTA_BITS | delta);
            at.add(2).write(new << 16);
            at.add(3).write(took);
            let next = used.wrapping_add(2 * record::UNIT_BYTES);
            (*header).committed.store(next as u32, Release);
            let count = &raw const (*header).calls as *const AtomicU64;
            add(&*count.add(Kind::Realloc as usize), 1);
            add(&(*header).bytes, size);
            // This thread alone writes to it, so it may be read without atomicity.
            let sum = (*header).sum.as_ptr().read();
            let sum = record::content_step(sum, word ^ size.rotate_left(48));
            (*header).sum.store(record::content_step(sum, new), Relaxed);
        }
        compiler_fence(Release);
        self.advance(1, 2 * record::UNIT_BYTES);
        self.leave();
        true
    }

    /// See [`Thread::reallocated`]; `call` needs no end stamp and no caller.
    pub fn reallocated_rare(
        &mut self,
        entry: Entry,
        block: usize,
        new: usize,
        size: usize,
        before: u64,
        freed: bool,
    ) {
        let call = Record {
            freed,
            address: block as u64,
            new_address: new as u64,
            size: size as u64,
            tsc_end: clock::stamp_after(process::is_alone()),
            caller: self.caller(),
            ..blank(entry, before)
        };
        self.push_cold(&call);
        self.leave();
    }

    /// Calls recorded by this thread.
    pub fn calls(&self) -> u64 {
        self.position.load(Relaxed) >> CALL_SHIFT
    }

    #[inline(always)]
    fn used(&self) -> usize {
        let low = self.position.as_ptr() as *const u16;
        // SAFETY: the low half of our own word, which this thread alone writes to.
        usize::from(unsafe { low.read() })
    }

    #[inline(always)]
    fn advance(&self, calls: u64, bytes: usize) {
        add(&self.position, calls << CALL_SHIFT | bytes as u64);
    }

    /// Return address of the hooked call in progress, if callers are wanted.
    fn caller(&self) -> u64 {
        let frame = self.guard.load(Relaxed) & !1;
        if !process::wants_callers() || frame == 0 {
            return 0;
        }
        // SAFETY: the call that set the guard has not returned, and its return address lies there.
        unsafe { (frame as *const u64).read() }
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

    /// Where the next record begins in the chunk, if the hot path may write it: there is room for `units`,
    /// and address, size and differences of stamps are no longer than its fields. Invariant 4.
    #[inline(always)]
    fn fits(&self, units: usize, address: u64, size: u64, delta: u64) -> Option<usize> {
        // Before `end`: see `process::renew_from`.
        let alive = process::alive_mask();
        let used = self.used();
        let next = used.wrapping_add(units.wrapping_mul(record::UNIT_BYTES));
        // Negative, hence large, if the record does not fit.
        let room = (self.end.load(Relaxed) & alive).wrapping_sub(next) as u64;
        // Bits 48 and more of the address, 40 and more of delta and room, 24 and more of the size.
        let wide =
            (address >> 8 | delta | room) >> record::DELTA_BITS | size >> record::SIZE_LOW_BITS;
        (wide == 0).then_some(used)
    }

    /// The hot path: a record of one unit into the chunk at hand. False for everything else, which is
    /// [`Thread::push_rare`]'s.
    #[inline(always)]
    fn push(&mut self, entry: Entry, low: u64, address: u64, size: u64, ticks: u64) -> bool {
        let delta = ticks.wrapping_sub(self.base);
        let Some(used) = self.fits(1, address, size, delta) else {
            return false;
        };
        let word = address << 16 | low;
        let header = self.header;
        // SAFETY: `fits` says that this thread's chunk is mapped and has room for a unit behind `used`.
        unsafe {
            let at = header.cast::<u8>().add(HEADER_BYTES).add(used) as *mut u64;
            at.write(word);
            at.add(1).write(size << record::DELTA_BITS | delta);
            let next = used.wrapping_add(record::UNIT_BYTES);
            (*header).committed.store(next as u32, Release);
            let count = &raw const (*header).calls as *const AtomicU64;
            add(&*count.add(entry.kind() as usize), 1);
            if !matches!(entry.kind(), Kind::Free) {
                add(&(*header).bytes, size);
            }
            // This thread alone writes to it, so it may be read without atomicity.
            let sum = (*header).sum.as_ptr().read();
            let sum = record::content_step(sum, word ^ size.rotate_left(48));
            (*header).sum.store(sum, Relaxed);
        }
        compiler_fence(Release);
        self.advance(1, record::UNIT_BYTES);
        true
    }

    /// What [`Thread::push`] does not do itself.
    fn push_rare(&mut self, low: u64, address: u64, size: u64, ticks: u64) {
        let Some(entry) = Entry::from_number((low & record::ENTRY_MASK) as u8) else {
            return;
        };
        let stamp = if clock::is_monotonic() {
            clock::monotonic_ns()
        } else {
            ticks
        };
        let record = Record {
            align_log2: (low >> record::ALIGN_SHIFT) as u8 & 63,
            address,
            size,
            caller: self.caller(),
            ..blank(entry, stamp)
        };
        self.push_cold(&record);
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
        spool::capacity(self.header).wrapping_sub(self.used())
    }

    /// Writes words that are known to fit, and counts `call`.
    fn store(&mut self, words: &[u64], call: Option<&Record>) {
        let header = self.header;
        let used = self.used();
        let mut at = (header as usize)
            .wrapping_add(HEADER_BYTES)
            .wrapping_add(used);
        for word in words {
            // SAFETY: `ready` has found room for the record in this thread's chunk.
            unsafe { (at as *mut u64).write(*word) };
            at = at.wrapping_add(8);
        }
        let bytes = words.len().wrapping_mul(8);
        let next = used.wrapping_add(bytes);
        // SAFETY: the chunk is mapped and this thread's.
        let shared = unsafe { &*header };
        shared.committed.store(next as u32, Release);
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
        self.advance(u64::from(call.is_some()), bytes);
    }

    /// Makes the position and the counters agree with what was published, after the hot path was left between
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
        self.position
            .store(calls << CALL_SHIFT | length as u64, Relaxed);
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
        self.end.store(0, Relaxed);
        compiler_fence(Release);
        self.position.store(self.calls() << CALL_SHIFT, Relaxed);
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
        shared.first_ordinal.store(self.calls(), Relaxed);
        let state_at = &raw const *self as u64;
        shared.state_at.store(state_at, Relaxed);
        spool::activate(shared);
        self.sequence = self.sequence.wrapping_add(1);
        self.chunk = chunk;
        self.header = header;
        self.end.store(
            if process::has_extra() || clock::is_monotonic() {
                0
            } else {
                spool::capacity(header)
            },
            Relaxed,
        );
        // The chunk's base is `opened.tsc`; records count from `self.base`, said by a base record.
        self.store(&[record::CODE_BASE, self.base], None);
        process::refresh_title();
        process::watch_exit(self);
    }

    /// Begins the life of a state for a thread of process `epoch`.
    pub fn reset(&mut self, epoch: u64, number: u32, tid: u32) {
        self.header = null_mut();
        self.end.store(0, Relaxed);
        self.position.store(0, Relaxed);
        self.base = 0;
        self.epoch = epoch;
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

    /// Sends the thread's next call, if it makes one, to the cold path.
    pub fn unsettle(&self) {
        self.end.store(0, Relaxed);
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
/// where that can't be. It is the hot path that is measured.
pub fn measure_own_cost() -> u64 {
    const CALLS: usize = 100;
    let Some(state) = process::scratch_thread() else {
        return 0;
    };
    let protection = sys::PROT_READ | sys::PROT_WRITE;
    let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS;
    const BYTES: usize = 4096;
    // SAFETY: a new mapping.
    let page = unsafe { sys::mmap(0, BYTES, protection, flags, -1) };
    if page <= 0 {
        return 0;
    }
    let page = page as usize;
    let mut best = u64::MAX;
    for _ in 0..4 {
        state.reset(process::epoch(), u32::MAX, 0);
        state.header = page as *mut ChunkHeader;
        state.base = clock::ticks();
        state.end.store(BYTES.wrapping_sub(HEADER_BYTES), Relaxed);
        let frame = &raw const state as usize;
        let before = clock::monotonic_ns();
        for size in 0..CALLS / 2 {
            state.guard.store(frame, Relaxed);
            state.allocated(Entry::Malloc, 0, 0x1000, size);
            state.guard.store(frame | 1, Relaxed);
            state.freeing(Entry::Free, 0x1000);
            state.leave();
        }
        let took = clock::monotonic_ns().wrapping_sub(before);
        best = best.min(took.wrapping_mul(1000) / CALLS as u64);
    }
    state.reset(0, u32::MAX, 0);
    state.live = false;
    sys::munmap(page, BYTES);
    best
}
