//! What can go wrong with recorded accesses.

use std::path::PathBuf;

/// Why accesses can't be recorded or read.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file can't be opened, read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another kind of file.
    #[error(
        "{path}: not a file of accesses (its first bytes are {found}); `rmtrace accesses -o FILE.rma -- CMD` makes one"
    )]
    NotAccesses {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: String,
    },
    /// A version that this program does not know.
    #[error(
        "{path}: version {found} of the form, this rmtrace reads {known}; record the accesses anew"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The file's.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The file ends too early.
    #[error(
        "{path}: cut short at byte {offset}, its summary is missing; the recording did not end: record the accesses anew"
    )]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Where it ends, or where the frame begins that is not whole.
        offset: u64,
    },
    /// Bytes that the form does not allow.
    #[error("{path}: damaged at byte {offset}: {what}; record the accesses anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the frame begins.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The records of the program can't be followed.
    #[error("the recorder's memory can't be followed: {what}")]
    Spool {
        /// What was found.
        what: String,
    },
}
