//! Pages that hold live blocks: how many, how full, and what keeps nearly empty ones.

use super::draw::{bar, columns, sparkline};
use super::units::{Unit, count, counted, ppm, share, time};
use crate::pages::{Holding, PagesReport, Sparse};
use std::fmt::Write;

const BAR: usize = 30;
const SPARK: usize = 64;
/// Sizes that are shown of blocks in nearly empty pages.
const SIZES_SHOWN: usize = 6;

/// The address-space view of a process. `whose` names it.
pub(super) fn section(report: &PagesReport, whose: &str) -> String {
    let mut out = format!("\npages that hold a live block, of 4 KiB: {whose}\n");
    if report.peak.holding.pages == 0 {
        out.push_str("none: no block of its own was live\n");
        return out;
    }
    out.push_str(&holdings(report));
    let curve = &report.curve;
    let held: Vec<u64> = curve
        .pages
        .iter()
        .map(|pages| pages.saturating_mul(report.page_bytes))
        .collect();
    let most = held.iter().copied().max().unwrap_or(0);
    // Both lines in one scale: the difference is what is not live.
    let live: Vec<u64> = curve.live_bytes.iter().copied().chain([most]).collect();
    let live: String = sparkline(&live, live.len())
        .chars()
        .take(curve.live_bytes.len())
        .collect();
    let columns = curve.pages.len().min(SPARK);
    let thinned: String = thin(&live, columns);
    let _ = writeln!(out, "pages held │{:<SPARK$}│", sparkline(&held, SPARK));
    let _ = writeln!(out, "live bytes │{thinned:<SPARK$}│ in the same scale");
    out.push_str(&occupancy(report));
    let (at_ns, sparse) = match &report.sparse_at_gap {
        Some(at) => (Some(at.at_ns), &at.sparse),
        None => (None, &report.over_time.sparse_end),
    };
    out.push_str(&sparse_pages(at_ns, sparse));
    out
}

/// Of a line, the character of greatest height in each of so many stretches.
fn thin(line: &str, columns: usize) -> String {
    let all: Vec<char> = line.chars().collect();
    let stretch = |n: usize| &all[n * all.len() / columns..(n + 1) * all.len() / columns];
    // A blank is below all heights, and heights rise with their code.
    (0..columns)
        .map(|n| stretch(n).iter().copied().max().unwrap_or(' '))
        .collect()
}

fn holdings(report: &PagesReport) -> String {
    let unit = Unit::column_of_bytes(report.peak.holding.held_bytes);
    let head = [
        "",
        "pages",
        &format!("held {}", unit.name()),
        &format!("live {}", unit.name()),
        "not live",
        "",
    ];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    let mut line = |name: &str, of: &Holding, at_ns: Option<u64>| {
        rows.push(vec![
            name.to_string(),
            count(of.pages),
            unit.bare(of.held_bytes),
            unit.bare(of.live_bytes),
            ppm(of.external_fragmentation_ppm),
            at_ns.map_or(String::new(), |ns| format!("at {}", time(ns))),
        ]);
    };
    line("most", &report.peak.holding, Some(report.peak.at_ns));
    line("peak of live bytes", &report.at_live_bytes_peak, None);
    line("most not live", &report.gap.holding, Some(report.gap.at_ns));
    line("mean over time", &report.over_time.mean, None);
    line("at the end", &report.over_time.end, None);
    columns(&rows, &[true, false, false, false, false, true])
}

fn occupancy(report: &PagesReport) -> String {
    let head = [
        "live bytes in the page",
        "at the peak",
        "share",
        "mean",
        "at the end",
        "",
    ];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    let at_peak = &report.occupancy_at_live_bytes_peak;
    let all = at_peak
        .iter()
        .fold(0u64, |sum, pages| sum.saturating_add(*pages));
    let most = at_peak.iter().copied().max().unwrap_or(0);
    for (of, pages) in report.over_time.occupancy.iter().zip(at_peak) {
        rows.push(vec![
            format!("{} .. {}", count(of.low), count(of.high - 1)),
            count(*pages),
            share(*pages, all),
            count(of.pages_mean),
            count(of.pages_end),
            bar(*pages, most, BAR),
        ]);
    }
    let left = [false, false, false, false, false, true];
    format!(
        "\npages by how full they are, at the peak of live bytes\n{}",
        columns(&rows, &left)
    )
}

