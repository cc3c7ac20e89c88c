//! Growth by realloc as tables.

use super::draw::{bar, columns};
use super::tables::{range, row};
use super::units::{Unit, bytes, count, counted, share};
use crate::growth::{FactorBin, GrowthReport};
use std::fmt::Write;

/// Characters of a bar.
const BAR: usize = 30;

/// Growth factors, and where resizes leave blocks by size; nothing without resizes.
pub(super) fn section(report: &GrowthReport) -> String {
    let mut out = String::new();
    let grown = report.factors.iter().map(|bin| bin.resizes).sum::<u64>();
    if grown != 0 {
        let most = report
            .factors
            .iter()
            .map(|bin| bin.resizes)
            .max()
            .unwrap_or(0);
        let mut rows = vec![row(["growth, new by old size", "resizes", "share", ""])];
        for bin in &report.factors {
            rows.push(vec![
                factors(bin),
                count(bin.resizes),
                share(bin.resizes, grown),
                bar(bin.resizes, most, BAR),
            ]);
        }
        let _ = write!(out, "\n{}", columns(&rows, &[true, false, false, true]));
    }
    if !report.by_size.is_empty() {
        let most = report.by_size.iter().map(|row| row.bytes_copied).max();
        let unit = Unit::column_of_bytes(most.unwrap_or(0));
        let mut rows = vec![row([
            "bytes before",
            "resizes",
            "in place",
            "same class",
            &format!("copied {}", unit.name()),
        ])];
        for of in &report.by_size {
            rows.push(vec![
                range(of.low, of.high),
                count(of.resized),
                share(of.in_place, of.resized),
                share(of.within_class, of.resized),
                unit.bare(of.bytes_copied),
            ]);
        }
        let _ = write!(out, "\nresizes by size\n{}", columns(&rows, &[]));
    }
    if report.final_bytes != 0 {
        let blocks = report.totals.iter().map(|bin| bin.blocks).sum();
        let hundredths = report.copied_per_final_ppm.saturating_add(5_000) / 10_000;
        let _ = writeln!(
            out,
            "{} to {} in all and copied {} at most on the way: {}.{:02} bytes for each in the end",
            counted(blocks, "block grew", "blocks grew"),
            bytes(report.final_bytes),
            bytes(report.bytes_copied_growing),
            count(hundredths / 100),
            hundredths % 100,
        );
    }
    out
}

/// `1.1 to 1.25`, `exactly 2`, `16 and more`.
fn factors(bin: &FactorBin) -> String {
    let show = |thousandths: u64| {
        let digits = format!("{}.{:03}", count(thousandths / 1_000), thousandths % 1_000);
        digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_string()
    };
    let (low, high) = (bin.low_thousandths, bin.high_thousandths);
    match high.saturating_sub(low) {
        _ if high == u64::MAX => format!("{} and more", show(low)),
        1 => format!("exactly {}", show(low)),
        // A class after an exact one begins just above it.
        _ if low % 10 == 1 => format!("{} to {}", show(low - 1), show(high)),
        _ => format!("{} to {}", show(low), show(high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::{BySize, TotalBin};

    #[test]
    fn growth_is_shown_by_factor_and_by_size() {
        let factor = |low_thousandths, high_thousandths, resizes| FactorBin {
            low_thousandths,
            high_thousandths,
            resizes,
        };
        let report = GrowthReport {
            factors: vec![
                factor(1_100, 1_250, 10),
                factor(1_501, 1_750, 5),
                factor(2_000, 2_001, 80),
                factor(16_000, u64::MAX, 5),
            ],
            by_size: vec![BySize {
                low: 1_024,
                high: 2_048,
                resized: 100,
                in_place: 25,
                within_class: 10,
                bytes_copied: 100_000,
            }],
            totals: vec![TotalBin {
                low: 4,
                high: 8,
                blocks: 20,
            }],
            bytes_copied_growing: 75_000,
            final_bytes: 50_000,
            copied_per_final_ppm: 1_500_000,
            ..GrowthReport::default()
        };
        let expected = "
growth, new by old size  resizes   share
1.1 to 1.25                   10  10.0 %  ███▊
1.5 to 1.75                    5   5.0 %  █▉
exactly 2                     80  80.0 %  ██████████████████████████████
16 and more                    5   5.0 %  █▉

resizes by size
bytes before  resizes  in place  same class  copied KiB
 1,024-2,047      100    25.0 %      10.0 %        97.7
20 blocks grew to 48.8 KiB in all and copied 73.2 KiB at most on the way: 1.50 bytes for each in the end
";
        assert_eq!(section(&report), expected);
        assert_eq!(section(&GrowthReport::default()), "");
    }
}
