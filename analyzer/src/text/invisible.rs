//! The warning of processes whose memory mostly comes from elsewhere than recorded calls.

use super::title;
use super::units::{bytes, counted, ppm};
use crate::report::Report;
use std::fmt::Write;

/// Processes that are named.
const SHOWN: usize = 4;

/// A line for each process that is warned of, most memory first; empty where there is none.
pub fn warning(report: &Report) -> String {
    let with = |process| {
        let process: &crate::report::ProcessReport = process;
        let invisible = process.invisible.as_ref().filter(|of| of.warned)?;
        Some((process, invisible))
    };
    let mut warned: Vec<_> = report.processes.iter().filter_map(with).collect();
    warned.sort_by_key(|(process, of)| (std::cmp::Reverse(of.invisible_bytes), process.number));
    let mut out = String::new();
    if warned.is_empty() {
        return out;
    }
    out.push_str(
        "  invisible: most of this memory was allocated by no recorded call (mmap, garbage-collected heaps)\n",
    );
    for (process, of) in warned.iter().take(SHOWN) {
        let _ = writeln!(
            out,
            "    {} of {} resident, {}: {}",
            bytes(of.invisible_bytes),
            bytes(of.anonymous_bytes),
            ppm(of.invisible_ppm),
            title(process)
        );
    }
    if let Some(more @ 1..) = warned.len().checked_sub(SHOWN) {
        let more = counted(more as u64, "more process", "more processes");
        let _ = writeln!(out, "    and {more}: --json has them");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invisible::Invisible;
    use crate::report::ProcessReport;

    #[test]
    fn those_with_most_come_first_and_the_rest_is_counted() {
        let process = |number: u32| ProcessReport {
            number,
            name: "node".to_string(),
            invisible: Some(Invisible {
                anonymous_bytes: 100 << 20,
                invisible_bytes: u64::from(number) * (10 << 20),
                invisible_ppm: 750_000,
                warned: number != 9,
                ..Invisible::default()
            }),
            ..ProcessReport::default()
        };
        let mut report = Report {
            processes: (1..7).chain([9]).map(process).collect(),
            ..Report::default()
        };
        let text = warning(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "    60.0 MiB of 100.0 MiB resident, 75.0 %: process 6 (node), pid 0"
        );
        assert_eq!(lines[5], "    and 2 more processes: --json has them");
        assert_eq!(lines.len(), 6);
        report.processes.retain(|process| process.number == 9);
        assert_eq!(warning(&report), "");
    }
}
