//! `rmtrace allocators`: the allocators that `rmtrace replay -a` knows by name, which of them are here, and how to bring the
//! others.

use super::EXIT_FAILED;
use anyhow::Context;
use rmtrace::replay::find::{self, KNOWN};
use rmtrace::replay::identity::{self, Probed};
use rmtrace::replay::spec::{self, Spec};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

/// Name of the hidden command that asks one allocator.
pub const PROBE: &str = "allocator-probe";
/// Version of the JSON form.
const SCHEMA: u32 = 1;

/// List the allocators that replay knows: version, file, and how to bring those that are missing.
///
/// Each is loaded in a process of its own and asked. Those built from sources are looked for in $RMTRACE_ALLOCATORS, then
/// in $XDG_CACHE_HOME/rmtrace/allocators (~/.cache without that variable), as NAME.so.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Names, or shared libraries by path [default: all names]
    #[arg(value_name = "NAME|PATH.so", value_parser = spec::parse)]
    allocators: Vec<Spec>,
    /// Print JSON (docs/allocators.md) instead of text
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  rmtrace allocators                    what is here, and what brings the rest
  rmtrace allocators ./libmine.so       could it be replayed?
  scripts/allocators                    builds and installs all

Exit status: 0 done, also where some are missing; 2 failed, or one that was named is missing.";

#[derive(Serialize)]
struct Listing {
    schema: u32,
    directories: Vec<String>,
    allocators: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    about: String,
    source: String,
    present: bool,
    version: String,
    file: String,
    loaded: String,
    variables: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let specs = match args.allocators.is_empty() {
        true => spec::known(),
        false => args.allocators,
    };
    let worker: Vec<OsString> = vec!["/proc/self/exe".into(), PROBE.into()];
    let mut rows = Vec::new();
    for spec in &specs {
        rows.push(row(spec, identity::probe(spec, &worker)?));
    }
    let is_missing = specs
        .iter()
        .zip(&rows)
        .any(|(spec, row)| spec.wanted && !row.present);
    let listing = Listing {
        schema: SCHEMA,
        directories: find::directories()
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect(),
        allocators: rows,
    };
    let printed = match args.json {
        true => serde_json::to_string(&listing)? + "\n",
        false => text(&listing),
    };
    match io::stdout().lock().write_all(printed.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.context("can't write the list")?,
    }
    Ok(match is_missing {
        true => ExitCode::from(EXIT_FAILED),
        false => ExitCode::SUCCESS,
    })
}

fn row(spec: &Spec, probed: Probed) -> Row {
    let known = KNOWN.iter().find(|known| known.name == spec.name);
    let present = probed.error.is_none();
    Row {
        name: spec.name.clone(),
        about: known.map_or(String::new(), |known| known.about.to_string()),
        source: known.map_or_else(|| "a path".to_string(), |known| known.origin()),
        present,
        version: probed.version,
        file: probed.file,
        loaded: if present {
            probed.loaded
        } else {
            String::new()
        },
        variables: spec.variables.clone(),
        remedy: (!present && !spec.remedy.is_empty()).then(|| spec.remedy.clone()),
        error: probed.error,
    }
}

fn text(listing: &Listing) -> String {
    let mut out = String::new();
    let cells: Vec<[&str; 4]> = listing
        .allocators
        .iter()
        .filter(|row| row.present)
        .map(|row| {
            let version = if row.version.is_empty() {
                &row.about
            } else {
                &row.version
            };
            let file = if row.file.is_empty() { "-" } else { &row.file };
            [row.name.as_str(), version, &row.source, file]
        })
        .collect();
    let heads = ["allocator", "version", "from", "file"];
    let width = |column: usize| {
        let all = cells.iter().map(|row| row[column].chars().count());
        all.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let (first, second, third) = (width(0), width(1), width(2));
    // Writing to a string does not fail.
    for [name, version, source, file] in [heads].iter().chain(&cells) {
        let _ = writeln!(
            out,
            "{name:first$}  {version:second$}  {source:third$}  {file}"
        );
    }
    for row in listing.allocators.iter().filter(|row| !row.present) {
        let _ = write!(out, "missing: {}", row.name);
        if !row.about.is_empty() {
            let _ = write!(out, ", {}", row.about);
        }
        let _ = match &row.remedy {
            Some(remedy) => writeln!(out, ": {remedy}"),
            None => writeln!(out),
        };
        if let Some(error) = &row.error {
            let _ = writeln!(out, "  {error}");
        }
    }
    out
}

/// What the hidden command takes.
#[derive(clap::Args)]
pub struct ProbeArgs {
    /// The allocator, as JSON
    which: String,
}

/// Runs the hidden command.
pub fn run_probe(args: ProbeArgs) -> anyhow::Result<ExitCode> {
    println!("{}", identity::main(&args.which)?);
    Ok(ExitCode::SUCCESS)
}
