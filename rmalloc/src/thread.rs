//! What a thread knows of heaps: the one it used last, and its caches of the others. And the list of all heaps.
//!
//! A thread's variable is initial-exec TLS, so reading it is no call; `thread_local!` in a shared library would be one.

use crate::cache::Cache;
use crate::handle::{RawHandle, TAG_MASK, TAG_SHIFT};
use crate::heap::Heap;
use crate::mutex::Mutex;
use crate::os;
use crate::platform::Platform;
use crate::status::Error;
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use std::sync::OnceLock;

/// Heaps that can live at a time.
pub(crate) const HEAPS: usize = 250;
/// Tag of the default heap: place 0, first use.
pub(crate) const DEFAULT_TAG: u64 = 1 << TAG_SHIFT;

/// Of each thread.
#[repr(C)]
pub(crate) struct Current {
    /// Tag of the heap used last; 0: none. Others set it to 0 when that heap is destroyed.
    pub tag: AtomicU64,
    /// The thread's cache of it.
    pub cache: AtomicPtr<Cache>,
    known: AtomicPtr<Known>,
}

/// The thread's caches, by place of the heap. One page.
#[repr(C)]
struct Known {
    caches: [(u64, *mut Cache); HEAPS],
    current: *const Current,
    next: *mut Known,
    previous: *mut Known,
}

const _: () = assert!(size_of::<Known>() <= crate::platform::PAGE);

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
core::arch::global_asm!(
    ".pushsection .tbss, \"awT\", @nobits",
    ".globl rmalloc_thread_current",
    ".hidden rmalloc_thread_current",
    ".type rmalloc_thread_current, @object",
    ".size rmalloc_thread_current, 24",
    ".balign 8",
    "rmalloc_thread_current: .zero 24",
    ".popsection",
);

/// The calling thread's variable.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[inline(always)]
pub(crate) fn current() -> &'static Current {
    let at: *const Current;
    // SAFETY: computes the address of our own thread-local variable, which is all zeros at first: a valid value. It
    // lives as long as the thread, and references to it stay in the thread, but for those under the registry's mutex.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + rmalloc_thread_current@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) at,
            options(nostack, readonly, pure)
        );
        &*at
    }
}

/// The calling thread's variable.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[inline(always)]
pub(crate) fn current() -> &'static Current {
    thread_local! {
        static CURRENT: Current = const { Current { tag: AtomicU64::new(0), cache: AtomicPtr::new(null_mut()), known: AtomicPtr::new(null_mut()) } };
    }
    // SAFETY: as above.
    CURRENT.with(|current| unsafe { &*core::ptr::from_ref(current) })
}

/// A place for a heap.
struct Place {
    heap: AtomicPtr<Heap>,
    /// How often the place was used before, 8 bits of the tag.
    uses: AtomicU32,
}

/// All heaps and threads. `mutex` guards changes.
struct Registry {
    mutex: Mutex,
    places: [Place; HEAPS],
    /// Place that was taken last.
    last: AtomicU32,
    threads: UnsafeCell<*mut Known>,
}

impl Registry {
    fn is_free(&self, at: usize) -> bool {
        self.places[at].heap.load(Relaxed).is_null()
    }
}

// SAFETY: `threads` is guarded by the mutex, the rest is atomic.
unsafe impl Sync for Registry {}

static REGISTRY: Registry = Registry {
    mutex: Mutex::new(),
    places: [const {
        Place {
            heap: AtomicPtr::new(null_mut()),
            uses: AtomicU32::new(0),
        }
    }; HEAPS],
    last: AtomicU32::new(0),
    threads: UnsafeCell::new(null_mut()),
};

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(os::platform)
}

fn place_of(tag: u64) -> usize {
    ((tag >> TAG_SHIFT & 0xff) as usize).wrapping_sub(1)
}

/// The live heap with a tag.
pub(crate) fn heap_of(tag: u64) -> Option<&'static Heap> {
    let heap = REGISTRY.places.get(place_of(tag))?.heap.load(Acquire);
    // SAFETY: heaps in places live; one that is destroyed while it is used is the caller's error.
    let heap = unsafe { heap.as_ref()? };
    (heap.tag == tag).then_some(heap)
}

