//! The file of accesses, `.rma`: a header, frames of blocks and of the order of calls, a summary at the end.
//! `docs/accesses.md` has its form.

use crate::error::AccessError;
use crate::frame::{self, BLOCKS, BYTES_MAX, HEADER_BYTES, Header, ORDER, SUMMARY};
use crate::record::BlockRecord;
use crate::summary::Summary;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// First bytes.
pub const MAGIC: [u8; 8] = *b"RMACCES\x01";
/// Version of the form.
pub const VERSION: u32 = 1;
/// Bytes of the file's header.
pub const FILE_HEADER_BYTES: usize = 16;
/// Blocks in a frame.
const BLOCKS_KEPT: usize = 4096;
/// Spans of the blocks of a frame.
const SPANS_KEPT: usize = 1 << 16;
/// Runs in a frame.
const RUNS_KEPT: usize = 1 << 16;

/// Writes a file.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    path: PathBuf,
    blocks: Vec<BlockRecord>,
    spans: usize,
    runs: Vec<(u32, u64)>,
    /// Bytes written so far.
    pub bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file; `path` is for messages.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn new(out: W, path: &Path) -> Result<Writer<W>, AccessError> {
        let mut writer = Writer {
            out,
            path: path.to_owned(),
            blocks: Vec::new(),
            spans: 0,
            runs: Vec::new(),
            bytes: 0,
        };
        let mut header = [0; FILE_HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        writer.write(&header)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), AccessError> {
        self.bytes += bytes.len() as u64;
        self.out
            .write_all(bytes)
            .map_err(|source| AccessError::File {
                path: self.path.clone(),
                source,
            })
    }

    fn frame(&mut self, kind: u32, items: usize, raw: &[u8]) -> Result<(), AccessError> {
        const LEVEL: i32 = 1;
        let stored = zstd::bulk::compress(raw, LEVEL).map_err(|source| AccessError::File {
            path: self.path.clone(),
            source,
        })?;
        let header = Header {
            kind,
            items: items as u32,
            raw_bytes: raw.len() as u32,
            stored_bytes: stored.len() as u32,
            checksum: crc32fast::hash(&stored),
        };
        self.write(&header.bytes())?;
        self.write(&stored)
    }

    /// Adds a block, or spans of one.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn block(&mut self, block: BlockRecord) -> Result<(), AccessError> {
        self.spans += block.crossing.len();
        self.blocks.push(block);
        if self.blocks.len() >= BLOCKS_KEPT || self.spans >= SPANS_KEPT {
            self.flush_blocks()?;
        }
        Ok(())
    }

    fn flush_blocks(&mut self) -> Result<(), AccessError> {
        let blocks = std::mem::take(&mut self.blocks);
        self.spans = 0;
        self.frame(BLOCKS, blocks.len(), &frame::encode_blocks(&blocks))
    }

    /// A thread makes the next call.
    ///
    /// # Errors
    /// When the file can't be written.
    #[inline]
    pub fn called(&mut self, thread: u32) -> Result<(), AccessError> {
        match self.runs.last_mut() {
            Some((last, calls)) if *last == thread => *calls += 1,
            _ => {
                if self.runs.len() >= RUNS_KEPT {
                    self.flush_runs()?;
                }
                self.runs.push((thread, 1));
            }
        }
        Ok(())
    }

    fn flush_runs(&mut self) -> Result<(), AccessError> {
        let runs = std::mem::take(&mut self.runs);
        self.frame(ORDER, runs.len(), &frame::encode_order(&runs))
    }

    /// Writes the rest and the summary.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn finish(mut self, summary: &Summary) -> Result<W, AccessError> {
        self.flush_blocks()?;
        self.flush_runs()?;
        let text = serde_json::to_vec(summary).map_err(|error| AccessError::File {
            path: self.path.clone(),
            source: error.into(),
        })?;
        self.frame(SUMMARY, 1, &text)?;
        self.out.flush().map_err(|source| AccessError::File {
            path: self.path.clone(),
            source,
        })?;
        Ok(self.out)
    }
}

/// A file that is read.
#[derive(Debug)]
pub struct AccessFile {
    path: PathBuf,
    /// Offset and header of each frame.
    frames: Vec<(u64, Header)>,
    /// What is known of it as a whole.
    pub summary: Summary,
    /// Its bytes.
    pub bytes: u64,
}

