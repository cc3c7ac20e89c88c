//! Searches rmalloc's settings by replaying recorded traces. [`space::Space`] is what may be set, [`bench::Bench`]
//! measures one configuration on one trace ([`replayed::Replayed`] by replay), [`journal::Journal`] keeps what was
//! measured, [`tune::tune`] searches and [`report::Report`] is what follows. `docs/tuning.md` defines every figure.

pub mod bench;
pub mod chance;
pub mod error;
pub mod halving;
pub mod journal;
pub mod replayed;
pub mod report;
pub mod score;
pub mod search;
pub mod settings;
pub mod space;
pub mod text;
pub mod tune;

pub use error::TuneError;
pub use report::Report;
pub use rmalloc::config;
