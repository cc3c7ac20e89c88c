//! From stamps to ticks.
//!
//! Stamps are TSC values, or CLOCK_MONOTONIC nanoseconds in spools that say so. A [`Clock`] holds
//! readings of both ("knots") and interpolates between them, in fixed point and rounding downwards,
//! so that a later stamp never gets an earlier tick. All processes share one clock and its origin.

use rmtrace_format::chunk::Triple;

/// Readings that differ from the interpolation by more than this are reported.
pub const DISAGREEMENT_NS: u64 = 1000;
/// A rise of CLOCK_BOOTTIME over CLOCK_MONOTONIC that counts as a suspend.
pub const SUSPEND_NS: u64 = 1_000_000;
/// Knots are at least this far apart when made from the readings of chunks.
const KNOT_SPACING_NS: u64 = 10_000_000;
/// Fraction bits of ticks.
const FRACTION: u32 = 48;

/// The last tick that there can be.
const LIMIT: u128 = (u64::MAX as u128) << FRACTION;

/// What a stamp is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamps {
    /// A TSC value.
    #[default]
    Tsc,
    /// CLOCK_MONOTONIC in nanoseconds.
    Monotonic,
}

impl Stamps {
    /// The stamp of a reading.
    pub fn of(self, triple: &Triple) -> u64 {
        match self {
            Stamps::Tsc => triple.tsc,
            Stamps::Monotonic => triple.monotonic_ns,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Knot {
    stamp: u64,
    monotonic_ns: u64,
    /// Ticks at the knot, with [`FRACTION`] bits of fraction.
    ticks: u128,
    /// Ticks per unit of the stamp behind it, with [`FRACTION`] bits of fraction, rounded upwards so
    /// that stamps on a tick get that tick.
    rate: u64,
    /// Ticks at the next knot: what rounding must not go beyond.
    limit: u128,
}

/// Converts stamps to ticks.
#[derive(Clone, Debug)]
pub struct Clock {
    origin_ns: u64,
    tick_ns: u64,
    knots: Vec<Knot>,
    monotonic: Knot,
}

/// Stamps between two knots, and their ticks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    from: u64,
    length: u64,
    ticks: u128,
    rate: u64,
    limit: u64,
}

impl Span {
    /// What [`Clock::tick`] gives for `stamp`, if it lies in the span.
    #[inline(always)]
    pub fn tick(&self, stamp: u64) -> Option<u64> {
        let ahead = stamp.wrapping_sub(self.from);
        if ahead >= self.length {
            return None;
        }
        // Does not exceed 128 bits: see `Clock::span`.
        let ticks = self
            .ticks
            .wrapping_add(u128::from(ahead) * u128::from(self.rate));
        Some(((ticks >> FRACTION) as u64).min(self.limit))
    }
}

fn ticks_at(monotonic_ns: u64, origin_ns: u64, tick_ns: u64) -> u128 {
    (u128::from(monotonic_ns.saturating_sub(origin_ns)) << FRACTION) / u128::from(tick_ns)
}

fn rate(nanoseconds: u64, stamps: u64, tick_ns: u64) -> u64 {
    let ticks = u128::from(nanoseconds) << FRACTION;
    let per = u128::from(stamps.max(1)) * u128::from(tick_ns);
    u64::try_from(ticks.div_ceil(per)).unwrap_or(u64::MAX)
}

impl Clock {
    /// A clock whose tick 0 is `origin_ns` on CLOCK_MONOTONIC. `tsc_hz` (0: unknown) serves until
    /// there are two knots.
    pub fn new(origin_ns: u64, tick_ns: u64) -> Clock {
        let tick_ns = tick_ns.max(1);
        Clock {
            origin_ns,
            tick_ns,
            knots: Vec::new(),
            monotonic: Knot {
                stamp: origin_ns,
                monotonic_ns: origin_ns,
                ticks: 0,
                rate: rate(1, 1, tick_ns),
                limit: LIMIT,
            },
        }
    }

    /// CLOCK_MONOTONIC of tick 0.
    pub fn origin_ns(&self) -> u64 {
        self.origin_ns
    }

    /// Nanoseconds of a tick.
    pub fn tick_ns(&self) -> u64 {
        self.tick_ns
    }

    /// Adds a reading behind the last one and returns whether it was taken: one that does not lie
    /// behind in both clocks is left out. `hz` (0: unknown) is the slope while there is one knot.
    /// Ticks of stamps up to the last knot but one do not change by this.
    pub fn push(&mut self, reading: &Triple, hz: u64) -> bool {
        let ticks = ticks_at(reading.monotonic_ns, self.origin_ns, self.tick_ns);
        let mut knot = Knot {
            stamp: reading.tsc,
            monotonic_ns: reading.monotonic_ns,
            ticks,
            rate: match hz {
                0 => rate(1, 1, self.tick_ns),
                hz => rate(1_000_000_000, hz, self.tick_ns),
            },
            limit: LIMIT,
        };
        if let Some(last) = self.knots.last_mut() {
            if reading.tsc <= last.stamp || reading.monotonic_ns <= last.monotonic_ns {
                return false;
            }
            last.rate = rate(
                reading.monotonic_ns - last.monotonic_ns,
                reading.tsc - last.stamp,
                self.tick_ns,
            );
            last.limit = ticks;
            knot.rate = last.rate;
        }
        self.knots.push(knot);
        true
    }

    /// The last knot's stamp and CLOCK_MONOTONIC.
    pub fn last(&self) -> Option<(u64, u64)> {
        self.knots.last().map(|k| (k.stamp, k.monotonic_ns))
    }

    /// The tick of `stamp`. `hint` is kept by the caller from one call to the next; any value will
    /// do.
    #[inline]
    pub fn tick(&self, stamp: u64, stamps: Stamps, hint: &mut usize) -> u64 {
        let knot = match stamps {
            Stamps::Monotonic => &self.monotonic,
            Stamps::Tsc => {
                let inside = self.knots.get(*hint).is_some_and(|k| k.stamp <= stamp)
                    && self.knots.get(*hint + 1).is_none_or(|k| stamp < k.stamp);
                if !inside {
                    *hint = self
                        .knots
                        .partition_point(|k| k.stamp <= stamp)
                        .saturating_sub(1);
                }
                match self.knots.get(*hint) {
                    Some(knot) => knot,
                    None => return 0,
                }
            }
        };
        let ticks = match stamp.checked_sub(knot.stamp) {
            Some(ahead) => knot
                .ticks
                .saturating_add(u128::from(ahead) * u128::from(knot.rate))
                .min(knot.limit),
            None => knot
                .ticks
                .min(LIMIT)
                .saturating_sub(u128::from(knot.stamp - stamp) * u128::from(knot.rate)),
        };
        (ticks >> FRACTION) as u64
    }

    /// The stamps around `stamp` that are converted alike. `None` where they are not: before the first
    /// knot, and where the numbers are too large for it.
    pub fn span(&self, stamp: u64, stamps: Stamps) -> Option<Span> {
        let (knot, length) = match stamps {
            Stamps::Monotonic => (&self.monotonic, u64::MAX),
            Stamps::Tsc => {
                let behind = self.knots.partition_point(|k| k.stamp <= stamp);
                let knot = self.knots.get(behind.checked_sub(1)?)?;
                let length = self
                    .knots
                    .get(behind)
                    .map_or(u64::MAX, |next| next.stamp - knot.stamp);
                (knot, length)
            }
        };
        // A month at 1 GHz and more.
        let length = length.min(1 << 52);
        let last = u128::from(length) * u128::from(knot.rate);
        if last.checked_add(knot.ticks)? > LIMIT {
            return None;
        }
        Some(Span {
            from: knot.stamp,
            length,
            ticks: knot.ticks,
            rate: knot.rate,
            limit: (knot.limit >> FRACTION) as u64,
        })
    }

    /// The tick of a reading's stamp.
    pub fn tick_of(&self, reading: &Triple, stamps: Stamps) -> u64 {
        self.tick(stamps.of(reading), stamps, &mut 0)
    }

    /// The tick of a time on CLOCK_MONOTONIC.
    pub fn tick_of_monotonic(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_sub(self.origin_ns) / self.tick_ns
    }

    /// How far a reading lies from the interpolation, if it lies between knots.
    pub fn disagreement_ns(&self, reading: &Triple) -> Option<u64> {
        let (first, last) = (self.knots.first()?, self.knots.last()?);
        if reading.tsc < first.stamp || reading.tsc > last.stamp {
            return None;
        }
        let mut hint = 0;
        let ticks = self.tick(reading.tsc, Stamps::Tsc, &mut hint);
        let ours = ticks
            .saturating_mul(self.tick_ns)
            .saturating_add(self.origin_ns);
        // The tick was rounded downwards.
        let theirs = reading.monotonic_ns;
        Some(match theirs.checked_sub(ours) {
            Some(behind) => behind.saturating_sub(self.tick_ns),
            None => ours - theirs,
        })
    }

    /// Makes knots of readings taken in any order: of those within 10 ms of each other the one whose
    /// difference of clocks is the median, so that a reading spoilt by preemption does not count.
    /// Readings before the last knot there already is are not used for knots.
    pub fn fit(&mut self, readings: &[Triple], hz: u64) -> ClockReport {
        let mut sorted: Vec<Triple> = readings
            .iter()
            .copied()
            .filter(|r| r.tsc != 0 && r.monotonic_ns != 0)
            .collect();
        sorted.sort_unstable_by_key(|r| (r.monotonic_ns, r.tsc));
        sorted.dedup();
        let behind = self.last().map_or(0, |(stamp, _)| stamp);
        let candidates: Vec<Triple> = sorted.iter().copied().filter(|r| r.tsc > behind).collect();
        let mut left_out = 0;
        for knot in medians(&candidates) {
            if !self.push(&knot, hz) {
                left_out += 1;
            }
        }
        let mut report = ClockReport {
            readings: sorted.len(),
            left_out,
            ..ClockReport::default()
        };
        for reading in &sorted {
            report.compare(self, reading);
        }
        report.suspends = suspends(&sorted);
        report
    }
}

/// One reading of every 10 ms, the one in the middle of their clock differences.
fn medians(sorted: &[Triple]) -> Vec<Triple> {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
        return Vec::new();
    };
    let nanoseconds = (last.monotonic_ns - first.monotonic_ns).max(1);
    let stamps = last.tsc.saturating_sub(first.tsc).max(1);
    let slope = nanoseconds as f64 / stamps as f64;
    // How far CLOCK_MONOTONIC lies above the straight line, in nanoseconds.
    let above = |r: &Triple| {
        let line = (r.tsc as f64 - first.tsc as f64) * slope;
        (r.monotonic_ns - first.monotonic_ns) as f64 - line
    };
    let mut knots = Vec::new();
    let mut rest = sorted;
    while let Some(begin) = rest.first() {
        let until = begin.monotonic_ns.saturating_add(KNOT_SPACING_NS);
        let length = rest.partition_point(|r| r.monotonic_ns < until).max(1);
        let (bucket, behind) = rest.split_at(length);
        let mut bucket = bucket.to_vec();
        bucket.sort_by(|a, b| above(a).total_cmp(&above(b)));
        knots.extend(bucket.get(bucket.len() / 2));
        rest = behind;
    }
    // The ends hold the whole range, where they fit.
    if knots.first() != Some(first) && knots.first().is_none_or(|k| first.tsc < k.tsc) {
        knots.insert(0, *first);
    }
    if knots.last() != Some(last) && knots.last().is_none_or(|k| last.tsc > k.tsc) {
        knots.push(*last);
    }
    knots
}

/// Times of suspends (CLOCK_MONOTONIC after them) and their lengths in nanoseconds.
fn suspends(sorted: &[Triple]) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut asleep: Option<u64> = None;
    for reading in sorted.iter().filter(|r| r.boottime_ns != 0) {
        let now = reading.boottime_ns.saturating_sub(reading.monotonic_ns);
        if let Some(before) = asleep
            && now > before.saturating_add(SUSPEND_NS)
        {
            found.push((reading.monotonic_ns, now - before));
        }
        asleep = Some(asleep.map_or(now, |before| before.max(now)));
    }
    found
}

