//! What a thread has of a heap: regions that only it allocates from, spare entries, and the records of its locks.
//! Allocating, freeing, locking and unlocking are plain loads and stores here; everything rare takes the heap's mutex.
//!
//! Two things make plain stores safe (`docs/rmalloc.md` section 3 has the argument, `tests/protocol.rs` the proof
//! by exhaustion):
//!
//! - a record or [`Cache::op`] is written *before* the entry or the region's owner is read, and who wants to move
//!   a block or take a region marks it, lets every thread pass a barrier ([`Platform::barrier`]), and only then
//!   reads records and `op`;
//! - entries name the thread whose records count for them; every other thread uses compare-and-swap.
//!
//! [`Platform::barrier`]: crate::platform::Platform::barrier

use crate::class::{CLASSES_MAX, ENTRY_BYTES};
use crate::entry::{
    DISCARDABLE, FIRST_GENERATION, GENERATION, MOVING, SHARED_MASK, SHARED_MAX, SHARED_ONE,
    SHARED_STUCK, Word,
};
use crate::handle::RawHandle;
use crate::heap::Heap;
use crate::platform::PAGE;
use crate::region::{FREE, Region, owner};
use crate::status::Error;
use crate::table::{Spare, Table};
use core::cell::Cell;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64, compiler_fence, fence};

#[cfg(feature = "beside")]
mod beside;

/// Locks that a thread holds without touching the entries.
pub(crate) const RECORDS: usize = 8;
/// Entries that a thread keeps, and how many it takes at a time.
const SPARES: usize = 64;
#[cfg(not(feature = "beside"))]
const SPARES_TAKEN: usize = 32;
/// A region tells its owner whenever this share of its slots more has become free.
const REPORTS: u32 = 8;
/// [`Cache::op`] outside of calls that change regions, and in them.
const IDLE: u32 = 0;
const BUSY: u32 = 1;

/// The region of a class that a thread has none of: never has a free slot.
static NO_REGION: Region = {
    // SAFETY: all fields are integers or pointers; null is never followed, as there is no free slot.
    unsafe { core::mem::zeroed() }
};

/// A thread is in a call as [`Cache::slow`] says.
struct Slow<'cache>(&'cache Cache);

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        self.0.slow.store(self.0.slow.load(Relaxed) - 1, Release);
    }
}

/// A thread's part of a heap.
#[repr(C, align(64))]
pub(crate) struct Cache {
    /// Tag of the heap.
    tag: u64,
    heap: *const Heap,
    table_end: *const AtomicU64,
    base: *mut u8,
    regions: *const Region,
    #[cfg(feature = "beside")]
    entry_bits: *const AtomicU64,
    span_shift: u32,
    /// Entries known to exist.
    entries: Cell<u32>,
    spare_count: Cell<u32>,
    /// Number among the heap's caches: the owner in words and regions.
    pub id: u8,
    /// Every step that relies on the barrier passes one of its own: the platform has none.
    pub fenced: bool,
    /// Entries' words from this on are of the last generation.
    last_generation: u64,
    /// What live words of ours have: owner and the bit.
    live: u64,
    lookup: *const u8,
    largest: u32,
    /// Locks in `records`.
    locked: Cell<u32>,
    /// No other thread has a cache of the heap: entries may be freed without an exchange.
    pub alone: AtomicU32,
    /// [`BUSY`] while the thread changes regions of its own.
    pub op: AtomicU32,
    /// Somebody is changing the thread's regions: take the mutex first.
    pub paused: AtomicU32,
    /// The thread is in this many calls (in each other) that leave the heap half done without the mutex.
    pub slow: AtomicU32,
    /// Next cache of the thread, or of those that ended.
    pub next: Cell<*mut Cache>,
    /// Handles locked, the last one last; who else reads goes from the last to the first.
    pub records: [AtomicU64; RECORDS],
    spares: [Cell<Spare>; SPARES],
    /// Region to allocate from, of each class; [`NO_REGION`] if there is none.
    current: [Cell<*const Region>; CLASSES_MAX],
    /// Regions with free slots, by class: the first is `current`.
    listed: [Cell<u32>; CLASSES_MAX],
}

impl Cache {
    /// Empty; of cache number `id`.
    pub fn new(heap: &Heap, id: u8) -> Cache {
        // SAFETY: the caller holds the heap's mutex.
        let generation_max = unsafe { heap.guarded() }.table.generation_max;
        Cache {
            tag: heap.tag,
            heap,
            table_end: heap.table_end,
            base: heap.base,
            regions: heap.regions,
            #[cfg(feature = "beside")]
            entry_bits: heap.entry_bits(),
            span_shift: heap.span_shift,
            entries: Cell::new(heap.entries.load(Acquire)),
            spare_count: Cell::new(0),
            id,
            // The checking build takes no fast path.
            fenced: !heap.platform.has_barrier || cfg!(feature = "checked"),
            last_generation: generation_max << 48,
            live: Word::live(0, id, 0).0,
            lookup: heap.classes.lookup(),
            largest: heap.classes.largest(),
            locked: Cell::new(0),
            alone: AtomicU32::new(0),
            op: AtomicU32::new(IDLE),
            paused: AtomicU32::new(0),
            slow: AtomicU32::new(0),
            next: Cell::new(null_mut()),
            records: [const { AtomicU64::new(0) }; RECORDS],
            spares: [const { Cell::new(Spare::new(0, 0)) }; SPARES],
            current: [const { Cell::new(&raw const NO_REGION) }; CLASSES_MAX],
            listed: [const { Cell::new(0) }; CLASSES_MAX],
        }
    }

    /// The heap.
    #[inline(always)]
    pub fn heap(&self) -> &Heap {
        // SAFETY: a cache lives in its heap.
        unsafe { &*self.heap }
    }

