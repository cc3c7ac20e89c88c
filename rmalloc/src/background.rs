//! Compaction by a thread of its own: started when a heap's policy first has work, ended with the heap.
//!
//! Owned here: the threads, one a heap at most, and what becomes of them at a fork (the child has none, and its
//! heaps start new ones when there is work). Left to others: when there is work and how much
//! ([`crate::compact`]), and that calls on the heap tell of it ([`crate::cache::Cache::work`]).

use crate::compact;
use crate::heap::Heap;
use crate::mutex::Mutex;
use crate::os;
use crate::platform::Platform;
use crate::thread;
use core::cell::UnsafeCell;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::{Arc, Once, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause between two steps, at least and at most.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Longest pause while much is free that can't be gained: locked blocks hold it.
const PAUSE_IN_VAIN: Duration = Duration::from_secs(1);

/// What a thread and those who start and end it share.
struct Shared {
    tag: u64,
    /// The heap is being destroyed.
    stop: AtomicBool,
    /// The thread waits for work, and somebody has to wake it.
    asleep: AtomicBool,
    /// The thread got no cache of the heap, and has ended.
    failed: AtomicBool,
}

struct Worker {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// The threads, by place of the heap. `mutex` guards them; it is taken before the registry's and a heap's.
struct Workers {
    mutex: Mutex,
    by_place: UnsafeCell<[Option<Worker>; thread::HEAPS]>,
}

// SAFETY: `by_place` is used under the mutex only.
unsafe impl Sync for Workers {}

static WORKERS: Workers = Workers {
    mutex: Mutex::new(),
    by_place: UnsafeCell::new([const { None }; thread::HEAPS]),
};

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(os::platform)
}

impl Workers {
    /// The worker of a heap.
    ///
    /// # Safety
    /// The caller holds the mutex, and no other reference from here.
    #[allow(clippy::mut_from_ref)]
    unsafe fn of(&self, tag: u64) -> Option<&mut Option<Worker>> {
        // SAFETY: the caller's promise.
        thread::place_in(tag).and_then(|at| unsafe { (*self.by_place.get()).get_mut(at) })
    }
}

/// Tells the heap's thread that there may be work, and starts it if there is none. False: there is work, and no
/// thread can be had for it. Cost without work: some loads.
///
/// The calling thread holds no lock of ours.
pub(crate) fn nudge(heap: &Heap) -> bool {
    if !compact::is_due(heap) || !WORKERS.mutex.try_lock() {
        return true;
    }
    // SAFETY: the mutex is held.
    let able = unsafe { WORKERS.of(heap.tag) }.is_some_and(|place| {
        if place.is_none() {
            *place = start(heap.tag);
        }
        match place {
            None => false,
            Some(worker) => {
                if worker.shared.asleep.swap(false, SeqCst) {
                    worker.thread.thread().unpark();
                }
                !worker.shared.failed.load(Acquire)
            }
        }
    });
    WORKERS.mutex.unlock(platform());
    able
}

/// Ends the heap's thread, if it has one, and waits until it has ended: a step at most.
pub(crate) fn stop(tag: u64) {
    WORKERS.mutex.lock(platform());
    // SAFETY: the mutex is held.
    let worker = unsafe { WORKERS.of(tag) }.and_then(|place| {
        let ours = place
            .as_ref()
            .is_some_and(|worker| worker.shared.tag == tag);
        if ours { place.take() } else { None }
    });
    WORKERS.mutex.unlock(platform());
    if let Some(worker) = worker {
        worker.shared.stop.store(true, SeqCst);
        worker.thread.thread().unpark();
        // It can't panic: the crate aborts then.
        let _ = worker.thread.join();
    }
}

/// To be called before the first heap with a thread is made.
pub(crate) fn prepare() {
    static AT_FORK: Once = Once::new();
    AT_FORK.call_once(|| os::at_fork(before_fork, after_fork_in_parent, after_fork_in_child));
}

/// `None`: the system refuses a thread.
fn start(tag: u64) -> Option<Worker> {
    let shared = Arc::new(Shared {
        tag,
        stop: AtomicBool::new(false),
        asleep: AtomicBool::new(false),
        failed: AtomicBool::new(false),
    });
    let theirs = Arc::clone(&shared);
    let builder = std::thread::Builder::new()
        .name("rmalloc".into())
        .stack_size(128 << 10);
    let thread = os::without_signals(|| builder.spawn(move || run(&theirs))).ok()?;
    Some(Worker { shared, thread })
}

/// The thread: a step, a pause that keeps to the policy's share of a processor, and sleep when nothing is left to do.
fn run(shared: &Shared) {
    let Ok(cache) = thread::cache_of(shared.tag) else {
        shared.failed.store(true, SeqCst);
        return;
    };
    let heap = cache.heap();
    let policy = heap.policy.get();
    let share = policy.cpu_share.max(1) as u64;
    let pause = Duration::from_nanos(policy.budget_ns.saturating_mul(1_000_000) / share)
        .clamp(PAUSE_MIN, PAUSE_MAX);
    let mut in_vain = PAUSE_MAX;
    while !shared.stop.load(SeqCst) {
        // SAFETY: the cache is this thread's, which is in no other call.
        unsafe { compact::by_policy(cache) };
        if compact::is_active(heap) {
            std::thread::park_timeout(pause);
            continue;
        }
        shared.asleep.store(true, SeqCst);
        // What became due before the store was not told.
        if compact::is_due(heap) {
            shared.asleep.store(false, Relaxed);
            std::thread::park_timeout(in_vain);
            in_vain = (in_vain * 2).min(PAUSE_IN_VAIN);
        } else if !shared.stop.load(SeqCst) {
            std::thread::park();
            in_vain = PAUSE_MAX;
        }
    }
}

unsafe extern "C" fn before_fork() {
    WORKERS.mutex.lock(platform());
}

unsafe extern "C" fn after_fork_in_parent() {
    WORKERS.mutex.unlock(platform());
}

/// The threads are not here. Their handles name nothing that may be touched, so they are forgotten, not dropped.
unsafe extern "C" fn after_fork_in_child() {
    // SAFETY: the mutex is held, by the only thread there is.
    for place in unsafe { &mut *WORKERS.by_place.get() } {
        core::mem::forget(place.take());
    }
    WORKERS.mutex.unlock(platform());
}
