//! Reads a trace file from its first frame to its last without the index, and says what is damaged.

use crate::column::{self, Unpacker};
use crate::error::{Damage, Malformed, ReadError};
use crate::frame::{self, FrameHeader, HEADER_BYTES};
use crate::index::{FrameEntry, Index, SideEntry};
use crate::reader::Source;
use crate::record;

/// Longest record accepted, decompressed.
pub(crate) const RECORD_BYTES_MAX: u64 = 1 << 26;
/// Bytes searched at a time for the next frame.
const SEARCH_BYTES: usize = 1 << 20;

/// One whole frame.
pub struct ScannedFrame<'a> {
    /// Where its header begins.
    pub offset: u64,
    /// `KIND_...` of [`crate::frame`], or a kind that is not known here.
    pub kind: u16,
    /// Its payload; the checksum is right.
    pub payload: &'a [u8],
}

/// Walks over the frames of a file.
pub struct Scan<'a> {
    source: &'a Source,
    offset: u64,
    buffer: Vec<u8>,
    /// What was damaged so far.
    pub damage: Vec<Damage>,
}

impl<'a> Scan<'a> {
    /// Walks from byte `offset`.
    pub(crate) fn new(source: &'a Source, offset: u64) -> Scan<'a> {
        Scan {
            source,
            offset,
            buffer: Vec::new(),
            damage: Vec::new(),
        }
    }

    /// Where the next frame begins; at the end, the end of the last whole one.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next whole frame. Damaged ones are skipped and noted in [`Scan::damage`].
    pub fn next_frame(&mut self) -> Result<Option<ScannedFrame<'_>>, ReadError> {
        loop {
            let offset = self.offset;
            let left = self.source.bytes().saturating_sub(offset);
            if left == 0 {
                return Ok(None);
            }
            if left < HEADER_BYTES as u64 {
                return self.cut_short(offset, left);
            }
            let mut bytes = [0; HEADER_BYTES];
            self.source.read_exact(offset, &mut bytes)?;
            let header = match FrameHeader::parse(&bytes) {
                Ok(header) => header,
                Err(found) => {
                    let next = self.search(offset + 1)?;
                    self.damaged(offset, next, found);
                    self.offset = next;
                    continue;
                }
            };
            let end = offset + HEADER_BYTES as u64 + u64::from(header.payload_bytes);
            if end > self.source.bytes() {
                return self.cut_short(offset, left);
            }
            self.buffer.resize(header.payload_bytes as usize, 0);
            self.source
                .read_exact(offset + HEADER_BYTES as u64, &mut self.buffer)?;
            self.offset = end;
            if let Err(found) = header.check(&self.buffer) {
                self.damaged(offset, end, found);
                continue;
            }
            return Ok(Some(ScannedFrame {
                offset,
                kind: header.kind,
                payload: &self.buffer,
            }));
        }
    }

    fn cut_short(
        &mut self,
        offset: u64,
        bytes: u64,
    ) -> Result<Option<ScannedFrame<'_>>, ReadError> {
        self.damage.push(Damage::CutShort { offset, bytes });
        self.offset = self.source.bytes();
        Ok(None)
    }

    fn damaged(&mut self, offset: u64, end: u64, found: Malformed) {
        self.damage.push(Damage::Frame {
            offset,
            bytes: end - offset,
            found: found.to_string(),
        });
    }

    /// The next place from `offset` on where a frame's header is whole, or the end.
    fn search(&self, mut offset: u64) -> Result<u64, ReadError> {
        let mut buffer = Vec::new();
        loop {
            let left = self.source.bytes().saturating_sub(offset);
            if left < HEADER_BYTES as u64 {
                return Ok(self.source.bytes());
            }
            buffer.resize(left.min(SEARCH_BYTES as u64) as usize, 0);
            self.source.read_exact(offset, &mut buffer)?;
            let found = buffer.windows(HEADER_BYTES).position(|window| {
                window.starts_with(&frame::MAGIC.to_le_bytes())
                    && window
                        .first_chunk()
                        .is_some_and(|bytes| FrameHeader::parse(bytes).is_ok())
            });
            if let Some(position) = found {
                return Ok(offset + position as u64);
            }
            offset += (buffer.len() - HEADER_BYTES + 1) as u64;
        }
    }
}

/// Collects from `scan` what an index would have held. Frames whose content is malformed become
/// damage.
pub(crate) fn index_of(scan: &mut Scan<'_>) -> Result<(Index, bool), ReadError> {
    let mut index = Index::default();
    let mut unpacker = Unpacker::default();
    let mut has_end = false;
    let mut bad: Vec<(u64, u64, Malformed)> = Vec::new();
    while let Some(frame) = scan.next_frame()? {
        let bytes = (HEADER_BYTES + frame.payload.len()) as u64;
        let offset = frame.offset;
        if let Err(found) = note(&frame, bytes, &mut index, &mut unpacker, &mut has_end) {
            bad.push((offset, bytes, found));
        }
    }
    for (offset, bytes, found) in bad {
        scan.damaged(offset, offset + bytes, found);
    }
    Ok((index, has_end))
}

fn note(
    scanned: &ScannedFrame<'_>,
    bytes: u64,
    index: &mut Index,
    unpacker: &mut Unpacker,
    has_end: &mut bool,
) -> Result<(), Malformed> {
    let offset = scanned.offset;
    let side = |first_tick: Option<u64>| {
        first_tick.map(|first_tick| SideEntry {
            kind: scanned.kind,
            offset,
            bytes,
            first_tick,
        })
    };
    match scanned.kind {
        frame::KIND_RUN => {
            let raw = column::unpack_blob(scanned.payload, RECORD_BYTES_MAX)?;
            index.info = record::run_from_bytes(&raw)?;
        }
        frame::KIND_PROCESS => {
            let raw = column::unpack_blob(scanned.payload, RECORD_BYTES_MAX)?;
            let process = record::process_from_bytes(&raw)?;
            match index
                .processes
                .binary_search_by_key(&process.number, |p| p.number)
            {
                Ok(at) => {
                    if let Some(slot) = index.processes.get_mut(at) {
                        *slot = process;
                    }
                }
                Err(at) => index.processes.insert(at, process),
            }
        }
        frame::KIND_EVENTS => {
            let (process, segments) = frame::directory(scanned.payload, unpacker)?;
            index.frames.push(FrameEntry {
                offset,
                bytes,
                process,
                segments,
            });
        }
        frame::KIND_SAMPLES => {
            let raw = column::unpack_blob(scanned.payload, RECORD_BYTES_MAX)?;
            let samples = record::samples_from_bytes(&raw)?;
            index
                .sides
                .extend(side(samples.iter().map(|sample| sample.tick).min()));
        }
        frame::KIND_MARKS => {
            let raw = column::unpack_blob(scanned.payload, RECORD_BYTES_MAX)?;
            let marks = record::marks_from_bytes(&raw)?;
            index
                .sides
                .extend(side(marks.iter().map(|mark| mark.tick).min()));
        }
        frame::KIND_END => *has_end = true,
        _ => {}
    }
    Ok(())
}
