//! The clock of single operations: the processor's time-stamp counter where it can be trusted, else CLOCK_MONOTONIC.
//! What a tick is in nanoseconds follows from both clocks at the ends of a round.

use crate::system::monotonic_ns;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__cpuid, __rdtscp, _mm_lfence, _rdtsc};
use std::time::Duration;

/// The shortest span from which the length of a tick is told.
const SPAN_MIN: Duration = Duration::from_millis(20);
/// Readings for the cost of a reading.
const READINGS: usize = 4_096;

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticks {
    /// Of the processor; constant, and the same on all processors.
    Tsc,
    /// Nanoseconds of CLOCK_MONOTONIC.
    Monotonic,
}

impl Ticks {
    /// The best one of this machine: the TSC if the processor calls it invariant and the kernel itself relies on it.
    pub fn best() -> Ticks {
        let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let relies = std::fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc");
        match relies && has_invariant() {
            true => Ticks::Tsc,
            false => Ticks::Monotonic,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Ticks::Tsc => "tsc",
            Ticks::Monotonic => "monotonic",
        }
    }

    /// Now: everything before has been done, nothing after has begun.
    #[inline(always)]
    pub fn start(self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: LFENCE and RDTSC are part of x86-64, and Linux lets programs use them.
            Ticks::Tsc => unsafe {
                _mm_lfence();
                let now = _rdtsc();
                _mm_lfence();
                now
            },
            _ => monotonic_ns(),
        }
    }

    /// Now: everything before has been done.
    #[inline(always)]
    pub fn stop(self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has RDTSCP, which `has_invariant` asked for; `best` alone says `Tsc`.
            Ticks::Tsc => unsafe {
                let now = __rdtscp(&mut 0);
                _mm_lfence();
                now
            },
            _ => monotonic_ns(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_invariant() -> bool {
    let has = |leaf: u32, bit: u32| {
        __cpuid(0x8000_0000).eax >= leaf && __cpuid(leaf).edx & (1 << bit) != 0
    };
    // Invariant TSC; RDTSCP (Intel SDM volume 2, CPUID).
    has(0x8000_0007, 8) && has(0x8000_0001, 27)
}

#[cfg(not(target_arch = "x86_64"))]
fn has_invariant() -> bool {
    false
}

/// What a clock costs, and its step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Ticks between two readings with nothing between them: the median.
    pub median: u64,
    /// The same, what 99 % stay within.
    pub high: u64,
    /// The greatest number that all these are multiples of.
    pub step: u64,
}

impl Cost {
    /// Reads the clock again and again.
    pub fn of(clock: Ticks) -> Cost {
        let mut spans = [0u64; READINGS];
        for span in &mut spans {
            let from = clock.start();
            *span = clock.stop().wrapping_sub(from);
        }
        spans.sort_unstable();
        let step = spans.iter().fold(0, |step, span| divisor(step, *span));
        Cost {
            median: spans[READINGS / 2],
            high: spans[READINGS * 99 / 100],
            step: step.max(1),
        }
    }
}

/// The greatest common divisor; of 0 and a number that number.
fn divisor(one: u64, other: u64) -> u64 {
    match other {
        0 => one,
        other => divisor(other, one % other),
    }
}

/// Measures the length of a tick.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    clock: Ticks,
    ticks: u64,
    ns: u64,
}

impl Calibration {
    /// From now on.
    pub fn begin(clock: Ticks) -> Calibration {
        Calibration {
            clock,
            ticks: clock.start(),
            ns: monotonic_ns(),
        }
    }

    /// Nanoseconds a tick until now, or until the span is long enough.
    pub fn end(self) -> f64 {
        if self.clock == Ticks::Monotonic {
            return 1.0;
        }
        let passed = Duration::from_nanos(monotonic_ns() - self.ns);
        if let Some(rest) = SPAN_MIN.checked_sub(passed) {
            std::thread::sleep(rest);
        }
        let ticks = self.clock.start().wrapping_sub(self.ticks);
        (monotonic_ns() - self.ns) as f64 / ticks.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_tell_the_same_span() {
        for clock in [Ticks::best(), Ticks::Monotonic] {
            let ns_per_tick = Calibration::begin(clock).end();
            // One span within another: whatever comes in between, the clock's lies between both.
            let outer = monotonic_ns();
            let from = clock.start();
            let inner = monotonic_ns();
            std::thread::sleep(Duration::from_millis(5));
            let inner = (monotonic_ns() - inner) as f64;
            let ns = (clock.stop() - from) as f64 * ns_per_tick;
            let outer = (monotonic_ns() - outer) as f64;
            assert!(
                ns > inner * 0.5 && ns < outer * 1.5,
                "{clock:?}: {inner} {ns} {outer}"
            );
            let cost = Cost::of(clock);
            assert!(
                cost.median <= cost.high && cost.median.is_multiple_of(cost.step),
                "{cost:?}"
            );
        }
        assert_eq!(divisor(12, 18), 6);
    }
}
