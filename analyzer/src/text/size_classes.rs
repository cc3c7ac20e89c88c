//! What the blocks would take in the size classes of known allocators, and the classes that fit them
//! best.

use super::draw::{bar, columns};
use super::units::{Unit, bytes, count, counted, ppm};
use crate::best_classes::{BestByWeight, BestClassesReport, BestSet};
use crate::size_classes::SizeClassReport;
use std::fmt::Write;

/// Characters of the longest bar.
const BAR: usize = 30;
/// Of the best sets, the one whose sizes are shown unless a number was asked for.
const SHOWN: u64 = 32;
/// Characters of a line of sizes.
const LINE: usize = 100;

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|cell| cell.to_string()).collect()
}

/// Both, of a process, or of a run of `processes`; empty where no block was allocated.
pub(super) fn section(
    report: &SizeClassReport,
    best: &BestClassesReport,
    processes: usize,
) -> String {
    if report.requested_births == 0 {
        return String::new();
    }
    let mut out = systems(report);
    if processes > 1 {
        out.push_str("at the peak: in the process with the highest peak of live bytes\n");
    }
    out.push_str(&best_classes(best));
    out
}

/// The allocators.
fn systems(report: &SizeClassReport) -> String {
    let all = report.systems.iter();
    let most = all.map(|of| {
        of.at_peak
            .usable_bytes
            .saturating_add(of.at_peak.header_bytes)
    });
    let unit = Unit::column_of_bytes(most.max().unwrap_or(0));
    let mut rows = vec![row([
        "size classes",
        &format!("{} at the peak", unit.name()),
        "unused",
        "headers",
        "unused at birth",
        "unused over time",
        "",
    ])];
    rows.push(row(["requested", &unit.bare(report.requested_at_peak)]));
    let worst = report
        .systems
        .iter()
        .map(|of| of.over_time.fragmentation_ppm);
    let worst = worst.max().unwrap_or(0);
    for of in &report.systems {
        let taken = of
            .at_peak
            .usable_bytes
            .saturating_add(of.at_peak.header_bytes);
        rows.push(vec![
            format!("{} {}", of.name, of.version),
            unit.bare(taken),
            ppm(of.at_peak.fragmentation_ppm),
            ppm(of.at_peak.header_ppm),
            ppm(of.births.fragmentation_ppm),
            ppm(of.over_time.fragmentation_ppm),
            bar(of.over_time.fragmentation_ppm, worst, BAR),
        ]);
    }
    let left = [true, false, false, false, false, false, true];
    format!("\n{}", columns(&rows, &left))
}

/// The best classes, by time where some passed.
fn best_classes(report: &BestClassesReport) -> String {
    let (of, when) = match report.over_time.requested_bytes {
        0 => (&report.at_peak, "at the peak"),
        _ => (&report.over_time, "over time"),
    };
    if of.requested_bytes == 0 {
        return String::new();
    }
    let mut rows = vec![row(["best classes", "unused", ""])];
    let worst = of.best.iter().map(|set| set.fragmentation_ppm).max();
    for set in &of.best {
        rows.push(vec![
            count(set.classes),
            ppm(set.fragmentation_ppm),
            bar(set.fragmentation_ppm, worst.unwrap_or(0), BAR),
        ]);
    }
    let mut out = format!(
        "\nthe best classes for requests to {}, {when} ({}, {} of {})\n{}",
        bytes(report.bound),
        bytes(of.requested_bytes),
        counted(report.sizes, "multiple", "multiples"),
        report.step,
        columns(&rows, &[false, false, true])
    );
    out.push_str(&against(of));
    let shown = |set: &&BestSet| set.classes <= report.asked.unwrap_or(SHOWN);
    if let Some(set) = of.best.iter().rfind(shown).or(of.best.first()) {
        let name = counted(set.classes, "best class", "best classes");
        let _ = writeln!(out, "the {name}:{}", sizes(&set.sizes));
    }
    out
}

