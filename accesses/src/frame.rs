//! Frames: what an `.rma` file is made of behind its header. Owns their form and the columns of blocks;
//! `file.rs` has the file around them.

use crate::record::{BlockRecord, Span};
use crate::varint::{put, take, unzigzag, zigzag};

/// Kind: blocks.
pub const BLOCKS: u32 = 1;
/// Kind: the order of the threads' calls.
pub const ORDER: u32 = 2;
/// Kind: the summary, the last frame.
pub const SUMMARY: u32 = 3;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 24;
/// A frame is not larger, neither as stored nor unpacked.
pub const BYTES_MAX: u32 = 256 << 20;

/// A frame's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `BLOCKS`, `ORDER`, `SUMMARY`; others are skipped.
    pub kind: u32,
    /// Blocks, runs, or 1.
    pub items: u32,
    /// Bytes when unpacked.
    pub raw_bytes: u32,
    /// Bytes that follow.
    pub stored_bytes: u32,
    /// CRC-32 of the bytes that follow.
    pub checksum: u32,
}

impl Header {
    /// As it is stored.
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields = [
            self.kind,
            self.items,
            self.raw_bytes,
            self.stored_bytes,
            self.checksum,
        ];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// From what was stored.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Header {
        let field = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Header {
            kind: field(0),
            items: field(4),
            raw_bytes: field(8),
            stored_bytes: field(12),
            checksum: field(16),
        }
    }
}

/// Flag of a block's record: it was live at the end.
const LIVE: u64 = 1;
/// Flag: more of the block follows.
const PART: u64 = 2;

/// Columns of blocks.
const COLUMNS: usize = 13;

/// The columns of blocks, each behind its length.
pub fn encode_blocks(blocks: &[BlockRecord]) -> Vec<u8> {
    let mut columns: [Vec<u8>; COLUMNS] = Default::default();
    let (mut birth, mut born_at) = (0, 0);
    for block in blocks {
        let flags = (u64::from(block.end.is_none()) * LIVE) | (u64::from(block.is_part) * PART);
        let fields = [
            zigzag(birth, block.birth),
            flags,
            block.end.map_or(0, |end| end.wrapping_sub(block.birth)),
            block.bytes,
            zigzag(born_at, block.born_at),
            block.reads,
            block.writes,
            block.first_access,
            block.used_for,
            block.spans,
            block.locked_instructions,
            block.crossing.len() as u64,
        ];
        for (column, field) in columns.iter_mut().zip(fields) {
            put(column, field);
        }
        let mut at = block.birth;
        for span in &block.crossing {
            put(&mut columns[COLUMNS - 1], span.from.wrapping_sub(at));
            put(&mut columns[COLUMNS - 1], span.to.wrapping_sub(span.from));
            at = span.to;
        }
        (birth, born_at) = (block.birth, block.born_at);
    }
    let mut bytes = Vec::with_capacity(columns.iter().map(|column| column.len() + 5).sum());
    for column in &columns {
        put(&mut bytes, column.len() as u64);
        bytes.extend_from_slice(column);
    }
    bytes
}

/// The blocks of a frame.
///
/// # Errors
/// What is wrong with it.
pub fn decode_blocks(
    mut bytes: &[u8],
    items: u32,
    mut told: impl FnMut(BlockRecord),
) -> Result<(), &'static str> {
    const SHORT: &str = "a column that ends too early";
    let mut columns: [&[u8]; COLUMNS] = [&[]; COLUMNS];
    for column in &mut columns {
        let length = take(&mut bytes).ok_or(SHORT)?;
        let length = usize::try_from(length).map_err(|_| SHORT)?;
        *column = bytes.get(..length).ok_or(SHORT)?;
        bytes = &bytes[length..];
    }
    let (mut birth, mut born_at) = (0, 0);
    for _ in 0..items {
        let mut fields = [0; COLUMNS - 1];
        for (field, column) in fields.iter_mut().zip(&mut columns) {
            *field = take(column).ok_or(SHORT)?;
        }
        let [
            births,
            flags,
            life,
            size,
            borns,
            reads,
            writes,
            first_access,
            used_for,
            spans,
            locked,
            crossing,
        ] = fields;
        birth = unzigzag(birth, births);
        born_at = unzigzag(born_at, borns);
        let last = &mut columns[COLUMNS - 1];
        // Two bytes at least each.
        if crossing > last.len() as u64 / 2 {
            return Err(SHORT);
        }
        let mut list = Vec::with_capacity(crossing as usize);
        let mut at = birth;
        for _ in 0..crossing {
            let from = at.checked_add(take(last).ok_or(SHORT)?);
            let from = from.ok_or("a span beyond all calls")?;
            let to = from.checked_add(take(last).ok_or(SHORT)?);
            at = to.ok_or("a span beyond all calls")?;
            list.push(Span { from, to: at });
        }
        told(BlockRecord {
            birth,
            end: (flags & LIVE == 0).then(|| birth.wrapping_add(life)),
            bytes: size,
            born_at,
            reads,
            writes,
            first_access,
            used_for,
            spans,
            locked_instructions: locked,
            crossing: list,
            is_part: flags & PART != 0,
        });
    }
    match columns.iter().all(|column| column.is_empty()) && bytes.is_empty() {
        true => Ok(()),
        false => Err("more in it than it says"),
    }
}

/// Runs of calls of one thread: thread, calls.
pub fn encode_order(runs: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(runs.len() * 3);
    for (thread, calls) in runs {
        put(&mut bytes, u64::from(*thread));
        put(&mut bytes, *calls);
    }
    bytes
}

/// See [`encode_order`].
///
/// # Errors
/// What is wrong with it.
pub fn decode_order(mut bytes: &[u8], items: u32) -> Result<Vec<(u32, u64)>, &'static str> {
    const WRONG: &str = "an order of calls that is none";
    let mut runs = Vec::new();
    for _ in 0..items {
        let thread = take(&mut bytes).and_then(|thread| u32::try_from(thread).ok());
        let calls = take(&mut bytes);
        runs.push((thread.ok_or(WRONG)?, calls.ok_or(WRONG)?));
    }
    match bytes.is_empty() {
        true => Ok(runs),
        false => Err(WRONG),
    }
}
