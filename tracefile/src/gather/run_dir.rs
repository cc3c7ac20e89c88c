//! A run directory: finding its files and what lies in them.

use super::chunk_file::Walk;
use super::clock::Stamps;
use super::cutter::ProcessStreams;
use super::error::GatherError;
use super::image::{Slot, SpoolId, SpoolImage};
use super::lease::{self, Lease};
use super::source::{Part, header_at, read_up_to, readings};
use super::spool_file::{for_each_chunk, read_image, read_slot};
use rmtrace_format::chunk::{
    Chunk, ForkPosition, HEADER_BYTES, KIND_EVENTS, KIND_FORK, STATE_ACTIVE, STATE_FREE, Triple,
};
use rmtrace_format::spool::{CHUNKS_NAME, FLAG_MONOTONIC, POOL_NAME, PROCESSES_MAX, SPOOL_SUFFIX};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name in the run directory of the collector's journal ([`super::journal`]).
pub const JOURNAL_NAME: &str = "journal";

/// Opens a regular file for reading; anything else, links and pipes among it, is refused.
pub fn open_regular(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    Ok(file)
}

/// Whether `path` looks like a run directory.
pub fn is_run(path: &Path) -> bool {
    path.is_dir() && (path.join(CHUNKS_NAME).exists() || path.join(POOL_NAME).exists())
}

/// What is known of one spool, from its file and from what was appended.
#[derive(Debug, Default)]
pub struct Spool {
    /// Its header page.
    pub image: Option<SpoolImage>,
    /// Its processes' slots.
    pub slots: BTreeMap<u32, Slot>,
    /// Its processes' chunks.
    pub processes: BTreeMap<u32, ProcessStreams>,
    /// Whether the file is there (else it was removed when its processes had ended).
    pub in_pool: bool,
    /// Whether processes still have it.
    pub in_use: bool,
}

/// The files of a run and everything that lies in them, apart from the records.
#[derive(Debug)]
pub struct RunDir {
    /// The directory.
    pub path: PathBuf,
    /// The pool directory, if there is one.
    pub pool: Option<PathBuf>,
    /// Open files; [`Part::source`] counts them.
    pub files: Vec<File>,
    /// Spools by identity.
    pub spools: BTreeMap<SpoolId, Spool>,
    /// Readings of the clocks in all headers.
    pub readings: Vec<Triple>,
    /// Bytes of `chunks` that belong to no whole chunk.
    pub torn_bytes: u64,
    /// Chunks found.
    pub chunks: u64,
    /// Source of copied chunks, and its end.
    copies: Option<(u32, u64)>,
}

/// Spools that hold no more than this are copied.
const COPIED_BYTES_MAX: u64 = 1 << 20;

