//! The C interface: the only mirror of `include/rmalloc.h`, which documents each function.
//!
//! Owned here: functions that a handle leads to its heap, and those of the default heap. Functions that name a
//! heap are in `ffi/heaps.rs`, what a heap is made with is in `ffi/options.rs`, the text of a status in `ffi/error.rs`.

mod error;
mod heaps;
mod options;

pub use error::rmerror;
pub use heaps::{
    rmheap_alloc, rmheap_alloc_aligned, rmheap_compact, rmheap_create, rmheap_destroy, rmheap_free,
    rmheap_on_move, rmheap_on_shortage, rmheap_owns, rmheap_stats, rmheap_t, rmmoved_t,
    rmshortage_t,
};
pub use options::{Options, rmalloc_init};

use crate::cache::Cache;
use crate::compact::Compaction;
use crate::handle::RawHandle;
use crate::status::Error;
use crate::system;
use crate::thread;
use core::ffi::{c_int, c_void};

/// 0 is success; else one of [`Error`]'s numbers.
#[allow(non_camel_case_types)]
pub type status_t = i32;

/// Opaque: the 64 bits of a handle.
#[allow(non_camel_case_types)]
pub enum memory_t {}

const OK: status_t = 0;

#[inline(always)]
fn status(result: Result<(), Error>) -> status_t {
    match result {
        Ok(()) => OK,
        Err(error) => error as status_t,
    }
}

#[inline(always)]
fn handle(memory: *mut memory_t) -> Result<RawHandle, Error> {
    RawHandle::from_bits(memory as u64).ok_or(Error::Handle)
}

/// The calling thread's cache of the default heap.
#[inline(always)]
fn default_cache() -> Result<&'static Cache, Error> {
    match thread::cache_of(thread::DEFAULT_TAG) {
        Ok(cache) => Ok(cache),
        Err(_) => {
            system::default_heap()?;
            thread::cache_of(thread::DEFAULT_TAG)
        }
    }
}

#[inline(always)]
fn positive(size: isize) -> Result<usize, Error> {
    if size > 0 {
        Ok(size as usize)
    } else {
        Err(Error::Size)
    }
}

/// Writes what was got to where the caller wants it.
#[inline(always)]
unsafe fn put<T>(out: *mut T, got: Result<T, Error>) -> status_t {
    match got {
        Ok(value) => {
            // SAFETY: the caller's pointer, checked for null.
            unsafe { out.write(value) };
            OK
        }
        Err(error) => error as status_t,
    }
}

