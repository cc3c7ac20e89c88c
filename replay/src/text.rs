//! The report as text.

use crate::report::{AllocatorReport, Report};
use std::fmt::Write;

mod tables;

const MIB: f64 = (1 << 20) as f64;

/// A whole number with its thousands separated.
pub(crate) fn count(number: u64) -> String {
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
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
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

pub(crate) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_string).to_vec()
}

/// The report; `all_tables`: those that only some ask for too.
pub fn render(report: &Report, all_tables: bool) -> String {
    let mut out = String::new();
    head(report, &mut out);
    out.push('\n');
    out += &time(report);
    out += &threads(report);
    if report
        .allocators
        .iter()
        .any(|allocator| allocator.memory.is_some())
    {
        out.push('\n');
        out += &memory(report);
    }
    out += &tables::latency(report, all_tables);
    out += &own(report);
    out += &compaction(report);
    if all_tables {
        out += &tables::all(report);
    }
    notes(report, &mut out);
    environment(report, &mut out);
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
        "{}, {} timed rounds, memory at {} pace, touch {}, lock {}; {}, {} processors, Linux {}, huge pages {}",
        match &report.fidelity.threads {
            None => "one thread".to_string(),
            Some(real) => format!("real threads ({}, {} at once)", real.threads, real.at_once),
        },
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
        "relative",
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
            relative(allocator),
            format!("{:.2}", allocator.cpu_ns_per_op.median),
            count(allocator.page_faults),
            version(allocator),
        ]);
    }
    columns(&rows)
}

/// What real threads waited for each other.
fn threads(report: &Report) -> String {
    let mut rows = vec![row([
        "threads",
        "elapsed ns an operation",
        "operations that waited",
        "that slept",
        "waiting ns",
        "its CPU ns",
        "excess live",
    ])];
    for allocator in &report.allocators {
        let Some(waiting) = &allocator.threads else {
            continue;
        };
        let mark = match waiting.memory_is_comparable {
            true => "",
            false => ": memory not comparable",
        };
        rows.push(vec![
            name(allocator),
            format!("{:.2}", waiting.elapsed_ns_per_op),
            format!("{:.3} %", waiting.waiting_share * 100.0),
            format!("{:.3} %", waiting.sleeping_share * 100.0),
            format!("{:.2}", waiting.wait_ns_per_op),
            format!("{:.2}", waiting.other_cpu_ns_per_op),
            format!("{:.2} %{mark}", waiting.excess_share * 100.0),
        ]);
    }
    match rows.len() {
        1 => String::new(),
        _ => format!("\n{}", columns(&rows)),
    }
}

/// How much of the reference's time it takes, or that both are the same within noise.
fn relative(allocator: &AllocatorReport) -> String {
    match &allocator.relative {
        None => String::new(),
        Some(ratio) if ratio.within_noise => "same".to_string(),
        Some(ratio) => format!("{:.2}x", ratio.median),
    }
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
    crate::spec::shown(&allocator.name)
}

/// Variables that change allocators and are no part of their names.
fn environment(report: &Report, out: &mut String) {
    for allocator in &report.allocators {
        let others: Vec<String> = allocator
            .environment
            .iter()
            // A row's own file of settings is in its name.
            .filter(|(key, _)| *key != "RMALLOC_CONFIG" || allocator.name == "rmalloc")
            .map(|(key, value)| format!("{key}={value}"))
            .filter(|setting| !allocator.name.contains(setting.as_str()))
            .collect();
        if !others.is_empty() {
            let _ = writeln!(out, "{} with {}", name(allocator), others.join(" "));
        }
    }
}

fn notes(report: &Report, out: &mut String) {
    let fidelity = &report.fidelity.live_bytes;
    let _ = writeln!(
        out,
        "\nlive bytes were the recorded ones at {} of {} comparisons",
        count(fidelity.points - fidelity.differing),
        count(fidelity.points)
    );
    if let Some(real) = &report.fidelity.threads {
        let _ = writeln!(
            out,
            "an operation's time is its thread's CPU time, without waits. {} operations depend on another thread: {} waits,\n\
             {} cuts at which all meet, no thread more than {} operations ahead",
            count(real.dependencies),
            count(real.waits),
            count(real.cuts),
            count(real.lead_max)
        );
    }
    let reuse = &report.fidelity.reuse.merged;
    let _ = writeln!(
        out,
        "recorded: {:.1} % of allocations at the address freed last, {:.1} % at one of the 16 freed last{}",
        reuse.last * 100.0,
        reuse.recent * 100.0,
        match &report.fidelity.resident {
            None => "; no samples of resident memory".to_string(),
            Some(resident) => format!(
                ";\n{:.2} MiB anonymous memory at most, program data and stacks included",
                resident.recorded_peak_bytes as f64 / MIB
            ),
        }
    );
    if let Some(ratio) = report.allocators.iter().find_map(|of| of.relative.as_ref()) {
        let _ = writeln!(
            out,
            "relative: to {}, round by round; same: the 95 % interval of the ratio includes 1",
            ratio.to
        );
    }
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
