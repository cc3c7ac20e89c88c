//! A heap: its memory, who has which span, lists of regions that are nobody's. What a thread does by itself is
//! [`crate::cache`]'s, moving blocks is [`crate::compact`]'s.
//!
//! ```text
//! base: | heap, bitmaps, books of the table, descriptors, reverse maps | regions, large blocks -> ... <- table | end
//! ```
//!
//! One range of addresses holds everything, so a heap over memory of the caller and one that grows from the system
//! differ in nothing but [`Platform::commit`] and [`Platform::release`].

use crate::cache::Cache;
use crate::class::{Class, Classes, ENTRY_BYTES, Geometry};
use crate::compact::Compactor;
use crate::entry::{OFFSET_LIMIT, Word};
use crate::mutex::Mutex;
use crate::platform::{PAGE, Platform};
use crate::region::{Region, owner};
use crate::span::Spans;
use crate::status::Error;
use crate::table::{PAGE_ENTRIES, Table, TablePage};
use core::cell::{Cell, UnsafeCell};
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64};

#[cfg(feature = "beside")]
mod beside;

/// What a heap is made with.
#[derive(Clone)]
pub(crate) struct Plan {
    pub geometry: Geometry,
    pub classes: Classes,
    /// Entries of the handle table at most.
    pub entries_max: usize,
    /// Highest generation of an entry.
    pub generation_max: u64,
    /// Bytes of spans in use at most, the table's included.
    pub limit_bytes: u64,
    /// The caller gave the memory.
    pub given: bool,
    /// Blocks born in slots of fewer bytes stay there; 0: those that would free no page.
    #[cfg(feature = "beside")]
    pub leave_from_bytes: u32,
    /// When compaction runs by itself.
    pub policy: Policy,
}

/// When compaction runs by itself, and how much of it. Shares are in millionths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// It runs inside of calls that free and allocate.
    pub inline: bool,
    /// If not there: who is told that there may be work; false: nobody can do it. See [`crate::background`].
    pub nudge: Option<fn(&Heap) -> bool>,
    /// Free share of the memory in use at which it starts, and at which it stops.
    pub trigger: u32,
    pub stop: u32,
    /// Free bytes below which it does nothing.
    pub floor_bytes: u64,
    /// Longest step.
    pub budget_ns: u64,
    /// Share of the time that steps may take, with what they cost the program later ([`crate::compact::PAGE_NS`]).
    pub cpu_share: u32,
    /// Share of the memory in use that may stay resident without blocks.
    pub slack: u32,
}

/// Called when memory is short: bytes asked for, and the caller's argument. True: try again.
pub(crate) type Shortage = Option<(
    unsafe extern "C" fn(*mut core::ffi::c_void, usize) -> i32,
    *mut core::ffi::c_void,
)>;
/// Called when a block has moved: handle, old and new address, and the caller's argument.
pub(crate) type Moved = Option<(
    unsafe extern "C" fn(*mut core::ffi::c_void, u64, *mut u8, *mut u8),
    *mut core::ffi::c_void,
)>;

/// What the mutex guards.
pub(crate) struct Guarded {
    pub spans: Spans,
    pub table: Table,
    /// Regions that are nobody's and have free slots, by class: first and 1, or 0.
    pub partial: [u32; crate::class::CLASSES_MAX],
    /// Spans that can be used without a commit.
    pub ready: usize,
    /// Spans of the table.
    table_spans: usize,
    /// Large blocks: count and bytes.
    pub large_blocks: u64,
    pub large_bytes: u64,
    /// Memory of caches of threads that ended, for the next ones.
    caches_free: *mut Cache,
    pub shortage: Shortage,
}

/// Everything of a heap.
pub(crate) struct Heap {
    /// In place in handles; changes when the heap is destroyed.
    pub tag: u64,
    pub base: *mut u8,
    pub bytes: usize,
    pub span_shift: u32,
    pub regions: *mut Region,
    reverse_side: *mut AtomicU32,
    pub table_end: *mut AtomicU64,
    /// Entries that exist.
    pub entries: AtomicU32,
    pub classes: Classes,
    pub platform: Platform,
    pub mutex: Mutex,
    guarded: UnsafeCell<Guarded>,
    pub caches: [AtomicPtr<Cache>; owner::CACHES as usize],
    /// Caches in use.
    pub threads: AtomicU32,
    pub policy: Cell<Policy>,
    /// Bytes of regions, large blocks and dirty spans that are resident, by our own books; changed under the mutex.
    pub resident_bytes: AtomicU64,
    /// Bytes of spans that are free and resident; changed under the mutex.
    pub dirty_bytes: AtomicU64,
    /// Free bytes in pages in use, as far as regions have told.
    pub thin_bytes: AtomicI64,
    /// 1: the process is about to fork. Threads wait before they begin a call as `Cache::slow` counts them.
    pub forking: AtomicU32,
    /// Held while somebody compacts; guards the compactor.
    pub compacting: Mutex,
    pub compactor: UnsafeCell<Compactor>,
    pub moved: Cell<Moved>,
    pub limit_spans: Cell<usize>,
    /// Memory as it was given or reserved, bytes; and whether the caller gave it.
    pub reserved: usize,
    pub given: bool,
    first_span: usize,
    #[cfg(feature = "beside")]
    entry_books: beside::EntryBooks,
}