impl AccessFile {
    /// Opens a file: looks at the headers of all frames, reads the summary.
    ///
    /// # Errors
    /// When it can't be read, is no such file, is cut short or damaged.
    pub fn open(path: &Path) -> Result<AccessFile, AccessError> {
        let of_file = |source| AccessError::File {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(of_file)?;
        let bytes = file.metadata().map_err(of_file)?.len();
        let mut header = [0; FILE_HEADER_BYTES];
        let mut length = 0;
        while length < header.len() {
            match file.read(&mut header[length..]).map_err(of_file)? {
                0 => break,
                more => length += more,
            }
        }
        if length < 8 || header[..8] != MAGIC {
            let found: Vec<String> = header[..length.min(8)]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            return Err(AccessError::NotAccesses {
                path: path.to_owned(),
                found: match found.is_empty() {
                    true => "none: it is empty".to_string(),
                    false => found.join(" "),
                },
            });
        }
        let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if version != VERSION && length == header.len() {
            return Err(AccessError::Version {
                path: path.to_owned(),
                found: version,
                known: VERSION,
            });
        }
        let mut opened = AccessFile {
            path: path.to_owned(),
            frames: Vec::new(),
            summary: Summary::default(),
            bytes,
        };
        let mut at = FILE_HEADER_BYTES as u64;
        let cut = |offset| AccessError::CutShort {
            path: path.to_owned(),
            offset,
        };
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(at)).map_err(of_file)?;
        loop {
            if bytes < at + HEADER_BYTES as u64 {
                return Err(cut(at.min(bytes)));
            }
            let mut header = [0; HEADER_BYTES];
            reader.read_exact(&mut header).map_err(of_file)?;
            let header = Header::parse(&header);
            if header.stored_bytes > BYTES_MAX || header.raw_bytes > BYTES_MAX {
                return Err(opened.damaged(at, "a frame larger than any"));
            }
            let end = at + HEADER_BYTES as u64 + u64::from(header.stored_bytes);
            if end > bytes {
                return Err(cut(at));
            }
            opened.frames.push((at, header));
            if header.kind == SUMMARY {
                let text = opened.unpack(at, header)?;
                opened.summary = serde_json::from_slice(&text)
                    .map_err(|_| opened.damaged(at, "a summary that can't be read"))?;
                return match end == bytes {
                    true => Ok(opened),
                    false => Err(opened.damaged(end, "something behind the summary")),
                };
            }
            reader
                .seek_relative(i64::from(header.stored_bytes))
                .map_err(of_file)?;
            at = end;
        }
    }

    fn damaged(&self, offset: u64, what: &'static str) -> AccessError {
        AccessError::Damaged {
            path: self.path.clone(),
            offset,
            what,
        }
    }

