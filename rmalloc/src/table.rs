//! The handle table: a word for each block, at fixed addresses, growing downwards from the end of the heap.
//!
//! Entries lie in pages of [`PAGE_ENTRIES`]. Each page has a list of its free entries, and the pages that have
//! some are marked in a bitmap, so that entries come from the lowest page: high pages run empty and their memory
//! goes back. Threads take and give entries in batches ([`crate::cache`]); the heap's mutex guards all of this.
//!
//! An entry whose generation would wrap is retired: it is never given out again, and counted. A page whose memory
//! was given back begins anew above the highest generation that it ever had.

use crate::entry::Word;
use crate::platform::{PAGE, Platform};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// Entries of a page of the table.
pub(crate) const PAGE_ENTRIES: usize = PAGE / 8;

/// Wholly free pages that keep their memory.
const FREE_PAGES_KEPT: usize = 4;

/// An entry that no block has, with the generation of its next one: number in bits 0 to 32, generation in 48 to 64.
/// So it is the entry's own word as well, while threads keep it: not live, its link of no meaning.
#[derive(Clone, Copy)]
pub(crate) struct Spare(pub u64);

impl Spare {
    #[inline(always)]
    pub const fn new(index: u32, generation: u64) -> Spare {
        Spare(generation << 48 | index as u64)
    }

    #[inline(always)]
    pub fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub fn generation(self) -> u64 {
        self.0 >> 48
    }
}

/// Book of a page of the table, 10 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct TablePage {
    /// First entry of the free list and 1, or 0.
    first: u16,
    /// Free entries: those on the list and those above `begun`.
    free: u16,
    /// Entries below this were given out since the page's memory was last given back.
    begun: u16,
    /// Generation that entries from `begun` on begin with.
    floor: u16,
    /// Entries that are never given out again.
    retired: u16,
}

/// The table of a heap.
pub(crate) struct Table {
    /// End of the table: entry i is the word `i + 1` before it.
    pub end: *mut AtomicU64,
    pages: *mut TablePage,
    /// Bit of each page with free entries.
    available: *mut u64,
    /// Pages that exist.
    pub count: usize,
    /// Pages that may exist.
    pub count_max: usize,
    /// No page below has a free entry.
    lowest: usize,
    /// Generations of an entry are 0 to this.
    pub generation_max: u64,
    /// Entries that are never given out again.
    pub retired: u64,
    /// Entries that are given out, to blocks or to threads that keep some.
    pub taken: u64,
    /// Pages without an entry given out that have memory.
    free_pages: usize,
    /// Pages whose memory was given back.
    released_pages: usize,
}

impl Table {
    /// Bytes of the books of `pages` pages, and of their bitmap.
    pub const fn bytes(pages: usize) -> (usize, usize) {
        (pages * size_of::<TablePage>(), pages.div_ceil(64) * 8)
    }

    /// Without pages.
    ///
    /// # Safety
    /// `pages` and `available` have the bytes that [`Table::bytes`] says for `count_max` pages, aligned to 8,
    /// belonging to nobody else; `end` is the end of `count_max` pages. They need to be readable only as far as
    /// [`Table::grow`] is called.
    pub unsafe fn new(
        end: *mut u8,
        pages: *mut u8,
        available: *mut u8,
        count_max: usize,
        generation_max: u64,
    ) -> Table {
        Table {
            end: end.cast(),
            pages: pages.cast(),
            available: available.cast(),
            count: 0,
            count_max,
            lowest: 0,
            generation_max: generation_max.min(0xffff),
            retired: 0,
            taken: 0,
            free_pages: 0,
            released_pages: 0,
        }
    }

    /// Adds a page below the others.
    ///
    /// # Safety
    /// The page's memory and books are committed, and `count < count_max`.
    pub unsafe fn grow(&mut self) {
        debug_assert!(self.count < self.count_max);
        let fresh = TablePage {
            first: 0,
            free: PAGE_ENTRIES as u16,
            begun: 0,
            floor: 0,
            retired: 0,
        };
        // SAFETY: the caller committed the page and its book.
        unsafe {
            // Blocks may have lain here: what they left must not look like a live entry.
            self.end
                .sub((self.count + 1) * PAGE_ENTRIES)
                .write_bytes(0, PAGE_ENTRIES);
            self.pages.add(self.count).write(fresh);
            if self.count.is_multiple_of(64) {
                self.available.add(self.count / 64).write(0);
            }
        }
        self.count += 1;
        self.free_pages += 1;
        self.set_available(self.count - 1, true);
    }

    /// Where the book of a page is, or would be.
    pub fn book(&self, page: usize) -> *mut TablePage {
        self.pages.wrapping_add(page)
    }

    fn page(&mut self, page: usize) -> &mut TablePage {
        debug_assert!(page < self.count);
        // SAFETY: pages below `count` have books.
        unsafe { &mut *self.pages.add(page) }
    }

    fn set_available(&mut self, page: usize, available: bool) {
        // SAFETY: the bitmap has a bit for each page.
        let word = unsafe { &mut *self.available.add(page / 64) };
        if available {
            *word |= 1 << (page % 64);
            self.lowest = self.lowest.min(page);
        } else {
            *word &= !(1 << (page % 64));
        }
    }

