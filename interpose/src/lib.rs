//! `librmtrace.so`: records the allocator calls of the program it is preloaded into.
//!
//! Exported are the allocation functions ([`hooks`]), the longjmp family ([`longjmp`]), `__libc_start_main`
//! ([`start`]) and what programs may call themselves ([`marks`]), nothing else. The way of a call: [`hooks`] -> [`thread`] (guard, stamp, record) ->
//! [`spool`] (chunks). [`process`] tells forks apart, [`start`] sets everything up, [`detours`] decides what is
//! hooked and how, [`patch`] reaches allocators that do not come from a library behind ours.
//!
//! No std, no allocation outside of the constructor, no panic, no lock, no thread, no libc.
#![no_std]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

extern crate alloc;

mod arena;
mod bootstrap;
mod clock;
mod detours;
mod elf;
mod family;
mod hooks;
mod longjmp;
mod marks;
mod memory;
mod patch;
mod process;
mod rundir;
mod spool;
mod start;
mod symtab;
mod sys;
mod text;
mod thread;

/// Nothing here panics; if the compiler disagrees the program stops where it happened.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::abort()
}