/// Makes a heap in a free place: `make` gets its tag. `first`: in place 0, the default heap's.
///
/// # Errors
/// [`Error::Memory`]: no place is free; and those of `make`.
pub(crate) fn register(
    first: bool,
    make: impl FnOnce(u64) -> Result<*mut Heap, Error>,
) -> Result<&'static Heap, Error> {
    begin();
    REGISTRY.mutex.lock(platform());
    // The places in turn: a tag comes back only after 256 heaps in each.
    let own = 1..HEAPS;
    let last = REGISTRY.last.load(Relaxed) as usize;
    let mut turn = (last + 1..HEAPS).chain(own.start..last + 1);
    let free = if first {
        Some(0)
    } else {
        turn.find(|&at| REGISTRY.is_free(at))
    };
    let free = free.filter(|&at| REGISTRY.is_free(at));
    let made = match free {
        None => Err(if first { Error::Busy } else { Error::Memory }),
        Some(at) => {
            let place = &REGISTRY.places[at];
            let uses = place.uses.load(Relaxed) as u64 & 0xff;
            make((uses << 8 | (at as u64 + 1)) << TAG_SHIFT).map(|heap| {
                place.heap.store(heap, Release);
                if !first {
                    REGISTRY.last.store(at as u32, Relaxed);
                }
                // SAFETY: just made.
                unsafe { &*heap }
            })
        }
    };
    REGISTRY.mutex.unlock(platform());
    made
}

/// Takes a heap off the list; its handles are refused from now on, and no thread knows it any more.
///
/// # Errors
/// [`Error::Heap`]: there is no such heap.
pub(crate) fn unregister(heap: *const Heap) -> Result<(), Error> {
    REGISTRY.mutex.lock(platform());
    let found = REGISTRY
        .places
        .iter()
        .position(|place| core::ptr::eq(place.heap.load(Relaxed), heap));
    let done = match found {
        Some(at) if !heap.is_null() => {
            let place = &REGISTRY.places[at];
            // SAFETY: it is registered.
            let tag = unsafe { (*heap).tag };
            place.heap.store(null_mut(), Release);
            place.uses.fetch_add(1, Relaxed);
            // SAFETY: the mutex guards the list; what threads look at is atomic, or only theirs and not looked at
            // while the heap is being destroyed.
            unsafe {
                let mut known = *REGISTRY.threads.get();
                while !known.is_null() {
                    if (*known).caches[at].0 == tag {
                        (*known).caches[at] = (0, null_mut());
                    }
                    let current = &*(*known).current;
                    let _ = current.tag.compare_exchange(tag, 0, Relaxed, Relaxed);
                    known = (*known).next;
                }
            }
            Ok(())
        }
        _ => Err(Error::Heap),
    };
    REGISTRY.mutex.unlock(platform());
    done
}

/// The live heap at an address, which may be anything: it is compared, and followed only if it is one.
/// Cost: up to 250 loads, none if the calling thread used the heap last.
///
/// # Errors
/// [`Error::Heap`].
pub(crate) fn heap_at(heap: *const Heap) -> Result<&'static Heap, Error> {
    let current = current();
    if current.tag.load(Relaxed) != 0 {
        // SAFETY: the thread's own cache of a live heap.
        let recent: *const Heap = unsafe { &*current.cache.load(Relaxed) }.heap();
        if core::ptr::eq(recent, heap) {
            // SAFETY: as above.
            return Ok(unsafe { &*recent });
        }
    }
    let is = |place: &&Place| core::ptr::eq(place.heap.load(Acquire), heap);
    if heap.is_null() || !REGISTRY.places.iter().any(|place| is(&place)) {
        return Err(Error::Heap);
    }
    // SAFETY: heaps in places live; one that is destroyed while it is used is the caller's error.
    Ok(unsafe { &*heap })
}

/// Place of a heap with this tag, 0 to [`HEAPS`] - 1.
pub(crate) fn place_in(tag: u64) -> Option<usize> {
    Some(place_of(tag)).filter(|&at| at < HEAPS)
}

