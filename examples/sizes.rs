//! How large are the blocks that a program asks for? A histogram by powers of two; every event is seen
//! once, in time order, and none is kept.
//!
//!     cargo run --release --example sizes -- traces/python.rmt

use rmtrace::format::Step;
use std::error::Error;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

/// Writes the histogram of `trace` to `out`.
pub fn run(trace: &Path, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let mut blocks = [0u64; 65];
    rmtrace::file::open(trace)?.for_each_event(|event| {
        // A realloc of NULL makes a block too; its second half says so.
        let asks =
            event.step == Step::Alloc || event.step == Step::ReallocEnd && event.old_address == 0;
        if asks && event.address != 0 {
            let bits = u64::BITS - event.requested_bytes.leading_zeros();
            blocks[bits as usize] += 1;
        }
        ControlFlow::Continue(())
    })?;
    for (bits, count) in blocks.iter().enumerate().filter(|(_, count)| **count > 0) {
        let low = (1u128 << bits) >> 1;
        writeln!(out, "{low:>12} bytes and more {count:>10}")?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let trace = std::env::args().nth(1).ok_or("usage: sizes TRACE")?;
    run(Path::new(&trace), &mut std::io::stdout().lock())
}
