//! `rmtrace record`: runs a command and records it.

use super::bytes::bytes as number_of_bytes;
use super::descendants::Descendants;
use super::program::{self, Unrecordable};
use anyhow::Context;
use rmtrace::collector::sys::{self, Reaped};
use rmtrace::collector::{Collector, Options, Space, Summary};
use rmtrace::format::spool::{LIMIT_BYTES_DEFAULT, SLAB_BYTES, WAIT_NS_DEFAULT};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

/// Exit status: recording could not begin, or the trace could not be completed.
pub(super) const EXIT_OWN: u8 = 125;
/// Exit status: the command can't be executed.
pub(super) const EXIT_NOT_EXECUTABLE: u8 = 126;
/// Exit status: the command was not found.
pub(super) const EXIT_NOT_FOUND: u8 = 127;
/// Exit status: the recording was interrupted while the command ran on.
const EXIT_INTERRUPTED: u8 = 130;

/// Run a command and record what it and its descendants ask of their allocator.
///
/// The exit status is the command's; 125 if recording fails before it starts, 126 if it can't be
/// executed, 127 if it isn't found. Ctrl-C reaches the command; a second one ends the recording with
/// a complete trace while the command goes on.
#[derive(clap::Args)]
pub struct Args {
    /// Trace file [default: ./<program>-<date-time>.rmt]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Record the return address of each call
    #[arg(long)]
    callers: bool,
    /// Record the usable size of each block
    #[arg(long)]
    usable: bool,
    /// Shared memory for each program image (K, M, G and T are powers of 1024)
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pool: u64,
    /// When the pool is full: wait for the collector (at most 0.1 s a call), or drop calls at once
    #[arg(long, value_name = "ACTION", default_value = "wait")]
    on_full: OnFull,
    /// Record nothing until `rmtrace ctl start` starts it
    #[arg(long)]
    paused: bool,
    /// Bytes that the trace may have: what happens then, --keep says
    #[arg(long, value_name = "SIZE", value_parser = trace_size)]
    limit: Option<u64>,
    /// At the limit: `first` stops recording while the program runs on, `last` removes the oldest file of
    /// the trace [default: last with --rotate, else first]
    #[arg(long, value_name = "END", requires = "limit")]
    keep: Option<Keep>,
    /// Begin a new file when the trace's file has this size; those before get .1, .2 ... behind their
    /// name [default with --keep last: an eighth of the limit]
    #[arg(long, value_name = "SIZE", value_parser = trace_size)]
    rotate: Option<u64>,
    /// Leave command lines, paths and the date out of the trace
    #[arg(long)]
    anonymous: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What to do when the pool is full.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnFull {
    /// Wait a bounded time.
    Wait,
    /// Drop at once.
    Drop,
}

/// Which end of a recording that is too long to keep.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Keep {
    /// The beginning.
    First,
    /// The end.
    Last,
}

/// How long the trace may get, and in how many files.
fn space(args: &Args) -> anyhow::Result<Space> {
    const PARTS: u64 = 8;
    let keep_last = match args.keep {
        Some(keep) => keep == Keep::Last,
        None => args.limit.is_some() && args.rotate.is_some(),
    };
    let mut space = Space {
        limit_bytes: args.limit,
        keep_last,
        rotate_bytes: args.rotate,
    };
    if let (Some(limit), true) = (args.limit, keep_last) {
        let part = *space.rotate_bytes.get_or_insert(limit / PARTS);
        if part < TRACE_BYTES_MIN || part > limit / 2 {
            anyhow::bail!(
                "--limit {limit} with files of {part} bytes: to keep the last, the limit has to have room \
                 for two files of at least 1M; give a larger --limit, or a smaller --rotate"
            );
        }
    }
    Ok(space)
}

/// The smallest file: a frame of events has less than that.
const TRACE_BYTES_MIN: u64 = 1 << 20;

/// Reads the size of a trace.
fn trace_size(text: &str) -> Result<u64, String> {
    match number_of_bytes(text)? {
        n if n < TRACE_BYTES_MIN => Err("at least 1M".to_owned()),
        n => Ok(n),
    }
}

