//! A picture of a heap: what each range of its addresses holds, and which slots of a region hold blocks. This file
//! only looks; sums are [`crate::Stats`]' business, and drawing is the caller's (`examples/heap_map.rs`).
//!
//! Nothing is copied beforehand: each step of an iterator holds the heap's mutex for that step alone. So the heap may be
//! used meanwhile. The pieces fit each other exactly if nobody does.

use crate::class::Class;
use crate::entry::Word;
use crate::handle::RawHandle;
use crate::heap::Heap;
use crate::local::LocalHeap;
use crate::platform::PAGE;
use crate::region::{ENTRY_ONLY, FREE, Region, owner};
use core::sync::atomic::Ordering::Relaxed;

/// A range of a heap's addresses.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'heap> {
    /// Where it begins, bytes from the heap's base.
    pub offset: u64,
    /// Its bytes, a whole number of spans.
    pub bytes: u64,
    /// Of these, bytes that are resident by the heap's own books. Of tables: 0, as [`crate::Stats`] tells those.
    pub resident_bytes: u64,
    /// What is there.
    pub holds: Holds<'heap>,
}

/// What a range of addresses holds.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Holds<'heap> {
    /// Books of the heap, the handle table, what threads keep.
    Tables,
    /// Nothing.
    Free,
    /// One block with pages of its own: all resident bytes of the piece are its.
    Large {
        /// It may not move now.
        locked: bool,
    },
    /// Slots of one size.
    Slots(SlotRegion<'heap>),
}

/// A region of slots of one size class, as it was when the [`Map`] came to it.
#[derive(Clone, Copy)]
pub struct SlotRegion<'heap> {
    heap: &'heap Heap,
    span: usize,
    class: Class,
    /// Slots that hold blocks.
    pub used: u32,
    /// Pages with slots in use or on the free list, a bit each, the region's first page lowest.
    pub pages: u64,
}

impl core::fmt::Debug for SlotRegion<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SlotRegion")
            .field("class", &self.class)
            .field("used", &self.used)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing; the page it begins in is not in use.
    Unused,
    /// Nothing; its page is in use. Feature `beside`: or an entry whose block is elsewhere.
    Free,
    /// A block that may move.
    Block,
    /// A block that is locked.
    Locked,
}

/// A slot of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where it begins, bytes from the heap's base.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u32,
    /// What is there.
    pub held: Held,
}

/// The pieces of a heap, in order of address, from its base to its end.
pub struct Map<'heap> {
    heap: &'heap Heap,
    span: usize,
}

/// The slots of a region, in order of address.
pub struct Slots<'heap> {
    region: SlotRegion<'heap>,
    next: u32,
}

/// Is the block locked that entry `index` leads to?
fn is_locked(heap: &Heap, index: u32) -> bool {
    let word = Word(heap.entry(index).map_or(0, |entry| entry.load(Relaxed)));
    let handle = RawHandle::new(heap.tag, index, word.generation());
    word.is_live() && (word.shared() != 0 || heap.is_recorded_by(word.owner(), handle.bits()))
}

/// A region of slots?
fn has_slots(who: u8) -> bool {
    who < owner::CACHES || who == owner::NONE || who == owner::COMPACTOR
}

impl<'heap> Map<'heap> {
    pub(crate) fn new(heap: &'heap Heap) -> Map<'heap> {
        Map { heap, span: 0 }
    }

    /// Spans from `self.span` on that `same` is true of, as a piece.
    fn run(&self, holds: Holds<'heap>, mut same: impl FnMut(usize) -> bool) -> Piece<'heap> {
        let heap = self.heap;
        let mut end = self.span + 1;
        while end < heap.bytes >> heap.span_shift && same(end) {
            end += 1;
        }
        Piece {
            offset: (self.span << heap.span_shift) as u64,
            bytes: ((end - self.span) << heap.span_shift) as u64,
            resident_bytes: 0,
            holds,
        }
    }

    /// The piece that begins at `self.span`, which exists.
    ///
    /// # Safety
    /// The heap's mutex is held.
    unsafe fn piece(&self) -> Piece<'heap> {
        let heap = self.heap;
        // SAFETY: the mutex is held; spans below `ready` have descriptors.
        unsafe {
            let guarded = heap.guarded();
            let (first, ready) = (heap.first_span(), guarded.ready);
            let spans = &guarded.spans;
            // Free and resident: its bytes; free and not: 0.
            let dirty = |span: usize| {
                if span < first || span >= ready || heap.region(span).dirty.load(Relaxed) == 0 {
                    return 0;
                }
                heap.region(span).reported.load(Relaxed) as u64 * 64
            };
            if !spans.is_taken(self.span) {
                let mut resident_bytes = dirty(self.span);
                let is_resident = resident_bytes != 0;
                let piece = self.run(Holds::Free, |span| {
                    let bytes = dirty(span);
                    let same = !spans.is_taken(span) && (bytes != 0) == is_resident;
                    resident_bytes += if same { bytes } else { 0 };
                    same
                });
                return Piece {
                    resident_bytes,
                    ..piece
                };
            }
            // A span that is not a region's first any more was passed on since the last step: as a table.
            let is_table = |span: usize| {
                spans.is_taken(span)
                    && (span < first
                        || span >= ready
                        || matches!(heap.region(span).owner(), owner::META | owner::INTERIOR))
            };
            if is_table(self.span) {
                return self.run(Holds::Tables, is_table);
            }
            let region = heap.region(self.span);
            let offset = (self.span << heap.span_shift) as u64;
            if region.owner() == owner::LARGE {
                let bytes = region.pages.load(Relaxed) * PAGE as u64;
                return Piece {
                    offset,
                    bytes: bytes.next_multiple_of(heap.span_bytes() as u64),
                    resident_bytes: bytes,
                    holds: Holds::Large {
                        locked: is_locked(heap, region.free.load(Relaxed)),
                    },
                };
            }
            let class = *heap.class(region);
            Piece {
                offset,
                bytes: class.spans as u64 * heap.span_bytes() as u64,
                resident_bytes: region.resident_bytes(&class),
                holds: Holds::Slots(SlotRegion {
                    heap,
                    span: self.span,
                    class,
                    used: region.held(),
                    pages: region.pages.load(Relaxed),
                }),
            }
        }
    }
}

impl<'heap> Iterator for Map<'heap> {
    type Item = Piece<'heap>;

