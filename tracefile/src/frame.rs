//! Frames: the header that every part of a trace file has, and the frame of events ([`Filler`] and
//! [`FramePacker`] make it, [`Frame`] opens it).

use crate::codec::{self, BATCH, COLUMNS, Columns, Decoder, Ranges};
use crate::column::{CODEC_RAW, Packer, Unpacker};
use crate::error::Malformed;
use crate::index::{FrameEntry, SegmentEntry};
use crate::model::{Call, Window};
use crate::varint::{self, Cursor};

/// `RMFR`, little-endian.
pub const MAGIC: u32 = u32::from_le_bytes(*b"RMFR");
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 20;
/// The longest payload.
pub const PAYLOAD_BYTES_MAX: u64 = 1 << 30;
/// Most calls of a frame of events.
pub const CALLS_MAX: u64 = 1 << 20;

/// Kind: what is said of the run ([`crate::record`]).
pub const KIND_RUN: u16 = 1;
/// Kind: a process.
pub const KIND_PROCESS: u16 = 2;
/// Kind: events of one process.
pub const KIND_EVENTS: u16 = 3;
/// Kind: resident samples.
pub const KIND_SAMPLES: u16 = 4;
/// Kind: marks.
pub const KIND_MARKS: u16 = 5;
/// Kind: the index.
pub const KIND_INDEX: u16 = 6;
/// Kind: the end, which names the index.
pub const KIND_END: u16 = 7;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// `KIND_...`; others are to be skipped.
    pub kind: u16,
    /// Bytes behind the header.
    pub payload_bytes: u32,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
}

impl FrameHeader {
    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        let check = crc32fast::hash(&bytes[..16]);
        bytes[16..20].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Parses a header.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<FrameHeader, Malformed> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if u32_at(0) != MAGIC {
            return Err(Malformed::new("no frame begins here"));
        }
        if u32_at(16) != crc32fast::hash(&bytes[..16]) {
            return Err(Malformed::new("the checksum of the frame's header differs"));
        }
        let header = FrameHeader {
            kind: u16::from_le_bytes([bytes[4], bytes[5]]),
            payload_bytes: u32_at(8),
            payload_crc: u32_at(12),
        };
        if u64::from(header.payload_bytes) > PAYLOAD_BYTES_MAX {
            return Err(Malformed::new("the frame is longer than the format allows"));
        }
        Ok(header)
    }

    /// Checks the payload's checksum.
    pub fn check(&self, payload: &[u8]) -> Result<(), Malformed> {
        if crc32fast::hash(payload) == self.payload_crc {
            Ok(())
        } else {
            Err(Malformed::new("the frame's checksum differs"))
        }
    }
}

/// Makes a whole frame of `payload`, which begins with [`HEADER_BYTES`] of room.
pub(crate) fn seal(kind: u16, frame: &mut [u8]) {
    if let Some((room, payload)) = frame.split_first_chunk_mut::<HEADER_BYTES>() {
        let header = FrameHeader {
            kind,
            payload_bytes: payload.len() as u32,
            payload_crc: crc32fast::hash(payload),
        };
        *room = header.to_bytes();
    }
}

/// One or more frames of events, ready to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedFrame {
    /// The bytes, headers included.
    pub bytes: Vec<u8>,
    /// What the index says of each; offsets count from the start of `bytes`.
    pub entries: Vec<FrameEntry>,
}

impl EncodedFrame {
    /// Calls in it.
    pub fn calls(&self) -> u64 {
        self.entries.iter().map(FrameEntry::calls).sum()
    }
}

/// A frame of events before its columns are compressed.
#[derive(Default)]
pub struct LooseFrame {
    /// The process whose events it has.
    pub process: u32,
    /// Its segments.
    pub segments: Vec<SegmentEntry>,
    directory: Vec<u8>,
    columns: Columns,
}

impl LooseFrame {
    /// Empties it for a frame of `process`; the room it has stays.
    fn clear(&mut self, process: u32) {
        self.process = process;
        self.segments.clear();
        self.directory.clear();
        self.columns.iter_mut().for_each(Vec::clear);
    }

    /// Decompresses the frame with this payload, without decoding its calls.
    pub(crate) fn open(payload: &[u8], unpacker: &mut Unpacker) -> Result<LooseFrame, Malformed> {
        let front = Front::parse(payload)?;
        let (segments, _) = front.directory(unpacker)?;
        let (codec, raw_bytes, stored) = front.stored[0];
        let mut frame = LooseFrame {
            process: front.process,
            segments: segments.into_vec(),
            directory: unpacker.unpack(codec, raw_bytes, stored)?,
            columns: Columns::default(),
        };
        for (column, (codec, raw_bytes, stored)) in frame.columns.iter_mut().zip(&front.stored[1..])
        {
            *column = unpacker.unpack(*codec, *raw_bytes, stored)?;
        }
        Ok(frame)
    }

