//! The command line of rmtrace.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
