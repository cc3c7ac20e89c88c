//! The report as text.

use crate::report::{AllocatorReport, Report};
use std::fmt::Write;

const MIB: f64 = (1 << 20) as f64;

/// A whole number with its thousands separated.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at != 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Rows of cells with every column as wide as its widest cell; the first to the left, the others to the right.
fn columns(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width - cell.chars().count());
            match at {
                0 => line += &format!("{cell}{gap}"),
                _ => line += &format!("  {gap}{cell}"),
            }
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_string).to_vec()
}

/// The whole report.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    head(report, &mut out);
    out.push('\n');
    out += &time(report);
    if report
        .allocators
        .iter()
        .any(|allocator| allocator.memory.is_some())
    {
        out.push('\n');
        out += &memory(report);
    }
    out += &own(report);
    out += &compaction(report);
    notes(report, &mut out);
    out
}

fn head(report: &Report, out: &mut String) {
    let (trace, program) = (&report.trace, &report.program);
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{}, process {} ({}): {} operations, {:.2} s recorded, {} slots",
        trace.name,
        trace.process,
        trace.title,
        count(program.operations),
        trace.duration_ns as f64 / 1e9,
        count(program.slots),
    );
    let _ = writeln!(
        out,
        "live at the peak {} blocks, {:.2} MiB; at the end {} blocks, {:.2} MiB",
        count(program.peak_live_blocks),
        program.peak_live_bytes as f64 / MIB,
        count(program.end_live_blocks),
        program.end_live_bytes as f64 / MIB,
    );
    let left_out = [
        (program.failed, "failed calls left out"),
        (program.unknown_frees, "frees of unknown blocks left out"),
        (
            program.unknown_resizes,
            "resizes of unknown blocks made allocations",
        ),
        (
            program.displaced,
            "blocks freed when their address was given out again",
        ),
        (program.dropped, "calls the recording dropped missing"),
    ];
    let left_out: Vec<String> = left_out
        .iter()
        .filter(|(number, _)| *number != 0)
        .map(|(number, what)| format!("{} {what}", count(*number)))
        .collect();
    if !left_out.is_empty() {
        let _ = writeln!(out, "{}", left_out.join(", "));
    }
    if program.inherited_blocks != 0 {
        let _ = writeln!(
            out,
            "{} blocks, {:.2} MiB, were inherited by a fork and are allocated before the clock starts",
            count(program.inherited_blocks),
            program.inherited_bytes as f64 / MIB
        );
    }
    let (settings, machine) = (&report.settings, &report.machine);
    let _ = writeln!(
        out,
        "one thread, {} timed rounds, memory at {} pace, touch {}, lock {}; {}, {} processors, Linux {}, huge pages {}",
        settings.rounds,
        settings.pace,
        settings.touch,
        settings.lock,
        machine.processor,
        machine.processors,
        machine.kernel,
        machine.huge_pages
    );
}

fn time(report: &Report) -> String {
    let mut rows = vec![row([
        "time",
        "ns an operation",
        "95 % interval",
        "over null",
        "CPU ns",
        "page faults",
        "version",
    ])];
    for allocator in &report.allocators {
        let time = &allocator.ns_per_op;
        if time.rounds.is_empty() {
            continue;
        }
        rows.push(vec![
            name(allocator),
            format!("{:.2}", time.median),
            format!("{:.2} - {:.2}", time.low, time.high),
            allocator
                .over_null_ns_per_op
                .map_or(String::new(), |ns| format!("{ns:.2}")),
            format!("{:.2}", allocator.cpu_ns_per_op.median),
            count(allocator.page_faults),
            version(allocator),
        ]);
    }
    columns(&rows)
}

fn version(allocator: &AllocatorReport) -> String {
    let how = match allocator.loaded {
        "preloaded" => " (preloaded)",
        _ => "",
    };
    match allocator.version.as_str() {
        "" => format!("{}{how}", allocator.file),
        version => format!("{version}{how}"),
    }
}

