//! The file that full chunks are appended to: finding the chunks, also behind torn writes.

use super::source::{header_at, read_up_to};
use rmtrace_format::chunk::{Chunk, HEADER_BYTES, MAGIC};
use std::fs::File;

/// A chunk found in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where its header begins.
    pub offset: u64,
    /// Its header.
    pub chunk: Chunk,
    /// Bytes of records that are there: less than the header says if the write was torn.
    pub data_bytes: u32,
}

/// Walks over the chunks of a file from its beginning. It goes on where it stopped if the file has
/// grown.
#[derive(Debug, Default)]
pub struct Walk {
    offset: u64,
    /// Bytes that belong to no whole chunk.
    pub torn_bytes: u64,
}

const SCAN_BYTES: usize = 64 << 10;

impl Walk {
    /// Where the next chunk is expected.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next chunk of a file of `length` bytes. With `more` set the file may still grow: a chunk
    /// that is not whole at its end is left for later.
    pub fn next(&mut self, file: &File, length: u64, more: bool) -> Option<Found> {
        loop {
            if self.offset.checked_add(HEADER_BYTES as u64)? > length {
                if !more {
                    self.torn_bytes += length.saturating_sub(self.offset);
                    self.offset = self.offset.max(length);
                }
                return None;
            }
            let Some(chunk) = header_at(file, self.offset) else {
                let next = next_header(file, self.offset + 1, length);
                if next.is_none() && more {
                    // The rest may be a chunk that is being written right now.
                    return None;
                }
                let next = next.unwrap_or(length);
                self.torn_bytes += next - self.offset;
                self.offset = next;
                continue;
            };
            let offset = self.offset;
            let data = offset + HEADER_BYTES as u64;
            let end = data + u64::from(chunk.committed);
            let whole = end <= length && (end == length || header_at(file, end).is_some());
            if whole || (end <= length && length - end < HEADER_BYTES as u64 && more) {
                self.offset = end;
                return Some(Found {
                    offset,
                    chunk,
                    data_bytes: chunk.committed,
                });
            }
            // Torn: its write ended early, and another chunk's header follows somewhere.
            let next = match next_header(file, data, length) {
                Some(next) => next,
                None if more => return None,
                None => length,
            };
            let there = (next.min(end) - data.min(next)) as u32;
            let data_bytes = there - there % 16;
            self.torn_bytes += next.saturating_sub(data + u64::from(data_bytes));
            self.offset = next;
            return Some(Found {
                offset,
                chunk,
                data_bytes,
            });
        }
    }
}

/// The next place at or behind `from` where a header with a right check word lies. Torn writes end
/// at any byte, so every byte is looked at.
fn next_header(file: &File, from: u64, length: u64) -> Option<u64> {
    let magic = MAGIC.to_le_bytes();
    let mut block = vec![0; SCAN_BYTES];
    let mut at = from;
    while at < length {
        let read = read_up_to(file, at, &mut block).ok()?;
        let bytes = &block[..read];
        if read < HEADER_BYTES {
            return None;
        }
        let mut from = 0;
        while let Some(found) = find(&bytes[from..], &magic) {
            let place = from + found;
            // A header that the block cuts is read again.
            let whole = match bytes.get(place..place + HEADER_BYTES) {
                Some(header) => Chunk::parse(header).is_ok(),
                None => header_at(file, at + place as u64).is_some(),
            };
            if whole {
                return Some(at + place as u64);
            }
            from = place + 1;
        }
        // The last bytes may be the beginning of a magic.
        at += (read - (magic.len() - 1)) as u64;
    }
    None
}

fn find(bytes: &[u8], magic: &[u8; 4]) -> Option<usize> {
    let mut from = 0;
    loop {
        let first = bytes.get(from..)?.iter().position(|b| *b == magic[0])?;
        let place = from + first;
        if bytes.get(place..place + 4)? == magic {
            return Some(place);
        }
        from = place + 1;
    }
}
