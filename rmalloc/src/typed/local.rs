//! Typed handles in a heap of one thread over memory that the caller gives; `no_std`.
//!
//! Apart from [`LocalHeap`], whose functions take any handle: with those, blocks could be freed behind the back of
//! the handles that own them.

use super::{Handle, Home, Refused, sealed};
use crate::cache::Cache;
use crate::compact::Compaction;
use crate::local::LocalHeap;
use crate::stats::Stats;
use crate::status::Error;
use core::mem::MaybeUninit;
use core::time::Duration;

/// A heap of one thread over memory of the caller's, with typed handles.
///
/// ```
/// # use rmalloc::{Error, TypedLocalHeap};
/// # fn main() -> Result<(), Error> {
/// let mut memory = vec![core::mem::MaybeUninit::uninit(); 512 << 10];
/// let heap = TypedLocalHeap::new(&mut memory, None)?;
/// let mut list = heap.alloc_slice(&[1u16, 2, 3])?;
/// list.resize(5, 9)?;
/// assert_eq!(*list.lock(), [1, 2, 3, 9, 9]);
/// # Ok(())
/// # }
/// ```
///
/// Its handles stay in its thread:
///
/// ```compile_fail,E0277
/// # use rmalloc::TypedLocalHeap;
/// let mut memory = vec![core::mem::MaybeUninit::uninit(); 512 << 10];
/// let heap = TypedLocalHeap::new(&mut memory, None).unwrap();
/// let handle = heap.alloc(1u8).unwrap();
/// std::thread::scope(|scope| { scope.spawn(|| *handle.lock()); });
/// ```
pub struct TypedLocalHeap<'memory> {
    heap: LocalHeap<'memory>,
}

impl sealed::Home for &TypedLocalHeap<'_> {
    #[allow(private_interfaces)]
    #[inline(always)]
    fn cache(&self, _tag: u64) -> Result<&Cache, Error> {
        Ok(self.heap.cache())
    }
}

impl Home for &TypedLocalHeap<'_> {}

impl<'memory> TypedLocalHeap<'memory> {
    /// As [`LocalHeap::new`].
    ///
    /// # Errors
    /// [`Error::HeapTooSmall`].
    pub fn new(
        memory: &'memory mut [MaybeUninit<u8>],
        clock_ns: Option<fn() -> u64>,
    ) -> Result<TypedLocalHeap<'memory>, Error> {
        Ok(TypedLocalHeap {
            heap: LocalHeap::new(memory, clock_ns)?,
        })
    }

    fn tag(&self) -> u64 {
        self.heap.cache().tag()
    }

    /// A block with the value in it.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Table`], [`Error::Size`]; [`Error::Alignment`]: more than 4,096. The value comes back.
    pub fn alloc<T>(&self, value: T) -> Result<Handle<T, &Self>, Refused<T>> {
        Handle::make(self.tag(), self, value)
    }

    /// A block with `len` elements, made by a function of their place.
    ///
    /// # Errors
    /// As [`TypedLocalHeap::alloc`].
    pub fn alloc_slice_with<T>(
        &self,
        len: usize,
        make: impl FnMut(usize) -> T,
    ) -> Result<Handle<[T], &Self>, Error> {
        Handle::make_with(self.tag(), self, len, make)
    }

    /// A block with clones of the elements.
    ///
    /// # Errors
    /// As [`TypedLocalHeap::alloc`].
    pub fn alloc_slice<T: Clone>(&self, elements: &[T]) -> Result<Handle<[T], &Self>, Error> {
        self.alloc_slice_with(elements.len(), |at| elements[at].clone())
    }

    /// Compacts for about `budget`, or until nothing is left to gain if it is zero or the heap has no clock.
    pub fn compact(&self, budget: Duration) -> Compaction {
        self.heap
            .compact(budget.as_nanos().min(u64::MAX as u128) as u64)
    }

    /// What the heap holds.
    pub fn stats(&self) -> Stats {
        self.heap.stats()
    }

    /// The first invariant that does not hold, told in words.
    ///
    /// # Errors
    /// That one.
    #[cfg(any(test, feature = "check"))]
    pub fn check(&self) -> Result<(), crate::check::Violation> {
        self.heap.check()
    }
}
