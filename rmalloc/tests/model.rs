//! Random operations on a heap against a map from handles to contents; contents and invariants after every step (`model/driver.rs`).

#[path = "model/driver.rs"]
mod driver;

use driver::{Step, drive};
use proptest::prelude::*;

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1usize..200, 4 => 200usize..2000, 2 => 2000usize..9000, 1 => 9000usize..40000]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => size().prop_map(Step::Alloc),
        1 => (size(), 0u32..13).prop_map(|(size, power)| Step::Aligned(size, power)),
        8 => any::<usize>().prop_map(Step::Free),
        3 => (any::<usize>(), size()).prop_map(|(pick, size)| Step::Resize(pick, size)),
        3 => any::<usize>().prop_map(Step::Lock),
        3 => any::<usize>().prop_map(Step::Unlock),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(pick, yes)| Step::Discardable(pick, yes)),
        2 => Just(Step::Compact),
        1 => any::<usize>().prop_map(Step::Stale),
    ]
}

proptest! {
    /// After every step.
    #[test]
    fn a_small_heap_does_what_a_map_does(steps in prop::collection::vec(step(), 1..120), skip in 0usize..5000) {
        drive(&steps, 512 << 10, skip, 1).map_err(TestCaseError::fail)?;
    }

    /// Longer, checked now and then.
    #[test]
    fn a_heap_of_8_mib_does_what_a_map_does(steps in prop::collection::vec(step(), 1..2500)) {
        drive(&steps, 8 << 20, 0, 100).map_err(TestCaseError::fail)?;
    }
}
