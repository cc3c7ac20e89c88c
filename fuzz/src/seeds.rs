//! The kept inputs: files below `seeds/`.

use std::fs;
use std::path::{Path, PathBuf};

/// `seeds/` of this crate.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

/// All files of a folder, by name.
///
/// # Errors
/// When the folder or a file can't be read.
pub fn read(folder: &Path) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push((name, fs::read(entry.path())?));
        }
    }
    found.sort();
    Ok(found)
}

/// The frames of events of a trace stored without compression, so that changes reach the decoders;
/// the index, which they would not fit any more, is left out.
pub fn uncompressed(trace: &[u8]) -> Option<Vec<u8>> {
    use rmtrace_file::column::{CODEC_RAW, Unpacker};
    use rmtrace_file::frame::{FrameHeader, HEADER_BYTES, KIND_END, KIND_EVENTS, KIND_INDEX};
    use rmtrace_file::varint::{Cursor, put};
    use rmtrace_file::writer::FILE_HEADER_BYTES;
    let (head, mut rest) = trace.split_at_checked(FILE_HEADER_BYTES)?;
    let mut out = head.to_vec();
    let mut unpacker = Unpacker::default();
    while let Some((header, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = FrameHeader::parse(header).ok()?;
        let (payload, next) = behind.split_at_checked(header.payload_bytes as usize)?;
        let mut new = payload.to_vec();
        if header.kind == KIND_EVENTS {
            let mut cursor = Cursor::new(payload);
            new.clear();
            for _ in 0..3 {
                put(&mut new, cursor.varint().ok()?);
            }
            let mut columns = Vec::new();
            for _ in 0..=rmtrace_file::codec::COLUMNS {
                let codec = cursor.byte().ok()?;
                columns.push((codec, cursor.varint().ok()?, cursor.varint().ok()?));
            }
            let mut data = Vec::new();
            for (codec, raw, stored) in columns {
                let stored = cursor.take(stored as usize).ok()?;
                let raw = unpacker.unpack(codec, raw as usize, stored).ok()?;
                new.push(CODEC_RAW);
                put(&mut new, raw.len() as u64);
                put(&mut new, raw.len() as u64);
                data.extend(raw);
            }
            new.extend(data);
        }
        if !matches!(header.kind, KIND_INDEX | KIND_END) {
            let header = FrameHeader {
                kind: header.kind,
                payload_bytes: new.len() as u32,
                payload_crc: crc32fast::hash(&new),
            };
            out.extend(header.to_bytes());
            out.extend(new);
        }
        rest = next;
    }
    Some(out)
}
