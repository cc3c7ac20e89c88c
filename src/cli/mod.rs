//! The commands. Each module owns the arguments of one command and runs it.

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

pub mod accesses;
pub mod advise;
pub mod allocators;
pub mod analyze;
mod bytes;
pub mod ctl;
mod descendants;
pub mod dump;
pub mod export;
pub mod info;
mod locks;
pub mod pack;
mod program;
mod progress;
pub mod record;
pub mod replay;
mod select;
pub mod tune;
pub mod verify;

/// Exit status: the trace was read, but it is damaged or incomplete.
pub const EXIT_DAMAGED: u8 = 1;
/// Exit status: the command failed.
pub const EXIT_FAILED: u8 = 2;

/// Records what real programs ask of their memory allocator, and tells what follows from it.
///
/// A first look: `rmtrace record -- python3 -c 'print(1)'`, then `rmtrace analyze` with the file that it
/// names. Without a collector: `LD_PRELOAD=/path/to/librmtrace.so CMD`; the run directory that it leaves
/// is read by every command.
#[derive(Parser)]
#[command(name = "rmtrace", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 the trace was read but is damaged or does not verify, 2 failed. `record` ends with
the status of its command; 125, 126 and 127 are its own failures, as in env(1).

Shell completions: `rmtrace completions bash|zsh|fish|elvish|powershell`.";

#[derive(Subcommand)]
enum Command {
    Record(record::Args),
    Ctl(ctl::Args),
    Pack(pack::Args),
    Info(info::Args),
    Dump(dump::Args),
    Verify(verify::Args),
    Analyze(analyze::Args),
    Export(export::Args),
    Advise(advise::Args),
    Accesses(accesses::Args),
    Replay(replay::Args),
    Allocators(allocators::Args),
    /// Ask one allocator for `rmtrace allocators`
    #[command(name = allocators::PROBE, hide = true)]
    AllocatorProbe(allocators::ProbeArgs),
    Tune(tune::Args),
    /// Be one worker of `rmtrace replay`
    #[command(name = replay::WORKER, hide = true)]
    ReplayWorker(replay::WorkerArgs),
    /// Print completions for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a directory
    #[command(hide = true)]
    Man {
        /// Where they go
        directory: PathBuf,
    },
}

/// Parses the command line and runs what it asks for.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Record(args) => record::run(args),
        Command::Ctl(args) => ctl::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Info(args) => info::run(args),
        Command::Dump(args) => dump::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Analyze(args) => analyze::run(args),
        Command::Export(args) => export::run(args),
        Command::Advise(args) => advise::run(args),
        Command::Accesses(args) => accesses::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Allocators(args) => allocators::run(args),
        Command::AllocatorProbe(args) => allocators::run_probe(args),
        Command::Tune(args) => tune::run(args),
        Command::ReplayWorker(args) => replay::run_worker(args),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "rmtrace",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { directory } => write_manual(&directory),
    };
    result.unwrap_or_else(|error| {
        eprintln!("rmtrace: {error:#}");
        ExitCode::from(EXIT_FAILED)
    })
}

/// Writes one page for the program and one for each command.
fn write_manual(directory: &std::path::Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .with_context(|| format!("{}: can't write the manual pages", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