    /// Tag of the heap.
    #[inline(always)]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Stores before it come before loads after it, as far as a barrier of another thread can tell.
    #[inline(always)]
    fn light_barrier(&self) {
        if self.fenced {
            fence(SeqCst);
        } else {
            compiler_fence(SeqCst);
        }
    }

    #[inline(always)]
    fn begin(&self) {
        self.op.store(BUSY, Relaxed);
        self.light_barrier();
    }

    #[inline(always)]
    fn end(&self) {
        self.op.store(IDLE, Release);
    }

    /// A block of `size` bytes at a multiple of 16.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Memory`], [`Error::Table`].
    ///
    /// # Safety
    /// The calling thread is the cache's.
    #[inline(always)]
    pub unsafe fn alloc_plain(&self, size: usize) -> Result<RawHandle, Error> {
        if !self.fenced
            // SAFETY: the caller's promise.
            && let Some(handle) = unsafe { self.try_alloc(size) }
        {
            return Ok(handle);
        }
        // SAFETY: the caller's promise.
        unsafe { self.alloc_rare(size) }
    }

    /// [`Cache::alloc`] where nothing rare is needed. Cost: about 45 instructions.
    ///
    /// # Safety
    /// As [`Cache::alloc`], and the cache is not `fenced`.
    #[cfg(not(feature = "beside"))]
    #[inline(always)]
    pub unsafe fn try_alloc(&self, size: usize) -> Option<RawHandle> {
        let below = size.wrapping_sub(1);
        if below >= self.largest as usize {
            return None;
        }
        let count = self.spare_count.get() as usize;
        self.op.store(BUSY, Relaxed);
        compiler_fence(SeqCst);
        if count != 0 && self.paused.load(Acquire) == 0 {
            // SAFETY: `count` is at most SPARES; the lookup has a place for each size up to the largest, of a class;
            // `current` is a region of ours, which nobody takes while `op` says that we are busy.
            unsafe {
                let spare = self.spares.get_unchecked(count - 1).get();
                let class = *self.lookup.add(below / 16);
                let region = &*self.current.get_unchecked(class as usize).get();
                if let Some(slot) = region.pop(spare.index()) {
                    self.spare_count.set(count as u32 - 1);
                    let handle = self.enter(spare, region.offset(slot));
                    self.end();
                    return Some(handle);
                }
            }
        }
        self.end();
        None
    }

    /// [`Cache::alloc`] where [`Cache::try_alloc`] failed.
    ///
    /// # Errors
    /// As [`Cache::alloc`].
    ///
    /// # Safety
    /// As [`Cache::alloc`].
    #[cold]
    #[inline(never)]
    pub unsafe fn alloc_rare(&self, size: usize) -> Result<RawHandle, Error> {
        match self.heap().classes.index_of(size) {
            // SAFETY: the caller's promise.
            Some(class) => unsafe { self.alloc_slow(class) },
            // SAFETY: the caller's promise.
            None => unsafe { self.alloc_large(size) },
        }
    }

    /// As [`Cache::alloc`], at a multiple of `alignment`.
    ///
    /// # Errors
    /// And [`Error::Alignment`].
    ///
    /// # Safety
    /// As [`Cache::alloc`].
    pub unsafe fn alloc_aligned_plain(
        &self,
        size: usize,
        alignment: usize,
    ) -> Result<RawHandle, Error> {
        if !alignment.is_power_of_two() || alignment > PAGE {
            return Err(Error::Alignment);
        }
        match self.heap().classes.index_of_aligned(size, alignment) {
            // SAFETY: the caller's promise.
            Some(class) => unsafe { self.alloc_slow(class) },
            // SAFETY: the caller's promise. Large blocks begin at pages.
            None => unsafe { self.alloc_large(size) },
        }
    }

    /// Writes the word of an entry that is ours and in no use.
    #[cfg(not(feature = "beside"))]
    #[inline(always)]
    fn enter(&self, spare: Spare, offset: u64) -> RawHandle {
        // SAFETY: spare entries exist.
        let entry = unsafe { &*self.table_end.sub(spare.index() as usize + 1) };
        #[cfg(feature = "checked")]
        // SAFETY: the slot was just taken for this block.
        unsafe {
            self.heap().born(offset)
        };
        entry.store(offset | self.live | spare.0 & GENERATION, Release);
        RawHandle::of(self.tag, spare.0)
    }

    #[cfg(not(feature = "beside"))]
    unsafe fn alloc_slow(&self, class: u8) -> Result<RawHandle, Error> {
        let bytes = self.heap().classes.get(class).size as usize;
        // SAFETY: the caller's promise; `with_slot` holds the mutex.
        unsafe {
            self.until_room(bytes, |anyhow| {
                self.need_spare()?;
                let region = match self.region_with_slot(class) {
                    Err(Error::Memory) if anyhow => self.region_of_more(class)?,
                    found => found?,
                };
                let spare = self.take_spare();
                let slot = region
                    .pop(spare.index())
                    .expect("the region has a free slot");
                Ok(self.enter(spare, region.offset(slot)))
            })
        }
    }

    #[cfg(not(feature = "beside"))]
    unsafe fn alloc_large(&self, size: usize) -> Result<RawHandle, Error> {
        if size == 0 || size > isize::MAX as usize || size > self.heap().bytes {
            return Err(Error::Size);
        }
        // SAFETY: the caller's promise; the mutex is held inside.
        unsafe {
            self.until_room(size, |_| {
                self.need_spare()?;
                let spare = self.spares[self.spare_count.get() as usize - 1].get();
                let offset = self
                    .heap()
                    .take_large(size, spare.index())
                    .ok_or(Error::Memory)?;
                Ok(self.enter(self.take_spare(), offset))
            })
        }
    }

