//! Starting, stopping and marking a recording from outside: a socket in the pool directory, a line as
//! the request, a line of JSON as the answer, one request for each connection.
//!
//! Whoever may open the socket may do anything, but not harm: a request has 256 bytes and one second,
//! and a thread of its own serves one after the other.

use super::run::Run;
use super::{Status, sys};
use rmtrace_format::chunk::Triple;
use rmtrace_format::record::{MARK_RUN, MARK_START, MARK_STOP, NAME_BYTES_MAX};
use rmtrace_format::spool::{POOL_NAME, SOCKET_NAME};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const REQUEST_BYTES_MAX: usize = 256;
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Longest that a request may take to come.
const REQUEST_TIME: Duration = Duration::from_secs(1);
/// Longest that an answer may take to come.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What is asked of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start it again.
    Start,
    /// Stop it: calls from now on are not recorded.
    Stop,
    /// Set a mark with this name.
    Mark(String),
    /// Tell how far it is.
    Status,
}

impl Request {
    fn to_line(&self) -> String {
        match self {
            Request::Start => "start\n".to_owned(),
            Request::Stop => "stop\n".to_owned(),
            Request::Mark(name) => format!("mark {name}\n"),
            Request::Status => "status\n".to_owned(),
        }
    }

    fn parse(line: &[u8]) -> Option<Request> {
        let line = std::str::from_utf8(line).ok()?;
        match line.split_once(' ') {
            None if line == "start" => Some(Request::Start),
            None if line == "stop" => Some(Request::Stop),
            None if line == "status" => Some(Request::Status),
            Some(("mark", name)) if is_name(name) => Some(Request::Mark(name.to_owned())),
            _ => None,
        }
    }
}

/// Whether a mark may have this name.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
}

/// How far a recording is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Answer {
    /// Whether calls are not recorded at the moment.
    pub paused: bool,
    /// Times it has been paused.
    pub pauses: u32,
    /// Calls in the trace file so far.
    pub events: u64,
    /// Processes seen.
    pub processes: u32,
    /// Calls dropped.
    pub dropped: u64,
    /// Bytes of the trace file.
    pub bytes: u64,
    /// Since the recording began.
    pub seconds: f64,
    /// Whether the request changed something.
    pub changed: bool,
    /// Why it did not do what was asked for.
    pub error: Option<String>,
}

/// A mark that was asked for, and when.
#[derive(Debug)]
pub(super) struct Asked {
    pub at: Triple,
    pub number: u64,
    pub name: String,
}

impl Status {
    pub(super) fn ask(&self, at: Triple, number: u64, name: &str) {
        if let Ok(mut asked) = self.asked.lock() {
            asked.push(Asked {
                at,
                number,
                name: name.to_owned(),
            });
        }
    }
}

/// Stops or starts recording; whether that changed anything. Calls that are missing because of a pause
/// come after its mark, and those that are there again after the mark of its end.
pub(super) fn set_paused(run: &Run, status: &Status, paused: bool, at: Triple) -> bool {
    if status.paused.swap(paused, Relaxed) == paused {
        return false;
    }
    match paused {
        true => {
            status.pauses.fetch_add(1, Relaxed);
            status.ask(at, MARK_STOP, "stop");
        }
        false => status.ask(at, MARK_START, "start"),
    }
    run.set_paused(paused);
    true
}

/// A directory as a short path: those of sockets are limited to 107 bytes.
fn socket_in(directory: &Path) -> io::Result<(File, PathBuf)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", file.as_raw_fd());
    Ok((file, path.into()))
}

/// The listening side.
pub(super) struct Server {
    listener: Arc<UnixListener>,
    status: Arc<Status>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Makes the socket and begins to answer.
    pub fn start(run: Arc<Run>, status: Arc<Status>) -> io::Result<Server> {
        let (_directory, path) = socket_in(&run.pool)?;
        let listener = UnixListener::bind(path)?;
        // The directory is closed to others meanwhile.
        let permissions = Permissions::from_mode(0o600);
        std::fs::set_permissions(run.pool.join(SOCKET_NAME), permissions)?;
        let listener = Arc::new(listener);
        status.answering.store(true, Release);
        let thread = {
            let (listener, status) = (listener.clone(), status.clone());
            std::thread::spawn(move || serve(&listener, &run, &status))
        };
        Ok(Server {
            listener,
            status,
            thread,
        })
    }

    /// Answers nothing any more.
    pub fn stop(self) {
        self.status.answering.store(false, Release);
        sys::shut_down(&self.listener);
        let _ = self.thread.join();
    }
}

