//! Size classes: which sizes blocks are rounded up to, and how the blocks of a class lie in its regions.
//!
//! Owned here: the lookup from a size to its class, and the arithmetic of a region (slots, the reverse
//! map, the division by the size). Left to others: where regions lie and who holds them (the heap), what
//! is larger than the largest class (large blocks), and where the default sizes come from
//! (`class/default_sizes.rs`).
//!
//! A region of a class:
//!
//! ```text
//! size < 1 KiB   | u32 per slot | gap | slot 0 | slot 1 | ... | tail |    `reverse_inside`
//! size >= 1 KiB  | slot 0 | slot 1 | ... | tail |                         the array of u32 is elsewhere
//!                0                first_slot
//! ```
//!
//! The array is the reverse map, from a slot to the handle of the block in it. `core` only: all of it can
//! be built at compile time, so that the default classes are read-only data.

mod default_sizes;

pub use default_sizes::DEFAULT_SIZES;

/// The greatest number of classes.
pub const CLASSES_MAX: usize = 192;
/// All sizes are multiples of it: the alignment of blocks, in bytes.
pub const STEP: u32 = 16;
/// The largest size that may be a class, in bytes.
pub const SIZE_MAX: u32 = 32 << 10;
/// Classes of smaller sizes have their reverse map inside their regions, in bytes.
pub const REVERSE_INSIDE_BELOW: u32 = 1024;
/// What memory becomes resident by, in bytes.
pub const PAGE_BYTES: u32 = 4096;
/// The largest region, in bytes: up to it `Class::slot_of` is exact.
pub const REGION_BYTES_MAX: u32 = 1 << 20;

/// Binary logarithm of what `Class::magic` is a fraction of.
pub const SLOT_SHIFT: u32 = 35;
/// Bytes of a slot in front of its block: the entry, with the feature `beside`.
pub(crate) const ENTRY_BYTES: u32 = if cfg!(feature = "beside") { 8 } else { 0 };
/// What a slot is larger than the size that its class is made for: the entry, and what keeps blocks at multiples of 16.
pub(crate) const SLOT_MORE: u32 = ENTRY_BYTES.next_multiple_of(STEP);
/// Entries of the lookup: one for each multiple of 16.
const STEPS: usize = ((SIZE_MAX + SLOT_MORE) / STEP) as usize;
/// Slots of classes that are multiples of 64 lie at such; in regions with a reverse map not at more.
const ALIGNMENT_INSIDE: u32 = 64;

/// The sizes of regions, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Regions begin at multiples of it, and take a whole number of it. A power of two, a page at least.
    pub span_bytes: u32,
    /// Regions of blocks up to `block_most`. A multiple of `span_bytes`.
    pub region_bytes: u32,
    /// The largest blocks that lie in regions of `region_bytes`.
    pub block_most: u32,
    /// Regions of blocks above `block_most`. A multiple of `span_bytes`, not below `region_bytes`.
    pub larger_bytes: u32,
    /// No class is larger. A multiple of 16.
    pub largest: u32,
}

impl Geometry {
    /// Spans of 64 KiB, regions of 64 KiB for blocks up to 8 KiB and of 256 KiB for those up to 32 KiB.
    pub const DEFAULT: Geometry = Geometry {
        span_bytes: 64 << 10,
        region_bytes: 64 << 10,
        block_most: 8 << 10,
        larger_bytes: 256 << 10,
        largest: 32 << 10,
    };

    /// For a heap of half a MiB: spans of 4 KiB, regions of 8 KiB, blocks up to 4 KiB.
    pub const SMALL: Geometry = Geometry {
        span_bytes: 4 << 10,
        region_bytes: 8 << 10,
        block_most: 4 << 10,
        // With entries beside blocks two slots of 4 KiB do not fit into 8.
        larger_bytes: if ENTRY_BYTES == 0 { 8 << 10 } else { 16 << 10 },
        largest: 4 << 10,
    };

