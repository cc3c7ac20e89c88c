//! Threads at work on the default heap while it is compacted: not one wrong byte, and a whole heap afterwards.
//! RMALLOC_STRESS_SECONDS: how long (20), RMALLOC_STRESS_SEED: what (random numbers are the same, threads' turns are
//! not). One test, as the default heap is the process'.

#[path = "stress/load.rs"]
mod load;

use std::time::Duration;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

#[test]
fn not_one_byte_is_wrong() {
    let seconds = setting("RMALLOC_STRESS_SECONDS", 20);
    // The heap's own tables take addresses in proportion to what it may grow to.
    let tables = load::stats().span_bytes;
    let load = load::Load::run(
        setting("RMALLOC_STRESS_SEED", 1),
        Duration::from_secs(seconds),
    );
    if let Err(violation) = rmalloc::ffi::check_default() {
        load::fault(format_args!("{violation:?}"));
    }
    let stats = load::stats();
    println!(
        "{} calls of workers, {:#?}",
        load.calls.load(std::sync::atomic::Ordering::Relaxed),
        stats
    );
    assert_eq!(stats.live_blocks, 0);
    assert_eq!(stats.live_bytes, 0);
    assert!(
        stats.compaction.blocks_moved > 1000,
        "compaction had nothing to do"
    );
    assert!(
        stats.compaction.blocks_pinned > 0,
        "compaction met no locked block"
    );
    // Nothing is left, so all of it goes back: what stays is of threads' caches and the table's own.
    load::compact(0);
    assert_eq!(rmalloc::ffi::check_default(), Ok(()));
    let stats = load::stats();
    assert!(
        stats.span_bytes - tables < 8 << 20,
        "spans that hold nothing are not given back: {stats:#?}"
    );
    assert!(
        stats.resident_bytes < 8 << 20,
        "memory that holds nothing is not given back: {stats:#?}"
    );
}
