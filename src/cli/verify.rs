//! `rmtrace verify`: is the trace what was recorded?

use super::info::{counted, finish, name_and_role, thousands};
use rmtrace::file::model::Process;
use rmtrace::file::verify::{Verification, verify};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Check a trace: checksums, sequences, the threads' own counters, order, address table.
#[derive(clap::Args)]
#[command(
    after_help = "Exit status: 0 the trace is whole and agrees with itself, 1 it does not, 2 \
                        it can't be read."
)]
pub struct Args {
    /// Trace file, or the directory that LD_PRELOAD left.
    trace: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reader = rmtrace::file::open(&args.trace)?;
    let found = verify(&reader)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let name = args.trace.display().to_string();
    let written = write(&mut out, &name, reader.processes(), &found);
    finish(written.and_then(|()| out.flush()))?;
    Ok(if found.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(super::EXIT_DAMAGED)
    })
}

fn write(
    out: &mut impl Write,
    name: &str,
    processes: &[Process],
    found: &Verification,
) -> io::Result<()> {
    let verdict = match found.problem_count {
        0 => "whole".to_string(),
        n => counted(n, "problem"),
    };
    writeln!(
        out,
        "{name}: {verdict}; {} in {}, counters of {}, address tables of {}",
        counted(found.calls, "event"),
        counted(found.frames, "frame"),
        counted(found.threads_compared, "thread"),
        counted(found.tables.len() as u64, "process"),
    )?;
    for problem in &found.problems {
        writeln!(out, "problem  {problem}")?;
    }
    let more = found.problem_count - found.problems.len() as u64;
    if more > 0 {
        writeln!(out, "problem  and {} more", thousands(more))?;
    }
    for note in &found.notes {
        writeln!(out, "note     {note}")?;
    }
    if found.ties > 0 {
        writeln!(
            out,
            "order    {} of threads at the same tick, put in order by their addresses; {} fit no order",
            counted(found.ties, "event group"),
            thousands(found.ties_unresolved),
        )?;
    }
    for (number, counts) in &found.tables {
        let at = processes.binary_search_by_key(number, |process| process.number);
        let process = at.ok().and_then(|at| processes.get(at));
        let title = process.map(name_and_role).unwrap_or_default();
        let space = if title.is_empty() { "" } else { " " };
        writeln!(
            out,
            "process {number}{space}{title}: {} inherited + {} allocated = {} freed + {} live{}",
            thousands(counts.inherited),
            thousands(counts.allocated),
            thousands(counts.freed),
            thousands(counts.live),
            match counts.live_duplicates + counts.lost_in_pause {
                0 => String::new(),
                n => format!(" + {} allocated over a live block", thousands(n)),
            }
        )?;
    }
    Ok(())
}