/// Reads the size of a pool.
fn size(text: &str) -> Result<u64, String> {
    match number_of_bytes(text)? {
        n if n < 4 * SLAB_BYTES as u64 => Err("at least 256K".to_owned()),
        n if n > 4 << 30 => Err("at most 4G".to_owned()),
        n => Ok(n),
    }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match record(args) {
        Ok(code) => Ok(code),
        Err(failure) => {
            eprintln!("rmtrace: {:#}", failure.error);
            Ok(ExitCode::from(failure.code))
        }
    }
}

struct Failure {
    code: u8,
    error: anyhow::Error,
}

fn own(error: impl Into<anyhow::Error>) -> Failure {
    Failure {
        code: EXIT_OWN,
        error: error.into(),
    }
}

fn record(args: Args) -> Result<ExitCode, Failure> {
    let library = find_library().map_err(own)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output(&args.command),
    };
    let options = Options {
        output: output.clone(),
        pool_bytes: args.pool,
        limit_bytes: LIMIT_BYTES_DEFAULT,
        wait_ns: match args.on_full {
            OnFull::Wait => WAIT_NS_DEFAULT,
            OnFull::Drop => 0,
        },
        callers: args.callers,
        usable: args.usable,
        anonymous: args.anonymous,
        paused: args.paused,
        space: space(&args).map_err(own)?,
        command: args
            .command
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
    };
    sys::catch_signals();
    sys::survive_truncation();
    sys::become_subreaper();
    let collector = Collector::start(&options).map_err(own)?;
    let obstacle = program::inspect_command(&args.command);
    let child = match start(&args.command, &library, &collector) {
        Ok(child) => child,
        Err(error) => {
            // Nothing was recorded: leave nothing.
            let _ = collector.finish();
            let _ = std::fs::remove_file(&output);
            let code = match error.kind() {
                io::ErrorKind::NotFound => EXIT_NOT_FOUND,
                _ => EXIT_NOT_EXECUTABLE,
            };
            let program = args.command[0].to_string_lossy().into_owned();
            return Err(Failure {
                code,
                error: anyhow::Error::new(error).context(program),
            });
        }
    };
    let mut watch = Watch::new(&collector, child.id(), args.quiet);
    watch.anonymous = args.anonymous;
    if let Some(obstacle) = obstacle {
        watch.tell_unrecordable(obstacle);
    }
    watch.until_over();
    let (status, interrupted) = (watch.status, watch.interrupted);
    watch.clear_line();
    let unrecordable = std::mem::take(&mut watch.unrecordable);
    let run_dir = collector.run_dir().to_owned();
    match collector.finish() {
        Ok(summary) => {
            if !args.quiet {
                summarize(&output, &summary);
            }
            if summary.calls == 0 && !summary.paused {
                tell_empty(&output, &summary, &unrecordable);
            } else if !args.quiet {
                tell_all(&unrecordable);
            }
        }
        Err(error) => {
            eprintln!("rmtrace: {:#}", anyhow::Error::new(error));
            eprintln!(
                "rmtrace: {} is cut short; the rest is in {}: make room and run `rmtrace pack {} -o FILE`",
                output.display(),
                run_dir.display(),
                run_dir.display()
            );
        }
    }
    Ok(match status {
        Some(status) => exit_as(status),
        None if interrupted => ExitCode::from(EXIT_INTERRUPTED),
        None => ExitCode::from(EXIT_OWN),
    })
}

/// The program's exit status becomes ours; death by a signal is repeated.
pub(super) fn exit_as(status: i32) -> ExitCode {
    let status = ExitStatus::from_raw(status);
    if let Some(signal) = status.signal() {
        sys::die_by(signal);
        return ExitCode::from(128u8.wrapping_add(signal as u8));
    }
    ExitCode::from(status.code().unwrap_or(0) as u8)
}

