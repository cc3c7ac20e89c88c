//! Names that come and go in blocks that move: memory before and after a compaction, while one name is being read.

use rmalloc::{Error, Heap, Options};
use std::time::Duration;

fn main() -> Result<(), Error> {
    let heap = Heap::with(&Options::new().compact_inline(false))?;
    let mut names = Vec::new();
    for number in 0..100_000u32 {
        names.push(heap.alloc_slice(
            format!("name {number} {}", "x".repeat(number as usize % 200)).as_bytes(),
        )?);
    }
    let mut number = 0;
    names.retain(|_| {
        number += 1;
        number % 5 == 0
    });
    let reading = names[1000].lock();
    let before = heap.stats();
    let done = heap.compact(Duration::ZERO)?;
    let after = heap.stats();
    println!(
        "live {:.1} MB; resident {:.1} MB before, {:.1} MB after",
        mb(after.live_bytes),
        mb(before.resident_bytes),
        mb(after.resident_bytes)
    );
    println!(
        "{} blocks moved, {} met locked",
        done.blocks_moved, done.blocks_pinned
    );
    println!("still here: {}", String::from_utf8_lossy(&reading[..10]));
    Ok(())
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
