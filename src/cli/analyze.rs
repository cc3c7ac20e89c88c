//! `rmtrace analyze`: reads a trace once and prints what the program asked of its allocator. The
//! figures are the analyzer's; here are the arguments, the progress and the exit status.

use super::EXIT_DAMAGED;
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rmtrace::analyzer::report::ProcessReport;
use rmtrace::analyzer::{Options, Report, text};
use rmtrace::file::{MergeOptions, TraceReader};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Shorter work shows no progress.
const QUIET: Duration = Duration::from_secs(1);
/// Events between two looks at the clock.
const PROGRESS_EVENTS: u64 = 1 << 18;

/// Report what a recorded program asked of its allocator: sizes, lifetimes, peaks, handle table.
#[derive(clap::Args)]
pub struct Args {
    /// A trace file, or the directory that LD_PRELOAD left
    trace: PathBuf,
    /// Only this process: its number in the trace, its pid, its name or its role
    #[arg(long, value_name = "P")]
    process: Option<String>,
    /// Print JSON (schema 1, docs/analysis.md) instead of text
    #[arg(long)]
    json: bool,
    /// Tell how many blocks with their handles fit in R bytes of memory (512M, 4G ...)
    #[arg(long, value_name = "R", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// List all processes with the details of each, and all histograms
    #[arg(short = 'v', long)]
    all_processes: bool,
    /// Threads to work with: 1, or up to 3 (default: as many as there are processors)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reader = rmtrace::file::open(&args.trace)?;
    let (mut report, broken) = analyze(&reader, &args.trace, args.threads);
    if let Some(wanted) = &args.process {
        let number = find_process(&report.processes, wanted)?;
        report = report
            .of_process(number)
            .context("the process is not in the report")?;
    }
    if let Some(bytes) = args.memory {
        report.fit_memory(bytes);
    }
    match print(&args, &report) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.context("can't write the report")?,
    }
    if broken || !report.trace.damage.is_empty() {
        return Ok(ExitCode::from(EXIT_DAMAGED));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(args: &Args, report: &Report) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        serde_json::to_writer(&mut out, report)?;
        out.write_all(b"\n")?;
    } else {
        let options = text::Options {
            all_processes: args.all_processes,
        };
        out.write_all(text::render(report, options).as_bytes())?;
    }
    out.flush()
}

/// The report of the whole trace, and whether reading ended early.
pub(super) fn analyze(reader: &TraceReader, path: &Path, threads: Option<usize>) -> (Report, bool) {
    let mut progress = Progress::new(reader.calls());
    let mut told = |events: u64| {
        progress.show(events);
        ControlFlow::Continue(())
    };
    let mut options = Options {
        merge: MergeOptions {
            progress: Some(&mut told),
            ..MergeOptions::default()
        },
        ..Options::default()
    };
    if let Some(threads) = threads {
        options.threads = threads;
    }
    let name = path.file_name().unwrap_or(path.as_os_str());
    let (report, error) = rmtrace::analyzer::analyze(reader, &name.to_string_lossy(), options);
    progress.end();
    (report, error.is_some())
}

/// The process that a person means: by number, pid, role or name; of several, the one with most
/// events.
pub(super) fn find_process(processes: &[ProcessReport], wanted: &str) -> anyhow::Result<u32> {
    let number: Option<u32> = wanted.parse().ok();
    let by_number = processes
        .iter()
        .find(|process| Some(process.number) == number);
    if let Some(process) = by_number {
        return Ok(process.number);
    }
    let fits = |process: &&ProcessReport| {
        Some(process.pid) == number || process.role == wanted || process.name == wanted
    };
    let count = processes.iter().filter(fits).count();
    let most = processes
        .iter()
        .filter(fits)
        .max_by_key(|process| process.figures.events.total);
    let Some(process) = most else {
        bail!("no process has the number, pid, role or name `{wanted}`: `rmtrace info` lists them");
    };
    if count > 1 {
        eprintln!(
            "rmtrace: {count} processes are `{wanted}`; this is {}, the one with most events",
            text::title(process)
        );
    }
    Ok(process.number)
}

/// Bytes with an optional suffix: K, M, G, T, alone or as in KiB.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let suffix = text[digits.len()..].to_ascii_uppercase();
    let shift = match suffix.as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(format!("`{suffix}` is not K, M, G or T")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a whole number of bytes, as in 512M".to_string())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "more than 64 bits hold".to_string())
}

/// A bar on the terminal for work that takes longer than a moment.
struct Progress {
    began: Instant,
    looked_at: u64,
    total: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(total: u64) -> Progress {
        Progress {
            began: Instant::now(),
            looked_at: 0,
            total,
            bar: None,
        }
    }

    fn show(&mut self, events: u64) {
        if events - self.looked_at < PROGRESS_EVENTS {
            return;
        }
        self.looked_at = events;
        match &self.bar {
            Some(bar) => bar.set_position(events.min(self.total)),
            None if self.began.elapsed() > QUIET && io::stderr().is_terminal() => {
                let bar =
                    ProgressBar::with_draw_target(Some(self.total), ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template(
                    "{wide_bar} {human_pos}/{human_len} events, {eta} left",
                );
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                self.bar = Some(bar);
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("512M"), Ok(512 << 20));
        assert_eq!(parse_bytes("4GiB"), Ok(4 << 30));
        assert_eq!(parse_bytes("17"), Ok(17));
        assert!(parse_bytes("12X").is_err());
        assert!(parse_bytes("G").is_err());
        assert!(parse_bytes("99999999999T").is_err());
        assert!(parse_bytes("-1").is_err());
    }

    #[test]
    fn a_process_is_found_by_number_before_pid() {
        let process = |number, pid, name: &str, events| {
            let mut process = ProcessReport {
                number,
                pid,
                name: name.to_string(),
                ..ProcessReport::default()
            };
            process.figures.events.total = events;
            process
        };
        let all = [
            process(0, 1, "a", 5),
            process(1, 7, "b", 1),
            process(2, 8, "b", 9),
        ];
        assert_eq!(find_process(&all, "1").ok(), Some(1));
        assert_eq!(find_process(&all, "7").ok(), Some(1));
        assert_eq!(find_process(&all, "b").ok(), Some(2));
        assert!(find_process(&all, "c").is_err());
    }
}
