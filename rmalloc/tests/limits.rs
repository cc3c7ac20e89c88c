//! Little memory: address space and data limited before and after a heap exists, heaps over given memory of every size
//! and at any address, full heaps and full tables. What can't be had is an error code, what was there before stays.
//! Each test of the default heap runs in a forked child of its own.

#[path = "stress/load.rs"]
#[allow(dead_code)]
mod load;

use load::{Block, Random, allocate, demand, end, verify};
use rmalloc::ffi::*;
use rmalloc::{Error, LocalHeap, RawHandle};
use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Runs `work` in a forked child, of which the heap is untouched so far.
fn in_child(work: impl FnOnce()) {
    // SAFETY: the child uses the heap and the C library's allocator, and ends by `_exit`.
    unsafe {
        let child = libc::fork();
        demand!(child >= 0, true, "fork");
        if child == 0 {
            libc::alarm(100);
            work();
            libc::_exit(0);
        }
        let mut status = 0;
        demand!(libc::waitpid(child, &mut status, 0), child, "waitpid");
        demand!(status, 0, "status of a child");
    }
}

/// A line of /proc/self/status, in bytes.
fn in_use(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit())
        .parse::<u64>()
        .unwrap()
        << 10
}

fn limit(what: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: reads one rlimit.
    demand!(unsafe { libc::setrlimit(what, &limit) }, 0, "setrlimit");
}

fn end_all(blocks: Vec<Block>) {
    blocks.into_iter().for_each(end);
    demand!(check_default(), Ok(()), "after all blocks ended");
}

/// `ulimit -v`, from nothing at all to plenty.
#[test]
fn address_space_is_limited_before_the_first_call() {
    for more in [
        0u64,
        4 << 10,
        100 << 10,
        1 << 20,
        3 << 20,
        5_000_001,
        16 << 20,
        200 << 20,
        3 << 30,
    ] {
        in_child(|| {
            let mut random = Random(more);
            // What this process needs for itself.
            let mut blocks = Vec::<Block>::with_capacity(200_000);
            limit(libc::RLIMIT_AS, in_use("VmSize:") + more);
            let mut count = 0;
            let mut refused = false;
            while count < 20_000 {
                match allocate(random.size() % 3000 + 1, 16, count) {
                    Some(block) => blocks.push(block),
                    None => {
                        refused = true;
                        break;
                    }
                }
                count += 1;
            }
            for block in &blocks {
                verify(block, "under a limit");
            }
            demand!(
                refused || more > 16 << 20,
                true,
                "{more} bytes held {count} blocks"
            );
            demand!(
                count > 0 || more < 5 << 20,
                true,
                "{more} bytes held nothing"
            );
            if more >= 16 << 20 {
                // At least a quarter of what there is can be used.
                demand!(
                    blocks.iter().map(|block| block.size as u64).sum::<u64>()
                        > (more / 4).min(4 << 20),
                    true,
                    "{more} bytes held {count} blocks"
                );
            }
            blocks.into_iter().for_each(end);
            // With addresses again it works, also if it never did.
            limit(libc::RLIMIT_AS, libc::RLIM_INFINITY);
            end(allocate(1000, 16, 1).expect("memory without a limit"));
            demand!(check_default(), Ok(()), "with {more} bytes");
        });
    }
}

