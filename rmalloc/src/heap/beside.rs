//! Feature `beside`, option 1 of the seed: the entry of a block is a word of 8 bytes in front of the place where it was
//! born, and stays there until the block ends, wherever it lies by then. This file owns which places have entries, the
//! generations of places whose memory went back, and slots of which only one half is in use.
//!
//! The number of an entry is the offset of the block's birthplace / 16, so an entry is found by arithmetic. A bit for
//! each number says whether an entry is there: a made-up number leads to none. A large block has its entry in the
//! descriptor of its first span.
//!
//! A slot has two halves, and is free if both are:
//!
//! | its word of the reverse map | entry | slot |
//! |---|---|---|
//! | own number | live | a block in its birthplace |
//! | another number | free | a block born elsewhere |
//! | [`ENTRY_ONLY`] | live | *stranded*: its block is elsewhere |
//! | another number | live | both: compaction may fill a stranded slot |
//! | on a free list, or [`crate::region::WORN`] | free | nothing |
//!
//! Who gives up the last half gives the slot back. [`ENTRY_ONLY`] is written, and judged with the entry, under the
//! heap's mutex; so of the two who give up a half, at least one sees that both are free, and only one takes the slot.

use super::Heap;
use crate::class::{Class, ENTRY_BYTES};
use crate::entry::Word;
use crate::platform::PAGE;
use crate::region::{ENTRY_ONLY, FREE, Region, owner};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU16, AtomicU64};

/// Numbers of entries have 31 bits, as words of the reverse map have one more to tell free slots: 32 GiB.
pub(super) const BYTES_MAX: usize = 1 << 35;
/// Below this many bytes a slot's pages hold entries of other slots, so that no page is free when its block leaves.
const LEAVE_FROM_BYTES: u32 = 1024;

/// Where entries are, and generations of those that were.
pub(super) struct EntryBooks {
    /// A bit for each number: a slot in use begins 8 bytes before that place.
    bits: *mut AtomicU64,
    /// For each page the highest generation that an entry in it had when the page was last in use.
    highest: *mut AtomicU16,
    /// Blocks born in smaller slots do not leave them by compaction. Bytes.
    leave_from_bytes: u32,
}

/// What becomes of a slot of which one half was given up.
#[derive(PartialEq, Eq)]
enum Half {
    /// The other half is in use.
    InUse,
    /// The slot is the caller's, and in no use.
    Free,
}

impl EntryBooks {
    /// Bytes of both for a heap of so many.
    pub const fn bytes(heap_bytes: usize) -> (usize, usize) {
        (heap_bytes / 128, heap_bytes / PAGE * 2)
    }

    /// Over memory of these sizes, which is zero where it is committed.
    pub fn new(bits: *mut u8, highest: *mut u8, leave_from_bytes: u32) -> EntryBooks {
        EntryBooks {
            bits: bits.cast(),
            highest: highest.cast(),
            leave_from_bytes: match leave_from_bytes {
                0 => LEAVE_FROM_BYTES,
                bytes => bytes,
            },
        }
    }
}

impl Heap {
    /// Commits the books of spans up to `wanted`; those below `ready` are committed, but for the first time.
    ///
    /// # Safety
    /// As [`Heap::guarded`].
    pub(super) unsafe fn commit_entry_books(&self, ready: usize, wanted: usize) -> bool {
        let from = if ready == self.first_span { 0 } else { ready };
        let (from, to) = (from << self.span_shift, wanted << self.span_shift);
        let commit = |books: *mut u8, each: usize| {
            let (begin, end) = (books as usize + from / each, books as usize + to / each);
            let page = begin / PAGE * PAGE;
            // SAFETY: the books lie in the heap's memory.
            unsafe {
                if !(self.platform.commit)(page as *mut u8, end.next_multiple_of(PAGE) - page) {
                    return false;
                }
                if self.given {
                    (begin as *mut u8).write_bytes(0, end - begin);
                }
            }
            true
        };
        commit(self.entry_books.bits.cast(), 128)
            && commit(self.entry_books.highest.cast(), PAGE / 2)
    }

    /// Word of bits that has the one of entry `index`, and the bit.
    #[inline(always)]
    fn entry_bit(&self, index: u32) -> (&AtomicU64, u64) {
        debug_assert!(index < self.entries.load(Relaxed));
        // SAFETY: callers name entries below the number that are committed.
        let word = unsafe { &*self.entry_books.bits.add(index as usize / 64) };
        (word, 1 << (index % 64))
    }

