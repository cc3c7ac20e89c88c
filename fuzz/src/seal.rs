//! Makes the checksums of changed inputs right, so that what they protect is decoded.

use rmtrace_file::frame::{FrameHeader, HEADER_BYTES, KIND_EVENTS, MAGIC};
use rmtrace_file::writer::{FILE_HEADER_BYTES, FILE_MAGIC, file_header};
use rmtrace_format::chunk;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Where a frame's magic is.
fn frames(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let magic = MAGIC.to_le_bytes();
    (0..bytes.len().saturating_sub(HEADER_BYTES - 1)).filter(move |at| bytes[*at..*at + 4] == magic)
}

/// A trace with the file's header and the headers of all its frames right. A frame's length is as it
/// says if that fits, else all there is up to the next frame.
pub fn trace(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() >= FILE_HEADER_BYTES {
        let tick_ns = u64_at(&bytes, 16);
        bytes[..FILE_HEADER_BYTES].copy_from_slice(&file_header(tick_ns));
    } else {
        let have = bytes.len().min(FILE_MAGIC.len());
        bytes[..have].copy_from_slice(&FILE_MAGIC[..have]);
    }
    let starts: Vec<usize> = frames(&bytes).collect();
    for (n, &at) in starts.iter().enumerate() {
        let behind = at + HEADER_BYTES;
        let said = u32_at(&bytes, at + 8) as usize;
        let next = starts.get(n + 1).copied().unwrap_or(bytes.len());
        let length = if behind.saturating_add(said) <= bytes.len() {
            said
        } else {
            next.saturating_sub(behind)
        };
        let header = FrameHeader {
            kind: u32_at(&bytes, at + 4) as u16,
            payload_bytes: length as u32,
            payload_crc: crc32fast::hash(&bytes[behind..behind + length]),
        };
        bytes[at..behind].copy_from_slice(&header.to_bytes());
    }
    bytes
}

/// The payloads of a trace's frames of events, whatever their checksums.
pub fn payloads(data: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    for at in frames(data) {
        let behind = &data[at + HEADER_BYTES..];
        let length = u32_at(data, at + 8) as usize;
        if u32_at(data, at + 4) as u16 == KIND_EVENTS {
            found.push(behind.get(..length).unwrap_or(behind));
        }
    }
    found
}

/// The check words of all chunk headers in `bytes`.
pub fn chunks(bytes: &mut [u8]) {
    let magic = chunk::MAGIC.to_le_bytes();
    for at in 0..bytes.len().saturating_sub(chunk::HEADER_BYTES - 1) {
        if bytes[at..at + 4] != magic {
            continue;
        }
        let word = chunk::check_word(
            u32_at(bytes, at + 4),
            u32_at(bytes, at + 12),
            u32_at(bytes, at + 20),
            u32_at(bytes, at + 24),
            u32_at(bytes, at + 28),
            [u64_at(bytes, at + 32), u64_at(bytes, at + 40)],
            u64_at(bytes, at + 64),
        );
        bytes[at + 56..at + 64].copy_from_slice(&word.to_le_bytes());
    }
}
