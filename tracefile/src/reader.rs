//! Opens a trace file: the header, the index or what a scan finds instead, and single frames.

use crate::column::{self, Unpacker};
use crate::error::{Damage, Malformed, ReadError};
use crate::frame::{
    self, EncodedFrame, Frame, FrameHeader, HEADER_BYTES, KIND_MARKS, KIND_SAMPLES,
};
use crate::index::{self, END_PAYLOAD_BYTES, FrameEntry, Index, SideEntry};
use crate::model::{Mark, Process, RunInfo, Sample};
use crate::record;
use crate::scan::{self, RECORD_BYTES_MAX, Scan};
use crate::stream::nanoseconds;
use crate::writer::{FILE_HEADER_BYTES, FILE_MAGIC, FILE_VERSION};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Bytes of the end frame.
const END_BYTES: u64 = (HEADER_BYTES + END_PAYLOAD_BYTES) as u64;

/// The file behind a trace, or the files of a sequence: then offsets count through all of them.
pub(crate) struct Source {
    /// The last file.
    file: File,
    path: PathBuf,
    /// Where the last file begins.
    start: u64,
    /// The files before it, with the offsets at which they begin.
    earlier: Vec<(u64, File, PathBuf)>,
    /// Where the last file ends.
    bytes: u64,
}

impl Source {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file at `offset`: where it begins, and its name.
    fn at(&self, offset: u64) -> (u64, &File, &Path) {
        if offset >= self.start {
            return (self.start, &self.file, &self.path);
        }
        let behind = self.earlier.partition_point(|(start, ..)| *start <= offset);
        match behind.checked_sub(1).and_then(|at| self.earlier.get(at)) {
            Some((start, file, path)) => (*start, file, path),
            None => (self.start, &self.file, &self.path),
        }
    }

    pub(crate) fn read_exact(&self, offset: u64, out: &mut [u8]) -> Result<(), ReadError> {
        let (start, file, path) = self.at(offset);
        let offset = offset.saturating_sub(start);
        file.read_exact_at(out, offset)
            .map_err(|source| ReadError::Read {
                path: path.to_owned(),
                offset,
                length: out.len() as u64,
                source,
            })
    }

    pub(crate) fn damaged(
        &self,
        offset: u64,
        what: &'static str,
        found: impl ToString,
    ) -> ReadError {
        let (start, _, path) = self.at(offset);
        ReadError::Damaged {
            path: path.to_owned(),
            offset: offset.saturating_sub(start),
            what,
            found: found.to_string(),
        }
    }
}

/// A trace open for reading. Reading takes `&self`: several threads may read different frames.
pub struct TraceReader {
    source: Source,
    tick_ns: u64,
    index: Index,
    damage: Vec<Damage>,
    ordinals: OnceLock<HashMap<u32, BTreeMap<u32, u64>>>,
}

