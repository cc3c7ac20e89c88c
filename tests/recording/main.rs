//! Real programs under the interposer, bare and under `rmtrace record`: what they called is in the
//! trace, and they never notice.
//!
//! The programs are in `tests/programs`; [`harness`] builds, runs and reads. Tests that need a
//! program which is not installed say `skipped:` and pass, unless `RMTRACE_CI` is set.

mod allocators;
mod browsers;
mod collector;
mod counted;
mod crowds;
mod ctl;
mod display;
mod dynamic;
mod endings;
mod exceptions;
mod fork;
mod harness;
mod invisible;
mod library;
mod limits;
mod long;
mod order;
mod own_allocator;
mod places;
mod programs;
mod reports;
mod resizes;
mod runtimes;
mod sandbox;
mod seccomp;
mod signals;
mod small;
mod threads;
mod unchanged;
mod unrecordable;
