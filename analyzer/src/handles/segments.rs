//! Segments of a table that hold a live entry, against those that so many entries need. What is held
//! and not needed is stranded: it can't be given back, because an entry has no other place.

use super::quotient;
use serde::Serialize;

/// Segments of one size, in a table that gives out the entry freed last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SegmentReport {
    /// Entries of a segment.
    pub entries: u64,
    /// Most segments that held a live entry.
    pub held_peak: u64,
    /// Mean over time, in thousandths.
    pub held_mean_milli: u64,
    /// At the end.
    pub held_at_end: u64,
    /// Most segments that were held and not needed at once.
    pub stranded_most: u64,
    /// When that was first so.
    pub stranded_most_at_ns: u64,
    /// Mean over time, in thousandths.
    pub stranded_mean_milli: u64,
    /// At the end.
    pub stranded_at_end: u64,
}

/// A number that seldom changes, and its integral over time (modulo 2^128; what it is at the end
/// counts as ending there).
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    now: u64,
    area: u128,
}

impl Count {
    fn add(&mut self, now_ns: u64) {
        self.now += 1;
        self.area = self.area.wrapping_sub(now_ns.into());
    }

    fn sub(&mut self, now_ns: u64) {
        self.now = self.now.saturating_sub(1);
        self.area = self.area.wrapping_add(now_ns.into());
    }

    fn integral(&self, end_ns: u64) -> u128 {
        self.area
            .wrapping_add(u128::from(self.now) * u128::from(end_ns))
    }
}

/// Held and needed segments of one size.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    held: Count,
    held_most: u64,
    needed: Count,
    stranded_most: u64,
    stranded_most_at_ns: u64,
}

impl Track {
    /// Brings `needed` to what `live` entries need (the change is by one at most) and compares.
    fn compare(&mut self, now_ns: u64, live: u64, entries: u64) {
        let needed = live.div_ceil(entries);
        if needed > self.needed.now {
            self.needed.add(now_ns);
        } else if needed < self.needed.now {
            self.needed.sub(now_ns);
        }
        self.held_most = self.held_most.max(self.held.now);
        let stranded = self.held.now.saturating_sub(needed);
        if stranded > self.stranded_most {
            self.stranded_most = stranded;
            self.stranded_most_at_ns = now_ns;
        }
    }

    fn report(&self, entries: u64, end_ns: u64, duration_ns: u64) -> SegmentReport {
        let held = self.held.integral(end_ns);
        let stranded = held.wrapping_sub(self.needed.integral(end_ns));
        let milli = |area: u128| quotient(area.saturating_mul(1000), duration_ns);
        SegmentReport {
            entries,
            held_peak: self.held_most,
            held_mean_milli: milli(held),
            held_at_end: self.held.now,
            stranded_most: self.stranded_most,
            stranded_most_at_ns: self.stranded_most_at_ns,
            stranded_mean_milli: milli(stranded),
            stranded_at_end: self.held.now.saturating_sub(self.needed.now),
        }
    }
}

/// Entries of the segments that are followed when the entry freed last is given out.
pub(super) const SIZES: [u64; 3] = [64, 512, 4096];

/// Follows the segments: a bit an entry, and for each 512 and 4,096 a byte that counts the eighths which
/// hold a live one.
#[derive(Clone, Debug, Default)]
pub(super) struct Segments {
    words: Vec<u64>,
    eighths: [Vec<u8>; 2],
    tracks: [Track; 3],
}

impl Segments {
    /// Segments of 512 entries, a page of 4 KiB each, that hold a live one.
    #[inline]
    pub fn pages_held(&self) -> u64 {
        self.tracks[1].held.now
    }

    /// Entry `handle` is given out; `live` are in use now. Whether any segment came, or is needed.
    #[inline]
    pub fn take(&mut self, now_ns: u64, handle: u32, live: u64) -> bool {
        let at = handle as usize / 64;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let word = &mut self.words[at];
        let came = *word == 0;
        *word |= 1 << (handle % 64);
        let changed = came | (live % 64 == 1);
        if changed {
            self.changed(now_ns, live, at, i8::from(came));
        }
        changed
    }

    /// Entry `handle` is given back; `live` are left. Whether any segment went, or is not needed.
    #[inline]
    pub fn give(&mut self, now_ns: u64, handle: u32, live: u64) -> bool {
        let at = handle as usize / 64;
        let Some(word) = self.words.get_mut(at) else {
            return false;
        };
        let was = *word;
        *word &= !(1 << (handle % 64));
        let went = (was != 0) & (*word == 0);
        let changed = went | live.is_multiple_of(64);
        if changed {
            self.changed(now_ns, live, at, -i8::from(went));
        }
        changed
    }

    #[inline(never)]
    fn changed(&mut self, now_ns: u64, live: u64, mut at: usize, by: i8) {
        let mut by = by;
        for (level, track) in self.tracks.iter_mut().enumerate() {
            match by {
                1 => track.held.add(now_ns),
                -1 => track.held.sub(now_ns),
                _ => {}
            }
            track.compare(now_ns, live, SIZES[level]);
            let Some(counts) = self.eighths.get_mut(level) else {
                break;
            };
            at /= 8;
            if at >= counts.len() {
                counts.resize(at + 1, 0);
            }
            let was = counts[at];
            counts[at] = was.saturating_add_signed(by);
            // The segment of the next size comes with its first eighth and goes with its last.
            by = i8::from(counts[at] != 0) - i8::from(was != 0);
        }
    }

    pub fn reports(&self, end_ns: u64, duration_ns: u64) -> Vec<SegmentReport> {
        let with_sizes = self.tracks.iter().zip(SIZES);
        with_sizes
            .map(|(track, entries)| track.report(entries, end_ns, duration_ns))
            .filter(|segments| segments.held_peak != 0)
            .collect()
    }
}