    fn unpack(&self, at: u64, header: Header) -> Result<Vec<u8>, AccessError> {
        let of_file = |source| AccessError::File {
            path: self.path.clone(),
            source,
        };
        let mut file = File::open(&self.path).map_err(of_file)?;
        file.seek(SeekFrom::Start(at + HEADER_BYTES as u64))
            .map_err(of_file)?;
        let mut stored = vec![0; header.stored_bytes as usize];
        file.read_exact(&mut stored).map_err(of_file)?;
        if crc32fast::hash(&stored) != header.checksum {
            return Err(self.damaged(at, "a frame with another checksum than its bytes have"));
        }
        let raw = zstd::bulk::decompress(&stored, header.raw_bytes as usize);
        match raw {
            Ok(raw) if raw.len() == header.raw_bytes as usize => Ok(raw),
            _ => Err(self.damaged(at, "a frame that can't be unpacked")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells all blocks in the order in which they ended; of one with many spans parts come earlier.
    ///
    /// # Errors
    /// When a frame is damaged.
    pub fn blocks(&self, mut told: impl FnMut(BlockRecord)) -> Result<(), AccessError> {
        for (at, header) in self
            .frames
            .iter()
            .filter(|(_, header)| header.kind == BLOCKS)
        {
            let raw = self.unpack(*at, *header)?;
            frame::decode_blocks(&raw, header.items, &mut told)
                .map_err(|what| self.damaged(*at, what))?;
        }
        Ok(())
    }

    /// The order of the calls: runs of calls of one thread (thread, calls).
    ///
    /// # Errors
    /// When a frame is damaged.
    pub fn order(&self) -> Result<Vec<(u32, u64)>, AccessError> {
        let mut runs = Vec::new();
        for (at, header) in self
            .frames
            .iter()
            .filter(|(_, header)| header.kind == ORDER)
        {
            let raw = self.unpack(*at, *header)?;
            runs.extend(
                frame::decode_order(&raw, header.items).map_err(|what| self.damaged(*at, what))?,
            );
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Span;
    use proptest::prelude::*;

    fn block() -> impl Strategy<Value = BlockRecord> {
        let number = || (any::<u64>(), 30u32..64).prop_map(|(n, shift)| n >> shift);
        let spans = proptest::collection::vec((number(), number()), 0..5);
        let numbers = proptest::collection::vec(number(), 10);
        (numbers, any::<bool>(), any::<bool>(), spans).prop_map(
            |(numbers, ended, is_part, spans)| {
                let mut at = numbers[0];
                BlockRecord {
                    birth: numbers[0],
                    end: ended.then(|| numbers[0] + numbers[1]),
                    bytes: numbers[2],
                    born_at: numbers[3],
                    reads: numbers[4],
                    writes: numbers[5],
                    first_access: numbers[6],
                    used_for: numbers[7],
                    spans: numbers[8],
                    locked_instructions: numbers[9],
                    crossing: spans
                        .into_iter()
                        .map(|(gap, length)| {
                            let from = at + gap;
                            at = from + length;
                            Span { from, to: at }
                        })
                        .collect(),
                    is_part,
                }
            },
        )
    }

    fn written(blocks: &[BlockRecord], threads: &[u32]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), Path::new("x")).unwrap();
        for block in blocks {
            writer.block(block.clone()).unwrap();
        }
        for thread in threads {
            writer.called(*thread).unwrap();
        }
        let summary = Summary {
            instructions: 7,
            ..Summary::default()
        };
        writer.finish(&summary).unwrap()
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Blocks and the order of calls come back as they were.
        #[test]
        fn blocks_come_back(blocks in proptest::collection::vec(block(), 0..40), threads in proptest::collection::vec(0u32..3, 0..40)) {
            let file = file(&written(&blocks, &threads));
            let opened = AccessFile::open(file.path()).unwrap();
            prop_assert_eq!(opened.summary.instructions, 7);
            let mut found = Vec::new();
            opened.blocks(|block| found.push(block)).unwrap();
            prop_assert_eq!(found, blocks);
            let order: Vec<u32> = opened.order().unwrap().into_iter().flat_map(|(thread, calls)| std::iter::repeat_n(thread, calls as usize)).collect();
            prop_assert_eq!(order, threads);
        }

        /// Whatever byte it is cut at, or changed at, is found: when it is opened or when it is read.
        #[test]
        fn damage_is_found(blocks in proptest::collection::vec(block(), 1..20), place in 0.0..1.0f64, flip in 1u8..=255, cut: bool) {
            let mut bytes = written(&blocks, &[0, 1]);
            let at = (bytes.len() as f64 * place) as usize;
            // Reserved bytes, and counts that nothing depends on where frames are skipped, say nothing.
            let is_free = (12..16).contains(&at);
            match cut {
                true => bytes.truncate(at),
                false => bytes[at] ^= flip,
            }
            let file = file(&bytes);
            let read = AccessFile::open(file.path()).and_then(|opened| {
                let mut found = Vec::new();
                opened.blocks(|block| found.push(block))?;
                opened.order()?;
                Ok(found)
            });
            let same = read.is_ok_and(|found| found == blocks);
            prop_assert!(!same || is_free || !cut && is_reserved(&bytes, at));
        }
    }

    /// The reserved word of a frame's header, or the kind of the order's frame.
    fn is_reserved(bytes: &[u8], place: usize) -> bool {
        let mut at = FILE_HEADER_BYTES;
        while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
            let header = Header::parse(header.try_into().unwrap());
            if (at + 20..at + 24).contains(&place) || (at..at + 8).contains(&place) {
                return true;
            }
            at += HEADER_BYTES + header.stored_bytes as usize;
        }
        false
    }

    #[test]
    fn messages_say_what_to_do() {
        let say = |bytes: &[u8]| {
            AccessFile::open(file(bytes).path())
                .unwrap_err()
                .to_string()
        };
        assert!(say(b"").contains("none: it is empty"));
        assert!(say(b"RMTRACE\x01 and more").contains("`rmtrace accesses"));
        let whole = written(&[], &[]);
        assert!(say(&whole[..whole.len() - 1]).contains("cut short at byte"));
        let mut later = whole.clone();
        later[8] = 9;
        assert!(say(&later).contains("version 9"));
        let mut longer = whole;
        longer.push(0);
        assert!(say(&longer).contains("behind the summary"));
    }
}
