//! Feature `beside`: what of a thread's work is another where entries lie in front of birthplaces
//! ([`crate::heap`]'s `beside`). A slot brings its entry, so there are no spare ones.

use super::*;
use crate::class::ENTRY_BYTES;

impl Cache {
    /// Word of an entry of a slot, if there is one.
    #[inline(always)]
    fn slot_entry(&self, index: u32) -> Option<&AtomicU64> {
        if index >= self.entries.get() {
            return None;
        }
        // SAFETY: bits of entries below that number are committed; if one is set, a slot begins there.
        unsafe {
            let bits = &*self.entry_bits.add(index as usize / 64);
            if bits.load(Acquire) >> (index % 64) & 1 == 0 {
                return None;
            }
            Some(
                &*self
                    .base
                    .add(index as usize * 16 - ENTRY_BYTES as usize)
                    .cast(),
            )
        }
    }

    /// A block in the first free slot of a region; `None`: there is none, or its entry has no generation left.
    ///
    /// # Safety
    /// The region is the caller's.
    #[inline(always)]
    unsafe fn born_in(&self, region: &Region) -> Option<RawHandle> {
        let first = region.free.load(Relaxed);
        if first == 0 {
            return None;
        }
        let offset = region.offset(first - 1);
        // SAFETY: free slots have entries, which are free.
        unsafe {
            let entry: &AtomicU64 = &*self.base.add(offset as usize - ENTRY_BYTES as usize).cast();
            let word = entry.load(Relaxed);
            if word < FIRST_GENERATION {
                return None;
            }
            let index = (offset >> 4) as u32;
            region.pop(index);
            #[cfg(feature = "checked")]
            self.heap().born(offset);
            entry.store(offset | self.live | word, Release);
            Some(RawHandle::new(self.tag, index, word >> 48))
        }
    }

    /// [`Cache::alloc`] where nothing rare is needed.
    ///
    /// # Safety
    /// As [`Cache::alloc`], and the cache is not `fenced`.
    #[inline(always)]
    pub unsafe fn try_alloc(&self, size: usize) -> Option<RawHandle> {
        let below = size.wrapping_sub(1);
        if below >= self.largest as usize {
            return None;
        }
        self.op.store(BUSY, Relaxed);
        compiler_fence(SeqCst);
        let mut born = None;
        if self.paused.load(Acquire) == 0 {
            // SAFETY: the lookup has a place for each size up to the largest, of a class; `current` is a region of ours,
            // which nobody takes while `op` says that we are busy.
            unsafe {
                let class = *self.lookup.add((below + ENTRY_BYTES as usize) / 16);
                born = self.born_in(&*self.current.get_unchecked(class as usize).get());
            }
        }
        self.end();
        born
    }

    pub(super) unsafe fn alloc_slow(&self, class: u8) -> Result<RawHandle, Error> {
        let bytes = self.heap().classes.get(class).size as usize;
        // SAFETY: the caller's promise; the mutex is held inside.
        unsafe {
            self.until_room(bytes, |anyhow| {
                self.look_around();
                loop {
                    let region = match self.region_with_slot(class) {
                        Err(Error::Memory) if anyhow => self.region_of_more(class)?,
                        found => found?,
                    };
                    self.drop_worn(region);
                    if let Some(handle) = self.born_in(region) {
                        return Ok(handle);
                    }
                }
            })
        }
    }

    pub(super) unsafe fn alloc_large(&self, size: usize) -> Result<RawHandle, Error> {
        let heap = self.heap();
        if size == 0 || size > isize::MAX as usize || size > heap.bytes {
            return Err(Error::Size);
        }
        // SAFETY: the caller's promise; the mutex is held inside.
        unsafe {
            self.until_room(size, |_| {
                self.look_around();
                let offset = heap.take_large(size, 0).ok_or(Error::Memory)?;
                let index = (offset >> 4) as u32;
                let entry = heap.entry(index).ok_or(Error::Memory)?;
                let word = entry.load(Relaxed);
                #[cfg(feature = "checked")]
                heap.born(offset);
                entry.store(offset | self.live | word, Release);
                Ok(RawHandle::new(self.tag, index, word >> 48))
            })
        }
    }

