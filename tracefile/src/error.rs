//! What can go wrong with a trace file: [`ReadError`] and [`WriteError`] end an operation,
//! [`Damage`] is what opening a cut or damaged file found and worked around, [`Malformed`] is what
//! the decoders of byte slices say before a path is known.

use std::fmt;
use std::path::PathBuf;

/// Bytes that the format does not allow, found by a decoder that knows no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What was found.
    pub what: &'static str,
}

impl Malformed {
    /// A finding.
    pub const fn new(what: &'static str) -> Malformed {
        Malformed { what }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for Malformed {}

/// Why a trace can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file can't be opened.
    #[error("{path}: can't be opened")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Reading failed.
    #[error("{path}: reading {length} bytes at byte {offset}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How many bytes were wanted.
        length: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another kind of file.
    #[error(
        "{path}: not a trace file (its first bytes are {found}); `rmtrace pack` turns what \
         LD_PRELOAD left into one"
    )]
    NotATrace {
        /// The file.
        path: PathBuf,
        /// Its first bytes, readable.
        found: String,
    },
    /// A version that this reader does not know.
    #[error(
        "{path}: trace format version {found}, this rmtrace reads version {known}: use a newer one"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What the header says.
        found: u32,
        /// What is known here.
        known: u32,
    },
    /// Damaged beyond what opening works around.
    #[error("{path}: {what} at byte {offset}: {found}; `rmtrace verify` tells how much is whole")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged structure begins.
        offset: u64,
        /// Which structure.
        what: &'static str,
        /// What was found.
        found: String,
    },
}

/// Why a trace can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Writing failed.
    #[error("writing the trace at byte {offset}")]
    Write {
        /// Bytes written before.
        offset: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// A record or frame is longer than the format allows.
    #[error("a frame of {bytes} bytes is longer than the format's {limit}")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// What is missing or damaged in a trace that can be read in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The file ends within a frame: `bytes` are not used.
    CutShort {
        /// Where the last whole frame ends.
        offset: u64,
        /// Bytes behind it.
        bytes: u64,
    },
    /// The file ends with a whole frame but has no index: the recording did not end.
    NoEnd {
        /// Bytes of the file.
        offset: u64,
    },
    /// The index can't be used; the frames were scanned instead.
    Index {
        /// Where it begins.
        offset: u64,
        /// What was found.
        found: String,
    },
    /// A frame was left out.
    Frame {
        /// Where it begins.
        offset: u64,
        /// Bytes left out.
        bytes: u64,
        /// What was found.
        found: String,
    },
    /// Frames name a process that no whole process record describes.
    UnknownProcess {
        /// Process.
        process: u32,
    },
    /// Another file of the same recording is damaged.
    Part {
        /// The file.
        path: PathBuf,
        /// What is missing or damaged in it.
        damage: Box<Damage>,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::CutShort { offset, bytes } => write!(
                f,
                "cut short: the last whole frame ends at byte {offset}, {bytes} bytes of the next \
                 are there; what was recorded after it is missing"
            ),
            Damage::NoEnd { offset } => write!(
                f,
                "no index at the end (byte {offset}): the recording did not end, what was recorded \
                 after this is missing"
            ),
            Damage::Index { offset, found } => write!(
                f,
                "the index at byte {offset} can't be used ({found}); every frame was read instead"
            ),
            Damage::Frame {
                offset,
                bytes,
                found,
            } => write!(f, "{bytes} bytes at byte {offset} were left out: {found}"),
            Damage::UnknownProcess { process } => {
                write!(f, "nothing describes process {process}")
            }
            Damage::Part { path, damage } => write!(f, "{}: {damage}", path.display()),
        }
    }
}
