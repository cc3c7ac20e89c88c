//! Typed handles: values live and end as Rust says, wherever their blocks move.

use rmalloc::{Error, Handle, Heap, Options, TypedLocalHeap};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const ALL: Duration = Duration::ZERO;

fn heap() -> Heap {
    Heap::with(&Options::new().reserve_bytes(1 << 30).compact_inline(false)).expect("a heap")
}

/// Adds to a count when it ends.
#[derive(Clone)]
struct Counted<'a>(&'a Cell<usize>, #[allow(dead_code)] u64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn handles_are_small() {
    assert_eq!(size_of::<Handle<String>>(), 8);
    assert_eq!(size_of::<Option<Handle<String>>>(), 8);
    assert_eq!(size_of::<Handle<[u8]>>(), 16);
}

#[test]
fn values_survive_compaction() {
    let heap = heap();
    let mut handles: Vec<_> = (0..20_000)
        .map(|at| Some(heap.alloc(format!("value {at}")).unwrap()))
        .collect();
    for gone in handles.iter_mut().step_by(2) {
        *gone = None;
    }
    for gone in handles.iter_mut().skip(1).step_by(4) {
        *gone = None;
    }
    let done = heap.compact(ALL).unwrap();
    // With entries beside blocks, small ones stay: no page would be free.
    let moved = done.blocks_moved > 1000 || cfg!(feature = "beside");
    assert!(moved, "{done:?}");
    for (at, handle) in handles.iter().enumerate() {
        assert_eq!(handle.is_some(), at % 4 == 3);
        if let Some(handle) = handle {
            assert_eq!(*handle.lock(), format!("value {at}"));
        }
    }
}

#[test]
fn a_locked_value_stays_where_it_is() {
    let heap = heap();
    let mut handles: Vec<_> = (0u64..4000)
        .map(|at| heap.alloc([at; 6]).unwrap())
        .collect();
    let keep = handles.pop().unwrap();
    let other = handles.pop().unwrap();
    let before = (&raw const *other.lock()).addr();
    let first = keep.lock();
    let second = keep.lock();
    handles.truncate(100);
    let done = heap.compact(ALL).unwrap();
    let pinned = done.blocks_pinned > 0 || cfg!(feature = "beside");
    assert!(pinned, "{done:?}");
    assert_eq!(&raw const *first, &raw const *second);
    assert_eq!((*first, *second), ([3999; 6], [3999; 6]));
    let moved = before != (&raw const *other.lock()).addr() || cfg!(feature = "beside");
    assert!(moved, "{done:?}");
    assert_eq!(*other.lock(), [3998; 6]);
}

#[test]
fn drops_happen_once() {
    let ended = Cell::new(0);
    let memory = &mut vec![MaybeUninit::uninit(); 512 << 10];
    let heap = TypedLocalHeap::new(memory, None).unwrap();
    let one = heap.alloc(Counted(&ended, 1)).unwrap();
    let mut many = heap
        .alloc_slice_with(10, |at| Counted(&ended, at as u64))
        .unwrap();
    heap.compact(ALL);
    assert_eq!(ended.get(), 0);
    drop(one);
    assert_eq!(ended.get(), 1);
    many.resize_with(4, |_| unreachable!()).unwrap();
    assert_eq!((ended.get(), many.len()), (7, 4));
    many.resize_with(1000, |at| Counted(&ended, at as u64))
        .unwrap();
    assert_eq!(many.lock()[999].1, 999);
    assert_eq!((ended.get(), many.len()), (7, 1000));
    many.resize_with(0, |_| unreachable!()).unwrap();
    assert_eq!((ended.get(), many.raw()), (1007, None));
    drop(many);
    let inner = heap.alloc(Counted(&ended, 1)).unwrap().into_inner();
    assert_eq!(ended.get(), 1007);
    drop(inner);
    assert_eq!(ended.get(), 1008);
    assert_eq!(heap.stats().live_blocks, 0);
    heap.check().unwrap();
}

