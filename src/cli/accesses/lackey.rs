//! Valgrind's lackey: where it is, how it is started, and its stream.

use super::show::Running;
use anyhow::{Context, bail};
use rmtrace::accesses::Matcher;
use rmtrace::accesses::line::Lines;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Name of the tool's program.
const TOOL: &str = "lackey-amd64-linux";
/// Name of a link to the library, where its own path can't be in LD_PRELOAD.
pub const LIBRARY_LINK: &str = "librmtrace.so";
/// Bytes that are read at a time, and that the pipe holds.
const PIPE_BYTES: usize = 1 << 20;
/// Chunks that the recorder may fill: as many as a spool can have, as none is used twice.
const POOL: &str = "4G";

/// Wall and CPU time, of children that have ended.
#[derive(Clone, Copy)]
pub struct Usage {
    began: Instant,
    /// Wall time in nanoseconds.
    pub wall_ns: u64,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
}

fn children_cpu_ns() -> u64 {
    // SAFETY: an all-zero `rusage` is a valid value to be overwritten.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

impl Usage {
    /// The beginning.
    pub fn now() -> Usage {
        Usage {
            began: Instant::now(),
            wall_ns: 0,
            cpu_ns: children_cpu_ns(),
        }
    }

    /// What was used since.
    pub fn since(self) -> Usage {
        Usage {
            wall_ns: self.began.elapsed().as_nanos() as u64,
            cpu_ns: children_cpu_ns() - self.cpu_ns,
            ..self
        }
    }
}

/// An installed Valgrind.
pub struct Valgrind {
    directory: PathBuf,
    launcher: PathBuf,
}

impl Valgrind {
    /// Finds it. Its tools are started without its launcher, which would load the recorder too.
    pub fn find() -> anyhow::Result<Valgrind> {
        let launcher = super::program::find_in_path("valgrind".as_ref());
        let launcher =
            launcher.context("valgrind is not installed; Debian has it in the package valgrind")?;
        let launcher = launcher.canonicalize().unwrap_or(launcher);
        let root = launcher
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("/usr"));
        let mut directories: Vec<PathBuf> = std::env::var_os("VALGRIND_LIB")
            .map(PathBuf::from)
            .into_iter()
            .collect();
        for name in [
            "libexec/valgrind",
            "lib/valgrind",
            "lib64/valgrind",
            "lib/x86_64-linux-gnu/valgrind",
        ] {
            directories.push(root.join(name));
            directories.push(Path::new("/usr").join(name));
        }
        match directories
            .iter()
            .find(|directory| directory.join(TOOL).is_file())
        {
            Some(directory) => Ok(Valgrind {
                directory: directory.clone(),
                launcher,
            }),
            None => {
                let places: Vec<String> = directories
                    .iter()
                    .map(|place| place.display().to_string())
                    .collect();
                bail!(
                    "valgrind has no {TOOL} in {}; name its directory in VALGRIND_LIB",
                    places.join(", ")
                )
            }
        }
    }

    /// Starts a command in it, with the recorder; its run is made in `place`.
    pub fn start(
        &self,
        command: &[OsString],
        library: &Path,
        place: &Path,
    ) -> anyhow::Result<Started> {
        let (reader, writer) = std::io::pipe().context("a pipe")?;
        let fd = writer.as_raw_fd();
        // SAFETY: both change attributes of a descriptor that we have: it stays open in the program started next, and the pipe holds more
        // (less if the system does not allow it).
        unsafe {
            libc::fcntl(fd, libc::F_SETPIPE_SZ, PIPE_BYTES as libc::c_int);
            if libc::fcntl(fd, libc::F_SETFD, 0) != 0 {
                return Err(std::io::Error::last_os_error()).context("a pipe");
            }
        }
        let mut preload = preload_path(library, place)?.into_os_string();
        if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
            preload.push(":");
            preload.push(others);
        }
        let child = Command::new(self.directory.join(TOOL))
            .args([
                "--tool=lackey",
                "--trace-mem=yes",
                "--basic-counts=no",
                "--trace-sched=yes",
            ])
            .args(["--child-silent-after-fork=yes", "--run-libc-freeres=no"])
            .arg(format!("--log-fd={fd}"))
            .arg("--")
            .args(command)
            .env("VALGRIND_LIB", &self.directory)
            .env("VALGRIND_LAUNCHER", &self.launcher)
            .env("LD_PRELOAD", preload)
            .env("RMTRACE_DIR", place)
            .env("RMTRACE_POOL", POOL)
            .env("RMTRACE_LIMIT", "0")
            .env_remove("RMTRACE_SPOOL")
            .env_remove("RMTRACE_CALLERS")
            .env_remove("RMTRACE_USABLE")
            .spawn()
            .with_context(|| self.directory.join(TOOL).display().to_string())?;
        drop(OwnedFd::from(writer));
        Ok(Started { child, reader })
    }
}

