//! The live collector of `rmtrace record`: drain -> encoders -> writer.
//!
//! ```text
//! traced threads -> chunks in spools -> [drain] -> windows -> [encoders] -> frames -> [writer] -> FILE
//!                        ^------------ given back when their frame is written ------------'
//! ```
//!
//! Memory is bounded: besides the index (about 50 bytes for each thread in each frame) there are at
//! most, with e encoders, 2 e + 1 windows (each encoder's own, one waiting for it, and the one that
//! the drain makes), 3 e frames, and 16 empty vectors kept for the next windows. A window is meant to
//! hold 96 Ki calls of 72 bytes, 7 MiB; one encoder serves up to three processors, two serve more.
//! What is not yet taken stays in the spools, which do not grow.

pub mod ctl;
mod drain;
mod member;
mod output;
mod pipeline;
mod procfs;
mod run;
mod spool;
pub mod sys;

use drain::Drain;
use output::Output;
pub use output::Space;
use pipeline::Pipeline;
use rmtrace_file::gather::clock::Clock;
use rmtrace_file::gather::journal::Entry;
use rmtrace_file::gather::pack::machine;
use rmtrace_file::{RunInfo, TICK_NS_DEFAULT, WriteError};
use rmtrace_format::spool::SOCKET_NAME;
use run::Run;
pub use run::remove;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What to record and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The trace file.
    pub output: PathBuf,
    /// Bytes of chunks that a program image may use.
    pub pool_bytes: u64,
    /// Bytes that `chunks` may reach if the collector dies.
    pub limit_bytes: u64,
    /// Longest wait for the collector at one call; 0: drop at once.
    pub wait_ns: u64,
    /// Record callers.
    pub callers: bool,
    /// Record usable sizes.
    pub usable: bool,
    /// Leave out command lines, paths and the date.
    pub anonymous: bool,
    /// Record nothing until [`ctl`] starts it.
    pub paused: bool,
    /// How long the trace may get.
    pub space: Space,
    /// The command.
    pub command: Vec<String>,
}

/// Why recording can't begin or end.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Something can't be made.
    #[error("{path}: {what}")]
    Make {
        /// What.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A recording into the same file did not end.
    #[error(
        "{path} is here: an earlier recording did not end, or still runs; `rmtrace pack` recovers \
         what it holds, or give another file with -o"
    )]
    Unfinished {
        /// Its run directory.
        path: PathBuf,
    },
    /// The trace can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What the threads tell each other, and who watches.
#[derive(Debug, Default)]
pub struct Status {
    /// Calls in the file.
    pub calls: AtomicU64,
    /// Bytes of the trace's files.
    pub bytes: AtomicU64,
    /// Most bytes that ending the trace will add; known where its size is limited.
    pub reserved: AtomicU64,
    /// Files that the trace has, where its size is limited.
    pub files: AtomicU32,
    /// Files that were removed.
    pub files_removed: AtomicU32,
    /// Calls in files that were removed.
    pub calls_removed: AtomicU64,
    /// The trace is as long as it may get: nothing is recorded any more.
    pub limited: AtomicBool,
    /// Processes seen.
    pub processes: AtomicU32,
    /// Calls that ended processes dropped.
    pub dropped: AtomicU64,
    /// Times that threads waited for the collector, and nanoseconds; known at the end.
    pub waits: [AtomicU64; 2],
    /// Spools that processes still have.
    pub spools: AtomicU32,
    /// Times that all spools were looked at.
    pub rounds: AtomicU64,
    /// Writing failed: nothing is taken any more.
    pub failed: AtomicBool,
    /// Whether a process was hooked; known at the end.
    pub hooked: AtomicBool,
    /// Whether recording is paused.
    pub paused: AtomicBool,
    /// Times it has been.
    pub pauses: AtomicU32,
    answering: AtomicBool,
    asked: Mutex<Vec<ctl::Asked>>,
    items_written: AtomicU64,
    stop: AtomicBool,
    hurry: AtomicBool,
    beat: AtomicBool,
    childless: AtomicBool,
    ended: Mutex<Vec<(u32, i32)>>,
    notes: Mutex<Vec<String>>,
}

