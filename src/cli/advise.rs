//! `rmtrace advise`: reads one or more traces of a program and says what handle table they ask for: as
//! text, as JSON, as `rmalloc.toml` and as a C header. The figures are the analyzer's; here are the
//! arguments, the choice of the process and the exit status.

use super::EXIT_DAMAGED;
use super::analyze::{self, analyze};
use super::bytes::bytes;
use super::select::{Selected, find_process};
use anyhow::{Context, bail};
use rmtrace::analyzer::advice::{self, Advice, Subject, Wanted};
use rmtrace::analyzer::pages::PAGE_BYTES;
use rmtrace::analyzer::report::ProcessReport;
use rmtrace::analyzer::{Report, text};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say how large a handle table a program needs, how sure that is, and write rmalloc.toml.
///
/// Give several traces of the same program, recorded the same way: with n of them, the highest peak is
/// exceeded by the next run with probability 1/(n+1) at most, whatever the program does. From one trace
/// no probability can be given. Of each trace the process with the most live blocks counts, or the one
/// that --process names.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Trace files, or directories that LD_PRELOAD left
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// R: tell how many blocks with their handles fit in so many bytes (512M, 4G ...)
    #[arg(long, value_name = "R", value_parser = bytes)]
    memory: Option<u64>,
    /// P: the chance that a run needs more entries (0.05, 5%, 1/20). Below 1/(n+1) for n traces it takes a
    /// model, which the report names
    #[arg(long, value_name = "P", value_parser = parse_risk)]
    risk: Option<u64>,
    /// In each trace this process: its number in the trace, its pid, its name or its role
    #[arg(long, value_name = "P")]
    process: Option<String>,
    /// Write the settings here, as rmalloc reads them (docs/handle-table.md)
    #[arg(short = 'o', long = "output", value_name = "rmalloc.toml")]
    output: Option<PathBuf>,
    /// Write the same settings here as constants of C
    #[arg(long, value_name = "rmalloc_config.h")]
    header: Option<PathBuf>,
    /// Threads: with 1 everything is done by one, with more reading, ledger and measures each have their own
    /// [default: the number of processors]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print JSON (docs/handle-table.md) instead of text
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  for n in 1 2 3 4 5 6 7; do rmtrace record -o run-$n.rmt -- CMD; done
  rmtrace advise run-*.rmt                     entries that hold at risk 1/8, ways, bits
  rmtrace advise run-*.rmt --process main      the same for another process
  rmtrace advise run-*.rmt --risk 1% --memory 512M -o rmalloc.toml

Exit status: 0 done, 1 a trace was read but is damaged, 2 failed.";

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    refuse_twins(&args.traces)?;
    let mut damaged = false;
    let mut subjects = Vec::new();
    let wanted = analyze::Wanted {
        threads: args.threads,
        ..analyze::Wanted::default()
    };
    for path in &args.traces {
        let reader = rmtrace::file::open(path)?;
        let process = args.process.as_deref();
        let process = process.map(|wanted| find_process(&reader, wanted));
        let selected = Selected {
            process: process
                .transpose()
                .with_context(|| path.display().to_string())?,
            ..Selected::default()
        };
        let (report, broken) = analyze(&reader, path, &selected, &wanted);
        if broken || !report.trace.damage.is_empty() {
            damaged = true;
            eprintln!(
                "rmtrace: {} is damaged: the advice is of what is there",
                path.display()
            );
        }
        let dropped = report.figures.events.dropped;
        if dropped != 0 {
            eprintln!(
                "rmtrace: {}: {dropped} calls were not recorded, so its peak may be wrong",
                path.display()
            );
        }
        subjects.push(subject(&report, path, selected.process)?);
    }
    let wanted = Wanted {
        memory: args.memory,
        risk_ppm: args.risk,
    };
    let advice = Advice::new(&subjects, wanted).context("there is no trace")?;
    if args.risk.is_some() && advice.entries.risk_ppm.is_none() {
        eprintln!("rmtrace: no probability can be given from these traces; --risk has no effect");
    }
    for (path, content) in [
        (&args.output, advice::toml as fn(&Advice) -> String),
        (&args.header, advice::header),
    ] {
        if let Some(path) = path {
            std::fs::write(path, content(&advice))
                .with_context(|| format!("{}: can't be written", path.display()))?;
        }
    }
    let printed = match args.json {
        true => serde_json::to_string(&advice)? + "\n",
        false => text::advice::render(&advice),
    };
    match io::stdout().lock().write_all(printed.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.context("can't write the advice")?,
    }
    match damaged {
        true => Ok(ExitCode::from(EXIT_DAMAGED)),
        false => Ok(ExitCode::SUCCESS),
    }
}