/// How many of the best classes waste as little as those of an allocator.
fn against(of: &BestByWeight) -> String {
    let mut rows = Vec::new();
    for against in &of.against {
        let fewest = match against.fewest_classes {
            Some(classes) => format!("{} of the best waste no more", count(classes)),
            None => "no number of multiples of 16 tried wastes less".to_string(),
        };
        rows.push(vec![
            format!("{}:", against.name),
            count(against.classes),
            "classes,".to_string(),
            format!("{} unused or headers;", ppm(against.waste_ppm)),
            fewest,
        ]);
    }
    columns(&rows, &[true, false, true, false, true])
}

/// Sizes in lines of bounded length.
fn sizes(sizes: &[u64]) -> String {
    let (mut out, mut length) = (String::new(), 0);
    for size in sizes {
        let size = count(*size);
        if length == 0 || length + size.len() > LINE {
            out.push_str("\n ");
            length = 1;
        }
        length += 1 + size.len();
        out.push(' ');
        out.push_str(&size);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact_sizes::ExactSizes;
    use crate::fact::{Fact, Measure, Peaks, What};

    /// A block of each size, freed after 10 ns; the first ones live at the peak.
    fn report(blocks: &[u64]) -> (SizeClassReport, BestClassesReport) {
        let mut sizes = ExactSizes::default();
        let fact = |what, bytes, time_ns| Fact {
            what,
            bytes,
            time_ns,
            ..Fact::default()
        };
        let mut peaks = Peaks::default();
        for &bytes in blocks {
            sizes.fact(&fact(What::Born, bytes, 0), peaks);
            peaks.bytes += 1;
        }
        for &bytes in blocks {
            sizes.fact(&fact(What::Freed, bytes, 10), peaks);
        }
        let counts = sizes.finish(peaks);
        (
            SizeClassReport::new(&counts, 10),
            BestClassesReport::new(&counts, 10, None),
        )
    }

    #[test]
    fn the_tables_read_as_they_should() {
        let (classes, best) = report(&[20, 40, 100, 600, 5_000, 300_000]);
        let text = "
size classes              KiB at the peak  unused  headers  unused at birth  unused over time
requested                           298.6
glibc 2.36                          301.7   1.0 %    0.0 %            1.0 %             1.0 %  ███▌
jemalloc 5.3.0                      325.8   8.4 %    0.0 %            8.4 %             8.4 %  ██████████████████████████████
mimalloc 2.0.9                      325.8   8.4 %    0.0 %            8.4 %             8.4 %  ██████████████████████████████
tcmalloc gperftools 2.10            301.8   1.1 %    0.0 %            1.1 %             1.1 %  ███▊
at the peak: in the process with the highest peak of live bytes

the best classes for requests to 32.0 KiB, over time (5.6 KiB, 5 multiples of 16)
best classes  unused
           5   0.8 %  ██████████████████████████████
glibc:     2,048  classes,  0.8 % unused or headers;  5 of the best waste no more
jemalloc:     41  classes,  3.2 % unused or headers;  3 of the best waste no more
mimalloc:     41  classes,  3.2 % unused or headers;  3 of the best waste no more
tcmalloc:     57  classes,  3.2 % unused or headers;  3 of the best waste no more
the 5 best classes:
  32 48 112 608 5,008
";
        assert_eq!(section(&classes, &best, 2), text);
    }

    #[test]
    fn without_blocks_nothing_is_said() {
        let (classes, best) = report(&[]);
        assert_eq!(section(&classes, &best, 1), "");
    }

    #[test]
    fn sizes_are_put_in_lines() {
        let many: Vec<u64> = (0..40).map(|n| 1_000 + n * 16).collect();
        let text = sizes(&many);
        assert_eq!(text.split_whitespace().count(), 40);
        assert!(
            text.lines().skip(1).count() == 3 && text.lines().all(|line| line.len() <= LINE + 1)
        );
    }
}