#[test]
fn a_panic_leaves_no_block_behind() {
    let ended = Cell::new(0);
    let memory = &mut vec![MaybeUninit::uninit(); 512 << 10];
    let heap = TypedLocalHeap::new(memory, None).unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        heap.alloc_slice_with(10, |at| {
            if at == 7 {
                panic!("seven")
            } else {
                Counted(&ended, 0)
            }
        })
        .map(drop)
    }));
    assert!(outcome.is_err());
    assert_eq!((ended.get(), heap.stats().live_blocks), (7, 0));

    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("at the end");
        }
    }
    let bad = heap.alloc((Bad, 1u64)).unwrap();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(bad))).is_err());
    assert_eq!(heap.stats().live_blocks, 0);
    heap.check().unwrap();
}

#[test]
fn no_bytes_take_no_block() {
    let ended = Cell::new(0);
    thread_local!(static ENDED: Cell<usize> = const { Cell::new(0) });
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            ENDED.set(ENDED.get() + 1);
        }
    }
    #[repr(align(8192))]
    struct Wide;
    let heap = heap();
    let unit = heap.alloc(()).unwrap();
    assert_eq!((*unit.lock(), unit.raw()), ((), None));
    let wide = heap.alloc(Wide).unwrap();
    assert_eq!((&raw const *wide.lock()).addr() % 8192, 0);
    drop(heap.alloc(Nothing).unwrap());
    assert_eq!(ENDED.get(), 1);
    let mut many = heap
        .alloc_slice_with(1 << 16, |_| ())
        .unwrap_or_else(|_| unreachable!());
    many.resize(3, ()).unwrap();
    assert_eq!(many.lock().len(), 3);
    let mut some = heap.alloc_slice_with(5, |_| Nothing).unwrap();
    some.resize_with(2, |_| Nothing).unwrap();
    assert_eq!(ENDED.get(), 4);
    drop(some);
    assert_eq!(ENDED.get(), 6);
    let mut empty = heap.alloc_slice_with(0, |_| Counted(&ended, 0)).unwrap();
    assert!(empty.is_empty() && empty.lock().is_empty() && empty.raw().is_none());
    empty.resize_with(2, |_| Counted(&ended, 5)).unwrap();
    assert_eq!(empty.lock()[1].1, 5);
    assert_eq!(heap.stats().live_blocks, 1);
    drop(empty);
    assert_eq!((ended.get(), heap.stats().live_blocks), (2, 0));
}

macro_rules! aligned {
    ($($name:ident $alignment:literal),*) => {$(
        #[repr(align($alignment))]
        #[derive(Clone, Copy, PartialEq, Debug)]
        struct $name(u64);
    )*};
}
aligned!(A32 32, A64 64, A256 256, A1024 1024, A4096 4096, A8192 8192);

#[test]
fn alignments_hold_wherever_the_block_moves() {
    fn hold<T: Copy + PartialEq + std::fmt::Debug>(heap: &Heap, make: impl Fn(u64) -> T + Copy) {
        let mut handles: Vec<_> = (0..200)
            .map(|at| {
                heap.alloc_slice_with(1 + at % 3, |place| make((at + place) as u64))
                    .unwrap()
            })
            .collect();
        for at in (0..100).rev() {
            handles.swap_remove(at * 2);
        }
        heap.compact(ALL).unwrap();
        for handle in &mut handles {
            let first = handle.lock()[0];
            handle.resize(7, first).unwrap();
            heap.compact(ALL).unwrap();
            let guard = handle.lock();
            assert_eq!(guard.as_ptr().addr() % align_of::<T>(), 0);
            assert_eq!((guard[0], guard[6]), (first, first));
        }
    }
    let heap = heap();
    hold(&heap, A32);
    hold(&heap, A64);
    hold(&heap, A256);
    hold(&heap, A1024);
    hold(&heap, A4096);
    let refused = heap.alloc(A8192(5)).unwrap_err();
    assert_eq!((refused.error, refused.value), (Error::Alignment, A8192(5)));
    assert_eq!(heap.alloc_slice(&[A8192(5)]).err(), Some(Error::Alignment));
    assert_eq!(heap.stats().live_blocks, 0);
}

