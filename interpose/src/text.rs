//! Paths and names in fixed buffers: no allocation, always NUL-terminated.

use core::ffi::CStr;

/// Bytes of the longest text, its NUL included.
pub const CAPACITY: usize = 2048;

/// A text that is built piece by piece; what does not fit marks it as too long.
pub struct Text {
    bytes: [u8; CAPACITY],
    length: usize,
    cut: bool,
}

impl Text {
    pub const fn new() -> Self {
        Text {
            bytes: [0; CAPACITY],
            length: 0,
            cut: false,
        }
    }

    /// All `parts` one after the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut text = Text::new();
        for part in parts {
            text.push(part);
        }
        text
    }

    pub fn push(&mut self, part: &[u8]) {
        for &byte in part {
            let next = self.length.wrapping_add(1);
            match self.bytes.get_mut(self.length) {
                Some(slot) if next < CAPACITY && byte != 0 => {
                    *slot = byte;
                    self.length = next;
                }
                _ => self.cut = true,
            }
        }
    }

    /// Appends `value` in decimal with at least `digits` digits.
    pub fn push_decimal(&mut self, value: u64, digits: usize) {
        let mut buffer = [b'0'; 20];
        let mut rest = value;
        let mut used = 0usize;
        for slot in buffer.iter_mut().rev() {
            if rest == 0 && used >= digits.max(1) {
                break;
            }
            *slot = b'0' | (rest % 10) as u8;
            rest /= 10;
            used = used.wrapping_add(1);
        }
        self.push(
            buffer
                .get(buffer.len().wrapping_sub(used)..)
                .unwrap_or_default(),
        );
    }

    /// Appends `value` as 16 hexadecimal digits.
    pub fn push_hex(&mut self, value: u64) {
        for shift in (0..16).rev() {
            let digit = (value >> (shift * 4)) as u8 & 15;
            self.push(&[if digit < 10 {
                b'0' | digit
            } else {
                b'a'.wrapping_add(digit).wrapping_sub(10)
            }]);
        }
    }

    /// The bytes, without the NUL.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The text for the kernel; `None` if it did not fit.
    pub fn path(&self) -> Option<&CStr> {
        if self.cut {
            return None;
        }
        CStr::from_bytes_until_nul(&self.bytes).ok()
    }
}

/// The bytes behind the last slash.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// A size such as `64M`: decimal digits and one of `k`, `M`, `G`, `T` (powers of 1,024).
pub fn parse_size(text: &[u8]) -> Option<u64> {
    let (digits, shift) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 10),
        (b'm' | b'M', digits) => (digits, 20),
        (b'g' | b'G', digits) => (digits, 30),
        (b't' | b'T', digits) => (digits, 40),
        _ => (text, 0),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add((digit & 15) as u64)?;
    }
    value.checked_mul(1 << shift)
}
