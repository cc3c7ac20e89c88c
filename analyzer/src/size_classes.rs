//! What blocks of given sizes take in the size classes of four allocators, and what that would have
//! cost a trace. Only the sizes count here: nothing of caches, spans or fragmentation between blocks.
//!
//! Each allocator is a function from requested to usable bytes, in a file of its own with its source.
//! `analyzer/tests/size_classes.rs` compares all four with the libraries of Debian 12.

mod glibc;
mod jemalloc;
mod mimalloc;
mod tcmalloc;

use crate::exact_sizes::{EXACT_MAX, SizeCounts, Weight};
use crate::ratio::ppm;
use serde::Serialize;

/// An allocator's size classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// The GNU C library, 2.36.
    Glibc,
    /// jemalloc 5.3.
    Jemalloc,
    /// mimalloc 2.0.
    Mimalloc,
    /// tcmalloc of gperftools 2.10.
    Tcmalloc,
}

/// What a block takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Bytes that the caller may use.
    pub usable_bytes: u64,
    /// Bytes beside them that belong to this block alone.
    pub header_bytes: u64,
}

impl System {
    /// All of them.
    pub const ALL: [System; 4] = [
        System::Glibc,
        System::Jemalloc,
        System::Mimalloc,
        System::Tcmalloc,
    ];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            System::Glibc => "glibc",
            System::Jemalloc => "jemalloc",
            System::Mimalloc => "mimalloc",
            System::Tcmalloc => "tcmalloc",
        }
    }

    /// The version whose classes these are.
    pub fn version(self) -> &'static str {
        match self {
            System::Glibc => "2.36",
            System::Jemalloc => "5.3.0",
            System::Mimalloc => "2.0.9",
            System::Tcmalloc => "gperftools 2.10",
        }
    }

    /// What `malloc(bytes)` takes. Sizes near 2^64, which no allocator gives, take `u64::MAX`.
    pub fn block(self, bytes: u64) -> Block {
        let bare = |usable_bytes| Block {
            usable_bytes,
            header_bytes: 0,
        };
        match self {
            System::Glibc => glibc::block(bytes),
            System::Jemalloc => bare(jemalloc::usable(bytes)),
            System::Mimalloc => bare(mimalloc::usable(bytes)),
            System::Tcmalloc => bare(tcmalloc::usable(bytes)),
        }
    }

    /// Usable bytes of the classes that requests to `bytes_max` fall in, ascending.
    pub fn classes(self, bytes_max: u64) -> Vec<u64> {
        let mut classes = Vec::new();
        let mut bytes = 0;
        while bytes <= bytes_max {
            let usable = self.block(bytes).usable_bytes;
            classes.push(usable);
            let Some(next) = usable.checked_add(1) else {
                break;
            };
            bytes = next;
        }
        classes
    }

    /// What all blocks with requests of at most `bytes_max` take, weighted: usable bytes, header bytes.
    pub fn taken(self, counts: &SizeCounts, weight: Weight, bytes_max: u64) -> (u128, u128) {
        let mut taken = (0u128, 0u128);
        for row in counts.rows().iter().take_while(|row| row.high <= bytes_max) {
            let blocks = row.blocks(weight);
            if blocks == 0 {
                continue;
            }
            let block = self.block(row.typical(weight));
            let add = |sum: u128, bytes: u64| {
                let bytes = blocks.saturating_mul(bytes.into());
                sum.saturating_add(bytes)
            };
            taken.0 = add(taken.0, block.usable_bytes);
            taken.1 = add(taken.1, block.header_bytes);
        }
        taken
    }
}

/// The multiple of `step` that is not below, or `u64::MAX` if there is none.
const fn up(bytes: u64, step: u64) -> u64 {
    match bytes.checked_next_multiple_of(step) {
        Some(up) => up,
        None => u64::MAX,
    }
}

/// Four classes in each power of two, `(2^n, 2^(n+1)]`, from 64 on; below multiples of 16, but 8 for
/// up to 8 bytes. jemalloc has these at all sizes, mimalloc to 128 KiB.
fn quarters(bytes: u64) -> u64 {
    match bytes {
        0..=8 => 8,
        9..=64 => up(bytes, 16),
        _ => up(bytes, 1 << ((bytes - 1).ilog2() - 2)),
    }
}

/// What the blocks would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Bytes that callers may use.
    pub usable_bytes: u64,
    /// Headers that belong to single blocks, not part of `usable_bytes`.
    pub header_bytes: u64,
    /// Internal fragmentation: (usable - requested) / usable.
    pub fragmentation_ppm: u64,
    /// Headers / (usable + headers).
    pub header_ppm: u64,
}

/// One allocator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SystemReport {
    /// Its name.
    pub name: &'static str,
    /// The version whose classes these are.
    pub version: &'static str,
    /// Number of its classes for requests to 32 KiB.
    pub classes_to_32k: u64,
    /// Of the blocks that were live at the peak of live bytes.
    pub at_peak: Taken,
    /// The mean over time.
    pub over_time: Taken,
    /// Of all blocks at their first sizes.
    pub births: Taken,
}

/// What the blocks of a process, or of a run, would take in the size classes of allocators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SizeClassReport {
    /// Requested bytes that were live at the peak of live bytes.
    pub requested_at_peak: u64,
    /// Requested bytes that were live, the mean over time.
    pub requested_over_time: u64,
    /// Sum of first sizes.
    pub requested_births: u64,
    /// The allocators.
    pub systems: Vec<SystemReport>,
}

