//! The run directory of a recording: making it, its control file and journal, and taking it away.

use super::{CollectError, Options, sys};
use memmap2::MmapRaw;
use rmtrace_file::gather::journal::Entry;
use rmtrace_file::gather::run_dir::JOURNAL_NAME;
use rmtrace_format::spool::{
    CHUNKS_NAME, COLLECTOR_GONE_OFFSET, COLLECTOR_LOCK_OFFSET, CONTROL_BYTES, CONTROL_MAGIC,
    CONTROL_NAME, Control, FLAG_CALLERS, FLAG_USABLE, POOL_NAME, VERSION,
};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// The run directory while it is recorded into.
pub struct Run {
    /// The directory.
    pub path: PathBuf,
    /// The pool directory.
    pub pool: PathBuf,
    /// Whether the pool is on a memory file system.
    pub pool_in_memory: bool,
    control: MmapRaw,
    journal: File,
    /// The file that processes append to.
    pub chunks: File,
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn make_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Directories in memory where a pool may be made, the best first.
fn memory_places() -> impl Iterator<Item = PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    [Some(PathBuf::from("/dev/shm")), runtime]
        .into_iter()
        .flatten()
        .filter(|path| path.is_absolute())
}

/// Room that a memory file system must have for a pool to be put there.
const ROOM_BYTES_MIN: u64 = 16 << 20;