    /// Tries under the mutex, and again after memory was made.
    ///
    /// # Safety
    /// The calling thread is the cache's and does not hold the mutex.
    unsafe fn until_room<T>(
        &self,
        bytes: usize,
        mut attempt: impl FnMut(bool) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let heap = self.heap();
        let mut tries = 0;
        loop {
            heap.mutex.lock(&heap.platform);
            // After all else: whatever does.
            let got = attempt(tries > 0);
            // SAFETY: the mutex is held.
            let shortage = unsafe { heap.guarded() }.shortage;
            heap.mutex.unlock(&heap.platform);
            let error = match got {
                Ok(value) => {
                    // SAFETY: the caller's promise.
                    unsafe { self.work() };
                    return Ok(value);
                }
                Err(error) => error,
            };
            if error != Error::Memory || tries >= 8 {
                return Err(error);
            }
            // SAFETY: the caller's promise.
            let gained = unsafe { crate::compact::make_room(self, bytes) };
            if !gained && tries > 0 {
                let Some((callback, argument)) = shortage else {
                    return Err(error);
                };
                // SAFETY: who set the callback keeps it callable; no lock of ours is held.
                if unsafe { callback(argument, bytes) } == 0 {
                    return Err(error);
                }
            }
            tries += 1;
        }
    }

    /// At least one spare entry. The mutex is held.
    #[cfg(not(feature = "beside"))]
    unsafe fn need_spare(&self) -> Result<(), Error> {
        if self.spare_count.get() > 0 {
            return Ok(());
        }
        let heap = self.heap();
        // Others may have ended; who comes next says so under the mutex.
        self.alone
            .store((heap.threads.load(Relaxed) == 1) as u32, Relaxed);
        let mut spares = [Spare::new(0, 0); SPARES_TAKEN];
        // SAFETY: the caller holds the mutex.
        unsafe {
            let mut count = heap.guarded().table.take(&mut spares);
            while count < SPARES_TAKEN && heap.grow_table() {
                count += heap.guarded().table.take(&mut spares[count..]);
            }
            // The first one last, so that it is taken first.
            for (at, spare) in spares[..count].iter().rev().enumerate() {
                self.spares[at].set(*spare);
            }
            self.spare_count.set(count as u32);
            self.entries.set(heap.entries.load(Acquire));
            if count == 0 {
                return Err(
                    if heap.guarded().table.count == heap.guarded().table.count_max {
                        Error::Table
                    } else {
                        Error::Memory
                    },
                );
            }
        }
        Ok(())
    }

    #[cfg(not(feature = "beside"))]
    fn take_spare(&self) -> Spare {
        let count = self.spare_count.get() - 1;
        self.spare_count.set(count);
        self.spares[count as usize].get()
    }

    /// Gives spare entries back until `keep` are left. The mutex is held.
    ///
    /// # Safety
    /// The table is the heap's.
    pub unsafe fn give_spares(&self, keep: u32, table: &mut Table) {
        let mut given = [Spare::new(0, 0); SPARES];
        let count = self.spare_count.get();
        if count <= keep {
            return;
        }
        // The oldest ones: what was freed last is in the processor's cache.
        let giving = (count - keep) as usize;
        for (at, spare) in self.spares[..giving].iter().enumerate() {
            given[at] = spare.get();
        }
        for at in giving..count as usize {
            self.spares[at - giving].set(self.spares[at].get());
        }
        self.spare_count.set(keep);
        // SAFETY: spares have no block.
        unsafe { table.give(&given[..giving], &self.heap().platform) };
    }

    /// Keeps an entry that became free; `generation` is that of its next block.
    #[cfg(not(feature = "beside"))]
    unsafe fn keep_spare(&self, index: u32, generation: u64) {
        let heap = self.heap();
        let retired = generation << 48 > self.last_generation || generation > 0xffff;
        if self.spare_count.get() as usize == SPARES || retired {
            heap.mutex.lock(&heap.platform);
            // SAFETY: the mutex is held; the entry has no block.
            unsafe {
                let guarded = heap.guarded();
                if retired {
                    guarded.table.retire(index);
                } else {
                    self.give_spares(SPARES as u32 / 2, &mut guarded.table);
                }
            }
            heap.mutex.unlock(&heap.platform);
        }
        if !retired {
            let count = self.spare_count.get() as usize;
            self.spares[count].set(Spare::new(index, generation));
            self.spare_count.set(count as u32 + 1);
        }
    }

    /// A region of the class with a free slot, made `current`. The mutex is held.
    unsafe fn region_with_slot(&self, class: u8) -> Result<&Region, Error> {
        let heap = self.heap();
        let at = class as usize;
        // SAFETY: the caller holds the mutex; listed regions are ours.
        unsafe {
            loop {
                let head = self.listed[at].get();
                if head != 0 {
                    let span = head as usize - 1;
                    let region = heap.region(span);
                    if region.free.load(Relaxed) != 0 || region.collect() > 0 || heap.carve(region)
                    {
                        self.arm(region);
                        self.current[at].set(region);
                        return Ok(region);
                    }
                    // Full: its next free brings it back, ours by the trigger, others' by `tell_owner`.
                    self.unlink(span);
                    fence(SeqCst);
                    if region.remote_count() > 0 {
                        self.link(span);
                        continue;
                    }
                    heap.unreport(region);
                    // Feature `beside`: none may be in use, and none left that has generations.
                    let used = region.used.load(Relaxed);
                    region.trigger.store(used.saturating_sub(1), Relaxed);
                    continue;
                }
                let guarded = heap.guarded();
                let orphan = guarded.partial[at];
                let span = if orphan != 0 {
                    let span = orphan as usize - 1;
                    heap.unlink(&mut guarded.partial[at], span);
                    heap.region(span).owner.store(self.id, Release);
                    heap.region(span).collect();
                    span
                } else {
                    heap.new_region(class, self.id).ok_or(Error::Memory)?
                };
                self.link(span);
            }
        }
    }

