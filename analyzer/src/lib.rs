//! Measures over recorded allocator events: one streaming pass ([`Analysis`]) whose memory grows with
//! the live blocks only, a [`Report`] for the run and each process, and its text form ([`text`]).
//! `docs/analysis.md` defines every figure.
#![forbid(unsafe_code)]

pub mod analysis;
pub mod between_marks;
pub mod counts;
pub mod cross_thread;
pub mod fact;
mod grid;
pub mod growth;
pub mod handle_table;
pub mod histogram;
mod inherited;
pub mod invisible;
pub mod lifetime;
pub mod live;
pub mod log_linear;
pub mod odd_requests;
pub mod outlive;
pub mod phases;
mod process;
pub mod rates;
pub mod realloc;
pub mod report;
pub mod resident;
mod run;
pub mod series;
mod table;
pub mod tally;
pub mod text;

pub use analysis::{Analysis, TraceInfo};
pub use report::Report;
