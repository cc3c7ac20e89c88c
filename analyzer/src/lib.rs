//! Measures over recorded allocator events: one streaming pass ([`Analysis`]) whose memory grows with
//! the live blocks only, a [`Report`] for the run and each process, and its text form ([`text`]).
//! `docs/analysis.md` defines every figure.
#![deny(unsafe_code)]

pub mod advice;
pub mod age;
pub mod analysis;
pub mod best_classes;
pub mod between_marks;
pub mod bounds;
pub mod counts;
pub mod cross_thread;
pub mod details;
pub mod exact_sizes;
pub mod fact;
mod fates;
mod first;
mod grid;
pub mod growth;
pub mod handle_table;
pub mod handles;
mod heritage;
pub mod histogram;
pub mod invisible;
pub mod ledger;
pub mod lifetime;
pub mod lifetime_by_thread;
pub mod live;
pub mod log_linear;
mod measures;
pub mod odd_requests;
pub mod outlive;
pub mod packing;
pub mod pages;
pub mod phases;
pub mod pipeline;
mod prefetch;
pub mod rates;
mod ratio;
pub mod realloc;
pub mod report;
pub mod resident;
mod run;
pub mod series;
pub mod size_classes;
mod survey;
pub mod survival;
pub mod tally;
pub mod temporary;
pub mod text;
pub mod thread_matrix;
pub mod worth;

pub use analysis::{Analysis, TraceInfo};
pub use pipeline::{Options, analyze};
pub use report::Report;
