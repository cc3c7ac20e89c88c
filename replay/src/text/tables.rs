//! Tables of single operations, of ranks, fragmentation and system calls.

use super::{columns, count, name, row};
use crate::distribution::{Distribution, LatencyReport};
use crate::report::{AllocatorScores, Report};
use crate::scores::Score;
use std::fmt::Write;

/// Nanoseconds; what can't be told from nothing is said to be below that.
fn ns(ns: f64, floor_ns: f64) -> String {
    match ns < floor_ns {
        true => format!("<{:.0}", floor_ns.ceil()),
        false => count(ns.round() as u64),
    }
}

/// A table with an empty line before it; nothing of a heading alone.
fn table(rows: &[Vec<String>]) -> String {
    match rows.len() {
        0 | 1 => String::new(),
        _ => format!("\n{}", columns(rows)),
    }
}

/// Percentiles of each kind of operation; the two that matter most, or all.
pub fn latency(report: &Report, all_kinds: bool) -> String {
    type Of = fn(&LatencyReport) -> &Distribution;
    let kinds: [(&str, Of, bool); 7] = [
        ("malloc", |of| &of.malloc, true),
        ("free", |of| &of.free, true),
        ("calloc", |of| &of.calloc, false),
        ("aligned", |of| &of.aligned, false),
        ("realloc", |of| &of.realloc, false),
        ("free, same thread", |of| &of.free_same_thread, false),
        ("free, other thread", |of| &of.free_cross_thread, false),
    ];
    let Some(clock) = &report.replayer.clock else {
        return String::new();
    };
    let mut rows = vec![row([
        "latency", "", "p50 ns", "p90", "p99", "p99.9", "p99.99", "max", "calls",
    ])];
    for (kind, of, is_main) in kinds {
        for allocator in &report.allocators {
            let Some(latency) = &allocator.latency_ns else {
                continue;
            };
            let found = of(latency);
            if found.count == 0 || !(is_main || all_kinds) {
                continue;
            }
            let figures = [
                found.p50,
                found.p90,
                found.p99,
                found.p999,
                found.p9999,
                found.max,
            ];
            let mut cells = vec![name(allocator), kind.to_string()];
            cells.extend(figures.map(|figure| ns(figure, clock.floor_ns)));
            cells.push(count(found.count));
            rows.push(cells);
        }
    }
    let mut out = table(&rows);
    if !out.is_empty() {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "the allocator's call alone, its locks included; clock {} with steps of {:.1} ns, of which reading takes {:.0} ns,\n\
             which is in each; < what 99 % of readings take",
            clock.source, clock.step_ns, clock.cost_ns
        );
    }
    out
}

/// The tables that only some ask for.
pub fn all(report: &Report) -> String {
    let mut out = scores(report);
    out += &fragmentation(report);
    out += &calls(report);
    out += &callgrind(report);
    out += &by_size(report);
    out
}

fn by_size(report: &Report) -> String {
    let floor_ns = report
        .replayer
        .clock
        .as_ref()
        .map_or(0.0, |clock| clock.floor_ns);
    let mut rows = vec![row([
        "latency by size",
        "bytes",
        "allocations",
        "p50 ns",
        "p99",
        "max",
        "frees",
        "p50",
        "p99",
        "max",
    ])];
    for allocator in &report.allocators {
        for size in allocator
            .latency_ns
            .iter()
            .flat_map(|latency| &latency.by_size)
        {
            let mut cells = vec![name(allocator)];
            cells.push(match size.from_bytes + 1 == size.below_bytes {
                true => count(size.from_bytes),
                false => format!("{}-{}", size.from_bytes, size.below_bytes - 1),
            });
            for of in [&size.allocation, &size.free] {
                cells.push(count(of.count));
                cells.extend([of.p50, of.p99, of.max].map(|figure| match of.count {
                    0 => String::new(),
                    _ => ns(figure, floor_ns),
                }));
            }
            rows.push(cells);
        }
    }
    table(&rows)
}

fn scores(report: &Report) -> String {
    type Of = fn(&AllocatorScores) -> &Score;
    let kinds: [(&str, Of, f64); 5] = [
        ("time, all", |of| &of.all, 1.0),
        ("malloc", |of| &of.malloc, 1.0),
        ("realloc", |of| &of.realloc, 1.0),
        ("free", |of| &of.free, 1.0),
        ("space", |of| &of.space, 1024.0),
    ];
    let mut rows = vec![row([
        "scores",
        "",
        "penalty c",
        "penalty w",
        "best %",
        "worst %",
        "average",
        "median",
        "",
    ])];
    for (kind, of, unit) in kinds {
        for allocator in &report.allocators {
            let Some(score) = allocator.scores.as_ref().map(of) else {
                continue;
            };
            rows.push(vec![
                name(allocator),
                kind.to_string(),
                format!("{:.3}", score.penalty_c),
                format!("{:.3}", score.penalty_w),
                format!("{:.1}", score.best * 100.0),
                format!("{:.1}", score.worst * 100.0),
                format!("{:.1}", score.average / unit),
                format!("{:.1}", score.median / unit),
                if kind == "space" { "KiB" } else { "ns" }.to_string(),
            ]);
        }
    }
    table(&rows)
}

