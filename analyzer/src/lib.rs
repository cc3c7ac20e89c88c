//! Measures over recorded allocator events: one streaming pass ([`Analysis`]) whose memory grows with
//! the live blocks only, a [`Report`] for the run and each process, and its text form ([`text`]).
//! `docs/analysis.md` defines every figure.
#![forbid(unsafe_code)]

pub mod advice;
pub mod analysis;
pub mod counts;
pub mod cross_thread;
pub mod fact;
pub mod handle_table;
pub mod handles;
mod heritage;
pub mod histogram;
pub mod invisible;
pub mod ledger;
pub mod lifetime;
pub mod live;
pub mod log_linear;
mod measures;
pub mod pipeline;
pub mod realloc;
pub mod report;
pub mod resident;
mod run;
pub mod series;
mod survey;
mod tally;
pub mod text;
pub mod worth;

pub use analysis::{Analysis, TraceInfo};
pub use pipeline::{Options, analyze};
pub use report::Report;
