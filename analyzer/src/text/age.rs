//! How old the live heap was at its peak.

use super::draw::{bar, columns};
use super::units::{self, Unit, count, counted, share, time};
use crate::age::{AgeBin, AgeReport};

/// Binary logarithms of the ages between rows: about 1 us, 33 us, 1 ms, 34 ms, 1 s, 34 s, 18 min in
/// nanoseconds; the same numbers of bytes.
const EDGES_LOG2: [u32; 7] = [10, 15, 20, 25, 30, 35, 40];
/// Characters of a bar.
const BAR: usize = 30;

/// Blocks and bytes by age in a clock, in steps of 32.
fn table(clock: &str, report: &AgeReport, bins: &[AgeBin], age: fn(u64) -> String) -> String {
    let unit = Unit::column_of_bytes(report.bytes);
    let head = [clock, "blocks", "share", unit.name(), "share"];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    let mut low = 0;
    for high in EDGES_LOG2
        .map(|log2| 1 << log2)
        .into_iter()
        .chain([u64::MAX])
    {
        let of = bins.iter().filter(|bin| (low..high).contains(&bin.low));
        let (mut blocks, mut bytes) = (0u64, 0u64);
        for bin in of {
            blocks = blocks.saturating_add(bin.blocks);
            bytes = bytes.saturating_add(bin.bytes);
        }
        if blocks != 0 {
            let name = match (low, high) {
                (0, _) => format!("less than {}", age(high)),
                (_, u64::MAX) => format!("{} and more", age(low)),
                _ => format!("{} to {}", age(low), age(high)),
            };
            rows.push(vec![
                name,
                count(blocks),
                share(blocks, report.blocks),
                unit.bare(bytes),
                share(bytes, report.bytes),
                bar(bytes, report.bytes, BAR),
            ]);
        }
        low = high;
    }
    columns(&rows, &[true, false, false, false, false, true])
}

/// The ages at the peak of live bytes of a process.
pub(super) fn section(report: &AgeReport) -> String {
    if report.blocks == 0 {
        return String::new();
    }
    format!(
        "\nage of the heap at its peak: {} in {}, at {}\n{}{}",
        units::bytes(report.bytes),
        counted(report.blocks, "block", "blocks"),
        time(report.at_ns),
        table("born before", report, &report.by_ns, time),
        table("allocated since", report, &report.by_bytes, units::bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::age::Age;
    use crate::fact::{Fact, Measure, Peaks, What};

    #[test]
    fn ages_are_summed_to_few_rows() {
        let mut age = Age::default();
        let sizes = [1_000, 50_000, 2_000];
        for (n, bytes) in sizes.into_iter().enumerate() {
            let fact = Fact {
                time_ns: 1_500 * n as u64,
                bytes,
                clock_events: n as u64 + 1,
                clock_bytes: sizes[..=n].iter().sum(),
                ..Fact::default()
            };
            let blocks = n as u64;
            age.fact(
                &fact,
                Peaks {
                    blocks,
                    bytes: blocks,
                },
            );
        }
        let peaks = Peaks {
            blocks: 3,
            bytes: 3,
        };
        for (n, bytes) in sizes.into_iter().enumerate() {
            let fact = Fact {
                time_ns: 90_000,
                life_ns: 90_000 - 1_500 * n as u64,
                what: What::Kept,
                bytes,
                clock_events: 3,
                life_events: 2 - n as u64,
                clock_bytes: 53_000,
                life_bytes: 53_000 - sizes[..=n].iter().sum::<u64>(),
                ..Fact::default()
            };
            age.fact(&fact, peaks);
        }
        let expected = "
age of the heap at its peak: 51.8 KiB in 3 blocks, at 3.0 us
born before        blocks   share   KiB   share
less than 1.0 us        1  33.3 %   2.0   3.8 %  █▏
1.0 us to 32.8 us       2  66.7 %  49.8  96.2 %  ████████████████████████████▊
allocated since      blocks   share   KiB   share
less than 1.0 KiB         1  33.3 %   2.0   3.8 %  █▏
1.0 KiB to 32.0 KiB       1  33.3 %  48.8  94.3 %  ████████████████████████████▎
32.0 KiB to 1.0 MiB       1  33.3 %   1.0   1.9 %  ▌
";
        assert_eq!(section(&age.report(peaks).unwrap_or_default()), expected);
        assert_eq!(section(&AgeReport::default()), "");
    }
}
