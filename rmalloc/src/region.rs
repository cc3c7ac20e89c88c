//! A region: a run of spans that holds blocks of one size class, or one large block, or something else that is
//! told here. This file owns the descriptor, the free list of its slots and which of its pages are in use; which
//! region serves whom is [`crate::heap`]'s and [`crate::cache`]'s business.
//!
//! The reverse map has a word for each slot: the entry of the block that lies there, or, with [`FREE`] set, the
//! next slot of a list. So free blocks are never written to, and a block's neighbours tell nothing.

use crate::class::{Class, ENTRY_BYTES, SLOT_SHIFT};
use crate::platform::PAGE;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// The slot is free; below, the next free slot and 1, or 0.
pub(crate) const FREE: u32 = 1 << 31;
/// With [`FREE`]: given back by another thread, and not collected yet.
pub(crate) const REMOTE: u32 = 1 << 30;
/// Where the next slot is.
const NEXT: u32 = REMOTE - 1;
/// Feature `beside`: the slot holds no block, but its entry is that of a block elsewhere. No entry has this number.
pub(crate) const ENTRY_ONLY: u32 = FREE - 1;
/// Feature `beside`: the slot is free and on no list, as its entry has no generation left.
pub(crate) const WORN: u32 = FREE | NEXT;

/// Who may change a region: number of a thread's cache, or one of these.
pub(crate) mod owner {
    /// Caches have numbers below this.
    pub const CACHES: u8 = 250;
    /// Not the first span of a region: `next` has the first.
    pub const INTERIOR: u8 = 251;
    /// Tables of the heap itself.
    pub const META: u8 = 252;
    /// One large block; the heap's mutex guards it.
    pub const LARGE: u8 = 253;
    /// Being compacted.
    pub const COMPACTOR: u8 = 254;
    /// Nobody's; the heap's mutex guards it.
    pub const NONE: u8 = 255;
}

/// Descriptor of a span, 64 bytes; a region is described by that of its first span. Words are atomic because
/// others look at them; only the owner changes what is not marked otherwise.
#[repr(C, align(64))]
pub(crate) struct Region {
    /// Offset of the first slot's block in the heap, or of the large block.
    pub base: AtomicU64,
    /// Word of the first slot. Of a large block, with the feature `beside`: its entry.
    pub reverse: AtomicPtr<AtomicU32>,
    /// slot = (offset - base) * magic >> 35: [`Class::magic`].
    pub magic: AtomicU32,
    /// First free slot and 1, or 0. Of a large block: its entry.
    pub free: AtomicU32,
    /// Slots that hold blocks, with those freed by other threads and not collected yet.
    pub used: AtomicU32,
    /// A free that leaves this many tells [`crate::cache`].
    pub trigger: AtomicU32,
    /// Slot size / 16.
    pub granules: AtomicU16,
    /// See [`owner`].
    pub owner: AtomicU8,
    /// Number of the size class.
    pub class: AtomicU8,
    /// On a list of regions with free slots.
    pub listed: AtomicU8,
    /// Of a free span: it is resident, with as many bytes as `reported` says.
    pub dirty: AtomicU8,
    /// Slots of which only the entry is in use ([`ENTRY_ONLY`]); the heap's mutex guards it. Feature `beside`, else 0.
    pub stranded: AtomicU16,
    /// Slots that other threads gave back: how many (upper half), the first and 1, or 0 (lower half). Anybody pushes.
    pub remote: AtomicU32,
    /// Neighbours in a list: number of the region and 1, or 0.
    pub next: AtomicU32,
    pub previous: AtomicU32,
    /// Free bytes in pages in use, in units of 64, as last told to the heap.
    pub reported: AtomicU32,
    /// Pages whose slots are on the list or hold blocks, a bit each; of a large block its bytes in pages.
    pub pages: AtomicU64,
}

const _: () = assert!(size_of::<Region>() == 64);

/// Asks the processor to fetch a line that will be needed.
#[inline(always)]
fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: nothing is accessed.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

impl Region {
    #[inline(always)]
    pub fn owner(&self) -> u8 {
        self.owner.load(Acquire)
    }

    /// Bytes of a slot, its entry included.
    #[inline(always)]
    pub fn slot_bytes(&self) -> u64 {
        (self.granules.load(Relaxed) as u64) << 4
    }

    /// Word of a slot.
    ///
    /// # Safety
    /// The region holds slots, and more than `slot`.
    #[inline(always)]
    pub unsafe fn word(&self, slot: u32) -> &AtomicU32 {
        // SAFETY: the reverse map has a word for each slot.
        unsafe { &*self.reverse.load(Relaxed).add(slot as usize) }
    }

    /// Slot of the block at `offset`, which lies in this region.
    #[inline(always)]
    pub fn slot(&self, offset: u64) -> u32 {
        (((offset - self.base.load(Relaxed)) * self.magic.load(Relaxed) as u64) >> SLOT_SHIFT)
            as u32
    }

    /// Where a slot is.
    #[inline(always)]
    pub fn offset(&self, slot: u32) -> u64 {
        self.base.load(Relaxed) + slot as u64 * self.slot_bytes()
    }

    /// Takes the first free slot for the block of entry `index`; `None`: the list is empty.
    ///
    /// # Safety
    /// The caller owns the region.
    #[inline(always)]
    pub unsafe fn pop(&self, index: u32) -> Option<u32> {
        let first = self.free.load(Relaxed);
        if first == 0 {
            return None;
        }
        let slot = first - 1;
        // SAFETY: slots on the list exist.
        let word = unsafe { self.word(slot) };
        let next = word.load(Relaxed) & NEXT;
        self.free.store(next, Relaxed);
        // The next call reads it: asked for now, it is there by then.
        prefetch(
            self.reverse
                .load(Relaxed)
                .wrapping_add(next as usize)
                .wrapping_sub(1),
        );
        self.used.store(self.used.load(Relaxed) + 1, Relaxed);
        word.store(index, Relaxed);
        Some(slot)
    }

