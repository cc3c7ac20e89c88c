//! Writes a trace anew, as small as its columns become. Calls are not decoded: what every frame says
//! stays the same to the bit.

use super::buffers::Buffers;
use super::encoders::Encoders;
use super::error::GatherError;
use super::processes::anonymize;
use crate::column::Unpacker;
use crate::error::ReadError;
use crate::frame::{FramePacker, HEADER_BYTES, LooseFrame};
use crate::model::Part;
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

/// Copies the trace `from` to `out` with its columns compressed anew; with `anonymous` without command
/// lines, paths and the date. `progress` gets the calls written so far. Frames of kinds that this
/// version does not know are left out.
///
/// # Errors
/// When `from` is damaged or cut short (the copy would look whole), can't be read, or `out` can't
/// be written.
pub fn repack<W: Write>(
    from: &TraceReader,
    out: W,
    anonymous: bool,
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
    if anonymous {
        info.command.clear();
        info.realtime_ns = 0;
        processes.iter_mut().for_each(anonymize);
    }
    let mut writer = TraceWriter::new(out, &info, from.tick_ns())?;
    for process in &processes {
        writer.process(process)?;
    }
    for side in from.sides() {
        writer.samples(&from.samples(side)?)?;
        writer.marks(&from.marks(side)?)?;
    }
    let buffers = Buffers::default();
    let mut unpacker = Unpacker::default();
    let mut calls = 0;
    std::thread::scope(|scope| -> Result<(), GatherError> {
        let count = std::thread::available_parallelism().map_or(1, |n| n.get());
        let mut encoders = Encoders::start(scope, count, FramePacker::small, &buffers);
        for entry in from.frames() {
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