impl TraceReader {
    /// Opens a trace file, complete or cut short ([`TraceReader::damage`] says what is missing).
    ///
    /// # Errors
    /// When the file can't be read, is no trace, has an unknown version or a damaged header.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Open {
            path: path.to_path_buf(),
            source,
        })?;
        Self::from_file(file, path)
    }

    /// Opens the trace that `file` holds; `path` is its name in messages.
    ///
    /// # Errors
    /// As [`TraceReader::open`].
    pub fn from_file(file: File, path: &Path) -> Result<Self, ReadError> {
        let path = path.to_path_buf();
        let bytes = match file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(source) => return Err(ReadError::Open { path, source }),
        };
        let source = Source {
            file,
            path,
            start: 0,
            earlier: Vec::new(),
            bytes,
        };
        let tick_ns = read_header(&source)?;
        let mut damage = Vec::new();
        let index = match read_index(&source) {
            Ok(index) => index,
            Err(problem) => {
                let mut scan = Scan::new(&source, FILE_HEADER_BYTES as u64);
                let (index, has_end) = scan::index_of(&mut scan)?;
                damage = scan.damage;
                match problem {
                    IndexProblem::Read(error) => return Err(error),
                    IndexProblem::Damaged { offset, found } => {
                        damage.insert(
                            0,
                            Damage::Index {
                                offset,
                                found: found.to_string(),
                            },
                        );
                    }
                    IndexProblem::None if damage.is_empty() && !has_end => {
                        damage.push(Damage::NoEnd { offset: bytes });
                    }
                    IndexProblem::None if damage.is_empty() => {
                        damage.push(Damage::Index {
                            offset: bytes,
                            found: "the file goes on behind its end".to_string(),
                        });
                    }
                    IndexProblem::None => {}
                }
                index
            }
        };
        let mut reader = TraceReader {
            source,
            tick_ns,
            index,
            damage,
            ordinals: OnceLock::new(),
        };
        reader.describe_unknown_processes();
        Ok(reader)
    }

    /// Joins files of one recording, which follow each other, to one trace. Of each process the last
    /// record holds; what is said of the run is what the last file says, but that the trace begins where
    /// the first does. `None` if there are no files, or they have different ticks.
    pub fn join(parts: Vec<TraceReader>) -> Option<TraceReader> {
        let mut parts = parts.into_iter();
        let mut joined = parts.next()?;
        for next in parts {
            if next.tick_ns != joined.tick_ns {
                return None;
            }
            joined.append(next);
        }
        Some(joined)
    }

    /// Puts the file that follows behind what is here.
    fn append(&mut self, next: TraceReader) {
        let base = self.source.bytes;
        let number = self.index.info.part.number;
        let of_part = |path: &Path, damage: Vec<Damage>| {
            let path = path.to_owned();
            damage.into_iter().map(move |damage| match damage {
                Damage::Part { .. } => damage,
                damage => Damage::Part {
                    path: path.clone(),
                    damage: Box::new(damage),
                },
            })
        };
        let damage = std::mem::take(&mut self.damage);
        self.damage.extend(of_part(&self.source.path, damage));
        self.damage.extend(next.damage);
        self.index
            .frames
            .extend(next.index.frames.into_iter().map(|mut frame| {
                frame.offset += base;
                frame
            }));
        self.index
            .sides
            .extend(next.index.sides.into_iter().map(|mut side| {
                side.offset += base;
                side
            }));
        let mut processes: BTreeMap<u32, Process> = BTreeMap::new();
        let known = std::mem::take(&mut self.index.processes);
        for process in known.into_iter().chain(next.index.processes) {
            processes.insert(process.number, process);
        }
        self.index.processes = processes.into_values().collect();
        self.index.info = next.index.info;
        self.index.info.part.number = number;
        let source = &mut self.source;
        let file = std::mem::replace(&mut source.file, next.source.file);
        let path = std::mem::replace(&mut source.path, next.source.path);
        source.earlier.push((source.start, file, path));
        source.start = base;
        source.bytes = base + next.source.bytes;
        self.ordinals = OnceLock::new();
    }

    /// The files that the trace consists of, in their order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let earlier = self
            .source
            .earlier
            .iter()
            .map(|(_, _, path)| path.as_path());
        earlier.chain(std::iter::once(self.path()))
    }

    /// Whether the recording began in files that are not here: then blocks may be freed that nothing in
    /// this trace allocated.
    pub fn lacks_beginning(&self) -> bool {
        self.index.info.part.number > 0
    }

    /// Whether the recording goes on in a file that is not here.
    pub fn lacks_end(&self) -> bool {
        self.index.info.part.goes_on
    }

    /// What is said of the run.
    pub fn info(&self) -> &RunInfo {
        &self.index.info
    }

    /// Unit of the stored times in nanoseconds.
    pub fn tick_ns(&self) -> u64 {
        self.tick_ns
    }

    /// The processes, ordered by number.
    pub fn processes(&self) -> &[Process] {
        &self.index.processes
    }

    /// The process of this number.
    pub fn process(&self, number: u32) -> Option<&Process> {
        let at = self
            .index
            .processes
            .binary_search_by_key(&number, |process| process.number);
        self.index.processes.get(at.ok()?)
    }

    /// What is missing or damaged; empty for a whole trace. Frames of events are checked when they
    /// are read, not here.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Bytes of the file, or of all files.
    pub fn file_bytes(&self) -> u64 {
        self.source.bytes
    }

    /// The (last) file's name as given.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// The frames of events, in the order of the file.
    pub fn frames(&self) -> &[FrameEntry] {
        &self.index.frames
    }

    /// The frames of samples and marks, in the order of the file.
    pub fn sides(&self) -> &[SideEntry] {
        &self.index.sides
    }

    /// Calls in the trace.
    pub fn calls(&self) -> u64 {
        self.index
            .frames
            .iter()
            .fold(0, |sum, frame| sum.saturating_add(frame.calls()))
    }

    /// Calls of the process of this number in the trace.
    pub fn calls_of(&self, process: u32) -> u64 {
        let frames = self.index.frames.iter();
        let of_process = frames.filter(|frame| frame.process == process);
        of_process.fold(0, |sum, frame| sum.saturating_add(frame.calls()))
    }

    /// First and last tick of the events; `None` if there are none.
    pub fn ticks(&self) -> Option<(u64, u64)> {
        let first = self.index.frames.iter().map(FrameEntry::first_tick).min()?;
        let last = self.index.frames.iter().map(FrameEntry::last_tick).max()?;
        Some((first, last))
    }

    /// The time of `tick` as consumers are told it: nanoseconds since the run's first record.
    pub fn ns(&self, tick: u64) -> u64 {
        let origin = self.ticks().map_or(0, |(first, _)| first);
        nanoseconds(tick, origin, self.tick_ns)
    }

    /// All marks with their times ([`TraceReader::ns`]), in the order of the times. Reads no events.
    ///
    /// # Errors
    /// When a frame of marks can't be read or is damaged.
    pub fn all_marks(&self) -> Result<Vec<(u64, Mark)>, ReadError> {
        let origin = self.ticks().map_or(0, |(first, _)| first);
        let mut marks = Vec::new();
        for side in self.sides() {
            let timed = |mark: Mark| (nanoseconds(mark.tick, origin, self.tick_ns), mark);
            marks.extend(self.marks(side)?.into_iter().map(timed));
        }
        marks.sort_by_key(|(ns, _)| *ns);
        Ok(marks)
    }

    /// When the first mark of this name was set, in nanoseconds since the run's first record: an end
    /// of [`crate::MergeOptions::window`].
    ///
    /// # Errors
    /// As [`TraceReader::all_marks`].
    pub fn mark_named(&self, name: &str) -> Result<Option<u64>, ReadError> {
        let marks = self.all_marks()?;
        let found = marks.iter().find(|(_, mark)| mark.name == name);
        Ok(found.map(|(ns, _)| *ns))
    }

    /// Calls of a thread up to the end of its last frame: where recovery goes on.
    pub fn next_ordinal(&self, process: u32, thread: u32) -> u64 {
        self.ordinals()
            .get(&process)
            .and_then(|threads| threads.get(&thread))
            .copied()
            .unwrap_or(0)
    }

    /// The threads of a process that have calls, with [`TraceReader::next_ordinal`] of each.
    pub fn threads_of(&self, process: u32) -> impl Iterator<Item = (&u32, &u64)> {
        self.ordinals().get(&process).into_iter().flatten()
    }

    fn ordinals(&self) -> &HashMap<u32, BTreeMap<u32, u64>> {
        self.ordinals.get_or_init(|| {
            let mut ordinals: HashMap<u32, BTreeMap<u32, u64>> = HashMap::new();
            for frame in &self.index.frames {
                let threads = ordinals.entry(frame.process).or_default();
                for segment in &frame.segments {
                    let end = segment.first_ordinal.saturating_add(segment.count);
                    let slot = threads.entry(segment.thread).or_insert(0);
                    *slot = end.max(*slot);
                }
            }
            ordinals
        })
    }

    /// Opens a frame of events: reads, checks and decompresses it.
    ///
    /// # Errors
    /// When it can't be read or is damaged.
    pub fn frame(
        &self,
        entry: &FrameEntry,
        scratch: &mut FrameScratch,
    ) -> Result<Frame, ReadError> {
        self.payload(
            entry.offset,
            entry.bytes,
            frame::KIND_EVENTS,
            &mut scratch.bytes,
        )?;
        let payload = scratch.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let damaged = |found| {
            self.source
                .damaged(entry.offset, "the frame of events", found)
        };
        let frame = Frame::open(payload, &mut scratch.unpacker).map_err(damaged)?;
        if frame.process != entry.process || frame.segments != entry.segments {
            return Err(damaged(Malformed::new("the index says otherwise")));
        }
        Ok(frame)
    }

    /// A frame of events as it is stored, to be written into another trace with the same tick.
    ///
    /// # Errors
    /// When it can't be read or its checksum differs.
    pub fn raw_frame(&self, entry: &FrameEntry) -> Result<EncodedFrame, ReadError> {
        let mut bytes = Vec::new();
        self.payload(entry.offset, entry.bytes, frame::KIND_EVENTS, &mut bytes)?;
        let entry = FrameEntry {
            offset: 0,
            ..entry.clone()
        };
        Ok(EncodedFrame {
            bytes,
            entries: vec![entry],
        })
    }

    /// The samples of a frame, or none if it is one of marks.
    ///
    /// # Errors
    /// When it can't be read or is damaged.
    pub fn samples(&self, entry: &SideEntry) -> Result<Vec<Sample>, ReadError> {
        self.side(entry, KIND_SAMPLES, record::samples_from_bytes)
    }

    /// The marks of a frame, or none if it is one of samples.
    ///
    /// # Errors
    /// When it can't be read or is damaged.
    pub fn marks(&self, entry: &SideEntry) -> Result<Vec<Mark>, ReadError> {
        self.side(entry, KIND_MARKS, record::marks_from_bytes)
    }

    /// Walks over all frames as they lie in the (last) file, without the index.
    pub fn scan(&self) -> Scan<'_> {
        Scan::new(&self.source, self.source.start + FILE_HEADER_BYTES as u64)
    }

    pub(crate) fn damaged(
        &self,
        offset: u64,
        what: &'static str,
        found: impl ToString,
    ) -> ReadError {
        self.source.damaged(offset, what, found)
    }

    fn side<T>(
        &self,
        entry: &SideEntry,
        kind: u16,
        parse: impl FnOnce(&[u8]) -> Result<Vec<T>, Malformed>,
    ) -> Result<Vec<T>, ReadError> {
        if entry.kind != kind {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        self.payload(entry.offset, entry.bytes, kind, &mut bytes)?;
        let payload = bytes.get(HEADER_BYTES..).unwrap_or_default();
        column::unpack_blob(payload, RECORD_BYTES_MAX)
            .and_then(|raw| parse(&raw))
            .map_err(|found| self.source.damaged(entry.offset, "the frame", found))
    }

    /// Reads a whole frame into `out`, header included, and checks it.
    fn payload(
        &self,
        offset: u64,
        bytes: u64,
        kind: u16,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        read_frame(&self.source, offset, bytes, kind, out).map_err(|problem| match problem {
            FrameProblem::Read(error) => error,
            FrameProblem::Malformed(found) => self.source.damaged(offset, "the frame", found),
        })
    }

    fn describe_unknown_processes(&mut self) {
        let mut numbers: Vec<u32> = self
            .index
            .frames
            .iter()
            .map(|frame| frame.process)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            if let Err(at) = self
                .index
                .processes
                .binary_search_by_key(&number, |process| process.number)
            {
                self.damage.push(Damage::UnknownProcess { process: number });
                let frames = self.index.frames.iter().filter(|f| f.process == number);
                let process = Process {
                    number,
                    name: "?".to_string(),
                    started: frames
                        .clone()
                        .map(FrameEntry::first_tick)
                        .min()
                        .unwrap_or(0),
                    ended_at: frames.map(FrameEntry::last_tick).max().unwrap_or(0),
                    ..Process::default()
                };
                self.index.processes.insert(at, process);
            }
        }
    }
}