    /// Learns what others have done. The mutex is held.
    fn look_around(&self) {
        let heap = self.heap();
        // Others may have ended; who comes next says so under the mutex.
        self.alone
            .store((heap.threads.load(Relaxed) == 1) as u32, Relaxed);
        self.entries.set(heap.entries.load(Acquire));
    }

    /// Takes slots off the front of a list whose entries have no generation left.
    ///
    /// # Safety
    /// The region is the caller's, and the mutex is held.
    unsafe fn drop_worn(&self, region: &Region) {
        loop {
            let first = region.free.load(Relaxed);
            if first == 0 {
                return;
            }
            let entry = region.offset(first - 1) as usize - ENTRY_BYTES as usize;
            // SAFETY: free slots have entries.
            unsafe {
                if (*self.base.add(entry).cast::<AtomicU64>()).load(Relaxed) >= FIRST_GENERATION {
                    return;
                }
                region.drop_first();
                self.heap().guarded().table.retired += 1;
            }
        }
    }

    /// [`Cache::free`] where nothing rare is needed: the block lies where it was born.
    ///
    /// # Safety
    /// As [`Cache::free`], and the cache is not `fenced`.
    #[inline(always)]
    pub unsafe fn try_free(&self, handle: RawHandle) -> bool {
        let index = handle.index();
        if self.locked.get() != 0 {
            return false;
        }
        let Some(entry) = self.slot_entry(index) else {
            return false;
        };
        self.op.store(BUSY, Relaxed);
        compiler_fence(SeqCst);
        let word = Word(entry.load(Relaxed));
        let offset = (index as u64) << 4;
        if self.paused.load(Acquire) == 0
            && word.is_ours_unshared(self.live, handle.bits())
            && word.offset() == offset
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
            let ended = (word.0 & GENERATION) + FIRST_GENERATION;
            let mine = region.owner.load(Relaxed) == self.id
                && if self.alone.load(Relaxed) != 0 {
                    entry.store(ended, Release);
                    true
                } else {
                    entry
                        .compare_exchange(word.0, ended, AcqRel, Relaxed)
                        .is_ok()
                };
            if mine {
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

    /// [`Cache::lock`] where nothing rare is needed.
    ///
    /// # Safety
    /// As [`Cache::lock`], and the cache is not `fenced`.
    #[inline(always)]
    pub unsafe fn try_lock(&self, handle: RawHandle) -> Option<NonNull<u8>> {
        let locked = self.locked.get() as usize;
        if locked >= RECORDS {
            return None;
        }
        let entry = self.slot_entry(handle.index())?;
        self.records[locked].store(handle.bits(), Relaxed);
        compiler_fence(SeqCst);
        let word = Word(entry.load(Acquire));
        if word.is_ours(self.live, handle.bits()) {
            self.locked.set(locked as u32 + 1);
            // SAFETY: the block lies in the heap, not at address 0.
            return Some(unsafe { NonNull::new_unchecked(self.base.add(word.offset() as usize)) });
        }
        self.records[locked].store(0, Release);
        None
    }

    /// A block has ended: the generation of its entry's next one is in its word already. Gives the birthplace back if no
    /// block lies there.
    pub(super) unsafe fn keep_spare(&self, index: u32, _generation: u64) {
        if let Some(offset) = self.heap().settle(index) {
            // SAFETY: nothing of the slot is in use, and nobody else takes it.
            unsafe { self.give_slot(offset) };
        }
    }

    /// The block of this entry has left a place; its entry may go on.
    ///
    /// # Safety
    /// The place is the caller's.
    pub unsafe fn vacate(&self, offset: u64) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.heap().leave(offset) {
                self.give_slot(offset);
            }
        }
    }

    /// The block of entry `index` has ended, and was here. The entry's word says so already.
    ///
    /// # Safety
    /// As [`Cache::vacate`].
    pub(super) unsafe fn give_place(&self, offset: u64, index: u32) {
        // SAFETY: the caller's promise. In its birthplace both halves are free.
        unsafe {
            if offset == (index as u64) << 4 {
                self.give_slot(offset);
            } else {
                self.vacate(offset);
            }
        }
    }
}
