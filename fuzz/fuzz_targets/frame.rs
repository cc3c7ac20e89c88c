//! `cargo fuzz run --features libfuzzer frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rmtrace_fuzz::target_frame(data));
