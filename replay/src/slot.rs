//! Where a replay keeps its blocks, and what can be wrong with one.

/// A live block: 16 bytes, four to a cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
pub struct Slot {
    /// Its address, or its handle.
    pub block: u64,
    /// Its requested bytes, and [`Slot::LOCKED`].
    pub bytes: u64,
}

const _: () = assert!(size_of::<Slot>() == 16);

impl Slot {
    /// Bit of `bytes`: the block holds a lock from its birth on.
    pub const LOCKED: u64 = 1 << 63;

    /// Its requested bytes alone.
    #[inline(always)]
    pub fn len(self) -> usize {
        (self.bytes & !Slot::LOCKED) as usize
    }
}

/// Why a replay can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The allocator returned nothing.
    Refused {
        /// Bytes asked for.
        bytes: u64,
        /// What it said, where it says something.
        status: i32,
    },
    /// A function other than an allocation failed.
    Failed {
        /// Its name.
        function: &'static str,
        /// The slot.
        slot: usize,
        /// What it returned.
        status: i32,
    },
    /// A block lies at an address that is no multiple of its alignment.
    Misaligned {
        /// The address.
        address: u64,
        /// Bytes of the alignment.
        alignment: u64,
    },
    /// A block does not hold what was written to it.
    Contents {
        /// The slot.
        slot: usize,
        /// Byte of the block.
        offset: u64,
        /// The word found there.
        found: u64,
    },
    /// The replay ends because of another thread's fault.
    Elsewhere,
    /// Memory that should be zeroed is not.
    NotZero {
        /// The slot.
        slot: usize,
        /// Byte of the block.
        offset: u64,
        /// The word found there.
        found: u64,
    },
}
