//! Where chunks lie: reading them from files without ever relying on what they say.
//!
//! Everything is read with `pread`: it copies the bytes before they are looked at, returns short at
//! the end of a file that shrinks, and does not fill the holes of a sparse spool, as touching a
//! mapping would.

use rmtrace_format::chunk::{self, Chunk, HEADER_BYTES, Triple};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Reads up to `out.len()` bytes at `offset` and returns how many there were.
pub fn read_up_to(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        let Some(at) = offset.checked_add(done as u64) else {
            break;
        };
        match file.read_at(&mut out[done..], at) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A chunk of events and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which file: the caller's number.
    pub source: u32,
    /// Where its header begins.
    pub offset: u64,
    /// Bytes of records that may be read.
    pub data_bytes: u32,
    /// Calls of the thread before it.
    pub first_ordinal: u64,
    /// Time base.
    pub opened: u64,
    /// Stamp when it was handed over; 0 before.
    pub closed: u64,
    /// Whether its thread may still be writing to it.
    pub open: bool,
    /// Its check word, which tells chunks apart that used the same place.
    pub check: u64,
    /// Whether its place may be used again by another chunk, so that the check word is looked at
    /// again when it was read.
    pub in_spool: bool,
}

/// Offset of the check word in a header.
const CHECK_OFFSET: u64 = core::mem::offset_of!(chunk::ChunkHeader, check) as u64;

impl Part {
    /// The part that `chunk`, found at `offset` of file `source`, is.
    pub fn new(chunk: &Chunk, source: u32, offset: u64, data_bytes: u32, in_spool: bool) -> Part {
        Part {
            source,
            offset,
            data_bytes,
            first_ordinal: chunk.first_ordinal,
            opened: chunk.opened.tsc,
            closed: chunk.closed.tsc,
            open: in_spool && chunk.state == chunk::STATE_ACTIVE,
            check: chunk.check_word(),
            in_spool,
        }
    }

    /// Copies records from byte `at` behind the header into `out`; less than asked for, or nothing,
    /// if they are not there or are another chunk's by now.
    pub fn read(&self, file: &File, at: u32, out: &mut [u8]) -> usize {
        let behind = self.data_bytes.saturating_sub(at) as usize;
        let wanted = behind.min(out.len());
        let Some(offset) = self.offset.checked_add(HEADER_BYTES as u64 + u64::from(at)) else {
            return 0;
        };
        let read = read_up_to(file, offset, &mut out[..wanted]).unwrap_or(0);
        if self.in_spool {
            let mut word = [0; 8];
            let whole = read_up_to(file, self.offset + CHECK_OFFSET, &mut word);
            if !matches!(whole, Ok(8)) || u64::from_le_bytes(word) != self.check {
                return 0;
            }
        }
        read
    }
}

/// Reads the header at `offset`, if one is there.
pub fn header_at(file: &File, offset: u64) -> Option<Chunk> {
    let mut bytes = [0; HEADER_BYTES];
    let read = read_up_to(file, offset, &mut bytes).ok()?;
    Chunk::parse(bytes.get(..read)?).ok()
}

/// The readings of a chunk, those that were taken.
pub fn readings(chunk: &Chunk) -> impl Iterator<Item = Triple> {
    [chunk.opened, chunk.closed]
        .into_iter()
        .filter(|r| r.tsc != 0 && r.monotonic_ns != 0)
}
