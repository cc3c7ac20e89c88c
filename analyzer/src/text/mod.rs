//! The report as text: what was lost first, then what the program asked of its allocator, then what
//! handles would cost. One unit per column.

pub mod advice;
mod age;
mod bounds;
pub mod draw;
mod growth;
mod handles;
mod invisible;
mod lifetime_by_thread;
mod odd_requests;
mod pages;
mod phases;
mod rates;
mod size_classes;
mod survival;
mod tables;
mod temporary;
mod thread_matrix;
pub mod units;

use crate::details::Details;
use crate::report::{Figures, ProcessReport, Report};
use std::fmt::Write;
use units::{count, counted, time};

/// What to show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// All processes instead of the largest, with the details of each, and all histograms.
    pub all_processes: bool,
}

/// Processes in the table unless all are asked for.
const PROCESSES_SHOWN: usize = 20;

/// The report as text.
pub fn render(report: &Report, options: Options) -> String {
    let mut out = first_lines(report);
    // Why a trace is empty is the first thing to know.
    let is_empty = report.figures.events.total == 0;
    if is_empty {
        out.push_str(&notes(report));
    }
    let of_run = report.process.is_none();
    section(
        &mut out,
        &report.figures,
        report.duration_ns,
        options,
        report,
        of_run,
    );
    if report.process.is_none() {
        out.push_str(&tables::processes(report, limit(options)));
    }
    out.push_str(&handles::section(report));
    if options.all_processes && report.process.is_none() && report.processes.len() > 1 {
        for process in &report.processes {
            let _ = write!(out, "\n── {}\n", title(process));
            section(
                &mut out,
                &process.figures,
                process.duration_ns,
                options,
                report,
                false,
            );
        }
    }
    out.push_str(&tables::marks(report, options.all_processes));
    if !is_empty {
        out.push_str(&notes(report));
    }
    out
}

fn notes(report: &Report) -> String {
    let notes = report.trace.notes.iter();
    notes.map(|note| format!("note: {note}\n")).collect()
}

fn limit(options: Options) -> usize {
    if options.all_processes {
        usize::MAX
    } else {
        PROCESSES_SHOWN
    }
}

/// Name, number, pid and role of a process.
pub fn title(process: &ProcessReport) -> String {
    let name = match process.name.as_str() {
        "" => "(no name)",
        name => name,
    };
    let role = match process.role.as_str() {
        "" => String::new(),
        role => format!(", {role}"),
    };
    format!(
        "process {} ({name}{role}), pid {}",
        process.number, process.pid
    )
}

/// What there is, and whatever was lost.
fn first_lines(report: &Report) -> String {
    let events = &report.figures.events;
    let mut parts = vec![counted(events.total, "event", "events")];
    match report.process.and_then(|_| report.processes.first()) {
        Some(process) => parts.push(title(process)),
        None => parts.push(counted(
            report.processes.len() as u64,
            "process",
            "processes",
        )),
    }
    parts.push(counted(report.threads, "thread", "threads"));
    parts.push(time(report.duration_ns));
    parts.push(format!("{} dropped", count(events.dropped)));
    if events.unknown_frees != 0 {
        parts.push(counted(
            events.unknown_frees,
            "unknown free",
            "unknown frees",
        ));
    }
    let frees = &report.figures.frees;
    if frees.before_start != 0 {
        parts.push(format!(
            "{} of blocks from before",
            counted(frees.before_start, "free", "frees")
        ));
    }
    if events.live_duplicates != 0 {
        parts.push(counted(
            events.live_duplicates,
            "live duplicate",
            "live duplicates",
        ));
    }
    parts.extend(report.trace.remarks.iter().cloned());
    if !report.trace.damage.is_empty() {
        parts.push("damaged".to_string());
    }
    let mut out = format!("{}: {}\n", report.trace.name, parts.join(", "));
    for damage in &report.trace.damage {
        let _ = writeln!(out, "  damaged: {damage}");
    }
    let by_reason = report.processes.iter().flat_map(|process| &process.dropped);
    let mut reasons: Vec<(&str, u64)> = Vec::new();
    for dropped in by_reason {
        match reasons
            .iter_mut()
            .find(|(reason, _)| *reason == dropped.reason)
        {
            Some((_, calls)) => *calls = calls.saturating_add(dropped.calls),
            None => reasons.push((dropped.reason, dropped.calls)),
        }
    }
    for (reason, calls) in reasons {
        let _ = writeln!(
            out,
            "  dropped: {} ({reason})",
            counted(calls, "call", "calls")
        );
    }
    out.push_str(&invisible::warning(report));
    let checks = &report.figures.checks;
    if !checks.all() {
        out.push_str("  the figures do not agree with each other: `rmtrace verify` tells more\n");
    }
    out
}

/// The figures of the run, or of a process.
fn section(
    out: &mut String,
    figures: &Figures,
    duration_ns: u64,
    options: Options,
    report: &Report,
    of_run: bool,
) {
    out.push_str(&tables::blocks(figures, duration_ns));
    out.push_str(&tables::calls(figures));
    out.push_str(&tables::over_time(figures, duration_ns));
    out.push_str(&tables::sizes(figures, options.all_processes));
    out.push_str(&tables::lifetimes(figures, options.all_processes));
    out.push_str(&tables::lifetimes_by_size(figures, options.all_processes));
    out.push_str(&tables::reallocs(figures));
    if let Some(details) = &figures.details {
        self::details(out, details, options, report, of_run);
    }
}

/// What goes beyond first figures; the longer tables only if everything is asked for.
fn details(out: &mut String, details: &Details, options: Options, report: &Report, of_run: bool) {
    let processes = if of_run { report.processes.len() } else { 1 };
    let heap = &details.heap;
    let all = report.processes.iter();
    let mut whose = all.filter(|process| process.number == heap.process);
    let whose = whose.next().map(title).unwrap_or_default();
    out.push_str(&phases::section(&details.phases));
    out.push_str(&phases::between_marks(&details.between_marks));
    out.push_str(&temporary::section(&details.temporary));
    out.push_str(&size_classes::section(
        &details.size_classes,
        &details.best_classes,
        processes,
    ));
    if options.all_processes {
        out.push_str(&rates::section(&details.rates));
        out.push_str(&survival::section(&details.survival));
        if let Some(age) = &heap.age {
            out.push_str(&age::section(age));
        }
        out.push_str(&lifetime_by_thread::section(&details.lifetime_by_thread));
        out.push_str(&thread_matrix::section(&details.thread_matrix));
        out.push_str(&growth::section(&details.growth));
        out.push_str(&odd_requests::section(&details.odd_requests));
        out.push_str(&pages::section(&heap.pages, &whose));
    }
    out.push_str(&bounds::section(&heap.bounds, &whose));
}