// SAFETY: what threads share is atomic, or guarded by one of the mutexes; `policy`, `moved` and `limit_spans` are
// set under the mutex before threads use the heap, or under it.
unsafe impl Sync for Heap {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Heap {}

/// Entries of a table at most: words of the reverse map have two bits of their own.
const ENTRIES_MAX: usize = 1 << 30;

const fn round_up(bytes: usize, to: usize) -> usize {
    bytes.div_ceil(to) * to
}

impl Heap {
    /// Makes a heap in `memory`, which begins and ends wherever it likes.
    ///
    /// # Errors
    /// [`Error::HeapTooSmall`] if not even one region fits beside the tables; [`Error::Memory`] if the platform
    /// refuses to commit them.
    ///
    /// # Safety
    /// The memory belongs to the heap from now on. It is committed already, or `platform.commit` does it. Contents
    /// are of no meaning.
    pub unsafe fn create(
        memory: *mut u8,
        bytes: usize,
        plan: &Plan,
        tag: u64,
        platform: Platform,
    ) -> Result<*mut Heap, Error> {
        let span_bytes = plan.geometry.span_bytes as usize;
        let reserved = bytes;
        let skip = memory.align_offset(PAGE.max(64));
        let bytes = bytes.checked_sub(skip).ok_or(Error::HeapTooSmall)? / span_bytes * span_bytes;
        let bytes = bytes.min(OFFSET_LIMIT as usize);
        #[cfg(feature = "beside")]
        let bytes = bytes.min(beside::BYTES_MAX);
        let base = memory.wrapping_add(skip);
        let spans = bytes / span_bytes;
        // Entries are 8 bytes, blocks at least 16: more of them can't be.
        let pages_max = plan
            .entries_max
            .min(bytes / 24)
            .min(ENTRIES_MAX)
            .div_ceil(PAGE_ENTRIES)
            .max(1);
        // Entries lie beside their blocks: no page may exist.
        #[cfg(feature = "beside")]
        let pages_max = {
            let _ = pages_max;
            0
        };
        let (books, available) = Table::bytes(pages_max);
        let mut at = 0usize;
        let mut place = |bytes: usize| {
            let here = at;
            at = round_up(at + bytes, 64);
            here
        };
        let heap_at = place(size_of::<Heap>());
        let bitmap_at = place(Spans::bytes(spans));
        let available_at = place(available);
        let books_at = place(books);
        let regions_at = place(spans * size_of::<Region>());
        let reverse_side_at = place(spans * (span_bytes / 1024) * 4);
        #[cfg(feature = "beside")]
        let entry_books = {
            let (bits, highest) = beside::EntryBooks::bytes(bytes);
            (place(bits), place(highest))
        };
        let tables = round_up(at, span_bytes) / span_bytes;
        if tables + 2 > spans {
            return Err(Error::HeapTooSmall);
        }
        // SAFETY: all of these lie in the memory given; pages are committed before they are touched.
        unsafe {
            let fixed =
                round_up(books_at + size_of::<TablePage>() * 512, PAGE).min(round_up(at, PAGE));
            if !(platform.commit)(base, fixed) {
                return Err(Error::Memory);
            }
            let heap: *mut Heap = base.add(heap_at).cast();
            let end = base.add(bytes);
            let table = Table::new(
                end,
                base.add(books_at),
                base.add(available_at),
                pages_max,
                plan.generation_max,
            );
            let mut bitmap = Spans::new(base.add(bitmap_at).cast(), spans);
            bitmap.take(0, tables);
            heap.write(Heap {
                tag,
                base,
                bytes,
                span_shift: span_bytes.trailing_zeros(),
                regions: base.add(regions_at).cast(),
                reverse_side: base.add(reverse_side_at).cast(),
                table_end: end.cast(),
                entries: AtomicU32::new(0),
                classes: plan.classes.clone(),
                platform,
                mutex: Mutex::new(),
                guarded: UnsafeCell::new(Guarded {
                    spans: bitmap,
                    table,
                    partial: [0; crate::class::CLASSES_MAX],
                    ready: tables,
                    table_spans: 0,
                    large_blocks: 0,
                    large_bytes: 0,
                    caches_free: null_mut(),
                    shortage: None,
                }),
                caches: [const { AtomicPtr::new(null_mut()) }; owner::CACHES as usize],
                threads: AtomicU32::new(0),
                policy: Cell::new(plan.policy),
                resident_bytes: AtomicU64::new(0),
                dirty_bytes: AtomicU64::new(0),
                thin_bytes: AtomicI64::new(0),
                forking: AtomicU32::new(0),
                compacting: Mutex::new(),
                compactor: UnsafeCell::new(Compactor::new((platform.clock_ns)())),
                moved: Cell::new(None),
                limit_spans: Cell::new(
                    (plan.limit_bytes / span_bytes as u64).max(4) as usize + tables,
                ),
                reserved,
                given: plan.given,
                first_span: tables,
                #[cfg(feature = "beside")]
                entry_books: beside::EntryBooks::new(
                    base.add(entry_books.0),
                    base.add(entry_books.1),
                    plan.leave_from_bytes,
                ),
            });
            (*heap).mutex.lock(&platform);
            let grown = cfg!(feature = "beside") || (*heap).grow_table();
            (*heap).mutex.unlock(&platform);
            if !grown {
                return Err(Error::HeapTooSmall);
            }
            Ok(heap)
        }
    }

