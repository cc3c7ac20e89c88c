//! Moving blocks: a batch at a time, without holding any lock, around whoever locks or frees them meanwhile.
//!
//! A block is moved in four steps: (1) its word gets the mark [`MOVING`], by compare-and-swap, so that it has no
//! counted locks; (2) every thread passes a barrier, one for the whole batch; (3) if its owner's records show a lock, the
//! mark is taken away again; else it is copied; (4) compare-and-swap from the marked
//! word to the new place. Who wants the block between (1) and (4) takes the mark away, and (4) fails.

use crate::cache::Cache;
use crate::class::{Class, ENTRY_BYTES, SIZE_MAX, SLOT_MORE};
use crate::compact::{Compaction, Compactor, Deadline};
use crate::entry::{MOVING, Word};
use crate::handle::RawHandle;
use crate::heap::Heap;
use crate::platform::PAGE;
use crate::region::{ENTRY_ONLY, FREE, Region, WORN, owner};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Blocks of a batch, and the bytes after which no more is added.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = (SIZE_MAX + SLOT_MORE) as u64;
/// What copying is reckoned with, bytes a nanosecond: what it does at least where memory is not in the processor's caches.
const BYTES_PER_NS: u64 = 4;

#[derive(Clone, Copy)]
struct Move {
    index: u32,
    from: u32,
    to: u32,
    word: Word,
}

/// Empties `source` into `target`, as far as a batch goes, from the compactor's slot on; true: the source is through.
///
/// # Safety
/// Both regions are the compactor's, of one class, and `compacting` is held.
pub(crate) unsafe fn batch(
    cache: &Cache,
    compactor: &mut Compactor,
    source: &Region,
    target: &Region,
    deadline: &Deadline,
) -> bool {
    let heap = cache.heap();
    let class = heap.class(source);
    let mut moves = [Move {
        index: 0,
        from: 0,
        to: 0,
        word: Word(0),
    }; BATCH];
    let mut count = 0;
    let bytes_max = BATCH_BYTES.min(deadline.left_ns().saturating_mul(BYTES_PER_NS));
    let mut through = true;
    // SAFETY: both regions are ours, slots below `slots` exist.
    unsafe {
        let end = source_end(source, class);
        while compactor.slot < end {
            if count == BATCH || (count as u64 + 1) * class.size as u64 > bytes_max {
                through = false;
                break;
            }
            let from = compactor.slot;
            if let Some((index, word)) = mark(heap, compactor, source, from) {
                let to = target.pop(index);
                #[cfg(feature = "beside")]
                let to = to.or_else(|| heap.fill_stranded(target, class, index));
                let Some(to) = to else {
                    unmark(heap, index, word);
                    through = false;
                    break;
                };
                moves[count] = Move {
                    index,
                    from,
                    to,
                    word,
                };
                count += 1;
            }
            compactor.slot += 1;
        }
        let moved = finish(cache, compactor, &moves[..count], source, target);
        left(heap, source, target, &moves[..count], moved);
    }
    through
}

/// Gives back the places that blocks have left, or did not get.
unsafe fn left(heap: &Heap, source: &Region, target: &Region, moves: &[Move], moved: u64) {
    #[cfg(feature = "beside")]
    heap.mutex.lock(&heap.platform);
    for (at, one) in moves.iter().enumerate() {
        let (region, slot) = if moved >> at & 1 != 0 {
            (source, one.from)
        } else {
            (target, one.to)
        };
        // SAFETY: both regions are the compactor's, and no block lies in the slot.
        unsafe {
            #[cfg(not(feature = "beside"))]
            region.push(slot);
            #[cfg(feature = "beside")]
            heap.leave_own(region, slot);
        }
    }
    #[cfg(feature = "beside")]
    heap.mutex.unlock(&heap.platform);
    #[cfg(not(feature = "beside"))]
    let _ = heap;
}

/// First slot from which on none was ever used since its pages are.
fn source_end(region: &Region, class: &Class) -> u32 {
    let pages = region.pages.load(Relaxed);
    if pages == 0 {
        0
    } else {
        Region::slots_of(63 - pages.leading_zeros() as usize, class).end
    }
}