/// The library that is loaded into the program.
pub(super) fn find_library() -> anyhow::Result<PathBuf> {
    const NAME: &str = "librmtrace.so";
    let candidates = match std::env::var_os("RMTRACE_LIB") {
        Some(path) => vec![PathBuf::from(path)],
        None => {
            let own = std::env::current_exe().context("where rmtrace itself is")?;
            let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
            vec![
                beside.join(NAME),
                beside.join("../lib/rmtrace").join(NAME),
                beside.join("../lib").join(NAME),
            ]
        }
    };
    for candidate in &candidates {
        if candidate.is_file() {
            return Ok(candidate.canonicalize()?);
        }
    }
    let places: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
    anyhow::bail!(
        "{NAME} is not at {}; build it with `cargo build --release -p rmtrace-interpose`, or name it \
         in RMTRACE_LIB",
        places.join(", nor at ")
    )
}

/// `./<program>-<date-time>.rmt`
fn default_output(command: &[OsString]) -> PathBuf {
    let program = command.first().map(Path::new).and_then(Path::file_name);
    let mut name = program.unwrap_or(OsStr::new("program")).to_owned();
    name.push(
        jiff::Zoned::now()
            .strftime("-%Y%m%d-%H%M%S.rmt")
            .to_string(),
    );
    Path::new(".").join(name)
}

/// LD_PRELOAD is split at spaces and colons: a path with one is reached through a link.
fn preload_path(library: &Path, collector: &Collector) -> io::Result<PathBuf> {
    let splits = |path: &Path| {
        path.as_os_str()
            .as_bytes()
            .iter()
            .any(|b| matches!(b, b' ' | b':' | b'\t' | b'\n'))
    };
    if !splits(library) {
        return Ok(library.to_owned());
    }
    let link = collector.pool_dir().join("librmtrace.so");
    if !splits(&link) {
        symlink(library, &link)?;
        return Ok(link);
    }
    Err(io::Error::other(
        "the paths of librmtrace.so and of the pool both have a space or colon, which LD_PRELOAD \
         does not allow",
    ))
}

fn start(command: &[OsString], library: &Path, collector: &Collector) -> io::Result<Child> {
    let mut preload = preload_path(library, collector)?.into_os_string();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let run = |program: &OsStr, arguments: &[OsString]| {
        Command::new(program)
            .args(arguments)
            .env("LD_PRELOAD", &preload)
            .env("RMTRACE_SPOOL", collector.run_dir())
            .spawn()
    };
    let (program, arguments) = (&command[0], &command[1..]);
    match run(program, arguments) {
        // A script without an interpreter line, as execvp(3) treats it.
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
            let script = program::find_in_path(program).ok_or(error)?;
            let mut words = vec![script.into_os_string()];
            words.extend_from_slice(arguments);
            run(OsStr::new("/bin/sh"), &words)
        }
        other => other,
    }
}

/// Waits for the end of everything that is recorded, with a line of progress on the terminal.
struct Watch<'a> {
    collector: &'a Collector,
    pid: u32,
    /// Wait status of the command.
    status: Option<i32>,
    /// A second interrupt came.
    interrupted: bool,
    children: bool,
    descendants: Descendants,
    /// Programs that can't be recorded, the command's own first.
    unrecordable: Vec<Unrecordable>,
    /// Notes of the trace name no paths.
    anonymous: bool,
    terminal: bool,
    shown: bool,
    told: bool,
    failure_told: bool,
    limit_told: bool,
    quiet: bool,
    drawn: Instant,
    drawn_calls: u64,
}

