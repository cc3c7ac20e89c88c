//! What can go wrong in a search, said so that the reader knows what to do next.

use std::path::PathBuf;

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// A replay failed for a reason that no configuration can have.
    #[error(transparent)]
    Replay(#[from] rmtrace_replay::ReplayError),
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A journal is of something else.
    #[error(
        "{path}: this journal was made with {found}, and this run has {wanted}: their figures can't be \
         compared; run without --resume"
    )]
    OtherJournal {
        /// The journal.
        path: PathBuf,
        /// What it was made with.
        found: String,
        /// What this run is.
        wanted: String,
    },
    /// A journal is damaged.
    #[error(
        "{path}:{line}: not a line of a journal: {what}; remove the line, which is measured again, or the file"
    )]
    DamagedJournal {
        /// The journal.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The defaults, which everything is compared with, can't be replayed.
    #[error(
        "{trace}: the defaults can't be replayed, so nothing can be compared with them: {what}"
    )]
    Reference {
        /// The trace.
        trace: String,
        /// Why.
        what: String,
    },
    /// An option has no meaning.
    #[error("{0}")]
    Option(String),
}

impl TuneError {
    pub(crate) fn file(path: &std::path::Path, source: std::io::Error) -> TuneError {
        TuneError::File {
            path: path.to_owned(),
            source,
        }
    }
}
