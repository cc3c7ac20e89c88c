//! Threads one at a time: what they leave behind when they end, blocks that one allocates and another frees, and more
//! threads than a heap has places for. Nothing here depends on who comes first; that is `stress.rs`' business. One
//! test, as the default heap's counters are the process'.

#[path = "stress/load.rs"]
#[allow(dead_code)]
mod load;

use load::{Block, allocate, compact, demand, end, lock, resize, stats, unlock, verify, verify_at};
use rmalloc::Error;
use rmalloc::ffi::*;
use std::ptr::null_mut;
use std::sync::{Arc, Barrier, mpsc};

fn whole() {
    assert_eq!(check_default(), Ok(()));
}

#[test]
fn threads() {
    let tables = stats().span_bytes;
    blocks_that_others_free_leave_no_memory_behind(tables);
    a_full_region_that_others_empty_is_found_again();
    locks_of_a_thread_that_ended_are_given_back_by_others();
    locks_of_a_thread_that_lives_are_its_own();
    locks_of_others_hold();
    locks_are_counted_to_their_end();
    a_block_of_another_thread_is_resized();
    one_thread_too_many_is_told();
    compact(0);
    whole();
    assert_eq!(stats().live_blocks, 0);
}

/// Runs in a thread and waits for its very end.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().expect("a fault ends the process"))
}