impl Run {
    /// Makes the run directory beside the output.
    pub fn make(path: &Path, options: &Options) -> Result<Run, CollectError> {
        let error = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| CollectError::Make { path, what, source }
        };
        make_dir(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => CollectError::Unfinished {
                path: path.to_owned(),
            },
            _ => error("the run directory can't be made", path)(source),
        })?;
        // Whatever was made is taken away again if something fails.
        let made = Self::fill(path, options);
        if made.is_err() {
            let _ = std::fs::remove_dir_all(path);
        }
        made
    }

    fn fill(path: &Path, options: &Options) -> Result<Run, CollectError> {
        let failed = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| CollectError::Make { path, what, source }
        };
        // Processes find it through their environment: it must not depend on where they are.
        let path = &std::fs::canonicalize(path)
            .map_err(failed("the run directory can't be found", path))?;
        let (pool, pool_in_memory) = Self::make_pool(path)?;
        let control_path = pool.join(CONTROL_NAME);
        let file = make_file(&control_path)
            .and_then(|file| {
                // Written, not only made longer: a full memory file system must show here.
                (&file).write_all(&[0; CONTROL_BYTES])?;
                Ok(file)
            })
            .map_err(failed("the control file can't be made", &control_path))?;
        let control = MmapRaw::map_raw(&file)
            .map_err(failed("the control file can't be mapped", &control_path))?;
        let journal_path = path.join(JOURNAL_NAME);
        let journal =
            make_file(&journal_path).map_err(failed("the journal can't be made", &journal_path))?;
        let chunks_path = path.join(CHUNKS_NAME);
        let chunks = make_file(&chunks_path)
            .map_err(failed("the file for chunks can't be made", &chunks_path))?;
        let run = Run {
            path: path.to_owned(),
            pool,
            pool_in_memory,
            control,
            journal,
            chunks,
        };
        let control = run.control();
        control.version.store(VERSION, Relaxed);
        let mut flags = 0;
        if options.callers {
            flags |= FLAG_CALLERS;
        }
        if options.usable {
            flags |= FLAG_USABLE;
        }
        control.flags.store(flags, Relaxed);
        control.pool_bytes.store(options.pool_bytes, Relaxed);
        control.limit_bytes.store(options.limit_bytes, Relaxed);
        control.wait_ns.store(options.wait_ns, Relaxed);
        run.beat();
        run.set_paused(options.paused);
        control.magic.store(CONTROL_MAGIC, Release);
        Ok(run)
    }

    /// The pool directory: in memory with a link to it, else in the run directory itself.
    fn make_pool(path: &Path) -> Result<(PathBuf, bool), CollectError> {
        let link = path.join(POOL_NAME);
        for place in memory_places() {
            let pool = place.join(format!("rmtrace-{:016x}", sys::random()));
            if sys::free_bytes(&place).is_none_or(|free| free < ROOM_BYTES_MIN)
                || make_dir(&pool).is_err()
            {
                continue;
            }
            if symlink(&pool, &link).is_ok() {
                return Ok((pool, true));
            }
            let _ = std::fs::remove_dir(&pool);
        }
        make_dir(&link).map_err(|source| CollectError::Make {
            path: link.clone(),
            what: "the pool can't be made",
            source,
        })?;
        Ok((link, false))
    }

    fn control(&self) -> &Control {
        // SAFETY: the mapping is `CONTROL_BYTES` long, page-aligned, made of atomics, and lives as
        // long as `self`.
        unsafe { &*(self.control.as_ptr() as *const Control) }
    }

    /// A sign of life.
    pub fn beat(&self) {
        let now = sys::monotonic_ns();
        self.control().collector_ns.0.store(now, Relaxed);
    }

    /// The calling thread holds the robust lock until it or the process ends, however that happens: so
    /// threads learn at once that there is no collector any more.
    pub fn hold(&self) {
        // SAFETY: the lock lies in the control page, aligned, within its bytes, and nobody else makes or
        // takes it; all-zero attributes are valid values to be initialised.
        unsafe {
            let lock = self.control.as_mut_ptr().add(COLLECTOR_LOCK_OFFSET);
            let lock = lock.cast::<libc::pthread_mutex_t>();
            let mut attributes: libc::pthread_mutexattr_t = std::mem::zeroed();
            if libc::pthread_mutexattr_init(&mut attributes) != 0 {
                return;
            }
            libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST);
            if libc::pthread_mutex_init(lock, &attributes) == 0 {
                libc::pthread_mutex_lock(lock);
            }
            libc::pthread_mutexattr_destroy(&mut attributes);
        }
    }

    /// No chunk will be read or given back any more.
    pub fn gone(&self) {
        self.retire();
        // SAFETY: a word of the control page, aligned.
        let gone = unsafe {
            &*self
                .control
                .as_ptr()
                .add(COLLECTOR_GONE_OFFSET)
                .cast::<AtomicU32>()
        };
        gone.store(1, Release);
    }

    /// Stops or starts recording in all processes.
    pub fn set_paused(&self, paused: bool) {
        let word = u32::from(paused);
        self.control().paused.0.store(word, Relaxed);
    }

    /// No more signs of life: threads append for themselves from now on.
    pub fn retire(&self) {
        self.control().collector_ns.0.store(0, Relaxed);
    }

    /// Nothing is recorded any more, though processes run on: what they hand over has no place left
    /// to go to.
    pub fn close_gates(&self) {
        let control = self.control();
        control.wait_ns.store(0, Relaxed);
        control.limit_bytes.store(0, Relaxed);
        // Processes compare the file's length with the limit that they read at their start. A hole
        // costs nothing.
        let _ = self
            .chunks
            .set_len(1 << 62)
            .or_else(|_| self.chunks.set_len(1 << 43));
        self.retire();
    }

    /// Appends entries to the journal.
    pub fn write_journal(&self, entries: &[Entry]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(entries.len() * 128);
        for entry in entries {
            bytes.extend_from_slice(&entry.to_bytes());
        }
        (&self.journal).write_all(&bytes)
    }

    /// Takes the run directory and the pool away.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.path)
    }
}

/// Takes a run directory and its pool away. Only what a run is made of is removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let link = path.join(POOL_NAME);
    if link.is_symlink() {
        let pool = std::fs::read_link(&link)?;
        // A link that names something else stays out of it.
        let ours = pool.is_absolute()
            && pool
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("rmtrace-"));
        if ours && pool.is_dir() {
            std::fs::remove_dir_all(&pool)?;
        }
        std::fs::remove_file(&link)?;
    }
    std::fs::remove_dir_all(path)
}