impl RunDir {
    /// Finds and lists what a run directory holds. No records are read.
    pub fn open(path: &Path) -> Result<RunDir, GatherError> {
        let io = |what, path: &Path, source| GatherError::Io {
            path: path.to_owned(),
            what,
            source,
        };
        let mut run = RunDir {
            path: path.to_owned(),
            pool: None,
            files: Vec::new(),
            spools: BTreeMap::new(),
            readings: Vec::new(),
            torn_bytes: 0,
            chunks: 0,
            copies: None,
        };
        if path.is_file() {
            // A single spool.
            let file = open_regular(path).map_err(|error| io("can't be opened", path, error))?;
            run.list_spool(file);
            if run.spools.is_empty() {
                return Err(GatherError::NotARun {
                    path: path.to_owned(),
                });
            }
            return Ok(run);
        }
        // Spools first: a chunk that leaves its spool meanwhile is found in `chunks` then.
        // The pool is a link, or the directory itself; without either, spools may lie right here.
        let pool = path.join(POOL_NAME);
        let pool = if pool.is_dir() { pool } else { path.to_owned() };
        let list = |place: &Path| -> Result<Vec<PathBuf>, GatherError> {
            let entries =
                std::fs::read_dir(place).map_err(|error| io("can't be listed", place, error))?;
            Ok(entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.to_string_lossy().ends_with(SPOOL_SUFFIX))
                .collect())
        };
        let mut spools = list(&pool)?;
        if pool != path {
            // Those that had no room in the pool.
            spools.extend(list(path)?);
        }
        spools.sort();
        let mut something = pool != path || !spools.is_empty();
        run.pool = (pool != path).then_some(pool);
        for spool in spools {
            match open_regular(&spool) {
                Ok(file) => run.list_spool(file),
                // Its processes ended just now, and their chunks were appended.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io("can't be opened", &spool, error)),
            }
        }
        let chunks = path.join(CHUNKS_NAME);
        match open_regular(&chunks) {
            Ok(file) => {
                something = true;
                run.list_appended(file)
                    .map_err(|error| io("can't be read", &chunks, error))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("can't be opened", &chunks, error)),
        }
        if !something {
            return Err(GatherError::NotARun {
                path: path.to_owned(),
            });
        }
        Ok(run)
    }

    fn list_appended(&mut self, file: File) -> std::io::Result<()> {
        let length = file.metadata()?.len();
        let source = self.files.len() as u32;
        let mut walk = Walk::default();
        while let Some(found) = walk.next(&file, length, false) {
            self.chunks += 1;
            self.readings.extend(readings(&found.chunk));
            let part = Part::new(&found.chunk, source, found.offset, found.data_bytes, false);
            self.take_chunk(&file, found.chunk, part);
        }
        self.torn_bytes = walk.torn_bytes;
        self.files.push(file);
        Ok(())
    }

    fn list_spool(&mut self, file: File) {
        let Some(image) = read_image(&file) else {
            return; // Its process was killed before it had begun.
        };
        let source = self.files.len() as u32;
        self.readings.push(image.started);
        let spool = self.spools.entry(image.id).or_default();
        spool.in_pool = true;
        let in_use = lease::ask(&file) == Lease::InUse;
        spool.in_use = in_use;
        for number in 0..image.processes.min(PROCESSES_MAX as u32) {
            if let Some(slot) = read_slot(&file, number) {
                self.readings.push(slot.started);
                spool.slots.insert(number, slot);
            }
        }
        let mut chunks = Vec::new();
        let id = image.id;
        for_each_chunk(&file, image.slabs_claimed, |offset, chunk| {
            if chunk.spool_id == id {
                chunks.push((offset, chunk));
            }
        });
        spool.image = Some(image);
        self.chunks += chunks.len() as u64;
        // Chunks that may be used again while we read are copied; so are a few, as a run may have
        // more spools than we may have open files.
        let bytes: u64 = chunks.iter().map(|(_, c)| u64::from(c.chunk_bytes)).sum();
        if (in_use || bytes <= COPIED_BYTES_MAX) && self.copy_chunks(&file, &chunks) {
            return;
        }
        for (offset, chunk) in chunks {
            self.readings.extend(readings(&chunk));
            let part = Part::new(&chunk, source, offset, chunk.committed, true);
            self.take_chunk(&file, chunk, part);
        }
        self.files.push(file);
    }

    /// Copies chunks of a spool to a file of our own. False, with nothing done, if that can't be.
    fn copy_chunks(&mut self, file: &File, chunks: &[(u64, Chunk)]) -> bool {
        if self.copies.is_none() {
            let Ok(copies) = tempfile::tempfile() else {
                return false;
            };
            self.copies = Some((self.files.len() as u32, 0));
            self.files.push(copies);
        }
        let Some((source, mut end)) = self.copies else {
            return false;
        };
        let mut copied = Vec::with_capacity(chunks.len());
        let mut bytes = Vec::new();
        for (offset, chunk) in chunks {
            bytes.resize(chunk.chunk_bytes as usize, 0);
            let read = read_up_to(file, *offset, &mut bytes).unwrap_or(0);
            let Ok(now) = Chunk::parse(&bytes[..read]) else {
                continue; // Given away since.
            };
            // The header again: what we copied is one chunk's if it was there before and after.
            let same = header_at(file, *offset).map(|after| after.check_word());
            let data = (read - HEADER_BYTES).min(now.committed as usize);
            if same != Some(now.check_word()) || now.state == STATE_FREE {
                continue;
            }
            let bytes = &bytes[..HEADER_BYTES + data];
            let Some(to) = self.files.get(source as usize) else {
                return false;
            };
            if to.write_all_at(bytes, end).is_err() {
                return false;
            }
            let mut part = Part::new(&now, source, end, data as u32, false);
            part.open = now.state == STATE_ACTIVE;
            copied.push((now, part));
            end += bytes.len() as u64;
        }
        self.copies = Some((source, end));
        for (chunk, part) in copied {
            self.readings.extend(readings(&chunk));
            let spool = self.spools.entry(chunk.spool_id).or_default();
            let Some(file) = self.files.get(source as usize) else {
                return true;
            };
            take_chunk(spool, file, &chunk, part);
        }
        true
    }

    fn take_chunk(&mut self, file: &File, chunk: Chunk, part: Part) {
        let spool = self.spools.entry(chunk.spool_id).or_default();
        take_chunk(spool, file, &chunk, part);
    }
}

/// Reads all records' bytes of a part that is small enough to be held (not one of events).
pub fn read_data(file: &File, part: &Part) -> Vec<u8> {
    let mut bytes = vec![0; part.data_bytes as usize];
    let read = read_up_to(file, part.offset + HEADER_BYTES as u64, &mut bytes).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

/// Files a chunk under its spool. Returns whether it is an events chunk that is wanted.
pub fn take_chunk(spool: &mut Spool, file: &File, chunk: &Chunk, part: Part) -> bool {
    match chunk.kind {
        KIND_EVENTS => spool
            .processes
            .entry(chunk.process)
            .or_default()
            .add(chunk, part),
        KIND_FORK => {
            let positions = ForkPosition::parse_all(&read_data(file, &part)).collect();
            spool
                .processes
                .entry(chunk.process)
                .or_default()
                .fork
                .insert(chunk.sequence, positions);
            false
        }
        _ => false,
    }
}

/// What the stamps of a spool are.
pub fn stamps_of(image: Option<&SpoolImage>) -> Stamps {
    match image {
        Some(image) if image.flags & FLAG_MONOTONIC != 0 => Stamps::Monotonic,
        _ => Stamps::Tsc,
    }
}
