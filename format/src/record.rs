//! The record of one call as the traced program writes it: one to four units of 16 bytes.
//!
//! Unit 0 is `address << 16 | flags`, then `size_low << 40 | tsc_delta`. A second unit carries the
//! rest of large sizes and the second half of a realloc; a last unit may carry the caller and the
//! usable size. `docs/format.md` has the tables.

use crate::event::{Entry, Kind};

/// Bytes of a unit; every record is a whole number of them.
pub const UNIT_BYTES: usize = 16;
/// The longest record.
pub const RECORD_BYTES_MAX: usize = 4 * UNIT_BYTES;

/// Bits of a stamp within a record, as a difference to the chunk's time base.
pub const DELTA_BITS: u32 = 40;
/// Mask of [`DELTA_BITS`].
pub const DELTA_MASK: u64 = (1 << DELTA_BITS) - 1;
/// Bits of a size that fit in unit 0.
pub const SIZE_LOW_BITS: u32 = 24;

/// Bits 0-5 of the first word: the entry's number, or one of the codes below.
pub const ENTRY_MASK: u64 = 0x3f;
/// Bits 6-11 of the first word: binary logarithm of the alignment.
pub const ALIGN_SHIFT: u32 = 6;
/// Bit 12: a second unit follows.
pub const LONG: u64 = 1 << 12;
/// Bit 13: a third unit with the end stamp in full follows the second.
pub const FULL_END: u64 = 1 << 13;
/// Bit 14: a last unit (caller, usable bytes) follows.
pub const EXTRA: u64 = 1 << 14;
/// Bit 15: the realloc returned NULL and ended its block.
pub const FREED: u64 = 1 << 15;
/// The bits of the first word that are part of the content sum.
pub const CONTENT_MASK: u64 = !(LONG | FULL_END | EXTRA);

/// Code of a record that sets a new time base: word 1 is the whole TSC.
pub const CODE_BASE: u64 = 60;
/// Code of a mark: the address field holds a value, word 1 has the stamp and in its size field the
/// mark's number.
pub const CODE_MARK: u64 = 61;

/// Mark number: `moz_dispose_arena`; the value is the arena.
pub const MARK_DISPOSE_ARENA: u64 = 1;
/// Mark number: the thread dropped calls here; the value is how many.
pub const MARK_DROPPED: u64 = 2;
/// Mark number: the machine was suspended before this; the value is for how many nanoseconds. In
/// traces only, of the run.
pub const MARK_SUSPEND: u64 = 3;
/// Mark number: the program set it; the value is the length of its name in bytes, and the name is in
/// the units behind it.
pub const MARK_NAMED: u64 = 4;
/// Mark number: recording was started again. In traces only, of the run.
pub const MARK_START: u64 = 5;
/// Mark number: recording was stopped: calls behind it are missing up to the next [`MARK_START`]. In
/// traces only, of the run.
pub const MARK_STOP: u64 = 6;
/// Mark number: set from outside of the program. In traces only, of the run.
pub const MARK_RUN: u64 = 7;

/// Bytes of a mark's name at most.
pub const NAME_BYTES_MAX: usize = 63;
/// The longest item: a mark with a name.
pub const ITEM_BYTES_MAX: usize = UNIT_BYTES + (NAME_BYTES_MAX + 1);

/// Content sum: one step. For a fixed `sum` different words give different results.
#[inline(always)]
pub const fn content_step(sum: u64, word: u64) -> u64 {
    (sum ^ word)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}

/// Content sum of a whole record added to `sum`: over entry, alignment, `FREED`, addresses and size,
/// not over times, callers and usable sizes.
#[inline(always)]
pub const fn content_sum(sum: u64, record: &Record) -> u64 {
    let first = (record.address << 16)
        | ((record.align_log2 as u64) << ALIGN_SHIFT)
        | record.entry as u64
        | if record.freed { FREED } else { 0 };
    let sum = content_step(sum, first ^ record.size.rotate_left(48));
    if let Kind::Realloc = record.entry.kind() {
        content_step(sum, record.new_address)
    } else {
        sum
    }
}

