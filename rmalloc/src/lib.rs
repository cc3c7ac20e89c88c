//! A relocatable allocator: a block is named by a handle, locked to be used, and may move while it is not locked.
#![cfg_attr(not(feature = "system"), no_std)]

pub mod class;
pub mod config;

#[cfg(any(test, feature = "check"))]
pub mod check;

#[cfg(feature = "system")]
mod background;
mod cache;
mod compact;
mod entry;
mod evacuate;
#[cfg(feature = "system")]
pub mod ffi;
#[cfg(feature = "checked")]
pub mod guarded;
#[cfg(not(feature = "checked"))]
mod guarded;
mod handle;
mod heap;
mod local;
pub mod map;
mod mutex;
#[cfg(feature = "system")]
mod os;
mod platform;
mod region;
mod span;
mod stats;
mod status;
#[cfg(feature = "system")]
mod system;
#[cfg_attr(
    feature = "beside",
    allow(dead_code, reason = "its counters alone are in use")
)]
mod table;
#[cfg(feature = "system")]
mod thread;
pub mod typed;

pub use compact::Compaction;
pub use handle::RawHandle;
pub use local::LocalHeap;
pub use stats::Stats;
pub use status::Error;
pub use typed::{Guard, GuardMut, Handle, TypedLocalHeap};
#[cfg(feature = "system")]
pub use typed::{Heap, Options};
