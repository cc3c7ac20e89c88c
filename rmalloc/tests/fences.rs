//! The protocol under the memory model of Rust's atomics, where the system has no barrier: each thread passes a fence
//! of its own (`Cache::light_barrier` with `fenced`, `Platform::barrier`). loom runs all interleavings and all values that a
//! load may see. The barrier of the system has no place in that model; `tests/protocol.rs` proves it for x86.
//!
//! A model, not the real code: words of the real one lie in memory that the heap maps, loom's live in its own. The bits are
//! the real ones (src/entry.rs), and the orderings those of the functions that each step names.

#[allow(dead_code)]
#[path = "../src/entry.rs"]
mod entry;

use entry::{MOVING, SHARED_ONE, Word};
use loom::sync::Arc;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicU32, AtomicU64, fence};

/// Preemptions in a run of three threads. Without a bound `both_lock_while_the_block_moves` takes minutes.
const PREEMPTIONS: usize = 4;

const OWNER: u8 = 7;
const HANDLE: u64 = 99;
const GENERATION: u64 = 3;

/// What is kept of the protocol: all of it, or all but one rule, to see that it is found.
#[derive(Clone, Copy)]
struct Rules {
    /// `Cache::light_barrier` and `Platform::barrier` are fences.
    fences: bool,
    /// `paused` is read with acquire: who finds it 0 again finds the region's new owner too.
    acquires_paused: bool,
}

const ALL: Rules = Rules {
    fences: true,
    acquires_paused: true,
};

/// A block that is at one of two places, its owner's record, and a list that the owner or the compactor changes.
struct Heap {
    entry: AtomicU64,
    record: AtomicU64,
    op: AtomicU32,
    paused: AtomicU32,
    region_owner: AtomicU32,
    /// What somebody may only read and write while the region is his: twice the same value.
    list: [AtomicU32; 2],
    /// Contents at each place: what the owner and another thread wrote.
    contents: [[AtomicU32; 2]; 2],
    rules: Rules,
}

fn offset(place: usize) -> u64 {
    16 + 16 * place as u64
}

fn place(word: Word) -> usize {
    (word.offset() / 16 - 1) as usize
}

/// What `Cache::try_lock` asks of a word: live, of the handle's generation, the thread's own, neither moving nor discardable.
fn is_ours(word: Word) -> bool {
    word.is_live()
        && word.generation() == GENERATION
        && word.owner() == OWNER
        && !word.is_moving()
        && !word.is_discardable()
}

impl Heap {
    fn new(rules: Rules) -> Arc<Heap> {
        let zero = || [AtomicU32::new(0), AtomicU32::new(0)];
        Arc::new(Heap {
            entry: AtomicU64::new(Word::live(offset(0), OWNER, GENERATION).0),
            record: AtomicU64::new(0),
            op: AtomicU32::new(0),
            paused: AtomicU32::new(0),
            region_owner: AtomicU32::new(OWNER as u32),
            list: zero(),
            contents: [zero(), zero()],
            rules,
        })
    }

    fn barrier(&self) {
        if self.rules.fences {
            fence(SeqCst);
        }
    }

    /// `Cache::lock_slow`, in a record; `None`: the block is gone.
    fn lock(&self) -> Option<usize> {
        loop {
            self.record.store(HANDLE, Relaxed);
            self.barrier();
            let word = Word(self.entry.load(Acquire));
            if is_ours(word) {
                return Some(place(word));
            }
            self.record.store(0, Release);
            let word = Word(self.entry.load(Acquire));
            if !word.is_live() || word.generation() != GENERATION {
                return None;
            }
            if word.is_moving() {
                let _ = self
                    .entry
                    .compare_exchange(word.0, word.0 & !MOVING, AcqRel, Relaxed);
            }
        }
    }

    /// `Cache::try_unlock`.
    fn unlock(&self) {
        self.record.store(0, Release);
    }

    /// `Cache::lock_slow` by another thread.
    fn lock_counted(&self) -> Option<usize> {
        loop {
            let word = Word(self.entry.load(Acquire));
            if !word.is_live() || word.generation() != GENERATION {
                return None;
            }
            let wanted = (word.0 & !MOVING) + SHARED_ONE;
            if self
                .entry
                .compare_exchange(word.0, wanted, AcqRel, Relaxed)
                .is_ok()
            {
                return Some(place(word));
            }
        }
    }

    /// `Cache::unlock_slow`.
    fn unlock_counted(&self) {
        loop {
            let word = Word(self.entry.load(Acquire));
            assert!(
                word.shared() > 0 && !word.is_moving(),
                "a lock is not counted"
            );
            if self
                .entry
                .compare_exchange(word.0, word.0 - SHARED_ONE, AcqRel, Relaxed)
                .is_ok()
            {
                return;
            }
        }
    }

    /// What a thread does while it has the block locked.
    fn write(&self, place: usize, thread: usize, value: u32) {
        let of = &self.contents[place][thread];
        assert_eq!(
            of.load(Relaxed),
            value - 1,
            "what was written under the lock before is not seen"
        );
        of.store(value, Relaxed);
        let word = Word(self.entry.load(Relaxed));
        assert!(
            word.is_live() && self::place(word) == place,
            "a locked block was moved or freed"
        );
    }

