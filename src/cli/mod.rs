//! The commands. Each module owns the arguments of one command and runs it.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

pub mod analyze;
pub mod dump;
pub mod info;
pub mod pack;
pub mod record;
pub mod verify;

/// Exit status: the trace was read, but it is damaged or incomplete.
pub const EXIT_DAMAGED: u8 = 1;
/// Exit status: the command failed.
pub const EXIT_FAILED: u8 = 2;

/// Record what real programs ask of their memory allocator, and see it.
#[derive(Parser)]
#[command(name = "rmtrace", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Record(record::Args),
    Pack(pack::Args),
    Info(info::Args),
    Dump(dump::Args),
    Verify(verify::Args),
    Analyze(analyze::Args),
}

/// Parses the command line and runs what it asks for.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Record(args) => record::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Info(args) => info::run(args),
        Command::Dump(args) => dump::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Analyze(args) => analyze::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("rmtrace: {error:#}");
        ExitCode::from(EXIT_FAILED)
    })
}
