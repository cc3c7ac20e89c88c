//! `cargo fuzz run --features libfuzzer rmalloc`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rmtrace_fuzz::target_rmalloc(data));
