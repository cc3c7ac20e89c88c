//! The word of an entry: where a block is, how often it is locked by others than its owner, and whether it is
//! being moved. This file owns the bits; who changes them when is `docs/rmalloc.md` section 3.
//!
//! A live entry:
//!
//! | bits | what |
//! |---|---|
//! | 0..4 | shared locks: those that are not in a record of the owning thread |
//! | 4..37 | offset of the block in the heap, in place (a multiple of 16); 0: the contents were discarded |
//! | 37..45 | owner: number of the thread whose locks are in its records |
//! | 45 | live |
//! | 46 | moving: somebody copies the block; who wants to lock it clears the bit, and the copy is abandoned |
//! | 47 | discardable: always takes the slow path |
//! | 48..64 | generation |
//!
//! A free entry has bit 45 clear; its generation is that of the next block, and its low 32 bits are a link.

/// An entry's word, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Word(pub u64);

/// What one shared lock adds.
pub(crate) const SHARED_ONE: u64 = 1;
/// Where shared locks are counted.
pub(crate) const SHARED_MASK: u64 = 0xf;
/// How many can be taken.
pub(crate) const SHARED_MAX: u64 = 14;
/// Ended threads left more locks than can be counted: the block is locked for good.
pub(crate) const SHARED_STUCK: u64 = 15;
const OFFSET_MASK: u64 = ((1 << 37) - 1) & !0xf;
const OWNER_SHIFT: u32 = 37;
const LIVE: u64 = 1 << 45;
/// The block is being copied.
pub(crate) const MOVING: u64 = 1 << 46;
/// The contents may be dropped.
pub(crate) const DISCARDABLE: u64 = 1 << 47;
const GENERATION_SHIFT: u32 = 48;
/// The generation, in place.
pub(crate) const GENERATION: u64 = 0xffff << GENERATION_SHIFT;
/// Its lowest bit.
pub(crate) const FIRST_GENERATION: u64 = 1 << GENERATION_SHIFT;
/// Offsets are below this: 128 GiB.
pub(crate) const OFFSET_LIMIT: u64 = 1 << 37;

impl Word {
    /// Of a block just born or moved by its owner.
    #[inline(always)]
    pub fn live(offset: u64, owner: u8, generation: u64) -> Word {
        debug_assert!(offset & !OFFSET_MASK == 0);
        Word(offset | (owner as u64) << OWNER_SHIFT | LIVE | generation << GENERATION_SHIFT)
    }

    /// Of a free entry.
    #[inline(always)]
    pub fn free(generation: u64, link: u32) -> Word {
        Word(generation << GENERATION_SHIFT | link as u64)
    }

    /// A live block with that handle's generation whose owner is `live`'s, which nobody moves and which is not
    /// discardable. `live` is a [`Word::live`] with nothing but an owner.
    #[inline(always)]
    pub fn is_ours(self, live: u64, handle: u64) -> bool {
        (self.0 ^ ((handle & GENERATION) + live)) >> OWNER_SHIFT == 0
    }

    /// As [`Word::is_ours`], and without counted locks.
    #[inline(always)]
    pub fn is_ours_unshared(self, live: u64, handle: u64) -> bool {
        let differs = self.0 ^ ((handle & GENERATION) + live);
        // Owner, flags, generation and, behind them, counted locks: 31 bits.
        differs.rotate_left(64 - OWNER_SHIFT) as u32 & 0x7fff_ffff == 0
    }

    /// Where the block is, bytes from the heap's base.
    #[inline(always)]
    pub fn offset(self) -> u64 {
        self.0 & OFFSET_MASK
    }

    /// The same word with the block elsewhere, and nobody moving it.
    pub fn moved_to(self, offset: u64) -> Word {
        debug_assert!(offset & !OFFSET_MASK == 0);
        Word(self.0 & !OFFSET_MASK & !MOVING | offset)
    }

    /// Locks counted in the word.
    #[inline(always)]
    pub fn shared(self) -> u64 {
        self.0 & SHARED_MASK
    }

    /// Thread whose locks are in its records.
    #[inline(always)]
    pub fn owner(self) -> u8 {
        (self.0 >> OWNER_SHIFT) as u8
    }

    #[inline(always)]
    pub fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    #[inline(always)]
    pub fn is_moving(self) -> bool {
        self.0 & MOVING != 0
    }

    #[inline(always)]
    pub fn is_discardable(self) -> bool {
        self.0 & DISCARDABLE != 0
    }

    /// Contents dropped.
    pub fn is_discarded(self) -> bool {
        self.is_discardable() && self.offset() == 0
    }

    #[inline(always)]
    pub fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }

    /// Link of a free entry.
    #[cfg_attr(feature = "beside", allow(dead_code))]
    #[inline(always)]
    pub fn link(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap() {
        let word = Word::live(OFFSET_LIMIT - 16, 254, 0xffff);
        assert_eq!(
            (
                word.offset(),
                word.owner(),
                word.generation(),
                word.shared()
            ),
            (OFFSET_LIMIT - 16, 254, 0xffff, 0)
        );
        assert!(word.is_live() && !word.is_moving() && !word.is_discardable());
        let all = Word(word.0 | MOVING | DISCARDABLE | SHARED_MASK);
        assert_eq!(
            (all.offset(), all.owner(), all.generation(), all.shared()),
            (OFFSET_LIMIT - 16, 254, 0xffff, 15)
        );
        assert_eq!(all.moved_to(32).offset(), 32);
        let (live, handle) = (Word::live(0, 254, 0).0, 0xffff_1234_5678_9abc);
        assert!(word.is_ours(live, handle) && word.is_ours_unshared(live, handle));
        assert!(
            !word.is_ours(live, handle ^ 1 << 48) && !word.is_ours(Word::live(0, 253, 0).0, handle)
        );
        assert!(!all.is_ours(live, handle));
        for shared in 1..16 {
            let locked = Word(word.0 + shared);
            assert!(locked.is_ours(live, handle) && !locked.is_ours_unshared(live, handle));
        }
    }

    #[test]
    fn a_free_entry_is_not_live() {
        let word = Word::free(7, u32::MAX);
        assert!(!word.is_live());
        assert_eq!((word.generation(), word.link()), (7, u32::MAX));
    }
}
