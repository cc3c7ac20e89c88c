//! fork(2) while other threads allocate, lock, resize and compact: the child has every block with every byte, can use
//! the heap, start threads and fork again; locks of threads that it does not have stay, and can be given back. One
//! test, as the default heap is the process'.

#[path = "stress/load.rs"]
#[allow(dead_code)]
mod load;

use load::{
    Block, Random, allocate, compact, demand, end, fault, lock, lock_shared, resize, rewrite,
    unlock, verify,
};
use rmalloc::Error;
use rmalloc::ffi::*;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;

/// Runs `work` in a forked child and waits for it; seconds until it counts as hanging.
fn in_child(work: impl FnOnce()) {
    // SAFETY: the child uses the heap, the C library's allocator (which knows of fork), and ends by `_exit`.
    unsafe {
        let child = libc::fork();
        demand!(child >= 0, true, "fork");
        if child == 0 {
            libc::alarm(60);
            work();
            libc::_exit(0);
        }
        let mut status = 0;
        demand!(libc::waitpid(child, &mut status, 0), child, "waitpid");
        demand!(status, 0, "status of a child (14: it hung)");
    }
}

/// A thread's life: blocks of all sizes, born, changed and ended.
fn churn(seed: u64, stop: &AtomicBool) {
    let mut random = Random(seed);
    let mut own: Vec<Block> = Vec::new();
    while !stop.load(Relaxed) {
        let pick = random.next() as usize % own.len().max(1);
        match random.below(10) {
            0..4 if own.len() < 1500 => own.extend(allocate(random.size(), 16, random.next())),
            4..7 if !own.is_empty() => end(own.swap_remove(pick)),
            7 if !own.is_empty() => resize(&mut own[pick], random.size()),
            8 if !own.is_empty() => rewrite(&mut own[pick], random.next()),
            9 if random.below(20) == 0 => {
                compact(100_000);
            }
            _ => {}
        }
    }
    own.into_iter().for_each(end);
}

#[test]
fn both_go_on() {
    let stop = AtomicBool::new(false);
    let (give, take) = mpsc::channel::<Vec<Block>>();
    let (finish, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let stop = &stop;
        let mut threads: Vec<_> = (0..3)
            .map(|seed| scope.spawn(move || churn(seed, stop)))
            .collect();
        // Holds locks of both kinds all the time, more than it has records for.
        threads.push(scope.spawn(move || {
            let mut held: Vec<Block> = (0..24)
                .filter_map(|at| allocate(50 + at * 90, 16, at as u64))
                .collect();
            for (at, block) in held.iter_mut().enumerate() {
                block.locked_at = Some(if at % 3 == 0 {
                    lock_shared(block)
                } else {
                    lock(block)
                } as usize);
            }
            give.send(held).unwrap();
            wait.recv().unwrap();
        }));
        let held = take.recv().unwrap();
        let mut own: Vec<Block> = (0..400)
            .filter_map(|at| allocate(1 + at * 17 % 3000, 16, at as u64))
            .collect();
        let mut random = Random(99);
        for round in 0..60 {
            in_child(|| in_the_child(&held, &own, round));
            // The parent has all that it had.
            for block in &mut own {
                rewrite(block, random.next());
            }
            for block in &held {
                demand!(
                    lock(block) as usize,
                    block.locked_at.unwrap(),
                    "a lock of the parent's holds"
                );
                unlock(block);
                verify(block, "locked in the parent");
            }
        }
        stop.store(true, Relaxed);
        finish.send(()).unwrap();
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("a fault ends the process"));
        for block in held {
            unlock(&block);
            end(block);
        }
        own.into_iter().for_each(end);
    });
    assert_eq!(check_default(), Ok(()));
    assert_eq!(load::stats().live_blocks, 0);
}

fn in_the_child(held: &[Block], own: &[Block], round: usize) {
    demand!(load::stats().threads, 1, "threads of the child");
    if let Err(violation) = check_default() {
        fault(format_args!("in child {round}: {violation:?}"));
    }
    for block in own {
        verify(block, "inherited");
    }
    compact(0);
    for block in held {
        let memory = block.memory();
        demand!(
            rmfree(memory),
            Error::Locked as i32,
            "a lock of a thread that is not here holds"
        );
        demand!(
            lock(block) as usize,
            block.locked_at.unwrap(),
            "the place of a locked block"
        );
        unlock(block);
        unlock(block);
        demand!(rmunlock(memory), Error::NotLocked as i32, "no lock is left");
        verify(block, "its lock was given back in the child");
        demand!(rmfree(memory), 0, "a block that is locked no more");
    }
    for block in own {
        verify(block, "after compaction in the child");
    }
    if round.is_multiple_of(3) {
        // And a child of the child, with a thread of its own.
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| churn(7, &stop));
            in_child(|| {
                for block in own {
                    verify(block, "inherited twice");
                    demand!(rmfree(block.memory()), 0, "in the grandchild");
                }
                demand!(check_default(), Ok(()), "in the grandchild");
            });
            stop.store(true, Relaxed);
            thread.join().expect("a fault ends the process");
        });
    }
    let fresh: Vec<Block> = (0..300)
        .filter_map(|at| allocate(1 + at * 31 % 5000, 16, at as u64))
        .collect();
    compact(0);
    fresh.into_iter().for_each(end);
    for block in own {
        demand!(rmfree(block.memory()), 0, "in the child");
    }
    demand!(check_default(), Ok(()), "at the end of the child");
}
