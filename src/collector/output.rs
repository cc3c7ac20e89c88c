//! The trace file of a recording, or the files if it has several, and how much they may hold.
//!
//! With `rotate_bytes` a file is ended before it gets longer, and takes the name that
//! [`part_path`] gives it; the file that is written to always has the name that was asked for. The two
//! change places at once, so there is a trace under that name at any time. With `keep_last` the oldest
//! files are removed before all of them together get longer than `limit_bytes`. Stopping at a limit is
//! the drain's affair: it asks here how much is spoken for.

use super::{Status, sys};
use rmtrace_file::index::FrameEntry;
use rmtrace_file::open::part_path;
use rmtrace_file::record::{process_to_bytes, run_to_bytes};
use rmtrace_file::{
    EncodedFrame, Ended, Mark, Part, Process, RunInfo, Sample, TraceWriter, WriteError,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

/// How much may be kept, and in how many files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes that the trace may have, all its files together.
    pub limit_bytes: Option<u64>,
    /// At the limit, the oldest files go; otherwise recording stops.
    pub keep_last: bool,
    /// Bytes that one file may have.
    pub rotate_bytes: Option<u64>,
}

impl Space {
    /// The limit at which recording stops.
    pub fn stop_bytes(&self) -> Option<u64> {
        self.limit_bytes.filter(|_| !self.keep_last)
    }
}

/// Bytes by which the last record of a process may be longer than the one before: how it ended, its
/// name, and of each thread its numbers and name.
const MORE_BYTES: u64 = 512;
const THREAD_BYTES: u64 = 200;
/// Bytes of a thread's position at a fork.
const POSITION_BYTES: u64 = 16;
/// Bytes of the notes of the last run record.
const NOTES_BYTES: u64 = 4 << 10;
/// Bytes of a frame of samples or marks beside its items, and of its entry in the index.
const SIDE_BYTES: u64 = 80;
/// Bytes of a sample, and of a mark.
const ITEM_BYTES: u64 = 120;

/// A file that was ended.
struct Kept {
    number: u32,
    bytes: u64,
    calls: u64,
}

/// The file that is written to, and what is known of those before.
pub struct Output {
    path: PathBuf,
    writer: TraceWriter<File>,
    info: RunInfo,
    run_bytes: u64,
    tick_ns: u64,
    space: Space,
    /// Files before this one that are still there.
    kept: VecDeque<Kept>,
    kept_bytes: u64,
    /// Calls in this file, and in those that were removed.
    calls: u64,
    calls_removed: u64,
    /// The file in which a process was last said to live.
    lived: HashMap<u32, u32>,
    /// Threads with events, of processes that have not ended.
    threads: HashMap<u32, HashSet<u32>>,
    /// All of these threads, and most of one process.
    threads_all: u64,
    threads_most: u64,
}

fn failed(offset: u64) -> impl FnOnce(io::Error) -> WriteError {
    move |source| WriteError::Write { offset, source }
}

impl Output {
    /// Begins the trace at `path`.
    pub fn new(
        path: &Path,
        file: File,
        mut info: RunInfo,
        tick_ns: u64,
        space: Space,
    ) -> Result<Output, WriteError> {
        if space.rotate_bytes.is_some() {
            info.part.recording = sys::random().max(1);
        }
        Ok(Output {
            path: path.to_owned(),
            writer: TraceWriter::new(file, &info, tick_ns)?,
            run_bytes: run_to_bytes(&info).len() as u64 + NOTES_BYTES,
            info,
            tick_ns,
            space,
            kept: VecDeque::new(),
            kept_bytes: 0,
            calls: 0,
            calls_removed: 0,
            lived: HashMap::new(),
            threads: HashMap::new(),
            threads_all: 0,
            threads_most: 0,
        })
    }

    /// Bytes written to the files that are there.
    pub fn bytes(&self) -> u64 {
        self.kept_bytes + self.writer.bytes_written()
    }

    /// Most bytes that the end of the trace will add, with the last word on every process.
    pub fn reserved_bytes(&self) -> u64 {
        let each = MORE_BYTES + POSITION_BYTES * self.threads_most;
        let processes = self.writer.processes().len() as u64;
        let more = each * processes + THREAD_BYTES * self.threads_all;
        self.writer.closing_bytes(self.run_bytes) + self.writer.restating_bytes(more)
    }

    /// Tells `status` how much there is.
    pub fn tell(&self, status: &Status) {
        status.bytes.store(self.bytes(), Relaxed);
        if self.space != Space::default() {
            status.reserved.store(self.reserved_bytes(), Relaxed);
            status.files.store(self.kept.len() as u32 + 1, Relaxed);
            status.files_removed.store(self.first_kept(), Relaxed);
            status.calls_removed.store(self.calls_removed, Relaxed);
        }
    }

    /// Number of the oldest file that is there.
    fn first_kept(&self) -> u32 {
        let first = self.kept.front();
        first.map_or(self.info.part.number, |kept| kept.number)
    }

