//! A heap that threads share, with typed handles. This file owns when a heap is made and destroyed; how is
//! [`crate::system`]'s business.

use super::{Handle, Home, Refused, sealed};
use crate::cache::Cache;
use crate::compact::Compaction;
use crate::stats::Stats;
use crate::status::Error;
use crate::system::{self, Settings};
use crate::thread;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::time::Duration;
use std::sync::OnceLock;

/// What a [`Heap`] is made with.
#[derive(Clone)]
pub struct Options {
    settings: Settings,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The defaults: 64 GiB of addresses, no limit, compaction inside of calls.
    pub fn new() -> Options {
        Options {
            settings: Settings::defaults(),
        }
    }

    /// Addresses to set aside, bytes; they take no memory. Blocks and tables lie in them. Of no meaning to [`Heap::over`].
    pub fn reserve_bytes(mut self, bytes: u64) -> Options {
        self.settings.reserve_bytes = bytes;
        self
    }

    /// The heap takes no more bytes of memory than this.
    pub fn limit_bytes(mut self, bytes: u64) -> Options {
        self.settings.limit_bytes = bytes;
        self
    }

    /// Blocks that can live at a time.
    pub fn entries(mut self, entries: u32) -> Options {
        self.settings.entries_max = entries.clamp(1, 1 << 30) as u64;
        self
    }

    /// Compact inside of calls that allocate and free, a little at a time; else only when asked to, or out of memory.
    pub fn compact_inline(mut self, yes: bool) -> Options {
        self.settings.policy.inline = yes;
        self
    }
}

/// A heap for any number of blocks, of up to 250 threads at a time. Dropped, it gives all its memory back; handles
/// borrow it, so none is left by then. [`Heap::leak`] makes one that handles need not borrow.
pub struct Heap {
    heap: &'static crate::heap::Heap,
    owned: bool,
}

/// A borrowed [`Heap`], without a byte: handles tell the heap by themselves.
#[derive(Clone, Copy)]
pub struct In<'heap>(PhantomData<&'heap Heap>);

impl sealed::Home for In<'_> {
    #[allow(private_interfaces)]
    #[inline(always)]
    fn cache(&self, tag: u64) -> Result<&Cache, Error> {
        thread::cache_of(tag)
    }
}

impl Home for In<'_> {}

impl Heap {
    /// The heap of the C interface's functions without one, made at first use.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn default_heap() -> Result<&'static Heap, Error> {
        static DEFAULT: OnceLock<Heap> = OnceLock::new();
        if let Some(heap) = DEFAULT.get() {
            return Ok(heap);
        }
        let heap = system::default_heap()?;
        Ok(DEFAULT.get_or_init(|| Heap { heap, owned: false }))
    }

    /// A heap that grows from the system.
    ///
    /// # Errors
    /// [`Error::Memory`]: no memory, or 249 heaps live already.
    pub fn with(options: &Options) -> Result<Heap, Error> {
        Ok(Heap {
            heap: system::create(&options.settings, false)?,
            owned: true,
        })
    }

    /// A heap over memory that is given, and that never asks the system for more. `'static`, as a heap that is forgotten is
    /// known to its threads until they end.
    ///
    /// # Errors
    /// [`Error::HeapTooSmall`]; [`Error::Memory`]: 249 heaps live already.
    pub fn over(memory: &'static mut [MaybeUninit<u8>], options: &Options) -> Result<Heap, Error> {
        // SAFETY: the memory is borrowed for ever.
        let heap = unsafe {
            system::create_in(
                memory.as_mut_ptr().cast(),
                memory.len(),
                &options.settings,
                false,
            )?
        };
        Ok(Heap { heap, owned: true })
    }

    /// A heap that lives as long as the program.
    pub fn leak(self) -> &'static Heap {
        Box::leak(Box::new(self))
    }

    pub(super) fn tag(&self) -> u64 {
        self.heap.tag
    }

    pub(super) fn home(&self) -> In<'_> {
        In(PhantomData)
    }

    /// A block with the value in it. Cost: about 60 instructions and the copy.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Table`], [`Error::Size`]; [`Error::Alignment`]: more than 4,096. The value comes back.
    #[inline]
    pub fn alloc<T>(&self, value: T) -> Result<Handle<T, In<'_>>, Refused<T>> {
        Handle::make(self.tag(), self.home(), value)
    }

    /// A block with `len` elements, made by a function of their place.
    ///
    /// # Errors
    /// As [`Heap::alloc`].
    ///
    /// # Panics
    /// If the function does; the elements made so far are dropped then.
    pub fn alloc_slice_with<T>(
        &self,
        len: usize,
        make: impl FnMut(usize) -> T,
    ) -> Result<Handle<[T], In<'_>>, Error> {
        Handle::make_with(self.tag(), self.home(), len, make)
    }

    /// A block with clones of the elements.
    ///
    /// # Errors
    /// As [`Heap::alloc`].
    pub fn alloc_slice<T: Clone>(&self, elements: &[T]) -> Result<Handle<[T], In<'_>>, Error> {
        self.alloc_slice_with(elements.len(), |at| elements[at].clone())
    }

    /// Compacts for about `budget`, or until nothing is left to gain if it is zero.
    ///
    /// # Errors
    /// [`Error::Busy`]: another thread does; [`Error::Memory`]; [`Error::Damaged`]: it is done, and damage was found
    /// (checking build).
    pub fn compact(&self, budget: Duration) -> Result<Compaction, Error> {
        let cache = thread::cache_of(self.tag())?;
        let budget_ns = budget.as_nanos().min(u64::MAX as u128) as u64;
        // SAFETY: the cache is the calling thread's, which is in no other call.
        let done = unsafe { crate::compact::compact(cache, budget_ns) }.ok_or(Error::Busy)?;
        if done.reserved != 0 {
            Err(Error::Damaged)
        } else {
            Ok(done)
        }
    }

    /// What the heap holds.
    pub fn stats(&self) -> Stats {
        self.heap.stats()
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: nobody borrows the heap, so no thread is in a call on it or can make one.
            let _ = unsafe { system::destroy(self.heap) };
        }
    }
}
