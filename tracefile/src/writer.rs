//! Writes a trace file, frame by frame, and its index at the end.

use crate::column::Packer;
use crate::error::WriteError;
use crate::frame::{
    self, EncodedFrame, HEADER_BYTES, KIND_END, KIND_INDEX, KIND_MARKS, KIND_PROCESS, KIND_RUN,
    KIND_SAMPLES, PAYLOAD_BYTES_MAX,
};
use crate::index::{self, END_PAYLOAD_BYTES, FrameEntry, Index, SideEntry};
use crate::model::{Mark, Process, RunInfo, Sample};
use crate::record;
use std::io::Write;

/// First bytes of a trace file.
pub const FILE_MAGIC: [u8; 8] = *b"RMTRACE\n";
/// Version of the format.
pub const FILE_VERSION: u32 = 1;
/// Bytes of the file's header.
pub const FILE_HEADER_BYTES: usize = 64;

/// The file's header.
pub fn file_header(tick_ns: u64) -> [u8; FILE_HEADER_BYTES] {
    let mut bytes = [0; FILE_HEADER_BYTES];
    bytes[0..8].copy_from_slice(&FILE_MAGIC);
    bytes[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(FILE_HEADER_BYTES as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&tick_ns.to_le_bytes());
    let check = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// Writes a trace to `W`. Every frame is handed to `W` in one call; buffering is not needed.
pub struct TraceWriter<W> {
    out: W,
    written: u64,
    index: Index,
    /// Most bytes of the index' entries of frames.
    entries_bytes: u64,
    /// Bytes of the process records in the index.
    processes_bytes: u64,
    packer: Packer,
    scratch: Vec<u8>,
}

impl<W: Write> TraceWriter<W> {
    /// Begins a trace: header and run record. `tick_ns` is the unit of all its times.
    pub fn new(out: W, info: &RunInfo, tick_ns: u64) -> Result<Self, WriteError> {
        let mut writer = TraceWriter {
            out,
            written: 0,
            index: Index::default(),
            entries_bytes: 0,
            processes_bytes: 0,
            packer: Packer::default(),
            scratch: Vec::new(),
        };
        writer.bytes(&file_header(tick_ns))?;
        writer.record(KIND_RUN, &record::run_to_bytes(info))?;
        Ok(writer)
    }

    /// Compresses no records from now on; for traces that are to be read by eye.
    pub fn store_only(&mut self) {
        self.packer.store_only();
    }

    /// Says what is known of a process. May be repeated, the last one holds.
    pub fn process(&mut self, process: &Process) -> Result<(), WriteError> {
        let bytes = record::process_to_bytes(process);
        self.record(KIND_PROCESS, &bytes)?;
        self.processes_bytes += bytes.len() as u64;
        let at = self
            .index
            .processes
            .binary_search_by_key(&process.number, |p| p.number);
        match at {
            Ok(at) => {
                let known = &mut self.index.processes[at];
                self.processes_bytes -= record::process_to_bytes(known).len() as u64;
                *known = process.clone();
            }
            Err(at) => self.index.processes.insert(at, process.clone()),
        }
        Ok(())
    }

    /// Writes encoded events. Frames of one thread must come in the order of its stream.
    pub fn frame(&mut self, frame: &EncodedFrame) -> Result<(), WriteError> {
        let start = self.written;
        if frame.bytes.is_empty() {
            return Ok(());
        }
        self.bytes(&frame.bytes)?;
        let entries = frame.entries.iter();
        self.entries_bytes += entries
            .map(|entry| FrameEntry::bytes_max(entry.segments.len()))
            .sum::<u64>();
        self.index.frames.extend(frame.entries.iter().map(|entry| {
            let mut entry = entry.clone();
            entry.offset += start;
            entry
        }));
        Ok(())
    }

    /// Writes resident samples.
    pub fn samples(&mut self, samples: &[Sample]) -> Result<(), WriteError> {
        let first_tick = samples.iter().map(|sample| sample.tick).min();
        let bytes = record::samples_to_bytes(samples);
        self.side(KIND_SAMPLES, &bytes, first_tick)
    }

    /// Writes marks.
    pub fn marks(&mut self, marks: &[Mark]) -> Result<(), WriteError> {
        let first_tick = marks.iter().map(|mark| mark.tick).min();
        let bytes = record::marks_to_bytes(marks);
        self.side(KIND_MARKS, &bytes, first_tick)
    }

    /// Bytes written so far.
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// The processes as last said, ordered by number.
    pub fn processes(&self) -> &[Process] {
        &self.index.processes
    }

    /// Whether there are frames of events.
    pub fn has_events(&self) -> bool {
        !self.index.frames.is_empty()
    }

    /// Most bytes that [`TraceWriter::finish`] will write with a run record of `run_bytes` bytes.
    pub fn closing_bytes(&self, run_bytes: u64) -> u64 {
        const NUMBER: u64 = 10;
        let processes = self.processes_bytes + NUMBER * self.index.processes.len() as u64;
        let sides = 4 * NUMBER * self.index.sides.len() as u64;
        let blob = 1 + NUMBER;
        let index = blob + 4 * NUMBER + run_bytes + processes + self.entries_bytes + sides;
        2 * HEADER_BYTES as u64 + index + END_PAYLOAD_BYTES as u64
    }

    /// Most bytes that one more record of each process would add, all of them longer than the last ones
    /// by `more` bytes together: once as frames, and what they are longer in the index.
    pub fn restating_bytes(&self, more: u64) -> u64 {
        const FRAME: u64 = HEADER_BYTES as u64 + 11;
        self.processes_bytes + FRAME * self.index.processes.len() as u64 + 2 * more
    }

    /// Ends the trace: final run record, index, end. Returns `W` flushed.
    pub fn finish(mut self, info: &RunInfo) -> Result<W, WriteError> {
        self.index.info = info.clone();
        let index_offset = self.written;
        let mut frame = vec![0; HEADER_BYTES];
        let index = std::mem::take(&mut self.index);
        index.encode(&mut self.packer, &mut frame);
        self.sealed(KIND_INDEX, frame)?;
        let file_bytes = self.written + (HEADER_BYTES + END_PAYLOAD_BYTES) as u64;
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend_from_slice(&index::end_payload(index_offset, file_bytes));
        self.sealed(KIND_END, frame)?;
        self.out.flush().map_err(|source| WriteError::Write {
            offset: self.written,
            source,
        })?;
        Ok(self.out)
    }

    fn side(&mut self, kind: u16, bytes: &[u8], first: Option<u64>) -> Result<(), WriteError> {
        let Some(first_tick) = first else {
            return Ok(());
        };
        let offset = self.written;
        self.record(kind, bytes)?;
        self.index.sides.push(SideEntry {
            kind,
            offset,
            bytes: self.written - offset,
            first_tick,
        });
        Ok(())
    }

    fn record(&mut self, kind: u16, bytes: &[u8]) -> Result<(), WriteError> {
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        frame.resize(HEADER_BYTES, 0);
        self.packer.pack_blob(bytes, &mut frame);
        self.sealed(kind, frame)
    }

    fn sealed(&mut self, kind: u16, mut frame: Vec<u8>) -> Result<(), WriteError> {
        let payload_bytes = (frame.len() - HEADER_BYTES) as u64;
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(WriteError::TooLong {
                bytes: payload_bytes,
                limit: PAYLOAD_BYTES_MAX,
            });
        }
        frame::seal(kind, &mut frame);
        let result = self.bytes(&frame);
        self.scratch = frame;
        result
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.out
            .write_all(bytes)
            .map_err(|source| WriteError::Write {
                offset: self.written,
                source,
            })?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}
