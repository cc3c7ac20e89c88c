//! How much relocation could save.

use super::draw::{bar, columns};
use super::units::{Unit, bytes, ppm};
use crate::bounds::{BoundsReport, Saving};
use std::fmt::Write;

const BAR: usize = 30;

/// The bounds of a process. `whose` names it.
pub(super) fn section(report: &BoundsReport, whose: &str) -> String {
    if report.live_peak.bytes == 0 {
        return String::new();
    }
    let packed = report
        .packing
        .as_ref()
        .map(|packing| packing.best.bytes_peak);
    let (recorded, mean) = (report.recorded_peak.bytes, &report.mean);
    let most = recorded
        .max(report.compacted_peak.bytes)
        .max(packed.unwrap_or(0));
    let unit = Unit::column_of_bytes(most);
    let head = [
        "",
        &format!("peak {}", unit.name()),
        &format!("mean {}", unit.name()),
        "",
    ];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    let mut line = |name: &str, peak: u64, mean: Option<u64>| {
        rows.push(vec![
            name.to_string(),
            unit.bare(peak),
            mean.map_or("-".to_string(), |mean| unit.bare(mean)),
            bar(peak, most, BAR),
        ]);
    };
    let overhead = &report.overhead;
    let compacted = format!(
        "compacted, with {} of header and {} of handle a block",
        bytes(overhead.header_bytes),
        bytes(overhead.handle_bytes)
    );
    line("live bytes", report.live_peak.bytes, Some(mean.live_bytes));
    line(
        "live blocks in multiples of 16",
        report.rounded_peak.bytes,
        Some(mean.rounded_bytes),
    );
    line(
        &compacted,
        report.compacted_peak.bytes,
        Some(mean.compacted_bytes),
    );
    if let Some(packed) = packed {
        line(
            "pages of the best packing found that moves nothing",
            packed,
            None,
        );
    }
    line("pages that were held", recorded, Some(mean.recorded_bytes));
    let mut out = format!(
        "\nwhat relocation could save: {whose}\n{}",
        columns(&rows, &[true, false, false, true])
    );
    let saving = |of: &Saving| format!("{} ({})", bytes(of.bytes), ppm(of.ppm));
    let _ = writeln!(
        out,
        "at most {} at the peak, {} in the mean; {} and {} if headers and handles cost nothing",
        saving(&report.saving),
        saving(&mean.saving),
        saving(&report.saving_without_overhead),
        saving(&mean.saving_without_overhead),
    );
    if report.compacted_pages_bytes > recorded {
        let _ = writeln!(
            out,
            "at the peak, headers and handles would cost {} more than everything that was held and not live",
            bytes(report.compacted_pages_bytes - recorded)
        );
    }
    match &report.packing {
        Some(packing) if packing.unplaced == 0 => {
            let _ = writeln!(
                out,
                "best packing: {}; what it cannot save and moving could: {}",
                packing.best.rule,
                saving(&report.saving_by_moving)
            );
        }
        Some(_) => {
            out.push_str("the packing has no room for blocks this large: it bounds nothing\n")
        }
        None => out.push_str(
            "--bounds packs the blocks anew, knowing their lifetimes, without moving any\n",
        ),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::{Bounds, Overhead};
    use crate::fact::{Fact, Measure, Peaks, What};
    use crate::packing::{Deaths, Packing};
    use crate::pages::Pages;

    /// 1,000 blocks of 256 bytes, a page each.
    #[test]
    fn it_shows_each_bound_and_what_is_between() {
        let mut bounds = Bounds::new(0, Overhead::default());
        let mut pages = Pages::new(0, 8);
        let mut packing = Packing::new(Deaths::new(1_000).plan());
        for number in 0..1_000u64 {
            let fact = Fact {
                address: number * 4096,
                bytes: 256,
                handle: number as u32,
                clock_events: number + 1,
                clock_allocations: number + 1,
                what: What::Born,
                ..Fact::default()
            };
            bounds.fact(&fact, Peaks::default());
            pages.fact(&fact, Peaks::default());
            packing.fact(&fact, Peaks::default());
        }
        let pages = pages.report(Peaks::default(), 1_000);
        let mut report = bounds.report(&pages, 1_000);
        report.add_packing(packing.report());
        let expected = "\nwhat relocation could save: process 1
                                                     peak KiB  mean KiB
live bytes                                              250.0     250.0  █▉
live blocks in multiples of 16                          250.0     250.0  █▉
compacted, with 8 B of header and 8 B of handle a block    273.4     273.4  ██
pages of the best packing found that moves nothing      252.0         -  █▉
pages that were held                                  4,000.0   4,000.0  ██████████████████████████████
";
        let text = section(&report, "process 1");
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&text).starts_with(&squeezed(expected)), "{text}");
        assert!(text.contains("\nat most 3.6 MiB (93.1 %) at the peak, 3.6 MiB (93.2 %) in the mean; 3.7 MiB (93.7 %) and 3.7 MiB (93.8 %) if headers and handles cost nothing\n"), "{text}");
        assert!(text.ends_with("best packing: best fit without knowledge; what it cannot save and moving could: 0 B (0.0 %)\n"), "{text}");
        let text = section(&bounds.report(&pages, 1_000), "process 1");
        assert!(!text.contains("packing found") && !text.contains("would cost"));
        assert!(text.ends_with(
            "--bounds packs the blocks anew, knowing their lifetimes, without moving any\n"
        ));
    }

    /// 256 blocks of 16 bytes fill a page; with header and handle they take two and a half.
    #[test]
    fn it_says_where_relocation_costs_more() {
        let mut bounds = Bounds::new(0, Overhead::default());
        let mut pages = Pages::new(0, 8);
        for number in 0..256u64 {
            let fact = Fact {
                address: number * 16,
                bytes: 16,
                what: What::Born,
                ..Fact::default()
            };
            bounds.fact(&fact, Peaks::default());
            pages.fact(&fact, Peaks::default());
        }
        let pages = pages.report(Peaks::default(), 1_000);
        let text = section(&bounds.report(&pages, 1_000), "process 1");
        assert!(
            text.contains(
                "\nat the peak, headers and handles would cost 8.0 KiB more than everything"
            ),
            "{text}"
        );
    }
}
