//! Requested sizes: power-of-two classes with four sub-classes each; zero is a class of its own. A
//! block enters once, at its first size.

use crate::fact::{Fact, Measure, Peaks, What};
use serde::Serialize;

/// Size classes: zero, 1, 2, 3, then four in each power of two from 4 on.
pub const CLASSES: usize = 4 + 4 * 62;

const _: () = assert!(CLASSES <= 256);

/// Size class of a number of bytes; less than [`CLASSES`].
#[inline]
pub fn size_class(bytes: u64) -> u8 {
    // Below 8 each size is a class of its own.
    let shift = 61 - (bytes | 4).leading_zeros();
    (u64::from(shift) * 4 + (bytes >> shift)) as u8
}

/// Bytes `[low, high)` of a size class; the last class ends at `u64::MAX`, which it holds.
pub fn class_bounds(class: u8) -> (u64, u64) {
    let low = |class: u32| match class {
        0..8 => u64::from(class),
        _ => u64::from(4 + class % 4) << (class / 4 - 1),
    };
    let class = u32::from(class);
    if class as usize >= CLASSES - 1 {
        return (low(CLASSES as u32 - 1), u64::MAX);
    }
    (low(class), low(class + 1))
}

/// Row of a size class in tables by power of two: 0 for zero bytes, else 1 + the binary logarithm.
#[inline]
pub fn class_row(class: u8) -> usize {
    match class {
        0 => 0,
        1 => 1,
        2 | 3 => 2,
        _ => 2 + usize::from(class / 4),
    }
}

/// Row of a number: that of its size class.
#[inline]
pub fn row_of(value: u64) -> usize {
    class_row(size_class(value))
}

/// Bytes `[low, high)` of such a row; the last row ends at `u64::MAX`, which it holds.
pub fn row_bounds(row: usize) -> (u64, u64) {
    match row {
        0 => (0, 1),
        _ => (
            1u64.checked_shl(row as u32 - 1).unwrap_or(u64::MAX),
            1u64.checked_shl(row as u32).unwrap_or(u64::MAX),
        ),
    }
}

/// One class of the histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeBin {
    /// Fewest bytes of the class.
    pub low: u64,
    /// First number of bytes above the class.
    pub high: u64,
    /// Blocks whose first size is in the class.
    pub blocks: u64,
    /// Sum of their first sizes.
    pub bytes: u64,
}

/// Blocks and bytes by size class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeHistogram {
    /// Blocks and bytes by class, as far as any was used.
    classes: Vec<(u64, u64)>,
}

impl Measure for SizeHistogram {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        if fact.what == What::Born {
            self.add(fact.class, fact.bytes);
        }
    }
}

impl SizeHistogram {
    /// Enters a new block.
    #[inline]
    pub fn add(&mut self, class: u8, bytes: u64) {
        let class = usize::from(class);
        if class >= self.classes.len() {
            self.reach(class);
        }
        let (blocks, sum) = &mut self.classes[class];
        *blocks += 1;
        *sum = sum.wrapping_add(bytes);
    }

    #[cold]
    fn reach(&mut self, class: usize) {
        self.classes.resize(class + 1, (0, 0));
    }

    /// Adds all of another histogram.
    pub fn merge(&mut self, other: &SizeHistogram) {
        if other.classes.len() > self.classes.len() {
            self.classes.resize(other.classes.len(), (0, 0));
        }
        for (to, from) in self.classes.iter_mut().zip(&other.classes) {
            to.0 += from.0;
            to.1 = to.1.wrapping_add(from.1);
        }
    }

    /// The classes that hold blocks, by size.
    pub fn bins(&self) -> Vec<SizeBin> {
        (0u8..=u8::MAX)
            .zip(&self.classes)
            .filter(|(_, (blocks, _))| *blocks != 0)
            .map(|(class, &(blocks, bytes))| {
                let (low, high) = class_bounds(class);
                SizeBin {
                    low,
                    high,
                    blocks,
                    bytes,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word for word: the power of two below, cut in four where that leaves whole
    /// sizes.
    fn bounds_slowly(bytes: u64) -> (u64, u64) {
        if bytes == 0 {
            return (0, 1);
        }
        let mut power = 1u64;
        while power <= bytes / 2 {
            power *= 2;
        }
        let step = (power / 4).max(1);
        let mut low = power;
        while bytes - low >= step {
            low += step;
        }
        (low, low.saturating_add(step))
    }

    proptest! {
        #[test]
        fn a_class_is_a_quarter_of_a_power_of_two(bits in 0u32..64, seed: u64) {
            let bytes = seed >> bits;
            let class = size_class(bytes);
            prop_assert_eq!(class_bounds(class), bounds_slowly(bytes));
            let (low, high) = row_bounds(class_row(class));
            prop_assert!(low <= bytes && (bytes < high || high == u64::MAX));
        }
    }

    #[test]
    fn small_sizes_are_classes_of_their_own() {
        for bytes in 0..8 {
            assert_eq!(class_bounds(size_class(bytes)), (bytes, bytes + 1));
        }
        assert_eq!(class_bounds(size_class(8)), (8, 10));
        assert_eq!(class_bounds(size_class(1023)), (896, 1024));
        assert_eq!(class_bounds(size_class(u64::MAX)).1, u64::MAX);
        assert_eq!(usize::from(size_class(u64::MAX)), CLASSES - 1);
    }

    #[test]
    fn classes_follow_each_other_without_gaps() {
        for class in 1..CLASSES {
            assert_eq!(class_bounds(class as u8).0, class_bounds(class as u8 - 1).1);
        }
    }
}