    /// A region of a larger class that has a free slot already. The mutex is held.
    unsafe fn region_of_more(&self, class: u8) -> Result<&Region, Error> {
        let heap = self.heap();
        let alignment = heap.classes.get(class).alignment;
        for larger in class + 1..heap.classes.len() as u8 {
            let at = larger as usize;
            if heap.classes.get(larger).alignment < alignment {
                continue;
            }
            // SAFETY: the caller holds the mutex; listed regions are ours.
            unsafe {
                let head = self.listed[at].get();
                let ours = head != 0 && {
                    let region = heap.region(head as usize - 1);
                    region.free.load(Relaxed) != 0 || region.remote_count() > 0
                };
                if ours || heap.guarded().partial[at] != 0 {
                    return self.region_with_slot(larger);
                }
            }
        }
        Err(Error::Memory)
    }

    /// Sets when the region's frees are heard of next.
    unsafe fn arm(&self, region: &Region) {
        let class = self.heap().class(region);
        let step = (class.slots as u32 / REPORTS).max(1);
        let used = region.used.load(Relaxed);
        // Down to a multiple of the step that lies below.
        let trigger = used.saturating_sub(1) / step * step;
        region
            .trigger
            .store(if used == 0 { 0 } else { trigger }, Relaxed);
    }

    /// Takes over a region that is on no list. The mutex is held, and the thread is in no call or is the caller.
    ///
    /// # Safety
    /// The region is the caller's to give, and holds blocks.
    pub unsafe fn adopt(&self, span: usize) {
        let heap = self.heap();
        // SAFETY: the caller's promise.
        unsafe {
            let region = heap.region(span);
            heap.report(region);
            if region.used.load(Relaxed) < heap.class(region).slots as u32 {
                self.arm(region);
                self.link(span);
            } else {
                region.trigger.store(region.used.load(Relaxed) - 1, Relaxed);
            }
            region.owner.store(self.id, Release);
        }
    }

    /// Puts a region of ours on our list.
    unsafe fn link(&self, span: usize) {
        let heap = self.heap();
        // SAFETY: the caller holds the mutex.
        unsafe {
            let class = heap.region(span).class.load(Relaxed) as usize;
            let mut head = self.listed[class].get();
            heap.link(&mut head, span);
            self.listed[class].set(head);
            self.current[class].set(heap.region(span));
        }
    }

    /// Takes a region off our list. The mutex is held, and the thread is in no call or is the caller.
    ///
    /// # Safety
    /// The region is on the list.
    pub unsafe fn unlink(&self, span: usize) {
        let heap = self.heap();
        // SAFETY: the caller's promise.
        unsafe {
            let class = heap.region(span).class.load(Relaxed) as usize;
            let mut head = self.listed[class].get();
            heap.unlink(&mut head, span);
            self.listed[class].set(head);
            self.current[class].set(if head == 0 {
                &raw const NO_REGION
            } else {
                heap.region(head as usize - 1)
            });
        }
    }