fn memory(report: &Report) -> String {
    let mut rows = vec![
        row([
            "resident",
            "peak",
            "over",
            "over",
            "mean",
            "over",
            "over",
            "at the end",
            "huge",
            "loading",
        ]),
        row([
            "",
            "MiB",
            "live",
            "live+D",
            "MiB",
            "live",
            "live+D",
            "less live MiB",
            "MiB",
            "MiB",
        ]),
    ];
    for allocator in &report.allocators {
        let Some(memory) = &allocator.memory else {
            continue;
        };
        let mib = |bytes: u64| format!("{:.2}", bytes as f64 / MIB);
        let ratio = |ratio: f64| format!("{ratio:.3}");
        rows.push(vec![
            name(allocator),
            mib(memory.peak_resident_bytes),
            ratio(memory.peak_resident_over_live),
            ratio(memory.peak_resident_over_rounded),
            mib(memory.mean_resident_bytes),
            ratio(memory.mean_resident_over_live),
            ratio(memory.mean_resident_over_rounded),
            format!("{:.2}", memory.end_resident_less_live_bytes as f64 / MIB),
            mib(memory.huge_page_bytes),
            mib(memory.loading_bytes),
        ]);
    }
    columns(&rows)
}

fn compaction(report: &Report) -> String {
    let mut rows = vec![row([
        "compacted",
        "at",
        "before MiB",
        "after MiB",
        "over live",
        "over live+D",
        "ms",
        "CPU ms",
    ])];
    for allocator in &report.allocators {
        let Some(compaction) = allocator
            .memory
            .as_ref()
            .and_then(|memory| memory.compaction.as_ref())
        else {
            continue;
        };
        let seen = &compaction.seen;
        rows.push(vec![
            name(allocator),
            seen.at.clone(),
            format!("{:.2}", seen.before_bytes as f64 / MIB),
            format!("{:.2}", seen.after_bytes as f64 / MIB),
            format!("{:.3}", compaction.after_over_live),
            format!("{:.3}", compaction.after_over_rounded),
            format!("{:.2}", seen.wall_ns as f64 / 1e6),
            format!("{:.2}", seen.cpu_ns as f64 / 1e6),
        ]);
    }
    match rows.len() {
        1 => String::new(),
        _ => format!("\n{}", columns(&rows)),
    }
}

/// What an allocator that compacts says of it.
fn own(report: &Report) -> String {
    let mut rows = vec![row([
        "compaction",
        "share of time",
        "steps",
        "longest us",
        "blocks moved",
        "MiB moved",
        "pinned",
        "table MiB",
    ])];
    for allocator in &report.allocators {
        let Some(own) = &allocator.own else {
            continue;
        };
        rows.push(vec![
            name(allocator),
            format!(
                "{:.1} %",
                allocator.compaction_share.unwrap_or_default() * 100.0
            ),
            count(own.steps),
            format!("{:.1}", own.longest_pause_ns as f64 / 1e3),
            count(own.moved_blocks),
            format!("{:.2}", own.moved_bytes as f64 / MIB),
            count(own.pinned_blocks),
            format!("{:.2}", own.table_bytes as f64 / MIB),
        ]);
    }
    match rows.len() {
        1 => String::new(),
        _ => format!("\n{}", columns(&rows)),
    }
}

/// The name of an allocator: of a library without its directory.
fn name(allocator: &AllocatorReport) -> String {
    let file = allocator.name.rsplit('/').next();
    file.unwrap_or_default().to_string()
}

fn notes(report: &Report, out: &mut String) {
    let fidelity = &report.fidelity.live_bytes;
    let _ = writeln!(
        out,
        "\nlive bytes were the recorded ones at {} of {} comparisons",
        count(fidelity.points - fidelity.differing),
        count(fidelity.points)
    );
    let _ = writeln!(
        out,
        "live+D: each block rounded up to 16 bytes, with 12 more. The mean is over recorded time.{}\n\
         `null` never frees: the replayer's own cost.",
        match report.settings.pace {
            "flat" => " The pace is flat: what\nallocators give back after a time they have kept.",
            _ => "",
        }
    );
}
