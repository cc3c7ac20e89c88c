//! The pages that a block overlaps: the first and the last partly, those between wholly.

use super::table::{PAGE_BYTES, PAGE_SHIFT};

/// The pages of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first.
    pub first: u64,
    /// The last, maybe the same.
    pub last: u64,
    /// Bytes of the block in the first page.
    pub first_bytes: u32,
    /// Bytes of the block in the last page if it is another.
    pub last_bytes: u32,
    /// Pages between both.
    pub between: u64,
}

impl Span {
    /// Of a block of so many bytes. One of zero bytes overlaps the page of its address.
    #[inline]
    pub fn new(address: u64, bytes: u64) -> Span {
        let end = address.saturating_add(bytes.saturating_sub(1));
        let (first, last) = (address >> PAGE_SHIFT, end >> PAGE_SHIFT);
        if first == last {
            return Span {
                first,
                last,
                first_bytes: bytes.min(PAGE_BYTES) as u32,
                last_bytes: 0,
                between: 0,
            };
        }
        Span {
            first,
            last,
            first_bytes: (PAGE_BYTES - address % PAGE_BYTES) as u32,
            last_bytes: (end % PAGE_BYTES + 1) as u32,
            between: last - first - 1,
        }
    }
}
