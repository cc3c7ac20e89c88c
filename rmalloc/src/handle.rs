//! The 64 bits of a handle: entry, generation, heap. All of them are compared, so an invented value is
//! refused unless it equals a live handle bit for bit.
//!
//! | bits | what |
//! |---|---|
//! | 0..32 | number of the entry: in the heap's table, or, with the feature `beside`, the block's birthplace / 16 |
//! | 32..48 | tag of the heap: its place among the live heaps, and how often that place was used; never 0 |
//! | 48..64 | generation of the entry when the block was born, where an entry's word has it too |

use core::num::NonZeroU64;

/// A handle without a type: what `memory_t *` is to C.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct RawHandle(NonZeroU64);

impl RawHandle {
    /// Of an entry and its generation; `tag` is not 0.
    #[inline(always)]
    pub(crate) fn new(tag: u64, index: u32, generation: u64) -> RawHandle {
        debug_assert!(tag & TAG_MASK == tag && tag != 0 && generation >> 16 == 0);
        // SAFETY: the tag is not 0.
        RawHandle(unsafe { NonZeroU64::new_unchecked(tag | generation << 48 | index as u64) })
    }

    /// Of a spare entry, in whose word number and generation are where a handle has them.
    #[cfg_attr(feature = "beside", allow(dead_code))]
    #[inline(always)]
    pub(crate) fn of(tag: u64, spare: u64) -> RawHandle {
        debug_assert!(tag & TAG_MASK == tag && tag != 0 && spare & TAG_MASK == 0);
        // SAFETY: the tag is not 0.
        RawHandle(unsafe { NonZeroU64::new_unchecked(tag | spare) })
    }

    /// The value that C holds; `None` if it names no heap, as 0.
    #[inline(always)]
    pub fn from_bits(bits: u64) -> Option<RawHandle> {
        // A thread without a heap knows the tag 0: no handle may have it.
        match bits & TAG_MASK {
            0 => None,
            _ => NonZeroU64::new(bits).map(RawHandle),
        }
    }

    /// The value for C, never 0.
    #[inline(always)]
    pub fn bits(self) -> u64 {
        self.0.get()
    }

    /// Number of the entry.
    #[inline(always)]
    pub(crate) fn index(self) -> u32 {
        self.bits() as u32
    }

    /// Generation, 16 bits.
    #[inline(always)]
    pub(crate) fn generation(self) -> u64 {
        self.bits() >> 48
    }

    /// Tag of the heap, in place (bits 32 to 48).
    #[inline(always)]
    pub(crate) fn tag(self) -> u64 {
        self.bits() & TAG_MASK
    }
}

/// Where the tag is.
pub(crate) const TAG_MASK: u64 = 0xffff << TAG_SHIFT;
/// And its lowest bit.
pub(crate) const TAG_SHIFT: u32 = 32;

impl core::fmt::Debug for RawHandle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "heap {:#x} entry {} generation {}",
            self.tag() >> TAG_SHIFT,
            self.index(),
            self.generation()
        )
    }
}