/// A trace given twice would count as two runs.
pub(super) fn refuse_twins(paths: &[PathBuf]) -> anyhow::Result<()> {
    let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    for (at, path) in paths.iter().enumerate() {
        if paths[..at].iter().any(|other| real(other) == real(path)) {
            bail!(
                "{} is given twice: one run can't count as two",
                path.display()
            );
        }
    }
    Ok(())
}

/// The process of a trace that the advice is for: the one that is wanted, or the one with the most
/// live blocks.
pub(super) fn subject(
    report: &Report,
    path: &Path,
    wanted: Option<u32>,
) -> anyhow::Result<Subject> {
    let number = wanted.unwrap_or(report.figures.handle_table.process);
    let mut processes = report.processes.iter();
    let process = processes.find(|process| process.number == number);
    let process = process.with_context(|| format!("{}: no process in it", path.display()))?;
    // The run has those of the process with most blocks, whether or not it is one of the largest.
    let own = process.figures.details.as_ref();
    let of_run = report.figures.details.as_ref();
    let details = own.or(of_run.filter(|_| wanted.is_none()));
    let details = details.with_context(|| format!("{}: nothing in it", path.display()))?;
    let pages = own.map(|details| details.heap.pages.peak.holding.held_bytes / PAGE_BYTES);
    Ok(Subject {
        trace: report.trace.name.clone(),
        program: program(report, process),
        process: process.number,
        title: text::title(process),
        handles: details.handles.clone(),
        pages_held_peak: pages,
        unused: None,
    })
}

/// The program that was recorded, and what the process does in it.
fn program(report: &Report, process: &ProcessReport) -> String {
    let command = report.trace.command.first();
    let command = command.and_then(|first| Path::new(first).file_name());
    let root = report.processes.first().map(|root| root.name.clone());
    let command = command.map_or(root.unwrap_or_default(), |name| {
        name.to_string_lossy().into_owned()
    });
    let words = [&command, &process.name, &process.role];
    let words: Vec<&str> = words
        .into_iter()
        .map(String::as_str)
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

/// A probability in millionths: `0.05`, `5%` or `1/20`; more than 0, at most a half.
fn parse_risk(text: &str) -> Result<u64, String> {
    let number = |text: &str| {
        text.trim()
            .parse::<f64>()
            .map_err(|_| "not a probability, as in 0.05, 5% or 1/20".to_string())
    };
    let risk = match (text.split_once('/'), text.strip_suffix('%')) {
        (Some((part, of)), _) => number(part)? / number(of)?,
        (None, Some(percent)) => number(percent)? / 100.0,
        (None, None) => number(text)?,
    };
    // Rounded up, so that 1/3 of three runs is one of them.
    let ppm = (risk * 1e6 - 1e-6).ceil();
    if risk >= 1e-6 && ppm <= 500_000.0 {
        Ok(ppm as u64)
    } else {
        Err("a risk is at least 0.000001 and at most 0.5".to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn risks_are_read_as_people_write_them() {
        assert_eq!(parse_risk("0.05"), Ok(50_000));
        assert_eq!(parse_risk("5%"), Ok(50_000));
        assert_eq!(parse_risk("0.07"), Ok(70_000));
        assert_eq!(parse_risk("1/8"), Ok(125_000));
        assert_eq!(parse_risk("1/3"), Ok(333_334));
        assert_eq!(parse_risk("0.000001"), Ok(1));
        for wrong in ["0", "1", "0.6", "-1%", "x", "1/0", "0/0", "1e-9", "nan"] {
            assert!(parse_risk(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_trace_counts_once() {
        let path = PathBuf::from;
        assert!(refuse_twins(&[path("Cargo.toml"), path("src")]).is_ok());
        assert!(refuse_twins(&[path("Cargo.toml"), path("src/../Cargo.toml")]).is_err());
    }
}