    /// Bits of entries, for a thread that knows how many are committed.
    pub fn entry_bits(&self) -> *const AtomicU64 {
        self.entry_books.bits
    }

    /// Word of an entry; `None` if there is no such entry.
    #[inline]
    pub fn entry(&self, index: u32) -> Option<&AtomicU64> {
        if index >= self.entries.load(Acquire) {
            return None;
        }
        let (word, bit) = self.entry_bit(index);
        if word.load(Acquire) & bit == 0 {
            return self.large_entry(index);
        }
        // SAFETY: a slot begins there.
        Some(unsafe { self.entry_at(index) })
    }

    /// # Safety
    /// A slot's entry is there.
    #[inline(always)]
    unsafe fn entry_at(&self, index: u32) -> &AtomicU64 {
        let offset = index as usize * 16 - ENTRY_BYTES as usize;
        // SAFETY: the caller's promise.
        unsafe { &*self.base.add(offset).cast() }
    }

    fn large_entry(&self, index: u32) -> Option<&AtomicU64> {
        let offset = (index as u64) << 4;
        let first = (offset >> self.span_shift) as usize;
        if first < self.first_span || (first as u64) << self.span_shift != offset {
            return None;
        }
        // SAFETY: spans of entries below the number that exist are ready.
        let region = unsafe { self.region(first) };
        // SAFETY: the field holds the entry of a large block, a word of as many bytes.
        (region.owner() == owner::LARGE).then(|| unsafe { entry_of_large(region) })
    }

    /// Highest generation that entries had in the page of entry `index`, when it was last in use.
    fn highest(&self, index: u32) -> &AtomicU16 {
        let page = (index as usize * 16 - ENTRY_BYTES as usize) / PAGE;
        // SAFETY: callers name entries below the number that are committed.
        unsafe { &*self.entry_books.highest.add(page) }
    }

    /// An entry ends whose word is this: remembers its generation.
    fn remember(&self, index: u32, word: Word) {
        // The word has the generation of the next block, and 0 after the last one.
        let last = (word.generation().wrapping_sub(1)) as u16;
        let highest = self.highest(index);
        highest.store(highest.load(Relaxed).max(last), Relaxed);
    }

    /// First generation of an entry that comes into use; `None`: its place has none left.
    unsafe fn first_generation(&self, index: u32) -> Option<u64> {
        let next = self.highest(index).load(Relaxed) as u64 + 1;
        // SAFETY: the caller holds the mutex.
        (next <= unsafe { self.guarded() }.table.generation_max.max(1)).then_some(next)
    }

    /// Word of an entry whose block, of this generation, has ended. Generation 0: there is none left.
    pub fn ended_word(&self, generation: u64) -> Word {
        // SAFETY: what a table's generations are never changes.
        let last = unsafe { &*self.guarded.get() }.table.generation_max.max(1);
        Word::free(
            if generation >= last {
                0
            } else {
                generation + 1
            },
            0,
        )
    }

    /// [`Region::carve`], with entries.
    ///
    /// # Safety
    /// As [`Heap::carve`].
    pub(super) unsafe fn carve_with_entries(&self, region: &Region, class: &Class) -> bool {
        let pages = region.pages.load(Relaxed);
        let count = (class.spans as usize * self.span_bytes() / PAGE).min(64);
        for page in (0..count).filter(|page| pages >> page & 1 == 0) {
            let slots = Region::slots_of(page, class);
            if slots.is_empty() {
                continue;
            }
            let number = |slot: u32| (region.offset(slot) / 16) as u32;
            // SAFETY: the slots exist and were on no list; the caller holds the mutex.
            unsafe {
                // All begin in one page.
                let Some(generation) = self.first_generation(number(slots.start)) else {
                    continue;
                };
                let mut next = region.free.load(Relaxed);
                for slot in slots.rev() {
                    region.word(slot).store(FREE | next, Relaxed);
                    next = slot + 1;
                    let index = number(slot);
                    self.entry_at(index)
                        .store(Word::free(generation, 0).0, Relaxed);
                    let (word, bit) = self.entry_bit(index);
                    word.store(word.load(Relaxed) | bit, Release);
                }
                region.free.store(next, Relaxed);
            }
            region.pages.store(pages | 1 << page, Relaxed);
            return true;
        }
        false
    }

