//! The invariants of a heap, in one place, numbered. Tests call this after every step.

use crate::class::ENTRY_BYTES;
use crate::entry::Word;
use crate::heap::Heap;
use crate::platform::PAGE;
use crate::region::{ENTRY_ONLY, FREE, Region, WORN, owner};
use core::sync::atomic::Ordering::Relaxed;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Number of the invariant.
    pub invariant: u32,
    /// What it says.
    pub text: &'static str,
    /// The span or entry it was found at.
    pub at: u64,
    /// What was found there, and what it should be.
    pub found: u64,
    /// What was expected.
    pub expected: u64,
}

fn is(
    invariant: u32,
    text: &'static str,
    at: u64,
    found: u64,
    expected: u64,
) -> Result<(), Violation> {
    if found == expected {
        Ok(())
    } else {
        Err(Violation {
            invariant,
            text,
            at,
            found,
            expected,
        })
    }
}

/// Checks all of them. Cost: every slot and entry.
///
/// # Safety
/// No other thread is in a call.
pub(crate) unsafe fn check(heap: &Heap) -> Result<(), Violation> {
    heap.mutex.lock(&heap.platform);
    // SAFETY: the mutex is held, and nobody else is in a call.
    let found = unsafe { all(heap) };
    heap.mutex.unlock(&heap.platform);
    found
}

unsafe fn all(heap: &Heap) -> Result<(), Violation> {
    let mut blocks = 0u64;
    let mut large = (0u64, 0u64);
    let mut resident = 0u64;
    let mut dirty = 0u64;
    let mut thin = 0i64;
    // SAFETY: the caller's promise.
    unsafe {
        let guarded = heap.guarded();
        let mut span = heap.first_span();
        while span < guarded.ready {
            let region = heap.region(span);
            let at = span as u64;
            if !guarded.spans.is_taken(span) {
                if region.dirty.load(Relaxed) != 0 {
                    dirty += region.reported.load(Relaxed) as u64 * 64;
                }
                span += 1;
                continue;
            }
            match region.owner() {
                owner::META => span += 1,
                owner::INTERIOR => {
                    return is(1, "an interior span follows its region's first", at, 1, 0);
                }
                owner::LARGE => {
                    let pages = region.pages.load(Relaxed);
                    let index = region.free.load(Relaxed);
                    if ENTRY_BYTES != 0 && index == ENTRY_ONLY {
                        let index = ((span << heap.span_shift) / 16) as u32;
                        let word = heap.entry(index).map_or(0, |entry| entry.load(Relaxed));
                        let live = Word(word).is_live() as u64;
                        is(19, "an entry that is alone has a block", at, live, 1)?;
                        span += 1;
                        continue;
                    }
                    let word = Word(heap.entry(index).map_or(0, |entry| entry.load(Relaxed)));
                    is(
                        2,
                        "the entry of a large block leads to it",
                        at,
                        word.offset() * word.is_live() as u64,
                        (span << heap.span_shift) as u64,
                    )?;
                    large = (large.0 + 1, large.1 + pages * PAGE as u64);
                    resident += pages * PAGE as u64;
                    blocks += 1;
                    span += (pages as usize * PAGE).div_ceil(heap.span_bytes());
                }
                who => {
                    let class = heap.class(region);
                    is(
                        3,
                        "a region has the slot size of its class",
                        at,
                        region.slot_bytes(),
                        class.size as u64,
                    )?;
                    blocks += check_region(heap, region, at)?;
                    resident += region.resident_bytes(class);
                    thin += region.reported.load(Relaxed) as i64 * 64;
                    let listed = region.listed.load(Relaxed) != 0;
                    let room = region.used.load(Relaxed) < class.slots as u32;
                    if who == owner::NONE {
                        is(
                            4,
                            "a region that is nobody's is listed if it has room",
                            at,
                            listed as u64,
                            room as u64,
                        )?;
                    }
                    span += class.spans as usize;
                }
            }
        }
        is(
            5,
            "large blocks are counted",
            0,
            guarded.large_blocks,
            large.0,
        )?;
        is(
            6,
            "bytes of large blocks are counted",
            0,
            guarded.large_bytes,
            large.1,
        )?;
        is(
            7,
            "free resident spans are counted",
            0,
            heap.dirty_bytes.load(Relaxed),
            dirty,
        )?;
        is(
            8,
            "resident bytes are counted",
            0,
            heap.resident_bytes.load(Relaxed),
            resident + dirty,
        )?;
        is(
            9,
            "free bytes told by regions are counted",
            0,
            heap.thin_bytes.load(Relaxed) as u64,
            thin as u64,
        )?;
        let mut live = 0u64;
        let mut discarded = 0u64;
        let mut wrong = Ok(());
        heap.each_entry(|index, entry| {
            let word = Word(entry.load(Relaxed));
            if word.is_live() {
                if word.is_discarded() {
                    discarded += 1;
                } else {
                    live += 1;
                }
                wrong = check_entry(heap, index, word);
            }
            wrong.is_ok()
        });
        wrong?;
        is(
            12,
            "as many slots hold blocks as entries lead to them",
            0,
            blocks,
            live,
        )?;
        #[cfg(not(feature = "beside"))]
        let kept: u64 = heap
            .caches
            .iter()
            .filter_map(|cache| cache.load(Relaxed).as_ref())
            .map(|cache| cache.spare_count() as u64)
            .sum();
        #[cfg(feature = "beside")]
        let _ = discarded;
        // Without a table entries come and go with slots.
        #[cfg(not(feature = "beside"))]
        is(
            13,
            "entries that are taken are of blocks or kept by threads",
            0,
            guarded.table.taken,
            live + discarded + kept,
        )?;
    }
    Ok(())
}

