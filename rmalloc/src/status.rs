//! What a call answers when it can't do what was asked. [`Error`]'s numbers are the C interface's status values.

/// Why a call failed. The heap is as it was before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Error {
    /// The size is zero, negative, or more than any heap can hold.
    Size = 1,
    /// The alignment is not a power of two, or above 4,096.
    Alignment = 2,
    /// No memory: the heap's limit is reached, or the system refuses.
    Memory = 3,
    /// Every entry of the handle table is in use.
    Table = 4,
    /// The handle names no live block: stale, freed before, of another or a destroyed heap, or made up.
    Handle = 5,
    /// The block is locked.
    Locked = 6,
    /// The block is not locked, or not by a lock this thread can give back.
    NotLocked = 7,
    /// The block has as many locks as can be counted.
    Locks = 8,
    /// A null pointer, or another argument that is not allowed.
    Argument = 9,
    /// The memory given is too small for a heap, or the configuration does not fit it.
    HeapTooSmall = 10,
    /// The contents were dropped to make room. The handle must still be freed.
    Discarded = 11,
    /// Somebody else is doing it: another thread compacts this heap.
    Busy = 12,
    /// The block's memory was overwritten beyond its end, or written after it was freed (checking build).
    Damaged = 13,
    /// The configuration can't be read, or has a setting that is not allowed.
    Config = 14,
    /// There is no such heap: it was destroyed, or the value is made up.
    Heap = 15,
}

impl Error {
    /// Every error, in the order of their numbers.
    pub const ALL: [Error; 15] = [
        Error::Size,
        Error::Alignment,
        Error::Memory,
        Error::Table,
        Error::Handle,
        Error::Locked,
        Error::NotLocked,
        Error::Locks,
        Error::Argument,
        Error::HeapTooSmall,
        Error::Discarded,
        Error::Busy,
        Error::Damaged,
        Error::Config,
        Error::Heap,
    ];

    /// One sentence without a full stop.
    pub const fn text(self) -> &'static str {
        match self {
            Error::Size => "the size is zero, negative or too large",
            Error::Alignment => "the alignment is not a power of two up to 4096",
            Error::Memory => "out of memory: the heap's limit is reached or the system refuses",
            Error::Table => "every entry of the handle table is in use",
            Error::Handle => "the handle names no live block of this heap",
            Error::Locked => "the block is locked",
            Error::NotLocked => "the block is not locked, or by another thread",
            Error::Locks => "the block has as many locks as can be counted",
            Error::Argument => "an argument is null or not allowed",
            Error::HeapTooSmall => "the memory given is too small for a heap",
            Error::Discarded => "the contents were discarded",
            Error::Busy => "another thread is compacting this heap",
            Error::Damaged => "the block was written beyond its end or after it was freed",
            Error::Config => {
                "the configuration can't be read, or has a setting that is not allowed"
            }
            Error::Heap => "there is no such heap: it was destroyed, or the value is made up",
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Error {}
