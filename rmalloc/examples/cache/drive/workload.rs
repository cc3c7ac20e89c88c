//! Which keys are asked for, and which values are stored. All of it comes from the seed.
//!
//! - Keys are `key:` and twelve digits, one for every 64 bytes of the limit, so that most do not fit at once.
//! - Values are stored under any key. Four reads of five go to one key of sixteen: these stay while others go, so blocks of
//!   earlier phases are left between those of later ones, as in caches that people use.
//! - The bytes of a value follow from its key and its length: whatever is read back can be checked.

use super::super::options::Sizes;
use std::io::Write;

/// Bytes of the limit for each key.
const BYTES_PER_KEY: u64 = 64;
/// One key of so many is read often.
const OFTEN_ONE_OF: u64 = 16;
/// Percent of the reads that go to them.
const OFTEN_PERCENT: u64 = 80;
/// Start of a value within the pattern: a prime number of places.
const PLACES: u64 = 65_521;
/// Bytes of every key.
pub const KEY_BYTES: u64 = 16;

/// What a reply must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// OK for so many bytes of key and value.
    Stored(u64),
    /// The value of this key, of any length, or none.
    Value(u64),
    /// The length of a value, 0 for none.
    Length,
    /// Lines of text.
    Info,
}

/// The bytes of values.
pub struct Values {
    pattern: Vec<u8>,
}

impl Values {
    /// The value of a key that has this length.
    pub fn of(&self, key: u64, bytes: usize) -> &[u8] {
        let start = (mix(key ^ (bytes as u64) << 40) % PLACES) as usize;
        &self.pattern[start..start + bytes]
    }

    /// Whether a value of this key may be like this.
    pub fn is_one(&self, key: u64, value: &[u8]) -> bool {
        value.len() + PLACES as usize <= self.pattern.len() && self.of(key, value.len()) == value
    }
}

/// The choices.
pub struct Workload {
    state: u64,
    keys: u64,
    sizes: Sizes,
    values: std::rc::Rc<Values>,
}

impl Workload {
    /// Choices for a server of this limit; values are never longer than the longest of `phases`.
    pub fn new(seed: u64, limit_bytes: u64, phases: &[Sizes]) -> Workload {
        let longest = phases
            .iter()
            .flat_map(|sizes| [sizes.range.1, sizes.second.map_or(0, |(_, high, _)| high)]);
        let bytes = longest.max().unwrap_or(0) as usize + PLACES as usize;
        let mut workload = Workload {
            state: seed,
            keys: (limit_bytes / BYTES_PER_KEY).max(OFTEN_ONE_OF),
            sizes: Sizes {
                range: (0, 0),
                second: None,
            },
            values: std::rc::Rc::new(Values {
                pattern: Vec::new(),
            }),
        };
        let words = std::iter::repeat_with(|| workload.next()).take(bytes / 8 + 1);
        let pattern = words.flat_map(u64::to_le_bytes).collect();
        workload.values = std::rc::Rc::new(Values { pattern });
        workload
    }

    /// The bytes of values.
    pub fn values(&self) -> std::rc::Rc<Values> {
        self.values.clone()
    }

    /// Values are of these sizes from now on.
    pub fn begin(&mut self, sizes: Sizes) {
        self.sizes = sizes;
    }

    /// All keys.
    pub fn keys(&self) -> std::ops::Range<u64> {
        0..self.keys
    }

    /// True in `percent` of 100 calls.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Appends a GET.
    pub fn get(&mut self, request: &mut Vec<u8>) -> Expected {
        let key = if self.chance(OFTEN_PERCENT) {
            self.below(self.keys / OFTEN_ONE_OF) * OFTEN_ONE_OF
        } else {
            self.below(self.keys)
        };
        write(
            request,
            format_args!("*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n"),
        );
        Expected::Value(key)
    }

    /// Appends a SET; with the bytes of key and value.
    pub fn set(&mut self, request: &mut Vec<u8>) -> (Expected, u64) {
        let key = self.below(self.keys);
        let Sizes { range, second } = self.sizes;
        let (low, high) = match second {
            Some((low, high, percent)) if self.chance(percent.into()) => (low, high),
            _ => range,
        };
        let bytes = (u64::from(low) + self.below(u64::from(high - low) + 1)) as usize;
        write(
            request,
            format_args!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${bytes}\r\n"),
        );
        request.extend_from_slice(self.values.of(key, bytes));
        request.extend_from_slice(b"\r\n");
        let stored = KEY_BYTES + bytes as u64;
        (Expected::Stored(stored), stored)
    }

    /// Appends a STRLEN.
    pub fn length(&self, key: u64, request: &mut Vec<u8>) -> Expected {
        write(
            request,
            format_args!("*2\r\n$6\r\nSTRLEN\r\n$16\r\nkey:{key:012}\r\n"),
        );
        Expected::Length
    }

    /// Appends an INFO.
    pub fn info(&self, request: &mut Vec<u8>) -> Expected {
        write(request, format_args!("*1\r\n$4\r\nINFO\r\n"));
        Expected::Info
    }

    /// A number from 0 to `end - 1`, each about as likely.
    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// The next random number (a counter whose bits are mixed: SplitMix64).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn write(request: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = request.write_fmt(text);
}