    /// # Errors
    /// The first field that breaks the rule in its description.
    pub const fn check(&self) -> Result<(), ClassError> {
        let span = self.span_bytes;
        if !span.is_power_of_two() || span < PAGE_BYTES || span > REGION_BYTES_MAX {
            return Err(ClassError::Span { bytes: span });
        }
        if !is_region(self.region_bytes, span) {
            let bytes = self.region_bytes;
            return Err(ClassError::Region { bytes });
        }
        if !is_region(self.larger_bytes, span) || self.larger_bytes < self.region_bytes {
            let bytes = self.larger_bytes;
            return Err(ClassError::Region { bytes });
        }
        // A largest block fits at least once, and small blocks fit with their entry of the reverse map.
        let more = SLOT_MORE * 4;
        let fits =
            self.block_most + more <= self.region_bytes && self.largest + more <= self.larger_bytes;
        if !fits
            || self.largest < STEP
            || self.largest > SIZE_MAX
            || !self.largest.is_multiple_of(STEP)
        {
            return Err(ClassError::Largest {
                bytes: self.largest,
            });
        }
        Ok(())
    }
}

const fn is_region(bytes: u32, span: u32) -> bool {
    bytes >= span && bytes.is_multiple_of(span) && bytes <= REGION_BYTES_MAX
}

/// Why sizes or a geometry are refused. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassError {
    /// No size at all, or none up to the geometry's largest.
    None,
    /// More than [`CLASSES_MAX`].
    TooMany {
        /// As many as were given.
        count: usize,
    },
    /// No multiple of 16, or 0.
    Step {
        /// The size.
        size: u32,
    },
    /// Not above the size before it.
    Order {
        /// The size.
        size: u32,
        /// The size before it.
        before: u32,
    },
    /// Above the geometry's largest.
    TooLarge {
        /// The size.
        size: u32,
        /// The geometry's largest.
        largest: u32,
    },
    /// A span that is no power of two, below 4 KiB or above 1 MiB.
    Span {
        /// The span.
        bytes: u32,
    },
    /// A region that is no multiple of the span, above 1 MiB, or smaller than the one for smaller blocks.
    Region {
        /// The region.
        bytes: u32,
    },
    /// A largest block that is no multiple of 16, above 32 KiB, or does not fit into its region.
    Largest {
        /// The largest block.
        bytes: u32,
    },
}

impl core::fmt::Display for ClassError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            ClassError::None => write!(f, "no size class"),
            ClassError::TooMany { count } => {
                write!(f, "{count} size classes, at most {CLASSES_MAX} are allowed")
            }
            ClassError::Step { size } => {
                write!(f, "size class {size} is not a positive multiple of {STEP}")
            }
            ClassError::Order { size, before } => {
                write!(f, "size class {size} follows {before}; sizes must ascend")
            }
            ClassError::TooLarge { size, largest } => {
                write!(f, "size class {size} is above the largest, {largest}")
            }
            ClassError::Span { bytes } => write!(
                f,
                "a span of {bytes} bytes is not a power of two from {PAGE_BYTES} to {REGION_BYTES_MAX}"
            ),
            ClassError::Region { bytes } => write!(
                f,
                "a region of {bytes} bytes is not a multiple of the span up to {REGION_BYTES_MAX}, \
                 or is smaller than that for smaller blocks"
            ),
            ClassError::Largest { bytes } => write!(
                f,
                "a largest block of {bytes} bytes is not a multiple of {STEP} up to {SIZE_MAX}, \
                 or does not fit into a region"
            ),
        }
    }
}

impl core::error::Error for ClassError {}

/// One size class. All offsets are in bytes from the beginning of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Class {
    /// Bytes of each slot, a multiple of 16: those of a block, with the feature `beside` 8 for an entry before it.
    pub size: u32,
    /// Where slot 0 is.
    pub first_slot: u32,
    /// 2^35 / size, rounded up: what [`Class::slot_of`] multiplies with.
    pub magic: u32,
    /// Blocks in a region.
    pub slots: u16,
    /// Spans that a region takes: as many as its slots reach.
    pub spans: u16,
    /// What the address of every slot is a multiple of, in bytes: a power of two, at most 4,096.
    pub alignment: u16,
    /// Bytes of a full region's pages that are neither slots nor reverse map. The pages after the last
    /// slot are never touched, so they are not counted.
    pub waste: u16,
    /// The region begins with a `u32` for each slot.
    pub reverse_inside: bool,
}

const _: () = assert!(size_of::<Class>() == 24);

impl Class {
    const EMPTY: Class = Class {
        size: 0,
        first_slot: 0,
        magic: 0,
        slots: 0,
        spans: 0,
        alignment: 0,
        waste: 0,
        reverse_inside: false,
    };

