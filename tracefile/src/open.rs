//! Opens whatever a command is given as TRACE: a trace file with the files that came before it in the
//! same recording, or the run directory that LD_PRELOAD left.

use crate::error::ReadError;
use crate::gather::{self, GatherError, PackOptions};
use crate::model::Part;
use crate::reader::TraceReader;
use std::path::{Path, PathBuf};

/// The name of file `number` of a recording whose last file is `last`: `last` with `.1` for the first one,
/// and so on.
pub fn part_path(last: &Path, number: u32) -> PathBuf {
    let mut name = last.as_os_str().to_owned();
    name.push(format!(".{}", u64::from(number) + 1));
    name.into()
}

/// Opens a trace file, or packs a run directory into a temporary file that has no name and opens
/// that. The temporary file is where `std::env::temp_dir` says.
///
/// The last file of a recording of several is opened together with those before it that are beside it
/// under the names of [`part_path`], as one trace; any other file of such a recording alone.
///
/// # Errors
/// When it is neither, can't be read, or holds nothing.
pub fn open(path: &Path) -> Result<TraceReader, ReadError> {
    if !path.is_dir() {
        return open_files(path);
    }
    let open_error = |source| ReadError::Open {
        path: path.to_owned(),
        source,
    };
    let file = tempfile::tempfile().map_err(open_error)?;
    match gather::pack(path, file, &PackOptions::default(), &mut |_| {}) {
        Ok((file, _)) => TraceReader::from_file(file, path),
        Err(GatherError::Read(error)) => Err(error),
        Err(GatherError::Io { source, .. }) => Err(open_error(source)),
        Err(error) => Err(open_error(std::io::Error::other(error))),
    }
}

fn open_files(path: &Path) -> Result<TraceReader, ReadError> {
    let last = TraceReader::open(path)?;
    let recording = last.info().part.recording;
    if recording == 0 {
        return Ok(last);
    }
    let tick_ns = last.tick_ns();
    let mut number = last.info().part.number;
    let mut files = vec![last];
    while let Some(before) = number.checked_sub(1) {
        // One that is not there was removed, or the file is not the last of its recording.
        let Ok(reader) = TraceReader::open(&part_path(path, before)) else {
            break;
        };
        let Part { recording: its, .. } = reader.info().part;
        if its != recording || reader.info().part.number != before || reader.tick_ns() != tick_ns {
            break; // Of another recording.
        }
        files.push(reader);
        number = before;
    }
    files.reverse();
    match TraceReader::join(files) {
        Some(joined) => Ok(joined),
        None => TraceReader::open(path),
    }
}
