//! `rmtrace analyze`: reads a trace once and prints what the program asked of its allocator. The
//! figures are the analyzer's; here are the arguments, the progress and the exit status.

use super::EXIT_DAMAGED;
use super::bytes::bytes;
use super::progress::Progress;
use super::select::{Selected, Selection};
use anyhow::Context;
use rmtrace::analyzer::{Options, Report, packing, text};
use rmtrace::file::{MergeOptions, TraceReader};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Report what a recorded program asked of its allocator: sizes, lifetimes, phases, peaks, size classes, what
/// relocation could save, the handle table.
#[derive(clap::Args)]
pub struct Args {
    /// A trace file, or the directory that LD_PRELOAD left
    trace: PathBuf,
    #[command(flatten)]
    selection: Selection,
    /// Print JSON (schema 1, docs/analysis.md) instead of text
    #[arg(long)]
    json: bool,
    /// Tell how many blocks with their handles fit in R bytes of memory (512M, 4G ...)
    #[arg(long, value_name = "R", value_parser = bytes)]
    memory: Option<u64>,
    /// List all processes with the details of each, and all histograms
    #[arg(short = 'v', long)]
    all_processes: bool,
    /// First figures only: no details, about a third faster
    #[arg(long, conflicts_with_all = ["bounds", "classes"])]
    quick: bool,
    /// Pack the blocks of the process with the highest peak anew, knowing their lifetimes, without moving
    /// any: the best that an allocator without relocation is known to reach. Reads that process thrice
    #[arg(long)]
    bounds: bool,
    /// Tell the best K size classes for this trace, too (1 to 128)
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(1..=128))]
    classes: Option<u8>,
    /// Threads: with 1 everything is done by one, with more reading, ledger and measures each have their own
    /// [default: the number of processors]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reader = rmtrace::file::open(&args.trace)?;
    let selected = args.selection.resolve(&reader)?;
    let wanted = Wanted {
        details: !args.quick,
        classes: args.classes.map(usize::from),
        threads: args.threads,
    };
    let (mut report, broken) = analyze(&reader, &args.trace, &selected, &wanted);
    if args.bounds && !broken {
        pack(&reader, &selected, &mut report)?;
    }
    if let Some(number) = selected.process {
        report = report
            .of_process(number)
            .context("the process has no records in this part of the trace")?;
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

/// What to find out.
pub struct Wanted {
    /// Details beside the first figures.
    pub details: bool,
    /// The best so many size classes.
    pub classes: Option<usize>,
    /// Threads, if a person said.
    pub threads: Option<usize>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            details: true,
            classes: None,
            threads: None,
        }
    }
}

/// Puts a packing of the process whose heap the report tells of into the report.
fn pack(reader: &TraceReader, selected: &Selected, report: &mut Report) -> anyhow::Result<()> {
    let Some(process) = report.figures.details.as_ref().map(|of| of.heap.process) else {
        return Ok(());
    };
    let part = Selected {
        process: Some(process),
        ..selected.clone()
    };
    let packing = packing::pack(reader, process, &selected.filter, || part.merge(reader))?;
    let own = report.processes.iter_mut();
    let own = own.filter(|of| of.number == process);
    let figures = own.map(|of| &mut of.figures);
    for figures in figures.chain([&mut report.figures]) {
        if let Some(details) = &mut figures.details {
            details.heap.bounds.add_packing(packing.clone());
        }
    }
    Ok(())
}

/// The report of the selected part, and whether reading ended early.
pub fn analyze(
    reader: &TraceReader,
    path: &Path,
    selected: &Selected,
    wanted: &Wanted,
) -> (Report, bool) {
    let mut progress = Progress::new(selected.calls(reader));
    let mut told = |events: u64| {
        progress.show(events);
        ControlFlow::Continue(())
    };
    let mut options = Options {
        filter: selected.filter.clone(),
        merge: MergeOptions {
            progress: Some(&mut told),
            ..selected.merge(reader)
        },
        remarks: selected.remarks.clone(),
        details: wanted.details,
        classes: wanted.classes,
        ..Options::default()
    };
    if let Some(threads) = wanted.threads {
        options.threads = threads;
    }
    let name = path.file_name().unwrap_or(path.as_os_str());
    let (report, error) = rmtrace::analyzer::analyze(reader, &name.to_string_lossy(), options);
    progress.end();
    (report, error.is_some())
}
