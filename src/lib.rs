//! rmtrace as a library: the crates that the command line is made of.
//!
//! | crate | what it is for |
//! |---|---|
//! | [`file`](mod@file) | opens traces and run directories, merges their threads into one stream of events |
//! | [`analyzer`] | address tables, facts about blocks, measures, the report |
//! | `export` | tables of blocks and events as Parquet, CSV, JSON lines (feature `export`) |
//! | [`replay`] | performs a recorded process' calls on allocators, each in a process of its own |
//! | [`accesses`] | recorded memory accesses: Valgrind's stream, its match with blocks, the file of them |
//! | [`tune`] | searches rmalloc's settings by replay |
//! | [`format`](mod@format) | the words of the stream: `Event`, `Step`, `Entry`, `Kind` |
//! | [`collector`] | what `rmtrace record` runs |
//!
//! The features `cli` (the program) and `export` are on by default; a library needs neither:
//! `rmtrace = { version = "0.1", default-features = false }`. `examples/` has whole programs.
//!
//! # Events
//!
//! Everything that allocated and freed, of all threads of all processes, in time order. A realloc is two
//! events, its begin and its end. With a closure:
//!
//! ```
//! use rmtrace::format::Step;
//! use std::ops::ControlFlow;
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/by_hand.rmt");
//! let reader = rmtrace::file::open(path.as_ref())?;
//! let mut frees = 0;
//! reader.for_each_event(|event| {
//!     frees += u64::from(event.step == Step::Free);
//!     ControlFlow::Continue(()) // `Break` ends it
//! })?;
//! assert_eq!(frees, 3);
//! # Ok::<(), rmtrace::file::ReadError>(())
//! ```
//!
//! Or with an iterator; a thread merges ahead of it:
//!
//! ```
//! use rmtrace::format::Event;
//! use std::sync::Arc;
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/by_hand.rmt");
//! let reader = Arc::new(rmtrace::file::open(path.as_ref())?);
//! let first: Event = reader.events().next().expect("it has events")?;
//! assert_eq!((first.entry.name(), first.requested_bytes), ("malloc", 100));
//! # Ok::<(), rmtrace::file::ReadError>(())
//! ```
//!
//! Processes, forks, marks and samples of resident memory come to a [`file::Consumer`], through
//! [`file::TraceReader::merge`].
//!
//! # Blocks
//!
//! The ledger turns events into facts about blocks: born, resized, freed, with their age on four clocks.
//!
//! ```
//! use rmtrace::analyzer::fact::What;
//! use rmtrace::analyzer::ledger::{Filter, facts};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/by_hand.rmt");
//! let reader = rmtrace::file::open(path.as_ref())?;
//! let mut longest = 0;
//! facts(&reader, Default::default(), &Filter::default(), |fact| {
//!     if fact.what == What::Freed {
//!         longest = fact.life_events.max(longest);
//!     }
//! })?;
//! assert_eq!(longest, 7); // worked out in traces/README.md
//! # Ok::<(), rmtrace::file::ReadError>(())
//! ```
//!
//! # The whole report
//!
//! What `rmtrace analyze --json` prints is [`analyzer::Report`]; `docs/analysis.md` defines its figures.
//!
//! ```
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/by_hand.rmt");
//! let reader = rmtrace::file::open(path.as_ref())?;
//! let (report, error) = rmtrace::analyzer::analyze(&reader, "by_hand.rmt", Default::default());
//! assert!(error.is_none());
//! assert_eq!(report.figures.blocks.allocated, 5);
//! # Ok::<(), rmtrace::file::ReadError>(())
//! ```

pub mod collector;

pub use rmtrace_accesses as accesses;
pub use rmtrace_analyzer as analyzer;
#[cfg(feature = "export")]
pub use rmtrace_export as export;
pub use rmtrace_file as file;
pub use rmtrace_format as format;
pub use rmtrace_replay as replay;
pub use rmtrace_tune as tune;