/// The calling thread's cache of a heap, made if it has none.
///
/// # Errors
/// [`Error::Handle`]: no live heap has the tag. [`Error::Memory`].
#[inline(always)]
pub(crate) fn cache_of(tag: u64) -> Result<&'static Cache, Error> {
    let current = current();
    if current.tag.load(Relaxed) == tag {
        // SAFETY: the thread's own cache of a live heap.
        return Ok(unsafe { &*current.cache.load(Relaxed) });
    }
    switch(current, tag)
}

/// The calling thread's cache of a heap, if it is the one that it used last.
#[inline(always)]
pub(crate) fn recent(tag: u64) -> Option<&'static Cache> {
    let current = current();
    if current.tag.load(Relaxed) == tag {
        // SAFETY: the thread's own cache of a live heap.
        return Some(unsafe { &*current.cache.load(Relaxed) });
    }
    None
}

/// The calling thread's cache of a handle's heap.
///
/// # Errors
/// As [`cache_of`].
#[inline(always)]
pub(crate) fn cache_for(handle: RawHandle) -> Result<&'static Cache, Error> {
    cache_of(handle.bits() & TAG_MASK)
}

#[cold]
#[inline(never)]
fn switch(current: &'static Current, tag: u64) -> Result<&'static Cache, Error> {
    let heap = heap_of(tag).ok_or(Error::Handle)?;
    let known = know(current)?;
    // SAFETY: the page is the thread's own.
    let cached = unsafe { &mut (*known).caches[place_of(tag)] };
    if cached.0 != tag {
        *cached = (tag, heap.attach()?);
    }
    // SAFETY: the thread's own cache of a live heap.
    let cache = unsafe { &*cached.1 };
    // The fast paths pass no barrier of their own; where the platform has none to offer, they are not taken.
    if !cache.fenced {
        current.cache.store(cached.1, Relaxed);
        current.tag.store(tag, Relaxed);
    }
    Ok(cache)
}

/// The thread's page, made if it has none.
fn know(current: &'static Current) -> Result<*mut Known, Error> {
    let known = current.known.load(Relaxed);
    if !known.is_null() {
        return Ok(known);
    }
    let key = begin();
    let known: *mut Known = os::map(size_of::<Known>()).ok_or(Error::Memory)?.cast();
    REGISTRY.mutex.lock(platform());
    // SAFETY: the page is new; the mutex guards the list.
    unsafe {
        (*known).current = current;
        let threads = REGISTRY.threads.get();
        (*known).next = *threads;
        if !(*threads).is_null() {
            (**threads).previous = known;
        }
        *threads = known;
    }
    REGISTRY.mutex.unlock(platform());
    current.known.store(known, Relaxed);
    // SAFETY: the key is ours; `ended` takes what is stored here.
    unsafe { libc::pthread_setspecific(key, known.cast()) };
    Ok(known)
}

/// Once a process: the key whose destructor ends threads, and what is to be done when the process forks.
fn begin() -> libc::pthread_key_t {
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: writes one key; the functions are ours.
        unsafe {
            libc::pthread_key_create(&mut key, Some(ended));
            libc::pthread_atfork(
                Some(before_fork),
                Some(after_fork_in_parent),
                Some(after_fork_in_child),
            );
        }
        key
    })
}

/// A thread ends: its caches do.
unsafe extern "C" fn ended(known: *mut core::ffi::c_void) {
    let known: *mut Known = known.cast();
    let current = current();
    current.tag.store(0, Relaxed);
    current.known.store(null_mut(), Relaxed);
    // A heap may be destroyed just now: either it is off the list before, or not before we are done.
    REGISTRY.mutex.lock(platform());
    // SAFETY: the page is the thread's own, and the thread is in no call.
    unsafe {
        for (tag, cache) in (*known).caches {
            if tag != 0
                && let Some(heap) = heap_of(tag)
            {
                heap.detach(cache);
            }
        }
        forget(known);
    }
    REGISTRY.mutex.unlock(platform());
}

