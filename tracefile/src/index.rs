//! The index at the end of a trace file: the run, the processes, and where the frames are.

use crate::column::{self, Packer};
use crate::error::Malformed;
use crate::model::{Process, RunInfo};
use crate::record;
use crate::varint::{self, Cursor};

/// The longest index accepted, decompressed.
const INDEX_BYTES_MAX: u64 = 1 << 31;
/// Bytes of the end frame's payload.
pub const END_PAYLOAD_BYTES: usize = 16;

/// A part of a thread's stream in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Thread in its process.
    pub thread: u32,
    /// Calls of the thread before it.
    pub first_ordinal: u64,
    /// Calls in it.
    pub count: u64,
    /// Tick of its first call.
    pub first_tick: u64,
    /// Tick of its last call's last stamp.
    pub last_tick: u64,
}

/// A frame of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Offset of its header in the file.
    pub offset: u64,
    /// Its bytes, header included.
    pub bytes: u64,
    /// Process.
    pub process: u32,
    /// Its segments.
    pub segments: Box<[SegmentEntry]>,
}

impl FrameEntry {
    /// Most bytes that the entry of a frame of so many segments has in the index.
    pub fn bytes_max(segments: usize) -> u64 {
        // Three numbers of 64 bits at most and one of 32; of each segment four of 64 and one of 32.
        35 + segments as u64 * 45
    }

    /// Calls in it.
    pub fn calls(&self) -> u64 {
        self.segments
            .iter()
            .fold(0, |sum, segment| sum.saturating_add(segment.count))
    }

    /// Its earliest tick.
    pub fn first_tick(&self) -> u64 {
        self.segments
            .iter()
            .map(|s| s.first_tick)
            .min()
            .unwrap_or(0)
    }

    /// Its latest tick.
    pub fn last_tick(&self) -> u64 {
        self.segments.iter().map(|s| s.last_tick).max().unwrap_or(0)
    }
}

/// A frame of samples or marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideEntry {
    /// `KIND_SAMPLES` or `KIND_MARKS`.
    pub kind: u16,
    /// Offset of its header in the file.
    pub offset: u64,
    /// Its bytes, header included.
    pub bytes: u64,
    /// Earliest tick in it.
    pub first_tick: u64,
}

/// What the index holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The run, as known at the end.
    pub info: RunInfo,
    /// The processes by number, as last said.
    pub processes: Vec<Process>,
    /// Frames of events in the order of the file.
    pub frames: Vec<FrameEntry>,
    /// Frames of samples and marks in the order of the file.
    pub sides: Vec<SideEntry>,
}

impl Index {
    /// The payload of the index frame, appended to `out`.
    pub fn encode(&self, packer: &mut Packer, out: &mut Vec<u8>) {
        let mut raw = Vec::new();
        let put_blob = |raw: &mut Vec<u8>, blob: Vec<u8>| {
            varint::put(raw, blob.len() as u64);
            raw.extend_from_slice(&blob);
        };
        put_blob(&mut raw, record::run_to_bytes(&self.info));
        varint::put(&mut raw, self.processes.len() as u64);
        for process in &self.processes {
            put_blob(&mut raw, record::process_to_bytes(process));
        }
        varint::put(&mut raw, self.frames.len() as u64);
        let mut end = 0;
        for frame in &self.frames {
            varint::put(&mut raw, frame.offset.wrapping_sub(end));
            varint::put(&mut raw, frame.bytes);
            end = frame.offset.wrapping_add(frame.bytes);
            varint::put(&mut raw, u64::from(frame.process));
            varint::put(&mut raw, frame.segments.len() as u64);
            let mut tick = 0u64;
            for segment in &frame.segments {
                varint::put(&mut raw, u64::from(segment.thread));
                varint::put(&mut raw, segment.first_ordinal);
                varint::put(&mut raw, segment.count);
                let delta = segment.first_tick.wrapping_sub(tick) as i64;
                varint::put(&mut raw, varint::zigzag(delta));
                tick = segment.first_tick;
                varint::put(&mut raw, segment.last_tick.wrapping_sub(segment.first_tick));
            }
        }
        varint::put(&mut raw, self.sides.len() as u64);
        for side in &self.sides {
            varint::put(&mut raw, u64::from(side.kind));
            varint::put(&mut raw, side.offset);
            varint::put(&mut raw, side.bytes);
            varint::put(&mut raw, side.first_tick);
        }
        packer.pack_blob(&raw, out);
    }

    /// Reads the payload of an index frame. Bytes behind what is known here are left alone.
    pub fn decode(payload: &[u8]) -> Result<Index, Malformed> {
        let raw = column::unpack_blob(payload, INDEX_BYTES_MAX)?;
        let mut cursor = Cursor::new(&raw);
        let info = record::run_from_bytes(take_blob(&mut cursor)?)?;
        let count = cursor.varint()?;
        let mut processes = Vec::new();
        for _ in 0..count {
            processes.push(record::process_from_bytes(take_blob(&mut cursor)?)?);
        }
        let count = cursor.varint()?;
        let mut frames = Vec::new();
        let mut end = 0u64;
        for _ in 0..count {
            let offset = end.wrapping_add(cursor.varint()?);
            let bytes = cursor.varint()?;
            end = offset.wrapping_add(bytes);
            let process = cursor.varint_u32()?;
            let segment_count = cursor.varint()?;
            let mut segments = Vec::new();
            let mut tick = 0u64;
            for _ in 0..segment_count {
                let thread = cursor.varint_u32()?;
                let first_ordinal = cursor.varint()?;
                let count = cursor.varint()?;
                let first_tick = tick.wrapping_add(varint::unzigzag(cursor.varint()?) as u64);
                tick = first_tick;
                let last_tick = first_tick.wrapping_add(cursor.varint()?);
                segments.push(SegmentEntry {
                    thread,
                    first_ordinal,
                    count,
                    first_tick,
                    last_tick,
                });
            }
            frames.push(FrameEntry {
                offset,
                bytes,
                process,
                segments: segments.into_boxed_slice(),
            });
        }
        let count = cursor.varint()?;
        let mut sides = Vec::new();
        for _ in 0..count {
            sides.push(SideEntry {
                kind: cursor.varint()? as u16,
                offset: cursor.varint()?,
                bytes: cursor.varint()?,
                first_tick: cursor.varint()?,
            });
        }
        Ok(Index {
            info,
            processes,
            frames,
            sides,
        })
    }
}

fn take_blob<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Malformed> {
    let bytes = cursor.varint()?;
    cursor.take(usize::try_from(bytes).map_err(|_| Malformed::new("a length exceeds memory"))?)
}

/// The payload of the end frame: where the index frame begins, and the length of the whole file.
pub fn end_payload(index_offset: u64, file_bytes: u64) -> [u8; END_PAYLOAD_BYTES] {
    let mut bytes = [0; END_PAYLOAD_BYTES];
    bytes[..8].copy_from_slice(&index_offset.to_le_bytes());
    bytes[8..].copy_from_slice(&file_bytes.to_le_bytes());
    bytes
}

/// Inverse of [`end_payload`].
pub fn parse_end(payload: &[u8]) -> Option<(u64, u64)> {
    let (offset, rest) = payload.split_first_chunk::<8>()?;
    let (bytes, _) = rest.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*offset), u64::from_le_bytes(*bytes)))
}