/// The kernel refuses to make more of a heap's range writable (RLIMIT_DATA counts that): what is there can be used.
#[test]
fn memory_is_refused_after_the_heap_exists() {
    for more in [0u64, 50 << 10, 1 << 20, 9 << 20] {
        in_child(|| {
            let mut random = Random(more);
            let first: Vec<Block> = (0..3000)
                .filter_map(|at| allocate(random.size(), 16, at))
                .collect();
            demand!(first.len(), 3000, "blocks without a limit");
            // Of the test's own there is nothing more to allocate once the limit is there.
            let mut later = Vec::with_capacity(400_000);
            let mut again = Vec::with_capacity(20_000);
            let mut kept = Vec::with_capacity(3000);
            limit(libc::RLIMIT_DATA, in_use("VmData:") + more);
            while let Some(block) = allocate(random.size(), 16, later.len() as u64) {
                later.push(block);
                demand!(later.len() < 300_000, true, "never refused");
            }
            for block in first.iter().chain(&later) {
                verify(block, "while memory is refused");
            }
            demand!(check_default(), Ok(()), "while memory is refused");
            // Half of the blocks end: others have room again, as many as there are entries for.
            for (at, block) in first.into_iter().enumerate() {
                if at % 2 == 0 {
                    kept.push(block)
                } else {
                    end(block)
                }
            }
            while again.len() < 1_400 {
                match allocate(700, 16, again.len() as u64) {
                    Some(block) => again.push(block),
                    None => load::fault(format_args!(
                        "{more}: no room for block {} of 700 bytes: {:#?}",
                        again.len(),
                        load::stats()
                    )),
                }
            }
            load::compact(0);
            again
                .iter()
                .chain(&kept)
                .chain(&later)
                .for_each(|block| verify(block, "after room was found"));
            limit(libc::RLIMIT_DATA, libc::RLIM_INFINITY);
            end(allocate(40 << 20, 16, 5).expect("memory without a limit"));
            end_all(again);
            end_all(kept);
            end_all(later);
        });
    }
}

/// Nothing at all is given: each function says so.
#[test]
fn all_memory_is_refused() {
    in_child(|| {
        // One page: 0 is not kept by the kernel.
        limit(libc::RLIMIT_DATA, 4096);
        let mut memory: *mut memory_t = null_mut();
        for _ in 0..3 {
            // SAFETY: writes one handle, or nothing.
            demand!(
                // SAFETY: writes one value, or nothing.
                unsafe { rmalloc(&mut memory, 100) },
                Error::Memory as i32,
                "rmalloc"
            );
            demand!(memory.is_null(), true, "nothing was written");
            // SAFETY: as above.
            demand!(
                // SAFETY: writes one value, or nothing.
                unsafe { rmcompact(0, null_mut()) },
                Error::Memory as i32,
                "rmcompact"
            );
            demand!(
                rmfree(0x1_0000_0000_0007 as *mut memory_t),
                Error::Handle as i32,
                "rmfree of an invented handle"
            );
        }
        limit(libc::RLIMIT_DATA, libc::RLIM_INFINITY);
        end_all(vec![allocate(100, 16, 1).expect("memory")]);
    });
}

/// Sizes that no heap holds.
#[test]
fn absurd_sizes_are_refused() {
    in_child(|| {
        let mut memory: *mut memory_t = null_mut();
        let block = allocate(100, 16, 1).unwrap();
        for size in [0, -1, isize::MIN, isize::MAX, 1 << 62, 1 << 47] {
            // SAFETY: writes one handle, or nothing.
            demand!(
                // SAFETY: writes one value, or nothing.
                unsafe { rmalloc(&mut memory, size) },
                Error::Size as i32,
                "rmalloc({size})"
            );
            demand!(
                rmresize(block.memory(), size),
                Error::Size as i32,
                "rmresize({size})"
            );
        }
        // With entries beside blocks a heap has 32 GiB at most.
        const ABSURD_GIB: isize = if cfg!(feature = "beside") { 30 } else { 60 };
        // More than the machine has, less than addresses: either is an answer, but a clear one.
        // SAFETY: as above.
        let status = unsafe { rmalloc(&mut memory, ABSURD_GIB << 30) };
        demand!(
            status == 0 || status == Error::Memory as i32,
            true,
            "rmalloc of {ABSURD_GIB} GiB: {status}"
        );
        if status == 0 {
            demand!(rmfree(memory), 0, "rmfree of so many GiB");
        }
        for alignment in [0, 3, 24, 8192, usize::MAX] {
            // SAFETY: as above.
            demand!(
                // SAFETY: writes one value, or nothing.
                unsafe { rmalloc_aligned(&mut memory, 100, alignment) },
                Error::Alignment as i32,
                "alignment {alignment}"
            );
        }
        verify(&block, "after all that");
        end_all(vec![block]);
    });
}

