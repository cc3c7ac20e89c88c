//! An in-memory cache under an LRU limit, over the Redis protocol: its values live in rmalloc, or in whatever
//! malloc the process has, so that the two can be compared under the same load. docs/cache.md shows how to run it.
//!
//!     cargo run --release -p rmalloc --example cache -- --allocator rmalloc --limit 256M --port 7379
//!     redis-cli -p 7379 info
//!
//! Owned here: the start. The server is in `server.rs`, what a request does in `commands.rs`, what is kept in
//! `cache.rs`; the load generator (`--drive`) is in `drive.rs`. It listens on loopback alone: there is no password.

pub mod cache;
pub mod commands;
pub mod compaction;
pub mod connection;
pub mod drive;
pub mod histogram;
pub mod index;
pub mod info;
pub mod options;
pub mod os;
pub mod region;
pub mod resp;
pub mod server;
pub mod store;

use options::{Allocator, Command};
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("cache: {message}");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cache: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the command line asks for, to the end.
///
/// # Errors
/// What the system refused: a port that is taken, a server that is not there, memory.
pub fn run(command: Command) -> io::Result<()> {
    match command {
        Command::Help => io::stdout().write_all(options::HELP.as_bytes()),
        Command::Drive(options) => drive::run(&options, &mut io::stdout().lock()),
        Command::Serve(options) => match options.allocator {
            Allocator::Malloc => server::run(&options, store::malloc::Malloc),
            Allocator::Rmalloc => server::run(&options, store::handles::Handles::new()?),
        },
    }
}
