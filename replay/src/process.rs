//! Worker processes: how one is started, and what its end means.

use crate::environment;
use crate::error::ReplayError;
use crate::spec::Spec;
use crate::task::{Outcome, Round, Task};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Lines of a worker's stderr that are shown when it fails.
const STDERR_LINES: usize = 5;

/// The command of a worker, behind another one that runs it, `prefix`.
///
/// # Errors
/// When the settings of the allocator can't be handed on.
pub(crate) fn command(
    worker: &[OsString],
    spec: &Spec,
    task: &Task,
    prefix: &[OsString],
) -> Result<Command, ReplayError> {
    let text =
        serde_json::to_string(task).map_err(|error| ReplayError::Option(error.to_string()))?;
    let _ = std::fs::remove_file(&task.outcome);
    let (first, rest) = match worker.split_first() {
        Some(command) => command,
        None => return Err(ReplayError::Option("no command for workers".to_string())),
    };
    let mut command = match prefix.split_first() {
        None => Command::new(first),
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            // `/proc/self/exe` would be the program in front.
            let worker = std::fs::read_link(first).unwrap_or(first.into());
            command.args(arguments).arg(worker);
            command
        }
    };
    command.args(rest).arg(text);
    let place = task.outcome.parent().unwrap_or(Path::new("."));
    environment::set(&mut command, spec, &task.which, place)?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Runs a worker and returns what it saw.
///
/// # Errors
/// When it can't be started, fails, or its allocator does.
pub(crate) fn outcome(
    mut command: Command,
    spec: &Spec,
    task: &Task,
) -> Result<Outcome, ReplayError> {
    let output = command.output().map_err(|source| ReplayError::File {
        path: command.get_program().into(),
        source,
    })?;
    let outcome: Option<Outcome> = std::fs::read(&task.outcome)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let name = || spec.name.clone();
    let Some(outcome) = outcome.filter(|_| output.status.success()) else {
        let status = output.status;
        let how = match status.signal() {
            Some(signal) => format!("was killed by signal {signal} ({})", signal_name(signal)),
            None => format!("ended with status {}", status.code().unwrap_or_default()),
        };
        return Err(ReplayError::Worker {
            name: name(),
            how,
            round: round_name(task.round).to_string(),
            stderr: last_lines(&output.stderr),
        });
    };
    if let Some(what) = outcome.load_error {
        return Err(ReplayError::Load {
            name: name(),
            what,
            hint: match spec.remedy.as_str() {
                "" => String::new(),
                remedy => format!("; {remedy}"),
            },
        });
    }
    if let Some(what) = outcome.fault {
        return Err(ReplayError::Allocator { name: name(), what });
    }
    if outcome.points_differing != 0 {
        let what = format!(
            "live bytes differ from the recorded ones at {} points",
            outcome.points_differing
        );
        return Err(ReplayError::Allocator { name: name(), what });
    }
    Ok(outcome)
}

fn round_name(round: Round) -> &'static str {
    match round {
        Round::Time => "a timed round",
        Round::Latency => "a round that times single operations",
        Round::Calls => "the round that counts system calls",
        Round::Setup => "the round before the clock starts",
        Round::Memory(_) => "the round that looks at memory",
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGABRT => "SIGABRT",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL: no memory left, perhaps",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        _ => "see signal(7)",
    }
}

/// The end of what a worker wrote to stderr, to be put behind a message.
pub(crate) fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = &lines[lines.len().saturating_sub(STDERR_LINES)..];
    last.iter().map(|line| format!("\n  {line}")).collect()
}