    /// Takes the first slot off the list without giving it to a block.
    ///
    /// # Safety
    /// The caller owns the region, and the list has a slot.
    #[cfg(feature = "beside")]
    pub unsafe fn drop_first(&self) {
        // SAFETY: slots on the list exist.
        let word = unsafe { self.word(self.free.load(Relaxed) - 1) };
        self.free.store(word.load(Relaxed) & NEXT, Relaxed);
        word.store(WORN, Relaxed);
    }

    /// Gives a slot back; answers how many are used then.
    ///
    /// # Safety
    /// The caller owns the region and the slot, which holds no block any more.
    #[inline(always)]
    pub unsafe fn push(&self, slot: u32) -> u32 {
        // SAFETY: the slot exists.
        unsafe { self.word(slot) }.store(FREE | self.free.load(Relaxed), Relaxed);
        self.free.store(slot + 1, Relaxed);
        let used = self.used.load(Relaxed) - 1;
        self.used.store(used, Relaxed);
        used
    }

    /// Gives back a slot of a region that is somebody else's. True: there was none so far.
    ///
    /// # Safety
    /// The caller owns the slot, which holds no block any more.
    pub unsafe fn push_remote(&self, slot: u32) -> bool {
        // SAFETY: the slot exists.
        let word = unsafe { self.word(slot) };
        let mut head = self.remote.load(Relaxed);
        loop {
            word.store(FREE | REMOTE | (head & 0xffff), Relaxed);
            let next = ((head & !0xffff) + (1 << 16)) | (slot + 1);
            match self
                .remote
                .compare_exchange_weak(head, next, SeqCst, Relaxed)
            {
                Ok(_) => return head == 0,
                Err(now) => head = now,
            }
        }
    }

    /// Holds the slot a block, or something that was not collected?
    ///
    /// # Safety
    /// As [`Region::word`].
    pub unsafe fn is_used(&self, slot: u32) -> bool {
        // SAFETY: the slot exists.
        unsafe { self.word(slot) }.load(Acquire) & (FREE | REMOTE) != FREE
    }

    /// Slots that others gave back and nobody collected.
    pub fn remote_count(&self) -> u32 {
        self.remote.load(Relaxed) >> 16
    }

    /// Slots that hold blocks. Exact while nobody is in a call.
    pub fn held(&self) -> u32 {
        let held = self.used.load(Relaxed).saturating_sub(self.remote_count());
        if ENTRY_BYTES == 0 {
            held
        } else {
            held.saturating_sub(self.stranded.load(Relaxed) as u32)
        }
    }

    /// Moves what others gave back to the free list; answers how many slots.
    ///
    /// # Safety
    /// The caller owns the region.
    pub unsafe fn collect(&self) -> u32 {
        if self.remote.load(Relaxed) == 0 {
            return 0;
        }
        let mut at = self.remote.swap(0, Acquire) & 0xffff;
        let mut count = 0;
        while at != 0 {
            let slot = at - 1;
            // SAFETY: slots on a list exist; they are the caller's now.
            unsafe {
                at = self.word(slot).load(Relaxed) & NEXT;
                self.push(slot);
            }
            count += 1;
        }
        count
    }

    /// Slots that begin in a page of the region, as a range; pages count from the region's first span.
    pub fn slots_of(page: usize, class: &Class) -> core::ops::Range<u32> {
        let begin = |page: usize| {
            (page * PAGE)
                .saturating_sub(class.first_slot as usize)
                .div_ceil(class.size as usize)
                .min(class.slots as usize)
        };
        begin(page) as u32..begin(page + 1) as u32
    }

    /// Puts the slots of one more page on the list, the lowest that is not in use. False: all are.
    ///
    /// # Safety
    /// The caller owns the region, whose class it names.
    #[cfg(not(feature = "beside"))]
    pub unsafe fn carve(&self, class: &Class, span_bytes: usize) -> bool {
        let pages = self.pages.load(Relaxed);
        let count = (class.spans as usize * span_bytes / PAGE).min(64);
        for page in 0..count {
            if pages >> page & 1 != 0 {
                continue;
            }
            let slots = Self::slots_of(page, class);
            if slots.is_empty() {
                continue;
            }
            let mut next = self.free.load(Relaxed);
            for slot in slots.rev() {
                // SAFETY: the slot exists and was on no list.
                unsafe { self.word(slot) }.store(FREE | next, Relaxed);
                next = slot + 1;
            }
            self.free.store(next, Relaxed);
            self.pages.store(pages | 1 << page, Relaxed);
            return true;
        }
        false
    }

    /// Bytes that the pages in use take, with those of the reverse map: what is resident at most, apart from
    /// pages that blocks freed since have touched.
    pub fn resident_bytes(&self, class: &Class) -> u64 {
        let pages = self.pages.load(Relaxed);
        if class.size as usize >= PAGE {
            return pages.count_ones() as u64 * class.size as u64;
        }
        let mut bytes = pages.count_ones() as u64 * PAGE as u64;
        if class.reverse_inside && pages != 0 {
            // Pages of the reverse map that no slot begins in.
            let highest = 63 - pages.leading_zeros() as usize;
            let slots = Self::slots_of(highest, class).end as usize;
            let own = class.first_slot as usize / PAGE;
            bytes += (slots * 4).div_ceil(PAGE).min(own) as u64 * PAGE as u64;
        }
        bytes
    }
}