impl<'a> Watch<'a> {
    fn new(collector: &'a Collector, pid: u32, quiet: bool) -> Watch<'a> {
        Watch {
            collector,
            pid,
            status: None,
            interrupted: false,
            children: true,
            descendants: Descendants::new(),
            unrecordable: Vec::new(),
            anonymous: false,
            terminal: !quiet && io::stderr().is_terminal(),
            shown: false,
            told: false,
            failure_told: false,
            limit_told: false,
            quiet,
            drawn: Instant::now(),
            drawn_calls: 0,
        }
    }

    fn until_over(&mut self) {
        let mut ended_at: Option<Instant> = None;
        // Without processes but with children left, one of those may be about to load the library.
        let mut empty_since: Option<Instant> = None;
        loop {
            self.reap();
            if sys::interrupts() >= 2 {
                self.interrupted = true;
                return;
            }
            if let Some(signal) = sys::signal_to_forward() {
                if self.status.is_some() {
                    self.interrupted = true;
                    return;
                }
                sys::send(self.pid, signal);
            }
            self.tell_failure();
            for found in self.descendants.look() {
                self.tell_unrecordable(found);
            }
            self.tell_limit();
            if self.status.is_some() {
                let since = *ended_at.get_or_insert_with(|| {
                    self.collector.hurry();
                    Instant::now()
                });
                if self.collector.has_processes() {
                    empty_since = None;
                    if since.elapsed() > Duration::from_millis(700) {
                        self.tell_waiting();
                    }
                } else {
                    self.reap();
                    let empty = *empty_since.get_or_insert_with(Instant::now);
                    if !self.children || empty.elapsed() > Duration::from_millis(500) {
                        return;
                    }
                }
            }
            self.draw();
            std::thread::sleep(Duration::from_millis(if self.status.is_some() {
                2
            } else {
                5
            }));
        }
    }

    fn reap(&mut self) {
        loop {
            match sys::reap() {
                Reaped::Ended(pid, status) => {
                    if pid == self.pid {
                        self.status = Some(status);
                    }
                    self.collector.ended(pid, status);
                }
                Reaped::Running => {
                    self.children = true;
                    self.collector.childless(false);
                    return;
                }
                Reaped::NoChildren => {
                    self.children = false;
                    self.collector.childless(true);
                    return;
                }
            }
        }
    }

    fn tell_failure(&mut self) {
        if !self.failure_told && self.collector.status().failed.load(Acquire) {
            self.failure_told = true;
            self.clear_line();
            eprintln!(
                "rmtrace: writing the trace failed; the program goes on, and what it does is kept in \
                 {} as long as there is room",
                self.collector.run_dir().display()
            );
        }
    }

    /// Names a program that can't be recorded, once.
    fn tell_unrecordable(&mut self, found: Unrecordable) {
        const NAMED: usize = 8;
        if self.unrecordable.iter().any(|known| known.is_same(&found)) {
            return;
        }
        if self.unrecordable.len() < NAMED {
            self.collector.note(match self.anonymous {
                true => format!("a program can't be recorded: {}", found.why),
                false => found.to_string(),
            });
            if !self.quiet {
                self.clear_line();
                eprintln!("rmtrace: WARNING: {found}");
            }
        }
        self.unrecordable.push(found);
    }

    fn tell_limit(&mut self) {
        if !self.limit_told && !self.quiet && self.collector.status().limited.load(Acquire) {
            self.limit_told = true;
            self.clear_line();
            eprintln!(
                "rmtrace: the trace is as long as --limit allows: recording has stopped, the program goes on"
            );
        }
    }

    fn tell_waiting(&mut self) {
        if !self.told && !self.quiet {
            self.told = true;
            self.clear_line();
            let programs = self.collector.status().spools.load(Relaxed);
            eprintln!(
                "rmtrace: the command has ended; recording goes on until {programs} more program{} it \
                 started {}. Ctrl-C twice ends the recording at once",
                if programs == 1 { "" } else { "s" },
                if programs == 1 { "has" } else { "have" },
            );
        }
    }

    fn draw(&mut self) {
        let elapsed = self.drawn.elapsed();
        if !self.terminal || elapsed < Duration::from_millis(250) {
            return;
        }
        let status = self.collector.status();
        let calls = status.calls.load(Relaxed);
        let rate = (calls - self.drawn_calls) as f64 / elapsed.as_secs_f64();
        self.drawn = Instant::now();
        self.drawn_calls = calls;
        let dropped = status.dropped.load(Relaxed);
        let line = format!(
            "{}: {} processes, {} events/s, {} events, {} written{}",
            match (status.limited.load(Relaxed), status.paused.load(Relaxed)) {
                (true, _) => "stopped at the limit",
                (_, true) => "paused",
                _ => "recording",
            },
            status.processes.load(Relaxed),
            short(rate),
            short(calls as f64),
            bytes(status.bytes.load(Relaxed)),
            match dropped {
                0 => String::new(),
                n => format!(", {} dropped", short(n as f64)),
            }
        );
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
        self.shown = true;
    }

    fn clear_line(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.shown = false;
        }
    }
}

