//! A run directory as one string of bytes: a byte of flags, then *pieces*, each the number of a file,
//! where in it (u32), how many bytes (u32) and the bytes. Spools are sparse, so pieces are short.
//!
//! | flag | |
//! |---|---|
//! | 1 | check words of chunks are made right |
//! | 2 | packed without names |
//! | 4 | a trace that was begun is continued |
//!
//! Files: 0 `chunks`, 1 `journal`, 2 the begun trace, 3 to 6 spools. The last piece may be cut short.

use crate::seal;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Names of the files by number, below the run directory.
pub const FILES: [&str; 7] = [
    "chunks",
    "journal",
    "begun.rmt",
    "pool/1-a.spool",
    "pool/2-b.spool",
    "pool/3-c.spool",
    "pool/4-d.spool",
];
const BEGUN: usize = 2;
/// Pieces lie below this.
const OFFSET_MAX: u64 = 48 << 20;
/// Fewer zeros than this don't end a piece.
const ZEROS: usize = 32;

/// Bytes at a place of a file.
pub struct Piece {
    file: usize,
    offset: u64,
    bytes: Vec<u8>,
}

/// What an input says.
pub struct Pieces {
    /// Whether names are left out.
    pub anonymous: bool,
    continued: bool,
    pieces: Vec<Piece>,
}

impl Pieces {
    /// Parses an input; every one says something.
    pub fn parse(data: &[u8]) -> Pieces {
        let (&flags, mut rest) = data.split_first().unwrap_or((&0, &[]));
        let mut pieces = Vec::new();
        while let Some((head, behind)) = rest.split_first_chunk::<9>() {
            let word = |at: usize| {
                u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
            };
            let length = behind.len().min(word(5) as usize);
            let (bytes, next) = behind.split_at(length);
            let mut bytes = bytes.to_vec();
            let file = usize::from(head[0]) % FILES.len();
            if flags & 1 != 0 && file == BEGUN {
                bytes = seal::trace(&bytes);
            } else if flags & 1 != 0 {
                seal::chunks(&mut bytes);
            }
            pieces.push(Piece {
                file,
                offset: u64::from(word(1)) % OFFSET_MAX,
                bytes,
            });
            rest = next;
        }
        Pieces {
            anonymous: flags & 2 != 0,
            continued: flags & 4 != 0,
            pieces,
        }
    }

    /// The input that a run directory on disk is.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn collect(run: &Path, flags: u8) -> std::io::Result<Vec<u8>> {
        let mut out = vec![flags];
        let mut spools: Vec<PathBuf> = fs::read_dir(run.join("pool"))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "spool"))
            .collect();
        spools.sort();
        spools.truncate(FILES.len() - 3);
        let named = FILES[..3].iter().map(|name| run.join(name)).enumerate();
        let spools = spools
            .into_iter()
            .enumerate()
            .map(|(n, path)| (n + 3, path));
        for (number, path) in named.chain(spools) {
            if path.exists() {
                add_file(&mut out, number as u8, &fs::read(path)?);
            }
        }
        Ok(out)
    }
}

/// Appends what is not zero of a file, and its last byte, which gives the length.
fn add_file(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|b| *b != 0) {
        let from = at + found;
        let mut end = from;
        let mut zeros = 0;
        for (n, byte) in bytes[from..].iter().enumerate() {
            zeros = if *byte == 0 { zeros + 1 } else { 0 };
            if zeros == 0 {
                end = from + n + 1;
            }
            if zeros == ZEROS {
                break;
            }
        }
        add_piece(out, number, from, &bytes[from..end]);
        at = end;
    }
    if at < bytes.len() {
        add_piece(out, number, bytes.len() - 1, &[0]);
    }
}

fn add_piece(out: &mut Vec<u8>, file: u8, offset: usize, bytes: &[u8]) {
    out.push(file);
    out.extend_from_slice(&(offset as u32).to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A run directory that is filled anew for every input.
pub struct Scene {
    directory: tempfile::TempDir,
    continued: bool,
}

impl Default for Scene {
    fn default() -> Self {
        Scene::new()
    }
}

impl Scene {
    /// An empty one.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new() -> Scene {
        let directory = tempfile::Builder::new()
            .prefix("rmtrace-fuzz-")
            .suffix(".rmspool")
            .tempdir_in(crate::scratch_directory())
            .expect("a temporary directory");
        fs::create_dir(directory.path().join("pool")).expect("a directory");
        Scene {
            directory,
            continued: false,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The begun trace, if the input has one to be continued.
    pub fn begun(&self) -> Option<PathBuf> {
        self.continued.then(|| self.path().join(FILES[BEGUN]))
    }

    /// Makes the files what `pieces` says.
    ///
    /// # Panics
    /// When a file can't be written.
    pub fn set(&mut self, pieces: &Pieces) {
        let mut files: [Option<File>; FILES.len()] = Default::default();
        for name in FILES {
            // Not there is as good.
            let _ = fs::remove_file(self.path().join(name));
        }
        for piece in &pieces.pieces {
            let path = self.directory.path().join(FILES[piece.file]);
            files[piece.file]
                .get_or_insert_with(|| File::create(path).expect("a file of the run"))
                .write_all_at(&piece.bytes, piece.offset)
                .expect("a file of the run is written");
        }
        self.continued = pieces.continued && files[BEGUN].is_some();
    }
}
