//! Records and spool layout shared by the interposer and the readers of rmtrace.
//!
//! This crate owns the bytes that cross from the traced program to its readers: the record of one
//! call ([`record`]), the header of a chunk of records ([`chunk`]) and the shared memory that
//! chunks live in ([`spool`]); and the words of the event stream that readers deliver ([`event`]).
//! It has no file access, no allocation and no unsafe code. `docs/format.md` is the specification.
#![no_std]
#![forbid(unsafe_code)]

pub mod chunk;
pub mod event;
pub mod record;
pub mod spool;

pub use event::{Entry, Event, Kind, Step};
