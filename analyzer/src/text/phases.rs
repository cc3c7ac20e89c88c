//! Phases as a table: when, how busy, and what of their blocks outlives them.

use super::draw::{bar, columns};
use super::tables::row;
use super::units::{Unit, count, counted, share, time};
use crate::between_marks::BetweenMarksReport;
use crate::phases::{Phase, PhasesReport};
use std::fmt::Write;

/// Characters of a bar.
const BAR: usize = 20;

/// The phases found; nothing where there are fewer than two.
pub(super) fn section(report: &PhasesReport) -> String {
    if report.phases.len() < 2 {
        return String::new();
    }
    let step = time(report.step_ns);
    format!(
        "\nphases by rate and growth, found to {step}\n{}",
        table(&report.phases)
    )
}

/// The phases between marks; nothing where there are no marks.
pub(super) fn between_marks(report: &BetweenMarksReport) -> String {
    if report.phases.is_empty() {
        return String::new();
    }
    let mut out = format!("\nbetween marks\n{}", table(&report.phases));
    if report.marks_left_out != 0 {
        let left_out = counted(report.marks_left_out, "later mark", "later marks");
        let _ = writeln!(out, "{left_out} left out");
    }
    out
}

fn table(phases: &[Phase]) -> String {
    let end_ns = phases.iter().map(|phase| phase.to_ns).max().unwrap_or(0);
    let most = phases
        .iter()
        .map(|phase| phase.live_bytes)
        .max()
        .unwrap_or(0);
    let (clock, unit) = (Unit::time(end_ns / 10), Unit::column_of_bytes(most));
    let mut rows = vec![row([
        "phase",
        &format!("from {}", clock.name()),
        &format!("lasts {}", clock.name()),
        "calls per s",
        &format!("live at its end {}", unit.name()),
        "born in it",
        "outlive it",
        "share",
        "",
    ])];
    for phase in phases {
        let lasts_ns = phase.to_ns.saturating_sub(phase.from_ns);
        let calls = u128::from(phase.tally.calls()) * 1_000_000_000;
        let rate = match calls.checked_div(lasts_ns.into()) {
            Some(rate) => count(u64::try_from(rate).unwrap_or(u64::MAX)),
            None => "-".to_string(),
        };
        let name = match phase.name.as_str() {
            "" => "(begin)".to_string(),
            name => name.chars().filter(|c| !c.is_control()).collect(),
        };
        let born = phase.tally.allocations;
        rows.push(vec![
            name,
            clock.bare(phase.from_ns),
            clock.bare(lasts_ns),
            rate,
            unit.bare(phase.live_bytes),
            count(born),
            count(phase.outlived.blocks),
            share(phase.outlived.blocks, born),
            bar(phase.outlived.blocks, born, BAR),
        ]);
    }
    let left = [true, false, false, false, false, false, false, false, true];
    columns(&rows, &left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{Amount, Tally};

    fn phase(name: &str, from_ms: u64, to_ms: u64, born: u64, outlived: u64) -> Phase {
        Phase {
            name: name.to_string(),
            from_ns: from_ms * 1_000_000,
            to_ns: to_ms * 1_000_000,
            tally: Tally {
                allocations: born,
                frees: born / 2,
                ..Tally::default()
            },
            live_bytes: outlived << 20,
            outlived: Amount {
                blocks: outlived,
                bytes: 0,
            },
            ..Phase::default()
        }
    }

    #[test]
    fn phases_are_shown_with_what_outlives_them() {
        let phases = vec![
            phase("start", 0, 2_500, 1_000, 400),
            phase("idle", 2_500, 42_500, 2, 0),
        ];
        let report = PhasesReport {
            step_ns: 1 << 20,
            busy_calls_per_s: 0,
            phases: phases.clone(),
        };
        let lines = "\
phase  from s  lasts s  calls per s  live at its end MiB  born in it  outlive it   share
start     0.0      2.5          600                400.0       1,000         400  40.0 %  ████████
idle      2.5     40.0            0                  0.0           2           0   0.0 %
";
        let found = section(&report);
        assert_eq!(
            found,
            format!("\nphases by rate and growth, found to 1.0 ms\n{lines}")
        );
        let report = BetweenMarksReport {
            phases,
            marks_left_out: 1,
        };
        let found = between_marks(&report);
        assert_eq!(
            found,
            format!("\nbetween marks\n{lines}1 later mark left out\n")
        );
        assert_eq!(section(&PhasesReport::default()), "");
    }
}