/// Takes a thread off the list. The registry's mutex is held.
unsafe fn forget(known: *mut Known) {
    // SAFETY: the caller holds the mutex, and nobody uses the page any more.
    unsafe {
        let (next, previous) = ((*known).next, (*known).previous);
        if !next.is_null() {
            (*next).previous = previous;
        }
        if previous.is_null() {
            *REGISTRY.threads.get() = next;
        } else {
            (*previous).next = next;
        }
        libc::munmap(
            known.cast(),
            size_of::<Known>().next_multiple_of(crate::platform::PAGE),
        );
    }
}

fn live_heaps() -> impl Iterator<Item = &'static Heap> {
    // SAFETY: heaps in places live; the caller holds the registry's mutex.
    REGISTRY
        .places
        .iter()
        .filter_map(|place| unsafe { place.heap.load(Acquire).as_ref() })
}

/// The calling thread's cache of the heap in a place, or null; `mine` is the thread's page, or null.
unsafe fn own_cache(mine: *const Known, place: usize, heap: &Heap) -> *mut Cache {
    // SAFETY: the page is the thread's own.
    match unsafe { mine.as_ref() }.map(|known| known.caches[place]) {
        Some((tag, cache)) if tag == heap.tag => cache,
        _ => null_mut(),
    }
}

/// Every heap is made to stand still between calls, so that the child finds it whole.
unsafe extern "C" fn before_fork() {
    REGISTRY.mutex.lock(platform());
    for heap in live_heaps() {
        heap.forking.store(1, SeqCst);
    }
    let mine = current().known.load(Relaxed);
    for (at, place) in REGISTRY.places.iter().enumerate() {
        // SAFETY: heaps in places live; the page is ours.
        unsafe {
            let Some(heap) = place.heap.load(Acquire).as_ref() else {
                continue;
            };
            let own = own_cache(mine, at, heap);
            (heap.platform.barrier)();
            for cache in &heap.caches {
                let cache = cache.load(Acquire);
                // What they need to get through is not held yet.
                while !cache.is_null() && cache != own && (*cache).slow.load(Acquire) != 0 {
                    os::yield_now();
                }
            }
        }
    }
    for heap in live_heaps() {
        heap.compacting.lock(&heap.platform);
        heap.mutex.lock(&heap.platform);
        for cache in &heap.caches {
            // SAFETY: caches of live heaps; their atomics may be looked at by anybody.
            if let Some(cache) = unsafe { cache.load(Acquire).as_ref() } {
                cache.paused.store(1, Relaxed);
            }
        }
        (heap.platform.barrier)();
        for cache in &heap.caches {
            // SAFETY: as above.
            if let Some(cache) = unsafe { cache.load(Acquire).as_ref() } {
                while cache.op.load(Acquire) != 0 {
                    os::yield_now();
                }
            }
        }
    }
}

fn go_on() {
    for heap in live_heaps() {
        for cache in &heap.caches {
            // SAFETY: as above.
            if let Some(cache) = unsafe { cache.load(Acquire).as_ref() } {
                cache.paused.store(0, Release);
            }
        }
        heap.mutex.unlock(&heap.platform);
        heap.compacting.unlock(&heap.platform);
        heap.forking.store(0, Release);
        (heap.platform.wake)(&heap.forking);
    }
    REGISTRY.mutex.unlock(platform());
}

unsafe extern "C" fn after_fork_in_parent() {
    go_on();
}

/// The other threads are gone: what they had is nobody's now. Their locks stay, and any thread can give them back.
unsafe extern "C" fn after_fork_in_child() {
    os::register_barrier();
    let mine = current().known.load(Relaxed);
    // SAFETY: this is the only thread; the mutexes are held.
    unsafe {
        let mut known = *REGISTRY.threads.get();
        while !known.is_null() {
            let next = (*known).next;
            if known != mine {
                forget(known);
            }
            known = next;
        }
    }
    go_on();
    for (at, place) in REGISTRY.places.iter().enumerate() {
        // SAFETY: as above; the caches' threads are gone.
        unsafe {
            let Some(heap) = place.heap.load(Acquire).as_ref() else {
                continue;
            };
            let own = own_cache(mine, at, heap);
            for cache in &heap.caches {
                let cache = cache.load(Acquire);
                if !cache.is_null() && cache != own {
                    heap.detach(cache);
                }
            }
        }
    }
}