    /// `evacuate::mark`, `evacuate::finish`.
    fn move_block(&self) {
        let word = Word(self.entry.load(Acquire));
        if !word.is_live() || word.shared() != 0 || word.is_moving() || place(word) != 0 {
            return;
        }
        let marked = Word(word.0 | MOVING);
        if self
            .entry
            .compare_exchange(word.0, marked.0, AcqRel, Relaxed)
            .is_err()
        {
            return;
        }
        self.barrier();
        if self.record.load(Acquire) == HANDLE {
            let _ = self
                .entry
                .compare_exchange(marked.0, word.0, AcqRel, Relaxed);
            return;
        }
        for thread in 0..2 {
            self.contents[1][thread].store(self.contents[0][thread].load(Relaxed), Relaxed);
        }
        let _ =
            self.entry
                .compare_exchange(marked.0, marked.moved_to(offset(1)).0, AcqRel, Relaxed);
    }

    /// `Cache::free_slow`; true: it was this call.
    fn free(&self) -> bool {
        loop {
            let word = Word(self.entry.load(Acquire));
            if !word.is_live() || word.generation() != GENERATION || word.shared() != 0 {
                return false;
            }
            let free = Word::free(GENERATION + 1, 0);
            if self
                .entry
                .compare_exchange(word.0, free.0, AcqRel, Relaxed)
                .is_ok()
            {
                return true;
            }
        }
    }

    /// `Cache::give_slot`: `begin`, `paused`, the region's owner, `end`.
    fn use_region(&self) {
        self.op.store(1, Relaxed);
        self.barrier();
        let paused = self.paused.load(if self.rules.acquires_paused {
            Acquire
        } else {
            Relaxed
        });
        if paused == 0 && self.region_owner.load(Acquire) == OWNER as u32 {
            self.change_list();
        }
        self.op.store(0, Release);
    }

    /// `compact::stop`, `compact::seize`.
    fn seize(&self) {
        self.paused.store(1, Relaxed);
        self.barrier();
        let stopped = self.op.load(Acquire) == 0;
        if stopped {
            self.region_owner.store(0, Release);
        }
        self.paused.store(0, Release);
        if stopped {
            self.change_list();
        }
    }

    /// A change of two words, by whoever has the region.
    fn change_list(&self) {
        let (first, second) = (self.list[0].load(Relaxed), self.list[1].load(Relaxed));
        assert_eq!(first, second, "a list is changed by two threads at once");
        self.list[0].store(first + 1, Relaxed);
        self.list[1].store(first + 1, Relaxed);
    }

    /// At the end: contents are where the entry leads.
    fn is_whole(&self, owners: u32, others: u32) {
        let word = Word(self.entry.load(Acquire));
        assert!(word.is_live() && word.shared() == 0 && !word.is_moving());
        let found = [0, 1].map(|thread| self.contents[place(word)][thread].load(Relaxed));
        assert_eq!(
            found,
            [owners, others],
            "what was written under a lock is lost"
        );
    }
}

/// All runs of two threads; of three those with at most [`PREEMPTIONS`].
fn all_runs(rules: Rules, threads: &'static [fn(&Heap)], at_end: fn(&Heap)) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = (threads.len() > 2).then_some(PREEMPTIONS);
    model.check(move || {
        let heap = Heap::new(rules);
        let (last, others) = threads.split_last().expect("a thread");
        let running: Vec<_> = others
            .iter()
            .map(|thread| {
                let heap = heap.clone();
                loom::thread::spawn(move || thread(&heap))
            })
            .collect();
        last(&heap);
        for thread in running {
            thread.join().expect("the thread ends");
        }
        at_end(&heap);
    });
}

fn owner_uses(heap: &Heap, value: u32) {
    let place = heap.lock().expect("nobody frees the block");
    heap.write(place, 0, value);
    heap.unlock();
}

fn other_uses(heap: &Heap) {
    let place = heap.lock_counted().expect("nobody frees the block");
    heap.write(place, 1, 1);
    heap.unlock_counted();
}

fn owner_uses_twice(heap: &Heap) {
    owner_uses(heap, 1);
    owner_uses(heap, 2);
}

fn use_region_twice(heap: &Heap) {
    heap.use_region();
    heap.use_region();
}

#[test]
fn the_owner_locks_while_the_block_moves() {
    all_runs(ALL, &[Heap::move_block, owner_uses_twice], |heap| {
        heap.is_whole(2, 0)
    });
}

#[test]
fn both_lock_while_the_block_moves() {
    all_runs(
        ALL,
        &[Heap::move_block, |heap| owner_uses(heap, 1), other_uses],
        |heap| heap.is_whole(1, 1),
    );
}

#[test]
fn a_block_ends_once() {
    fn free(heap: &Heap) {
        if heap.free() {
            heap.list[0].fetch_add(1, Relaxed);
        }
    }
    all_runs(ALL, &[Heap::move_block, free, free], |heap| {
        assert_eq!(heap.list[0].load(Relaxed), 1);
        assert!(!Word(heap.entry.load(Relaxed)).is_live());
    });
}

#[test]
fn a_region_is_taken_between_two_calls_of_its_owner() {
    all_runs(ALL, &[Heap::seize, use_region_twice], |_| {});
}

#[test]
#[should_panic(expected = "what was written under a lock is lost")]
fn without_fences_a_locked_block_moves() {
    all_runs(
        Rules {
            fences: false,
            ..ALL
        },
        &[Heap::move_block, owner_uses_twice],
        |heap| heap.is_whole(2, 0),
    );
}

#[test]
#[should_panic(expected = "a list is changed by two threads at once")]
fn without_fences_a_region_is_taken_within_a_call() {
    all_runs(
        Rules {
            fences: false,
            ..ALL
        },
        &[Heap::seize, Heap::use_region],
        |_| {},
    );
}

#[test]
#[should_panic(expected = "a list is changed by two threads at once")]
fn a_pause_is_seen_to_end_before_the_region_is_gone() {
    all_runs(
        Rules {
            acquires_paused: false,
            ..ALL
        },
        &[Heap::seize, use_region_twice],
        |_| {},
    );
}