/// A heap over any memory is made, or says that it is too small; made, it holds blocks until it is full.
#[test]
fn given_memory_of_every_size_at_any_address() {
    let mut memory = vec![MaybeUninit::new(0xa5u8); (2 << 20) + 5000];
    let mut least = usize::MAX;
    let mut made = 0;
    let mut bytes = 0;
    let mut random = Random(3);
    while bytes <= 2 << 20 {
        let skip = random.below(4100);
        let (before, rest) = memory.split_at_mut(skip);
        let (given, after) = rest.split_at_mut(bytes);
        match LocalHeap::new(given, None) {
            Err(error) => {
                assert_eq!(error, Error::HeapTooSmall, "{bytes} bytes, {skip} skipped");
                // Twice the least that was enough is always enough.
                assert!(bytes < 128 << 10, "{bytes} bytes are too small");
            }
            Ok(heap) => {
                made += 1;
                least = least.min(bytes);
                fill_and_empty(&heap, &mut random, bytes);
            }
        }
        // Not a byte beside what was given has changed.
        assert!(
            before
                .iter()
                .rev()
                .take(4096)
                .chain(after.iter().take(4096))
                // SAFETY: every byte was initialised.
                .all(|byte| unsafe { byte.assume_init() } == 0xa5)
        );
        memory.fill(MaybeUninit::new(0xa5));
        bytes += 1 + 2 * random.below(if bytes < 200_000 { 1500 } else { 15_000 });
    }
    println!("{made} heaps, the smallest of {least} bytes");
    assert!(made > 100 && least < 128 << 10, "{made} {least}");
}

fn fill_and_empty(heap: &LocalHeap, random: &mut Random, bytes: usize) {
    let mut blocks: Vec<(RawHandle, usize)> = Vec::new();
    let error = loop {
        let size = 1 + random.below(1 + bytes / 200);
        match heap.alloc(size) {
            Ok(handle) => {
                heap.with(handle, |place| place[..size].fill(size as u8))
                    .unwrap();
                blocks.push((handle, size));
            }
            Err(error) => break error,
        }
        assert!(blocks.len() <= bytes / 16, "more blocks than can be");
    };
    assert!(
        matches!(error, Error::Memory | Error::Table),
        "{bytes}: {error}"
    );
    assert_eq!(heap.check(), Ok(()));
    for (at, (handle, size)) in blocks.iter().enumerate() {
        assert!(
            heap.with(*handle, |place| place[..*size]
                .iter()
                .all(|byte| *byte == *size as u8))
                .unwrap()
        );
        if at % 2 == 0 {
            heap.free(*handle).unwrap();
        }
    }
    heap.compact(0);
    assert_eq!(heap.check(), Ok(()));
    for (handle, size) in blocks.iter().skip(1).step_by(2) {
        assert!(
            heap.with(*handle, |place| place[..*size]
                .iter()
                .all(|byte| *byte == *size as u8))
                .unwrap()
        );
        heap.free(*handle).unwrap();
    }
    heap.compact(0);
    assert_eq!(heap.check(), Ok(()));
    assert_eq!(heap.stats().live_blocks, 0);
}

/// Least blocks until the table or the heap is full; freed, as many fit again.
#[test]
fn a_full_heap_is_used_again() {
    let mut memory = vec![MaybeUninit::uninit(); 700_001];
    let heap = LocalHeap::new(&mut memory[1..], None).unwrap();
    let mut counts = Vec::new();
    for _ in 0..5 {
        let mut blocks = Vec::new();
        let error = loop {
            match heap.alloc(16) {
                Ok(handle) => blocks.push(handle),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Memory | Error::Table), "{error}");
        assert!(heap.alloc(1).is_err() && heap.alloc(5000).is_err());
        counts.push(blocks.len());
        for handle in &blocks {
            heap.free(*handle).unwrap();
        }
        for handle in blocks {
            assert_eq!(heap.free(handle), Err(Error::Handle));
        }
        heap.compact(0);
        assert_eq!(heap.check(), Ok(()));
    }
    assert!(
        counts[0] > 10_000 && counts.iter().all(|count| count + 64 >= counts[0]),
        "{counts:?}"
    );
}