/// A decoded call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The function.
    pub entry: Entry,
    /// Binary logarithm of the alignment asked for, or 0.
    pub align_log2: u8,
    /// Realloc that returned NULL and ended its block.
    pub freed: bool,
    /// Block returned, freed, or given to realloc.
    pub address: u64,
    /// Block returned by realloc; 0 for others.
    pub new_address: u64,
    /// Requested bytes; 0 for frees.
    pub size: u64,
    /// TSC of the call; of a realloc, before it.
    pub tsc: u64,
    /// TSC after a realloc; for others equal to `tsc`.
    pub tsc_end: u64,
    /// Return address of the call, or 0.
    pub caller: u64,
    /// Usable bytes of the new block, or 0.
    pub usable: u64,
}

/// Name of a mark, as the program gave it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    length: u8,
}

impl Name {
    /// No name.
    pub const NONE: Name = Name {
        bytes: [0; NAME_BYTES_MAX],
        length: 0,
    };

    /// The first [`NAME_BYTES_MAX`] bytes of `name`.
    pub fn new(name: impl Iterator<Item = u8>) -> Name {
        let mut new = Name::NONE;
        for (slot, byte) in new.bytes.iter_mut().zip(name) {
            *slot = byte;
            new.length += 1;
        }
        new
    }

    /// Its bytes; nothing says that they are UTF-8.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    /// Words behind the first unit of a mark with this name.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let units = self.bytes().chunks(UNIT_BYTES);
        units.flat_map(|unit| {
            [0, 8].map(|at| {
                let mut word = [0; 8];
                let rest = unit.get(at..).unwrap_or_default();
                for (slot, byte) in word.iter_mut().zip(rest) {
                    *slot = *byte;
                }
                u64::from_le_bytes(word)
            })
        })
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{}\"", self.bytes().escape_ascii())
    }
}

/// What a chunk's records say, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A call.
    Call(Record),
    /// A mark: number, value, TSC.
    Mark {
        /// `MARK_...`
        number: u32,
        /// What the mark is about.
        value: u64,
        /// When.
        tsc: u64,
        /// Its name, with [`MARK_NAMED`].
        name: Name,
    },
}

/// Why records can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Byte offset of the record in the slice given.
    pub offset: usize,
    /// What was found.
    pub found: Damage,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// An entry number that the format does not have.
    UnknownEntry(u8),
    /// The record goes on behind the end of the data.
    CutShort,
    /// A combination that the format forbids.
    Malformed,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.found {
            Damage::UnknownEntry(number) => {
                write!(
                    f,
                    "unknown entry {number} in the record at byte {}",
                    self.offset
                )
            }
            Damage::CutShort => write!(f, "the record at byte {} is cut short", self.offset),
            Damage::Malformed => write!(f, "the record at byte {} is malformed", self.offset),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Iterates over the records of a chunk.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    offset: usize,
    base: u64,
}

impl<'a> Records<'a> {
    /// Reads `bytes` (published records, without the chunk's header) whose first time base is
    /// `base` (the chunk's TSC).
    pub const fn new(bytes: &'a [u8], base: u64) -> Self {
        Records {
            bytes,
            offset: 0,
            base,
        }
    }

    /// Continues at `offset` with the `base` that was in force there.
    pub const fn resume(bytes: &'a [u8], offset: usize, base: u64) -> Self {
        Records {
            bytes,
            offset,
            base,
        }
    }

    /// Byte offset of the next record.
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Time base in force at [`Records::offset`].
    pub const fn base(&self) -> u64 {
        self.base
    }

    fn words(&self, unit: usize) -> Option<(u64, u64)> {
        let at = self.offset.checked_add(unit.checked_mul(UNIT_BYTES)?)?;
        let unit = self.bytes.get(at..at.checked_add(UNIT_BYTES)?)?;
        let (first, second) = unit.split_at(8);
        Some((
            u64::from_le_bytes(first.try_into().ok()?),
            u64::from_le_bytes(second.try_into().ok()?),
        ))
    }

