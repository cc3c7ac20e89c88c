//! Where keys and values live: what the cache needs of an allocator. One implementation is rmalloc's handles
//! (`store/handles.rs`), the other the malloc of the process (`store/malloc.rs`).

pub mod handles;
pub mod malloc;

/// What one step of compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes of blocks that were moved.
    pub moved_bytes: u64,
    /// Blocks that were moved.
    pub moved_blocks: u64,
    /// Bytes given back to the system.
    pub returned_bytes: u64,
    /// Whether another step would find something to do.
    pub more: bool,
}

/// What an allocator says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of live blocks as they were handed out: rounded up.
    pub usable_bytes: u64,
    /// Bytes of the table of handles.
    pub table_bytes: u64,
    /// Bytes that the table would have if it held nothing but handles of live blocks.
    pub table_bytes_needed: u64,
    /// Bytes of all its memory that is resident, by its own books.
    pub resident_bytes: u64,
}

/// An allocator that holds blocks of bytes.
pub trait Store: 'static {
    /// Its name, as on the command line.
    const NAME: &'static str;

    /// A new block that holds `key` and `value` one after the other, or `None` when memory is short.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Option<u64>;

    /// Gives the bytes of a block to `look`. They are there during this call only.
    ///
    /// # Safety
    /// `block` came from `put` of this store with `bytes` bytes in all, and was not removed.
    unsafe fn read<R>(&self, block: u64, bytes: usize, look: impl FnOnce(&[u8]) -> R) -> R;

    /// Gives a block back.
    ///
    /// # Safety
    /// `block` came from `put` of this store, and was not removed. It is void after this.
    unsafe fn remove(&mut self, block: u64);

    /// Moves blocks together for at most `budget_ns` nanoseconds. `None`: this store does not move blocks.
    fn compact(&mut self, budget_ns: u64) -> Option<Step>;

    /// What it says of itself, if it can.
    fn figures(&self) -> Option<Figures>;
}