    /// Entries of slots that begin in these pages of a region are there no more; their generations are remembered.
    ///
    /// # Safety
    /// The caller owns the region, and the slots are in no use.
    pub unsafe fn forget_entries(&self, region: &Region, class: &Class, pages: u64) {
        for page in (0..64).filter(|page| pages >> page & 1 != 0) {
            for slot in Region::slots_of(page, class) {
                let index = (region.offset(slot) / 16) as u32;
                let (word, bit) = self.entry_bit(index);
                word.store(word.load(Relaxed) & !bit, Release);
                // SAFETY: the entry was there until now, and its memory is.
                self.remember(index, Word(unsafe { self.entry_at(index) }.load(Acquire)));
            }
        }
    }

    /// Spans for a large block, and the number of its entry, which is ready.
    pub(super) unsafe fn take_spans_with_entry(
        &self,
        spans: usize,
        _index: u32,
    ) -> Option<(usize, u32)> {
        loop {
            // SAFETY: the caller holds the mutex.
            unsafe {
                let first = self.take_spans(spans)?;
                let index = ((first << self.span_shift) / 16) as u32;
                if let Some(generation) = self.first_generation(index) {
                    entry_of_large(self.region(first)).store(Word::free(generation, 0).0, Relaxed);
                    return Some((first, index));
                }
                // The first span stays as it is: nothing large can begin there any more.
                self.guarded().table.retired += 1;
                if spans > 1 {
                    self.give_spans(first + 1, spans - 1, 0);
                }
            }
        }
    }

    /// A large block ends. True: that was its entry alone, and its span is given back.
    pub(super) unsafe fn forget_large_entry(&self, first: usize) -> bool {
        // SAFETY: the caller holds the mutex; a large block begins at the span.
        unsafe {
            let region = self.region(first);
            let index = ((first << self.span_shift) / 16) as u32;
            self.remember(index, Word(entry_of_large(region).load(Acquire)));
            let alone = region.free.load(Relaxed) == ENTRY_ONLY;
            if alone {
                self.give_spans(first, 1, 0);
            }
            alone
        }
    }

    /// A block has left the place at `offset`. True: its entry is in no use either, so that the caller may give the slot back;
    /// that of a large block is given back.
    ///
    /// # Safety
    /// The block was there, and the place was the caller's.
    pub unsafe fn leave(&self, offset: u64) -> bool {
        self.mutex.lock(&self.platform);
        // SAFETY: the mutex is held; the region stays what it is, as the slot counts as used.
        let half = unsafe {
            let first = self.span_of(offset);
            let region = self.region(first);
            if region.owner() == owner::LARGE {
                self.leave_large(first);
                Half::InUse
            } else {
                self.leave_slot(region, region.slot(offset))
            }
        };
        self.mutex.unlock(&self.platform);
        half == Half::Free
    }

