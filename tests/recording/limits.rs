//! Limits: what does not fit is dropped, counted and reported, and the program runs on.

use crate::harness::{How, Lab, Seen};
use rmtrace_format::event::Entry;
use rmtrace_format::spool::Drop;

const CALLS: u64 = 400_000;

/// Recorded calls of the program's loop and dropped ones together are all of its calls.
fn all_counted(less: &Seen, more: &Seen, calls: u64) {
    let total = |seen: &Seen| seen.all().total() + seen.dropped();
    assert_eq!(total(more) - total(less), 2 * calls);
}

#[test]
fn a_small_pool_and_a_small_file() {
    let lab = Lab::new();
    let program = lab.program("quiet.c");
    let run = |n: u64| {
        let run = lab.run(&program).arg("many").arg(n.to_string());
        run.env("RMTRACE_POOL", "1M")
            .env("RMTRACE_LIMIT", "2M")
            .bare()
            .ok()
    };
    let [none, many] = [run(0), run(CALLS)];
    assert_eq!(many.outcome.text(), "done\n");
    let (seen, before) = (many.read(), none.read());
    all_counted(&before, &seen, CALLS);
    // 3 MiB hold less than 200,000 calls.
    assert!(
        seen.dropped() > 2 * CALLS - 200_000,
        "{} dropped",
        seen.dropped()
    );
    assert!(
        seen.all().total() > 100_000,
        "{} recorded",
        seen.all().total()
    );
    let report = many.analyze();
    assert_eq!(report["events"]["dropped"], seen.dropped());
    let chunks = std::fs::metadata(many.trace.join("chunks"))
        .expect("it was made")
        .len();
    assert!(chunks <= 2 << 20, "{chunks} bytes appended");
}

/// The collector gives space back in time: a small pool is enough.
#[test]
fn a_small_pool_with_a_collector() {
    let lab = Lab::new();
    let run = lab
        .run(lab.program("quiet.c"))
        .arg("many")
        .arg(CALLS.to_string());
    let seen = run.option("--pool=1M").record().ok().read().clean();
    assert!(seen.all().get(Entry::Malloc) >= CALLS);
}

/// A limit of the size of files is kept: SIGXFSZ would kill the program.
#[test]
fn a_limit_of_the_size_of_files() {
    let lab = Lab::new();
    let program = lab.program("quiet.c");
    let run = |n: u64, bytes: u64| {
        let run = lab.run(&program).arg("many").arg(n.to_string());
        run.limit(libc::RLIMIT_FSIZE, bytes)
    };
    // Enough for a spool, not for all the calls.
    let bytes = 36 << 20;
    let calls = 2_000_000;
    let (many, none) = (run(calls, bytes).bare().ok(), run(0, bytes).bare().ok());
    assert_eq!(many.outcome.text(), "done\n");
    let (seen, before) = (many.read(), none.read());
    all_counted(&before, &seen, calls);
    assert_ne!(
        seen.processes[0].dropped[Drop::DiskLimit as usize],
        0,
        "{:?}",
        seen.processes[0]
    );
    // Not enough for anything.
    let (started, _) = run(1000, 4096).start_bare();
    let (status, stdout, _) = started.finish();
    assert!(status.success(), "{status}");
    assert_eq!(stdout, b"done\n");
}

/// The columns that are filled on request.
#[test]
fn callers_and_usable_sizes() {
    for how in How::BOTH {
        let lab = Lab::new();
        let program = lab.program("extra.c");
        let run = lab
            .run(&program)
            .env("RMTRACE_CALLERS", "1")
            .env("RMTRACE_USABLE", "1");
        let recorded = run
            .option_for(how, &["--callers", "--usable"])
            .recorded(how)
            .ok();
        let seen = recorded.read().clean();
        let text = recorded.outcome.text();
        let mut printed = text
            .split_whitespace()
            .map(|word| word.parse().expect("a number"));
        let mut next = || -> u64 { printed.next().expect("three numbers") };
        let (function, large, small) = (next(), next(), next());
        let (caller, usable) = seen.extra[&31337];
        assert!(
            (function..function + 64).contains(&caller),
            "{caller:x}, {function:x}"
        );
        assert_eq!(usable, large);
        assert_eq!(seen.extra[&1].1, small);
        assert!(seen.extra.values().all(|(caller, _)| *caller != 0));
        // Without being asked for, neither.
        let plain = lab.run(&program).recorded(how).ok().read();
        assert!(plain.extra.is_empty());
    }
}