    /// Makes room for so many bytes.
    fn make_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        let Some(file_bytes) = self.space.rotate_bytes else {
            return Ok(());
        };
        let needed = bytes + self.reserved_bytes();
        if self.writer.has_events() && self.writer.bytes_written() + needed > file_bytes {
            self.turn()?;
        }
        let Some(limit) = self.space.limit_bytes.filter(|_| self.space.keep_last) else {
            return Ok(());
        };
        let needed = bytes + self.reserved_bytes();
        while self.bytes() + needed > limit
            && let Some(oldest) = self.kept.pop_front()
        {
            let path = part_path(&self.path, oldest.number);
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(self.writer.bytes_written())(error));
                }
                _ => {
                    self.kept_bytes -= oldest.bytes;
                    self.calls_removed += oldest.calls;
                }
            }
        }
        Ok(())
    }

    /// Ends the file and begins the next.
    fn turn(&mut self) -> Result<(), WriteError> {
        let offset = self.writer.bytes_written();
        let number = self.info.part.number;
        let ended_path = part_path(&self.path, number);
        let mut next = self.info.clone();
        next.part.number += 1;
        let file = create_new(&ended_path).map_err(failed(offset))?;
        let writer = TraceWriter::new(file, &next, self.tick_ns)?;
        let ended = std::mem::replace(&mut self.writer, writer);
        let living: Vec<Process> = ended
            .processes()
            .iter()
            .filter(|process| process.ended == Ended::Unknown)
            .cloned()
            .collect();
        let info = RunInfo {
            part: Part {
                goes_on: true,
                ..self.info.part
            },
            ..self.info.clone()
        };
        let ended = ended.finish(&info)?;
        let bytes = ended.metadata().map_err(failed(offset))?.len();
        sys::exchange(&self.path, &ended_path).map_err(failed(offset))?;
        self.info = next;
        let calls = std::mem::take(&mut self.calls);
        self.kept.push_back(Kept {
            number,
            bytes,
            calls,
        });
        self.kept_bytes += bytes;
        for process in living {
            self.lived.insert(process.number, self.info.part.number);
            self.writer.process(&process)?;
        }
        Ok(())
    }

    /// Says what is known of a process.
    pub fn process(&mut self, process: &Process) -> Result<(), WriteError> {
        if self.space.rotate_bytes.is_some() {
            self.make_room(2 * process_to_bytes(process).len() as u64 + SIDE_BYTES)?;
        }
        self.lived.insert(process.number, self.info.part.number);
        if process.ended != Ended::Unknown {
            let threads = self.threads.remove(&process.number);
            self.threads_all -= threads.map_or(0, |threads| threads.len() as u64);
        }
        self.writer.process(process)
    }

    /// The last word on every process. Those that ended before this file are told of again as long as
    /// there is room; what was said of them is in the file in which they ended.
    pub fn last_words(&mut self, processes: &[Process]) -> Result<(), WriteError> {
        let first = self.first_kept();
        let mut earlier = Vec::new();
        for process in processes {
            match self.lived.get(&process.number) {
                Some(number) if *number == self.info.part.number => self.writer.process(process)?,
                Some(number) if *number >= first => earlier.push(process),
                _ => {}
            }
        }
        for process in earlier {
            let bytes = 2 * process_to_bytes(process).len() as u64 + SIDE_BYTES;
            let needed = bytes + self.writer.closing_bytes(self.run_bytes);
            let file = self.writer.bytes_written() + needed;
            let all = self.bytes() + needed;
            let fits = |bytes: u64, limit: Option<u64>| limit.is_none_or(|limit| bytes <= limit);
            if fits(file, self.space.rotate_bytes) && fits(all, self.space.limit_bytes) {
                self.writer.process(process)?;
            }
        }
        Ok(())
    }

    /// Writes encoded events.
    pub fn frame(&mut self, frame: &EncodedFrame) -> Result<(), WriteError> {
        if self.space != Space::default() {
            for entry in &frame.entries {
                let threads = self.threads.entry(entry.process).or_default();
                let before = threads.len();
                threads.extend(entry.segments.iter().map(|segment| segment.thread));
                self.threads_all += (threads.len() - before) as u64;
                self.threads_most = self.threads_most.max(threads.len() as u64);
            }
            let entries = frame.entries.iter().map(|entry| entry.segments.len());
            let entries: u64 = entries.map(FrameEntry::bytes_max).sum();
            self.make_room(frame.bytes.len() as u64 + entries)?;
        }
        self.writer.frame(frame)?;
        self.calls += frame.calls();
        Ok(())
    }

    /// Writes resident samples.
    pub fn samples(&mut self, samples: &[Sample]) -> Result<(), WriteError> {
        self.make_room(samples.len() as u64 * ITEM_BYTES + SIDE_BYTES)?;
        self.writer.samples(samples)
    }

    /// Writes marks.
    pub fn marks(&mut self, marks: &[Mark]) -> Result<(), WriteError> {
        self.make_room(marks.len() as u64 * ITEM_BYTES + SIDE_BYTES)?;
        self.writer.marks(marks)
    }

    /// Ends the trace; returns the bytes of all its files.
    pub fn finish(self, mut info: RunInfo) -> Result<u64, WriteError> {
        let offset = self.writer.bytes_written();
        info.part = self.info.part;
        let file = self.writer.finish(&info)?;
        let bytes = file.metadata().map_err(failed(offset))?.len();
        Ok(self.kept_bytes + bytes)
    }
}

/// A new file for its owner alone, in the place of one that an earlier recording left.
fn create_new(path: &Path) -> io::Result<File> {
    let new = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    };
    match new() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            new()
        }
        other => other,
    }
}
