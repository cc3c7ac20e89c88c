//! Order across threads: an address is freed before it is given out again.

use crate::harness::{How, Lab};

/// One arena and no caches, so that addresses go from thread to thread at once.
const TUNABLES: &str = "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0";

#[test]
fn blocks_that_go_from_thread_to_thread() {
    let lab = Lab::new();
    let program = lab.program("exchange.c");
    for how in How::BOTH {
        for (threads, operations) in [(2u32, 600_000u64), (4, 300_000)] {
            let run = lab
                .run(&program)
                .arg(threads.to_string())
                .arg(operations.to_string());
            let recorded = run.env("GLIBC_TUNABLES", TUNABLES).recorded(how).ok();
            let seen = recorded.read().clean();
            assert!(seen.all().total() >= u64::from(threads) * operations * 2 - 200);
            let report = recorded.analyze();
            assert_eq!(report["events"]["unknown_frees"], 0, "{how:?}");
            assert_eq!(report["events"]["live_duplicates"], 0, "{how:?}");
            let crossed: u64 = recorded.outcome.text().trim().parse().expect("a number");
            assert_eq!(report["frees"]["cross_thread"], crossed, "{how:?}");
            assert_ne!(crossed, 0, "the threads ran at the same time");
        }
    }
}