/// Marks the block in a slot as moving, if there is one that may move.
unsafe fn mark(
    heap: &Heap,
    compactor: &mut Compactor,
    region: &Region,
    slot: u32,
) -> Option<(u32, Word)> {
    // SAFETY: the slot exists.
    let index = unsafe { region.word(slot) }.load(Acquire);
    if index & FREE != 0 {
        return None;
    }
    let entry = heap.entry(index)?;
    let word = Word(entry.load(Acquire));
    if !word.is_live() || word.offset() != region.offset(slot) {
        // Freed or allocated just now.
        return None;
    }
    #[cfg(feature = "beside")]
    if !heap.may_leave(region, slot, index) {
        return None;
    }
    if word.shared() != 0
        || word.is_moving()
        || entry
            .compare_exchange(word.0, word.0 | MOVING, AcqRel, Relaxed)
            .is_err()
    {
        compactor.sum.blocks_pinned += 1;
        return None;
    }
    Some((index, word))
}

/// Takes the mark away, if it is still there.
fn unmark(heap: &Heap, index: u32, word: Word) {
    if let Some(entry) = heap.entry(index) {
        let _ = entry.compare_exchange(word.0 | MOVING, word.0, AcqRel, Relaxed);
    }
}

/// Steps 2 to 4 for marked blocks; a bit for each that moved.
unsafe fn finish(
    cache: &Cache,
    compactor: &mut Compactor,
    moves: &[Move],
    source: &Region,
    target: &Region,
) -> u64 {
    if moves.is_empty() {
        return 0;
    }
    let heap = cache.heap();
    if heap.threads.load(Relaxed) > 1 {
        (heap.platform.barrier)();
    }
    let bytes = (source.slot_bytes() - ENTRY_BYTES as u64) as usize;
    let mut moved = 0u64;
    for (at, one) in moves.iter().enumerate() {
        let handle = RawHandle::new(heap.tag, one.index, one.word.generation());
        let who = one.word.owner();
        if heap.is_recorded_by(who, handle.bits()) {
            unmark(heap, one.index, one.word);
            compactor.sum.blocks_pinned += 1;
            continue;
        }
        let (from, to) = (source.offset(one.from), target.offset(one.to));
        #[cfg(feature = "checked")]
        let found;
        // SAFETY: both slots are ours, apart or the same region's; the memory of a region stays mapped. If somebody
        // locks and writes the block now, what we copy is of no use, and the exchange below fails.
        unsafe {
            #[cfg(feature = "checked")]
            heap.check_free(to, crate::guarded::Call::Compact);
            core::ptr::copy_nonoverlapping(
                heap.base.add(from as usize),
                heap.base.add(to as usize),
                bytes,
            );
            #[cfg(feature = "checked")]
            {
                found = heap.copied(to);
            }
            target.word(one.to).store(one.index, Release);
        }
        let Some(entry) = heap.entry(one.index) else {
            continue;
        };
        let marked = Word(one.word.0 | MOVING);
        if entry
            .compare_exchange(marked.0, marked.moved_to(to).0, AcqRel, Relaxed)
            .is_ok()
        {
            moved |= 1 << at;
            #[cfg(feature = "checked")]
            {
                if let Some(found) = &found {
                    heap.moved_damaged(bytes, handle, found);
                }
                // SAFETY: nothing lies there any more.
                unsafe { heap.poison(from, handle) };
            }
            compactor.sum.blocks_moved += 1;
            compactor.sum.bytes_moved += bytes as u64;
            if let Some((callback, argument)) = heap.moved.get() {
                // SAFETY: who set the callback keeps it callable.
                unsafe {
                    callback(
                        argument,
                        handle.bits(),
                        heap.base.add(from as usize),
                        heap.base.add(to as usize),
                    )
                };
            }
        } else {
            #[cfg(feature = "checked")]
            // SAFETY: the copy is nobody's.
            unsafe {
                heap.poison(to, handle)
            };
            compactor.sum.blocks_abandoned += 1;
        }
    }
    moved
}

/// Moves blocks of a region to its front, from the compactor's slot downwards; true: done.
///
/// # Safety
/// The region is the compactor's, and `compacting` is held.
pub(crate) unsafe fn squeeze(
    cache: &Cache,
    compactor: &mut Compactor,
    region: &Region,
    deadline: &Deadline,
) -> bool {
    let heap = cache.heap();
    let class = heap.class(region);
    let mut moves = [Move {
        index: 0,
        from: 0,
        to: 0,
        word: Word(0),
    }; BATCH];
    let mut count = 0;
    let bytes_max = BATCH_BYTES.min(deadline.left_ns().saturating_mul(BYTES_PER_NS));
    let mut through = true;
    // SAFETY: the region is ours; slots below `slots` exist.
    unsafe {
        region.collect();
        relist(region, class);
        compactor.slot = compactor.slot.min(source_end(region, class));
        while compactor.slot > 0 {
            if count == BATCH || (count as u64 + 1) * class.size as u64 > bytes_max {
                through = false;
                break;
            }
            let free = region.free.load(Relaxed);
            let from = compactor.slot - 1;
            if free == 0 || free > from {
                break;
            }
            compactor.slot -= 1;
            if let Some((index, word)) = mark(heap, compactor, region, from) {
                let to = region.pop(index).unwrap_or(from);
                moves[count] = Move {
                    index,
                    from,
                    to,
                    word,
                };
                count += 1;
            }
        }
        let moved = finish(cache, compactor, &moves[..count], region, region);
        left(heap, region, region, &moves[..count], moved);
    }
    through
}