    /// Most bytes that it can have in a file, with its entry in the index: its columns as they are.
    pub fn bytes_max(&self) -> u64 {
        let columns: usize = self.columns.iter().map(Vec::len).sum();
        let data = (self.directory.len() + columns) as u64;
        const DIRECTORIES: u64 = 10 * (1 + 5 + 5);
        HEADER_BYTES as u64 + 20 + DIRECTORIES + data + FrameEntry::bytes_max(self.segments.len())
    }

    /// Bytes that it has room for.
    pub(crate) fn held_bytes(&self) -> usize {
        self.columns.iter().map(Vec::capacity).sum()
    }
}

/// Splits calls into the columns of a frame, segment by segment and call by call.
#[derive(Default)]
pub struct Filler {
    encoder: codec::Encoder,
    frame: LooseFrame,
    /// Calls of the segments that were ended.
    calls_before: u64,
    /// What the directory will say of the segment; its last tick is that of the encoded calls.
    segment: SegmentEntry,
    /// Calls of the segment that are not yet encoded, at most [`BATCH`].
    batch: Vec<Call>,
}

impl Filler {
    /// Begins a frame of `process` in `room`.
    pub fn begin(&mut self, process: u32, mut room: LooseFrame) {
        room.clear(process);
        self.frame = room;
        self.calls_before = 0;
        self.begin_segment(0);
    }

    /// Begins the segment of `thread`.
    pub fn begin_segment(&mut self, thread: u32) {
        self.batch.clear();
        self.batch.reserve(BATCH);
        self.segment = SegmentEntry {
            thread,
            ..SegmentEntry::default()
        };
        self.encoder.begin(&self.frame.columns);
    }

    /// Calls of the segment so far.
    pub fn segment_calls(&self) -> u64 {
        self.segment.count + self.batch.len() as u64
    }

    /// Whether the frame has as many calls as it may have. Then it has to be ended.
    pub fn is_full(&self) -> bool {
        self.calls_before + self.segment_calls() >= CALLS_MAX
    }

    /// Appends a call, the thread's call number `ordinal`, to the segment.
    pub fn push(&mut self, ordinal: u64, call: Call) {
        let (batch, _) = self.room(ordinal);
        batch.push(call);
        self.flush_full();
    }

    /// Where calls may be appended before [`Filler::flush_full`], and how many; `ordinal` is the first
    /// one's number.
    pub(crate) fn room(&mut self, ordinal: u64) -> (&mut Vec<Call>, usize) {
        let calls = self.segment_calls();
        if calls == 0 {
            self.segment.first_ordinal = ordinal;
        }
        let in_frame = CALLS_MAX.saturating_sub(self.calls_before + calls) as usize;
        let in_batch = BATCH.saturating_sub(self.batch.len());
        (&mut self.batch, in_batch.min(in_frame))
    }

    /// Encodes the batch if it has no more room.
    #[inline(always)]
    pub(crate) fn flush_full(&mut self) {
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let (Some(first), Some(last)) = (self.batch.first(), self.batch.last()) else {
            return;
        };
        if self.segment.count == 0 {
            self.segment.first_tick = first.tick;
        }
        self.segment.last_tick = last.tick_end;
        self.encoder.encode(&self.batch, &mut self.frame.columns);
        self.segment.count += self.batch.len() as u64;
        self.batch.clear();
    }

    /// Ends the segment; without calls there is none.
    pub fn end_segment(&mut self) {
        self.flush();
        let segment = std::mem::take(&mut self.segment);
        if segment.count == 0 {
            return;
        }
        self.calls_before += segment.count;
        let directory = &mut self.frame.directory;
        for value in [
            u64::from(segment.thread),
            segment.first_ordinal,
            segment.count,
            segment.first_tick,
            segment.last_tick.wrapping_sub(segment.first_tick),
        ] {
            varint::put(directory, value);
        }
        for bytes in self.encoder.lengths(&self.frame.columns) {
            varint::put(directory, bytes as u64);
        }
        self.frame.segments.push(segment);
    }

    /// Ends the frame.
    pub fn finish(&mut self) -> LooseFrame {
        std::mem::take(&mut self.frame)
    }
}

/// Compresses frames. One for each encoder thread; it keeps its buffers.
#[derive(Default)]
pub struct FramePacker {
    packed: Vec<u8>,
    packer: Packer,
}

