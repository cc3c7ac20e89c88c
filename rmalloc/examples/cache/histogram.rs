//! A histogram of durations: 16 classes for each power of two, so a percentile is at most 6.25 % too high; count and
//! greatest are exact.

/// Classes for each power of two, as a power of two.
const BITS: u32 = 4;
const CLASSES: usize = ((64 - BITS as usize) << BITS) + (1 << BITS);

/// Durations in nanoseconds, counted by class.
pub struct Histogram {
    counts: Box<[u64; CLASSES]>,
    count: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            counts: Box::new([0; CLASSES]),
            count: 0,
            max_ns: 0,
        }
    }
}

/// The class of a duration: below 16 each is its own, above that the highest bit and the four after it tell.
fn class(ns: u64) -> usize {
    let shift = (u64::BITS - (ns | 1 << BITS).leading_zeros()) - (BITS + 1);
    ((shift as usize) << BITS) + (ns >> shift) as usize
}

/// The greatest duration of a class.
fn class_end_ns(class: usize) -> u64 {
    let shift = (class >> BITS).saturating_sub(1);
    let first = (class - (shift << BITS)) as u64;
    (first << shift) + ((1 << shift) - 1)
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, ns: u64) {
        self.counts[class(ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest, exactly; 0 of none.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The least duration that at least `share` (0 to 1) of all do not exceed, rounded up to the end of its class but never
    /// above the longest; 0 of none.
    pub fn percentile_ns(&self, share: f64) -> u64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return class_end_ns(class).min(self.max_ns);
            }
        }
        self.max_ns
    }
}
