//! Integers of variable length (LEB128) and signed differences, and the cursor that reads them.

use crate::error::Malformed;

/// Appends `value`: seven bits a byte, least significant first, bit 7 set on all but the last.
#[inline(always)]
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes into room that was set aside. What goes beyond its end is left out: whoever makes the room
/// makes it long enough.
pub(crate) struct Pen<'a, const ROOM_BYTES: usize> {
    room: &'a mut [u8; ROOM_BYTES],
    used: usize,
}

/// Bytes of room that must be left behind the last value: some are written with bytes to spare.
pub(crate) const SPARE_BYTES: usize = 4;

impl<'a, const ROOM_BYTES: usize> Pen<'a, ROOM_BYTES> {
    /// Writes to `room` from its beginning.
    #[inline(always)]
    pub(crate) fn new(room: &'a mut [u8; ROOM_BYTES]) -> Self {
        Pen { room, used: 0 }
    }

    /// What was written.
    pub(crate) fn written(&self) -> &[u8] {
        debug_assert!(self.used <= ROOM_BYTES);
        self.room.get(..self.used).unwrap_or_default()
    }

    /// One byte.
    #[inline(always)]
    pub(crate) fn byte(&mut self, byte: u8) {
        if let Some(at) = self.room.get_mut(self.used) {
            *at = byte;
        }
        self.used += 1;
    }

    /// An integer, as [`put`] writes it. Lengths of two to four bytes vary without a pattern in most
    /// columns, so there is no branch between them.
    #[inline(always)]
    pub(crate) fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.byte(value as u8);
        } else if value < 1 << 28 {
            let value = value as u32;
            let groups = (value & 0x7f)
                | (value << 1 & 0x7f00)
                | (value << 2 & 0x7f_0000)
                | (value << 3 & 0x7f00_0000);
            let bytes = value.ilog2() / 7 + 1;
            let more = 0x0080_8080 >> (8 * (4 - bytes));
            if let Some(at) = self.room.get_mut(self.used..self.used.wrapping_add(4)) {
                at.copy_from_slice(&(groups | more).to_le_bytes());
            }
            self.used += bytes as usize;
        } else {
            self.used += put_long(self.room.get_mut(self.used..).unwrap_or_default(), value);
        }
    }
}

/// Writes `value` and returns its length. Not a method, so that pens can be kept in registers.
#[inline(never)]
fn put_long(room: &mut [u8], mut value: u64) -> usize {
    let mut bytes = 0;
    for at in room {
        bytes += 1;
        if value < 0x80 {
            *at = value as u8;
            break;
        }
        *at = value as u8 | 0x80;
        value >>= 7;
    }
    bytes
}

/// Maps signed to unsigned so that small magnitudes stay small: 0, -1, 1, -2 ...
#[inline(always)]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Inverse of [`zigzag`].
#[inline(always)]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The integer at the front of eight bytes, and its length; 0 if it is longer than that. Lengths vary
/// without a pattern in most columns, so there is no branch between them.
#[inline(always)]
const fn take_word(word: u64) -> (u64, usize) {
    const GROUPS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let ends = !word & !GROUPS;
    let length = match ends {
        0 => 0,
        _ => (ends.trailing_zeros() / 8 + 1) as usize,
    };
    // The bits up to the lowest one of `ends`; then groups of 7, 14 and 28 bits move together.
    let groups = word & (ends ^ ends.wrapping_sub(1)) & GROUPS;
    let pairs = groups & 0x007f_007f_007f_007f | (groups & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    let value = fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4;
    (value, length)
}

/// Reads a byte slice from its front.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
}

const SHORT: Malformed = Malformed::new("it ends within a value");
const LONG: Malformed = Malformed::new("an integer is longer than 64 bits");

impl<'a> Cursor<'a> {
    /// Reads `bytes`.
    #[inline(always)]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes }
    }

    /// What is left.
    #[inline(always)]
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// One byte.
    #[inline(always)]
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.bytes.split_first().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(*first)
    }

    /// `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(SHORT)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// An integer of variable length.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        match self.bytes {
            [first, rest @ ..] if *first < 0x80 => {
                self.bytes = rest;
                Ok(u64::from(*first))
            }
            [first, second, rest @ ..] if *second < 0x80 => {
                self.bytes = rest;
                Ok(u64::from(*first & 0x7f) | u64::from(*second) << 7)
            }
            bytes => {
                // Not a method, so that cursors can be kept in registers.
                let (value, length) = match bytes.first_chunk() {
                    Some(word) => take_word(u64::from_le_bytes(*word)),
                    None => (0, 0),
                };
                if length == 0 {
                    return self.varint_slow();
                }
                self.bytes = bytes.get(length..).unwrap_or_default();
                Ok(value)
            }
        }
    }

    /// One that is longer than eight bytes, or near the end.
    #[cold]
    #[inline(never)]
    fn varint_slow(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(LONG);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(LONG)
    }

    /// An integer of variable length that must fit in 32 bits.
    pub fn varint_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed::new("a number exceeds 32 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_round_trip(values in proptest::collection::vec(any::<u64>(), 0..50), shift in 0u32..64) {
            let mut bytes = Vec::new();
            for value in &values {
                put(&mut bytes, value >> shift);
                put(&mut bytes, zigzag(*value as i64 >> shift));
            }
            let mut cursor = Cursor::new(&bytes);
            for value in &values {
                prop_assert_eq!(cursor.varint().unwrap(), value >> shift);
                prop_assert_eq!(unzigzag(cursor.varint().unwrap()), *value as i64 >> shift);
            }
            prop_assert!(cursor.rest().is_empty());
            prop_assert!(cursor.varint().is_err());
            let mut room = [0xaa; 50 * 20 + SPARE_BYTES];
            let mut pen = Pen::new(&mut room);
            for value in &values {
                pen.varint(value >> shift);
                pen.varint(zigzag(*value as i64 >> shift));
            }
            prop_assert_eq!(pen.written(), &bytes[..]);
        }
    }

    proptest! {
        #[test]
        fn both_ways_to_read_agree(bytes in proptest::collection::vec(prop_oneof![0x80u8..=0xff, 0u8..0x80], 0..14)) {
            let (mut fast, mut slow) = (Cursor::new(&bytes), Cursor::new(&bytes));
            prop_assert_eq!(fast.varint(), slow.varint_slow());
            if fast.varint().is_ok() {
                let _ = slow.varint_slow();
                prop_assert_eq!(fast.rest(), slow.rest());
            }
        }
    }

    #[test]
    fn integers_beyond_64_bits_are_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 1;
        assert_eq!(Cursor::new(&bytes).varint().unwrap(), u64::MAX);
        bytes[9] = 2;
        assert!(Cursor::new(&bytes).varint().is_err());
        assert!(Cursor::new(&[0x80; 11]).varint().is_err());
        assert!(Cursor::new(&[0x80; 3]).varint().is_err());
    }
}
