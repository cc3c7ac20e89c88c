//! Draws a heap before and after a full compaction, as SVG on standard output: `docs/heap-map.svg` is its output.
//!
//! This file owns what the heap holds and how it is drawn; what lies where is told by `rmalloc::map`.
//! The output is always the same: fixed seed, memory at a page's beginning, no clock.

use rmalloc::map::{Held, Holds};
use rmalloc::{Error, LocalHeap, Stats};
use std::fmt::Write;
use std::mem::MaybeUninit;

/// Bytes of the heap, and of each row of the picture.
const HEAP_BYTES: usize = 1 << 20;
const ROW_BYTES: u64 = 32 << 10;
const ROWS: u64 = HEAP_BYTES as u64 / ROW_BYTES;
/// A row of the picture, in pixels.
const WIDTH: u64 = 820;
const HEIGHT: u64 = 8;
/// Name in the legend and colour of each state.
const STATES: [(&str, &str); 5] = [
    ("live", "#2f7ed8"),
    ("locked", "#d6336c"),
    ("free, page in use", "#f0b429"),
    ("tables", "#808080"),
    ("free page", "#80808030"),
];

/// Memory that begins where a page does.
#[repr(C, align(4096))]
struct Memory([MaybeUninit<u8>; HEAP_BYTES]);

/// What was drawn: the sums of the map, in bytes and blocks, beside the heap's own.
#[derive(Clone, Copy, Default)]
pub struct Panel {
    /// Bytes of live blocks, locked ones with them.
    pub live_bytes: u64,
    /// Blocks that live.
    pub live_blocks: u64,
    /// Of these, blocks that are locked.
    pub locked_blocks: u64,
    /// Of these, blocks with pages of their own.
    pub large_blocks: u64,
    /// Bytes of pages in use, without tables.
    pub resident_bytes: u64,
    /// Of these, in spans that hold nothing.
    pub dirty_bytes: u64,
    /// Bytes of address range in use, tables included.
    pub span_bytes: u64,
    /// What the heap says.
    pub stats: Stats,
}

/// Ranges of one state, as lines; neighbours are one.
struct Lines {
    paths: [String; STATES.len()],
    last: Option<(usize, u64, u64)>,
}

impl Lines {
    /// Adds bytes `from..to`.
    fn add(&mut self, state: usize, from: u64, to: u64) {
        if from == to {
            return;
        }
        match &mut self.last {
            Some((last, _, end)) if *last == state && *end == from => *end = to,
            _ => {
                self.flush();
                self.last = Some((state, from, to));
            }
        }
    }

    /// Writes the last range, a line for each row it touches; x counts 16 bytes.
    fn flush(&mut self) {
        let Some((state, mut from, to)) = self.last.take() else {
            return;
        };
        while from < to {
            let row = from / ROW_BYTES;
            let end = to.min((row + 1) * ROW_BYTES);
            let (x, length) = (from % ROW_BYTES / 16, (end - from) / 16);
            let _ = write!(self.paths[state], "M{x} {row}h{length}");
            from = end;
        }
    }
}

