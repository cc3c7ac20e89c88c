//! The load of `stress.rs` as on a kernel without membarrier(2): every lock passes a barrier of its own. One test, as
//! the choice is the process'. RMALLOC_STRESS_SECONDS: how long (5).

#[path = "stress/load.rs"]
#[allow(dead_code)]
mod load;

use std::time::Duration;

#[test]
fn not_one_byte_is_wrong_without_membarrier() {
    rmalloc::ffi::forbid_barrier();
    let seconds = std::env::var("RMALLOC_STRESS_SECONDS").map_or(5, |text| {
        text.parse().expect("RMALLOC_STRESS_SECONDS is a number")
    });
    load::Load::run(2, Duration::from_secs(seconds));
    assert_eq!(rmalloc::ffi::check_default(), Ok(()));
    let stats = load::stats();
    assert_eq!(stats.live_blocks, 0);
    assert!(
        stats.compaction.blocks_moved > 1000,
        "compaction had nothing to do"
    );
}
