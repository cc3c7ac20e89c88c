//! tcmalloc of gperftools 2.10. Source: `src/common.cc` there (how classes are made when a program
//! starts) and `docs/tcmalloc.html`. Debian's build has pages of 8 KiB.
//!
//! Candidates are multiples of 8 below 16, of 16 to 128, then of an eighth of the power of two below,
//! 8 KiB at most, to 256 KiB. A candidate gets as many pages as leave less than an eighth of them over
//! and as hold a quarter of the blocks that threads fetch at once. If the class before has as many
//! pages and they hold as many blocks, the candidate takes its place: the smaller one would waste the
//! difference anyway. Larger blocks get whole pages.

use super::up;

const PAGE: u64 = 8 << 10;
const CLASS_MAX: u64 = 256 << 10;

/// Blocks that move between a thread and the common lists at once: about 64 KiB, 2 to 32 of them.
const fn moved_at_once(bytes: u64) -> u64 {
    match 65_536 / bytes {
        0..2 => 2,
        blocks @ 2..=32 => blocks,
        _ => 32,
    }
}

/// Bytes of the pages that a class takes at once.
const fn span(bytes: u64) -> u64 {
    let mut span = PAGE;
    while span % bytes > span / 8 || span / bytes < moved_at_once(bytes) / 4 {
        span += PAGE;
    }
    span
}

/// From one candidate to the next.
const fn step(bytes: u64) -> u64 {
    match bytes {
        0..16 => 8,
        16..128 => 16,
        _ => {
            let eighth = (1 << bytes.ilog2()) / 8;
            if eighth < PAGE { eighth } else { PAGE }
        }
    }
}

/// Goes through the candidates, writes the classes, and tells how many they are.
const fn make(classes: &mut [u64]) -> usize {
    let mut count = 0;
    let mut bytes = 8;
    while bytes <= CLASS_MAX {
        let is_as_before = count != 0 && {
            let before = classes[count - 1];
            span(before) == span(bytes) && span(before) / before == span(bytes) / bytes
        };
        if !is_as_before {
            count += 1;
        }
        classes[count - 1] = bytes;
        bytes += step(bytes);
    }
    count
}

/// More than there are.
const ROOM: usize = 128;
const COUNT: usize = make(&mut [0; ROOM]);
static CLASSES: [u64; COUNT] = {
    let mut room = [0; ROOM];
    make(&mut room);
    let mut classes = [0; COUNT];
    let mut at = 0;
    while at < COUNT {
        classes[at] = room[at];
        at += 1;
    }
    classes
};

pub fn usable(bytes: u64) -> u64 {
    let class = CLASSES.partition_point(|class| *class < bytes);
    CLASSES
        .get(class)
        .copied()
        .unwrap_or_else(|| up(bytes, PAGE))
}