    /// What the mutex guards.
    ///
    /// # Safety
    /// The caller holds the mutex, and no other reference from here.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub unsafe fn guarded(&self) -> &mut Guarded {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.guarded.get() }
    }

    pub fn add_resident(&self, bytes: u64) {
        self.resident_bytes
            .store(self.resident_bytes.load(Relaxed) + bytes, Relaxed);
    }

    pub fn sub_resident(&self, bytes: u64) {
        self.resident_bytes
            .store(self.resident_bytes.load(Relaxed) - bytes, Relaxed);
    }

    /// Bytes of a span.
    #[inline(always)]
    pub fn span_bytes(&self) -> usize {
        1 << self.span_shift
    }

    /// First span behind the heap's own tables.
    pub fn first_span(&self) -> usize {
        self.first_span
    }

    /// Descriptor of a span.
    ///
    /// # Safety
    /// The span was ready once.
    #[inline(always)]
    pub unsafe fn region(&self, span: usize) -> &Region {
        // SAFETY: ready spans have descriptors.
        unsafe { &*self.regions.add(span) }
    }

    /// Region that the block at `offset` lies in, as a number.
    ///
    /// # Safety
    /// A block lies there.
    #[inline(always)]
    pub unsafe fn span_of(&self, offset: u64) -> usize {
        let span = (offset >> self.span_shift) as usize;
        // SAFETY: blocks lie in spans that are ready.
        let region = unsafe { self.region(span) };
        if region.owner.load(Relaxed) == owner::INTERIOR {
            region.next.load(Relaxed) as usize - 1
        } else {
            span
        }
    }

    /// Class of a region of slots.
    #[inline(always)]
    pub fn class(&self, region: &Region) -> &Class {
        self.classes.get(region.class.load(Relaxed))
    }

    /// Makes spans below `count` ready. False: the platform refuses.
    ///
    /// # Safety
    /// As [`Heap::guarded`].
    unsafe fn make_ready(&self, count: usize) -> bool {
        let span_bytes = self.span_bytes();
        // SAFETY: the caller holds the mutex; what is committed lies in the heap's memory.
        unsafe {
            let guarded = self.guarded();
            if count <= guarded.ready {
                return true;
            }
            let most = guarded.spans.count - guarded.table_spans;
            // Ahead of need, so that the system is asked seldom: an eighth, 1 MiB at least.
            let ahead = guarded.ready + (guarded.ready / 8).max((1 << 20) / span_bytes).max(1);
            for wanted in [count.max(ahead.min(most)), count] {
                let page_down = |bytes: usize| bytes / PAGE * PAGE;
                let commit = |array: *mut u8, each: usize| {
                    let from = page_down(array as usize + guarded.ready * each);
                    let to = round_up(array as usize + wanted * each, PAGE);
                    (self.platform.commit)(from as *mut u8, to - from)
                };
                let reverse_each = span_bytes / 1024 * 4;
                let done = (guarded.ready > self.first_span || {
                    // The first time: descriptors of the tables' own spans too.
                    let from = page_down(self.regions as usize);
                    let to = round_up(self.regions as usize + wanted * size_of::<Region>(), PAGE);
                    (self.platform.commit)(from as *mut u8, to - from)
                }) && commit(self.regions.cast(), size_of::<Region>())
                    && commit(self.reverse_side.cast(), reverse_each)
                    && commit(self.base, span_bytes);
                #[cfg(feature = "beside")]
                let done = done && self.commit_entry_books(guarded.ready, wanted);
                if done {
                    for span in guarded.ready..wanted {
                        let region = self.regions.add(span);
                        core::ptr::write_bytes(region, 0, 1);
                        (*region).owner.store(owner::META, Relaxed);
                    }
                    guarded.ready = wanted;
                    #[cfg(feature = "beside")]
                    self.entries
                        .store(((wanted << self.span_shift) / 16) as u32, Release);
                    return true;
                }
            }
            false
        }
    }

