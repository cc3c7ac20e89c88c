//! Trace files of rmtrace: what they hold ([`model`]), how they are written and read, and the merged
//! stream of events ([`consumer`]). `docs/format.md` is the specification.

mod agenda;
mod ahead;
pub mod codec;
pub mod column;
pub mod consumer;
pub mod error;
pub mod events;
mod fork;
pub mod frame;
pub mod gather;
mod heap;
pub mod index;
pub mod merge;
pub mod model;
pub mod open;
mod predict;
pub mod reader;
pub mod record;
mod relay;
pub mod scan;
mod span;
mod stream;
pub mod table;
mod tie;
pub mod varint;
pub mod verify;
pub mod writer;

pub use consumer::Consumer;
pub use error::{Damage, ReadError, WriteError};
pub use events::Events;
pub use frame::{EncodedFrame, WindowEncoder};
pub use merge::{MergeOptions, MergeStats};
pub use model::*;
pub use open::open;
pub use reader::TraceReader;
pub use writer::TraceWriter;
