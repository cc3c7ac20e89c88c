//! `cargo fuzz run --features libfuzzer trace`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rmtrace_fuzz::target_trace(data));