    /// The class of `size`, a multiple of 16, in a geometry that was checked.
    const fn new(size: u32, geometry: &Geometry) -> Class {
        let region_bytes = if size <= geometry.block_most {
            geometry.region_bytes
        } else {
            geometry.larger_bytes
        };
        let power = 1 << size.trailing_zeros();
        let reverse_inside = size < REVERSE_INSIDE_BELOW;
        let (slots, first_slot, alignment) = if ENTRY_BYTES != 0 {
            Class::with_entries(size, region_bytes)
        } else if reverse_inside {
            let alignment = if power < ALIGNMENT_INSIDE {
                power
            } else {
                ALIGNMENT_INSIDE
            };
            // The gap takes no slot: with it the slots end at a multiple of their alignment, and the
            // end of the region is one, too.
            let slots = region_bytes / (size + 4);
            (slots, (slots * 4).next_multiple_of(alignment), alignment)
        } else {
            let alignment = if power < PAGE_BYTES {
                power
            } else {
                PAGE_BYTES
            };
            (region_bytes / size, 0, alignment)
        };
        let end = first_slot + slots * size;
        let reverse_bytes = if reverse_inside { slots * 4 } else { 0 };
        let waste = end.next_multiple_of(PAGE_BYTES) - slots * size - reverse_bytes;
        Class {
            size,
            first_slot,
            magic: ((1u64 << SLOT_SHIFT).div_ceil(size as u64)) as u32,
            slots: slots as u16,
            spans: end.div_ceil(geometry.span_bytes) as u16,
            alignment: alignment as u16,
            waste: waste as u16,
            reverse_inside,
        }
    }

    /// Slots, where the first one is, and alignment of blocks, if each slot begins with an entry: 8 bytes before a
    /// multiple of the alignment.
    const fn with_entries(size: u32, region_bytes: u32) -> (u32, u32, u32) {
        let power = 1 << size.trailing_zeros();
        let alignment = if power < ALIGNMENT_INSIDE {
            power
        } else {
            ALIGNMENT_INSIDE
        };
        let reverse = if size < REVERSE_INSIDE_BELOW { 4 } else { 0 };
        // Beginning and end are both 8 before a multiple of the alignment, so the gap takes no slot here either.
        let slots = (region_bytes - alignment + ENTRY_BYTES) / (size + reverse);
        let first_block = (slots * reverse + ENTRY_BYTES).next_multiple_of(alignment);
        (slots, first_block - ENTRY_BYTES, alignment)
    }

    /// The slot that `offset` lies in: `(offset - first_slot) / size` for every offset from `first_slot`
    /// to the end of the region. An offset below `first_slot` gives a number that is no slot, not below
    /// `slots`; so does one in the tail.
    ///
    /// Cost: a subtraction, a multiplication, a shift. Exact because, with `magic * size = 2^35 + e` and
    /// `0 <= e < size <= 2^15`, the result is too large only if `offset * e >= 2^35`, and offsets are
    /// below 2^20.
    #[inline]
    pub const fn slot_of(&self, offset: u32) -> u32 {
        let from_first = offset.wrapping_sub(self.first_slot);
        ((from_first as u64 * self.magic as u64) >> SLOT_SHIFT) as u32
    }

    /// Where `slot` begins.
    #[inline]
    pub const fn offset_of(&self, slot: u32) -> u32 {
        self.first_slot + slot * self.size
    }
}

/// All classes of a heap, ascending, and the lookup by size.
///
/// 6.7 KiB; the hot part is the lookup's first 64 bytes, a cache line for all sizes up to 1 KiB.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Classes {
    /// Class of the sizes `16 i + 1 ..= 16 i + 16`; of no meaning above `largest`.
    lookup: [u8; STEPS],
    classes: [Class; CLASSES_MAX],
    count: u32,
    largest: u32,
}