    fn next(&mut self) -> Option<Piece<'heap>> {
        let heap = self.heap;
        if self.span >= heap.bytes >> heap.span_shift {
            return None;
        }
        heap.mutex.lock(&heap.platform);
        // SAFETY: the mutex is held, and the span exists.
        let piece = unsafe { self.piece() };
        heap.mutex.unlock(&heap.platform);
        self.span += (piece.bytes >> heap.span_shift) as usize;
        Some(piece)
    }
}

impl<'heap> SlotRegion<'heap> {
    /// The size class. Its `slots` are all that the region can hold.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The slots one by one. Ends early if the region has become something else since.
    pub fn slots(&self) -> Slots<'heap> {
        Slots {
            region: *self,
            next: 0,
        }
    }
}

impl Slots<'_> {
    /// What the next slot, which exists, holds; `None`: the region is another by now.
    ///
    /// # Safety
    /// The heap's mutex is held.
    unsafe fn held(&self) -> Option<Held> {
        let SlotRegion {
            heap, span, class, ..
        } = self.region;
        // SAFETY: the mutex is held, so regions stay regions of their class. The span was ready once, and stays so.
        unsafe {
            let region = heap.region(span);
            if !heap.guarded().spans.is_taken(span)
                || !has_slots(region.owner())
                || *heap.class(region) != class
            {
                return None;
            }
            let page =
                (class.first_slot as usize + self.next as usize * class.size as usize) / PAGE;
            debug_assert!(Region::slots_of(page, &class).contains(&self.next));
            if page >= 64 || region.pages.load(Relaxed) >> page & 1 == 0 {
                return Some(Held::Unused);
            }
            let word = region.word(self.next).load(Relaxed);
            Some(if word & FREE != 0 || word == ENTRY_ONLY {
                Held::Free
            } else if is_locked(heap, word) {
                Held::Locked
            } else {
                Held::Block
            })
        }
    }
}

impl Iterator for Slots<'_> {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        let SlotRegion {
            heap, span, class, ..
        } = self.region;
        if self.next >= class.slots as u32 {
            return None;
        }
        heap.mutex.lock(&heap.platform);
        // SAFETY: the mutex is held, and the slot exists.
        let held = unsafe { self.held() };
        heap.mutex.unlock(&heap.platform);
        let offset = (span << heap.span_shift) as u64
            + class.first_slot as u64
            + self.next as u64 * class.size as u64;
        self.next += 1;
        Some(Slot {
            offset,
            bytes: class.size,
            held: held?,
        })
    }
}

impl LocalHeap<'_> {
    /// What each range of the heap's addresses holds.
    ///
    /// ```
    /// # use rmalloc::LocalHeap;
    /// # use rmalloc::map::Holds;
    /// let mut memory = vec![core::mem::MaybeUninit::uninit(); 512 << 10];
    /// let heap = LocalHeap::new(&mut memory, None).unwrap();
    /// heap.alloc(100).unwrap();
    /// let used: u32 = heap
    ///     .map()
    ///     .map(|piece| match piece.holds {
    ///         Holds::Slots(region) => region.used,
    ///         _ => 0,
    ///     })
    ///     .sum();
    /// assert_eq!(used, 1);
    /// ```
    pub fn map(&self) -> Map<'_> {
        Map::new(self.cache().heap())
    }
}
