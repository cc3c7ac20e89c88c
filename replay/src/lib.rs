//! Replays a recorded trace on allocators: the same operations, in the recorded order of all threads, on each of them in
//! a process of its own. [`cache::program`] makes a program from a trace, [`replay::replay`] runs it in workers
//! ([`worker::main`] is what a worker does), [`report::Report`] is what follows. `docs/replay.md` defines every figure.

pub mod cache;
pub mod error;
mod fetch;
pub mod figure;
mod functions;
mod handles;
mod heap;
#[cfg(feature = "rmalloc")]
mod linked;
mod load;
mod null;
pub mod own;
pub mod prepare;
pub mod program;
mod region;
pub mod replay;
pub mod report;
mod run;
mod slot;
pub mod spec;
mod subject;
mod system;
mod table;
pub mod task;
pub mod text;
mod touch;
pub mod word;
pub mod worker;

pub use error::ReplayError;
pub use report::Report;