/// LD_PRELOAD is split at spaces and colons: a path with one is reached through a link.
fn preload_path(library: &Path, place: &Path) -> anyhow::Result<PathBuf> {
    let splits = |path: &Path| {
        path.as_os_str()
            .as_bytes()
            .iter()
            .any(|byte| b" :\t\n".contains(byte))
    };
    if !splits(library) {
        return Ok(library.to_owned());
    }
    let link = place.join(LIBRARY_LINK);
    if splits(&link) {
        bail!(
            "the paths of librmtrace.so and of the output both have a space or colon, which LD_PRELOAD does not allow"
        );
    }
    std::os::unix::fs::symlink(library, &link).with_context(|| link.display().to_string())?;
    Ok(link)
}

/// A command that runs.
pub struct Started {
    child: Child,
    reader: PipeReader,
}

impl Started {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().context("waiting for the command")
    }

    /// Matches its stream until it ends; how many bytes it had. Processes that the command leaves behind may hold the pipe, but
    /// write nothing to it.
    pub fn read<W: Write>(
        &mut self,
        place: &Path,
        matcher: &mut Matcher<W>,
        progress: &mut Running,
    ) -> anyhow::Result<u64> {
        /// How often it is looked whether the command has ended while nothing comes.
        const PATIENCE_MS: libc::c_int = 100;
        const PIECE_BYTES: usize = PIPE_BYTES / 4;
        const PAUSE: Duration = Duration::from_millis(2);
        let mut buffer = vec![0; PIPE_BYTES];
        let mut lines = Lines::default();
        let mut bytes = 0;
        loop {
            let mut waiting = libc::pollfd {
                fd: self.reader.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one writable structure.
            let ready = unsafe { libc::poll(&mut waiting, 1, PATIENCE_MS) };
            if ready <= 0 {
                if matches!(self.child.try_wait(), Ok(Some(_))) && ready == 0 {
                    break;
                }
                continue;
            }
            let length = match self.reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("the stream of valgrind"),
            };
            // Whatever the stream says was done before, so the spool is there if it is spoken of.
            if !matcher.has_spool()
                && let Some(spool) = spool_in(place, self.child.id())
            {
                matcher.offer_spool(spool)?;
            }
            lines.feed(&buffer[..length], matcher);
            bytes += length as u64;
            if let Some(error) = matcher.error() {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return Err(error.into());
            }
            progress.show(matcher.instructions(), matcher.calls());
            if length < PIECE_BYTES {
                // Valgrind writes line by line: to be woken for each would cost more than all the rest.
                std::thread::sleep(PAUSE);
            }
        }
        lines.finish(matcher);
        Ok(bytes)
    }
}

/// The spool of a process.
fn spool_in(place: &Path, pid: u32) -> Option<File> {
    let run = super::runs_in(place).pop()?;
    let prefix = format!("{pid}-");
    let directories = [run.join("pool"), run];
    let mut entries = directories
        .iter()
        .filter_map(|directory| std::fs::read_dir(directory).ok())
        .flatten()
        .flatten();
    let spool = entries.find(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(&prefix) && name.ends_with(rmtrace::format::spool::SPOOL_SUFFIX)
    })?;
    File::open(spool.path()).ok()
}