/// Puts the free slots of pages in use on the list in the order of their addresses.
unsafe fn relist(region: &Region, class: &Class) {
    let mut next = 0;
    let mut pages = region.pages.load(Relaxed);
    // SAFETY: the region is the caller's; slots exist.
    unsafe {
        while pages != 0 {
            let page = 63 - pages.leading_zeros() as usize;
            pages &= !(1 << page);
            for slot in Region::slots_of(page, class).rev() {
                let word = region.word(slot);
                let worn = ENTRY_BYTES != 0 && word.load(Relaxed) == WORN;
                if !region.is_used(slot) && !worn {
                    word.store(FREE | next, Relaxed);
                    next = slot + 1;
                }
            }
        }
    }
    region.free.store(next, Relaxed);
}

/// Gives back the pages of a region in which no block lies; answers how many bytes.
///
/// # Safety
/// The region is the compactor's.
pub(crate) unsafe fn trim(heap: &Heap, region: &Region) -> u64 {
    let class = heap.class(region);
    let before = region.resident_bytes(class);
    let pages = region.pages.load(Relaxed);
    let begin = region.base.load(Relaxed) - (class.first_slot + ENTRY_BYTES) as u64;
    let reverse_pages = if class.reverse_inside {
        (class.slots as usize * 4).div_ceil(PAGE)
    } else {
        0
    };
    // SAFETY: the region is ours; slots exist; pages without blocks hold nothing of anybody.
    unsafe {
        region.collect();
        let mut live = if reverse_pages >= 64 {
            !0
        } else {
            (1u64 << reverse_pages) - 1
        };
        let mut in_use = pages;
        while in_use != 0 {
            let page = in_use.trailing_zeros() as usize;
            in_use &= in_use - 1;
            for slot in Region::slots_of(page, class) {
                #[cfg(feature = "checked")]
                if !region.is_used(slot) {
                    heap.check_free(region.offset(slot), crate::guarded::Call::Compact);
                }
                if region.is_used(slot) {
                    let first = (class.offset_of(slot) as usize) / PAGE;
                    let stranded =
                        ENTRY_BYTES != 0 && region.word(slot).load(Relaxed) == ENTRY_ONLY;
                    let bytes = if stranded { ENTRY_BYTES } else { class.size };
                    let last = (class.offset_of(slot) as usize + bytes as usize - 1) / PAGE;
                    for page in first..=last.min(63) {
                        live |= 1 << page;
                    }
                }
            }
        }
        // A page goes out of use if no block lies in it; slots that begin in it are no longer listed. Slots of 4 KiB
        // and more go one by one: theirs is the page that they begin in.
        let mut gone = 0u64;
        for page in 0..64 {
            if pages >> page & 1 == 0 || page < reverse_pages {
                continue;
            }
            let slots = Region::slots_of(page, class);
            let held = slots.clone().any(|slot| region.is_used(slot));
            if !held && (class.size as usize >= PAGE || live >> page & 1 == 0) {
                gone |= 1 << page;
            }
        }
        // What lay behind entries that are alone goes back too.
        let behind = class.size as usize > PAGE && region.stranded.load(Relaxed) != 0;
        if gone == 0 && !behind {
            relist(region, class);
            return 0;
        }
        #[cfg(feature = "beside")]
        heap.forget_entries(region, class, gone);
        region.pages.store(pages & !gone, Relaxed);
        relist(region, class);
        // Runs of pages that no block touches.
        let spans = class.spans as usize * heap.span_bytes() / PAGE;
        let mut page = 0;
        while page < spans.min(64) {
            let touched = |page: usize| live >> page & 1 != 0;
            if touched(page) {
                page += 1;
                continue;
            }
            let first = page;
            let mut any = false;
            while page < spans.min(64) && !touched(page) {
                // What was in use, and what such slots reach into.
                any |= behind || pages >> page & 1 != 0;
                page += 1;
            }
            if any {
                (heap.platform.release)(
                    heap.base.add(begin as usize + first * PAGE),
                    (page - first) * PAGE,
                );
            }
        }
    }
    let after = region.resident_bytes(class);
    heap.mutex.lock(&heap.platform);
    heap.sub_resident(before - after);
    heap.mutex.unlock(&heap.platform);
    before - after
}

