//! The front of [`Cache`]: what every interface calls. In an ordinary build it passes on; in the checking build
//! (feature `checked`) each block has a canary behind the bytes asked for, and memory that was given back is poisoned.
//! This file owns both patterns, their checks and the report of what was damaged; blocks are [`crate::cache`]'s.
//!
//! A slot of `U` usable bytes, with a block of `n` in it, and without one:
//!
//! ```text
//! live:  | n bytes of the caller's, 0xCD at first | 0xFD, 8 bytes or more | mark, n (8 bytes) | other mark, n |
//!        0                                        n                      U-16                U-8              U
//! free:  | mark of U | 0xDB ...                                         | its last handle     | mark of U      |
//!        0           8                                                 U-16                  U-8              U
//! ```
//!
//! So a block takes 24 bytes more, `rmsize` answers what was asked for, and the place that a block leaves when it
//! moves is poisoned as well: who writes to an address kept beyond the unlock is found. A free slot whose two marks are
//! both gone counts as memory that was never used, and a page of it that is all zeros as given back. Blocks with pages of
//! their own are not poisoned: their pages go back.
//!
//! | found by this build alone | when | the call |
//! |---|---|---|
//! | write behind the block's end, within 24 bytes and what its slot has left | lock, unlock, resize, move | lock and resize refuse, once; unlock is done, and says so |
//! | the same | free | is done, and says so |
//! | write in front of a block | as above, of the block in front of it | as above |
//! | write after free, or by an address kept after unlock | the slot's next use | is done; the report names the last block |
//! | the same | compaction that fills, squeezes or trims the slot's region | is done, and says so |
//!
//! Not found: reads (0xDB and 0xCD may show them); writes far off; writes into another live block's bytes; writes to a
//! slot between its reuse and a look at it; discarded blocks' old places. Each damage is reported once: the pattern is
//! written anew.

use crate::cache::Cache;
use crate::handle::RawHandle;
use crate::status::Error;

#[cfg(feature = "checked")]
pub(crate) use checked::*;
#[cfg(feature = "checked")]
pub use checked::{Call, Check, Damage, Report, damages, on_damage};

#[cfg(not(feature = "checked"))]
impl Cache {
    /// A block of `size` bytes at a multiple of 16. Cost: about 25 instructions.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Memory`], [`Error::Table`].
    ///
    /// # Safety
    /// The calling thread is the cache's.
    #[inline(always)]
    pub unsafe fn alloc(&self, size: usize) -> Result<RawHandle, Error> {
        // SAFETY: the caller's promise.
        unsafe { self.alloc_plain(size) }
    }

    /// As [`Cache::alloc`], at a multiple of `alignment`.
    ///
    /// # Errors
    /// And [`Error::Alignment`].
    ///
    /// # Safety
    /// As [`Cache::alloc`].
    #[inline(always)]
    pub unsafe fn alloc_aligned(&self, size: usize, alignment: usize) -> Result<RawHandle, Error> {
        // SAFETY: the caller's promise.
        unsafe { self.alloc_aligned_plain(size, alignment) }
    }

