//! Where programs are kept between replays: files under `$XDG_CACHE_HOME/rmtrace/replay`, named by what they were made
//! from. Those used longest ago are removed.

use crate::error::ReplayError;
use crate::prepare::{Wanted, prepare};
use crate::program::{Program, VERSION};
use rmtrace_file::TraceReader;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Programs that are kept.
const FILES_MAX: usize = 16;
/// Bytes that are kept, beside the one made last.
const BYTES_MAX: u64 = 4 << 30;

/// A program file; removed when dropped, unless it is kept for later.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    temporary: Option<tempfile::TempPath>,
    /// Whether it was there.
    pub found: bool,
}

impl Kept {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.temporary.as_deref().unwrap_or(&self.path)
    }
}

/// The program of a process: found, or made. Without a directory to keep it in it is temporary.
///
/// # Errors
/// As [`prepare`].
pub fn program(
    reader: &TraceReader,
    wanted: Wanted,
    directory: Option<&Path>,
    progress: impl FnMut(u64),
) -> Result<Kept, ReplayError> {
    let name = name(reader, wanted);
    let directory =
        directory.filter(|directory| name.is_some() && fs::create_dir_all(directory).is_ok());
    let Some(directory) = directory else {
        let place = std::env::temp_dir();
        let temporary = make(reader, wanted, &place, progress)?;
        return Ok(Kept {
            path: PathBuf::new(),
            temporary: Some(temporary),
            found: false,
        });
    };
    let path = directory.join(name.unwrap_or_default());
    let is_there = Program::open(&path).is_ok();
    if is_there {
        let now = |file: File| file.set_modified(SystemTime::now());
        let _ = File::options().append(true).open(&path).and_then(now);
    } else {
        let temporary = make(reader, wanted, directory, progress)?;
        temporary
            .persist(&path)
            .map_err(|error| of_file(&path, error.error))?;
        tidy(directory, &path);
    }
    Ok(Kept {
        path,
        temporary: None,
        found: is_there,
    })
}

/// The directory of this user's programs.
pub fn directory() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let caches = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let caches = caches.or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("rmtrace").join("replay"))
}

fn of_file(path: &Path, source: io::Error) -> ReplayError {
    ReplayError::File {
        path: path.to_owned(),
        source,
    }
}

fn make(
    reader: &TraceReader,
    wanted: Wanted,
    directory: &Path,
    progress: impl FnMut(u64),
) -> Result<tempfile::TempPath, ReplayError> {
    let file = tempfile::Builder::new()
        .prefix("making-")
        .suffix(".rmreplay")
        .tempfile_in(directory)
        .map_err(|source| of_file(directory, source))?;
    let (file, path) = file.into_parts();
    prepare(reader, wanted, file, &path, progress)?;
    Ok(path)
}

/// A name made from what a program depends on, if all of it can be told.
fn name(reader: &TraceReader, wanted: Wanted) -> Option<String> {
    let mut hasher = DefaultHasher::new();
    (VERSION, wanted.process, wanted.lock_ns).hash(&mut hasher);
    for path in reader.paths() {
        let path = path.canonicalize().ok()?;
        let metadata = path.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        (&path, metadata.len(), metadata.modified().ok()?).hash(&mut hasher);
    }
    Some(format!("{:016x}.rmreplay", hasher.finish()))
}

/// Removes the programs used longest ago; never `latest`.
fn tidy(directory: &Path, latest: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let mut others: Vec<(SystemTime, u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let metadata = path.metadata().ok()?;
            let is_one = path.extension()? == "rmreplay" && path != latest;
            is_one.then_some((metadata.modified().ok()?, metadata.len(), path))
        })
        .collect();
    others.sort();
    let mut kept = (1, 0);
    for (_, bytes, path) in others.into_iter().rev() {
        kept = (kept.0 + 1, kept.1 + bytes);
        if kept.0 > FILES_MAX || kept.1 > BYTES_MAX {
            // Whoever has it mapped keeps it until then.
            let _ = fs::remove_file(path);
        }
    }
}