/// A live entry.
unsafe fn check_entry(heap: &Heap, index: u32, word: Word) -> Result<(), Violation> {
    is(
        10,
        "nobody moves a block outside of calls",
        index as u64,
        word.is_moving() as u64,
        0,
    )?;
    // SAFETY: the caller's promise, as of `check`.
    unsafe {
        #[cfg(feature = "beside")]
        {
            let home = (index as u64) << 4;
            let named = named(heap, home);
            is(
                17,
                "the birthplace of a block is not free",
                index as u64,
                (named & FREE) as u64,
                0,
            )?;
            is(
                18,
                "a birthplace names a block that lies there, or says that none does",
                index as u64,
                (named == index) as u64,
                (word.offset() == home) as u64,
            )?;
        }
        if word.is_discarded() {
            return Ok(());
        }
        is(
            11,
            "the slot of a block names its entry",
            index as u64,
            named(heap, word.offset()) as u64,
            index as u64,
        )
    }
}

/// The entry that the place of a block names.
unsafe fn named(heap: &Heap, offset: u64) -> u32 {
    // SAFETY: the caller's promise, as of `check`.
    unsafe {
        let region = heap.region(heap.span_of(offset));
        if region.owner() == owner::LARGE {
            region.free.load(Relaxed)
        } else {
            region.word(region.slot(offset)).load(Relaxed)
        }
    }
}

/// Blocks in a region.
unsafe fn check_region(heap: &Heap, region: &Region, at: u64) -> Result<u64, Violation> {
    let class = heap.class(region);
    let mut used = 0u64;
    let mut stranded = 0u64;
    let mut worn = 0u64;
    let mut capacity = 0u64;
    // SAFETY: the caller's promise; slots exist.
    unsafe {
        let pages = region.pages.load(Relaxed);
        for page in 0..64 {
            if pages >> page & 1 == 0 {
                continue;
            }
            for slot in Region::slots_of(page, class) {
                capacity += 1;
                let word = region.word(slot).load(Relaxed);
                worn += (ENTRY_BYTES != 0 && word == WORN) as u64;
                if ENTRY_BYTES != 0 && word == ENTRY_ONLY {
                    stranded += 1;
                    let index = (region.offset(slot) / 16) as u32;
                    let word = heap.entry(index).map_or(0, |entry| entry.load(Relaxed));
                    let live = Word(word).is_live() as u64;
                    is(19, "an entry that is alone has a block", at, live, 1)?;
                } else if word & FREE == 0 {
                    used += 1;
                    let entry = Word(heap.entry(word).map_or(0, |entry| entry.load(Relaxed)));
                    is(
                        14,
                        "a slot with a block is where its entry leads",
                        at,
                        entry.offset() * entry.is_live() as u64,
                        region.offset(slot),
                    )?;
                }
            }
        }
        let remote = region.remote_count() as u64;
        is(
            15,
            "slots with blocks, and those given back by others, are counted",
            at,
            region.used.load(Relaxed) as u64,
            used + stranded + remote,
        )?;
        is(
            20,
            "slots that are stranded are counted",
            at,
            region.stranded.load(Relaxed) as u64,
            stranded,
        )?;
        let mut free = 0u64;
        let mut next = region.free.load(Relaxed);
        while next != 0 && free <= capacity {
            free += 1;
            next = region.word(next - 1).load(Relaxed) & !FREE;
        }
        is(
            16,
            "every other slot of pages in use is on the free list",
            at,
            free,
            capacity - used - stranded - worn - remote,
        )?;
    }
    Ok(used)
}