/// Buffers of [`TraceReader::frame`], kept from one frame to the next.
#[derive(Default)]
pub struct FrameScratch {
    bytes: Vec<u8>,
    unpacker: Unpacker,
}

enum FrameProblem {
    Read(ReadError),
    Malformed(Malformed),
}

impl From<Malformed> for FrameProblem {
    fn from(found: Malformed) -> Self {
        FrameProblem::Malformed(found)
    }
}

fn read_frame(
    source: &Source,
    offset: u64,
    bytes: u64,
    kind: u16,
    out: &mut Vec<u8>,
) -> Result<(), FrameProblem> {
    let fits = offset
        .checked_add(bytes)
        .is_some_and(|end| end <= source.bytes && bytes >= HEADER_BYTES as u64);
    if !fits {
        return Err(Malformed::new("it does not lie within the file").into());
    }
    out.resize(bytes as usize, 0);
    source.read_exact(offset, out).map_err(FrameProblem::Read)?;
    let (header, payload) = out
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(Malformed::new("it is shorter than a header"))?;
    let header = FrameHeader::parse(header)?;
    if header.kind != kind || u64::from(header.payload_bytes) != bytes - HEADER_BYTES as u64 {
        return Err(Malformed::new("another frame is here").into());
    }
    header.check(payload)?;
    Ok(())
}

