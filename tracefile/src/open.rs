//! Opens whatever a command is given as TRACE: a trace file, or the run directory that LD_PRELOAD
//! left.

use crate::error::ReadError;
use crate::gather::{self, GatherError, PackOptions};
use crate::reader::TraceReader;
use std::path::Path;

/// Opens a trace file, or packs a run directory into a temporary file that has no name and opens
/// that. The temporary file is where `std::env::temp_dir` says.
///
/// # Errors
/// When it is neither, can't be read, or holds nothing.
pub fn open(path: &Path) -> Result<TraceReader, ReadError> {
    if !path.is_dir() {
        return TraceReader::open(path);
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
