//! Measures over recorded allocator events: one streaming pass ([`Analysis`]) whose memory grows with
//! the live blocks only, a [`Report`] for the run and each process, and its text form ([`text`]).
//! `docs/analysis.md` defines every figure.
#![forbid(unsafe_code)]

pub mod analysis;
pub mod bounds;
pub mod counts;
pub mod cross_thread;
pub mod fact;
pub mod handle_table;
pub mod histogram;
mod inherited;
pub mod invisible;
pub mod lifetime;
pub mod live;
pub mod log_linear;
pub mod packing;
pub mod pages;
mod process;
pub mod realloc;
pub mod report;
pub mod resident;
mod run;
pub mod series;
mod table;
pub mod text;

pub use analysis::{Analysis, TraceInfo};
pub use report::Report;
