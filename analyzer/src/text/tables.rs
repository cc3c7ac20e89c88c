//! The tables of the report, one function each. A table without content is left out.

use super::draw::{bar, columns, sparkline};
use super::units::{self, Unit, count, counted, ppm, share, time};
use crate::histogram::SizeBin;
use crate::lifetime::{LifetimeBySize, Lifetimes};
use crate::report::{Figures, Report};
use std::fmt::Write;

/// Characters of a bar.
const BAR: usize = 30;
/// Characters of a sparkline.
const SPARK: usize = 64;

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|cell| cell.to_string()).collect()
}

/// Blocks and bytes by what became of them.
pub fn blocks(figures: &Figures, duration_ns: u64) -> String {
    let (blocks, bytes, peak) = (&figures.blocks, &figures.bytes, &figures.peak);
    let unit = Unit::column_of_bytes(bytes.requested.max(bytes.inherited));
    let mut rows = vec![row(["", "blocks", "bytes", ""])];
    let mut line = |name: &str, blocks: u64, bytes: u64, note: String| {
        rows.push(vec![
            name.to_string(),
            count(blocks),
            unit.show(bytes),
            note,
        ]);
    };
    let resized = "with what resizes added".to_string();
    let grown = figures.realloc.grown != 0;
    line(
        "allocated",
        blocks.allocated,
        bytes.requested,
        if grown { resized } else { String::new() },
    );
    if blocks.inherited != 0 {
        line(
            "inherited by forks",
            blocks.inherited,
            bytes.inherited,
            String::new(),
        );
    }
    line("freed", blocks.freed, bytes.freed, String::new());
    if blocks.displaced != 0 {
        let mut note = "their address was given out again: their free was not seen".to_string();
        if blocks.lost_in_pause != 0 {
            let lost = count(blocks.lost_in_pause);
            note = format!("their address was given out again: {lost} were freed in a pause");
        }
        line("displaced", blocks.displaced, bytes.displaced, note);
    }
    line(
        "never freed",
        blocks.never_freed,
        bytes.never_freed,
        String::new(),
    );
    if blocks.released != 0 {
        let note = "held by processes that ended before the run did".to_string();
        line("released", blocks.released, bytes.released, note);
    }
    line(
        "live at the end",
        blocks.live_at_end,
        bytes.live_at_end,
        String::new(),
    );
    let at = |ns: u64| format!("{} ({})", time(ns), share(ns, duration_ns));
    let when = if peak.live_blocks_at_ns == peak.live_bytes_at_ns {
        format!("at {}", at(peak.live_blocks_at_ns))
    } else {
        format!(
            "blocks at {}, bytes at {}",
            at(peak.live_blocks_at_ns),
            at(peak.live_bytes_at_ns)
        )
    };
    line("peak live", peak.live_blocks, peak.live_bytes, when);
    let mean = "over time".to_string();
    line(
        "mean live",
        figures.mean.live_blocks,
        figures.mean.live_bytes,
        mean,
    );
    columns(&rows, &[true, false, false, true])
}

/// Calls by kind.
pub fn calls(figures: &Figures) -> String {
    let events = &figures.events;
    let all = [
        ("malloc", events.malloc),
        ("calloc", events.calloc),
        ("realloc", events.realloc),
        ("memalign", events.memalign),
        ("free", events.free),
    ];
    let mut rows = vec![row(["", "calls", "share"])];
    for (name, calls) in all {
        rows.push(vec![
            name.to_string(),
            count(calls),
            share(calls, events.total),
        ]);
    }
    let mut out = String::from("\n");
    out.push_str(&columns(&rows, &[true]));
    let frees = &figures.frees;
    let mut notes = vec![format!("{} failed", count(events.failed))];
    notes.push(format!(
        "{} freed in another thread ({} of the frees)",
        count(frees.cross_thread),
        share(frees.cross_thread, frees.total)
    ));
    if frees.inherited != 0 {
        let freed = counted(frees.inherited, "inherited block", "inherited blocks");
        notes.push(format!("{freed} freed"));
    }
    let _ = writeln!(out, "{}", notes.join(", "));
    out
}

