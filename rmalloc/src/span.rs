//! Which spans of a heap are taken: a bit each, lowest first. Neighbours that were given back are one run again
//! without further work. What a span holds is its [`crate::region::Region`]'s business.

/// Bitmap over the spans of a heap. The heap's mutex guards it.
pub(crate) struct Spans {
    /// A bit a span, set if taken; bits from `count` on are set.
    words: *mut u64,
    /// How many spans there are.
    pub count: usize,
    /// No span below this one is free.
    lowest: usize,
    /// How many are taken.
    pub taken: usize,
}

impl Spans {
    /// Bytes of the bitmap of `count` spans.
    pub const fn bytes(count: usize) -> usize {
        count.div_ceil(64) * 8
    }

    /// All free.
    ///
    /// # Safety
    /// `words` has [`Spans::bytes`] bytes that belong to nobody else from now on, aligned to 8.
    pub unsafe fn new(words: *mut u64, count: usize) -> Spans {
        for word in 0..count.div_ceil(64) {
            let free = (count - word * 64).min(64);
            // SAFETY: the caller gave the words.
            unsafe {
                words
                    .add(word)
                    .write(if free == 64 { 0 } else { !0 << free })
            };
        }
        Spans {
            words,
            count,
            lowest: 0,
            taken: 0,
        }
    }

    fn word(&self, at: usize) -> u64 {
        debug_assert!(at < self.count.div_ceil(64));
        // SAFETY: within the bitmap.
        unsafe { self.words.add(at).read() }
    }

    fn mark(&mut self, first: usize, count: usize, taken: bool) {
        let mut at = first;
        let end = first + count;
        while at < end {
            let bits = (end - at).min(64 - at % 64);
            let mask = if bits == 64 {
                !0
            } else {
                ((1u64 << bits) - 1) << (at % 64)
            };
            // SAFETY: `end <= self.count`, so within the bitmap.
            let word = unsafe { &mut *self.words.add(at / 64) };
            debug_assert_eq!(*word & mask, if taken { 0 } else { mask });
            if taken {
                *word |= mask
            } else {
                *word &= !mask
            }
            at += bits;
        }
    }

    /// Is the span taken?
    pub fn is_taken(&self, span: usize) -> bool {
        self.word(span / 64) >> (span % 64) & 1 != 0
    }

    /// First run of `count` free spans that lies below `limit`.
    pub fn find(&self, count: usize, limit: usize) -> Option<usize> {
        let limit = limit.min(self.count);
        let mut at = self.lowest;
        while at + count <= limit {
            // To the next free span.
            let taken = (!(self.word(at / 64) >> (at % 64))).trailing_zeros() as usize;
            if taken > 0 {
                at += taken.min(64 - at % 64);
                continue;
            }
            // To the end of this free run, or far enough.
            let mut end = at;
            while end < at + count {
                let free = (self.word(end / 64) >> (end % 64)).trailing_zeros() as usize;
                let step = free.min(64 - end % 64);
                if step == 0 {
                    break;
                }
                end += step;
            }
            if end >= at + count {
                return Some(at);
            }
            at = end;
        }
        None
    }

    /// Takes spans that are free.
    pub fn take(&mut self, first: usize, count: usize) {
        self.mark(first, count, true);
        self.taken += count;
        if first == self.lowest {
            self.lowest += count;
        }
    }

    /// Gives spans back.
    pub fn give(&mut self, first: usize, count: usize) {
        self.mark(first, count, false);
        self.taken -= count;
        self.lowest = self.lowest.min(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The bitmap does what a list of booleans does.
        #[test]
        fn takes_the_lowest_run(count in 1usize..300, steps in prop::collection::vec((any::<bool>(), 1usize..90, any::<usize>()), 0..60)) {
            let mut words = vec![0u64; Spans::bytes(count) / 8];
            // SAFETY: the vector has the bytes and outlives the bitmap.
            let mut spans = unsafe { Spans::new(words.as_mut_ptr(), count) };
            let mut twin = vec![false; count];
            let mut runs: Vec<(usize, usize)> = Vec::new();
            for (take, wanted, pick) in steps {
                if take || runs.is_empty() {
                    let expected = (0..count).find(|&at| at + wanted <= count && twin[at..at + wanted].iter().all(|t| !t));
                    let found = spans.find(wanted, count);
                    prop_assert_eq!(found, expected);
                    if let Some(at) = found {
                        spans.take(at, wanted);
                        twin[at..at + wanted].fill(true);
                        runs.push((at, wanted));
                    }
                } else {
                    let (at, length) = runs.swap_remove(pick % runs.len());
                    spans.give(at, length);
                    twin[at..at + length].fill(false);
                }
                prop_assert_eq!(spans.taken, twin.iter().filter(|t| **t).count());
                for (span, taken) in twin.iter().enumerate() {
                    prop_assert_eq!(spans.is_taken(span), *taken);
                }
            }
        }
    }
}