    fn decode(&self) -> Result<(Option<Item>, usize, u64), Damage> {
        let (w0, w1) = self.words(0).ok_or(Damage::CutShort)?;
        let code = w0 & ENTRY_MASK;
        if code == CODE_BASE {
            return Ok((None, 1, w1));
        }
        let tsc = self.base.wrapping_add(w1 & DELTA_MASK);
        let mut size = w1 >> DELTA_BITS;
        if code == CODE_MARK {
            let value = w0 >> 16;
            let mut name = Name::NONE;
            let mut units = 1;
            if size == MARK_NAMED {
                if value > NAME_BYTES_MAX as u64 {
                    return Err(Damage::Malformed);
                }
                let length = value as usize;
                let at = self.offset + UNIT_BYTES;
                units += length.div_ceil(UNIT_BYTES);
                let end = self.offset + units * UNIT_BYTES;
                let bytes = self.bytes.get(at..end).ok_or(Damage::CutShort)?;
                name = Name::new(bytes.iter().copied().take(length));
            }
            let item = Item::Mark {
                number: size as u32,
                value,
                tsc,
                name,
            };
            return Ok((Some(item), units, self.base));
        }
        let entry = Entry::from_number(code as u8).ok_or(Damage::UnknownEntry(code as u8))?;
        let is_realloc = entry.kind() == Kind::Realloc;
        let mut units = 1;
        let mut new_address = 0;
        let mut tsc_end = tsc;
        if w0 & LONG != 0 {
            let (w2, w3) = self.words(units).ok_or(Damage::CutShort)?;
            units += 1;
            new_address = w2 >> 16;
            size |= (w2 & 0xffff) << 24;
            size |= (w3 >> DELTA_BITS) << 40;
            if is_realloc {
                tsc_end = tsc.wrapping_add(w3 & DELTA_MASK);
            } else if new_address != 0 {
                return Err(Damage::Malformed);
            }
        } else if is_realloc {
            return Err(Damage::Malformed);
        }
        if w0 & FULL_END != 0 {
            if !is_realloc {
                return Err(Damage::Malformed);
            }
            let (w4, _) = self.words(units).ok_or(Damage::CutShort)?;
            units += 1;
            tsc_end = w4;
        }
        let mut caller = 0;
        let mut usable = 0;
        if w0 & EXTRA != 0 {
            (caller, usable) = self.words(units).ok_or(Damage::CutShort)?;
            units += 1;
        }
        let record = Record {
            entry,
            align_log2: ((w0 >> ALIGN_SHIFT) & 0x3f) as u8,
            freed: w0 & FREED != 0,
            address: w0 >> 16,
            new_address,
            size,
            tsc,
            tsc_end,
            caller,
            usable,
        };
        Ok((Some(Item::Call(record)), units, self.base))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Item, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.offset < self.bytes.len() {
            match self.decode() {
                Ok((item, units, base)) => {
                    self.base = base;
                    self.offset += units * UNIT_BYTES;
                    if let Some(item) = item {
                        return Some(Ok(item));
                    }
                }
                Err(found) => {
                    let offset = self.offset;
                    self.offset = self.bytes.len();
                    return Some(Err(DecodeError { offset, found }));
                }
            }
        }
        None
    }
}
/// Encodes `record` against the time base `base` into `out` and returns its length in bytes, or
/// `None` if a field does not fit (an address above 48 bits) or `tsc` is not within
/// [`DELTA_BITS`] of the base.
///
/// The interposer's hot path writes the common cases itself; this is the whole format, for its cold
/// path and for tests.
pub fn encode(record: &Record, base: u64, out: &mut [u8; RECORD_BYTES_MAX]) -> Option<usize> {
    let delta = record.tsc.wrapping_sub(base);
    if delta > DELTA_MASK || record.address >> 48 != 0 || record.new_address >> 48 != 0 {
        return None;
    }
    let is_realloc = record.entry.kind() == Kind::Realloc;
    let long = is_realloc || record.size >> SIZE_LOW_BITS != 0;
    let end_delta = record.tsc_end.wrapping_sub(record.tsc);
    let full_end = is_realloc && end_delta > DELTA_MASK;
    let extra = record.caller != 0 || record.usable != 0;
    let w0 = record.address << 16
        | record.entry as u64
        | (record.align_log2 as u64 & 0x3f) << ALIGN_SHIFT
        | if long { LONG } else { 0 }
        | if full_end { FULL_END } else { 0 }
        | if extra { EXTRA } else { 0 }
        | if record.freed { FREED } else { 0 };
    let mut words = [0u64; 8];
    words[0] = w0;
    words[1] = (record.size << DELTA_BITS) | delta;
    let mut units = 1;
    if long {
        words[2] = record.new_address << 16 | (record.size >> 24 & 0xffff);
        let end = if is_realloc && !full_end {
            end_delta
        } else {
            0
        };
        words[3] = (record.size >> 40) << DELTA_BITS | end;
        units = 2;
    }
    if full_end {
        words[4] = record.tsc_end;
        units = 3;
    }
    if extra {
        words[units * 2] = record.caller;
        words[units * 2 + 1] = record.usable;
        units += 1;
    }
    for (bytes, word) in out.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Some(units * UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(entry: Entry, size: u64, address: u64, new_address: u64) -> Record {
        Record {
            entry,
            align_log2: 0,
            freed: false,
            address,
            new_address,
            size,
            tsc: 5_000,
            tsc_end: 5_000,
            caller: 0,
            usable: 0,
        }
    }

    fn round_trip(record: &Record) -> usize {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let length = encode(record, 4_000, &mut bytes).unwrap();
        let mut records = Records::new(&bytes[..length], 4_000);
        assert_eq!(records.next(), Some(Ok(Item::Call(*record))));
        assert_eq!(records.next(), None);
        length
    }

    #[test]
    fn records_of_every_length_round_trip() {
        assert_eq!(
            round_trip(&record(Entry::Malloc, 100, 0x7fff_1234_5670, 0)),
            16
        );
        assert_eq!(round_trip(&record(Entry::Malloc, (1 << 24) - 1, 16, 0)), 16);
        assert_eq!(round_trip(&record(Entry::Malloc, 1 << 24, 16, 0)), 32);
        assert_eq!(round_trip(&record(Entry::Calloc, u64::MAX, 0, 0)), 32);
        let mut realloc = record(Entry::Realloc, 70_000, 16, 32);
        realloc.tsc_end = 9_000;
        assert_eq!(round_trip(&realloc), 32);
        realloc.tsc_end = 5_000 + (1 << 41);
        assert_eq!(round_trip(&realloc), 48);
        realloc.caller = 77;
        realloc.usable = 88;
        assert_eq!(round_trip(&realloc), 64);
    }

    #[test]
    fn a_cut_record_is_an_error() {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let length = encode(&record(Entry::Realloc, 1, 16, 32), 4_000, &mut bytes).unwrap();
        for cut in 1..length {
            let got = Records::new(&bytes[..cut], 0).next().unwrap().unwrap_err();
            assert_eq!(got.found, Damage::CutShort);
        }
    }

    #[test]
    fn names_of_marks_round_trip() {
        for length in [0, 1, 15, 16, 17, 62, 63, 70] {
            let name = Name::new((0..length).map(|n| b'a' + n as u8 % 26));
            assert_eq!(name.bytes().len(), length.min(NAME_BYTES_MAX));
            let mut bytes = [0; ITEM_BYTES_MAX];
            let mut filled = 0;
            let value = name.bytes().len() as u64;
            let first = [value << 16 | CODE_MARK, MARK_NAMED << DELTA_BITS | 1_000];
            for word in first.into_iter().chain(name.words()) {
                bytes[filled..filled + 8].copy_from_slice(&word.to_le_bytes());
                filled += 8;
            }
            assert_eq!(filled % UNIT_BYTES, 0);
            let bytes = &bytes[..filled];
            let item = Item::Mark {
                number: MARK_NAMED as u32,
                value,
                tsc: 5_000,
                name,
            };
            let mut records = Records::new(bytes, 4_000);
            assert_eq!(records.next(), Some(Ok(item)));
            assert_eq!(records.next(), None);
            for cut in 1..bytes.len() {
                let got = Records::new(&bytes[..cut], 0).next().unwrap().unwrap_err();
                assert_eq!(got.found, Damage::CutShort);
            }
        }
    }

    #[test]
    fn a_base_moves_the_stamps_behind_it() {
        let mut bytes = [0; 16 + RECORD_BYTES_MAX];
        bytes[0] = CODE_BASE as u8;
        bytes[8..16].copy_from_slice(&(1u64 << 50).to_le_bytes());
        let mut call = record(Entry::Free, 0, 16, 0);
        call.tsc = (1 << 50) + 3;
        call.tsc_end = call.tsc;
        let mut out = [0; RECORD_BYTES_MAX];
        let length = encode(&call, 1 << 50, &mut out).unwrap();
        bytes[16..16 + length].copy_from_slice(&out[..length]);
        let mut records = Records::new(&bytes[..16 + length], 7);
        assert_eq!(records.next(), Some(Ok(Item::Call(call))));
    }
}
