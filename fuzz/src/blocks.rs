//! Bytes as operations on blocks, for the driver that the tests of `rmalloc` use.
//!
//! The first two bytes are where in memory the heap begins. Then an operation takes a byte that says what, and one or
//! three bytes with what; an end in the middle of one ends the list.

#[path = "../../rmalloc/tests/model/driver.rs"]
#[allow(unsafe_code)]
mod driver;

pub use driver::{Step, drive};

/// Longest list: the invariants are checked after each step.
const STEPS_MAX: usize = 400;
/// Memory of the heap.
pub const HEAP_BYTES: usize = 512 << 10;

/// Where the heap begins and what is done.
pub fn steps(bytes: &[u8]) -> (usize, Vec<Step>) {
    let mut rest = bytes.iter().copied();
    let mut next = || rest.next().map(usize::from);
    let mut steps = Vec::new();
    let skip = (next().unwrap_or(0) | next().unwrap_or(0) << 8) % 5000;
    while let Some(what) = next()
        && steps.len() < STEPS_MAX
    {
        let mut wide = || Some(next()? | next()? << 8);
        // Small sizes more often: the upper bits of the first byte say how many bits a size has.
        let mut size =
            || Some(wide()? % (16 << (what >> 5)).min(40_000) * (1 + (what >> 5) / 7 * 3) + 1);
        let step = match what & 31 {
            0..8 => size().map(Step::Alloc),
            8 => size().map(|size| Step::Aligned(size, (size % 13) as u32)),
            9..16 => next().map(Step::Free),
            16..19 => size().map(|size| Step::Resize(size / 7 + (what >> 5), size)),
            19..22 => next().map(Step::Lock),
            22..25 => next().map(Step::Unlock),
            25 => next().map(|pick| Step::Discardable(pick >> 1, pick & 1 != 0)),
            26..28 => Some(Step::Compact),
            _ => wide().map(Step::Stale),
        };
        let Some(step) = step else { break };
        steps.push(step);
    }
    (skip, steps)
}
