//! From what traced programs leave in a run directory to a trace: finding the chunks
//! ([`run_dir`]), stamps to ticks ([`clock`]), numbering processes ([`processes`]), windows of time
//! ([`cutter`]), and the whole of it ([`pack()`]); and from a trace to a smaller one ([`repack()`]). `docs/spool.md` is the specification.
//!
//! Nothing that lies in a run directory is trusted: bytes are copied out before they are looked at,
//! numbers are checked, and what does not fit is counted and left out.

pub mod buffers;
pub mod chunk_file;
pub mod clock;
pub mod cutter;
mod encoders;
pub mod error;
pub mod image;
pub mod journal;
pub mod lease;
pub mod pack;
pub mod processes;
pub mod repack;
pub mod role;
pub mod run_dir;
pub mod source;
pub mod spool_file;
pub mod stream;

pub use error::GatherError;
pub use pack::{PackOptions, PackReport, pack};
pub use repack::{RepackOptions, is_trace, repack};
pub use run_dir::{RunDir, is_run};
