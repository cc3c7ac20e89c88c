//! How often an allocation gets an address that was freed just before: what an allocator does for the caches, and how
//! near a replay is to the recorded run. Allocations and frees count, resizes do not.

use serde::{Deserialize, Serialize};

/// So many addresses freed last are remembered.
pub const RECENT: usize = 16;

/// Addresses freed last, and how many of them were given out again at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// The latest is at `next - 1`; 0: given out again, or none.
    freed: [u64; RECENT],
    next: usize,
    /// Counts.
    pub counts: Counts,
}

/// Allocations, and those at addresses freed just before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All allocations.
    pub allocations: u64,
    /// At the address of the latest free.
    pub last: u64,
    /// At the address of one of the [`RECENT`] latest frees, that one included.
    pub recent: u64,
}

impl Reuse {
    /// A block was freed.
    #[inline]
    pub fn freed(&mut self, address: u64) {
        self.freed[self.next] = address;
        self.next = (self.next + 1) % RECENT;
    }

    /// A block was allocated.
    #[inline]
    pub fn allocated(&mut self, address: u64) {
        self.counts.allocations += 1;
        if let Some(at) = self.freed.iter().position(|freed| *freed == address) {
            self.counts.recent += 1;
            self.counts.last += u64::from((at + 1) % RECENT == self.next);
            self.freed[at] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The same as looking back through all that happened.
        #[test]
        fn it_counts_what_a_list_of_all_frees_tells(calls in proptest::collection::vec((any::<bool>(), 1u64..40), 0..300)) {
            let mut reuse = Reuse::default();
            let (mut frees, mut expected) = (Vec::<Option<u64>>::new(), Counts::default());
            for (is_free, address) in calls {
                let recent = frees.len().saturating_sub(RECENT);
                let known = frees[recent..].iter().position(|freed| *freed == Some(address));
                if is_free {
                    // An address that was freed is not freed again before it was given out.
                    if known.is_none() {
                        reuse.freed(address);
                        frees.push(Some(address));
                    }
                    continue;
                }
                reuse.allocated(address);
                expected.allocations += 1;
                if let Some(at) = known {
                    expected.recent += 1;
                    expected.last += u64::from(recent + at + 1 == frees.len());
                    frees[recent + at] = None;
                }
            }
            prop_assert_eq!(reuse.counts, expected);
        }
    }
}