/// A number with three digits or so.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e4 => format!("{:.0} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn bytes(number: u64) -> String {
    match number as f64 {
        n if n >= (1u64 << 30) as f64 => format!("{:.2} GiB", n / (1u64 << 30) as f64),
        n if n >= (1u64 << 20) as f64 => format!("{:.1} MiB", n / (1u64 << 20) as f64),
        n => format!("{:.0} KiB", n / 1024.0),
    }
}

/// Says at the end which programs could not be recorded: the warnings may have gone by long ago.
fn tell_all(unrecordable: &[Unrecordable]) {
    const NAMED: usize = 8;
    let names: Vec<String> = unrecordable
        .iter()
        .take(NAMED)
        .map(|found| found.path.display().to_string())
        .collect();
    match unrecordable.len() {
        0 => {}
        1 => eprintln!(
            "rmtrace: WARNING: 1 program could not be recorded: {}",
            names[0]
        ),
        n => {
            let more = if n > NAMED { " ..." } else { "" };
            let names = names.join(", ");
            eprintln!("rmtrace: WARNING: {n} programs could not be recorded: {names}{more}");
        }
    }
}

/// Says that the trace is empty, and why.
fn tell_empty(output: &Path, summary: &Summary, unrecordable: &[Unrecordable]) {
    let why = match (unrecordable.first(), summary.processes) {
        (Some(found), _) => found.to_string(),
        (None, 0) => {
            "no process loaded librmtrace.so: the program may have cleared its environment, run in a \
             container or on another machine, or change its user; record what it starts instead"
                .to_owned()
        }
        (None, _) => {
            "no allocation function was called that could be hooked: the program has an allocator of \
             its own that no symbol names (its debug symbols, in Debian a -dbgsym package, can help), \
             or it allocates nothing"
                .to_owned()
        }
    };
    let output = output.display();
    eprintln!("rmtrace: WARNING: {output}: nothing was recorded, the trace is empty: {why}");
}

fn summarize(output: &Path, summary: &Summary) {
    let per_event = match summary.calls {
        0 => 0.0,
        calls => summary.bytes as f64 / calls as f64,
    };
    eprintln!(
        "rmtrace: {}: {} events of {} process{}, {}, {per_event:.2} bytes per event, {} dropped",
        output.display(),
        summary.calls,
        summary.processes,
        if summary.processes == 1 { "" } else { "es" },
        bytes(summary.bytes),
        summary.dropped
    );
    if summary.files + summary.files_removed > 1 {
        let removed = match summary.files_removed {
            0 => String::new(),
            n => format!(", the {n} before them removed as --limit asks for"),
        };
        eprintln!(
            "rmtrace: the trace has {} file{}{removed}; every command reads them as one when it is given {}",
            summary.files,
            if summary.files == 1 { "" } else { "s" },
            output.display(),
        );
    }
    if summary.limited {
        eprintln!(
            "rmtrace: recording stopped when the trace was as long as --limit allows, what the program did \
             after that is not in it; a larger --limit, or --keep last for the end instead"
        );
    } else if summary.paused {
        eprintln!(
            "rmtrace: recording was paused when the program ended; `rmtrace ctl start` starts it"
        );
    }
    if let (times @ 1.., ns) = summary.waits {
        eprintln!(
            "rmtrace: threads waited {times} time{} for the collector, {:.3} s in all: a larger --pool or a \
             faster disk helps, --on-full drop never waits",
            if times == 1 { "" } else { "s" },
            ns as f64 / 1e9,
        );
    }
    if !summary.pool_in_memory {
        eprintln!(
            "rmtrace: the pool was on disk, as neither /dev/shm nor $XDG_RUNTIME_DIR had room: the \
             program ran slower than it would have"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("512K"), Ok(512 << 10));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("1048576"), Ok(1 << 20));
        assert!(size("1K").is_err());
        assert!(size("5G").is_err());
        assert!(size("many").is_err());
        assert!(size("").is_err());
    }
}
