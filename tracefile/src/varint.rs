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
            _ => self.varint_long(),
        }
    }

    #[inline(never)]
    fn varint_long(&mut self) -> Result<u64, Malformed> {
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