    /// Ends a block.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Locked`].
    ///
    /// # Safety
    /// The calling thread is the cache's, and the handle has the heap's tag.
    #[inline(always)]
    pub unsafe fn free_plain(&self, handle: RawHandle) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe {
            if !self.fenced && self.try_free(handle) {
                return Ok(());
            }
            self.free_slow(handle)
        }
    }

    /// [`Cache::free`] where nothing rare is needed. Cost: about 55 instructions.
    ///
    /// # Safety
    /// As [`Cache::free`], and the cache is not `fenced`.
    #[cfg(not(feature = "beside"))]
    #[inline(always)]
    pub unsafe fn try_free(&self, handle: RawHandle) -> bool {
        let index = handle.index();
        let count = self.spare_count.get() as usize;
        if index >= self.entries.get() || self.locked.get() != 0 || count >= SPARES {
            return false;
        }
        self.op.store(BUSY, Relaxed);
        compiler_fence(SeqCst);
        // SAFETY: the entry exists.
        let entry = unsafe { &*self.table_end.sub(index as usize + 1) };
        let word = Word(entry.load(Relaxed));
        let offset = word.offset();
        if self.paused.load(Acquire) == 0
            && word.is_ours_unshared(self.live, handle.bits())
            && word.0 < self.last_generation
        {
            // SAFETY: a live block lies in a region; behind its first span, that one is named.
            let region = unsafe {
                let region = &*self.regions.add((offset >> self.span_shift) as usize);
                if region.owner.load(Relaxed) == owner::INTERIOR {
                    // The block may have moved since: whatever is read then, the exchange below fails.
                    &*self
                        .regions
                        .add((region.next.load(Relaxed) as usize).saturating_sub(1))
                } else {
                    region
                }
            };
            let spare = Spare(((word.0 & GENERATION) + FIRST_GENERATION) | index as u64);
            let mine = region.owner.load(Relaxed) == self.id
                && if self.alone.load(Relaxed) != 0 {
                    entry.store(spare.0, Release);
                    true
                } else {
                    entry
                        .compare_exchange(word.0, spare.0, AcqRel, Relaxed)
                        .is_ok()
                };
            if mine {
                // SAFETY: `count` is below SPARES.
                unsafe { self.spares.get_unchecked(count) }.set(spare);
                self.spare_count.set(count as u32 + 1);
                // SAFETY: the region is ours, and so is the slot of the block that ended.
                let used = unsafe { region.push(region.slot(offset)) };
                let heard = used == region.trigger.load(Relaxed);
                self.end();
                if heard {
                    // SAFETY: the caller's promise.
                    unsafe { self.thinned(region) };
                }
                return true;
            }
        }
        self.end();
        false
    }

    /// [`Cache::free`] where [`Cache::try_free`] failed.
    ///
    /// # Errors
    /// As [`Cache::free`].
    ///
    /// # Safety
    /// As [`Cache::free`].
    #[cold]
    #[inline(never)]
    pub unsafe fn free_slow(&self, handle: RawHandle) -> Result<(), Error> {
        let heap = self.heap();
        let _slow = self.slow();
        let word = loop {
            let (entry, word) = heap.resolve(handle)?;
            if word.shared() != 0 || self.is_recorded(handle, word) {
                return Err(Error::Locked);
            }
            let freed = heap.ended_word(word.generation());
            // The mover's own exchange fails then, whatever it was about.
            if entry
                .compare_exchange(word.0, freed.0, AcqRel, Relaxed)
                .is_ok()
            {
                break word;
            }
        };
        // SAFETY: the block ended, so its slot and entry are ours to give back.
        unsafe {
            #[cfg(feature = "checked")]
            let damaged = !word.is_discarded() && heap.died(word.offset(), handle);
            if !word.is_discarded() {
                self.give_place(word.offset(), handle.index());
            }
            self.keep_spare(handle.index(), handle.generation() + 1);
            #[cfg(feature = "checked")]
            if damaged {
                return Err(Error::Damaged);
            }
        }
        Ok(())
    }

    /// From here on the heap may be half done without the mutex held: a fork waits until the thread is through, and
    /// the thread here for the end of a fork.
    fn slow(&self) -> Slow<'_> {
        let heap = self.heap();
        let depth = self.slow.load(Relaxed);
        loop {
            self.slow.store(depth + 1, Relaxed);
            self.light_barrier();
            if depth > 0 || heap.forking.load(Acquire) == 0 {
                return Slow(self);
            }
            self.slow.store(0, Release);
            while heap.forking.load(Acquire) != 0 {
                (heap.platform.wait)(&heap.forking, 1);
            }
            // Only one is woken: on to the next.
            (heap.platform.wake)(&heap.forking);
        }
    }

    /// Is the block locked, by anybody?
    ///
    /// # Errors
    /// [`Error::Handle`].
    pub fn is_locked(&self, handle: RawHandle) -> Result<bool, Error> {
        let (_, word) = self.heap().resolve(handle)?;
        Ok(word.shared() != 0 || self.is_recorded(handle, word))
    }

    /// Is the block locked in a record: of ours, or of its owner's?
    fn is_recorded(&self, handle: RawHandle, word: Word) -> bool {
        if word.owner() == self.id {
            return self.records[..self.locked.get() as usize]
                .iter()
                .any(|record| record.load(Relaxed) == handle.bits());
        }
        self.heap().is_recorded_by(word.owner(), handle.bits())
    }

    /// The block of an entry has left a place; its entry may go on.
    ///
    /// # Safety
    /// The place is the caller's.
    #[cfg(not(feature = "beside"))]
    #[inline(always)]
    pub unsafe fn vacate(&self, offset: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.give_slot(offset) }
    }

    /// The block of an entry has ended, and was here.
    #[cfg(not(feature = "beside"))]
    #[inline(always)]
    unsafe fn give_place(&self, offset: u64, _index: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.give_slot(offset) }
    }

    /// Gives the slot of a block back that is in no entry any more.
    ///
    /// # Safety
    /// The slot is the caller's.
    pub unsafe fn give_slot(&self, offset: u64) {
        let heap = self.heap();
        // SAFETY: the caller's promise; a region stays what it is while one of its slots counts as used.
        unsafe {
            let span = heap.span_of(offset);
            let region = heap.region(span);
            loop {
                self.begin();
                // In this order: not paused means that the owner read next is no older than who paused us last.
                let paused = self.paused.load(Acquire);
                let who = region.owner();
                if who == self.id && paused == 0 {
                    let used = region.push(region.slot(offset));
                    let heard = used == region.trigger.load(Relaxed);
                    self.end();
                    if heard {
                        self.thinned(region);
                    }
                    return;
                }
                self.end();
                if who != self.id && who < owner::CACHES || who == owner::COMPACTOR {
                    if region.push_remote(region.slot(offset)) && region.listed.load(SeqCst) == 0 {
                        heap.tell_owner(span);
                    }
                    return;
                }
                heap.mutex.lock(&heap.platform);
                let who = region.owner();
                let done = match who {
                    owner::LARGE => {
                        heap.end_large(span);
                        true
                    }
                    owner::NONE => {
                        heap.push_orphan(span, region.slot(offset));
                        true
                    }
                    // Paused, or it found an owner in the meantime.
                    _ => false,
                };
                heap.mutex.unlock(&heap.platform);
                if done {
                    return;
                }
            }
        }
    }

    /// A region of ours has become emptier.
    #[cold]
    #[inline(never)]
    unsafe fn thinned(&self, region: &Region) {
        let heap = self.heap();
        heap.mutex.lock(&heap.platform);
        // SAFETY: the mutex is held; the region is ours if it says so.
        unsafe {
            if region.owner() == self.id {
                let span = heap.span_of(region.base.load(Relaxed));
                let class = region.class.load(Relaxed) as usize;
                if region.listed.load(Relaxed) == 0 {
                    self.link(span);
                }
                let alone =
                    self.listed[class].get() == span as u32 + 1 && region.next.load(Relaxed) == 0;
                if region.used.load(Relaxed) == 0 && !alone {
                    self.unlink(span);
                    heap.end_region(span);
                } else {
                    heap.report(region);
                    self.arm(region);
                    if region.used.load(Relaxed) == 0 {
                        // The last one of its class stays, silently.
                        region.trigger.store(u32::MAX, Relaxed);
                    }
                }
            }
        }
        heap.mutex.unlock(&heap.platform);
        // SAFETY: the caller is the cache's thread, in no call.
        unsafe { self.work() };
    }

    /// Compacts a little, if the policy asks for it.
    ///
    /// # Safety
    /// The calling thread is the cache's, and holds no lock of the heap.
    pub unsafe fn work(&self) {
        let heap = self.heap();
        let policy = heap.policy.get();
        if policy.inline || policy.nudge.is_some_and(|nudge| !nudge(heap)) {
            // SAFETY: the caller's promise.
            unsafe { crate::compact::by_policy(self) };
        }
    }

    /// Where the block is, until [`Cache::unlock`]. One compare-and-swap for a thread that is not the block's own.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Locks`], [`Error::Discarded`].
    ///
    /// # Safety
    /// The calling thread is the cache's, and the handle has the heap's tag.
    #[inline(always)]
    pub unsafe fn lock_plain(&self, handle: RawHandle) -> Result<*mut u8, Error> {
        if !self.fenced
            // SAFETY: the caller's promise.
            && let Some(place) = unsafe { self.try_lock(handle) }
        {
            return Ok(place.as_ptr());
        }
        // SAFETY: the caller's promise.
        unsafe { self.lock_slow(handle, false) }
    }

    /// [`Cache::lock`] where nothing rare is needed. Cost: about 25 instructions.
    ///
    /// # Safety
    /// As [`Cache::lock`], and the cache is not `fenced`.
    #[cfg(not(feature = "beside"))]
    #[inline(always)]
    pub unsafe fn try_lock(&self, handle: RawHandle) -> Option<NonNull<u8>> {
        let index = handle.index();
        let locked = self.locked.get() as usize;
        if index >= self.entries.get() || locked >= RECORDS {
            return None;
        }
        self.records[locked].store(handle.bits(), Relaxed);
        compiler_fence(SeqCst);
        // SAFETY: the entry exists.
        let word = Word(unsafe { &*self.table_end.sub(index as usize + 1) }.load(Acquire));
        if word.is_ours(self.live, handle.bits()) {
            self.locked.set(locked as u32 + 1);
            // SAFETY: the block lies in the heap, not at address 0.
            return Some(unsafe { NonNull::new_unchecked(self.base.add(word.offset() as usize)) });
        }
        self.records[locked].store(0, Release);
        None
    }

    /// As [`Cache::lock`], but any thread may unlock.
    ///
    /// # Errors
    /// As [`Cache::lock`].
    ///
    /// # Safety
    /// As [`Cache::lock`].
    pub unsafe fn lock_shared_plain(&self, handle: RawHandle) -> Result<*mut u8, Error> {
        // SAFETY: the caller's promise.
        unsafe { self.lock_slow(handle, true) }
    }

    /// [`Cache::lock`] where [`Cache::try_lock`] failed; `shared`: not in a record.
    ///
    /// # Errors
    /// As [`Cache::lock`].
    ///
    /// # Safety
    /// As [`Cache::lock`].
    #[cold]
    #[inline(never)]
    pub unsafe fn lock_slow(&self, handle: RawHandle, shared: bool) -> Result<*mut u8, Error> {
        let heap = self.heap();
        loop {
            let (entry, word) = heap.resolve(handle)?;
            if word.is_discarded() {
                return Err(Error::Discarded);
            }
            let locked = self.locked.get() as usize;
            let by_record =
                !shared && word.owner() == self.id && !word.is_discardable() && locked < RECORDS;
            let wanted = if by_record {
                if !word.is_moving() {
                    // It was, a moment ago; or the thread's idea of the table's size was old.
                    self.entries.set(heap.entries.load(Acquire));
                    self.records[locked].store(handle.bits(), Relaxed);
                    self.light_barrier();
                    let now = Word(entry.load(Acquire));
                    if now.is_ours(self.live, handle.bits()) {
                        self.locked.set(locked as u32 + 1);
                        // SAFETY: the block lies in the heap.
                        return Ok(unsafe { self.base.add(now.offset() as usize) });
                    }
                    self.records[locked].store(0, Release);
                    continue;
                }
                // Whoever moves it has to give up.
                Word(word.0 & !MOVING)
            } else {
                if word.shared() == SHARED_STUCK {
                    // Locked for good: one more needs no count.
                    // SAFETY: the block lies in the heap.
                    return Ok(unsafe { self.base.add(word.offset() as usize) });
                }
                if word.shared() >= SHARED_MAX {
                    return Err(Error::Locks);
                }
                Word((word.0 & !MOVING) + SHARED_ONE)
            };
            if entry
                .compare_exchange(word.0, wanted.0, AcqRel, Relaxed)
                .is_ok()
                && !by_record
            {
                // SAFETY: the block lies in the heap.
                return Ok(unsafe { self.base.add(word.offset() as usize) });
            }
        }
    }

    /// Gives a lock back.
    ///
    /// # Errors
    /// [`Error::NotLocked`], [`Error::Handle`].
    ///
    /// # Safety
    /// The calling thread is the cache's.
    #[inline(always)]
    pub unsafe fn unlock_plain(&self, handle: RawHandle) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        if unsafe { self.try_unlock(handle) } {
            Ok(())
        } else {
            self.unlock_slow(handle)
        }
    }

    /// [`Cache::unlock`] if it is the lock taken last. Cost: about 10 instructions.
    ///
    /// # Safety
    /// As [`Cache::unlock`].
    #[inline(always)]
    pub unsafe fn try_unlock(&self, handle: RawHandle) -> bool {
        let locked = self.locked.get() as usize;
        if locked == 0 {
            return false;
        }
        let record = &self.records[(locked - 1) % RECORDS];
        if record.load(Relaxed) != handle.bits() {
            return false;
        }
        self.locked.set(locked as u32 - 1);
        record.store(0, Release);
        true
    }

    /// [`Cache::unlock`] where [`Cache::try_unlock`] failed.
    ///
    /// # Errors
    /// As [`Cache::unlock`].
    #[cold]
    #[inline(never)]
    pub fn unlock_slow(&self, handle: RawHandle) -> Result<(), Error> {
        let _slow = self.slow();
        let locked = self.locked.get() as usize;
        if let Some(at) = self.records[..locked]
            .iter()
            .rposition(|record| record.load(Relaxed) == handle.bits())
        {
            // The last one moves here first: who reads from the last to the first misses none.
            let last = self.records[locked - 1].load(Relaxed);
            self.records[at].store(last, Release);
            self.records[locked - 1].store(0, Release);
            self.locked.set(locked as u32 - 1);
            return Ok(());
        }
        loop {
            let (entry, word) = self.heap().resolve(handle)?;
            if word.shared() == SHARED_STUCK {
                return Ok(());
            }
            // While somebody resizes it, the one counted lock is his.
            if word.shared() == 0 || word.is_moving() {
                return Err(Error::NotLocked);
            }
            if entry
                .compare_exchange(word.0, word.0 - SHARED_ONE, AcqRel, Relaxed)
                .is_ok()
            {
                return Ok(());
            }
        }
    }

    /// Counts our recorded locks in the entries instead.
    pub fn spill_locks(&self) {
        for record in &self.records[..self.locked.get() as usize] {
            let Some(handle) = RawHandle::from_bits(record.load(Relaxed)) else {
                continue;
            };
            while let Ok((entry, word)) = self.heap().resolve(handle) {
                // One more than can be counted: the block stays where it is, for good.
                let shared = (word.shared() + SHARED_ONE).min(SHARED_STUCK);
                let wanted = word.0 & !MOVING & !SHARED_MASK | shared;
                if entry
                    .compare_exchange(word.0, wanted, AcqRel, Relaxed)
                    .is_ok()
                {
                    break;
                }
            }
            record.store(0, Release);
        }
        self.locked.set(0);
    }

    /// Bytes that the block can hold.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Discarded`].
    pub fn usable_bytes_plain(&self, handle: RawHandle) -> Result<usize, Error> {
        let (_, mut word) = self.heap().resolve(handle)?;
        loop {
            if word.is_discarded() {
                return Err(Error::Discarded);
            }
            // SAFETY: a live block lies there, or did a moment ago.
            let bytes = unsafe { self.heap().usable_bytes(word.offset()) };
            // If it moved meanwhile, something else may lie there now.
            let now = self.heap().resolve(handle)?.1;
            if now.offset() == word.offset() {
                return Ok(bytes);
            }
            word = now;
        }
    }

    /// Gives the block another size. It keeps its handle, and its contents as far as they fit.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Handle`], [`Error::Locked`], [`Error::Memory`], [`Error::Discarded`]; the block is as it was then.
    ///
    /// # Safety
    /// The calling thread is the cache's.
    pub unsafe fn resize_plain(&self, handle: RawHandle, size: usize) -> Result<(), Error> {
        let heap = self.heap();
        let _slow = self.slow();
        if size == 0 || size > heap.bytes {
            heap.resolve(handle)?;
            return Err(Error::Size);
        }
        if self.is_locked(handle)? {
            return Err(Error::Locked);
        }
        if self.fits(handle, size)? {
            return Ok(());
        }
        if self.alone.load(Relaxed) != 0 && cfg!(not(feature = "checked")) {
            // SAFETY: the caller's promise.
            return unsafe { self.resize_alone(handle, size) };
        }
        let (entry, mine) = self.claim(handle)?;
        // SAFETY: the block is ours alone while nobody takes the claim away; what else is touched is ours.
        unsafe {
            if heap.resize_large(mine.offset(), size) {
                self.unclaim(entry, mine);
                return Ok(());
            }
            let before = heap.usable_bytes(mine.offset());
            // Another block, whose place the entry takes over. Locked, so that nobody moves it before it has its
            // new name.
            let other = match self.alloc_plain(size) {
                Ok(other) => other,
                Err(error) => {
                    self.unclaim(entry, mine);
                    return Err(error);
                }
            };
            let place = self.lock_shared_plain(other);
            let resolved = heap.resolve(other);
            let (Ok(place), Ok((other_entry, other_word))) = (place, resolved) else {
                // Only a made-up handle that somebody freed can be the reason.
                self.unclaim(entry, mine);
                return Err(Error::Handle);
            };
            let to = other_word.offset();
            let from = self.base.add(mine.offset() as usize);
            core::ptr::copy_nonoverlapping(from, place, before.min(size));
            #[cfg(feature = "checked")]
            crate::guarded::seal(place, heap.usable_bytes(to), size - crate::guarded::TAIL);
            heap.rename(to, handle.index());
            let done = Word(mine.moved_to(to).0 - SHARED_ONE);
            if entry
                .compare_exchange(mine.0, done.0, AcqRel, Relaxed)
                .is_err()
            {
                heap.rename(to, other.index());
                let _ = self.unlock_slow(other);
                let _ = self.free_slow(other);
                self.unclaim(entry, mine);
                return Err(Error::Locked);
            }
            let ended = heap.ended_word(other_word.generation());
            other_entry.store(ended.0, Release);
            self.keep_spare(other.index(), other_word.generation() + 1);
            #[cfg(feature = "checked")]
            heap.poison(mine.offset(), handle);
            self.vacate(mine.offset());
            Ok(())
        }
    }

    /// [`Cache::resize`] while no other thread has a cache: nobody else can want the block, so nothing is exchanged.
    unsafe fn resize_alone(&self, handle: RawHandle, size: usize) -> Result<(), Error> {
        let heap = self.heap();
        // SAFETY: the caller's promise; a thread that comes now waits until `op` is idle.
        unsafe {
            if heap.resize_large(heap.resolve(handle)?.1.offset(), size) {
                return Ok(());
            }
            // May compact, and may ask the program for memory, which may do anything to this block.
            let other = self.alloc_plain(size)?;
            self.begin();
            // Not paused, so not to be accompanied before `end`: in this order.
            let alone = self.paused.load(Acquire) == 0 && self.alone.load(Relaxed) != 0;
            let found = heap.resolve(handle);
            let taken = heap.resolve(other);
            let (Ok((entry, word)), Ok((other_entry, other_word))) = (found, taken) else {
                self.end();
                let _ = self.free_slow(other);
                return Err(Error::Handle);
            };
            let locked = word.shared() != 0 || self.is_recorded(handle, word);
            if locked || word.is_discarded() || !alone {
                self.end();
                let _ = self.free_slow(other);
                // Somebody came meanwhile: once more, the other way.
                return if locked {
                    Err(Error::Locked)
                } else {
                    self.resize_plain(handle, size)
                };
            }
            let (from, to) = (word.offset(), other_word.offset());
            let bytes = heap.usable_bytes(from).min(size);
            core::ptr::copy_nonoverlapping(
                self.base.add(from as usize),
                self.base.add(to as usize),
                bytes,
            );
            heap.rename(to, handle.index());
            entry.store(word.moved_to(to).0, Release);
            let ended = heap.ended_word(other_word.generation());
            other_entry.store(ended.0, Release);
            self.end();
            self.keep_spare(other.index(), other_word.generation() + 1);
            self.vacate(from);
            Ok(())
        }
    }

    /// Can the block have that size where it is? Not if more than an eighth of it would be wasted.
    fn fits(&self, handle: RawHandle, size: usize) -> Result<bool, Error> {
        let before = self.usable_bytes_plain(handle)?;
        let least = match self.heap().classes.index_of(size) {
            Some(class) => (self.heap().classes.get(class).size - ENTRY_BYTES) as usize,
            None => size.next_multiple_of(PAGE),
        };
        Ok(least == before || (least < before && before - least <= before / 8 && before <= PAGE))
    }

    /// Makes the block nobody's but the caller's: a counted lock and the mark that somebody moves it, in one exchange.
    /// Nobody else moves it; who wants to lock it takes the mark away.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Locked`], [`Error::Discarded`].
    fn claim(&self, handle: RawHandle) -> Result<(&AtomicU64, Word), Error> {
        let heap = self.heap();
        loop {
            let (entry, word) = heap.resolve(handle)?;
            if word.is_discarded() {
                return Err(Error::Discarded);
            }
            if word.shared() != 0 || self.is_recorded(handle, word) {
                return Err(Error::Locked);
            }
            let mine = Word((word.0 | MOVING) + SHARED_ONE);
            if entry
                .compare_exchange(word.0, mine.0, AcqRel, Relaxed)
                .is_err()
            {
                continue;
            }
            if word.owner() != self.id {
                (heap.platform.barrier)();
                if heap.is_recorded_by(word.owner(), handle.bits()) {
                    self.unclaim(entry, mine);
                    return Err(Error::Locked);
                }
            }
            return Ok((entry, mine));
        }
    }

    /// Takes a claim back, of which others may have taken the mark away already.
    fn unclaim(&self, entry: &AtomicU64, mine: Word) {
        let mut now = Word(entry.load(Acquire));
        while now.is_live() && now.generation() == mine.generation() && now.shared() > 0 {
            let wanted = (now.0 & !MOVING) - SHARED_ONE;
            match entry.compare_exchange(now.0, wanted, AcqRel, Acquire) {
                Ok(_) => break,
                Err(word) => now = Word(word),
            }
        }
    }

    /// Says whether the contents may be dropped while the block is not locked.
    ///
    /// # Errors
    /// [`Error::Handle`]; [`Error::Locked`]; [`Error::Discarded`] if they were dropped already.
    pub fn set_discardable(&self, handle: RawHandle, discardable: bool) -> Result<(), Error> {
        let _slow = self.slow();
        // Claimed, so that no lock is in a record from here on: those would not be seen when contents are dropped.
        let (entry, mine) = self.claim(handle)?;
        let plain = (mine.0 & !MOVING & !DISCARDABLE) - SHARED_ONE;
        let wanted = if discardable {
            plain | DISCARDABLE
        } else {
            plain
        };
        if entry
            .compare_exchange(mine.0, wanted, AcqRel, Relaxed)
            .is_err()
        {
            self.unclaim(entry, mine);
            return Err(Error::Locked);
        }
        Ok(())
    }

    /// Entries in our hands.
    #[cfg(all(any(test, feature = "check"), not(feature = "beside")))]
    pub fn spare_count(&self) -> u32 {
        self.spare_count.get()
    }
}