#[test]
fn what_finds_no_room_comes_back() {
    let memory = &mut vec![MaybeUninit::uninit(); 256 << 10];
    let heap = TypedLocalHeap::new(memory, None).unwrap();
    let mut held = Vec::new();
    let refused = loop {
        match heap.alloc((String::from("mine"), [0u8; 1000])) {
            Ok(handle) => held.push(handle),
            Err(refused) => break refused,
        }
    };
    assert_eq!(
        (refused.error, refused.value.0.as_str()),
        (Error::Memory, "mine")
    );
    assert_eq!(
        heap.alloc_slice_with(usize::MAX / 4, |_| 0u64).err(),
        Some(Error::Size)
    );
    held.truncate(held.len() - 20);
    let mut slice = heap.alloc_slice(&[1u8, 2, 3]).unwrap();
    assert_eq!(slice.resize(1 << 20, 0), Err(Error::Size));
    assert_eq!(slice.resize(200 << 10, 0), Err(Error::Memory));
    assert_eq!(*slice.lock(), [1, 2, 3]);
}

#[test]
fn a_forgotten_guard_leaks_and_no_more() {
    let heap = heap();
    let mut handle = heap.alloc_slice(&[7u32; 10]).unwrap();
    std::mem::forget(handle.lock());
    std::mem::forget(handle.lock_mut());
    assert_eq!(handle.resize(1000, 0), Err(Error::Locked));
    handle.lock_mut()[3] = 8;
    let place = handle.lock().as_ptr().addr();
    heap.compact(ALL).unwrap();
    assert_eq!(handle.lock().as_ptr().addr(), place);
    drop(handle);
    assert_eq!(heap.stats().live_blocks, 1);
    let other = heap.alloc(1u8).unwrap();
    assert_eq!(*other.lock(), 1);
}

#[test]
fn guards_beyond_what_can_be_counted_are_refused() {
    let heap = heap();
    let handle = heap.alloc(5u8).unwrap();
    let mut guards = Vec::new();
    let error = loop {
        match handle.try_lock() {
            Ok(guard) => guards.push(guard),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::Locks);
    assert_eq!(guards.len(), 8 + 14);
    assert!(guards.iter().all(|guard| **guard == 5));
    drop(guards);
    assert_eq!(*handle.lock(), 5);
}

/// A reference from a guard that lives for ever holds, even if its thread ended and all others gave their locks back.
#[test]
fn a_leaked_guard_holds_after_its_thread() {
    let heap: &'static Heap = heap().leak();
    // In its own thread: 14 counted by another, then one recorded by itself and leaked.
    let (send, receive) = std::sync::mpsc::channel::<&'static Handle<[u64; 4]>>();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let owner = std::thread::spawn(move || {
        let mine: Vec<_> = (0..1000).map(|at| heap.alloc([at; 4]).unwrap()).collect();
        let mine: &'static mut Vec<_> = Box::leak(Box::new(mine));
        let last: &'static Handle<[u64; 4]> = Box::leak(Box::new(mine.pop().unwrap()));
        mine.truncate(3);
        send.send(last).unwrap();
        wait.recv().unwrap();
        let guard = Box::leak(Box::new(last.lock()));
        let value: &'static [u64; 4] = guard;
        value
    });
    let last = receive.recv().unwrap();
    let guards: Vec<_> = (0..14).map(|_| last.lock()).collect();
    done.send(()).unwrap();
    let value = owner.join().unwrap();
    drop(guards);
    heap.compact(ALL).unwrap();
    let filler: Vec<_> = (0..2000).map(|_| heap.alloc([1u64; 4]).unwrap()).collect();
    assert_eq!(*value, [999; 4]);
    assert_eq!(&raw const *value, &raw const *last.lock());
    drop(filler);
}

