//! The GNU C library 2.36. Source: `malloc/malloc.c` there, and the comments on chunks at its head: a
//! chunk is a multiple of 16 bytes, at least 32; its 8-byte header counts in it, and a used chunk also
//! has the first 8 bytes of the next one. Requests whose chunk is 128 KiB or more get pages of their
//! own, with a header of 16.
//!
//! The threshold of 128 KiB is the one a process starts with. Unless the program sets it, the library
//! raises it to the size of a block with own pages that was freed, up to 32 MiB; then such sizes lie
//! in the heap and take less. A free chunk less than 32 bytes larger than asked for is not split: its
//! block gets 16 more. Neither follows from sizes alone; both are left out.

use super::{Block, up};

const HEADER: u64 = 8;
const CHUNK_MIN: u64 = 32;
const OWN_PAGES: u64 = 128 << 10;
const PAGE: u64 = 4096;

pub fn block(bytes: u64) -> Block {
    let chunk = up(bytes.saturating_add(HEADER), 16).max(CHUNK_MIN);
    let (all, header_bytes) = match chunk < OWN_PAGES {
        true => (chunk, HEADER),
        false => (up(chunk.saturating_add(HEADER), PAGE), 2 * HEADER),
    };
    Block {
        usable_bytes: (all - header_bytes).max(bytes),
        header_bytes,
    }
}
