//! Why a run directory can't be gathered.

use crate::error::{ReadError, WriteError};
use std::path::PathBuf;

/// Why a run directory can't be made a trace.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// Something in the run directory can't be read.
    #[error("{path}: {what}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a run directory.
    #[error(
        "{path}: neither `chunks` nor spools are here: not a run directory (those that LD_PRELOAD \
         leaves end in .rmspool)"
    )]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing was recorded.
    #[error(
        "{path}: no process was recorded: the program may be static, setuid, or of another \
         architecture than librmtrace.so"
    )]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// The trace can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The trace that is to be continued can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