impl Heap {
    /// A region that was full has a slot that another thread gave back: its owner may allocate from it again.
    #[cold]
    unsafe fn tell_owner(&self, span: usize) {
        self.mutex.lock(&self.platform);
        // SAFETY: the mutex is held; lists and `listed` change under it only. The owner's `current` stays: it looks at
        // its list when that is used up.
        unsafe {
            let region = self.region(span);
            let who = region.owner();
            let class = region.class.load(Relaxed) as usize;
            if region.listed.load(Relaxed) == 0 && region.remote_count() > 0 {
                if who == owner::NONE {
                    self.disown(span);
                } else if let Some(cache) = self.caches.get(who as usize) {
                    let cache = &*cache.load(Relaxed);
                    let mut head = cache.listed[class].get();
                    self.link(&mut head, span);
                    cache.listed[class].set(head);
                }
            }
        }
        self.mutex.unlock(&self.platform);
    }

    /// Does the thread with this cache hold the block locked in a record? Exact for locks that happened before the
    /// call, or before a barrier that the caller let all threads pass.
    pub fn is_recorded_by(&self, id: u8, handle: u64) -> bool {
        if id >= owner::CACHES {
            return false;
        }
        let cache = self.caches[id as usize].load(Acquire);
        if cache.is_null() {
            return false;
        }
        // SAFETY: memory of caches stays what it is; records are atomic. From the last to the first: see `unlock_slow`.
        unsafe {
            (*cache)
                .records
                .iter()
                .rev()
                .any(|record| record.load(Acquire) == handle)
        }
    }

    /// Names the entry of the block at `offset` anew.
    ///
    /// # Safety
    /// The caller owns the slot.
    pub unsafe fn rename(&self, offset: u64, index: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let region = self.region(self.span_of(offset));
            if region.owner() == owner::LARGE {
                region.free.store(index, Release);
            } else {
                region
                    .word(region.slot(offset))
                    .store(index & !FREE, Release);
            }
        }
    }
}
