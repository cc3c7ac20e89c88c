//! The recorder's memory, followed by the program's own stores to it: each record that is published is read from the spool
//! at the moment at which the stream has its store. `docs/spool.md` has the layout. The program runs ahead of the
//! stream, but takes no chunk twice (docs/accesses.md says why), so what was published stays.

use crate::error::AccessError;
use rmtrace_format::chunk::{HEADER_BYTES, KIND_EVENTS};
use rmtrace_format::record::{self, Item, Record, Records};
use rmtrace_format::spool::{
    DIRECTORY_OFFSET, MAGIC, PAGE_BYTES, SLAB_BYTES, SLAB_LARGE, SLAB_SMALL, SLABS_OFFSET,
    SMALL_PER_SLAB, VERSION,
};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Offset of `committed` in a chunk's header.
const COMMITTED: usize = 16;
/// Offset of `closed`.
const CLOSED: usize = 88;
/// Offset of `mapped_at` in the spool's header.
const MAPPED_AT: usize = 128;

/// What a store to the spool did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing that counts.
    Nothing,
    /// Something other than a call was published by the thread with this state.
    Note {
        /// Address of its state.
        state_at: u64,
    },
    /// A call was published.
    Call {
        /// Number of the thread.
        thread: u32,
        /// Address of its state.
        state_at: u64,
        /// The call.
        call: Record,
    },
    /// The thread with this state handed its chunk over.
    Closed {
        /// Address of its state.
        state_at: u64,
    },
}

/// A chunk that is being filled.
#[derive(Debug, Default)]
struct Chunk {
    /// Bytes of records that were published.
    used: usize,
    base: u64,
    thread: u32,
    state_at: u64,
    /// It holds records of the first process.
    counts: bool,
    /// The header was read.
    known: bool,
    /// There was a store to its data since the last one to `committed`.
    written: bool,
    bytes: usize,
}

/// A spool.
#[derive(Debug)]
pub struct Spool {
    file: File,
    /// First address in the program.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
    slabs: HashMap<u32, u8>,
    chunks: HashMap<u32, Chunk>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    word(bytes, at) as u32
}

impl Spool {
    /// Opens a spool; `None` while its header is not complete.
    ///
    /// # Errors
    /// When it is of another version.
    pub fn open(file: File) -> Result<Option<Spool>, AccessError> {
        let mut header = [0; 256];
        if file.read_exact_at(&mut header, 0).is_err() || word(&header, 0) != MAGIC {
            return Ok(None);
        }
        let version = half(&header, 8);
        if version != VERSION {
            return Err(AccessError::Spool {
                what: format!(
                    "its version is {version}, not {VERSION}; librmtrace.so is of another version than rmtrace"
                ),
            });
        }
        let (start, bytes) = (word(&header, MAPPED_AT), word(&header, 32));
        if start == 0 {
            return Err(AccessError::Spool {
                what: "it does not say where it is mapped; librmtrace.so is older than rmtrace"
                    .to_string(),
            });
        }
        Ok(Some(Spool {
            file,
            start,
            bytes,
            slabs: HashMap::new(),
            chunks: HashMap::new(),
        }))
    }

    /// Number of the chunk at an offset of the spool, and the offset in it.
    #[inline]
    fn place(&mut self, offset: u64) -> Option<(u32, usize)> {
        let at = usize::try_from(offset).ok()?.checked_sub(SLABS_OFFSET)?;
        let slab = (at / SLAB_BYTES) as u32;
        let kind = match self.slabs.get(&slab) {
            Some(kind) => *kind,
            None => {
                let mut kind = [0];
                self.file
                    .read_exact_at(&mut kind, DIRECTORY_OFFSET as u64 + u64::from(slab))
                    .ok()?;
                if kind[0] == SLAB_LARGE || kind[0] == SLAB_SMALL {
                    self.slabs.insert(slab, kind[0]);
                }
                kind[0]
            }
        };
        let page = match kind {
            SLAB_SMALL => at % SLAB_BYTES / PAGE_BYTES,
            _ => 0,
        };
        let number = slab * SMALL_PER_SLAB as u32 + page as u32;
        Some((number, at - number as usize * PAGE_BYTES))
    }

    /// Takes a store at an offset of the spool.
    ///
    /// # Errors
    /// When what was published can't be read.
    #[inline]
    pub fn stored(&mut self, offset: u64) -> Result<Stored, AccessError> {
        let Some((number, at)) = self.place(offset) else {
            return Ok(Stored::Nothing);
        };
        let chunk = self.chunks.entry(number).or_default();
        match at {
            HEADER_BYTES.. => chunk.written = true,
            COMMITTED if chunk.written => {
                chunk.written = false;
                return self.published(number);
            }
            // A chunk begins.
            COMMITTED => *chunk = Chunk::default(),
            CLOSED if chunk.counts => {
                return Ok(Stored::Closed {
                    state_at: chunk.state_at,
                });
            }
            _ => {}
        }
        Ok(Stored::Nothing)
    }

    fn published(&mut self, number: u32) -> Result<Stored, AccessError> {
        let start = SLABS_OFFSET as u64 + u64::from(number) * PAGE_BYTES as u64;
        let unread = |error: std::io::Error| AccessError::Spool {
            what: format!("chunk {number} can't be read: {error}"),
        };
        let chunk = self.chunks.entry(number).or_default();
        if !chunk.known {
            let mut header = [0; HEADER_BYTES];
            self.file
                .read_exact_at(&mut header, start)
                .map_err(unread)?;
            *chunk = Chunk {
                used: 0,
                base: word(&header, 64),
                thread: half(&header, 24),
                state_at: word(&header, 184),
                // What a forked child does is not in the stream.
                counts: half(&header, 4) == KIND_EVENTS && half(&header, 20) == 0,
                known: true,
                written: false,
                bytes: half(&header, 12) as usize,
            };
        }
        if !chunk.counts {
            return Ok(Stored::Nothing);
        }
        let mut bytes = [0; record::ITEM_BYTES_MAX];
        let room = chunk
            .bytes
            .saturating_sub(HEADER_BYTES + chunk.used)
            .min(bytes.len());
        let bytes = &mut bytes[..room];
        let at = start + (HEADER_BYTES + chunk.used) as u64;
        self.file.read_exact_at(bytes, at).map_err(unread)?;
        let state_at = chunk.state_at;
        if word(bytes, 0) & record::ENTRY_MASK == record::CODE_BASE {
            chunk.base = word(bytes, 8);
            chunk.used += record::UNIT_BYTES;
            return Ok(Stored::Note { state_at });
        }
        let mut records = Records::new(bytes, chunk.base);
        match records.next() {
            Some(Ok(item)) => {
                chunk.used += records.offset();
                Ok(match item {
                    Item::Call(call) => Stored::Call {
                        thread: chunk.thread,
                        state_at,
                        call,
                    },
                    Item::Mark { .. } => Stored::Note { state_at },
                })
            }
            _ => Err(AccessError::Spool {
                what: format!(
                    "chunk {number} holds no record at byte {}, where one was published",
                    chunk.used
                ),
            }),
        }
    }
}