fn read_header(source: &Source) -> Result<u64, ReadError> {
    let mut bytes = [0; FILE_HEADER_BYTES];
    let have = source.bytes.min(FILE_HEADER_BYTES as u64) as usize;
    source.read_exact(0, &mut bytes[..have])?;
    let magic_there = have.min(FILE_MAGIC.len());
    if have == 0 || bytes[..magic_there] != FILE_MAGIC[..magic_there] {
        let first = &bytes[..magic_there];
        return Err(ReadError::NotATrace {
            path: source.path.clone(),
            found: if have == 0 {
                "none: the file is empty".to_string()
            } else {
                format!("\"{}\"", first.escape_ascii())
            },
        });
    }
    let u32_at =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if have < FILE_HEADER_BYTES {
        return Err(source.damaged(
            0,
            "the header",
            format!("only {have} bytes of it are there"),
        ));
    }
    if u32_at(60) != crc32fast::hash(&bytes[..60]) {
        return Err(source.damaged(0, "the header", "its checksum differs"));
    }
    if u32_at(8) != FILE_VERSION {
        return Err(ReadError::Version {
            path: source.path.clone(),
            found: u32_at(8),
            known: FILE_VERSION,
        });
    }
    let tick_ns = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
    if tick_ns == 0 {
        return Err(source.damaged(0, "the header", "its time unit is 0"));
    }
    Ok(tick_ns)
}