impl FramePacker {
    /// One that takes its time to make frames as small as it can.
    pub fn small() -> FramePacker {
        FramePacker {
            packed: Vec::new(),
            packer: Packer::small(),
        }
    }

    /// Appends `frame` to `out`, unless it has no calls.
    pub fn pack(&mut self, frame: &LooseFrame, out: &mut EncodedFrame) {
        let start = out.bytes.len();
        let calls: u64 = frame.segments.iter().map(|segment| segment.count).sum();
        if calls == 0 {
            return;
        }
        out.bytes.resize(start + HEADER_BYTES, 0);
        varint::put(&mut out.bytes, u64::from(frame.process));
        varint::put(&mut out.bytes, frame.segments.len() as u64);
        varint::put(&mut out.bytes, calls);
        self.packed.clear();
        let columns = std::iter::once(&frame.directory).chain(&frame.columns);
        for raw in columns {
            let before = self.packed.len();
            let codec = if raw.is_empty() {
                CODEC_RAW
            } else {
                self.packer.pack(raw, &mut self.packed)
            };
            out.bytes.push(codec);
            varint::put(&mut out.bytes, raw.len() as u64);
            varint::put(&mut out.bytes, (self.packed.len() - before) as u64);
        }
        out.bytes.extend_from_slice(&self.packed);
        seal(KIND_EVENTS, &mut out.bytes[start..]);
        out.entries.push(FrameEntry {
            offset: start as u64,
            bytes: (out.bytes.len() - start) as u64,
            process: frame.process,
            segments: frame.segments.as_slice().into(),
        });
    }
}

/// Encodes windows whose calls are all at hand; it keeps its buffers.
#[derive(Default)]
pub struct WindowEncoder {
    filler: Filler,
    packer: FramePacker,
}

impl WindowEncoder {
    /// An encoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes a window, of any length: one with more than [`CALLS_MAX`] calls becomes several
    /// frames. Empty segments are left out, an empty window is an empty result.
    pub fn encode(&mut self, window: &Window) -> EncodedFrame {
        let mut out = EncodedFrame::default();
        let mut frame = LooseFrame::default();
        self.filler.begin(window.process, frame);
        for segment in &window.segments {
            self.filler.begin_segment(segment.thread);
            for (ordinal, call) in (segment.first_ordinal..).zip(&segment.calls) {
                self.filler.push(ordinal, *call);
                if self.filler.is_full() {
                    self.filler.end_segment();
                    frame = self.filler.finish();
                    self.packer.pack(&frame, &mut out);
                    self.filler.begin(window.process, frame);
                    self.filler.begin_segment(segment.thread);
                }
            }
            self.filler.end_segment();
        }
        frame = self.filler.finish();
        self.packer.pack(&frame, &mut out);
        out
    }
}

/// The longest column of `calls` calls that a reader accepts: the longest call has 31 bytes in one.
fn column_bytes_max(calls: u64) -> u64 {
    calls * 32
}

/// The longest directory of so many segments: each has 5 + [`COLUMNS`] integers of at most 10 bytes.
fn directory_bytes_max(segments: u64) -> u64 {
    segments * (5 + COLUMNS as u64) * 10
}