    /// Ends a block. Cost: about 35 instructions.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Locked`].
    ///
    /// # Safety
    /// The calling thread is the cache's, and the handle has the heap's tag.
    #[inline(always)]
    pub unsafe fn free(&self, handle: RawHandle) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.free_plain(handle) }
    }

    /// Where the block is, until [`Cache::unlock`]. Cost: about 20 instructions for the block's own thread, one
    /// compare-and-swap for others.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Locks`], [`Error::Discarded`].
    ///
    /// # Safety
    /// The calling thread is the cache's, and the handle has the heap's tag.
    #[inline(always)]
    pub unsafe fn lock(&self, handle: RawHandle) -> Result<*mut u8, Error> {
        // SAFETY: the caller's promise.
        unsafe { self.lock_plain(handle) }
    }

    /// As [`Cache::lock`], but any thread may unlock.
    ///
    /// # Errors
    /// As [`Cache::lock`].
    ///
    /// # Safety
    /// As [`Cache::lock`].
    #[inline(always)]
    pub unsafe fn lock_shared(&self, handle: RawHandle) -> Result<*mut u8, Error> {
        // SAFETY: the caller's promise.
        unsafe { self.lock_shared_plain(handle) }
    }

    /// Gives a lock back. Cost: about 8 instructions if it was the last one taken.
    ///
    /// # Errors
    /// [`Error::NotLocked`], [`Error::Handle`].
    ///
    /// # Safety
    /// The calling thread is the cache's.
    #[inline(always)]
    pub unsafe fn unlock(&self, handle: RawHandle) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.unlock_plain(handle) }
    }

    /// Gives the block another size. It keeps its handle, and its contents as far as they fit.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Handle`], [`Error::Locked`], [`Error::Memory`], [`Error::Discarded`]; the block is as it was then.
    ///
    /// # Safety
    /// The calling thread is the cache's.
    #[inline(always)]
    pub unsafe fn resize(&self, handle: RawHandle, size: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.resize_plain(handle, size) }
    }

    /// Bytes that the block can hold.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Discarded`].
    #[inline(always)]
    pub fn usable_bytes(&self, handle: RawHandle) -> Result<usize, Error> {
        self.usable_bytes_plain(handle)
    }
}

#[cfg(feature = "checked")]
mod checked {
    use super::*;
    use crate::heap::Heap;
    use crate::platform::PAGE;
    use crate::region::owner;
    use core::sync::atomic::Ordering::Relaxed;
    use core::sync::atomic::{AtomicPtr, AtomicU64};

    /// Bytes that a block takes more: the least canary and the two words behind it.
    pub(crate) const TAIL: usize = 24;
    const WORDS: usize = 16;
    const FRESH: u8 = 0xcd;
    const CANARY: u8 = 0xfd;
    const POISON: u8 = 0xdb;
    /// Upper 16 bits of the words behind a live block; the size is below.
    const MARKS: [u64; 2] = [0xc0de, 0x5afe];
    const SIZE_BITS: u32 = 48;

    /// What was damaged.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u32)]
    pub enum Check {
        /// The bytes behind the block: it was written beyond its end.
        End = 1,
        /// The words at the end of the block's slot: as above, or something behind it was written in front of its beginning.
        Size = 2,
        /// Memory without a block: it was written after the block was freed, or, by an address kept after unlocking, after it
        /// had moved.
        Free = 3,
    }

    /// Who found it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u32)]
    pub enum Call {
        /// An allocation got the memory.
        Alloc = 1,
        /// The block was to be freed.
        Free = 2,
        /// The block was to be locked.
        Lock = 3,
        /// The block was unlocked.
        Unlock = 4,
        /// The block was to be resized.
        Resize = 5,
        /// A compaction.
        Compact = 6,
    }

    /// A damage.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(C)]
    pub struct Damage {
        /// Bits of the block's handle; of memory without a block, of the last block there.
        pub handle: u64,
        /// Bytes asked for; `u64::MAX`: not known, as it was overwritten or there is no block.
        pub requested_bytes: u64,
        /// Bytes of the slot, the checking build's own included.
        pub slot_bytes: u64,
        /// First damaged byte that is known, counted from the block's address.
        pub offset: u64,
        /// What is there now.
        pub found: u8,
        /// Which pattern.
        pub check: Check,
        /// Who found it.
        pub call: Call,
    }

    /// Told each damage, in the thread that found it; it may not call the heap.
    pub type Report = unsafe extern "C" fn(*const Damage);

    static REPORT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
    static DAMAGES: AtomicU64 = AtomicU64::new(0);

    /// Has damages told to `report`, for all heaps; `None`: on standard error, where there is one.
    pub fn on_damage(report: Option<Report>) {
        REPORT.store(
            report.map_or(core::ptr::null_mut(), |report| report as *mut ()),
            Relaxed,
        );
    }

    /// Damages found until now, in all heaps.
    pub fn damages() -> u64 {
        DAMAGES.load(Relaxed)
    }

    /// Sets the function that is told each damage; null: they are told on standard error. In the checking build only.
    ///
    /// # Safety
    /// The function stays callable, by any thread.
    #[cfg(feature = "system")]
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn rmdamage(report: Option<Report>) {
        on_damage(report);
    }

