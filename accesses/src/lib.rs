//! Memory accesses of a recorded program: what Valgrind's lackey says of each load and store, matched to the block that
//! was live at the address at that moment. [`line`](mod@line) reads lackey's text, [`matcher`] matches, [`file`](mod@file)
//! has the form of an `.rma` file. `docs/accesses.md` defines all of it.

#![forbid(unsafe_code)]

mod block;
mod dead;
pub mod error;
pub mod file;
mod frame;
pub mod line;
pub mod maps;
pub mod matcher;
pub mod record;
mod spool;
pub mod summary;
mod varint;

pub use error::AccessError;
pub use file::{AccessFile, Writer};
pub use matcher::Matcher;
pub use record::{BlockRecord, Span};
pub use summary::Summary;