/// Moves a large block to the lowest place that has room for it, if that lies before it and the copy fits in what is left
/// of the time. True: it moved.
///
/// # Safety
/// `compacting` is held.
pub(crate) unsafe fn slide_large(
    cache: &Cache,
    compactor: &mut Compactor,
    span: usize,
    deadline: &Deadline,
) -> bool {
    let heap = cache.heap();
    // SAFETY: the block's word says where it is; its new place is ours until the exchange.
    unsafe {
        heap.mutex.lock(&heap.platform);
        let region = heap.region(span);
        let bytes = region.pages.load(Relaxed) as usize * PAGE;
        let index = region.free.load(Relaxed);
        let spans = bytes.div_ceil(heap.span_bytes());
        let is_there = region.owner() == owner::LARGE && heap.guarded().spans.is_taken(span);
        let fits = bytes as u64 <= deadline.left_ns().saturating_mul(BYTES_PER_NS);
        let room = is_there && fits && heap.guarded().spans.find(spans, span).is_some();
        let word = match heap.entry(index) {
            Some(entry) if room => Word(entry.load(Acquire)),
            _ => Word(0),
        };
        let from = (span << heap.span_shift) as u64;
        let still = word.is_live()
            && word.offset() == from
            && word.shared() == 0
            && !word.is_moving()
            && heap.entry(index).is_some_and(|entry| {
                entry
                    .compare_exchange(word.0, word.0 | MOVING, AcqRel, Relaxed)
                    .is_ok()
            });
        let place = if still {
            heap.take_large(bytes, index)
        } else {
            None
        };
        heap.mutex.unlock(&heap.platform);
        let Some(to) = place else {
            if still {
                unmark(heap, index, word);
            }
            return false;
        };
        if heap.threads.load(Relaxed) > 1 {
            (heap.platform.barrier)();
        }
        let handle = RawHandle::new(heap.tag, index, word.generation());
        let locked = heap.is_recorded_by(word.owner(), handle.bits());
        let mut moved = false;
        if !locked {
            let (source, target) = (heap.base.add(from as usize), heap.base.add(to as usize));
            core::ptr::copy_nonoverlapping(source, target, bytes);
            let marked = Word(word.0 | MOVING);
            moved = heap.entry(index).is_some_and(|entry| {
                entry
                    .compare_exchange(marked.0, marked.moved_to(to).0, AcqRel, Relaxed)
                    .is_ok()
            });
        }
        if moved {
            compactor.sum.blocks_moved += 1;
            compactor.sum.bytes_moved += bytes as u64;
            if let Some((callback, argument)) = heap.moved.get() {
                let (source, target) = (heap.base.add(from as usize), heap.base.add(to as usize));
                callback(argument, handle.bits(), source, target);
            }
        } else {
            unmark(heap, index, word);
            compactor.sum.blocks_pinned += locked as u64;
            compactor.sum.blocks_abandoned += !locked as u64;
        }
        heap.mutex.lock(&heap.platform);
        // The place that it has left, or the one that it did not get.
        heap.end_large(if moved {
            span
        } else {
            (to >> heap.span_shift) as usize
        });
        heap.mutex.unlock(&heap.platform);
        moved
    }
}

/// Drops contents of blocks that may be dropped, until about `bytes` are; true: some were.
///
/// # Safety
/// `compacting` is held, the mutex is not; the calling thread is the cache's.
pub(crate) unsafe fn discard(cache: &Cache, sum: &mut Compaction, bytes: u64) -> bool {
    let heap = cache.heap();
    let mut dropped = 0;
    heap.each_entry(|_, entry| {
        let word = Word(entry.load(Acquire));
        if !word.is_live()
            || !word.is_discardable()
            || word.is_discarded()
            || word.shared() != 0
            || word.is_moving()
        {
            return true;
        }
        if entry
            .compare_exchange(word.0, word.moved_to(0).0, AcqRel, Relaxed)
            .is_ok()
        {
            // SAFETY: the block's slot is in no entry any more.
            unsafe {
                dropped += heap.usable_bytes(word.offset()) as u64;
                cache.vacate(word.offset());
            }
            sum.blocks_discarded += 1;
        }
        dropped < bytes.max(1)
    });
    dropped > 0
}