enum IndexProblem {
    Read(ReadError),
    /// There is no end frame at the end.
    None,
    Damaged {
        offset: u64,
        found: Malformed,
    },
}

fn read_index(source: &Source) -> Result<Index, IndexProblem> {
    let end_offset = source
        .bytes
        .checked_sub(END_BYTES)
        .filter(|offset| *offset >= FILE_HEADER_BYTES as u64)
        .ok_or(IndexProblem::None)?;
    let mut bytes = Vec::new();
    match read_frame(source, end_offset, END_BYTES, frame::KIND_END, &mut bytes) {
        Ok(()) => {}
        Err(FrameProblem::Read(error)) => return Err(IndexProblem::Read(error)),
        Err(FrameProblem::Malformed(_)) => return Err(IndexProblem::None),
    }
    let payload = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let (offset, file_bytes) = index::parse_end(payload).ok_or(IndexProblem::None)?;
    let damaged = |found| IndexProblem::Damaged { offset, found };
    if file_bytes != source.bytes {
        return Err(damaged(Malformed::new(
            "the file has another length than its end says",
        )));
    }
    let length = end_offset
        .checked_sub(offset)
        .ok_or(damaged(Malformed::new("it lies behind the end")))?;
    match read_frame(source, offset, length, frame::KIND_INDEX, &mut bytes) {
        Ok(()) => {}
        Err(FrameProblem::Read(error)) => return Err(IndexProblem::Read(error)),
        Err(FrameProblem::Malformed(found)) => return Err(damaged(found)),
    }
    let index = Index::decode(bytes.get(HEADER_BYTES..).unwrap_or_default()).map_err(damaged)?;
    let sorted = index
        .processes
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.number < b.number));
    if sorted {
        Ok(index)
    } else {
        Err(damaged(Malformed::new("its processes are out of order")))
    }
}