    fn next_available(&mut self) -> Option<usize> {
        let mut at = self.lowest / 64;
        let words = self.count.div_ceil(64);
        let mut mask = !0 << (self.lowest % 64);
        while at < words {
            // SAFETY: the bitmap has a bit for each page.
            let word = unsafe { *self.available.add(at) } & mask;
            if word != 0 {
                self.lowest = at * 64 + word.trailing_zeros() as usize;
                return Some(self.lowest);
            }
            mask = !0;
            at += 1;
        }
        self.lowest = self.count;
        None
    }

    /// Word of an entry.
    ///
    /// # Safety
    /// `index` is below `count` pages of entries.
    #[inline(always)]
    pub unsafe fn entry(&self, index: u32) -> &AtomicU64 {
        // SAFETY: the entry exists.
        unsafe { &*self.end.sub(index as usize + 1) }
    }

    /// Entries that exist: handles name one below this.
    pub fn entries(&self) -> u32 {
        (self.count * PAGE_ENTRIES) as u32
    }

    /// Fills `spares` from the lowest pages; answers how many. Fewer than asked for: the table is full.
    pub fn take(&mut self, spares: &mut [Spare]) -> usize {
        let mut done = 0;
        while done < spares.len() {
            let Some(at) = self.next_available() else {
                break;
            };
            let mut page = *self.page(at);
            if page.free as usize == PAGE_ENTRIES {
                if page.begun == 0 && page.floor > 0 {
                    self.released_pages -= 1;
                } else {
                    self.free_pages -= 1;
                }
            }
            while done < spares.len() && page.free > 0 {
                let base = at * PAGE_ENTRIES;
                spares[done] = if page.first != 0 {
                    let index = (base + page.first as usize - 1) as u32;
                    // SAFETY: the entry exists.
                    let word = Word(unsafe { self.entry(index) }.load(Relaxed));
                    page.first = word.link() as u16;
                    Spare::new(index, word.generation())
                } else {
                    let index = (base + page.begun as usize) as u32;
                    page.begun += 1;
                    Spare::new(index, page.floor as u64)
                };
                page.free -= 1;
                done += 1;
            }
            *self.page(at) = page;
            if page.free == 0 {
                self.set_available(at, false);
            }
        }
        self.taken += done as u64;
        done
    }

    /// Takes entries back. A page of which nothing is given out any more loses its memory, but for a few.
    ///
    /// # Safety
    /// The entries were taken and no block has them.
    pub unsafe fn give(&mut self, spares: &[Spare], platform: &Platform) {
        for spare in spares {
            let at = spare.index() as usize / PAGE_ENTRIES;
            let end = self.end;
            let page = self.page(at);
            // SAFETY: the entry exists.
            let entry = unsafe { &*end.sub(spare.index() as usize + 1) };
            {
                entry.store(Word::free(spare.generation(), page.first as u32).0, Relaxed);
                page.first = (spare.index() as usize % PAGE_ENTRIES) as u16 + 1;
                page.free += 1;
                let free = page.free as usize;
                if free == 1 {
                    self.set_available(at, true);
                }
                if free == PAGE_ENTRIES {
                    self.free_pages += 1;
                    if self.free_pages > FREE_PAGES_KEPT {
                        // SAFETY: no entry of the page is given out.
                        unsafe { self.release(at, platform) };
                    }
                }
            }
            self.taken -= 1;
        }
    }

    /// Never gives an entry out again: its generations are used up.
    ///
    /// # Safety
    /// The entry was taken and no block has it.
    pub unsafe fn retire(&mut self, index: u32) {
        // SAFETY: the entry exists.
        unsafe { self.entry(index) }.store(Word::free(self.generation_max, 0).0, Relaxed);
        self.page(index as usize / PAGE_ENTRIES).retired += 1;
        self.retired += 1;
        self.taken -= 1;
    }

    /// Gives a page's memory back.
    ///
    /// # Safety
    /// No entry of it is given out or retired.
    unsafe fn release(&mut self, at: usize, platform: &Platform) {
        let first = (at * PAGE_ENTRIES) as u32;
        let begun = self.page(at).begun as u32;
        let mut highest = self.page(at).floor as u64;
        for index in first..first + begun {
            // SAFETY: the entry exists.
            highest = highest.max(Word(unsafe { self.entry(index) }.load(Relaxed)).generation());
        }
        let floor = highest + 1;
        if floor > self.generation_max {
            // Nothing could be given out of it any more; its entries have generations left to use.
            return;
        }
        *self.page(at) = TablePage {
            first: 0,
            free: PAGE_ENTRIES as u16,
            begun: 0,
            floor: floor as u16,
            retired: 0,
        };
        self.free_pages -= 1;
        self.released_pages += 1;
        // SAFETY: the page's words are in no use; entries are taken from `floor` on, whatever they read.
        unsafe { (platform.release)(self.end.sub((at + 1) * PAGE_ENTRIES).cast(), PAGE) };
    }

    /// Bytes of the pages that have memory.
    pub fn resident_bytes(&self) -> u64 {
        ((self.count - self.released_pages) * PAGE) as u64
    }

    /// Gives the memory of all wholly free pages back.
    ///
    /// Answers how many pages.
    pub fn release_free(&mut self, platform: &Platform) -> usize {
        let before = self.released_pages;
        for at in 0..self.count {
            let page = *self.page(at);
            if page.free as usize == PAGE_ENTRIES && page.begun > 0 {
                // SAFETY: no entry of the page is given out.
                unsafe { self.release(at, platform) };
            }
        }
        self.released_pages - before
    }
}
