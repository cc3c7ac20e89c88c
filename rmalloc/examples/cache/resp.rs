//! The Redis protocol, version 2: where a request ends in a stream of bytes, and how replies are written. What requests mean is
//! left to `commands.rs`.
//!
//! A request is an array of bulk strings, or a line of words (inline). Nothing is copied: a request is a row of
//! ranges of the input.

use std::fmt;
use std::io::Write;
use std::ops::Range;

/// Most words of a request.
pub const WORDS_MAX: usize = 1024;
/// Longest line: a count, a length or an inline request.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// What stands at the start of some input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A whole request of so many bytes. One without words asks for nothing.
    Request(usize),
    /// Only the start of a request. It cannot be whole before the input has so many bytes.
    Incomplete(usize),
}

/// Input that is not the protocol: nothing after it can be understood, so the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The count after `*` is no number.
    Count,
    /// The count is above [`WORDS_MAX`].
    TooManyWords,
    /// Something else than `$` starts a word.
    NoBulk(u8),
    /// The length after `$` is no number from 0 on.
    Length,
    /// The length is above what the server takes.
    TooLong(usize),
    /// The words of a request together are above what the server takes.
    RequestTooLong(usize),
    /// A line is longer than [`LINE_BYTES_MAX`].
    LineTooLong,
    /// A word does not end where its length says.
    NoLineEnd,
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Protocol error: ")?;
        match self {
            Malformed::Count => out.write_str("the number of words is not a number"),
            Malformed::TooManyWords => write!(out, "more than {WORDS_MAX} words"),
            Malformed::NoBulk(found) => {
                write!(out, "expected '$', got '{}'", found.escape_ascii())
            }
            Malformed::Length => out.write_str("the length of a word is not a number"),
            Malformed::TooLong(most) => write!(out, "a word is longer than {most} bytes"),
            Malformed::RequestTooLong(most) => write!(out, "a request is longer than {most} bytes"),
            Malformed::LineTooLong => write!(out, "a line is longer than {LINE_BYTES_MAX} bytes"),
            Malformed::NoLineEnd => out.write_str("no line end after a word"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Most bytes of a request whose words are of at most `word_bytes_max`.
pub fn request_bytes_max(word_bytes_max: usize) -> usize {
    4 * word_bytes_max + LINE_BYTES_MAX
}

/// Finds the first request of `input`; `words` becomes the row of its words. Words longer than `word_bytes_max` are
/// refused before they have arrived.
///
/// # Errors
/// The input is not the protocol.
pub fn parse(
    input: &[u8],
    word_bytes_max: usize,
    words: &mut Vec<Range<usize>>,
) -> Result<Parsed, Malformed> {
    words.clear();
    match input.first() {
        None => Ok(Parsed::Incomplete(1)),
        Some(b'*') => parse_array(input, word_bytes_max, words),
        Some(_) => parse_inline(input, word_bytes_max, words),
    }
}

fn parse_array(
    input: &[u8],
    word_bytes_max: usize,
    words: &mut Vec<Range<usize>>,
) -> Result<Parsed, Malformed> {
    let Some((line, mut at)) = line(input, 1)? else {
        return Ok(Parsed::Incomplete(input.len() + 1));
    };
    let count = number(line).ok_or(Malformed::Count)?;
    if count > WORDS_MAX as i64 {
        return Err(Malformed::TooManyWords);
    }
    for _ in 0..count {
        match input.get(at) {
            None => return Ok(Parsed::Incomplete(at + 1)),
            Some(b'$') => {}
            Some(&found) => return Err(Malformed::NoBulk(found)),
        }
        let Some((line, start)) = self::line(input, at + 1)? else {
            return Ok(Parsed::Incomplete(input.len() + 1));
        };
        let bytes = number(line).ok_or(Malformed::Length)?;
        let bytes = usize::try_from(bytes).map_err(|_| Malformed::Length)?;
        if bytes > word_bytes_max {
            return Err(Malformed::TooLong(word_bytes_max));
        }
        let end = start + bytes;
        let most = request_bytes_max(word_bytes_max);
        if end > most {
            return Err(Malformed::RequestTooLong(most));
        }
        match input.get(end..end + 2) {
            None => return Ok(Parsed::Incomplete(end + 2)),
            Some(b"\r\n") => {}
            Some(_) => return Err(Malformed::NoLineEnd),
        }
        words.push(start..end);
        at = end + 2;
    }
    Ok(Parsed::Request(at))
}

fn parse_inline(
    input: &[u8],
    word_bytes_max: usize,
    words: &mut Vec<Range<usize>>,
) -> Result<Parsed, Malformed> {
    let Some(end) = line_end(input, 0)? else {
        return Ok(Parsed::Incomplete(input.len() + 1));
    };
    let mut at = 0;
    for word in input[..end].split(|byte| byte.is_ascii_whitespace()) {
        if word.len() > word_bytes_max {
            return Err(Malformed::TooLong(word_bytes_max));
        }
        if !word.is_empty() {
            if words.len() == WORDS_MAX {
                return Err(Malformed::TooManyWords);
            }
            words.push(at..at + word.len());
        }
        at += word.len() + 1;
    }
    Ok(Parsed::Request(end + 1))
}

/// Where the next `\n` is.
fn line_end(input: &[u8], start: usize) -> Result<Option<usize>, Malformed> {
    let rest = &input[start..];
    let rest = &rest[..rest.len().min(LINE_BYTES_MAX)];
    match rest.iter().position(|&byte| byte == b'\n') {
        None if rest.len() == LINE_BYTES_MAX => Err(Malformed::LineTooLong),
        found => Ok(found.map(|at| start + at)),
    }
}

/// The line from `start` on without its end (`\r\n`), and where the next one starts.
fn line(input: &[u8], start: usize) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some(end) = line_end(input, start)? else {
        return Ok(None);
    };
    let line = &input[start..end];
    Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1)))
}

/// A decimal number with an optional minus, nothing else, of at most 18 digits.
pub fn number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -value } else { value })
}

/// Replies, one after the other.
#[derive(Default)]
pub struct Replies {
    /// What is to be sent.
    pub bytes: Vec<u8>,
}

impl Replies {
    /// `+text`.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', format_args!("{text}"));
    }

    /// `-text`: a word in capitals first, then what is wrong. Line ends become spaces.
    pub fn error(&mut self, text: fmt::Arguments<'_>) {
        let start = self.bytes.len();
        self.line(b'-', text);
        let end = self.bytes.len() - 2;
        for byte in &mut self.bytes[start..end] {
            if byte.is_ascii_control() {
                *byte = b' ';
            }
        }
    }

    /// `:n`.
    pub fn integer(&mut self, n: u64) {
        self.count(b':', n);
    }

    /// A string of any bytes.
    pub fn bulk(&mut self, value: &[u8]) {
        self.count(b'$', value.len() as u64);
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// There is no such value.
    pub fn nil(&mut self) {
        self.bytes.extend_from_slice(b"$-1\r\n");
    }

    /// The start of an array of so many replies.
    pub fn array(&mut self, count: usize) {
        self.count(b'*', count as u64);
    }

    fn line(&mut self, kind: u8, text: fmt::Arguments<'_>) {
        self.bytes.push(kind);
        // Writing to a vector cannot fail.
        let _ = self.bytes.write_fmt(text);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// The digits by hand: this is on the path of every reply.
    fn count(&mut self, kind: u8, n: u64) {
        let mut room = [0; 20];
        let mut at = room.len();
        let mut rest = n;
        loop {
            at -= 1;
            room[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&room[at..]);
        self.bytes.extend_from_slice(b"\r\n");
    }
}
