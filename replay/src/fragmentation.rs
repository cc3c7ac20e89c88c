//! How well an allocator fills what it holds: usable bytes that nobody asked for, resident pages without a live block,
//! and the four measures of Johnstone and Wilson on resident bytes. `docs/replay.md` defines them.

use crate::program::Point;
use crate::task::{Memory, Pages};
use serde::Serialize;

/// Bytes of a page.
const PAGE_BYTES: u64 = 4096;

/// Usable bytes that nobody asked for, over usable bytes, of live blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Internal {
    /// Of the sums over recorded time.
    pub mean: f64,
    /// At the peak of live bytes.
    pub at_peak: f64,
    /// At each point.
    pub series: Vec<f64>,
}

/// Live blocks and the pages they lie on at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PageUse {
    /// Nanoseconds since the run's first record.
    pub time_ns: u64,
    /// Bytes of the pages of 4 KiB that hold a byte of a live block.
    pub used_bytes: u64,
    /// Requested bytes of live blocks over these.
    pub filled: f64,
    /// Share of resident bytes that are on none of them.
    pub empty_share: f64,
}

/// Resident over live bytes, as Johnstone and Wilson measure fragmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct JohnstoneWilson {
    /// Mean over recorded time of resident over live bytes.
    pub mean_over_time: f64,
    /// Resident over live bytes at the peak of live bytes.
    pub at_peak_live: f64,
    /// The most resident over what was live then.
    pub at_peak_resident: f64,
    /// The most resident over the most live, whenever each was.
    pub peak_over_peak: f64,
}

fn share(part: u64, of: u64) -> f64 {
    match of {
        0 => 0.0,
        of => part as f64 / of as f64,
    }
}

/// From a memory round; `None`: the allocator does not tell usable bytes.
pub fn internal(memory: &Memory, points: &[Point], peak_live_bytes: u64) -> Option<Internal> {
    let at_peak = memory.usable_at_peak_bytes?;
    let wasted = |(usable, point): (&u64, &Point)| usable.saturating_sub(point.live_bytes);
    let pairs = || memory.usable_bytes.iter().zip(points);
    Some(Internal {
        mean: share(pairs().map(wasted).sum(), memory.usable_bytes.iter().sum()),
        at_peak: share(at_peak.saturating_sub(peak_live_bytes), at_peak),
        series: pairs().map(|pair| share(wasted(pair), *pair.0)).collect(),
    })
}

/// From a memory round in which every page of each block was touched.
pub fn pages(memory: &Memory, points: &[Point]) -> Vec<PageUse> {
    let seen = memory.pages.iter();
    seen.map(|seen: &Pages| {
        let used_bytes = seen.used * PAGE_BYTES;
        PageUse {
            time_ns: points.get(seen.point).map_or(0, |point| point.time_ns),
            used_bytes,
            filled: share(seen.live_bytes, used_bytes),
            empty_share: share(
                seen.resident_bytes.saturating_sub(used_bytes),
                seen.resident_bytes,
            ),
        }
    })
    .collect()
}

/// From a memory round. Points at which nothing is live have no ratio and are left out.
pub fn johnstone_wilson(
    memory: &Memory,
    points: &[Point],
    peak_live_bytes: u64,
) -> JohnstoneWilson {
    let pairs = memory.resident_bytes.iter().copied().zip(points);
    let at_peak = (memory.at_peak_bytes, peak_live_bytes);
    let mut ratios = Vec::new();
    let mut most = at_peak;
    for (resident, point) in pairs.filter(|(_, point)| point.live_bytes != 0) {
        ratios.push(share(resident, point.live_bytes));
        if resident > most.0 {
            most = (resident, point.live_bytes);
        }
    }
    JohnstoneWilson {
        mean_over_time: ratios.iter().sum::<f64>() / ratios.len().max(1) as f64,
        at_peak_live: share(at_peak.0, at_peak.1),
        at_peak_resident: share(most.0, most.1),
        peak_over_peak: share(most.0, peak_live_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three points, worked out by hand.
    #[test]
    fn a_small_heap_by_hand() {
        let point = |time_ns, live_bytes| Point {
            time_ns,
            live_bytes,
            ..Point::default()
        };
        let points = [point(1, 0), point(2, 1_000), point(3, 8_000)];
        let memory = Memory {
            resident_bytes: vec![0, 4_096, 40_960],
            usable_bytes: vec![0, 2_000, 10_000],
            usable_at_peak_bytes: Some(12_000),
            at_peak_bytes: 36_864,
            pages: vec![Pages {
                point: 2,
                used: 5,
                resident_bytes: 40_960,
                live_bytes: 8_000,
            }],
            ..Memory::default()
        };
        let internal = internal(&memory, &points, 9_000).unwrap();
        assert_eq!((internal.mean, internal.at_peak), (0.25, 0.25));
        assert_eq!(internal.series, [0.0, 0.5, 0.2]);
        let pages = pages(&memory, &points);
        assert_eq!(
            (pages[0].time_ns, pages[0].used_bytes, pages[0].empty_share),
            (3, 20_480, 0.5)
        );
        assert_eq!(
            johnstone_wilson(&memory, &points, 9_000),
            JohnstoneWilson {
                mean_over_time: (4.096 + 5.12) / 2.0,
                at_peak_live: 4.096,
                at_peak_resident: 5.12,
                peak_over_peak: 40_960.0 / 9_000.0,
            }
        );
        assert_eq!(super::internal(&Memory::default(), &points, 9_000), None);
    }
}