    /// As [`Heap::leave`], for the owner of the region, who holds the mutex: gives the slot back where it can.
    ///
    /// # Safety
    /// As [`Heap::leave`].
    pub unsafe fn leave_own(&self, region: &Region, slot: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.leave_slot(region, slot) == Half::Free {
                region.push(slot);
            }
        }
    }

    unsafe fn leave_slot(&self, region: &Region, slot: u32) -> Half {
        // SAFETY: the caller's promise, as of `leave`.
        unsafe { region.word(slot) }.store(ENTRY_ONLY, Relaxed);
        region
            .stranded
            .store(region.stranded.load(Relaxed) + 1, Relaxed);
        // SAFETY: the mutex is held.
        unsafe { self.settle_slot(region, slot) }
    }

    /// If nothing of the slot is in use but an entry that has no block any more, the slot is the caller's.
    unsafe fn settle_slot(&self, region: &Region, slot: u32) -> Half {
        let index = (region.offset(slot) / 16) as u32;
        // SAFETY: the slot exists, and so does its entry.
        unsafe {
            let word = region.word(slot);
            if word.load(Relaxed) != ENTRY_ONLY
                || Word(self.entry_at(index).load(Acquire)).is_live()
            {
                return Half::InUse;
            }
            // Nobody else takes it now.
            word.store(index, Relaxed);
        }
        region
            .stranded
            .store(region.stranded.load(Relaxed) - 1, Relaxed);
        Half::Free
    }

    unsafe fn leave_large(&self, first: usize) {
        // SAFETY: the mutex is held; the memory of the block is in no use.
        unsafe {
            let region = self.region(first);
            if !Word(entry_of_large(region).load(Acquire)).is_live() {
                self.end_large(first);
                return;
            }
            let bytes = region.pages.swap(0, Relaxed) * PAGE as u64;
            region.free.store(ENTRY_ONLY, Relaxed);
            let guarded = self.guarded();
            guarded.large_blocks -= 1;
            guarded.large_bytes -= bytes;
            self.sub_resident(bytes);
            let at = self.base.add(first << self.span_shift);
            (self.platform.release)(at, bytes as usize);
            let spans = (bytes as usize).div_ceil(self.span_bytes());
            if spans > 1 {
                self.give_spans(first + 1, spans - 1, 0);
            }
        }
    }

    /// Takes a slot of which only the entry is in use for the block of entry `index`.
    ///
    /// # Safety
    /// The region is the caller's, of this class.
    pub unsafe fn fill_stranded(&self, region: &Region, class: &Class, index: u32) -> Option<u32> {
        self.mutex.lock(&self.platform);
        let stranded = region.stranded.load(Relaxed);
        let is_alone = |slot: u32| {
            // SAFETY: the slot exists; words of slots in pages out of use are not looked at.
            self.is_in_use(region, class, slot)
                && unsafe { region.word(slot) }.load(Relaxed) == ENTRY_ONLY
        };
        let found = if stranded == 0 {
            None
        } else {
            (0..class.slots as u32).find(|slot| is_alone(*slot))
        };
        if let Some(slot) = found {
            // SAFETY: as above; under the mutex nobody else takes it.
            unsafe { region.word(slot) }.store(index, Relaxed);
            region.stranded.store(stranded - 1, Relaxed);
        }
        self.mutex.unlock(&self.platform);
        found
    }

    fn is_in_use(&self, region: &Region, class: &Class, slot: u32) -> bool {
        let page = class.offset_of(slot) as usize / PAGE;
        page < 64 && region.pages.load(Relaxed) >> page & 1 != 0
    }

    /// A block has ended whose entry is this: if that is all that was left of its birthplace, and a slot, where that is.
    /// The slot is the caller's then; the span of a large block is given back.
    pub fn settle(&self, index: u32) -> Option<u64> {
        let offset = (index as u64) << 4;
        self.mutex.lock(&self.platform);
        // Between the block's end and this call the place may have become anything: what is asked is true of any slot.
        // SAFETY: the mutex is held; slots of entries that exist are of regions.
        let half = unsafe {
            if self.entry(index).is_none() {
                Half::InUse
            } else {
                let first = self.span_of(offset);
                let region = self.region(first);
                if region.owner() == owner::LARGE {
                    let word = Word(entry_of_large(region).load(Acquire));
                    if region.free.load(Relaxed) == ENTRY_ONLY && !word.is_live() {
                        self.end_large(first);
                    }
                    Half::InUse
                } else {
                    self.settle_slot(region, region.slot(offset))
                }
            }
        };
        self.mutex.unlock(&self.platform);
        (half == Half::Free).then_some(offset)
    }

    /// May compaction move the block of entry `index` out of the slot? Where no page would be free then, it would be for
    /// nothing: the entry stays.
    pub fn may_leave(&self, region: &Region, slot: u32, index: u32) -> bool {
        region.slot_bytes() >= self.entry_books.leave_from_bytes as u64
            || region.offset(slot) != (index as u64) << 4
    }

    /// Do blocks of slots of so many bytes leave their birthplace?
    pub fn leaves(&self, slot_bytes: u32) -> bool {
        slot_bytes >= self.entry_books.leave_from_bytes
    }

    /// Calls `visit` with each entry that exists, live or not, until it answers false.
    pub fn each_entry(&self, mut visit: impl FnMut(u32, &AtomicU64) -> bool) {
        let count = self.entries.load(Acquire);
        let first = ((self.first_span << self.span_shift) / 16) as u32;
        for base in (first / 64 * 64..count).step_by(64) {
            let mut bits = self.entry_bit(base).0.load(Acquire);
            if (base as usize * 16).is_multiple_of(self.span_bytes()) {
                // A large block may begin there, whose bit is not set.
                bits |= 1;
            }
            while bits != 0 {
                let index = base + bits.trailing_zeros();
                bits &= bits - 1;
                if let Some(entry) = self.entry(index)
                    && !visit(index, entry)
                {
                    return;
                }
            }
        }
    }

    /// Sets which blocks leave their birthplace, for tests: by the bytes of their slots.
    #[cfg(any(test, feature = "check"))]
    pub fn set_leave_from(&mut self, bytes: u32) {
        self.entry_books.leave_from_bytes = bytes;
    }
}

/// The entry of a large block.
///
/// # Safety
/// The region is one, or is about to be.
unsafe fn entry_of_large(region: &Region) -> &AtomicU64 {
    const { assert!(size_of::<*mut u32>() == size_of::<u64>()) };
    // SAFETY: both are words of 8 bytes that are only used atomically.
    unsafe { &*(&raw const region.reverse).cast() }
}
