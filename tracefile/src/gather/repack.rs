//! Writes a trace anew, as small as its columns become, or a part of it. Calls are not decoded: what every
//! frame says stays the same to the bit.

use super::buffers::Buffers;
use super::encoders::Encoders;
use super::error::GatherError;
use super::processes::anonymize;
use crate::column::Unpacker;
use crate::error::ReadError;
use crate::frame::{FramePacker, HEADER_BYTES, LooseFrame};
use crate::model::{Part, Process, StartedBy};
use crate::reader::TraceReader;
use crate::writer::{FILE_MAGIC, TraceWriter};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Whether the file at `path` begins as a trace does.
pub fn is_trace(path: &Path) -> bool {
    let mut magic = [0; FILE_MAGIC.len()];
    path.is_file()
        && File::open(path)
            .and_then(|mut file| file.read_exact(&mut magic))
            .is_ok_and(|()| magic == FILE_MAGIC)
}

/// What of a trace is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepackOptions {
    /// Leave out command lines, paths and the date.
    pub anonymous: bool,
    /// Only the process of this number and those that it inherited blocks from
    /// ([`TraceReader::with_ancestors`]). Numbers stay as they are; times then count from the first call of
    /// what is kept.
    pub process: Option<u32>,
}

/// Copies the trace `from` to `out` with its columns compressed anew. `progress` gets the calls written so
/// far. Frames of kinds that this version does not know are left out.
///
/// # Errors
/// When `from` is damaged or cut short (the copy would look whole), can't be read, or `out` can't
/// be written.
pub fn repack<W: Write>(
    from: &TraceReader,
    out: W,
    options: RepackOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<W, GatherError> {
    let damaged = |offset: u64, what: &'static str, found: String| ReadError::Damaged {
        path: from.path().to_owned(),
        offset,
        what,
        found,
    };
    if let Some(damage) = from.damage().first() {
        return Err(damaged(0, "the trace", damage.to_string()).into());
    }
    let mut info = from.info().clone();
    if !from.lacks_beginning() && !from.lacks_end() {
        info.part = Part::default(); // One file now.
    }
    let mut processes = from.processes().to_vec();
    let kept = options.process.map(|process| from.with_ancestors(process));
    let keeps = |process: u32| kept.as_ref().is_none_or(|kept| kept.contains(&process));
    if let Some(process) = options.process {
        let all = processes.len();
        processes.retain(|process| keeps(process.number));
        processes.iter_mut().for_each(|p| orphan(p, keeps));
        info.notes.push(format!(
            "of the {all} processes recorded, these are process {process} and those that it inherited blocks from"
        ));
    }
    if options.anonymous {
        info.command.clear();
        info.realtime_ns = 0;
        processes.iter_mut().for_each(anonymize);
    }
    let mut writer = TraceWriter::new(out, &info, from.tick_ns())?;
    for process in &processes {
        writer.process(process)?;
    }
    for side in from.sides() {
        let mut samples = from.samples(side)?;
        samples.retain(|sample| keeps(sample.process));
        writer.samples(&samples)?;
        let mut marks = from.marks(side)?;
        marks.retain(|mark| mark.is_of_run() || keeps(mark.process));
        writer.marks(&marks)?;
    }
    let buffers = Buffers::default();
    let mut unpacker = Unpacker::default();
    let mut calls = 0;
    std::thread::scope(|scope| -> Result<(), GatherError> {
        let count = std::thread::available_parallelism().map_or(1, |n| n.get());
        let mut encoders = Encoders::start(scope, count, FramePacker::small, &buffers);
        for entry in from.frames().iter().filter(|entry| keeps(entry.process)) {
            let raw = from.raw_frame(entry)?;
            let payload = raw.bytes.get(HEADER_BYTES..).unwrap_or_default();
            let frame = LooseFrame::open(payload, &mut unpacker)
                .map_err(|found| damaged(entry.offset, "the frame of events", found.to_string()))?;
            encoders.send(frame);
            while let Some(frame) = encoders.take(false) {
                calls += frame.calls();
                writer.frame(&frame)?;
                buffers.give_encoded(frame);
                progress(calls);
            }
        }
        while let Some(frame) = encoders.take(true) {
            calls += frame.calls();
            writer.frame(&frame)?;
            progress(calls);
        }
        Ok(())
    })?;
    Ok(writer.finish(&info)?)
}

/// A process whose parent is left out is one that nobody is known to have started.
fn orphan(process: &mut Process, keeps: impl Fn(u32) -> bool) {
    if process.parent.is_some_and(|parent| !keeps(parent)) {
        process.parent = None;
        process.started_by = StartedBy::Root;
    }
}