    /// Takes `count` spans, the lowest that do. `None`: no room, or the limit is reached.
    ///
    /// # Safety
    /// As [`Heap::guarded`].
    pub unsafe fn take_spans(&self, count: usize) -> Option<usize> {
        // SAFETY: the caller holds the mutex; spans below `ready` have descriptors.
        unsafe {
            let guarded = self.guarded();
            if guarded.spans.taken + count > self.limit_spans.get() {
                return None;
            }
            let first = guarded.spans.find(count, guarded.spans.count)?;
            if !self.make_ready(first + count) {
                return None;
            }
            self.claim_spans(first, count);
            Some(first)
        }
    }

    /// Takes spans that are free and ready.
    unsafe fn claim_spans(&self, first: usize, count: usize) {
        // SAFETY: the caller holds the mutex; the spans are ready.
        unsafe {
            let guarded = self.guarded();
            guarded.spans.take(first, count);
            for span in first..first + count {
                self.end_dirty(self.region(span));
                self.region(span).owner.store(owner::META, Release);
            }
        }
    }

    /// A span is free and resident no more, if it was.
    fn end_dirty(&self, span: &Region) {
        if span.dirty.swap(0, Relaxed) != 0 {
            let bytes = span.reported.load(Relaxed) as u64 * 64;
            self.dirty_bytes
                .store(self.dirty_bytes.load(Relaxed) - bytes, Relaxed);
            self.sub_resident(bytes);
        }
    }

    /// Makes spans the rest of the region that begins at `first`.
    unsafe fn set_interior(&self, first: usize, rest: core::ops::Range<usize>) {
        for span in rest {
            // SAFETY: the caller took the spans, so they are ready.
            let interior = unsafe { self.region(span) };
            interior.next.store(first as u32 + 1, Relaxed);
            interior.owner.store(owner::INTERIOR, Release);
        }
    }

    /// Gives spans back, of which `resident` bytes are resident. Their memory goes back by compaction.
    ///
    /// # Safety
    /// As [`Heap::guarded`]; nothing in the spans is in use.
    pub unsafe fn give_spans(&self, first: usize, count: usize, resident: u64) {
        // SAFETY: the caller holds the mutex; the spans are ready.
        unsafe {
            let guarded = self.guarded();
            let each = (resident / count as u64).div_ceil(64) * 64;
            for span in first..first + count {
                let region = self.region(span);
                region.owner.store(owner::META, Release);
                region.listed.store(0, Relaxed);
                region.dirty.store(1, Relaxed);
                region.reported.store((each / 64) as u32, Relaxed);
            }
            self.dirty_bytes.store(
                self.dirty_bytes.load(Relaxed) + each * count as u64,
                Relaxed,
            );
            self.add_resident(each * count as u64);
            guarded.spans.give(first, count);
        }
    }

    /// Gives back the memory of free spans, a run of up to `spans` of them from span `from` on, if more than `keep` bytes
    /// of such are left; answers the span to go on with, or `None` if there is nothing left to do.
    ///
    /// # Safety
    /// As [`Heap::guarded`].
    pub unsafe fn release_dirty(&self, from: usize, keep: u64, spans: usize) -> Option<usize> {
        // SAFETY: the caller holds the mutex; spans below `ready` have descriptors.
        unsafe {
            let guarded = self.guarded();
            let is_dirty = |span: usize| {
                !guarded.spans.is_taken(span) && self.region(span).dirty.load(Relaxed) != 0
            };
            if self.dirty_bytes.load(Relaxed) <= keep {
                return None;
            }
            let first = (from.max(self.first_span)..guarded.ready).find(|span| is_dirty(*span))?;
            let mut end = first;
            while end < guarded.ready
                && end - first < spans
                && is_dirty(end)
                && self.dirty_bytes.load(Relaxed) > keep
            {
                self.end_dirty(self.region(end));
                end += 1;
            }
            (self.platform.release)(
                self.base.add(first << self.span_shift),
                (end - first) << self.span_shift,
            );
            Some(end)
        }
    }

