//! Signal handlers that allocate, or that jump out of whatever they interrupted.

use crate::harness::{How, Lab, Recorded};
use rmtrace_file::Process;
use rmtrace_format::event::Entry;
use rmtrace_format::spool::Drop;
use std::path::PathBuf;

fn program(lab: &Lab, source: &str) -> PathBuf {
    lab.compile(&[source, "own_allocator.c"], "program", &["-rdynamic"])
}

/// What `signals.c` prints: calls of its own in the loop, signals handled.
fn printed(recorded: &Recorded) -> (u64, u64) {
    let text = recorded.outcome.text();
    let mut numbers = text
        .split_whitespace()
        .map(|word| word.parse().expect("a number"));
    (
        numbers.next().expect("calls"),
        numbers.next().expect("signals"),
    )
}

fn nested(process: &Process) -> u64 {
    process.dropped[Drop::Nested as usize]
}

/// A handler between two calls is like any other code.
#[test]
fn allocating_in_a_raised_signal() {
    for how in How::BOTH {
        let lab = Lab::new();
        let run = lab.run(program(&lab, "signals.c")).args(["raise", "3000"]);
        let recorded = run.recorded(how).ok();
        let seen = recorded.read().clean();
        let thread = &seen.threads[&(0, 0)];
        assert_eq!(printed(&recorded), (3000, 3000));
        assert_eq!(thread.sizes[&64], 3000);
        assert_eq!(thread.sizes[&4242], 3000);
        assert_eq!(thread.sizes[&7001], 1000);
    }
}

/// A timer interrupts anything, our own code and the allocator's too. No call of the program itself is
/// lost; a call of the handler is recorded, or part of the call that it interrupted, or counted as
/// dropped.
#[test]
fn allocating_in_a_timers_signal() {
    for how in How::BOTH {
        for mode in ["timer", "altstack"] {
            let lab = Lab::new();
            let run = lab.run(program(&lab, "signals.c")).args([mode, "4000"]);
            let recorded = run.recorded(how).ok();
            let seen = recorded.read();
            let (calls, handled) = printed(&recorded);
            let thread = &seen.threads[&(0, 0)];
            assert_eq!(thread.sizes[&64], calls, "{how:?} {mode}");
            let in_handler = thread.sizes.get(&4242).copied().unwrap_or(0);
            let dropped = nested(&seen.processes[0]);
            assert!(
                in_handler + dropped <= handled,
                "{in_handler}, {dropped} dropped, {handled}"
            );
            assert_eq!(seen.dropped(), dropped, "no other reason");
            assert_eq!(thread.sizes[&7001], 1000, "{how:?} {mode}");
            assert_eq!(thread.sizes[&7002], 1000, "{how:?} {mode}");
            assert_eq!(
                thread.calls.get(Entry::Free),
                calls + 2000,
                "{how:?} {mode}"
            );
        }
    }
}

/// Thousands of jumps out of malloc and free. Afterwards every call is recorded.
#[test]
fn jumping_out_of_the_allocator_from_a_signal_handler() {
    for how in How::BOTH {
        let lab = Lab::new();
        let run = lab
            .run(program(&lab, "signals.c"))
            .args(["siglongjmp-out", "2000"]);
        let recorded = run.recorded(how).ok();
        assert_eq!(printed(&recorded).1, 2000);
        let seen = recorded.read();
        assert_eq!(seen.dropped(), 0, "{how:?}");
        let thread = &seen.threads[&(0, 0)];
        assert_eq!(thread.sizes[&7001], 1000, "{how:?}");
        assert_eq!(thread.sizes[&7002], 1000, "{how:?}");
    }
}

/// The same out of anything, our own code too, which is left half done: recording goes on, and the
/// threads' counters still agree with the records.
#[test]
fn jumping_out_of_anything_from_a_signal_handler() {
    for how in How::BOTH {
        let lab = Lab::new();
        let run = lab
            .run(program(&lab, "signals.c"))
            .args(["siglongjmp", "2000"]);
        let recorded = run.recorded(how).ok();
        assert_eq!(printed(&recorded).1, 2000);
        let seen = recorded.read();
        let thread = &seen.threads[&(0, 0)];
        assert_eq!(
            thread.sizes.get(&7001),
            Some(&1000),
            "{how:?}: {:?}",
            seen.processes[0].dropped
        );
        assert_eq!(thread.sizes.get(&7002), Some(&1000), "{how:?}");
    }
}

/// malloc is left by longjmp from inside the allocator itself: the call is not recorded, as it never
/// returned, and all that follow are.
#[test]
fn jumping_out_of_malloc() {
    for how in How::BOTH {
        let lab = Lab::new();
        let run = lab.run(program(&lab, "longjmp.c")).arg("1000");
        let recorded = run.recorded(how).ok();
        assert_eq!(recorded.outcome.text(), "1000\n");
        let seen = recorded.read().clean();
        assert_eq!(seen.threads[&(0, 0)].sizes[&7001], 1000, "{how:?}");
    }
}
