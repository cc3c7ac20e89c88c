//! How long a process has how many entries in use, and how many blocks are born there: the numbers of
//! entries are cut into buckets of at most 1/16 of a number.

use crate::log_linear::LogLinear;
use serde::Serialize;

type Buckets = LogLinear<4>;

/// Time and births with more than a number of entries in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Over {
    /// The number of entries.
    pub entries: u64,
    /// How long more than that were in use, in nanoseconds.
    pub time_ns: u64,
    /// Blocks born into that: allocations that a table of so many entries has no room for.
    pub births: u64,
}

/// Collects time and births by entries in use. The bucket at hand is kept apart: as long as the number
/// stays within its bounds, a change costs a compare.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    /// Nanoseconds and births of each bucket, as far as any was used.
    buckets: Vec<(u64, u64)>,
    low: u64,
    high: u64,
    since_ns: u64,
    births: u64,
}

impl Levels {
    pub fn new(start_ns: u64) -> Levels {
        Levels {
            buckets: Vec::new(),
            low: 0,
            high: 0,
            since_ns: start_ns,
            births: 0,
        }
    }

    /// A block was born; now `live` are.
    #[inline]
    pub fn rise(&mut self, now_ns: u64, live: u64) {
        if live > self.high {
            self.turn(now_ns, live);
        }
        self.births += 1;
    }

    /// A block ended; now `live` are left.
    #[inline]
    pub fn fall(&mut self, now_ns: u64, live: u64) {
        if live < self.low {
            self.turn(now_ns, live);
        }
    }

    #[inline(never)]
    fn turn(&mut self, now_ns: u64, live: u64) {
        let bucket = Buckets::index(self.low);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, (0, 0));
        }
        let (time_ns, births) = &mut self.buckets[bucket];
        *time_ns = time_ns.saturating_add(now_ns.saturating_sub(self.since_ns));
        *births += std::mem::take(&mut self.births);
        self.since_ns = self.since_ns.max(now_ns);
        (self.low, self.high) = Buckets::bounds(Buckets::index(live));
    }

    /// No change until now, and none after.
    pub fn end(&mut self, now_ns: u64) {
        self.turn(now_ns, self.low);
    }

    /// Time and births above each bucket that ends at a sixteenth of `peak` or above, and above the
    /// peak; by number of entries.
    pub fn over(&self, peak: u64) -> Vec<Over> {
        let mut points: Vec<Over> = Vec::new();
        let (mut time_ns, mut births) = (0u64, 0u64);
        for (bucket, of) in self.buckets.iter().enumerate().rev() {
            let entries = Buckets::bounds(bucket).1.min(peak);
            if entries < peak / 16 {
                break;
            }
            points.push(Over {
                entries,
                time_ns,
                births,
            });
            time_ns = time_ns.saturating_add(of.0);
            births += of.1;
        }
        points.reverse();
        points
    }

    /// The end of the first bucket above which at most `part` in `of` of the time was spent; never
    /// more than `peak`.
    pub fn enough_for(&self, part: u64, of: u64, peak: u64) -> u64 {
        let all = self.buckets.iter().map(|(time_ns, _)| *time_ns);
        let total = all.fold(0, u64::saturating_add);
        let mut left = total;
        for (bucket, (time_ns, _)) in self.buckets.iter().enumerate() {
            left = left.saturating_sub(*time_ns);
            if u128::from(left) * u128::from(of) <= u128::from(total) * u128::from(part) {
                return Buckets::bounds(bucket).1.min(peak);
            }
        }
        0
    }
}