/// How a recording ended.
#[derive(Debug)]
pub struct Summary {
    /// Calls in the trace.
    pub calls: u64,
    /// Its bytes, of all files.
    pub bytes: u64,
    /// Its files.
    pub files: u32,
    /// The oldest files, which were removed to make room.
    pub files_removed: u32,
    /// Whether it ended because it was as long as it may get.
    pub limited: bool,
    /// Processes.
    pub processes: u32,
    /// Calls not recorded.
    pub dropped: u64,
    /// Times that threads waited for the collector, and nanoseconds in all.
    pub waits: (u64, u64),
    /// Whether any allocation function was hooked.
    pub hooked: bool,
    /// Whether the pool was in memory.
    pub pool_in_memory: bool,
    /// Whether recording was paused when it ended.
    pub paused: bool,
}

/// A recording in progress.
pub struct Collector {
    run: Arc<Run>,
    status: Arc<Status>,
    drain: JoinHandle<Pipeline>,
    heart: JoinHandle<()>,
    server: Option<ctl::Server>,
    output: PathBuf,
}

/// Where a recording into `output` keeps its run directory.
pub fn run_path(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".rmspool");
    name.into()
}

/// The trace file: readable by its owner alone. A link is not followed, as whoever planted it would
/// choose what is overwritten; another's file is not written to, as its owner could read it.
fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => {
                io::Error::other("it is a symbolic link; give the file that it names, or remove it")
            }
            _ => error,
        })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.uid() != sys::user() {
        return Err(io::Error::other("it is another user's file"));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    Ok(file)
}

impl Collector {
    /// Makes the run directory and the trace file and starts to look for processes.
    ///
    /// # Errors
    /// When one of them can't be made; then none is left behind.
    pub fn start(options: &Options) -> Result<Collector, CollectError> {
        let run = Arc::new(Run::make(&run_path(&options.output), options)?);
        let started = Self::start_in(run.clone(), options);
        if started.is_err() {
            let _ = run.remove();
        }
        started
    }

