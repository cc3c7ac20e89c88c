//! What can go wrong in a replay, said so that the reader knows what to do next.

use std::path::PathBuf;

/// Why a replay, or its preparation, failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The trace can't be read.
    #[error(transparent)]
    Trace(#[from] rmtrace_file::ReadError),
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program file is not what preparation writes.
    #[error(
        "{path}: not a program to replay: {what} at byte {offset}; remove the file and run again"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The trace holds what can't be replayed.
    #[error("process {process}: {what}")]
    Unfit {
        /// Number of the process in the trace.
        process: u32,
        /// Why.
        what: String,
    },
    /// The system refused memory for the replayer's own tables.
    #[error("no memory for {bytes} bytes of the replayer's own tables: {source}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread can't be started.
    #[error(
        "up to {threads} threads at once are needed, and one can't be started: {source}; see `ulimit -u`, or use --threads one"
    )]
    Threads {
        /// Threads at once.
        threads: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// An allocator can't be loaded.
    #[error("{name}: can't be loaded: {what}{hint}")]
    Load {
        /// As the user named it.
        name: String,
        /// What the dynamic linker said.
        what: String,
        /// What to install, or empty.
        hint: String,
    },
    /// An allocator failed at an operation.
    #[error("{name}: {what}")]
    Allocator {
        /// As the user named it.
        name: String,
        /// What it did.
        what: String,
    },
    /// A worker process ended without a result.
    #[error(
        "{name}: its process {how} ({round}); `--check` may tell what the allocator does wrong{stderr}"
    )]
    Worker {
        /// As the user named the allocator.
        name: String,
        /// How it ended.
        how: String,
        /// Which round it was.
        round: String,
        /// The last lines that it wrote to stderr, or empty.
        stderr: String,
    },
    /// An option has no meaning.
    #[error("{0}")]
    Option(String),
}