#[inline(always)]
unsafe fn give(out: *mut *mut memory_t, made: Result<RawHandle, Error>) -> status_t {
    // SAFETY: the caller's pointer, checked for null.
    unsafe { put(out, made.map(|handle| handle.bits() as *mut memory_t)) }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `out` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmalloc(out: *mut *mut memory_t, size: isize) -> status_t {
    if out.is_null() {
        return Error::Argument as status_t;
    }
    if size > 0
        && let Some(cache) = thread::recent(thread::DEFAULT_TAG)
        // SAFETY: the cache is the calling thread's.
        && let Some(handle) = unsafe { cache.try_alloc(size as usize) }
    {
        // SAFETY: the caller's promise.
        unsafe { out.write(handle.bits() as *mut memory_t) };
        return OK;
    }
    // SAFETY: the caller's promise.
    unsafe { rmalloc_rare(out, size) }
}

#[cold]
#[inline(never)]
unsafe fn rmalloc_rare(out: *mut *mut memory_t, size: isize) -> status_t {
    // SAFETY: the cache is the calling thread's; the caller's promise.
    unsafe {
        give(
            out,
            positive(size).and_then(|size| default_cache()?.alloc(size)),
        )
    }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `out` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmalloc_aligned(
    out: *mut *mut memory_t,
    size: isize,
    alignment: usize,
) -> status_t {
    if out.is_null() {
        return Error::Argument as status_t;
    }
    // SAFETY: as above.
    unsafe {
        give(
            out,
            positive(size).and_then(|size| default_cache()?.alloc_aligned(size, alignment)),
        )
    }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `address` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmlock(memory: *mut memory_t, address: *mut *mut c_void) -> status_t {
    if address.is_null() {
        return Error::Argument as status_t;
    }
    if let Some(handle) = RawHandle::from_bits(memory as u64)
        && let Some(cache) = thread::recent(handle.tag())
        // SAFETY: the cache is the calling thread's, of the handle's heap.
        && let Some(place) = unsafe { cache.try_lock(handle) }
    {
        // SAFETY: the caller's promise.
        unsafe { address.write(place.as_ptr().cast()) };
        return OK;
    }
    // SAFETY: the caller's promise.
    unsafe { rmlock_rare(memory, address) }
}

#[cold]
#[inline(never)]
unsafe fn rmlock_rare(memory: *mut memory_t, address: *mut *mut c_void) -> status_t {
    // SAFETY: the cache is the calling thread's, of the handle's heap; the caller's promise.
    unsafe {
        let place = handle(memory).and_then(|handle| thread::cache_for(handle)?.lock(handle));
        put(address, place.map(<*mut u8>::cast))
    }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `address` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmlock_shared(
    memory: *mut memory_t,
    address: *mut *mut c_void,
) -> status_t {
    if address.is_null() {
        return Error::Argument as status_t;
    }
    // SAFETY: as above.
    unsafe {
        let place =
            handle(memory).and_then(|handle| thread::cache_for(handle)?.lock_shared(handle));
        put(address, place.map(<*mut u8>::cast))
    }
}

/// See `rmalloc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn rmunlock(memory: *mut memory_t) -> status_t {
    if let Some(handle) = RawHandle::from_bits(memory as u64)
        && let Some(cache) = thread::recent(handle.tag())
        // SAFETY: the cache is the calling thread's.
        && unsafe { cache.try_unlock(handle) }
    {
        return OK;
    }
    rmunlock_rare(memory)
}

#[cold]
#[inline(never)]
fn rmunlock_rare(memory: *mut memory_t) -> status_t {
    // SAFETY: the cache is the calling thread's, of the handle's heap.
    unsafe { status(handle(memory).and_then(|handle| thread::cache_for(handle)?.unlock(handle))) }
}

/// See `rmalloc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn rmfree(memory: *mut memory_t) -> status_t {
    if let Some(handle) = RawHandle::from_bits(memory as u64)
        && let Some(cache) = thread::recent(handle.tag())
        // SAFETY: the cache is the calling thread's, of the handle's heap.
        && unsafe { cache.try_free(handle) }
    {
        return OK;
    }
    rmfree_rare(memory)
}

#[cold]
#[inline(never)]
fn rmfree_rare(memory: *mut memory_t) -> status_t {
    // SAFETY: the cache is the calling thread's, of the handle's heap.
    unsafe { status(handle(memory).and_then(|handle| thread::cache_for(handle)?.free(handle))) }
}

/// See `rmalloc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn rmresize(memory: *mut memory_t, size: isize) -> status_t {
    // SAFETY: the cache is the calling thread's, of the handle's heap.
    unsafe {
        status(
            handle(memory)
                .and_then(|handle| thread::cache_for(handle)?.resize(handle, positive(size)?)),
        )
    }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `usable` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmsize(memory: *mut memory_t, usable: *mut usize) -> status_t {
    if usable.is_null() {
        return Error::Argument as status_t;
    }
    let bytes = handle(memory).and_then(|handle| thread::cache_for(handle)?.usable_bytes(handle));
    // SAFETY: the caller's promise.
    unsafe { put(usable, bytes) }
}

/// See `rmalloc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn rmdiscardable(memory: *mut memory_t, discardable: c_int) -> status_t {
    status(
        handle(memory).and_then(|handle| {
            thread::cache_for(handle)?.set_discardable(handle, discardable != 0)
        }),
    )
}

/// See `rmalloc.h`.
///
/// # Safety
/// `result` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmcompact(budget_ns: u64, result: *mut Compaction) -> status_t {
    // SAFETY: the caller's promise.
    unsafe { rmheap_compact(core::ptr::null_mut(), budget_ns, result) }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `stats` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmstats(stats: *mut crate::Stats) -> status_t {
    // SAFETY: the caller's promise.
    unsafe { rmheap_stats(core::ptr::null_mut(), stats) }
}

/// The first invariant of the default heap that does not hold; for tests.
///
/// # Errors
/// That one. There is no heap yet: none.
#[cfg(any(test, feature = "check"))]
#[doc(hidden)]
pub fn check_default() -> Result<(), crate::check::Violation> {
    // SAFETY: tests call it while no other thread is in a call.
    thread::heap_of(thread::DEFAULT_TAG).map_or(Ok(()), |heap| unsafe { crate::check::check(heap) })
}

/// As on a kernel without membarrier(2), from the first heap on; for tests, before any other call.
#[cfg(any(test, feature = "check"))]
#[doc(hidden)]
pub fn forbid_barrier() {
    crate::os::forbid_barrier();
}