/// Contents that may be dropped are, when memory is short; those of locked and of other blocks never.
#[test]
fn discardable_blocks_make_room() {
    let mut memory = vec![MaybeUninit::uninit(); 512 << 10];
    let heap = LocalHeap::new(&mut memory, None).unwrap();
    let mut blocks = Vec::new();
    for at in 0..60 {
        let size = 40 + at * 29;
        let handle = heap.alloc(size).unwrap();
        heap.with(handle, |place| place[..size].fill(at as u8))
            .unwrap();
        // A third stays as it is, a third may be dropped, a third may be and is locked.
        if at % 3 != 0 {
            heap.set_discardable(handle, true).unwrap();
        }
        if at % 3 == 2 {
            heap.lock(handle).unwrap();
        }
        blocks.push((handle, size));
    }
    let mut more = Vec::new();
    while let Ok(handle) = heap.alloc(500) {
        more.push(handle);
    }
    let mut dropped = 0;
    for (at, (handle, size)) in blocks.iter().enumerate() {
        let may_be = at % 3 == 1;
        match heap.lock(*handle) {
            Err(error) => {
                assert_eq!((error, may_be), (Error::Discarded, true), "block {at}");
                assert_eq!(heap.usable_bytes(*handle), Err(Error::Discarded));
                assert_eq!(heap.resize(*handle, 10), Err(Error::Discarded));
                assert_eq!(heap.set_discardable(*handle, false), Err(Error::Discarded));
                assert_eq!(heap.unlock(*handle), Err(Error::NotLocked));
                dropped += 1;
            }
            Ok(place) => {
                // SAFETY: the block is locked and has that many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(place, *size) };
                assert!(bytes.iter().all(|byte| *byte == at as u8), "block {at}");
                heap.unlock(*handle).unwrap();
            }
        }
    }
    assert!(dropped > 0, "memory was short, and nothing was dropped");
    assert_eq!(heap.stats().compaction.blocks_discarded, dropped);
    assert_eq!(heap.check(), Ok(()));
    for (at, (handle, _)) in blocks.iter().enumerate() {
        if at % 3 == 2 {
            assert_eq!(heap.free(*handle), Err(Error::Locked));
            heap.unlock(*handle).unwrap();
        }
        assert_eq!(heap.free(*handle), Ok(()));
        assert_eq!(heap.free(*handle), Err(Error::Handle));
    }
    more.into_iter()
        .for_each(|handle| heap.free(handle).unwrap());
    assert_eq!(heap.check(), Ok(()));
    assert_eq!(heap.stats().live_blocks, 0);
}

/// More blocks at a time than 16 bits can name.
#[test]
fn blocks_are_told_apart() {
    in_child(|| {
        let blocks: Vec<Block> = (0..70_000).filter_map(|at| allocate(16, 16, at)).collect();
        demand!(blocks.len(), 70_000, "blocks");
        blocks.iter().for_each(|block| verify(block, "one of many"));
        end_all(blocks);
    });
}

/// An entry is used until its generations are used up, then never again: no handle comes back.
#[test]
fn no_handle_comes_back() {
    let mut memory = vec![MaybeUninit::uninit(); 512 << 10];
    let heap = LocalHeap::new(&mut memory, None).unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut first = None;
    for _ in 0..140_000 {
        let handle = heap.alloc(32).unwrap();
        assert!(seen.insert(handle), "{handle:?} a second time");
        heap.free(handle).unwrap();
        let first = *first.get_or_insert(handle);
        assert_eq!(heap.lock(first).err(), Some(Error::Handle));
        assert_eq!(heap.free(first), Err(Error::Handle));
    }
    assert_eq!(heap.stats().entries_retired, 2);
    assert_eq!(heap.check(), Ok(()));
}