/// One allocates, the other frees, both live on: memory goes back.
fn blocks_that_others_free_leave_no_memory_behind(tables: u64) {
    let (give, take) = mpsc::sync_channel::<Vec<Block>>(0);
    let (done, wait) = mpsc::sync_channel::<()>(0);
    std::thread::scope(|scope| {
        let threads = [
            scope.spawn(move || {
                for round in 0..20 {
                    let blocks = (0..4000).filter_map(|at| {
                        allocate(1 + (at * 37) % 900, 16, round << 32 | at as u64)
                    });
                    give.send(blocks.collect()).unwrap();
                    wait.recv().unwrap();
                    let now = stats();
                    demand!(now.live_blocks, 0, "all were freed");
                    // One round's blocks are 2 MB.
                    assert!(
                        now.span_bytes - tables < 12 << 20,
                        "round {round}: {now:#?}"
                    );
                }
                // Its owner has seen none of it since: compaction collects what came back.
                compact(0);
                let now = stats();
                assert!(
                    now.span_bytes - tables < 3 << 20 && now.resident_bytes < 4 << 20,
                    "{now:#?}"
                );
            }),
            scope.spawn(move || {
                for blocks in take {
                    assert_eq!(blocks.len(), 4000);
                    blocks.into_iter().for_each(end);
                    done.send(()).unwrap();
                }
            }),
        ];
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    whole();
}

/// Blocks of one size fill regions to the last slot; what another thread frees of them is used again.
fn a_full_region_that_others_empty_is_found_again() {
    let mut blocks: Vec<Block> = (0..5000).filter_map(|at| allocate(256, 16, at)).collect();
    let before = stats().span_bytes;
    for round in 0..10 {
        let half = blocks.split_off(2500);
        elsewhere(|| half.into_iter().for_each(end));
        blocks.extend((0..2500).filter_map(|at| allocate(256, 16, round * 10_000 + at)));
        blocks.rotate_left(777);
    }
    assert_eq!(blocks.len(), 5000);
    let now = stats().span_bytes;
    assert!(
        now <= before + before / 4 && now <= before + (512 << 10),
        "{before} bytes of spans became {now}"
    );
    blocks.into_iter().for_each(end);
    whole();
}

/// Also more than the thread had records for, several of one block, and given back in any order.
fn locks_of_a_thread_that_ended_are_given_back_by_others() {
    let left = elsewhere(|| {
        let mut blocks: Vec<Block> = (0..30)
            .filter_map(|at| allocate(100 + at * 50, 16, at as u64))
            .collect();
        for block in &mut blocks[..12] {
            block.locked_at = Some(lock(block) as usize);
        }
        demand!(
            lock(&blocks[3]) as usize,
            blocks[3].locked_at.unwrap(),
            "the same place"
        );
        blocks
    });
    compact(0);
    whole();
    for (at, block) in left.into_iter().enumerate().rev() {
        if let Some(place) = block.locked_at {
            demand!(
                rmfree(block.memory()),
                Error::Locked as i32,
                "the thread ended, its locks did not"
            );
            demand!(
                lock(&block) as usize,
                place,
                "a locked block stays where it is"
            );
            unlock(&block);
            unlock(&block);
            if at == 3 {
                unlock(&block);
            }
        }
        demand!(
            rmunlock(block.memory()),
            Error::NotLocked as i32,
            "all locks were given back"
        );
        end(block);
    }
    whole();
}

/// Another thread can't give back a lock by `rmlock`, nor free or resize the block; its own lock beside it is counted.
fn locks_of_a_thread_that_lives_are_its_own() {
    let block = allocate(300, 16, 9).unwrap();
    let place = lock(&block) as usize;
    elsewhere(|| {
        demand!(rmfree(block.memory()), Error::Locked as i32, "rmfree");
        demand!(
            rmresize(block.memory(), 5000),
            Error::Locked as i32,
            "rmresize"
        );
        demand!(
            rmunlock(block.memory()),
            Error::NotLocked as i32,
            "rmunlock"
        );
        demand!(lock(&block) as usize, place, "rmlock");
        compact(0);
        demand!(lock(&block) as usize, place, "rmlock again");
        unlock(&block);
        unlock(&block);
        demand!(
            rmunlock(block.memory()),
            Error::NotLocked as i32,
            "rmunlock of a lock that is not ours"
        );
    });
    verify(&block, "still locked");
    unlock(&block);
    demand!(
        rmunlock(block.memory()),
        Error::NotLocked as i32,
        "rmunlock once too often"
    );
    end(block);
    whole();
}

/// A lock by another thread keeps the block's own thread from freeing it, and may be given back by it.
fn locks_of_others_hold() {
    let block = allocate(120, 16, 14).unwrap();
    let place = elsewhere(|| lock(&block) as usize);
    demand!(
        rmfree(block.memory()),
        Error::Locked as i32,
        "rmfree of the own block"
    );
    demand!(
        rmresize(block.memory(), 9000),
        Error::Locked as i32,
        "rmresize of the own block"
    );
    compact(0);
    demand!(lock(&block) as usize, place, "its place");
    unlock(&block);
    unlock(&block);
    end(block);
    whole();
}

/// As many locks as can be counted, one more is refused, and each is given back; the block is whole and in its place.
fn locks_are_counted_to_their_end() {
    let block = allocate(333, 16, 12).unwrap();
    let neighbour = allocate(333, 16, 13).unwrap();
    let take_all = || {
        let place = lock(&block);
        let mut count = 1;
        let refused = loop {
            let mut again = null_mut();
            // SAFETY: writes one pointer.
            match unsafe { rmlock(block.memory(), &mut again) } {
                0 => demand!(again.cast(), place, "the same place"),
                status => break status,
            }
            count += 1;
            assert!(count < 100, "no end of locks");
        };
        demand!(refused, Error::Locks as i32, "one lock too many");
        verify_at(&block, place, "with all its locks");
        compact(0);
        verify_at(&block, place, "with all its locks, compacted");
        for _ in 0..count {
            demand!(
                rmfree(block.memory()),
                Error::Locked as i32,
                "a lock is left"
            );
            unlock(&block);
        }
        demand!(
            rmunlock(block.memory()),
            Error::NotLocked as i32,
            "no lock is left"
        );
        verify(&block, "without locks");
        count
    };
    // Another thread's are counted in the entry; the owner has its records beside that.
    assert_eq!(elsewhere(take_all), 14);
    assert_eq!(take_all(), 14 + 8);
    end(block);
    end(neighbour);
    whole();
}

fn a_block_of_another_thread_is_resized() {
    let mut block = allocate(300, 16, 10).unwrap();
    for size in [1000, 50_000, 400_000, 700, 1] {
        block = elsewhere(move || {
            resize(&mut block, size);
            assert_eq!(block.size, size);
            block
        });
        verify(&block, "resized by another thread");
    }
    let left = elsewhere(|| {
        (0..100)
            .filter_map(|at| allocate(64, 16, at))
            .collect::<Vec<_>>()
    });
    compact(0);
    left.into_iter().for_each(end);
    end(block);
    whole();
}

/// 250 threads at a time have a place in a heap; others are refused, and find one when some have ended.
fn one_thread_too_many_is_told() {
    let most = 300;
    let barrier = Arc::new(Barrier::new(most));
    let threads: Vec<_> = (0..most)
        .map(|number| {
            let barrier = barrier.clone();
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let mut memory: *mut memory_t = null_mut();
                    // SAFETY: writes one handle.
                    let status = unsafe { rmalloc(&mut memory, 40 + number as isize) };
                    // Nobody ends before all have begun.
                    barrier.wait();
                    (status, memory as usize)
                })
                .unwrap()
        })
        .collect();
    let results: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let refused = results
        .iter()
        .filter(|(status, _)| *status == Error::Memory as i32)
        .count();
    let made: Vec<_> = results.iter().filter(|(status, _)| *status == 0).collect();
    assert_eq!(refused + made.len(), most, "{results:?}");
    // This thread has one as well.
    assert_eq!(made.len(), 249);
    for (_, memory) in made {
        demand!(
            rmfree(*memory as *mut memory_t),
            0,
            "of a thread that ended"
        );
    }
    end(elsewhere(|| allocate(70, 16, 1)).unwrap());
    whole();
}