fn fragmentation(report: &Report) -> String {
    let mut rows = vec![row([
        "fragmentation",
        "internal %",
        "at peak",
        "empty pages %",
        "JW 1",
        "JW 2",
        "JW 3",
        "JW 4",
        "reuse last %",
        "recent %",
    ])];
    let percent =
        |share: Option<f64>| share.map_or("-".to_string(), |share| format!("{:.1}", share * 100.0));
    for allocator in &report.allocators {
        let Some(memory) = &allocator.memory else {
            continue;
        };
        let internal = memory.internal_fragmentation.as_ref();
        let uses = &memory.page_use;
        let empty: f64 = uses.iter().map(|of| of.empty_share).sum();
        let (four, reuse) = (&memory.johnstone_wilson, allocator.reuse.as_ref());
        let mut cells = vec![
            name(allocator),
            percent(internal.map(|of| of.mean)),
            percent(internal.map(|of| of.at_peak)),
            percent((!uses.is_empty()).then(|| empty / uses.len() as f64)),
        ];
        let four = [
            four.mean_over_time,
            four.at_peak_live,
            four.at_peak_resident,
            four.peak_over_peak,
        ];
        cells.extend(four.map(|ratio| format!("{ratio:.3}")));
        cells.push(percent(reuse.map(|of| of.last)));
        cells.push(percent(reuse.map(|of| of.recent)));
        rows.push(cells);
    }
    table(&rows)
}

fn calls(report: &Report) -> String {
    let names = [
        "total", "mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "futex", "others",
    ];
    let mut rows = vec![
        [&["system calls"][..], &names]
            .concat()
            .iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>(),
    ];
    let mut why = String::new();
    for allocator in &report.allocators {
        let Some(calls) = &allocator.system_calls else {
            if let Some(reason) = &allocator.system_calls_why {
                why = format!("\nsystem calls were not counted: {reason}\n");
            }
            continue;
        };
        let mut cells = vec![name(allocator)];
        // Those without a column of their own are among the others.
        let shown: u64 = names[1..8].iter().filter_map(|name| calls.get(name)).sum();
        let total = calls.get("total").copied().unwrap_or_default();
        cells.extend(
            names[..8]
                .iter()
                .map(|name| count(calls.get(name).copied().unwrap_or_default())),
        );
        cells.push(count(total.saturating_sub(shown)));
        rows.push(cells);
    }
    table(&rows) + &why
}

fn callgrind(report: &Report) -> String {
    let mut rows = vec![row([
        "instructions",
        "an operation",
        "over null",
        "functions",
    ])];
    for allocator in &report.allocators {
        let Some(counted) = &allocator.callgrind else {
            continue;
        };
        let functions = counted.functions.iter();
        let functions: Vec<String> = functions
            .map(|(name, function)| format!("{name} {:.0}", function.instructions_per_call))
            .collect();
        rows.push(vec![
            name(allocator),
            format!("{:.1}", counted.instructions_per_op),
            counted
                .over_null_per_op
                .map_or(String::new(), |over| format!("{over:.1}")),
            functions.join(", "),
        ]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::ClockReport;
    use crate::fragmentation::JohnstoneWilson;
    use crate::report::{AllocatorReport, MemoryReport};

    /// One allocator with a figure in each table.
    fn report() -> Report {
        let found = Distribution {
            count: 4_000,
            p50: 16.2,
            p90: 20.0,
            max: 1_234.5,
            ..Distribution::default()
        };
        let mut report = Report {
            allocators: vec![AllocatorReport {
                name: "/usr/lib/libx.so".to_string(),
                latency_ns: Some(LatencyReport {
                    malloc: found.clone(),
                    calloc: found,
                    ..LatencyReport::default()
                }),
                memory: Some(MemoryReport {
                    johnstone_wilson: JohnstoneWilson {
                        peak_over_peak: 1.25,
                        ..JohnstoneWilson::default()
                    },
                    ..MemoryReport::default()
                }),
                system_calls: Some([("total", 5), ("mmap", 2), ("membarrier", 3)].into()),
                ..AllocatorReport::default()
            }],
            ..Report::default()
        };
        report.replayer.clock = Some(ClockReport {
            source: "tsc".to_string(),
            step_ns: 0.5,
            cost_ns: 15.0,
            floor_ns: 16.5,
            ..ClockReport::default()
        });
        report
    }

    #[test]
    fn what_cannot_be_told_from_nothing_is_marked() {
        let text = latency(&report(), false);
        let cells: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "libx.so", "malloc", "<17", "20", "<17", "<17", "<17", "1,235", "4,000"
            ]
        );
        assert!(!text.contains("calloc"));
        assert!(latency(&report(), true).contains("calloc"));
        assert_eq!(latency(&Report::default(), true), "");
    }

    #[test]
    fn other_tables_show_what_is_there() {
        let text = all(&report());
        let line = |name: &str| {
            let mut lines = text.lines().skip_while(|line| !line.starts_with(name));
            let line = lines.nth(1).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        // Usable sizes, pages and reuse are not known.
        assert_eq!(
            line("fragmentation"),
            "libx.so - - - 0.000 0.000 0.000 1.250 - -"
        );
        assert_eq!(line("system calls"), "libx.so 5 2 0 0 0 0 0 0 3");
        assert!(
            !text.contains("penalty") && !text.contains("instructions"),
            "{text}"
        );
    }
}