#[test]
fn threads_share_and_send_handles_while_blocks_move() {
    let heap = heap();
    let stop = AtomicBool::new(false);
    let shared: Vec<_> = (0u64..500)
        .map(|at| heap.alloc((at, AtomicU64::new(0))).unwrap())
        .collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..40 {
                        for (at, handle) in shared.iter().enumerate() {
                            let guard = handle.lock();
                            assert_eq!(guard.0, at as u64);
                            guard.1.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let (send, receive) = std::sync::mpsc::channel::<Handle<[u64], _>>();
        let maker = scope.spawn({
            let heap = &heap;
            move || {
                for at in 0..5000u64 {
                    let mut handle = heap
                        .alloc_slice_with(1 + at as usize % 40, |place| at ^ place as u64)
                        .unwrap();
                    if at % 3 == 0 {
                        handle.resize_with(50, |place| at ^ place as u64).unwrap();
                    }
                    send.send(handle).unwrap();
                }
            }
        });
        let ender = scope.spawn(move || {
            for (at, mut handle) in receive.into_iter().enumerate() {
                handle
                    .resize_with(60, |place| at as u64 ^ place as u64)
                    .unwrap();
                assert!(
                    handle
                        .lock()
                        .iter()
                        .enumerate()
                        .all(|(place, value)| *value == (at ^ place) as u64)
                );
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = heap.compact(ALL);
            }
        });
        for thread in readers.into_iter().chain([maker, ender]) {
            thread.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    for handle in &shared {
        assert_eq!(handle.lock().1.load(Ordering::Relaxed), 160);
    }
    assert_eq!(heap.stats().live_blocks, 500);
}

/// A scope does not wait for what its threads do at their very end, which is to leave the heap.
#[test]
fn a_heap_ends_while_its_threads_do() {
    for round in 0..300u64 {
        let heap = Heap::with(&Options::new().reserve_bytes(16 << 20)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_eq!(*heap.alloc(round).unwrap().lock(), round));
            }
        });
        drop(heap);
    }
}

#[test]
fn values_end_with_their_last_handle_not_with_the_heap() {
    let value = Arc::new(());
    let heap = heap();
    let first = heap.alloc(value.clone()).unwrap();
    std::mem::forget(heap.alloc(value.clone()).unwrap());
    drop(first);
    drop(heap);
    // The forgotten one is never dropped.
    assert_eq!(Arc::strong_count(&value), 2);
}

#[test]
fn handles_pass_through_c() {
    let heap = heap();
    let raw = heap.alloc([3u16; 50]).unwrap().into_raw().unwrap();
    let memory = raw.bits() as usize as *mut rmalloc::ffi::memory_t;
    let mut place = std::ptr::null_mut();
    // SAFETY: a live handle.
    unsafe {
        assert_eq!(rmalloc::ffi::rmlock(memory, &mut place), 0);
        *place.cast::<u16>() = 4;
        assert_eq!(rmalloc::ffi::rmunlock(memory), 0);
    }
    // SAFETY: it holds the array.
    let back: Handle<[u16; 50], _> = unsafe { Handle::from_raw(&heap, Some(raw)) };
    assert_eq!(back.lock()[..2], [4, 3]);
    let (raw, len) = heap.alloc_slice(&[1u8; 9]).unwrap().into_raw_parts();
    // SAFETY: it holds the slice.
    let slice: Handle<[u8], _> = unsafe { Handle::from_raw_parts(&heap, raw, len) };
    assert_eq!(*slice.lock(), [1; 9]);
    // SAFETY: nothing has no bytes.
    let none: Handle<(), _> =
        unsafe { Handle::from_raw(&heap, heap.alloc(()).unwrap().into_raw()) };
    assert_eq!(none.raw(), None);
}

#[test]
fn a_heap_over_given_memory() {
    let memory: &'static mut [MaybeUninit<u8>] =
        Box::leak(vec![MaybeUninit::uninit(); (512 << 10) + 3].into_boxed_slice());
    let range = memory.as_ptr_range();
    let heap = Heap::over(&mut memory[3..], &Options::new()).unwrap();
    let handle = heap.alloc([1u8; 100]).unwrap();
    assert!(range.contains(&(&raw const *handle.lock()).cast()));
    drop(handle);
    drop(heap);
    let small: &'static mut [MaybeUninit<u8>] =
        Box::leak(vec![MaybeUninit::uninit(); 100].into_boxed_slice());
    assert_eq!(
        Heap::over(small, &Options::new()).err(),
        Some(Error::HeapTooSmall)
    );
}

#[test]
fn the_default_heap_is_one() {
    let first = Heap::default_heap().unwrap();
    let handle: Handle<u32> = first.alloc(6).unwrap();
    assert!(std::ptr::eq(first, Heap::default_heap().unwrap()));
    let moved = std::thread::spawn(move || *handle.lock() + 1)
        .join()
        .unwrap();
    assert_eq!(moved, 7);
}
