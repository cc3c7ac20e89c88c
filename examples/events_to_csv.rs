//! The first events of a trace as CSV, through an iterator. `rmtrace export --events` writes all of them,
//! and as Parquet too.
//!
//!     cargo run --release --example events_to_csv -- traces/gcc.rmt 20

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Writes the first `count` events of `trace` to `out`.
pub fn run(trace: &Path, count: usize, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let reader = Arc::new(rmtrace::file::open(trace)?);
    writeln!(out, "time_ns,process,thread,call,bytes,address")?;
    for event in reader.events().take(count) {
        let event = event?;
        writeln!(
            out,
            "{},{},{},{},{},{:#x}",
            event.time_ns,
            event.process,
            event.thread,
            event.entry.name(),
            event.requested_bytes,
            event.address
        )?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let trace = arguments
        .next()
        .ok_or("usage: events_to_csv TRACE [COUNT]")?;
    let count = arguments.next().map_or(Ok(100), |count| count.parse())?;
    run(Path::new(&trace), count, &mut std::io::stdout().lock())
}
