//! Replays a recorded trace on allocators: the same operations, in the recorded order of all threads or in real threads that
//! wait for each other, on each of them in a process of its own. [`cache::program`] makes a program from a trace, and
//! [`cache::streams`] one for real threads, [`replay::replay`] runs it in workers
//! ([`worker::main`] is what a worker does), [`report::Report`] is what follows. `docs/replay.md` defines every figure.

pub mod cache;
pub mod callgrind;
mod calls;
pub mod distribution;
pub mod durations;
mod environment;
pub mod error;
mod executable;
mod fetch;
pub mod figure;
pub mod find;
pub mod fragmentation;
mod functions;
mod handles;
mod heap;
pub mod histogram;
pub mod identity;
mod instructions;
mod lane;
pub mod latency;
#[cfg(feature = "rmalloc")]
mod linked;
mod load;
pub mod lock;
mod null;
pub mod own;
pub mod prepare;
mod probe;
mod process;
pub mod program;
mod region;
pub mod replay;
pub mod report;
pub mod reuse;
mod run;
pub mod scores;
pub mod single;
mod slot;
pub mod spec;
pub mod streams;
mod subject;
pub mod sweep;
mod system;
mod table;
pub mod task;
mod team;
pub mod text;
mod ticks;
mod touch;
mod watch;
pub mod word;
pub mod worker;

pub use error::ReplayError;
pub use report::Report;