impl SizeClassReport {
    /// Of these counts, of a process (a run) that lasted `duration_ns`.
    pub fn new(counts: &SizeCounts, duration_ns: u64) -> SizeClassReport {
        let requested = |weight: Weight| weight.shown(counts.bytes(weight), duration_ns);
        let system = |system: System| {
            let [at_peak, over_time, births] = Weight::ALL.map(|weight| {
                let (usable, headers) = system.taken(counts, weight, u64::MAX);
                let unused = usable.saturating_sub(counts.bytes(weight));
                Taken {
                    usable_bytes: weight.shown(usable, duration_ns),
                    header_bytes: weight.shown(headers, duration_ns),
                    fragmentation_ppm: ppm(unused, usable),
                    header_ppm: ppm(headers, usable.saturating_add(headers)),
                }
            });
            SystemReport {
                name: system.name(),
                version: system.version(),
                classes_to_32k: system.classes(EXACT_MAX).len() as u64,
                at_peak,
                over_time,
                births,
            }
        };
        SizeClassReport {
            requested_at_peak: requested(Weight::AtPeak),
            requested_over_time: requested(Weight::OverTime),
            requested_births: requested(Weight::Births),
            systems: System::ALL.map(system).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact_sizes::ExactSizes;
    use crate::fact::sample::{Stream, streams};
    use proptest::prelude::*;

    /// The sizes of blocks with their weights, one by one.
    fn blocks_slowly(stream: &Stream, weight: Weight) -> Vec<(u64, u64)> {
        let histories = stream.histories();
        let fact = |at: usize| stream.told[at].0;
        match weight {
            Weight::Births => (histories.iter())
                .map(|history| (fact(history[0]).bytes, 1))
                .collect(),
            Weight::OverTime => (histories.iter())
                .flat_map(|history| history.windows(2))
                .map(|pair| (fact(pair[0]), fact(pair[1])))
                .map(|(from, to)| (from.bytes, to.time_ns - from.time_ns))
                .collect(),
            Weight::AtPeak => (stream.bytes_peak_at.iter())
                .flat_map(|at| stream.live_after(*at))
                .map(|fact| (fact.bytes, 1))
                .collect(),
        }
    }

    proptest! {
        /// Figures are those of the blocks added up one by one; where a row of sizes above 32 KiB is
        /// taken for its mean, to within a 128th and the coarsest step of classes there.
        #[test]
        fn a_report_adds_up_its_blocks(stream in streams(300)) {
            let mut sizes = ExactSizes::default();
            stream.tell(&mut sizes);
            let duration = stream.end_ns.max(1);
            let report = SizeClassReport::new(&sizes.finish(stream.peaks), duration);
            for (of, system) in report.systems.iter().zip(System::ALL) {
                let shown = [
                    (of.at_peak, report.requested_at_peak),
                    (of.over_time, report.requested_over_time),
                    (of.births, report.requested_births),
                ];
                for ((taken, requested), weight) in shown.into_iter().zip(Weight::ALL) {
                    let blocks = blocks_slowly(&stream, weight);
                    let unit = if weight == Weight::OverTime { u128::from(duration) } else { 1 };
                    let sum = |of: &dyn Fn(u64) -> u64| -> u128 {
                        blocks.iter().map(|(bytes, amount)| u128::from(of(*bytes)) * u128::from(*amount)).sum()
                    };
                    let (asked, usable) = (sum(&|bytes| bytes), sum(&|bytes| system.block(bytes).usable_bytes));
                    let headers = sum(&|bytes| system.block(bytes).header_bytes);
                    prop_assert_eq!(u128::from(requested), asked / unit);
                    if blocks.iter().all(|(bytes, _)| *bytes <= EXACT_MAX) {
                        prop_assert_eq!(u128::from(taken.usable_bytes), usable / unit);
                        prop_assert_eq!(u128::from(taken.header_bytes), headers / unit);
                        prop_assert_eq!(
                            u128::from(taken.fragmentation_ppm),
                            ((usable - asked) * 1_000_000).checked_div(usable).unwrap_or(0)
                        );
                        prop_assert_eq!(
                            u128::from(taken.header_ppm),
                            (headers * 1_000_000).checked_div(usable + headers).unwrap_or(0)
                        );
                    } else {
                        let (found, true_one) = (taken.usable_bytes as f64, (usable / unit) as f64);
                        prop_assert!((found - true_one).abs() <= true_one / 64.0 + 1.0, "{found} {true_one}");
                    }
                }
            }
        }

        /// A block has room for its request, a larger request no less; its class is its own.
        #[test]
        fn classes_hold_their_requests(bits in 0u32..64, seed: u64) {
            let bytes = seed >> bits;
            for system in System::ALL {
                let block = system.block(bytes);
                prop_assert!(block.usable_bytes >= bytes);
                prop_assert!(system.block(bytes.saturating_add(1)).usable_bytes >= block.usable_bytes);
                // But for blocks with own pages: glibc adds a header to the usable bytes again.
                if system != System::Glibc || bytes < 128_000 {
                    prop_assert_eq!(system.block(block.usable_bytes), block);
                }
            }
        }
    }

    #[test]
    fn the_number_of_classes_to_32_kib() {
        let count = |system: System| system.classes(EXACT_MAX).len();
        assert_eq!(count(System::Jemalloc), 5 + 4 * 9);
        assert_eq!(count(System::Mimalloc), 5 + 4 * 9);
        assert_eq!(count(System::Glibc), 2048);
        assert_eq!(
            System::Jemalloc.classes(100),
            [8, 16, 32, 48, 64, 80, 96, 112]
        );
        assert_eq!(System::Glibc.classes(41), [24, 40, 56]);
    }
}