    /// Adds a page to the handle table. False: the table has its full size, or there is no memory.
    ///
    /// # Safety
    /// As [`Heap::guarded`].
    pub unsafe fn grow_table(&self) -> bool {
        // SAFETY: the caller holds the mutex; the page lies in a span of the table that is committed, its book too.
        unsafe {
            let guarded = self.guarded();
            let table = &mut guarded.table;
            if table.count == table.count_max {
                return false;
            }
            let pages = self.span_bytes() / PAGE;
            if table.count == guarded.table_spans * pages {
                let span = guarded.spans.count - guarded.table_spans - 1;
                if guarded.spans.is_taken(span) || guarded.spans.taken + 1 > self.limit_spans.get()
                {
                    return false;
                }
                if !(self.platform.commit)(
                    self.base.add(span << self.span_shift),
                    self.span_bytes(),
                ) {
                    return false;
                }
                let book = |page: usize| table.book(page) as usize;
                let from = book(table.count) / PAGE * PAGE;
                let to = round_up(book(table.count + pages), PAGE);
                if !(self.platform.commit)(from as *mut u8, to - from) {
                    return false;
                }
                guarded.spans.take(span, 1);
                guarded.table_spans += 1;
                if span < guarded.ready {
                    self.end_dirty(self.region(span));
                    self.region(span).owner.store(owner::META, Relaxed);
                }
            }
            table.grow();
            self.entries.store(table.entries(), Release);
            true
        }
    }

    /// Word of an entry; `None` if there is no such entry.
    #[cfg(not(feature = "beside"))]
    #[inline(always)]
    pub fn entry(&self, index: u32) -> Option<&AtomicU64> {
        if index >= self.entries.load(Acquire) {
            return None;
        }
        // SAFETY: the entry exists.
        Some(unsafe { &*self.table_end.sub(index as usize + 1) })
    }

    /// Calls `visit` with each entry that exists, live or not, until it answers false.
    #[cfg(not(feature = "beside"))]
    pub fn each_entry(&self, mut visit: impl FnMut(u32, &AtomicU64) -> bool) {
        for index in 0..self.entries.load(Acquire) {
            if !self.entry(index).is_some_and(|entry| visit(index, entry)) {
                return;
            }
        }
    }

    /// A new region of a class, empty, for `who`.
    ///
    /// # Safety
    /// As [`Heap::guarded`].
    pub unsafe fn new_region(&self, class_index: u8, who: u8) -> Option<usize> {
        let class = self.classes.get(class_index);
        // SAFETY: the caller holds the mutex; the spans are the region's.
        unsafe {
            let first = self.take_spans(class.spans as usize)?;
            let region = self.region(first);
            let begin = (first << self.span_shift) as u64;
            let reverse = if class.reverse_inside {
                self.base.add(begin as usize).cast()
            } else {
                self.reverse_side.add(first * (self.span_bytes() / 1024))
            };
            let first_block = begin + (class.first_slot + ENTRY_BYTES) as u64;
            region.base.store(first_block, Relaxed);
            region.reverse.store(reverse, Relaxed);
            region.magic.store(class.magic, Relaxed);
            region.free.store(0, Relaxed);
            region.used.store(0, Relaxed);
            region.trigger.store(u32::MAX, Relaxed);
            region.granules.store((class.size / 16) as u16, Relaxed);
            region.class.store(class_index, Relaxed);
            region.listed.store(0, Relaxed);
            region.dirty.store(0, Relaxed);
            region.stranded.store(0, Relaxed);
            region.remote.store(0, Relaxed);
            region.next.store(0, Relaxed);
            region.previous.store(0, Relaxed);
            region.reported.store(0, Relaxed);
            region.pages.store(0, Relaxed);
            self.set_interior(first, first + 1..first + class.spans as usize);
            region.owner.store(who, Release);
            Some(first)
        }
    }

