//! Where programs are kept between replays: files under `$XDG_CACHE_HOME/rmtrace/replay`, named by what they were made
//! from. Those used longest ago are removed.

use crate::error::ReplayError;
use crate::lock::Rule;
use crate::prepare::{Wanted, prepare, prepare_streams};
use crate::program::{Facts, Program, VERSION};
use crate::streams::{self, Streams};
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
    wanted: Wanted<'_>,
    directory: Option<&Path>,
    progress: impl FnMut(u64),
) -> Result<Kept, ReplayError> {
    let name = name(reader, wanted, VERSION);
    kept(
        name,
        directory,
        |path| Program::open(path).is_ok(),
        |file, path| prepare(reader, wanted, file, path, progress),
    )
}

/// The streams of a process, for real threads that are at most `window` operations apart: found, or made.
///
/// # Errors
/// As [`prepare_streams`].
pub fn streams(
    reader: &TraceReader,
    wanted: Wanted<'_>,
    window: u64,
    directory: Option<&Path>,
    progress: impl FnMut(u64),
) -> Result<Kept, ReplayError> {
    let made_from = ("streams", streams::VERSION, window);
    kept(
        name(reader, wanted, made_from),
        directory,
        |path| Streams::open(path).is_ok(),
        |file, path| prepare_streams(reader, wanted, window, file, path, progress),
    )
}

/// A file that is whole, or that is made.
fn kept(
    name: Option<String>,
    directory: Option<&Path>,
    is_whole: impl Fn(&Path) -> bool,
    write: impl FnOnce(File, &Path) -> Result<Facts, ReplayError>,
) -> Result<Kept, ReplayError> {
    let directory =
        directory.filter(|directory| name.is_some() && fs::create_dir_all(directory).is_ok());
    let Some(directory) = directory else {
        let place = std::env::temp_dir();
        let temporary = make(&place, write)?;
        return Ok(Kept {
            path: PathBuf::new(),
            temporary: Some(temporary),
            found: false,
        });
    };
    let path = directory.join(name.unwrap_or_default());
    let is_there = is_whole(&path);
    if is_there {
        let now = |file: File| file.set_modified(SystemTime::now());
        let _ = File::options().append(true).open(&path).and_then(now);
    } else {
        let temporary = make(directory, write)?;
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
    directory: &Path,
    write: impl FnOnce(File, &Path) -> Result<Facts, ReplayError>,
) -> Result<tempfile::TempPath, ReplayError> {
    let file = tempfile::Builder::new()
        .prefix("making-")
        .suffix(".rmreplay")
        .tempfile_in(directory)
        .map_err(|source| of_file(directory, source))?;
    let (file, path) = file.into_parts();
    write(file, &path)?;
    Ok(path)
}

/// A name made from what a program depends on, if all of it can be told.
fn name(reader: &TraceReader, wanted: Wanted<'_>, made_from: impl Hash) -> Option<String> {
    let mut hasher = DefaultHasher::new();
    (made_from, wanted.process, wanted.lock_ns).hash(&mut hasher);
    let accesses = match wanted.rule {
        None => None,
        Some(Rule::Score) => {
            "score".hash(&mut hasher);
            None
        }
        Some(Rule::Old(millionths)) => {
            ("old", millionths).hash(&mut hasher);
            None
        }
        Some(Rule::Accesses(path)) => Some(path),
    };
    for path in reader.paths().chain(accesses) {
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