fn sparse_pages(at_ns: Option<u64>, sparse: &Sparse) -> String {
    let pages = sparse.all.pages_milli.saturating_add(500) / 1_000;
    if pages == 0 {
        return String::new();
    }
    let mut out = format!(
        "\npages at most an eighth full {}: {}, held by {}\n",
        at_ns.map_or("at the end".to_string(), |ns| format!("at {}", time(ns))),
        count(pages),
        counted(sparse.all.blocks, "block", "blocks"),
    );
    let mut sizes: Vec<_> = sparse.by_size.iter().collect();
    sizes.sort_by_key(|row| std::cmp::Reverse(row.pages_milli));
    sizes.truncate(SIZES_SHOWN);
    sizes.sort_by_key(|row| row.low);
    let most = sizes.iter().map(|row| row.pages_milli).max().unwrap_or(0);
    let mut rows = vec![
        ["requested bytes", "blocks", "pages", "share", ""]
            .map(str::to_string)
            .to_vec(),
    ];
    for row in &sizes {
        rows.push(vec![
            match row.high - row.low {
                0..=1 => count(row.low),
                _ => format!("{} .. {}", count(row.low), count(row.high - 1)),
            },
            count(row.blocks),
            count(row.pages_milli.saturating_add(500) / 1_000),
            share(row.pages_milli, sparse.all.pages_milli),
            bar(row.pages_milli, most, BAR),
        ]);
    }
    out.push_str(&columns(&rows, &[false, false, false, false, true]));
    if let Some(more @ 1..) = sparse.by_size.len().checked_sub(SIZES_SHOWN) {
        let _ = writeln!(
            out,
            "and {}",
            counted(more as u64, "more class of sizes", "more classes of sizes")
        );
    }
    let younger = |limit: u64| {
        let rows = sparse.by_age.iter().filter(|row| row.high <= limit);
        let pages = rows.fold(0u64, |sum, row| sum.saturating_add(row.pages_milli));
        format!(
            "{} by blocks younger than {}",
            share(pages, sparse.all.pages_milli),
            time(limit)
        )
    };
    let _ = writeln!(out, "held {}, {}", younger(1 << 20), younger(1 << 30));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{Fact, Measure, Peaks, What};
    use crate::pages::{LiveBlock, Pages};

    /// 600 blocks of 3,000 bytes, a page each, then 300 of 64 in pages of their own.
    #[test]
    fn it_shows_what_is_held_and_by_whom() {
        let mut pages = Pages::new(0, 64);
        let mut live = Vec::new();
        for number in 0..900u64 {
            let bytes = if number < 600 { 3_000 } else { 64 };
            let fact = Fact {
                time_ns: number * 1_000_000,
                address: number * 4096,
                bytes,
                clock_events: number + 1,
                what: What::Born,
                ..Fact::default()
            };
            let peaks = Peaks {
                blocks: number,
                bytes: number,
            };
            pages.fact(&fact, peaks);
            live.push(LiveBlock {
                address: fact.address,
                bytes,
                born_ns: fact.time_ns,
            });
        }
        pages.walk(900_000_000, &mut live.into_iter());
        let report = pages.report(
            Peaks {
                blocks: 900,
                bytes: 900,
            },
            1_000_000_000,
        );
        let text = section(&report, "process 3 (cc1), pid 5");
        let expected = "\npages that hold a live block, of 4 KiB: process 3 (cc1), pid 5
                    pages  held KiB  live KiB  not live
most                  900   3,600.0   1,776.6    50.7 %  at 899.0 ms
peak of live bytes    900   3,600.0   1,776.6    50.7 %
most not live         900   3,600.0   1,776.6    50.7 %  at 899.0 ms
mean over time        495   1,981.8   1,236.0    37.6 %
at the end            900   3,600.0   1,776.6    50.7 %
";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("        2,561 .. 3,072          600  66.7 %   420         600  ██████████████████████████████\n"), "{text}");
        assert!(text.contains("at most an eighth full at 900.0 ms: 300, held by 300 blocks\nrequested bytes  blocks  pages    share\n      64 .. 127     300    300  100.0 %  ██████"), "{text}");
        assert!(
            text.ends_with(
                "held 0.3 % by blocks younger than 1.0 ms, 100.0 % by blocks younger than 1.07 s\n"
            ),
            "{text}"
        );
        // Live bytes are about half of what is held in the end.
        let last = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| {
                    line.trim_end_matches(" in the same scale")
                        .trim_end()
                        .trim_end_matches('│')
                        .trim_end()
                        .chars()
                        .last()
                })
        };
        assert_eq!(
            (last("pages held"), last("live bytes")),
            (Some('█'), Some('▄')),
            "{text}"
        );
    }

    #[test]
    fn nothing_held_is_said() {
        let text = section(&PagesReport::default(), "process 0");
        assert!(text.ends_with("none: no block of its own was live\n"));
    }
}