/// Live blocks, live bytes and resident memory over time.
pub fn over_time(figures: &Figures, duration_ns: u64) -> String {
    let live = &figures.live;
    if figures.peak.live_blocks == 0 && figures.resident.is_none() {
        return String::new();
    }
    let mut lines = vec![
        (
            "live blocks",
            sparkline(&live.live_blocks, SPARK),
            count(figures.peak.live_blocks),
        ),
        (
            "live bytes",
            sparkline(&live.live_bytes, SPARK),
            units::bytes(figures.peak.live_bytes),
        ),
    ];
    if let Some(resident) = &figures.resident {
        let peak = units::bytes(resident.anonymous_bytes_peak);
        lines.push((
            "resident",
            sparkline(&resident.anonymous_bytes, SPARK),
            peak,
        ));
    }
    let mut out = format!(
        "\nover time ({}), the peak at the right\n",
        time(duration_ns)
    );
    for (name, line, most) in lines {
        let _ = writeln!(out, "{name:<12} │{line:<SPARK$}│ {most}");
    }
    if figures.resident.is_some() {
        out.push_str("resident: anonymous pages as the kernel counts them\n");
    } else {
        out.push_str("no resident samples in this trace: only `rmtrace record` takes them\n");
    }
    out
}

/// `low-high` for whole numbers `[low, high)`.
pub(super) fn range(low: u64, high: u64) -> String {
    match high - low {
        0 | 1 => count(low),
        _ => format!("{}-{}", count(low), count(high - 1)),
    }
}

/// The size histogram.
pub fn sizes(figures: &Figures, whole: bool) -> String {
    let bins = &figures.size_histogram;
    if bins.is_empty() {
        return String::new();
    }
    let blocks = bins.iter().map(|bin| bin.blocks).sum();
    let bytes = bins
        .iter()
        .fold(0u64, |sum, bin| sum.saturating_add(bin.bytes));
    let most = bins.iter().map(|bin| bin.blocks).max().unwrap_or(0);
    let unit = Unit::column_of_bytes(bins.iter().map(|bin| bin.bytes).max().unwrap_or(0));
    let mut rows = vec![row([
        "requested bytes",
        "blocks",
        "share",
        unit.name(),
        "share",
        "blocks",
    ])];
    let is_shown =
        |bin: &SizeBin| whole || !is_little(bin.blocks, blocks) || !is_little(bin.bytes, bytes);
    for bin in bins.iter().filter(|bin| is_shown(bin)) {
        rows.push(vec![
            range(bin.low, bin.high),
            count(bin.blocks),
            share(bin.blocks, blocks),
            unit.bare(bin.bytes),
            share(bin.bytes, bytes),
            bar(bin.blocks, most, BAR),
        ]);
    }
    let mut out = format!(
        "\n{}",
        columns(&rows, &[false, false, false, false, false, true])
    );
    out.push_str(&left_out(bins.len() + 1 - rows.len(), "size", "sizes"));
    out
}

/// Whether a part of the whole is less than five in a thousand: a table is shorter without it.
fn is_little(part: u64, whole: u64) -> bool {
    u128::from(part) * 200 < u128::from(whole)
}

/// What a table does not show.
fn left_out(rows: usize, one: &str, many: &str) -> String {
    match rows {
        0 => String::new(),
        rows => format!(
            "{} with less than 0.5 % left out: -v shows all\n",
            counted(rows as u64, one, many)
        ),
    }
}

