//! `rmtrace pack`: what LD_PRELOAD left, or a collector that died, becomes one trace file; and a trace
//! becomes a smaller one.

use super::EXIT_DAMAGED;
use anyhow::Context;
use rmtrace::collector::remove;
use rmtrace::file::gather::lease::{self, Lease};
use rmtrace::file::gather::run_dir::JOURNAL_NAME;
use rmtrace::file::gather::{PackOptions, RepackOptions, is_trace, pack, repack};
use rmtrace::format::spool::{POOL_NAME, SPOOL_SUFFIX};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Make one trace file of a run directory, or a smaller one of a trace.
///
/// RUN is the directory that LD_PRELOAD=librmtrace.so left, or the one beside a trace (FILE.rmspool)
/// whose recording did not end: then FILE is continued. With --small, --anonymous or --process it may be a trace,
/// which stays as it is.
#[derive(clap::Args)]
pub struct Args {
    /// Run directory (*.rmspool), a single spool, or a trace
    run: PathBuf,
    /// Trace file [default: RUN without .rmspool, with .rmt; of a trace X.rmt X.small.rmt]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave command lines, paths and the date out of the trace
    #[arg(long)]
    anonymous: bool,
    /// Compress for keeping: some 30 times slower, a tenth to two fifths smaller; read as fast
    #[arg(long)]
    small: bool,
    /// Of a trace only the process of this number, with those that it inherited blocks from
    #[arg(long, value_name = "P", conflicts_with = "remove")]
    process: Option<u32>,
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

/// A file that gets its name when it is complete, so that a trace that is continued can be replaced by
/// its continuation.
pub(super) struct Part {
    path: PathBuf,
}

impl Part {
    pub(super) fn of(output: &Path, ending: &str) -> Part {
        let mut path = output.as_os_str().to_owned();
        path.push(ending);
        Part { path: path.into() }
    }

    pub(super) fn create(&self) -> anyhow::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)
            .with_context(|| format!("{} can't be made", self.path.display()))
    }

    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// Gives it its name; with `safe` after it has reached the disk.
    pub(super) fn complete(&self, file: &File, output: &Path, safe: bool) -> anyhow::Result<u64> {
        if safe {
            file.sync_all()
                .with_context(|| format!("{} can't be made safe", self.path.display()))?;
        }
        let bytes = file.metadata().map_or(0, |m| m.len());
        std::fs::rename(&self.path, output)
            .with_context(|| format!("{} can't be renamed", self.path.display()))?;
        Ok(bytes)
    }
}

/// A progress line on a terminal.
fn progress(quiet: bool, doing: &'static str) -> impl FnMut(u64) {
    let terminal = !quiet && std::io::stderr().is_terminal();
    let mut drawn = Instant::now();
    move |calls| {
        if terminal && drawn.elapsed() > Duration::from_millis(250) {
            drawn = Instant::now();
            let _ = write!(std::io::stderr(), "\r\x1b[K{doing}: {calls} events");
        }
    }
}

/// Takes a progress line away.
fn clear_progress(quiet: bool) {
    if !quiet && std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

/// Writes the trace `from` to `output` with its columns compressed anew.
fn repack_file(from: &Path, output: &Path, args: &Args) -> anyhow::Result<u64> {
    let reader = rmtrace::file::open(from)?;
    if let Some(process) = args.process
        && reader.process(process).is_none()
    {
        anyhow::bail!(
            "{}: no process {process}; `rmtrace info` lists those it has",
            from.display()
        );
    }
    let part = Part::of(output, ".part");
    let file = part.create()?;
    let packed = repack(
        &reader,
        file,
        RepackOptions {
            anonymous: args.anonymous,
            process: args.process,
        },
        &mut progress(args.quiet, "making it small"),
    );
    clear_progress(args.quiet);
    match packed {
        Ok(file) => part.complete(&file, output, args.remove),
        Err(error) => {
            part.remove();
            Err(error.into())
        }
    }
}

/// `rmtrace pack` of what is a trace already.
fn run_on_trace(args: &Args) -> anyhow::Result<ExitCode> {
    let from = args.run.as_path();
    if !args.small && !args.anonymous && args.process.is_none() {
        anyhow::bail!(
            "{}: is a trace already; --small makes it smaller, --anonymous leaves names out, --process the rest",
            from.display()
        );
    }
    if args.remove {
        anyhow::bail!("{}: --remove is for run directories", from.display());
    }
    let output = match &args.output {
        Some(output) => output.clone(),
        None => from.with_extension(match (args.process, args.small) {
            (Some(process), _) => format!("process-{process}.rmt"),
            (None, true) => "small.rmt".to_owned(),
            (None, false) => "anonymous.rmt".to_owned(),
        }),
    };
    let before = from.metadata().map_or(0, |m| m.len());
    let bytes = repack_file(from, &output, args)?;
    if !args.quiet {
        eprintln!(
            "rmtrace: {}: {bytes} bytes, {:.0} % of {}",
            output.display(),
            100.0 * bytes as f64 / before.max(1) as f64,
            from.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if is_trace(&args.run) {
        return run_on_trace(&args);
    }
    if args.process.is_some() {
        anyhow::bail!(
            "{}: --process is for traces; pack the run first",
            args.run.display()
        );
    }
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
    let part = Part::of(&output, if args.small { ".large.part" } else { ".part" });
    let file = part.create()?;
    let packed = pack(
        &args.run,
        file,
        &options,
        &mut progress(args.quiet, "packing"),
    );
    clear_progress(args.quiet);
    let (file, report) = match packed {
        Ok(packed) => packed,
        Err(error) => {
            part.remove();
            return Err(error.into());
        }
    };
    let bytes = if args.small {
        drop(file);
        let small = repack_file(&part.path, &output, &args);
        part.remove();
        small?
    } else {
        // --remove takes the only other copy away.
        part.complete(&file, &output, args.remove)?
    };
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