/// What the front of a frame of events says.
struct Front<'a> {
    process: u32,
    segments: u64,
    calls: u64,
    /// Codec, length, stored bytes: the directory and the columns.
    stored: [(u8, usize, &'a [u8]); COLUMNS + 1],
}

impl<'a> Front<'a> {
    fn parse(payload: &'a [u8]) -> Result<Front<'a>, Malformed> {
        let mut cursor = Cursor::new(payload);
        let process = cursor.varint_u32()?;
        let segments = cursor.varint()?;
        let calls = cursor.varint()?;
        if calls > CALLS_MAX || segments > calls || segments == 0 {
            return Err(Malformed::new(
                "it has more segments or calls than the format allows",
            ));
        }
        let mut lengths = [(0, 0, 0); COLUMNS + 1];
        for (n, (codec, raw, stored)) in lengths.iter_mut().enumerate() {
            *codec = cursor.byte()?;
            let bytes = cursor.varint()?;
            let limit = if n == 0 {
                directory_bytes_max(segments)
            } else {
                column_bytes_max(calls)
            };
            if bytes > limit {
                return Err(Malformed::new(
                    "a column says it is longer than its calls can be",
                ));
            }
            *raw = bytes as usize;
            let bytes = cursor.varint()?;
            *stored = usize::try_from(bytes)
                .ok()
                .filter(|bytes| *bytes <= payload.len())
                .ok_or(Malformed::new("a column is longer than its frame"))?;
        }
        let mut stored = [(CODEC_RAW, 0, &payload[..0]); COLUMNS + 1];
        for (column, (codec, raw, length)) in stored.iter_mut().zip(lengths) {
            *column = (codec, raw, cursor.take(length)?);
        }
        if !cursor.rest().is_empty() {
            return Err(Malformed::new("it has bytes behind its last column"));
        }
        Ok(Front {
            process,
            segments,
            calls,
            stored,
        })
    }

    fn directory(
        &self,
        unpacker: &mut Unpacker,
    ) -> Result<(Box<[SegmentEntry]>, Vec<Ranges>), Malformed> {
        let (codec, raw_bytes, stored) = self.stored[0];
        let raw = unpacker.unpack(codec, raw_bytes, stored)?;
        let mut cursor = Cursor::new(&raw);
        let mut entries = Vec::with_capacity(self.segments as usize);
        let mut ranges = Vec::with_capacity(self.segments as usize);
        let mut ends = [0usize; COLUMNS];
        let mut calls = 0u64;
        for _ in 0..self.segments {
            let thread = cursor.varint_u32()?;
            let first_ordinal = cursor.varint()?;
            let count = cursor.varint()?;
            let first_tick = cursor.varint()?;
            let last_tick = first_tick.wrapping_add(cursor.varint()?);
            if count == 0 || count > self.calls || first_ordinal.checked_add(count).is_none() {
                return Err(Malformed::new("a segment has a count that can't be"));
            }
            calls += count;
            let mut segment: Ranges = [(0, 0); COLUMNS];
            for ((range, end), column) in segment.iter_mut().zip(&mut ends).zip(&self.stored[1..]) {
                let from = *end;
                *end = usize::try_from(cursor.varint()?)
                    .ok()
                    .and_then(|bytes| from.checked_add(bytes))
                    .filter(|end| *end <= column.1)
                    .ok_or(Malformed::new("a segment is longer than its columns"))?;
                *range = (from, *end);
            }
            entries.push(SegmentEntry {
                thread,
                first_ordinal,
                count,
                first_tick,
                last_tick,
            });
            ranges.push(segment);
        }
        let whole = ends
            .iter()
            .zip(&self.stored[1..])
            .all(|(end, column)| *end == column.1);
        if calls != self.calls || !whole || !cursor.rest().is_empty() {
            return Err(Malformed::new("its directory does not cover its columns"));
        }
        Ok((entries.into_boxed_slice(), ranges))
    }
}

/// Reads the directory of a frame of events without its columns.
pub(crate) fn directory(
    payload: &[u8],
    unpacker: &mut Unpacker,
) -> Result<(u32, Box<[SegmentEntry]>), Malformed> {
    let front = Front::parse(payload)?;
    let (entries, _) = front.directory(unpacker)?;
    Ok((front.process, entries))
}

/// An opened frame of events: its columns decompressed, its calls not yet decoded.
pub struct Frame {
    /// The process whose events it has.
    pub process: u32,
    /// Its segments.
    pub segments: Box<[SegmentEntry]>,
    ranges: Vec<Ranges>,
    columns: Columns,
}

impl Frame {
    /// Opens the frame with this payload.
    pub fn open(payload: &[u8], unpacker: &mut Unpacker) -> Result<Frame, Malformed> {
        let front = Front::parse(payload)?;
        let (segments, ranges) = front.directory(unpacker)?;
        let mut columns = Columns::default();
        for (column, (codec, raw_bytes, stored)) in columns.iter_mut().zip(&front.stored[1..]) {
            *column = unpacker.unpack(*codec, *raw_bytes, stored)?;
        }
        Ok(Frame {
            process: front.process,
            segments,
            ranges,
            columns,
        })
    }

    /// A decoder for the segment of this position in [`Frame::segments`].
    pub fn decoder(&self, segment: usize) -> Option<Decoder> {
        let entry = self.segments.get(segment)?;
        let ranges = self.ranges.get(segment)?;
        Some(Decoder::new(*ranges, entry.count, entry.first_tick))
    }

    /// Its columns, for [`Decoder::decode`].
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Bytes it holds.
    pub fn held_bytes(&self) -> usize {
        self.columns.iter().map(Vec::capacity).sum::<usize>()
            + self.segments.len() * (size_of::<SegmentEntry>() + size_of::<Ranges>())
    }

    /// All calls of a segment at once.
    pub fn calls(&self, segment: usize) -> Result<Vec<Call>, Malformed> {
        let mut decoder = self
            .decoder(segment)
            .ok_or(Malformed::new("there is no such segment"))?;
        let mut calls = Vec::with_capacity(decoder.left() as usize);
        decoder.decode(&self.columns, u64::MAX, |call| calls.push(*call))?;
        Ok(calls)
    }
}
