//! A spool file: its header, its processes and the chunks that lie in it.

use super::image::{Slot, SpoolImage};
use super::source::{header_at, read_up_to};
use rmtrace_format::chunk::{Chunk, LARGE_BYTES, SMALL_BYTES, STATE_ACTIVE, STATE_FULL};
use rmtrace_format::spool::{
    DIRECTORY_OFFSET, HEADER_BYTES, PROCESS_BYTES, PROCESSES_MAX, PROCESSES_OFFSET, SLAB_BYTES,
    SLAB_LARGE, SLAB_SMALL, SLABS_MAX, SLABS_OFFSET, SMALL_PER_SLAB,
};
use std::fs::File;

/// Reads the header page.
pub fn read_image(file: &File) -> Option<SpoolImage> {
    let mut page = [0; HEADER_BYTES];
    let read = read_up_to(file, 0, &mut page).ok()?;
    SpoolImage::parse(page.get(..read)?)
}

/// Reads the slot of process `number`, if that process is done filling it.
pub fn read_slot(file: &File, number: u32) -> Option<Slot> {
    if number as usize >= PROCESSES_MAX {
        return None;
    }
    let mut bytes = [0; PROCESS_BYTES];
    let offset = PROCESSES_OFFSET + number as usize * PROCESS_BYTES;
    let read = read_up_to(file, offset as u64, &mut bytes).ok()?;
    Slot::parse(number, bytes.get(..read)?)
}

/// Calls `found` with every chunk that belongs to somebody, and its offset.
pub fn for_each_chunk(file: &File, slabs_claimed: u32, mut found: impl FnMut(u64, Chunk)) {
    let length = file.metadata().map_or(0, |m| m.len());
    let room = length.saturating_sub(SLABS_OFFSET as u64) / SLAB_BYTES as u64;
    let slabs = (slabs_claimed as usize)
        .min(SLABS_MAX)
        .min(usize::try_from(room).unwrap_or(usize::MAX));
    let mut directory = vec![0; slabs];
    let read = read_up_to(file, DIRECTORY_OFFSET as u64, &mut directory).unwrap_or(0);
    directory.truncate(read);
    for (slab, use_of) in directory.into_iter().enumerate() {
        let (chunks, bytes) = match use_of {
            SLAB_LARGE => (1, LARGE_BYTES),
            SLAB_SMALL => (SMALL_PER_SLAB, SMALL_BYTES),
            _ => continue,
        };
        for n in 0..chunks {
            let offset = (SLABS_OFFSET + slab * SLAB_BYTES + n * bytes) as u64;
            if let Some(chunk) = header_at(file, offset)
                && matches!(chunk.state, STATE_ACTIVE | STATE_FULL)
                && chunk.chunk_bytes as usize == bytes
            {
                found(offset, chunk);
            }
        }
    }
}
