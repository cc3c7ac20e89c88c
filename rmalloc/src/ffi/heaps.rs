//! Functions that name a heap; null is the default one, made if it is not there.

use super::{
    Options, default_cache, give, handle, memory_t, options, positive, put, status, status_t,
};
use crate::cache::Cache;
use crate::compact::{self, Compaction};
use crate::handle::RawHandle;
use crate::heap::Heap;
use crate::stats::Stats;
use crate::status::Error;
use crate::system;
use crate::thread;
use core::ffi::{c_int, c_void};

/// Opaque: the address of a heap.
#[allow(non_camel_case_types)]
pub enum rmheap_t {}

/// Called when memory is short: see `rmalloc.h`.
#[allow(non_camel_case_types)]
pub type rmshortage_t = Option<unsafe extern "C" fn(*mut c_void, usize) -> c_int>;

/// Called when a block has moved: see `rmalloc.h`. The handle comes as its 64 bits.
#[allow(non_camel_case_types)]
pub type rmmoved_t = Option<unsafe extern "C" fn(*mut c_void, u64, *mut u8, *mut u8)>;

/// The calling thread's cache of a heap.
fn cache_of(heap: *mut rmheap_t) -> Result<&'static Cache, Error> {
    if heap.is_null() {
        return default_cache();
    }
    thread::cache_of(thread::heap_at(heap.cast::<Heap>())?.tag)
}

/// A handle of that heap.
fn handle_of(cache: &Cache, memory: *mut memory_t) -> Result<RawHandle, Error> {
    let handle = handle(memory)?;
    if handle.tag() == cache.tag() {
        Ok(handle)
    } else {
        Err(Error::Handle)
    }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `out` is null or can be written to; `options` is null or what `rmalloc.h` says of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmheap_create(
    out: *mut *mut rmheap_t,
    options: *const Options,
) -> status_t {
    if out.is_null() {
        return Error::Argument as status_t;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let made = options::make(options, false);
        put(
            out,
            made.map(|heap| core::ptr::from_ref(heap).cast_mut().cast()),
        )
    }
}

/// See `rmalloc.h`.
///
/// # Safety
/// No other thread is in a call on this heap, or makes one; nobody uses its blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmheap_destroy(heap: *mut rmheap_t) -> status_t {
    if heap.is_null() {
        return Error::Argument as status_t;
    }
    // SAFETY: the caller's promise.
    status(unsafe { system::destroy(heap.cast()) })
}

/// See `rmalloc.h`.
///
/// # Safety
/// `out` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmheap_alloc(
    heap: *mut rmheap_t,
    out: *mut *mut memory_t,
    size: isize,
) -> status_t {
    if out.is_null() {
        return Error::Argument as status_t;
    }
    // SAFETY: the cache is the calling thread's; the caller's promise.
    unsafe {
        give(
            out,
            cache_of(heap).and_then(|cache| cache.alloc(positive(size)?)),
        )
    }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `out` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmheap_alloc_aligned(
    heap: *mut rmheap_t,
    out: *mut *mut memory_t,
    size: isize,
    alignment: usize,
) -> status_t {
    if out.is_null() {
        return Error::Argument as status_t;
    }
    // SAFETY: the cache is the calling thread's; the caller's promise.
    unsafe {
        give(
            out,
            cache_of(heap).and_then(|cache| cache.alloc_aligned(positive(size)?, alignment)),
        )
    }
}

/// See `rmalloc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn rmheap_free(heap: *mut rmheap_t, memory: *mut memory_t) -> status_t {
    // SAFETY: the cache is the calling thread's, and the handle has its tag.
    status(cache_of(heap).and_then(|cache| unsafe { cache.free(handle_of(cache, memory)?) }))
}

/// See `rmalloc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn rmheap_owns(heap: *mut rmheap_t, memory: *mut memory_t) -> status_t {
    status(cache_of(heap).and_then(|cache| {
        let handle = handle_of(cache, memory)?;
        cache.heap().resolve(handle).map(|_| ())
    }))
}

/// See `rmalloc.h`.
///
/// # Safety
/// `result` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmheap_compact(
    heap: *mut rmheap_t,
    budget_ns: u64,
    result: *mut Compaction,
) -> status_t {
    // SAFETY: the cache is the calling thread's; the caller's promise.
    unsafe {
        match cache_of(heap).and_then(|cache| compact::compact(cache, budget_ns).ok_or(Error::Busy))
        {
            Ok(done) => {
                if !result.is_null() {
                    result.write(done);
                }
                // The checking build tells there how much damage it met.
                if done.reserved != 0 {
                    Error::Damaged as status_t
                } else {
                    0
                }
            }
            Err(error) => error as status_t,
        }
    }
}

/// See `rmalloc.h`.
///
/// # Safety
/// `stats` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmheap_stats(heap: *mut rmheap_t, stats: *mut Stats) -> status_t {
    if stats.is_null() {
        return Error::Argument as status_t;
    }
    // SAFETY: the caller's promise.
    unsafe { put(stats, cache_of(heap).map(|cache| cache.heap().stats())) }
}

/// See `rmalloc.h`.
///
/// # Safety
/// The function is null, or may be called with the argument until another one is set or the heap is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmheap_on_shortage(
    heap: *mut rmheap_t,
    function: rmshortage_t,
    argument: *mut c_void,
) -> status_t {
    status(cache_of(heap).map(|cache| {
        let heap = cache.heap();
        heap.mutex.lock(&heap.platform);
        // SAFETY: the mutex is held.
        unsafe { heap.guarded().shortage = function.map(|function| (function, argument)) };
        heap.mutex.unlock(&heap.platform);
    }))
}

/// See `rmalloc.h`.
///
/// # Safety
/// As [`rmheap_on_shortage`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmheap_on_move(
    heap: *mut rmheap_t,
    function: rmmoved_t,
    argument: *mut c_void,
) -> status_t {
    status(cache_of(heap).map(|cache| {
        let heap = cache.heap();
        // The compactor reads it.
        heap.compacting.lock(&heap.platform);
        heap.moved
            .set(function.map(|function| (function, argument)));
        heap.compacting.unlock(&heap.platform);
    }))
}
