//! The report as text.

use crate::report::{Report, Tried};
use crate::score::Estimate;
use crate::search::{OTHERS, WORSE};
use std::fmt::Write;

/// Candidates that are listed one by one.
const LISTED: usize = 80;
/// Noise above which a report says that it is much.
const NOISY: f64 = 0.05;

/// The report.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    result(&mut out, report);
    traces(&mut out, report);
    settings(&mut out, report);
    left_out(&mut out, report);
    candidates(&mut out, "the best candidates", &report.best);
    if report.candidates.len() > report.best.len() {
        let listed = &report.candidates[..report.candidates.len().min(LISTED)];
        let title = match listed.len() < report.candidates.len() {
            true => format!("the first {LISTED} candidates (--json has all)"),
            false => "all candidates, in the order in which they were tried".to_string(),
        };
        candidates(&mut out, &title, listed);
    }
    out
}

fn head(out: &mut String, report: &Report) {
    let search = &report.search;
    let searched: Vec<&str> = report
        .traces
        .iter()
        .filter(|traced| traced.searched)
        .map(|traced| traced.subject.name.as_str())
        .collect();
    let _ = writeln!(
        out,
        "{}: {} candidates, {} of them on everything, {} refused; {} rounds measured, {} resumed",
        searched.join(", "),
        search.tried,
        search.finished,
        search.refused,
        search.rounds,
        search.resumed_rounds
    );
    let why = match search.ended {
        "time" => "the time was over: the full search takes longer (--time, --resume)",
        "candidates" => "as many candidates as were asked for: the full search takes longer",
        "interrupted" => "interrupted: --resume goes on where it was",
        _ => "nothing was left to try",
    };
    let _ = writeln!(out, "the search ended: {why}");
    let machine = &report.machine;
    let _ = writeln!(
        out,
        "{}, {} processors, Linux {}, huge pages {}, rmtrace {}; objective {}, seed {}, {}",
        machine.processor,
        machine.processors,
        machine.kernel,
        machine.huge_pages,
        machine.rmtrace,
        report.options.objective,
        report.options.seed,
        report.options.measured
    );
    let _ = writeln!(
        out,
        "noise of a score: {:.2} % (the defaults beside themselves)",
        search.noise * 100.0
    );
    if search.noise > NOISY {
        let _ = writeln!(
            out,
            "  that is much: what else runs on this machine hides what settings do; try again when it is quiet"
        );
    }
    out.push('\n');
}

fn result(out: &mut String, report: &Report) {
    let result = &report.result;
    match result.is_default {
        true => {
            let _ = writeln!(out, "result: the defaults: {}", result.why);
        }
        false => {
            let _ = writeln!(out, "result: {}", result.name);
            let _ = writeln!(out, "  {}", result.why);
            let _ = writeln!(
                out,
                "  over the defaults, {} rounds: objective {}, time {}, memory {}",
                result.rounds,
                ratio(result.objective),
                ratio(result.time),
                ratio(result.memory)
            );
        }
    }
    out.push('\n');
}

fn traces(out: &mut String, report: &Report) {
    let _ = writeln!(
        out,
        "{:<24} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>21}",
        "", "ns/op", "", "res/live", "", "pause ms", "", "objective [95 %]"
    );
    let _ = writeln!(
        out,
        "{:<24} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>21}",
        "trace",
        "defaults",
        "result",
        "defaults",
        "result",
        "defaults",
        "result",
        "over the defaults"
    );
    for traced in &report.traces {
        let (defaults, own) = (&traced.defaults, &traced.result);
        let pair = |of: fn(&crate::report::Level) -> Option<String>| {
            let cell = |level: &Option<crate::report::Level>| {
                level
                    .as_ref()
                    .and_then(of)
                    .unwrap_or_else(|| "-".to_string())
            };
            (cell(defaults), cell(own))
        };
        let time = pair(|level| Some(format!("{:.1}", level.cpu_ns_per_op)));
        let memory = pair(|level| Some(format!("{:.3}", level.resident_over_rounded)));
        let pause = pair(|level| level.pause_ns.map(|ns| format!("{:.2}", ns as f64 / 1e6)));
        let name = match traced.searched {
            true => traced.subject.name.clone(),
            false => format!("{} (test)", traced.subject.name),
        };
        let _ = writeln!(
            out,
            "{name:<24} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>21}",
            time.0,
            time.1,
            memory.0,
            memory.1,
            pause.0,
            pause.1,
            ratio(traced.objective)
        );
    }
    let _ = writeln!(
        out,
        "ns/op: CPU time, the replayer's own included; res/live: mean resident over live + D; pause: the longest step\n"
    );
}

fn settings(out: &mut String, report: &Report) {
    let _ = writeln!(out, "settings");
    for setting in report.settings.iter().filter(|setting| setting.tried > 0) {
        let _ = writeln!(
            out,
            "  {:<26} {:>12}  {}",
            setting.name, setting.value, setting.comment
        );
    }
    out.push('\n');
}

fn left_out(out: &mut String, report: &Report) {
    if report.leave_one_out.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "chosen without a trace, on that trace (the search's own rounds)"
    );
    for left in &report.leave_one_out {
        let objective = ratio(Some(left.objective));
        let _ = writeln!(out, "  {:<24} {objective:>21}  {}", left.trace, left.name);
    }
    out.push('\n');
}

fn candidates(out: &mut String, title: &str, tried: &[Tried]) {
    let _ = writeln!(out, "{title}");
    let _ = writeln!(
        out,
        "  {:>5} {:>21} {:>7} {:>7}  settings other than the defaults",
        "rungs", "objective [95 %]", "time", "memory"
    );
    for one in tried {
        let short = |estimate: Option<Estimate>| {
            estimate.map_or("-".to_string(), |estimate| format!("{:.3}", estimate.value))
        };
        let dropped = match (one.dropped.as_deref(), one.finished) {
            (Some(OTHERS), _) => " (beaten)".to_string(),
            (Some(WORSE), _) => " (worse)".to_string(),
            (Some(why), _) => format!(" ({why})"),
            (None, true) => String::new(),
            (None, false) => " (the search ended)".to_string(),
        };
        let _ = writeln!(
            out,
            "  {:>5} {:>21} {:>7} {:>7}  {}{dropped}",
            one.rungs,
            ratio(one.objective),
            short(one.time),
            short(one.memory),
            one.name
        );
    }
    let _ = writeln!(
        out,
        "  rungs: how far it came; beaten: others of its batch went on; worse: than the best so far, by more than noise\n"
    );
}

fn ratio(estimate: Option<Estimate>) -> String {
    estimate.map_or("-".to_string(), |estimate| {
        format!(
            "{:.3} [{:.3} .. {:.3}]",
            estimate.value, estimate.low, estimate.high
        )
    })
}