fn serve(listener: &UnixListener, run: &Run, status: &Status) {
    let began = Instant::now();
    while status.answering.load(Acquire) {
        match listener.accept() {
            // A client that goes away has no answer, and nobody to be told.
            Ok((stream, _)) => drop(answer(stream, run, status, began)),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Reads one line; `None` if it is too long, does not come, or the recording ends.
fn read_line(stream: &mut UnixStream, status: &Status) -> io::Result<Option<Vec<u8>>> {
    let end = Instant::now() + REQUEST_TIME;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut line = Vec::new();
    let mut piece = [0; REQUEST_BYTES_MAX];
    while status.answering.load(Acquire) && Instant::now() < end {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(read) => line.extend_from_slice(&piece[..read]),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => continue,
                _ => return Err(error),
            },
        }
        if let Some(length) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(length);
            return Ok(Some(line));
        }
        if line.len() >= REQUEST_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(None)
}

fn answer(mut stream: UnixStream, run: &Run, status: &Status, began: Instant) -> io::Result<()> {
    let request = read_line(&mut stream, status)?;
    let at = sys::triple();
    let mut error = None;
    let changed = match request.as_deref().and_then(Request::parse) {
        Some(Request::Start | Request::Mark(_)) if status.limited.load(Acquire) => {
            error = Some(
                "the trace is as long as --limit allows: nothing is recorded any more".to_owned(),
            );
            false
        }
        Some(Request::Start) => set_paused(run, status, false, at),
        Some(Request::Stop) => set_paused(run, status, true, at),
        Some(Request::Mark(name)) if !status.failed.load(Acquire) => {
            status.ask(at, MARK_RUN, &name);
            true
        }
        Some(Request::Mark(_)) => {
            error = Some("writing the trace failed: there is no place for a mark".to_owned());
            false
        }
        Some(Request::Status) => false,
        None => {
            error = Some("not a request that this version knows".to_owned());
            false
        }
    };
    let answer = Answer {
        paused: status.paused.load(Relaxed),
        pauses: status.pauses.load(Relaxed),
        events: status.calls.load(Relaxed),
        processes: status.processes.load(Relaxed),
        dropped: status.dropped.load(Relaxed),
        bytes: status.bytes.load(Relaxed),
        seconds: (began.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        changed,
        error,
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    stream.write_all(&line)
}

/// Why a recording can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no such directory.
    #[error("{run}: there is no such run: nothing is being recorded there")]
    NoRun {
        /// The run directory.
        run: PathBuf,
    },
    /// A run without a socket.
    #[error(
        "{run}: no collector: it was recorded with LD_PRELOAD alone, which can't be started and \
         stopped; use `rmtrace record`"
    )]
    NoSocket {
        /// The run directory.
        run: PathBuf,
    },
    /// Nobody listens.
    #[error(
        "{run}: its collector is gone: nothing is being recorded there; `rmtrace pack {run} -o FILE` \
         recovers what it holds"
    )]
    Gone {
        /// The run directory.
        run: PathBuf,
    },
    /// Anything else.
    #[error("{run}: its collector does not answer")]
    Failed {
        /// The run directory.
        run: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said no.
    #[error("{run}: {error}")]
    Refused {
        /// The run directory.
        run: PathBuf,
        /// Its words.
        error: String,
    },
}

fn connect(run: &Path) -> Result<UnixStream, AskError> {
    let owned = run.to_owned();
    let (directory, path) = match socket_in(&run.join(POOL_NAME)) {
        Ok(found) => found,
        Err(_) => return Err(AskError::NoRun { run: owned }),
    };
    let connected = UnixStream::connect(path);
    drop(directory);
    connected.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AskError::NoSocket { run: owned },
        io::ErrorKind::ConnectionRefused => AskError::Gone { run: owned },
        _ => AskError::Failed { run: owned, source },
    })
}

/// Whether the run has a collector that listens.
pub fn is_live(run: &Path) -> bool {
    connect(run).is_ok()
}

/// Asks the collector of a run.
///
/// # Errors
/// When it has none, or that does not answer, or did not do what was asked for.
pub fn ask(run: &Path, request: &Request) -> Result<Answer, AskError> {
    let mut stream = connect(run)?;
    let mut exchange = || -> io::Result<Answer> {
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        stream.set_write_timeout(Some(ANSWER_TIME))?;
        stream.write_all(request.to_line().as_bytes())?;
        let mut line = String::new();
        (&stream).take(ANSWER_BYTES_MAX).read_to_string(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    let run = run.to_owned();
    match exchange() {
        Ok(Answer {
            error: Some(error), ..
        }) => Err(AskError::Refused { run, error }),
        Ok(answer) => Ok(answer),
        Err(source) => Err(AskError::Failed { run, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip_and_nothing_else_is_one() {
        let name = "a tab is closed";
        for request in [
            Request::Start,
            Request::Stop,
            Request::Status,
            Request::Mark(name.to_owned()),
        ] {
            let line = request.to_line();
            let parsed = Request::parse(line.trim_end_matches('\n').as_bytes());
            assert_eq!(parsed, Some(request));
        }
        let long = format!("mark {}", "x".repeat(64));
        for line in ["", "star", "start ", "mark", "mark ", "mark a\tb", &long] {
            assert_eq!(Request::parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(Request::parse(b"mark \xff"), None);
    }
}
