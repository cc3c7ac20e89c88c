//! A heap of one thread over memory that the caller gives: no operating system, no other memory, `no_std`.

use crate::cache::Cache;
use crate::class::{ClassError, Classes, Geometry};
use crate::compact::Compaction;
use crate::handle::RawHandle;
use crate::heap::{Heap, Plan, Policy};
use crate::platform::Platform;
use crate::status::Error;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

/// A heap in memory of the caller's, for one thread.
///
/// ```
/// # use rmalloc::LocalHeap;
/// let mut memory = vec![core::mem::MaybeUninit::uninit(); 512 << 10];
/// let heap = LocalHeap::new(&mut memory, None).unwrap();
/// let block = heap.alloc(100).unwrap();
/// heap.with(block, |bytes| bytes[0] = 7).unwrap();
/// heap.free(block).unwrap();
/// assert!(heap.free(block).is_err());
/// ```
pub struct LocalHeap<'memory> {
    heap: *mut Heap,
    cache: *mut Cache,
    /// The memory is borrowed; not `Send`, not `Sync`.
    memory: PhantomData<(&'memory mut [MaybeUninit<u8>], *mut u8)>,
}

impl<'memory> LocalHeap<'memory> {
    /// A heap over `memory`, at any address; at least some 64 KiB. `clock_ns` tells the time, for budgets; without
    /// one a budget can't be kept, and each compaction runs to its end.
    ///
    /// # Errors
    /// [`Error::HeapTooSmall`].
    pub fn new(
        memory: &'memory mut [MaybeUninit<u8>],
        clock_ns: Option<fn() -> u64>,
    ) -> Result<LocalHeap<'memory>, Error> {
        // So that a block's bytes are bytes, whoever had them before. Cost: once over the memory.
        memory.fill(MaybeUninit::zeroed());
        let bytes = memory.len();
        let (geometry, classes) = layout_for(bytes).map_err(|_| Error::HeapTooSmall)?;
        let plan = Plan {
            geometry,
            classes,
            entries_max: bytes / 24,
            generation_max: 0xffff,
            limit_bytes: u64::MAX,
            given: true,
            #[cfg(feature = "beside")]
            leave_from_bytes: 0,
            policy: Policy {
                inline: false,
                nudge: None,
                trigger: 60_000,
                stop: 30_000,
                floor_bytes: 0,
                budget_ns: 200_000,
                cpu_share: 50_000,
                slack: 0,
            },
        };
        let mut platform = Platform::NONE;
        if let Some(clock_ns) = clock_ns {
            platform.clock_ns = clock_ns;
        }
        // SAFETY: the memory is ours as long as this heap lives.
        let heap = unsafe {
            Heap::create(
                memory.as_mut_ptr().cast(),
                bytes,
                &plan,
                1 << crate::handle::TAG_SHIFT,
                platform,
            )?
        };
        // SAFETY: the heap was just made.
        let cache = unsafe { &*heap }.attach()?;
        Ok(LocalHeap {
            heap,
            cache,
            memory: PhantomData,
        })
    }

    #[inline(always)]
    pub(crate) fn cache(&self) -> &Cache {
        // SAFETY: the cache lives in the heap, which lives in the borrowed memory.
        unsafe { &*self.cache }
    }

    fn is_ours(&self, handle: RawHandle) -> Result<(), Error> {
        if handle.tag() == self.cache().tag() {
            Ok(())
        } else {
            Err(Error::Handle)
        }
    }

    /// A block of `size` bytes.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Memory`], [`Error::Table`].
    pub fn alloc(&self, size: usize) -> Result<RawHandle, Error> {
        // SAFETY: not `Sync`: the calling thread is the cache's.
        unsafe { self.cache().alloc(size) }
    }

    /// As [`LocalHeap::alloc`], at a multiple of `alignment`, a power of two up to 4,096.
    ///
    /// # Errors
    /// And [`Error::Alignment`].
    pub fn alloc_aligned(&self, size: usize, alignment: usize) -> Result<RawHandle, Error> {
        // SAFETY: as above.
        unsafe { self.cache().alloc_aligned(size, alignment) }
    }

    /// Ends a block.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Locked`].
    pub fn free(&self, handle: RawHandle) -> Result<(), Error> {
        self.is_ours(handle)?;
        // SAFETY: as above.
        unsafe { self.cache().free(handle) }
    }

    /// Where the block is, until it is unlocked as often as it was locked. Its bytes are [`LocalHeap::usable_bytes`].
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Locks`], [`Error::Discarded`].
    pub fn lock(&self, handle: RawHandle) -> Result<*mut u8, Error> {
        self.is_ours(handle)?;
        // SAFETY: as above.
        unsafe { self.cache().lock(handle) }
    }

    /// Gives a lock back.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::NotLocked`].
    pub fn unlock(&self, handle: RawHandle) -> Result<(), Error> {
        // SAFETY: as above.
        unsafe { self.cache().unlock(handle) }
    }

    /// Gives the block to a function, locked meanwhile. A block that is locked already can't be given: there
    /// would be two that write to it.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Locked`], [`Error::Discarded`].
    pub fn with<T>(&self, handle: RawHandle, f: impl FnOnce(&mut [u8]) -> T) -> Result<T, Error> {
        if self.cache().is_locked(handle)? {
            return Err(Error::Locked);
        }
        let bytes = self.usable_bytes(handle)?;
        let place = self.lock(handle)?;
        // SAFETY: the block has these bytes and stays while it is locked. They are
        // initialised: `new` wrote the whole memory.
        let result = f(unsafe { core::slice::from_raw_parts_mut(place, bytes) });
        self.unlock(handle)?;
        Ok(result)
    }

    /// Gives the block another size. It keeps its handle, and its contents as far as they fit.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Handle`], [`Error::Locked`], [`Error::Memory`], [`Error::Discarded`].
    pub fn resize(&self, handle: RawHandle, size: usize) -> Result<(), Error> {
        // SAFETY: not `Sync`: the calling thread is the cache's.
        unsafe { self.cache().resize(handle, size) }
    }

    /// Bytes that the block can hold, at least as many as were asked for.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Discarded`].
    pub fn usable_bytes(&self, handle: RawHandle) -> Result<usize, Error> {
        self.cache().usable_bytes(handle)
    }

    /// Compacts for `budget_ns`, or until nothing is left to gain if it is 0.
    pub fn compact(&self, budget_ns: u64) -> Compaction {
        // SAFETY: as above.
        unsafe { crate::compact::compact(self.cache(), budget_ns) }.unwrap_or_default()
    }

    /// Says whether the contents may be dropped when memory is short and the block is not locked.
    ///
    /// # Errors
    /// [`Error::Handle`], [`Error::Locked`], [`Error::Discarded`].
    pub fn set_discardable(&self, handle: RawHandle, discardable: bool) -> Result<(), Error> {
        self.cache().set_discardable(handle, discardable)
    }

    /// What the heap holds.
    pub fn stats(&self) -> crate::Stats {
        // SAFETY: the heap lives.
        unsafe { &*self.heap }.stats()
    }

    /// Has compaction move blocks out of slots of so many bytes and more only.
    #[cfg(all(feature = "beside", any(test, feature = "check")))]
    pub fn set_leave_from(&mut self, bytes: u32) {
        // SAFETY: the heap lives, and its only thread is here.
        unsafe { (*self.heap).set_leave_from(bytes) };
    }

    /// The first invariant that does not hold, told in words.
    ///
    /// # Errors
    /// That one.
    #[cfg(any(test, feature = "check"))]
    pub fn check(&self) -> Result<(), crate::check::Violation> {
        // SAFETY: the heap lives, and its only thread is here.
        unsafe { crate::check::check(&*self.heap) }
    }
}

/// Spans, regions and size classes for a heap over so many bytes of the caller's. Each class in use takes a region, so small
/// heaps have few classes and small regions.
pub(crate) fn layout_for(bytes: usize) -> Result<(Geometry, Classes), ClassError> {
    /// At most 1/4 apart, and 1/8 from 128 bytes on.
    const FEW: [u32; 32] = [
        16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 192, 224, 256, 288, 320, 384, 448, 512, 576,
        640, 768, 896, 1024, 1152, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096,
    ];
    if bytes < 4 << 20 {
        let geometry = Geometry {
            region_bytes: 4 << 10,
            block_most: 512,
            ..Geometry::SMALL
        };
        return Ok((geometry, Classes::new(&FEW, &geometry)?));
    }
    let geometry = if bytes < 64 << 20 {
        Geometry::SMALL
    } else {
        Geometry {
            span_bytes: 16 << 10,
            region_bytes: 64 << 10,
            block_most: 8 << 10,
            larger_bytes: 256 << 10,
            largest: 32 << 10,
        }
    };
    Ok((geometry, Classes::with_default_sizes(&geometry)?))
}