/// How well readings fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockReport {
    /// Readings compared.
    pub readings: usize,
    /// Readings more than [`DISAGREEMENT_NS`] from the interpolation.
    pub disagreeing: usize,
    /// The largest difference seen.
    pub worst_ns: u64,
    /// Readings that contradict the order of others.
    pub left_out: usize,
    /// Suspends: CLOCK_MONOTONIC after each, and its length in nanoseconds.
    pub suspends: Vec<(u64, u64)>,
}

impl ClockReport {
    /// Compares one reading.
    pub fn compare(&mut self, clock: &Clock, reading: &Triple) {
        if let Some(difference) = clock.disagreement_ns(reading) {
            self.worst_ns = self.worst_ns.max(difference);
            self.disagreeing += usize::from(difference > DISAGREEMENT_NS);
        }
    }

    /// A note for the reader of a report, if there is something to say.
    pub fn note(&self) -> Option<String> {
        (self.disagreeing > 0 || self.left_out > 0).then(|| {
            format!(
                "clock: {} of {} readings lie more than 1 us from the interpolated time-stamp counter \
                 (at most {} ns), {} contradict the order of others: order across threads is only \
                 as good as that",
                self.disagreeing, self.readings, self.worst_ns, self.left_out
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(tsc: u64, monotonic_ns: u64) -> Triple {
        Triple {
            tsc,
            monotonic_ns,
            boottime_ns: monotonic_ns + 5,
        }
    }

    #[test]
    fn between_knots_the_time_is_interpolated_and_rounded_downwards() {
        let mut clock = Clock::new(1_000, 25);
        assert!(clock.push(&reading(10_000, 1_000), 0));
        assert!(clock.push(&reading(13_000, 2_000), 0));
        let tick = |stamp| clock.tick(stamp, Stamps::Tsc, &mut 7);
        assert_eq!(tick(10_000), 0);
        assert_eq!(tick(10_074), 0);
        assert_eq!(tick(10_076), 1);
        assert_eq!(tick(13_001), 40);
        assert_eq!(tick(9_000), 0);
        assert_eq!(clock.tick(1_025, Stamps::Monotonic, &mut 0), 1);
        assert!(!clock.push(&reading(13_000, 2_001), 0));
        assert!(!clock.push(&reading(13_001, 2_000), 0));
    }

    #[test]
    fn a_spoilt_reading_is_not_a_knot_and_is_reported() {
        let mut readings: Vec<Triple> = (0..100)
            .map(|n| reading(3_000 + n * 3_000_000, 1_000 + n * 1_000_000))
            .collect();
        readings[55].monotonic_ns += 300_000;
        let mut clock = Clock::new(1_000, 25);
        let report = clock.fit(&readings, 0);
        assert_eq!((report.disagreeing, report.left_out), (1, 0));
        assert!(report.worst_ns.abs_diff(300_000) < 100);
        assert_eq!(
            clock.tick(3_000 + 56 * 3_000_000, Stamps::Tsc, &mut 0),
            56 * 40_000
        );
        assert!(report.note().is_some());
    }

    #[test]
    fn a_suspend_shows_in_boottime() {
        let mut readings: Vec<Triple> = (0..10).map(|n| reading(3 * n + 1, n + 1)).collect();
        for reading in &mut readings[6..] {
            reading.boottime_ns += 7_000_000;
        }
        assert_eq!(suspends(&readings), [(7, 7_000_000)]);
    }

    proptest! {
        /// Whatever the readings, a later stamp never gets an earlier tick.
        #[test]
        fn ticks_rise_with_stamps(
            readings in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..40),
            near in proptest::collection::vec((0u64..1 << 40, 0u64..1 << 40), 0..40),
            mut stamps in proptest::collection::vec(any::<u64>(), 2..40),
            origin in 0u64..1 << 40,
        ) {
            let all: Vec<Triple> = readings.iter().chain(&near).map(|&(t, m)| reading(t, m >> 1)).collect();
            let mut clock = Clock::new(origin, 25);
            clock.fit(&all, 3_000_000_000);
            stamps.extend(all.iter().flat_map(|r| [r.tsc, r.tsc.saturating_add(1)]));
            stamps.sort_unstable();
            let mut hint = 0;
            let ticks: Vec<u64> = stamps.iter().map(|&s| clock.tick(s, Stamps::Tsc, &mut hint)).collect();
            prop_assert!(ticks.is_sorted());
            for (stamp, tick) in stamps.iter().zip(ticks) {
                prop_assert_eq!(tick, clock.tick(*stamp, Stamps::Tsc, &mut 0));
                // Beyond a month without a knot there is no span.
                let span = clock.span(*stamp, Stamps::Tsc);
                if let Some(other) = span.and_then(|span| span.tick(*stamp)) {
                    prop_assert_eq!(tick, other);
                }
            }
        }
    }
}