impl Classes {
    /// Classes of these sizes, in bytes: ascending multiples of 16, at most [`CLASSES_MAX`] of them and
    /// none above the geometry's largest. What is above the last size has no class.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub const fn new(sizes: &[u32], geometry: &Geometry) -> Result<Classes, ClassError> {
        if let Err(error) = geometry.check() {
            return Err(error);
        }
        if let Err(error) = check_sizes(sizes, geometry.largest) {
            return Err(error);
        }
        let mut built = Classes {
            lookup: [0; STEPS],
            classes: [Class::EMPTY; CLASSES_MAX],
            count: sizes.len() as u32,
            largest: sizes[sizes.len() - 1] + SLOT_MORE,
        };
        let (mut step, mut class) = (0, 0);
        while class < sizes.len() {
            let size = sizes[class] + SLOT_MORE;
            built.classes[class] = Class::new(size, geometry);
            while step < (size / STEP) as usize {
                built.lookup[step] = class as u8;
                step += 1;
            }
            class += 1;
        }
        Ok(built)
    }

    /// [`DEFAULT_SIZES`] up to the geometry's largest.
    ///
    /// # Errors
    /// If the geometry is wrong.
    pub const fn with_default_sizes(geometry: &Geometry) -> Result<Classes, ClassError> {
        let mut sizes = DEFAULT_SIZES.as_slice();
        while let Some((last, before)) = sizes.split_last()
            && *last > geometry.largest
        {
            sizes = before;
        }
        Classes::new(sizes, geometry)
    }

    /// Place of the least class that holds `size` bytes; none for 0 and for what is above the largest
    /// class.
    ///
    /// Cost: one comparison, one load. No branch on the size.
    #[inline]
    pub const fn index_of(&self, size: usize) -> Option<u8> {
        let below = size.wrapping_sub(1);
        if below < self.largest() as usize {
            // The remainder changes nothing: no slot is larger than the lookup. It saves a bounds check.
            Some(self.lookup[((below + ENTRY_BYTES as usize) / STEP as usize) % STEPS])
        } else {
            None
        }
    }

    /// Place of the least class that holds `size` bytes at multiples of `alignment`, a power of two;
    /// none where there is none.
    ///
    /// Cost: as `index_of` for alignments up to 16, otherwise a step for each class that is passed over.
    pub const fn index_of_aligned(&self, size: usize, alignment: usize) -> Option<u8> {
        // No class is aligned to more, and a block is never smaller than its alignment.
        if alignment > PAGE_BYTES as usize {
            return None;
        }
        let Some(mut index) = self.index_of(size) else {
            return None;
        };
        while (index as usize) < self.len() {
            let class = &self.classes[index as usize];
            if class.alignment as usize >= alignment {
                // Entries make few large slots multiples of 64: pages of its own take less then.
                let pages = size.next_multiple_of(PAGE_BYTES as usize);
                return if ENTRY_BYTES != 0 && class.size as usize > pages {
                    None
                } else {
                    Some(index)
                };
            }
            index += 1;
        }
        None
    }

    /// The class at `index`, which came from this lookup or is below [`Classes::len`].
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub const fn get(&self, index: u8) -> &Class {
        debug_assert!((index as u32) < self.count, "no such class");
        &self.classes[index as usize]
    }

    /// The lookup: place of the class of size `s` is at `(s - 1) / 16`, for sizes up to the largest.
    #[inline]
    pub(crate) const fn lookup(&self) -> *const u8 {
        self.lookup.as_ptr()
    }

    /// Number of classes, at least 1.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// The largest block that has a class, in bytes.
    #[inline]
    pub const fn largest(&self) -> u32 {
        self.largest - ENTRY_BYTES
    }

    /// The classes, ascending.
    pub fn iter(&self) -> core::slice::Iter<'_, Class> {
        self.classes[..self.len()].iter()
    }
}

/// [`DEFAULT_SIZES`] in [`Geometry::DEFAULT`], made at compile time: read-only data.
pub static DEFAULT_CLASSES: Classes = match Classes::with_default_sizes(&Geometry::DEFAULT) {
    Ok(classes) => classes,
    Err(_) => panic!("the default classes are refused"),
};

/// Whether these may be classes in a geometry with this largest size, in bytes.
///
/// # Errors
/// The first thing that is wrong.
pub const fn check_sizes(sizes: &[u32], largest: u32) -> Result<(), ClassError> {
    if sizes.is_empty() {
        return Err(ClassError::None);
    }
    if sizes.len() > CLASSES_MAX {
        return Err(ClassError::TooMany { count: sizes.len() });
    }
    let (mut before, mut i) = (0, 0);
    while i < sizes.len() {
        let size = sizes[i];
        if size == 0 || !size.is_multiple_of(STEP) {
            return Err(ClassError::Step { size });
        }
        if size <= before {
            return Err(ClassError::Order { size, before });
        }
        if size > largest {
            return Err(ClassError::TooLarge { size, largest });
        }
        before = size;
        i += 1;
    }
    Ok(())
}

#[cfg(all(test, feature = "beside"))]
mod beside_tests;
#[cfg(all(test, feature = "system", not(feature = "beside")))]
mod tests;