/// Draws the heap at height `top`.
fn panel(heap: &LocalHeap, svg: &mut String, title: &str, top: u64) -> Panel {
    let mut sums = Panel {
        stats: heap.stats(),
        ..Panel::default()
    };
    let mut lines = Lines {
        paths: Default::default(),
        last: None,
    };
    for piece in heap.map() {
        let end = piece.offset + piece.bytes;
        sums.resident_bytes += piece.resident_bytes;
        if !matches!(piece.holds, Holds::Free) {
            sums.span_bytes += piece.bytes;
        }
        match piece.holds {
            Holds::Free => {
                let state = if piece.resident_bytes > 0 { 2 } else { 4 };
                sums.dirty_bytes += piece.resident_bytes;
                lines.add(state, piece.offset, end);
            }
            Holds::Large { locked } => {
                sums.live_blocks += 1;
                sums.large_blocks += 1;
                sums.locked_blocks += locked as u64;
                sums.live_bytes += piece.resident_bytes;
                let middle = piece.offset + piece.resident_bytes;
                lines.add(locked as usize, piece.offset, middle);
                lines.add(4, middle, end);
            }
            Holds::Slots(region) => {
                let class = region.class();
                let begin = piece.offset + class.first_slot as u64;
                lines.add(
                    if class.reverse_inside { 3 } else { 4 },
                    piece.offset,
                    begin,
                );
                let mut at = begin;
                for slot in region.slots() {
                    let state = match slot.held {
                        Held::Block => 0,
                        Held::Locked => 1,
                        Held::Free => 2,
                        Held::Unused => 4,
                    };
                    if state < 2 {
                        sums.live_blocks += 1;
                        sums.locked_blocks += state as u64;
                        sums.live_bytes += slot.bytes as u64;
                    }
                    at = slot.offset + slot.bytes as u64;
                    lines.add(state, slot.offset, at);
                }
                // Behind the last slot: the rest of its page, and pages that are never used.
                let page = (at - 1 - piece.offset) / 4096;
                let page_end = piece.offset + (page + 1) * 4096;
                let is_used = page < 64 && region.pages >> page & 1 != 0;
                lines.add(if is_used { 2 } else { 4 }, at, page_end);
                lines.add(4, page_end, end);
            }
            _ => lines.add(3, piece.offset, end),
        }
    }
    lines.flush();
    let _ = writeln!(
        svg,
        "<text x=\"20\" y=\"{}\" class=\"head\">{title}</text>\n<text x=\"20\" y=\"{}\">live {} bytes in {} blocks, \
         {} of them locked; pages in use {} bytes; share live {:.1} %</text>",
        top,
        top + 18,
        sums.live_bytes,
        sums.live_blocks,
        sums.locked_blocks,
        sums.resident_bytes,
        sums.live_bytes as f64 * 100.0 / sums.resident_bytes as f64
    );
    let _ = writeln!(
        svg,
        "<g transform=\"translate(20 {}) scale({} {HEIGHT}) translate(0 .5)\" fill=\"none\" stroke-width=\".85\">",
        top + 26,
        WIDTH as f64 / (ROW_BYTES / 16) as f64
    );
    for ((name, colour), path) in STATES.iter().zip(&lines.paths) {
        let _ = writeln!(
            svg,
            "<path stroke=\"{colour}\" d=\"{path}\"><title>{name}</title></path>"
        );
    }
    svg.push_str("</g>\n");
    sums
}

/// Fills the heap, frees two thirds, draws it, compacts it, draws it again: the SVG and the sums of both panels.
///
/// # Errors
/// The heap's.
pub fn draw() -> Result<(String, [Panel; 2]), Error> {
    // SAFETY: bytes that need no value.
    let mut memory: Box<Memory> = unsafe { Box::new_uninit().assume_init() };
    let heap = LocalHeap::new(&mut memory.0, None)?;
    let mut state = 2015u64;
    let mut random = move || {
        // Knuth's linear congruential generator (MMIX); its high bits.
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let mut blocks = Vec::new();
    for number in 0..2400 {
        let size = match number % 400 {
            399 => 9000,
            _ => [32, 64, 100, 200, 320, 500][random() % 6],
        };
        blocks.push(heap.alloc(size)?);
    }
    let mut kept = Vec::new();
    for block in blocks {
        if random() % 3 == 0 {
            kept.push(block);
        } else {
            heap.free(block)?;
        }
    }
    for block in kept.iter().step_by(40) {
        heap.lock(*block)?;
    }
    let second = 100 + ROWS * HEIGHT + 60;
    let height = second + ROWS * HEIGHT + 46;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {height}\" width=\"860\" height=\"{height}\" \
         role=\"img\">\n<title>A heap of rmalloc before and after compaction</title>\n<style>text{{font:13px \
         sans-serif;fill:#767676}}.head{{font-weight:bold;font-size:15px}}</style>\n<text x=\"20\" y=\"24\">1 MiB of \
         addresses; each row is 32 KiB, the lowest address is at the top left</text>\n"
    );
    let mut x = 20;
    for (name, colour) in STATES {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"40\" width=\"14\" height=\"14\" fill=\"{colour}\" stroke=\"#767676\" \
             stroke-width=\".5\"/><text x=\"{}\" y=\"52\">{name}</text>",
            x + 20
        );
        x += 50 + name.len() * 7;
    }
    let before = panel(&heap, &mut svg, "Before: two thirds were freed", 84);
    heap.compact(0);
    let after = panel(&heap, &mut svg, "After a full compaction", second);
    svg.push_str("</svg>\n");
    Ok((svg, [before, after]))
}

fn main() -> Result<(), Error> {
    print!("{}", draw()?.0);
    Ok(())
}
