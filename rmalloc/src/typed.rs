//! Handles with a type, in safe Rust: a [`Handle`] owns its block and the value in it, a [`Guard`] locks it and
//! derefs. This file owns the two traits that tie them to heaps and to shapes of values; what a block is and how
//! it is locked is `crate::cache`'s.
//!
//! Why it is sound:
//!
//! - A handle borrows its heap, so no handle outlives the heap, and no heap is destroyed while one is in use. A handle
//!   that was forgotten (`mem::forget`) can't be used any more; its block goes with the heap, and its value is not dropped.
//! - A guard borrows its handle, so a handle is dropped, resized or taken apart only while no guard of it is in use. A
//!   guard that was forgotten leaves its lock behind: the block does not move again, and is not given back before the
//!   heap is. That is a leak, and nothing worse.
//! - A value is moved by copying its bytes, as Rust moves every value, and only while nobody borrows it. So any `T` will
//!   do; but a `T` that is not `Unpin` can't be pinned here: no guard hands out a `Pin`, for the value has no fixed place
//!   once the guard is gone.
//! - A lock may lie in the records of the thread that took it, so guards stay in their thread. Handles go anywhere that
//!   their values may go.
//!
//! ```
//! # use rmalloc::{Error, Handle, Heap, Options};
//! # fn main() -> Result<(), Error> {
//! let heap = Heap::with(&Options::new())?;
//! let mut name = heap.alloc(String::from("block"))?;
//! name.lock_mut().push_str(" that moves");
//! heap.compact(std::time::Duration::ZERO)?;
//! assert_eq!(*name.lock(), "block that moves");
//! let squares: Handle<[u64], _> = heap.alloc_slice_with(100, |at| (at * at) as u64)?;
//! assert_eq!(squares.lock()[9], 81);
//! # Ok(())
//! # }
//! ```
//!
//! A reference does not outlive its guard:
//!
//! ```compile_fail,E0505
//! # use rmalloc::Heap;
//! let handle = Heap::default_heap().unwrap().alloc(1u32).unwrap();
//! let guard = handle.lock();
//! let value: &u32 = &guard;
//! drop(guard);
//! println!("{value}");
//! ```
//!
//! A handle is not dropped, resized or taken apart while it is locked:
//!
//! ```compile_fail,E0505
//! # use rmalloc::Heap;
//! let handle = Heap::default_heap().unwrap().alloc(1u32).unwrap();
//! let guard = handle.lock();
//! drop(handle);
//! println!("{}", *guard);
//! ```
//!
//! ```compile_fail,E0502
//! # use rmalloc::Heap;
//! let mut handle = Heap::default_heap().unwrap().alloc_slice_with(9, |_| 0u8).unwrap();
//! let guard = handle.lock();
//! handle.resize(10, 0).unwrap();
//! println!("{}", guard[0]);
//! ```
//!
//! Who writes is alone:
//!
//! ```compile_fail,E0502
//! # use rmalloc::Heap;
//! let mut handle = Heap::default_heap().unwrap().alloc(1u32).unwrap();
//! let reader = handle.lock();
//! *handle.lock_mut() = 2;
//! println!("{}", *reader);
//! ```
//!
//! No handle outlives its heap:
//!
//! ```compile_fail,E0505
//! # use rmalloc::{Heap, Options};
//! let heap = Heap::with(&Options::new()).unwrap();
//! let handle = heap.alloc(1u32).unwrap();
//! drop(heap);
//! println!("{}", *handle.lock());
//! ```
//!
//! Guards stay in their thread:
//!
//! ```compile_fail,E0277
//! # use rmalloc::Heap;
//! let handle = Heap::default_heap().unwrap().alloc(1u32).unwrap();
//! let guard = handle.lock();
//! std::thread::scope(|scope| { scope.spawn(move || println!("{}", *guard)); });
//! ```
//!
//! Handles go only where their values may go:
//!
//! ```compile_fail,E0277
//! # use rmalloc::Heap;
//! let handle = Heap::default_heap().unwrap().alloc(std::rc::Rc::new(1)).unwrap();
//! std::thread::spawn(move || drop(handle));
//! ```
//!
//! No guard hands out a pinned value that could move:
//!
//! ```compile_fail,E0277
//! # use rmalloc::Heap;
//! # use std::{marker::PhantomPinned, pin::Pin};
//! let mut handle = Heap::default_heap().unwrap().alloc(PhantomPinned).unwrap();
//! let mut guard = handle.lock_mut();
//! let pinned = Pin::new(&mut *guard);
//! ```

mod guard;
mod handle;
#[cfg(feature = "system")]
mod heap;
mod local;

pub use guard::{Guard, GuardMut};
pub use handle::{Handle, Refused};
#[cfg(feature = "system")]
pub use heap::{Heap, In, Options};
pub use local::TypedLocalHeap;

use crate::handle::RawHandle;
use core::alloc::Layout;
use core::ptr::slice_from_raw_parts_mut;

/// The heap of a handle that names none: one that lives as long as the program.
#[cfg(feature = "system")]
pub type DefaultHome = In<'static>;
/// The heap of a handle that names none: one that lives as long as the program.
#[cfg(not(feature = "system"))]
pub type DefaultHome = &'static TypedLocalHeap<'static>;

mod sealed {
    use crate::cache::Cache;
    use crate::status::Error;

    pub trait Home: Copy {
        /// The calling thread's cache of the heap with this tag.
        ///
        /// # Errors
        /// [`Error::Memory`]: as many threads as can be use the heap already.
        #[allow(private_interfaces)]
        fn cache(&self, tag: u64) -> Result<&Cache, Error>;
    }

    pub trait Shape {}
}

/// A borrowed heap, as handles have it: [`In`] or `&`[`TypedLocalHeap`].
#[allow(private_bounds)]
pub trait Home: sealed::Home {}

/// What can lie in a block: a value of a known size, or a slice.
///
/// # Safety
/// Not for others to implement.
pub unsafe trait Shape: sealed::Shape {
    /// What a handle has to know beside the place: the length of a slice.
    type Meta: Copy;

    /// Size and alignment; `None`: more bytes than can be.
    fn layout(meta: Self::Meta) -> Option<Layout>;

    /// The value at a place.
    fn at(place: *mut u8, meta: Self::Meta) -> *mut Self;
}

impl<T> sealed::Shape for T {}
impl<T> sealed::Shape for [T] {}

// SAFETY: the layout is the type's own.
unsafe impl<T> Shape for T {
    type Meta = ();

    fn layout((): ()) -> Option<Layout> {
        Some(Layout::new::<T>())
    }

    fn at(place: *mut u8, (): ()) -> *mut T {
        place.cast()
    }
}

// SAFETY: the layout is the slice's own.
unsafe impl<T> Shape for [T] {
    type Meta = usize;

    fn layout(len: usize) -> Option<Layout> {
        Layout::array::<T>(len).ok()
    }

    fn at(place: *mut u8, len: usize) -> *mut [T] {
        slice_from_raw_parts_mut(place.cast(), len)
    }
}

/// Entry number of a handle without a block: values of no bytes need none. No table has so many entries.
const NOWHERE: u32 = u32::MAX;

/// A handle that only tells its heap.
fn nowhere(tag: u64) -> RawHandle {
    RawHandle::new(tag, NOWHERE, 0)
}

fn has_block(raw: RawHandle) -> bool {
    raw.index() != NOWHERE
}
