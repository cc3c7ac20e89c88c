//! Threads that come and go.

use crate::harness::{How, Lab};
use rmtrace_format::event::Entry;

const THREADS: u64 = 500;

/// Each of 500 short-lived threads, with what destructors of its values allocate, up to the last round
/// of destructors.
#[test]
fn short_lived_threads_and_their_destructors() {
    for how in How::BOTH {
        let lab = Lab::new();
        let run = lab.run(lab.program("threads.c")).arg(THREADS.to_string());
        let recorded = run.recorded(how).ok();
        let seen = recorded.read().clean();
        // 0 to 4 rounds of destructors, by turns.
        let rounds: u64 = (0..THREADS).map(|i| i % 5).sum();
        let size = |size: u64| -> u64 {
            let threads = seen.threads.values();
            threads
                .map(|thread| thread.sizes.get(&size).copied().unwrap_or(0))
                .sum()
        };
        assert_eq!(
            [size(3001), size(3002), size(4001)],
            [THREADS, THREADS, rounds],
            "{how:?}"
        );
        let frees: u64 = seen
            .threads
            .values()
            .filter(|t| t.sizes.contains_key(&4001))
            .map(|thread| thread.calls.get(Entry::Free))
            .sum();
        let own: u64 = seen
            .threads
            .values()
            .filter(|t| t.sizes.contains_key(&4001))
            .map(|t| t.sizes.values().sum::<u64>())
            .sum();
        assert_eq!(
            frees, own,
            "{how:?}: what these threads allocate, they free"
        );
        // Chunks of threads that ended are used again.
        if how == How::Bare {
            let claimed = spool_bytes(&recorded.trace);
            assert!(
                claimed < 1 << 20,
                "{claimed} bytes of spool for threads one after another"
            );
        }
    }
}

/// Memory that the spools of a run take.
fn spool_bytes(run: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(run.join("pool")) else {
        return 0;
    };
    let spools = entries.flatten().filter_map(|entry| entry.metadata().ok());
    spools.map(|metadata| metadata.blocks() * 512).sum()
}

/// C++ objects of a thread that allocate when they are destroyed.
#[test]
fn thread_local_objects() {
    for how in How::BOTH {
        let lab = Lab::new();
        let program = lab.program("thread_local.cpp");
        let runs = [50u64, 100].map(|n| lab.run(&program).arg(n.to_string()).recorded(how).ok());
        let [once, twice] = runs.each_ref().map(|run| run.read().clean());
        for (seen, n) in [(&once, 50), (&twice, 100)] {
            let workers: Vec<_> = seen
                .threads
                .iter()
                .filter(|(place, _)| place.1 != 0)
                .collect();
            assert_eq!(workers.len(), n);
            for (place, thread) in workers {
                assert_eq!(thread.sizes.get(&5001), Some(&1), "{how:?} {place:?}");
                assert_eq!(thread.sizes.get(&5002), Some(&1), "{how:?} {place:?}");
            }
            // The main thread's is destroyed by exit().
            let main = &seen.threads[&(0, 0)];
            assert_eq!(
                [main.sizes.get(&5001), main.sizes.get(&5002)],
                [Some(&1); 2],
                "{how:?}"
            );
        }
    }
}
