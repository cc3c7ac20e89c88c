//! Reallocs: what the hot path writes, and what it leaves to the cold one.

use crate::harness::{How, Lab, Seen};
use rmtrace_format::event::Entry;

/// Small ones fill chunks to their end; large, failed and ending ones lie between them.
#[test]
fn every_kind_of_realloc() {
    const ROUNDS: u64 = 5000;
    for how in How::BOTH {
        let lab = Lab::new();
        let program = lab.program("resizes.c");
        let recorded = lab.run(&program).arg(ROUNDS.to_string()).recorded(how).ok();
        assert_eq!(recorded.outcome.text(), format!("{ROUNDS} {ROUNDS}\n"));
        recorded.verify();
        let seen: Seen = recorded.read().clean();
        let between = seen.between();
        assert_eq!(between.get(Entry::Realloc), 7 * ROUNDS, "{how:?}");
        assert_eq!(between.get(Entry::Malloc), ROUNDS);
        assert_eq!(between.get(Entry::Free), ROUNDS);
        assert_eq!(seen.failed(0), ROUNDS);
        let sizes = &seen.threads[&(0, 0)].sizes;
        for size in [39, 5001, 16_777_217, isize::MAX as u64, 77, 0] {
            assert_eq!(sizes.get(&size), Some(&ROUNDS), "{how:?}: {size} bytes");
        }
        assert_eq!(sizes.get(&40), Some(&(2 * ROUNDS)));
    }
}