    fn report(damage: &Damage) {
        DAMAGES.fetch_add(1, Relaxed);
        let report = REPORT.load(Relaxed);
        if !report.is_null() {
            // SAFETY: only functions of this type are stored.
            unsafe { core::mem::transmute::<*mut (), Report>(report)(damage) };
            return;
        }
        #[cfg(feature = "system")]
        crate::os::complain(format_args!("{damage}"));
    }

    impl core::fmt::Display for Damage {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            write!(f, "rmalloc: block {:#x}", self.handle)?;
            if let Some(handle) = RawHandle::from_bits(self.handle) {
                write!(f, " ({handle:?})")?;
            }
            match self.check {
                Check::End => write!(
                    f,
                    " of {} bytes was written beyond its end",
                    self.requested_bytes
                )?,
                Check::Size => write!(
                    f,
                    ": the end of its slot of {} bytes is overwritten",
                    self.slot_bytes
                )?,
                Check::Free => write!(
                    f,
                    ", freed or moved, was written to in its old place of {} bytes",
                    self.slot_bytes
                )?,
            }
            let call =
                ["", "alloc", "free", "lock", "unlock", "resize", "compact"][self.call as usize];
            write!(
                f,
                ": byte {} is {:#04x}, found by {call}",
                self.offset, self.found
            )
        }
    }

    /// What [`inspect`] finds.
    pub(crate) struct Found {
        requested: Option<usize>,
        offset: usize,
        byte: u8,
    }

    fn with_tail(size: usize) -> Result<usize, Error> {
        if size == 0 || size >= 1 << SIZE_BITS {
            Err(Error::Size)
        } else {
            Ok(size + TAIL)
        }
    }

    /// Writes what lies behind the `size` bytes of a block.
    ///
    /// # Safety
    /// The slot has `slot` bytes, `size` and [`TAIL`] at least, and what is behind the `size` is nobody else's.
    pub(crate) unsafe fn seal(place: *mut u8, slot: usize, size: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            place.add(size).write_bytes(CANARY, slot - WORDS - size);
            for (at, mark) in MARKS.into_iter().enumerate() {
                place
                    .add(slot - WORDS + 8 * at)
                    .cast::<u64>()
                    .write(mark << SIZE_BITS | size as u64);
            }
        }
    }

    /// Size of a block as the words behind it say: the last one that is whole.
    ///
    /// # Safety
    /// A block's slot of `slot` bytes is there and stays.
    unsafe fn size_of_block(place: *mut u8, slot: usize) -> Option<usize> {
        (0..2).rev().find_map(|at| {
            // SAFETY: the caller's promise.
            let word = unsafe { place.add(slot - WORDS + 8 * at).cast::<u64>().read() };
            let size = (word & ((1 << SIZE_BITS) - 1)) as usize;
            (word >> SIZE_BITS == MARKS[at] && size + TAIL <= slot).then_some(size)
        })
    }

    /// Looks behind a block.
    ///
    /// # Safety
    /// As [`size_of_block`].
    pub(crate) unsafe fn inspect(place: *mut u8, slot: usize) -> Option<Found> {
        // SAFETY: the caller's promise.
        unsafe {
            let Some(size) = size_of_block(place, slot) else {
                return Some(Found {
                    requested: None,
                    offset: slot - WORDS,
                    byte: place.add(slot - WORDS).read(),
                });
            };
            for at in size..slot - WORDS {
                let byte = place.add(at).read();
                if byte != CANARY {
                    return Some(Found {
                        requested: Some(size),
                        offset: at,
                        byte,
                    });
                }
            }
            for at in 0..WORDS {
                let whole = (MARKS[at / 8] << SIZE_BITS | size as u64).to_ne_bytes()[at % 8];
                let byte = place.add(slot - WORDS + at).read();
                if byte != whole {
                    return Some(Found {
                        requested: Some(size),
                        offset: slot - WORDS + at,
                        byte,
                    });
                }
            }
        }
        None
    }

    /// Reports what was found behind a block.
    fn report_found(slot: usize, handle: RawHandle, found: &Found, call: Call) {
        report(&Damage {
            handle: handle.bits(),
            requested_bytes: found.requested.map_or(u64::MAX, |size| size as u64),
            slot_bytes: slot as u64,
            offset: found.offset as u64,
            found: found.byte,
            check: if found.requested.is_some() && found.offset < slot - WORDS {
                Check::End
            } else {
                Check::Size
            },
            call,
        });
    }

    /// Reports what was found behind a block, and writes it anew.
    ///
    /// # Safety
    /// As [`seal`].
    unsafe fn tell(place: *mut u8, slot: usize, handle: RawHandle, found: Found, call: Call) {
        report_found(slot, handle, &found, call);
        // SAFETY: the caller's promise.
        unsafe { seal(place, slot, found.requested.unwrap_or(slot - TAIL)) };
    }

    /// Looks behind a block; true: it was damaged, and told.
    ///
    /// # Safety
    /// As [`seal`].
    unsafe fn is_damaged(place: *mut u8, slot: usize, handle: RawHandle, call: Call) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            match inspect(place, slot) {
                Some(found) => {
                    tell(place, slot, handle, found, call);
                    true
                }
                None => false,
            }
        }
    }

    fn mark_of(slot: usize) -> u64 {
        (slot as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xdbdb_f4ee_dbdb_f4ee
    }

    impl Heap {
        /// Address and bytes of a slot, and whether it is one: not a large block.
        unsafe fn slot_at(&self, offset: u64) -> (*mut u8, usize, bool) {
            // SAFETY: callers name a place of a block.
            unsafe {
                let large = self.region(self.span_of(offset)).owner() == owner::LARGE;
                (
                    self.base.add(offset as usize),
                    self.usable_bytes(offset),
                    !large,
                )
            }
        }

        /// Poisons the slot that a block has left.
        ///
        /// # Safety
        /// The slot is the caller's.
        pub(crate) unsafe fn poison(&self, offset: u64, handle: RawHandle) {
            // SAFETY: the caller's promise.
            unsafe {
                let (place, slot, poisoned) = self.slot_at(offset);
                if poisoned {
                    place.write_bytes(POISON, slot);
                    place.cast::<u64>().write(mark_of(slot));
                    place.add(slot - WORDS).cast::<u64>().write(handle.bits());
                    place.add(slot - 8).cast::<u64>().write(mark_of(slot));
                }
            }
        }

        /// Slots that begin in these pages come into use: what an earlier region left there is no poison of theirs.
        ///
        /// # Safety
        /// The region is the caller's, and the slots hold no blocks.
        pub(crate) unsafe fn forget_poison(&self, region: &crate::region::Region, pages: u64) {
            let class = self.class(region);
            for page in (0..64).filter(|page| pages >> page & 1 != 0) {
                for slot in crate::region::Region::slots_of(page, class) {
                    // SAFETY: the slot is the caller's, and has 16 bytes at least.
                    unsafe {
                        let place = self.base.add(region.offset(slot) as usize);
                        place.cast::<u64>().write(0);
                        place.add(class.size as usize - 8).cast::<u64>().write(0);
                    }
                }
            }
        }

        /// Looks whether a free slot is as it was left, if it was poisoned; true: it was damaged, told, and poisoned anew.
        ///
        /// # Safety
        /// As [`Heap::poison`].
        pub(crate) unsafe fn check_free(&self, offset: u64, call: Call) -> bool {
            // SAFETY: the caller's promise.
            unsafe {
                let (place, slot, poisoned) = self.slot_at(offset);
                let mark = mark_of(slot).to_ne_bytes();
                let marks = [0, slot - 8].map(|at| place.add(at).cast::<[u8; 8]>().read() == mark);
                if !poisoned || marks == [false, false] {
                    return false;
                }
                let whole = |at: usize| match at {
                    0..8 => mark[at],
                    _ if at >= slot - 8 => mark[at - (slot - 8)],
                    _ => POISON,
                };
                let handle = place.add(slot - WORDS).cast::<u64>().read();
                let mut damaged = None;
                let mut begin = 0;
                while begin < slot && damaged.is_none() {
                    let end = slot.min(begin + PAGE - (place.addr() + begin) % PAGE);
                    // A page of all zeros was given back since.
                    if (begin..end).any(|at| place.add(at).read() != 0) {
                        let told = |at: &usize| {
                            !(slot - WORDS..slot - 8).contains(at)
                                && place.add(*at).read() != whole(*at)
                        };
                        damaged = (begin..end).find(told);
                    }
                    begin = end;
                }
                let Some(at) = damaged else { return false };
                let found = place.add(at).read();
                let (requested_bytes, check) = (u64::MAX, Check::Free);
                report(&Damage {
                    handle,
                    requested_bytes,
                    slot_bytes: slot as u64,
                    offset: at as u64,
                    found,
                    check,
                    call,
                });
                self.poison(
                    offset,
                    RawHandle::from_bits(handle).unwrap_or(RawHandle::new(self.tag, 0, 0)),
                );
                true
            }
        }

        /// A block is born in a slot: looks whether it was written to while it was free, and seals it as full.
        ///
        /// # Safety
        /// As [`Heap::poison`].
        pub(crate) unsafe fn born(&self, offset: u64) {
            // SAFETY: the caller's promise.
            unsafe {
                self.check_free(offset, Call::Alloc);
                let (place, slot, _) = self.slot_at(offset);
                place.write_bytes(FRESH, slot);
                seal(place, slot, slot - TAIL);
            }
        }

        /// A block has ended: looks behind it, then poisons its slot. True: it was damaged.
        ///
        /// # Safety
        /// As [`Heap::poison`].
        pub(crate) unsafe fn died(&self, offset: u64, handle: RawHandle) -> bool {
            // SAFETY: the caller's promise.
            unsafe {
                let (place, slot, _) = self.slot_at(offset);
                let damaged = is_damaged(place, slot, handle, Call::Free);
                self.poison(offset, handle);
                damaged
            }
        }

        /// Looks behind the copy of a block, and makes it whole.
        ///
        /// # Safety
        /// As [`Heap::poison`].
        pub(crate) unsafe fn copied(&self, offset: u64) -> Option<Found> {
            // SAFETY: the caller's promise.
            unsafe {
                let (place, slot, _) = self.slot_at(offset);
                let found = inspect(place, slot)?;
                seal(place, slot, found.requested.unwrap_or(slot - TAIL));
                Some(found)
            }
        }

        /// The copy is the block now: tells what was found.
        pub(crate) fn moved_damaged(&self, slot: usize, handle: RawHandle, found: &Found) {
            report_found(slot, handle, found, Call::Compact);
        }
    }

    impl Cache {
        /// Gives a function the place and slot bytes of a block, which stays meanwhile.
        unsafe fn held<T>(
            &self,
            handle: RawHandle,
            f: impl FnOnce(*mut u8, usize) -> T,
        ) -> Result<T, Error> {
            // SAFETY: the calling thread is the cache's, as callers promise; the block stays while it is locked.
            unsafe {
                match self.lock_shared_plain(handle) {
                    Ok(place) => {
                        let slot = self
                            .heap()
                            .usable_bytes(place.offset_from_unsigned(self.heap().base) as u64);
                        let result = f(place, slot);
                        self.unlock_slow(handle)?;
                        Ok(result)
                    }
                    Err(Error::Locks) => {
                        let (_, word) = self.heap().resolve(handle)?;
                        let (place, slot, _) = self.heap().slot_at(word.offset());
                        Ok(f(place, slot))
                    }
                    Err(error) => Err(error),
                }
            }
        }

        /// As in an ordinary build; the block is sealed.
        ///
        /// # Safety
        /// The calling thread is the cache's.
        pub unsafe fn alloc(&self, size: usize) -> Result<RawHandle, Error> {
            // SAFETY: the caller's promise; the block has room for the tail.
            unsafe {
                let handle = self.alloc_plain(with_tail(size)?)?;
                self.held(handle, |place, slot| seal(place, slot, size))?;
                Ok(handle)
            }
        }

        /// As [`Cache::alloc`].
        ///
        /// # Safety
        /// As [`Cache::alloc`].
        pub unsafe fn alloc_aligned(
            &self,
            size: usize,
            alignment: usize,
        ) -> Result<RawHandle, Error> {
            // SAFETY: as above.
            unsafe {
                let handle = self.alloc_aligned_plain(with_tail(size)?, alignment)?;
                self.held(handle, |place, slot| seal(place, slot, size))?;
                Ok(handle)
            }
        }

        /// As in an ordinary build; [`Error::Damaged`]: the block is freed, and was damaged.
        ///
        /// # Safety
        /// As [`Cache::alloc`], and the handle has the heap's tag.
        pub unsafe fn free(&self, handle: RawHandle) -> Result<(), Error> {
            // SAFETY: the caller's promise. `free_slow` looks behind the block.
            unsafe { self.free_plain(handle) }
        }

        /// As in an ordinary build; [`Error::Damaged`]: it is not locked, and was damaged.
        ///
        /// # Safety
        /// As [`Cache::free`].
        pub unsafe fn lock(&self, handle: RawHandle) -> Result<*mut u8, Error> {
            // SAFETY: the caller's promise.
            unsafe { self.locked(handle, self.lock_plain(handle)?) }
        }

        /// As [`Cache::lock`].
        ///
        /// # Safety
        /// As [`Cache::lock`].
        pub unsafe fn lock_shared(&self, handle: RawHandle) -> Result<*mut u8, Error> {
            // SAFETY: the caller's promise.
            unsafe { self.locked(handle, self.lock_shared_plain(handle)?) }
        }

        unsafe fn locked(&self, handle: RawHandle, place: *mut u8) -> Result<*mut u8, Error> {
            // SAFETY: the block is locked at this place.
            unsafe {
                let slot = self
                    .heap()
                    .usable_bytes(place.offset_from_unsigned(self.heap().base) as u64);
                if is_damaged(place, slot, handle, Call::Lock) {
                    self.unlock_plain(handle)?;
                    return Err(Error::Damaged);
                }
            }
            Ok(place)
        }

        /// As in an ordinary build; [`Error::Damaged`]: it is unlocked, and was damaged.
        ///
        /// # Safety
        /// As [`Cache::alloc`].
        pub unsafe fn unlock(&self, handle: RawHandle) -> Result<(), Error> {
            // SAFETY: the caller's promise; a locked block stays where it is.
            unsafe {
                let mut damaged = false;
                if self.is_locked(handle) == Ok(true) {
                    let (_, word) = self.heap().resolve(handle)?;
                    let (place, slot, _) = self.heap().slot_at(word.offset());
                    damaged = is_damaged(place, slot, handle, Call::Unlock);
                }
                self.unlock_plain(handle)?;
                if damaged { Err(Error::Damaged) } else { Ok(()) }
            }
        }

        /// As in an ordinary build; [`Error::Damaged`]: it has its old size, and was damaged.
        ///
        /// # Safety
        /// As [`Cache::alloc`].
        pub unsafe fn resize(&self, handle: RawHandle, size: usize) -> Result<(), Error> {
            // SAFETY: the caller's promise; the block has room for the tail.
            unsafe {
                self.heap().resolve(handle)?;
                let with_tail = with_tail(size)?;
                if self.is_locked(handle)? {
                    return Err(Error::Locked);
                }
                if self.held(handle, |place, slot| {
                    is_damaged(place, slot, handle, Call::Resize)
                })? {
                    return Err(Error::Damaged);
                }
                self.resize_plain(handle, with_tail)?;
                self.held(handle, |place, slot| seal(place, slot, size))
            }
        }

        /// Bytes that were asked for.
        ///
        /// # Errors
        /// [`Error::Handle`], [`Error::Discarded`].
        pub fn usable_bytes(&self, handle: RawHandle) -> Result<usize, Error> {
            // SAFETY: callers have the cache of their thread; a block is there and stays.
            unsafe {
                self.held(handle, |place, slot| {
                    size_of_block(place, slot).unwrap_or(slot - TAIL)
                })
            }
        }
    }
}