    /// Puts the slots of one more page of a region into use. False: all are.
    ///
    /// # Safety
    /// As [`Heap::guarded`], and the caller owns the region.
    pub unsafe fn carve(&self, region: &Region) -> bool {
        let class = self.class(region);
        let before = region.resident_bytes(class);
        // SAFETY: the caller's promise.
        unsafe {
            #[cfg(feature = "checked")]
            let pages = region.pages.load(Relaxed);
            #[cfg(not(feature = "beside"))]
            let done = region.carve(class, self.span_bytes());
            #[cfg(feature = "beside")]
            let done = self.carve_with_entries(region, class);
            #[cfg(feature = "checked")]
            self.forget_poison(region, region.pages.load(Relaxed) & !pages);
            self.add_resident(region.resident_bytes(class) - before);
            done
        }
    }

    /// Ends an empty region.
    ///
    /// # Safety
    /// As [`Heap::guarded`]; the caller owns the region, which is on no list and holds no block.
    pub unsafe fn end_region(&self, first: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let region = self.region(first);
            debug_assert_eq!(region.used.load(Relaxed), 0);
            let class = self.class(region);
            let resident = region.resident_bytes(class);
            #[cfg(feature = "beside")]
            self.forget_entries(region, class, region.pages.load(Relaxed));
            self.unreport(region);
            self.sub_resident(resident);
            self.give_spans(first, class.spans as usize, resident);
        }
    }

    /// Tells the heap how much a region has free; the owner does.
    pub fn report(&self, region: &Region) {
        let class = self.class(region);
        // Near enough: pages hold a little less than their bytes.
        let bytes =
            region.pages.load(Relaxed).count_ones() as u64 * (class.size as u64).max(PAGE as u64);
        let free = bytes.saturating_sub(region.used.load(Relaxed) as u64 * class.size as u64) / 64;
        let before = region.reported.swap(free as u32, Relaxed);
        self.thin_bytes
            .fetch_add((free as i64 - before as i64) * 64, Relaxed);
    }

    /// What the region told counts no more.
    pub fn unreport(&self, region: &Region) {
        let before = region.reported.swap(0, Relaxed);
        self.thin_bytes.fetch_sub(before as i64 * 64, Relaxed);
    }

    /// Puts a region at the head of a list.
    ///
    /// # Safety
    /// The caller owns the region and the list; `head` holds the number of its first region and 1, or 0.
    pub unsafe fn link(&self, head: &mut u32, span: usize) {
        // SAFETY: regions on a list are ready.
        unsafe {
            let region = self.region(span);
            debug_assert_eq!(region.listed.load(Relaxed), 0);
            region.listed.store(1, Relaxed);
            region.previous.store(0, Relaxed);
            region.next.store(*head, Relaxed);
            if *head != 0 {
                self.region(*head as usize - 1)
                    .previous
                    .store(span as u32 + 1, Relaxed);
            }
            *head = span as u32 + 1;
        }
    }

    /// Takes a region off its list.
    ///
    /// # Safety
    /// As [`Heap::link`]; the region is on that list.
    pub unsafe fn unlink(&self, head: &mut u32, span: usize) {
        // SAFETY: regions on a list are ready.
        unsafe {
            let region = self.region(span);
            debug_assert_eq!(region.listed.load(Relaxed), 1);
            region.listed.store(0, Relaxed);
            let (next, previous) = (region.next.load(Relaxed), region.previous.load(Relaxed));
            if next != 0 {
                self.region(next as usize - 1)
                    .previous
                    .store(previous, Relaxed);
            }
            if previous != 0 {
                self.region(previous as usize - 1).next.store(next, Relaxed);
            } else {
                *head = next;
            }
        }
    }

    /// A block of a region that is nobody's has ended.
    ///
    /// # Safety
    /// As [`Heap::guarded`]; the region is nobody's, the slot the caller's.
    pub unsafe fn push_orphan(&self, span: usize, slot: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let region = self.region(span);
            let class = region.class.load(Relaxed) as usize;
            let used = region.push(slot);
            if used == 0 {
                if region.listed.load(Relaxed) != 0 {
                    self.unlink(&mut self.guarded().partial[class], span);
                }
                self.disown(span);
                return;
            }
            if region.listed.load(Relaxed) == 0 {
                self.link(&mut self.guarded().partial[class], span);
            }
            if used.is_multiple_of(64) {
                self.report(region);
            }
        }
    }

    /// Makes a region nobody's: on the list of its class if it has free slots, ended if it is empty.
    ///
    /// # Safety
    /// As [`Heap::guarded`]; the caller owns the region, which is on no list.
    pub unsafe fn disown(&self, span: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let region = self.region(span);
            region.collect();
            if region.used.load(Relaxed) == 0 {
                self.end_region(span);
                return;
            }
            self.report(region);
            let class = self.class(region);
            if region.used.load(Relaxed) < class.slots as u32 {
                self.link(
                    &mut self.guarded().partial[region.class.load(Relaxed) as usize],
                    span,
                );
            }
            region.owner.store(owner::NONE, Release);
        }
    }

    /// A large block for entry `index`: where it is.
    ///
    /// # Safety
    /// As [`Heap::guarded`].
    pub unsafe fn take_large(&self, bytes: usize, index: u32) -> Option<u64> {
        let spans = bytes.div_ceil(self.span_bytes());
        // SAFETY: the caller holds the mutex; the spans are the block's.
        unsafe {
            #[cfg(not(feature = "beside"))]
            let first = self.take_spans(spans)?;
            #[cfg(feature = "beside")]
            let (first, index) = self.take_spans_with_entry(spans, index)?;
            let region = self.region(first);
            let pages = bytes.div_ceil(PAGE) as u64;
            region
                .base
                .store((first << self.span_shift) as u64, Relaxed);
            region.pages.store(pages, Relaxed);
            region.free.store(index, Relaxed);
            self.set_interior(first, first + 1..first + spans);
            region.owner.store(owner::LARGE, Release);
            let guarded = self.guarded();
            guarded.large_blocks += 1;
            guarded.large_bytes += pages * PAGE as u64;
            self.add_resident(pages * PAGE as u64);
            Some((first << self.span_shift) as u64)
        }
    }

    /// Ends a large block.
    ///
    /// # Safety
    /// As [`Heap::guarded`]; a large block that is in use no more begins at the span.
    pub unsafe fn end_large(&self, first: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            #[cfg(feature = "beside")]
            if self.forget_large_entry(first) {
                return;
            }
            let bytes = self.region(first).pages.load(Relaxed) * PAGE as u64;
            let guarded = self.guarded();
            guarded.large_blocks -= 1;
            guarded.large_bytes -= bytes;
            self.sub_resident(bytes);
            self.give_spans(first, (bytes as usize).div_ceil(self.span_bytes()), bytes);
        }
    }

    /// Gives a large block another size where it is, if the spans behind it are free. False: it can't be done.
    ///
    /// # Safety
    /// The block at `offset` lives and stays what it is meanwhile.
    pub unsafe fn resize_large(&self, offset: u64, bytes: usize) -> bool {
        if bytes <= self.classes.largest() as usize {
            return false;
        }
        let first = (offset >> self.span_shift) as usize;
        self.mutex.lock(&self.platform);
        // SAFETY: the mutex is held; the spans are the block's, or free.
        let done = unsafe {
            let region = self.region(first);
            if region.owner() == owner::LARGE {
                let before = region.pages.load(Relaxed) as usize;
                let pages = bytes.div_ceil(PAGE);
                let spans = |pages: usize| (pages * PAGE).div_ceil(self.span_bytes());
                let (had, needs) = (spans(before), spans(pages));
                let behind = first + had;
                if pages <= before {
                    (self.platform.release)(
                        self.base.add(offset as usize + pages * PAGE),
                        (before - pages) * PAGE,
                    );
                    self.set_large(region, pages);
                    if needs < had {
                        self.give_spans(first + needs, had - needs, 0);
                    }
                    true
                } else if needs == had || self.take_spans_at(behind, needs - had) {
                    self.set_interior(first, behind..first + needs);
                    self.set_large(region, pages);
                    true
                } else {
                    false
                }
            } else {
                false
            }
        };
        self.mutex.unlock(&self.platform);
        done
    }

    /// Books another size of a large block.
    unsafe fn set_large(&self, region: &Region, pages: usize) {
        let before = region.pages.swap(pages as u64, Relaxed) * PAGE as u64;
        let now = (pages * PAGE) as u64;
        // SAFETY: the caller holds the mutex.
        let guarded = unsafe { self.guarded() };
        guarded.large_bytes = guarded.large_bytes - before + now;
        self.sub_resident(before);
        self.add_resident(now);
    }

    /// Takes these spans, if they are free and there is memory for them.
    unsafe fn take_spans_at(&self, first: usize, count: usize) -> bool {
        // SAFETY: the caller holds the mutex.
        unsafe {
            let guarded = self.guarded();
            let free = first + count <= guarded.spans.count
                && guarded.spans.taken + count <= self.limit_spans.get()
                && (first..first + count).all(|span| !guarded.spans.is_taken(span));
            if !free || !self.make_ready(first + count) {
                return false;
            }
            self.claim_spans(first, count);
            true
        }
    }

    /// Bytes that the block at `offset` can hold.
    ///
    /// # Safety
    /// A block lies there.
    pub unsafe fn usable_bytes(&self, offset: u64) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            let region = self.region(self.span_of(offset));
            if region.owner() == owner::LARGE {
                region.pages.load(Relaxed) as usize * PAGE
            } else {
                (region.slot_bytes() - ENTRY_BYTES as u64) as usize
            }
        }
    }

    /// A cache for the calling thread.
    ///
    /// # Errors
    /// [`Error::Memory`]: as many threads as can be have one, or there is no memory for it.
    pub fn attach(&self) -> Result<*mut Cache, Error> {
        self.mutex.lock(&self.platform);
        // SAFETY: the mutex is held; a cache's memory is a span of its own, or one that ended.
        let made = unsafe {
            let guarded = self.guarded();
            match self
                .caches
                .iter()
                .position(|cache| cache.load(Relaxed).is_null())
            {
                None => Err(Error::Memory),
                Some(id) => {
                    let memory = if guarded.caches_free.is_null() {
                        let spans = size_of::<Cache>().div_ceil(self.span_bytes());
                        self.take_spans(spans)
                            .map(|span| self.base.add(span << self.span_shift).cast::<Cache>())
                    } else {
                        let cache = guarded.caches_free;
                        guarded.caches_free = (*cache).next.get();
                        Some(cache)
                    };
                    match memory {
                        None => Err(Error::Memory),
                        Some(cache) => {
                            cache.write(Cache::new(self, id as u8));
                            self.caches[id].store(cache, Release);
                            if self.threads.fetch_add(1, Relaxed) == 0 {
                                (*cache).alone.store(1, Relaxed);
                            } else {
                                self.end_alone(cache);
                            }
                            Ok(cache)
                        }
                    }
                }
            }
        };
        self.mutex.unlock(&self.platform);
        made
    }

    /// No thread is alone any more. Waits until the one that was is in no call.
    ///
    /// # Safety
    /// As [`Heap::guarded`].
    unsafe fn end_alone(&self, but: *const Cache) {
        for cache in &self.caches {
            let cache = cache.load(Relaxed);
            // SAFETY: caches stay what they are while the mutex is held.
            let Some(other) = (unsafe { cache.as_ref() }) else {
                continue;
            };
            if core::ptr::eq(other, but) || other.alone.load(Relaxed) == 0 {
                continue;
            }
            other.paused.store(1, Relaxed);
            (self.platform.barrier)();
            let mut spins = 0u32;
            while other.op.load(Acquire) != 0 {
                spins += 1;
                if spins.is_multiple_of(128) {
                    (self.platform.pause)();
                }
                core::hint::spin_loop();
            }
            other.alone.store(0, Relaxed);
            other.paused.store(0, Release);
        }
    }

    /// Ends a thread's cache: its regions become nobody's, its locks are counted in the entries.
    ///
    /// # Safety
    /// The cache is of this heap, and its thread uses it no more.
    pub unsafe fn detach(&self, cache: *mut Cache) {
        self.mutex.lock(&self.platform);
        // SAFETY: the mutex is held, so nobody changes the cache's regions but us.
        unsafe {
            let id = (*cache).id;
            (*cache).spill_locks();
            let guarded = self.guarded();
            (*cache).give_spares(0, &mut guarded.table);
            let mut span = self.first_span;
            while span < self.guarded().ready {
                let region = self.region(span);
                if self.guarded().spans.is_taken(span) && region.owner() == id {
                    if region.listed.load(Relaxed) != 0 {
                        (*cache).unlink(span);
                    }
                    self.disown(span);
                }
                span += 1;
            }
            self.caches[id as usize].store(null_mut(), Release);
            self.threads.fetch_sub(1, Relaxed);
            let guarded = self.guarded();
            (*cache).next.set(guarded.caches_free);
            guarded.caches_free = cache;
        }
        self.mutex.unlock(&self.platform);
    }

    /// Word of an entry whose block, of this generation, has ended.
    #[cfg(not(feature = "beside"))]
    pub fn ended_word(&self, generation: u64) -> Word {
        Word::free((generation + 1).min(0xffff), 0)
    }

    /// Live word of a handle's entry and the entry itself.
    ///
    /// # Errors
    /// [`Error::Handle`].
    pub fn resolve(&self, handle: crate::handle::RawHandle) -> Result<(&AtomicU64, Word), Error> {
        if handle.tag() != self.tag {
            return Err(Error::Handle);
        }
        let entry = self.entry(handle.index()).ok_or(Error::Handle)?;
        let word = Word(entry.load(Acquire));
        if !word.is_live() || word.generation() != handle.generation() {
            return Err(Error::Handle);
        }
        Ok((entry, word))
    }
}
