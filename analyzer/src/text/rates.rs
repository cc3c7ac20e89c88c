//! Rates over time as lines.

use super::draw::sparkline;
use super::units::{bytes, count, time};
use crate::rates::RatesReport;
use std::fmt::Write;

/// Characters of a sparkline.
const SPARK: usize = 64;

/// Calls and bytes over time; nothing where there were no calls.
pub(super) fn section(report: &RatesReport) -> String {
    let step_ns = report.step_ns;
    let per_s = |values: &[u64]| {
        let most = u128::from(values.iter().copied().max().unwrap_or(0)) * 1_000_000_000;
        let most = most.checked_div(step_ns.into()).unwrap_or(0);
        u64::try_from(most).unwrap_or(u64::MAX)
    };
    let show_count = |values: &[u64]| count(per_s(values));
    let show_bytes = |values: &[u64]| bytes(per_s(values));
    let lines = [
        (
            "allocations",
            &report.allocations,
            show_count(&report.allocations),
        ),
        ("frees", &report.frees, show_count(&report.frees)),
        ("resizes", &report.reallocs, show_count(&report.reallocs)),
        (
            "allocated",
            &report.bytes_allocated,
            show_bytes(&report.bytes_allocated),
        ),
        (
            "freed",
            &report.bytes_freed,
            show_bytes(&report.bytes_freed),
        ),
    ];
    let seen = |values: &[u64]| values.iter().any(|value| *value != 0);
    if !lines.iter().any(|(_, values, _)| seen(values)) {
        return String::new();
    }
    let mut out = format!(
        "\nper second, the most within {} at the right\n",
        time(step_ns)
    );
    for (name, values, most) in lines {
        if seen(values) {
            let _ = writeln!(
                out,
                "{name:<12} │{:<SPARK$}│ {most}",
                sparkline(values, SPARK)
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second() {
        let report = RatesReport {
            step_ns: 1 << 20,
            allocations: vec![1_000, 2_000, 0],
            frees: vec![0, 500, 500],
            reallocs: vec![0, 0, 0],
            bytes_allocated: vec![1 << 20, 0, 0],
            bytes_freed: vec![0, 1 << 10, 1 << 10],
            ..RatesReport::default()
        };
        let pad = " ".repeat(SPARK - 3);
        let expected = format!(
            "\nper second, the most within 1.0 ms at the right\n\
             allocations  │▄█ {pad}│ 1,907,348\n\
             frees        │ ██{pad}│ 476,837\n\
             allocated    │█  {pad}│ 953.7 MiB\n\
             freed        │ ██{pad}│ 953.7 KiB\n"
        );
        assert_eq!(section(&report), expected);
        assert_eq!(section(&RatesReport::default()), "");
    }
}