    fn start_in(run: Arc<Run>, options: &Options) -> Result<Collector, CollectError> {
        let make_error = |what: &'static str| {
            let path = options.output.clone();
            move |source| CollectError::Make { path, what, source }
        };
        let file = create(&options.output).map_err(make_error("can't be made"))?;
        let first = sys::triple();
        let mut clock = Clock::new(first.monotonic_ns, TICK_NS_DEFAULT);
        clock.push(&first, 0);
        // The second reading gives the slope.
        std::thread::sleep(Duration::from_millis(2));
        let second = sys::triple();
        clock.push(&second, 0);
        let begin = Entry::Begin {
            tick_ns: clock.tick_ns(),
            origin_ns: clock.origin_ns(),
            tsc_hz: 0,
        };
        run.write_journal(&[begin, Entry::Clock(first), Entry::Clock(second)])
            .map_err(make_error("the journal can't be written"))?;
        let anonymous = options.anonymous;
        let mut info = RunInfo {
            command: if anonymous {
                Vec::new()
            } else {
                options.command.clone()
            },
            realtime_ns: match anonymous {
                true => 0,
                false => sys::realtime_ns()
                    .saturating_sub(second.monotonic_ns.saturating_sub(first.monotonic_ns)),
            },
            writer: concat!("rmtrace ", env!("CARGO_PKG_VERSION")).to_owned(),
            machine: machine(),
            collected: true,
            ..RunInfo::default()
        };
        if !run.pool_in_memory {
            info.notes.push(
                "no memory file system had room for the pool: it was on disk, which slows the \
                 program down"
                    .to_owned(),
            );
        }
        let status = Arc::new(Status::default());
        let space = options.space;
        let output = Output::new(&options.output, file, info.clone(), clock.tick_ns(), space)?;
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let encoders = if cores > 3 { 2 } else { 1 };
        let buffers = Arc::default();
        let pipeline = Pipeline::start(output, encoders, status.clone(), &buffers);
        let drain = Drain::new(
            run.clone(),
            status.clone(),
            pipeline,
            clock,
            buffers,
            options.pool_bytes,
            anonymous,
            options.space.stop_bytes(),
        );
        if options.paused {
            ctl::set_paused(&run, &status, true, first);
        }
        let server = match ctl::Server::start(run.clone(), status.clone()) {
            Ok(server) => Some(server),
            // Without it a paused recording could never be started.
            Err(source) if options.paused => {
                return Err(CollectError::Make {
                    path: run.pool.join(SOCKET_NAME),
                    what: "the socket for `rmtrace ctl` can't be made",
                    source,
                });
            }
            Err(_) => None,
        };
        let drain = std::thread::spawn(move || drain.work(info));
        status.beat.store(true, Release);
        let heart = {
            let (run, status) = (run.clone(), status.clone());
            std::thread::spawn(move || {
                run.hold();
                while status.beat.load(Acquire) {
                    // This thread holds the lock until the drain has ended.
                    match status.failed.load(Acquire) {
                        true => run.retire(),
                        false => run.beat(),
                    }
                    std::thread::park_timeout(Duration::from_millis(50));
                }
            })
        };
        Ok(Collector {
            run,
            status,
            drain,
            heart,
            server,
            output: options.output.clone(),
        })
    }

    /// The run directory: what processes must be told.
    pub fn run_dir(&self) -> &Path {
        &self.run.path
    }

    /// The pool directory.
    pub fn pool_dir(&self) -> &Path {
        &self.run.pool
    }

    /// How far it is.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Says that a child ended with this wait status.
    pub fn ended(&self, pid: u32, status: i32) {
        if let Ok(mut ended) = self.status.ended.lock() {
            ended.push((pid, status));
        }
    }

    /// Adds a note to the trace.
    pub fn note(&self, note: String) {
        if let Ok(mut notes) = self.status.notes.lock() {
            notes.push(note);
        }
    }

    /// Says whether there are children left, where that is known.
    pub fn childless(&self, childless: bool) {
        self.status.childless.store(childless, Relaxed);
    }

    /// The command has ended: look more often.
    pub fn hurry(&self) {
        self.status.hurry.store(true, Relaxed);
    }

    /// Waits until all spools were looked at after this call began, or writing failed; then says
    /// whether processes have any.
    pub fn has_processes(&self) -> bool {
        let from = self.status.rounds.load(Relaxed);
        // The round that was going on may have missed something.
        while self.status.rounds.load(Relaxed) < from + 2 {
            if self.status.failed.load(Acquire) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.status.spools.load(Relaxed) > 0
    }

    /// Ends the recording and completes the trace, also if processes go on. The run directory is gone
    /// then; it stays if the trace could not be completed.
    ///
    /// # Errors
    /// When the trace could not be written. What it lacks is in the run directory.
    pub fn finish(self) -> Result<Summary, CollectError> {
        // First: what is asked for from here on would be lost.
        if let Some(server) = self.server {
            server.stop();
        }
        self.status.stop.store(true, Release);
        let drain = self.drain.join();
        let bytes = match drain {
            Ok(pipeline) => pipeline.join(),
            Err(_) => Err(WriteError::Write {
                offset: 0,
                source: io::Error::other("the drain ended"),
            }),
        };
        self.status.beat.store(false, Release);
        self.heart.thread().unpark();
        let _ = self.heart.join();
        self.run.retire();
        let bytes = bytes?;
        let _ = self.run.remove();
        let _ = &self.output;
        Ok(Summary {
            calls: self.status.calls.load(Relaxed) - self.status.calls_removed.load(Relaxed),
            bytes,
            files: self.status.files.load(Relaxed).max(1),
            files_removed: self.status.files_removed.load(Relaxed),
            limited: self.status.limited.load(Relaxed),
            processes: self.status.processes.load(Relaxed),
            dropped: self.status.dropped.load(Relaxed),
            waits: {
                let [times, ns] = &self.status.waits;
                (times.load(Relaxed), ns.load(Relaxed))
            },
            hooked: self.status.hooked.load(Relaxed),
            pool_in_memory: self.run.pool_in_memory,
            paused: self.status.paused.load(Relaxed),
        })
    }
}
