//! `cargo fuzz run --features libfuzzer analyze`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rmtrace_fuzz::target_analyze(data));