/// Lifetimes in three clocks.
pub fn lifetimes(figures: &Figures, whole: bool) -> String {
    let lifetime = &figures.lifetime;
    let shares = &lifetime.shares;
    if shares.blocks == 0 {
        return String::new();
    }
    let unit = Unit::time(lifetime.ns.p50.max(1_000));
    let bytes = Unit::bytes(lifetime.bytes.p50);
    let of_run = &figures.macro_lifetime;
    let mut rows = vec![row([
        "lifetime of freed blocks",
        "time",
        "calls",
        "bytes allocated",
        "of the run",
    ])];
    type Of = fn(&Lifetimes) -> u64;
    let lines: [(&str, Of, u64); 4] = [
        ("half live at most", |of| of.p50, of_run.p50_ppm),
        ("90 %", |of| of.p90, of_run.p90_ppm),
        ("99 %", |of| of.p99, of_run.p99_ppm),
        ("longest", |of| of.max, of_run.max_ppm),
    ];
    for (name, of, of_run) in lines {
        rows.push(vec![
            name.to_string(),
            unit.show(of(&lifetime.ns)),
            count(of(&lifetime.events)),
            bytes.show(of(&lifetime.bytes)),
            ppm(of_run),
        ]);
    }
    let mut out = format!("\n{}", columns(&rows, &[true]));
    let _ = writeln!(
        out,
        "mean over all blocks, to the end where not freed: {} of the run",
        ppm(of_run.mean_ppm)
    );
    let lines = [
        ("less than 1 us", shares.below_1us),
        ("less than 1 ms", shares.below_1ms),
        ("less than 1 s", shares.below_1s),
        ("1 s and more, then freed", shares.from_1s),
        ("to the end", shares.to_end),
    ];
    let mut rows = vec![row(["all blocks live", "blocks", "share", ""])];
    for (name, blocks) in lines {
        rows.push(vec![
            name.to_string(),
            count(blocks),
            share(blocks, shares.blocks),
            bar(blocks, shares.blocks, BAR),
        ]);
    }
    let _ = write!(out, "\n{}", columns(&rows, &[true, false, false, true]));
    if whole {
        for (name, of) in [
            ("ns", &lifetime.ns),
            ("calls", &lifetime.events),
            ("bytes", &lifetime.bytes),
        ] {
            out.push_str(&lifetime_histogram(name, of));
        }
    }
    out
}

fn lifetime_histogram(name: &str, lifetimes: &Lifetimes) -> String {
    let freed = lifetimes.histogram.iter().map(|bin| bin.blocks).sum();
    let most = lifetimes
        .histogram
        .iter()
        .map(|bin| bin.blocks)
        .max()
        .unwrap_or(0);
    let mut rows = vec![row([&format!("lifetime in {name}"), "blocks", "share", ""])];
    for bin in &lifetimes.histogram {
        rows.push(vec![
            range(bin.low, bin.high),
            count(bin.blocks),
            share(bin.blocks, freed),
            bar(bin.blocks, most, BAR),
        ]);
    }
    format!("\n{}", columns(&rows, &[false, false, false, true]))
}

/// Lifetimes by first size.
pub fn lifetimes_by_size(figures: &Figures, whole: bool) -> String {
    let all = &figures.lifetime_by_size;
    if all.is_empty() {
        return String::new();
    }
    let fewest = all.iter().map(|of| of.p50_ns).filter(|ns| *ns != 0).min();
    let unit = Unit::time(fewest.unwrap_or(0).max(1_000));
    let name = unit.name();
    let mut rows = vec![row([
        "requested bytes",
        "freed",
        "to the end",
        &format!("p50 {name}"),
        &format!("p90 {name}"),
        &format!("p99 {name}"),
        &format!("max {name}"),
    ])];
    let blocks = all.iter().map(|of| of.freed + of.to_end).sum();
    let is_shown = |of: &LifetimeBySize| whole || !is_little(of.freed + of.to_end, blocks);
    for of in all.iter().filter(|of| is_shown(of)) {
        let mut cells = vec![range(of.low, of.high), count(of.freed), count(of.to_end)];
        cells.extend(
            [of.p50_ns, of.p90_ns, of.p99_ns, of.max_ns].map(|ns| match of.freed {
                0 => "-".to_string(),
                _ => unit.bare(ns),
            }),
        );
        rows.push(cells);
    }
    let left_out = left_out(all.len() + 1 - rows.len(), "size", "sizes");
    format!("\nlifetime by size\n{}{left_out}", columns(&rows, &[]))
}

