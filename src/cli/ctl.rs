//! `rmtrace ctl`: starts, stops and marks a running recording.

use super::info::{counted, finish};
use anyhow::Context;
use rmtrace::collector::ctl::{Answer, Request, ask, is_live, is_name};
use rmtrace::collector::run_path;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Start, stop or mark a running recording, or ask how far it is.
///
/// Stopping and starting holds for all processes of the recording at once. Calls that are made while it
/// is stopped are not in the trace; the analysis knows, as both leave a mark.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The recording: its trace file, or the run directory beside it
    ///
    /// Without it: the recording that this command is part of (RMTRACE_SPOOL), else the only one that
    /// is running into the current directory.
    #[arg(short, long, value_name = "RUN_OR_FILE", global = true)]
    run: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

const AFTER_HELP: &str = "\
Programs can set marks themselves: rmtrace.h for C and C++, the crate rmtrace-marks for Rust.

Exit status: 0 done, 2 failed: nothing is being recorded there, or it does not answer.";

#[derive(clap::Subcommand)]
enum Action {
    /// Record calls from now on
    Start,
    /// Record no calls until it is started again
    Stop,
    /// Leave a mark in the trace, to tell what comes before from what comes after
    Mark {
        /// Its name, up to 63 bytes
        #[arg(value_parser = name)]
        name: String,
    },
    /// Say how far the recording is
    Status {
        /// One JSON object (schema 1)
        #[arg(long)]
        json: bool,
    },
}

fn name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 63 bytes and no control characters".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let run = find(args.run.as_deref())?;
    let (request, unchanged) = match &args.action {
        Action::Start => (Request::Start, "it is being recorded already"),
        Action::Stop => (Request::Stop, "it is stopped already"),
        Action::Mark { name } => (Request::Mark(name.clone()), ""),
        Action::Status { .. } => (Request::Status, ""),
    };
    let answer = ask(&run, &request)?;
    match args.action {
        Action::Status { json } => {
            let mut out = io::stdout().lock();
            finish(write_status(&mut out, &run, &answer, json))?;
        }
        _ if !answer.changed => eprintln!("rmtrace: {}: {unchanged}", run.display()),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn write_status(out: &mut impl Write, run: &Path, answer: &Answer, json: bool) -> io::Result<()> {
    if json {
        let mut value = serde_json::json!({
            "schema": 1,
            "run": run.to_string_lossy(),
            "paused": answer.paused,
            "pauses": answer.pauses,
            "events": answer.events,
            "processes": answer.processes,
            "dropped": answer.dropped,
            "bytes": answer.bytes,
        });
        value["seconds"] = answer.seconds.into();
        return writeln!(out, "{value:#}");
    }
    writeln!(
        out,
        "{}: {}, {} of {}, {} dropped, {} bytes written, {:.1} s",
        run.display(),
        if answer.paused {
            "stopped"
        } else {
            "recording"
        },
        counted(answer.events, "event"),
        counted(answer.processes.into(), "process"),
        super::info::thousands(answer.dropped),
        super::info::thousands(answer.bytes),
        answer.seconds
    )
}

/// The run directory of the recording that is meant.
fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        if path.is_dir() {
            return Ok(path.to_owned());
        }
        let run = run_path(path);
        if !run.is_dir() {
            anyhow::bail!(
                "{}: nothing is being recorded into it: there is no {}",
                path.display(),
                run.display()
            );
        }
        return Ok(run);
    }
    if let Some(run) = std::env::var_os("RMTRACE_SPOOL").filter(|run| !run.is_empty()) {
        return Ok(run.into());
    }
    let here = std::fs::read_dir(".").context("the current directory can't be listed")?;
    let mut live: Vec<PathBuf> = here
        .flatten()
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "rmspool"))
        .filter(|path| is_live(path))
        .collect();
    live.sort();
    match live.as_slice() {
        [run] => Ok(run.clone()),
        [] => anyhow::bail!(
            "nothing is being recorded into the current directory; name the trace file with -r"
        ),
        several => {
            let names: Vec<String> = several.iter().map(|p| p.display().to_string()).collect();
            anyhow::bail!(
                "several recordings run into the current directory: {}; name one with -r",
                names.join(", ")
            )
        }
    }
}
