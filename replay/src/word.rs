//! The words that a program is made of: one operation in 8 bytes, now and then with a word before it
//! that holds what does not fit. Owns the encoding alone; `program.rs` has the file around it.
//!
//! | bits | of an operation | of a wide word (kind 5), before the operation |
//! |---|---|---|
//! | 0-2 | kind | 5 |
//! | 3-30 | slot, lower 28 bits | 3-8 binary logarithm of the alignment, 9-12 slot, upper 4 bits, 13-26 bytes, upper 14 bits, others 0 |
//! | 31-63 | bytes, lower 33 bits; of a free 1 if another thread than the one that allocated the block freed it, else 0 | |
//!
//! A program with a stream for each thread has one word more, which is no operation (kind 6): bits 3-23 are the number of
//! another thread, bits 24-63 how many words of its stream that thread must have done before this one goes on.

/// Kind: an allocation.
pub const ALLOC: u64 = 0;
/// Kind: an allocation of zeroed memory.
pub const ZEROED: u64 = 1;
/// Kind: a block gets another size.
pub const RESIZE: u64 = 2;
/// Kind: a block is freed.
pub const FREE: u64 = 3;
/// Kind: a lock ends; with 1 in its bytes the block is locked (again).
pub const UNLOCK: u64 = 4;
/// Kind: the upper bits of the operation that follows.
pub const WIDE: u64 = 5;
/// Kind: another thread is waited for.
pub const WAIT: u64 = 6;

const KIND_BITS: u32 = 3;
const SLOT_BITS: u32 = 28;
const BYTES_SHIFT: u32 = KIND_BITS + SLOT_BITS;
const BYTES_BITS: u32 = 64 - BYTES_SHIFT;
const ALIGN_SHIFT: u32 = KIND_BITS;
const ALIGN_BITS: u32 = 6;
const SLOT_HIGH_SHIFT: u32 = ALIGN_SHIFT + ALIGN_BITS;
const SLOT_HIGH_BITS: u32 = 32 - SLOT_BITS;
const BYTES_HIGH_SHIFT: u32 = SLOT_HIGH_SHIFT + SLOT_HIGH_BITS;
const BYTES_HIGH_BITS: u32 = BYTES_BITS_MAX - BYTES_BITS;
/// Bits of the largest size: no x86-64 process has room for more with four levels of page tables.
const BYTES_BITS_MAX: u32 = 47;

const THREAD_SHIFT: u32 = KIND_BITS;
const THREAD_BITS: u32 = 21;
const DONE_SHIFT: u32 = THREAD_SHIFT + THREAD_BITS;

/// Threads that words can tell apart.
pub const THREADS_MAX: u32 = 1 << THREAD_BITS;
/// Words of a thread that can be waited for.
pub const DONE_MAX: u64 = mask(64 - DONE_SHIFT);

/// Greatest size of a block in bytes.
pub const BYTES_MAX: u64 = (1 << BYTES_BITS_MAX) - 1;
/// Greatest binary logarithm of an alignment.
pub const ALIGN_LOG2_MAX: u8 = 40;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// What one operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// `ALLOC`, `ZEROED`, `RESIZE`, `FREE` or `UNLOCK`.
    pub kind: u64,
    /// The block's slot.
    pub slot: u32,
    /// Requested bytes; of frees 1 for one by another thread than allocated, else 0; of unlocks 1 for a lock that begins, else 0.
    pub bytes: u64,
    /// Binary logarithm of the alignment asked for; 0: none.
    pub align_log2: u8,
}

impl Op {
    /// The word, and the one before it if it needs one.
    ///
    /// `bytes` must be at most [`BYTES_MAX`] and `align_log2` at most [`ALIGN_LOG2_MAX`]; more bits are cut off.
    #[inline]
    pub fn encode(self) -> (Option<u64>, u64) {
        let (slot, bytes) = (u64::from(self.slot), self.bytes);
        let word = self.kind
            | (slot & mask(SLOT_BITS)) << KIND_BITS
            | (bytes & mask(BYTES_BITS)) << BYTES_SHIFT;
        let wide = u64::from(self.align_log2) << ALIGN_SHIFT
            | (slot >> SLOT_BITS) << SLOT_HIGH_SHIFT
            | ((bytes >> BYTES_BITS) & mask(BYTES_HIGH_BITS)) << BYTES_HIGH_SHIFT;
        ((wide != 0).then_some(WIDE | wide), word)
    }

    /// The operation of a word that no wide word precedes.
    #[inline(always)]
    pub fn decode(word: u64) -> Op {
        Op {
            kind: kind(word),
            slot: slot(word) as u32,
            bytes: bytes(word),
            align_log2: 0,
        }
    }

    /// The operation of a word and the wide word before it.
    #[inline]
    pub fn decode_wide(wide: u64, word: u64) -> Op {
        let narrow = Op::decode(word);
        let slot_high = (wide >> SLOT_HIGH_SHIFT & mask(SLOT_HIGH_BITS)) as u32;
        Op {
            slot: narrow.slot | slot_high << SLOT_BITS,
            bytes: narrow.bytes | (wide >> BYTES_HIGH_SHIFT & mask(BYTES_HIGH_BITS)) << BYTES_BITS,
            align_log2: (wide >> ALIGN_SHIFT & mask(ALIGN_BITS)) as u8,
            ..narrow
        }
    }
}

/// The word that waits until `thread`, below [`THREADS_MAX`], has done its first `done` words, at most [`DONE_MAX`].
#[inline]
pub fn wait(thread: u32, done: u64) -> u64 {
    WAIT | u64::from(thread) << THREAD_SHIFT | done << DONE_SHIFT
}

/// The thread that a word waits for, and how many of its words.
#[inline(always)]
pub fn waited(word: u64) -> (u32, u64) {
    let thread = (word >> THREAD_SHIFT & mask(THREAD_BITS)) as u32;
    (thread, word >> DONE_SHIFT)
}

/// The kind of a word.
#[inline(always)]
pub fn kind(word: u64) -> u64 {
    word & mask(KIND_BITS)
}

/// The slot of a word that is not wide, its lower 28 bits.
#[inline(always)]
pub fn slot(word: u64) -> usize {
    (word >> KIND_BITS & mask(SLOT_BITS)) as usize
}

/// The bytes of a word that is not wide, their lower 33 bits.
#[inline(always)]
pub fn bytes(word: u64) -> u64 {
    word >> BYTES_SHIFT
}

/// Whether the word of a free is of one by another thread than allocated the block.
#[inline(always)]
pub fn is_cross_thread(word: u64) -> bool {
    bytes(word) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every operation comes back as it was, whichever fields need the wide word.
        #[test]
        fn operations_come_back(
            kind in 0u64..5,
            slot in prop_oneof![0u32..100, any::<u32>()],
            bytes in prop_oneof![0u64..100_000, 0..=BYTES_MAX],
            align_log2 in prop_oneof![Just(0u8), 0..=ALIGN_LOG2_MAX],
        ) {
            let op = Op { kind, slot, bytes, align_log2 };
            let decoded = match op.encode() {
                (None, word) => Op::decode(word),
                (Some(wide), word) => {
                    prop_assert_eq!(super::kind(wide), WIDE);
                    Op::decode_wide(wide, word)
                }
            };
            prop_assert_eq!(decoded, op);
        }

        /// Every wait comes back as it was.
        #[test]
        fn waits_come_back(thread in 0..THREADS_MAX, done in prop_oneof![0u64..100, 0..=DONE_MAX]) {
            let word = wait(thread, done);
            prop_assert_eq!((super::kind(word), waited(word)), (WAIT, (thread, done)));
        }
    }
}
