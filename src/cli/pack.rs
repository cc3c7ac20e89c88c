//! `rmtrace pack`: what LD_PRELOAD left, or a collector that died, becomes one trace file.

use super::EXIT_DAMAGED;
use anyhow::Context;
use rmtrace::collector::remove;
use rmtrace::file::gather::lease::{self, Lease};
use rmtrace::file::gather::run_dir::JOURNAL_NAME;
use rmtrace::file::gather::{PackOptions, pack};
use rmtrace::format::spool::{POOL_NAME, SPOOL_SUFFIX};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Make one trace file of a run directory.
///
/// RUN is the directory that LD_PRELOAD=librmtrace.so left, or the one beside a trace (FILE.rmspool)
/// whose recording did not end: then FILE is continued.
#[derive(clap::Args)]
pub struct Args {
    /// Run directory (*.rmspool), or a single spool
    run: PathBuf,
    /// Trace file [default: RUN without .rmspool, with .rmt]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave command lines, paths and the date out of the trace
    #[arg(long)]
    anonymous: bool,
    /// Remove the run directory and its pool afterwards
    #[arg(long)]
    remove: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// `x.rmt.rmspool` and `x.rmspool` are `x.rmt`.
fn default_output(run: &Path) -> anyhow::Result<PathBuf> {
    let name = run.to_string_lossy();
    let name = name.trim_end_matches('/');
    let stem = name
        .strip_suffix(".rmspool")
        .context("give the trace file with -o")?;
    Ok(match stem.ends_with(".rmt") {
        true => PathBuf::from(stem),
        false => PathBuf::from(format!("{stem}.rmt")),
    })
}

/// The trace that a collector began beside its run directory.
fn begun_beside(run: &Path) -> Option<PathBuf> {
    if !run.join(JOURNAL_NAME).exists() {
        return None;
    }
    let name = run.to_string_lossy();
    let stem = name.trim_end_matches('/').strip_suffix(".rmspool")?;
    let begun = PathBuf::from(stem);
    begun.is_file().then_some(begun)
}

/// Whether a process still writes into the run.
fn is_in_use(run: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(run.join(POOL_NAME)) else {
        return false;
    };
    entries
        .flatten()
        .filter(|entry| entry.path().to_string_lossy().ends_with(SPOOL_SUFFIX))
        .filter_map(|entry| File::open(entry.path()).ok())
        .any(|file| lease::ask(&file) == Lease::InUse)
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output(&args.run)?,
    };
    let in_use = is_in_use(&args.run);
    if in_use && args.remove {
        anyhow::bail!(
            "{}: processes still write into it; pack it without --remove, or when they have ended",
            args.run.display()
        );
    }
    let options = PackOptions {
        anonymous: args.anonymous,
        begun: begun_beside(&args.run),
    };
    // The trace appears under its name when it is complete, so that a trace that is continued can be
    // replaced by its continuation.
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .with_context(|| format!("{} can't be made", part.display()))?;
    let terminal = !args.quiet && std::io::stderr().is_terminal();
    let mut drawn = Instant::now();
    let mut progress = |calls: u64| {
        if terminal && drawn.elapsed() > Duration::from_millis(250) {
            drawn = Instant::now();
            let _ = write!(std::io::stderr(), "\r\x1b[Kpacking: {calls} events");
        }
    };
    let packed = pack(&args.run, file, &options, &mut progress);
    if terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let (file, report) = match packed {
        Ok(packed) => packed,
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            return Err(error.into());
        }
    };
    let bytes = file.metadata().map_or(0, |m| m.len());
    // --remove takes the only other copy away.
    if args.remove {
        file.sync_all()
            .with_context(|| format!("{} can't be made safe", part.display()))?;
    }
    std::fs::rename(&part, &output)
        .with_context(|| format!("{} can't be renamed", part.display()))?;
    if args.remove {
        remove(&args.run).with_context(|| format!("{} can't be removed", args.run.display()))?;
    }
    if !args.quiet {
        let continued = match report.calls_begun {
            0 => String::new(),
            n => format!(" ({n} of them from the trace that was begun)"),
        };
        eprintln!(
            "rmtrace: {}: {} events{continued} of {} process{}, {:.2} bytes per event, {} dropped",
            output.display(),
            report.calls,
            report.processes,
            if report.processes == 1 { "" } else { "es" },
            bytes as f64 / report.calls.max(1) as f64,
            report.dropped
        );
        for note in &report.notes {
            eprintln!("rmtrace: note: {note}");
        }
    }
    Ok(match report.missing {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_DAMAGED),
    })
}

#[cfg(test)]
mod tests {
    use super::default_output;
    use std::path::Path;

    #[test]
    fn outputs_are_named_after_runs() {
        let of = |run: &str| default_output(Path::new(run)).ok();
        assert_eq!(of("a/x.rmspool/").as_deref(), Some(Path::new("a/x.rmt")));
        assert_eq!(of("x.rmt.rmspool").as_deref(), Some(Path::new("x.rmt")));
        assert_eq!(of("x"), None);
    }
}
