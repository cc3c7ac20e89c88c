//! `rmtrace export`: the blocks or events of a trace as a table for other programs. The tables are the
//! export crate's; here are the arguments, the output file, the progress and the exit status.

use std::path::PathBuf;

/// Write the blocks or events of a trace as Parquet, CSV or JSON lines (docs/export.md).
///
/// A row is a block with its life, in the order of the ends; with --events a row is an event, in time
/// order. DuckDB, pyarrow and others read the result: `SELECT entry, count(*) FROM 'blocks.parquet' GROUP BY 1`.
#[derive(clap::Args)]
pub struct Args {
    /// A trace file, or the directory that LD_PRELOAD left
    trace: PathBuf,
    /// Where it goes: FILE.parquet, FILE.csv, FILE.jsonl; `-` is stdout (CSV unless --format says otherwise)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The form of the output, if the name of the file does not say it
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// A row is an event
    #[arg(long, conflicts_with = "blocks")]
    events: bool,
    /// A row is a block [default]
    #[arg(long)]
    blocks: bool,
    #[command(flatten)]
    selection: super::select::Selection,
    /// How a Parquet file is compressed
    #[arg(long, value_enum)]
    compression: Option<Compression>,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Parquet,
    Csv,
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compression {
    /// zstd, level 1: a quarter to a fifth of `none` [default]
    Zstd,
    /// zstd, level 12: a tenth smaller, four to six times slower
    Small,
    /// not at all
    None,
}

/// Without the crate behind it the command only says how to get it.
#[cfg(not(feature = "export"))]
pub fn run(args: Args) -> anyhow::Result<std::process::ExitCode> {
    let _ = args;
    anyhow::bail!(
        "this rmtrace was built without `export`: build it with `cargo build --release --features export`"
    )
}

#[cfg(feature = "export")]
pub use with::run;

#[cfg(feature = "export")]
mod with {
    use super::super::pack::Part;
    use super::super::progress::Progress;
    use super::super::select::Selected;
    use super::super::{EXIT_DAMAGED, info};
    use super::{Args, Compression, Format};
    use anyhow::{Context, bail};
    use rmtrace::export::{Exported, Form, Options, Pages, Table, export};
    use rmtrace::file::TraceReader;
    use std::fs::{File, OpenOptions};
    use std::io::{self, BufWriter, Write};
    use std::ops::ControlFlow;
    use std::path::Path;
    use std::process::ExitCode;

    /// Runs the command.
    pub fn run(args: Args) -> anyhow::Result<ExitCode> {
        let form = form(&args)?;
        let reader = rmtrace::file::open(&args.trace)?;
        if args.events && !args.selection.which.is_all() {
            bail!("--size and --kind choose blocks: not with --events");
        }
        let selected = args.selection.resolve(&reader)?;
        let Some((exported, bytes)) = write(&args, &reader, form, &selected)? else {
            return Ok(ExitCode::SUCCESS); // Whoever reads the pipe has enough.
        };
        let rows = if args.events { "events" } else { "blocks" };
        if !args.quiet && args.output != Path::new("-") {
            eprintln!(
                "rmtrace: {}: {} {rows}, {bytes} bytes",
                args.output.display(),
                exported.rows
            );
        }
        let status = info::warn_of_damage(&reader);
        if let Some(error) = exported.broken {
            eprintln!(
                "rmtrace: reading ended early, after {} {rows}: {error}",
                exported.rows
            );
            return Ok(ExitCode::from(EXIT_DAMAGED));
        }
        Ok(status)
    }

    /// What the arguments say of the form.
    fn form(args: &Args) -> anyhow::Result<Form> {
        let named = args.output.extension().and_then(|ending| ending.to_str());
        let format = match (args.format, named) {
            (Some(format), _) => format,
            (None, Some("parquet")) => Format::Parquet,
            (None, Some("csv")) => Format::Csv,
            (None, Some("jsonl" | "ndjson")) => Format::Jsonl,
            (None, _) if args.output == Path::new("-") => Format::Csv,
            (None, _) => bail!(
                "{}: is it to be .parquet, .csv or .jsonl? --format says so too",
                args.output.display()
            ),
        };
        if format != Format::Parquet && args.compression.is_some() {
            bail!("--compression is for Parquet; pipe the other forms through `zstd`");
        }
        Ok(match format {
            Format::Parquet if args.output == Path::new("-") => {
                bail!("Parquet goes to a file: -o FILE.parquet")
            }
            Format::Parquet => Form::Parquet(match args.compression {
                None | Some(Compression::Zstd) => Pages::Zstd(1),
                Some(Compression::Small) => Pages::Zstd(12),
                Some(Compression::None) => Pages::Plain,
            }),
            Format::Csv => Form::Csv,
            Format::Jsonl => Form::JsonLines,
        })
    }

    /// Writes the table; gives what was exported and the bytes of the file, or nothing if a pipe was
    /// closed.
    fn write(
        args: &Args,
        reader: &TraceReader,
        form: Form,
        selected: &Selected,
    ) -> anyhow::Result<Option<(Exported, u64)>> {
        if args.output == Path::new("-") {
            let out = BufWriter::with_capacity(1 << 16, io::stdout());
            return Ok(read(args, reader, form, selected, out)?.map(|exported| (exported, 0)));
        }
        // A pipe or a device has no name to be given later.
        let special = args
            .output
            .metadata()
            .is_ok_and(|metadata| !metadata.is_file());
        if special {
            let file = OpenOptions::new()
                .write(true)
                .open(&args.output)
                .with_context(|| format!("{} can't be opened", args.output.display()))?;
            let out = BufWriter::with_capacity(1 << 16, file);
            return Ok(read(args, reader, form, selected, out)?.map(|exported| (exported, 0)));
        }
        let part = Part::of(&args.output, ".part");
        let file = part.create()?;
        let written = complete(args, reader, form, selected, &part, &file);
        if written.is_err() {
            part.remove();
        }
        written
    }

    fn complete(
        args: &Args,
        reader: &TraceReader,
        form: Form,
        selected: &Selected,
        part: &Part,
        file: &File,
    ) -> anyhow::Result<Option<(Exported, u64)>> {
        let out = BufWriter::with_capacity(1 << 18, file);
        let Some(exported) = read(args, reader, form, selected, out)? else {
            bail!("{}: closed while it was written", args.output.display());
        };
        let bytes = part.complete(file, &args.output, false)?;
        Ok(Some((exported, bytes)))
    }

    /// Reads the trace through, with progress. Nothing is given if whoever reads `out` closed it.
    fn read(
        args: &Args,
        reader: &TraceReader,
        form: Form,
        selected: &Selected,
        out: impl Write + Send,
    ) -> anyhow::Result<Option<Exported>> {
        let mut progress = Progress::new(selected.calls(reader));
        let mut told = |events: u64| {
            if !args.quiet {
                progress.show(events);
            }
            ControlFlow::Continue(())
        };
        let table = match args.events {
            true => Table::Events,
            false => Table::Blocks,
        };
        let options = Options {
            table,
            form,
            process: selected.process,
            threads: selected.threads.clone(),
            window: selected.window.clone(),
            filter: selected.filter.clone(),
            progress: &mut told,
        };
        let exported = export(reader, out, options);
        progress.end();
        match exported {
            Err(error) if error.is_closed_pipe() => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{}", args.output.display())),
            Ok(exported) => Ok(Some(exported)),
        }
    }
}
