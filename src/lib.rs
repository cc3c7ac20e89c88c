//! rmtrace as a library: the crates that the command line is made of.

pub mod collector;

pub use rmtrace_analyzer as analyzer;
pub use rmtrace_file as file;
pub use rmtrace_format as format;