/// Resizes and growth chains.
pub fn reallocs(figures: &Figures) -> String {
    let of = &figures.realloc;
    if figures.events.realloc == 0 {
        return String::new();
    }
    let mut out = format!(
        "\nrealloc: {} of a block ({} in place, {} moved; {} grew, {} shrank), {} from NULL, {} to zero\n",
        counted(of.resized, "resize", "resizes"),
        count(of.in_place),
        count(of.moved),
        count(of.grown),
        count(of.shrunk),
        count(of.from_null),
        count(of.to_zero),
    );
    let _ = writeln!(
        out,
        "moving copied {} at most",
        units::bytes(of.bytes_copied_max)
    );
    if of.blocks_grown != 0 {
        let _ = writeln!(
            out,
            "{}, the longest chain {}",
            counted(of.blocks_grown, "block grew", "blocks grew"),
            counted(of.chain_longest, "time", "times")
        );
        let mut rows = vec![row(["grew times", "blocks", "share", ""])];
        let most = of.chains.iter().map(|bin| bin.blocks).max().unwrap_or(0);
        for bin in &of.chains {
            rows.push(vec![
                range(bin.low, bin.high),
                count(bin.blocks),
                share(bin.blocks, of.blocks_grown),
                bar(bin.blocks, most, BAR),
            ]);
        }
        out.push_str(&columns(&rows, &[false, false, false, true]));
    }
    out
}

/// The processes, those with the highest peaks of live bytes first.
pub fn processes(report: &Report, limit: usize) -> String {
    let mut all: Vec<_> = report.processes.iter().collect();
    if all.is_empty() {
        return String::new();
    }
    all.sort_by_key(|process| {
        (
            std::cmp::Reverse(process.figures.peak.live_bytes),
            process.number,
        )
    });
    let most = all
        .first()
        .map_or(0, |process| process.figures.peak.live_bytes);
    let unit = Unit::column_of_bytes(most);
    let peak = format!("peak {}", unit.name());
    let mut rows = vec![row([
        "process",
        "pid",
        "name",
        "role",
        "from",
        "events",
        "allocated",
        "never freed",
        "peak blocks",
        &peak,
        "resident",
        "dropped",
        "unknown",
    ])];
    for process in all.iter().take(limit) {
        let figures = &process.figures;
        let events = &figures.events;
        let from = match process.parent {
            Some(parent) => format!("{} {parent}", process.started_by),
            None => process.started_by.to_string(),
        };
        let resident = figures
            .resident
            .as_ref()
            .map(|of| units::bytes(of.anonymous_bytes_peak));
        rows.push(vec![
            process.number.to_string(),
            process.pid.to_string(),
            process.name.clone(),
            process.role.clone(),
            from,
            count(events.total),
            count(figures.blocks.allocated),
            count(figures.blocks.never_freed),
            count(figures.peak.live_blocks),
            unit.bare(figures.peak.live_bytes),
            resident.unwrap_or_else(|| "-".to_string()),
            count(events.dropped),
            count(events.unknown_frees + events.live_duplicates),
        ]);
    }
    let left = [false, false, true, true, true];
    let mut out = format!(
        "\nprocesses, highest peak of live bytes first\n{}",
        columns(&rows, &left)
    );
    if all.len() > limit {
        let more = counted((all.len() - limit) as u64, "more process", "more processes");
        let _ = writeln!(out, "and {more}: --all-processes shows them");
    }
    if all.len() > 1 {
        let peak = &report.figures.peak;
        let _ = match (peak.process, peak.live_bytes_process) {
            (blocks, bytes) if blocks == bytes => {
                writeln!(
                    out,
                    "process {blocks} held most of the live blocks and bytes at the run's peak"
                )
            }
            (blocks, bytes) => writeln!(
                out,
                "at the run's peak, process {blocks} held most of the live blocks, process {bytes} most of the live bytes"
            ),
        };
    }
    out
}

/// The marks.
pub fn marks(report: &Report, all: bool) -> String {
    let marks = &report.marks;
    if marks.total == 0 || marks.listed.is_empty() {
        return String::new();
    }
    let shown = if all {
        marks.listed.len()
    } else {
        marks.listed.len().min(8)
    };
    let mut out = format!("\n{}\n", counted(marks.total, "mark", "marks"));
    for mark in &marks.listed[..shown] {
        let _ = write!(out, "  {} at {}", mark.name, time(mark.at_ns));
        if !mark.of_run {
            let _ = write!(out, ", process {}, thread {}", mark.process, mark.thread);
        }
        if mark.value != 0 {
            let _ = write!(out, ", value {}", mark.value);
        }
        out.push('\n');
    }
    out
}
