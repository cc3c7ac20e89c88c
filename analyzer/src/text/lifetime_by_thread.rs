//! Lifetimes by the thread that allocated.

use super::draw::{bar, columns};
use super::units::{Unit, count, counted};
use crate::lifetime_by_thread::{LifetimeByThreadReport, ThreadLives};

/// Threads that are shown.
const SHOWN: usize = 12;
/// Characters of a bar.
const BAR: usize = 20;

/// The threads with most blocks; nothing where there is but one. Processes are named where there are
/// several.
pub(super) fn section(report: &LifetimeByThreadReport) -> String {
    let listed = &report.listed;
    if report.threads < 2 {
        return String::new();
    }
    let several = listed.iter().any(|of| of.process != listed[0].process);
    let columns_ns: [fn(&ThreadLives) -> u64; 4] = [
        |of| of.p50_ns,
        |of| of.p90_ns,
        |of| of.p99_ns,
        |of| of.max_ns,
    ];
    let shown = || listed.iter().take(SHOWN).map(|of| &of.lives);
    let units = columns_ns.map(|ns| Unit::time_column(shown().map(ns)));
    let bytes = Unit::column_of_bytes(listed.iter().map(|of| of.lives.bytes).max().unwrap_or(0));
    let most = listed.first().map_or(0, |of| of.lives.blocks);
    let time = units.map(Unit::name);
    let mut rows = vec![vec![
        "allocated by thread".to_string(),
        "blocks".to_string(),
        bytes.name().to_string(),
        "to the end".to_string(),
        format!("p50 {}", time[0]),
        format!("p90 {}", time[1]),
        format!("p99 {}", time[2]),
        format!("max {}", time[3]),
        "blocks".to_string(),
    ]];
    let mut line = |name: String, lives: &ThreadLives| {
        let mut cells = vec![
            name,
            count(lives.blocks),
            bytes.bare(lives.bytes),
            count(lives.kept),
        ];
        cells.extend((0..4).map(|n| match lives.freed {
            0 => "-".to_string(),
            _ => units[n].bare(columns_ns[n](lives)),
        }));
        cells.push(bar(lives.blocks, most, BAR));
        rows.push(cells);
    };
    for of in listed.iter().take(SHOWN) {
        let name = match several {
            true => format!("{} of process {}", of.thread, of.process),
            false => of.thread.to_string(),
        };
        line(name, &of.lives);
    }
    let mut out = String::from("\nlifetime by thread, most blocks first\n");
    let mut left = [false; 9];
    left[8] = true;
    out.push_str(&columns(&rows, &left));
    if let Some(more @ 1..) = report.threads.checked_sub(SHOWN as u64) {
        let rest = listed.iter().skip(SHOWN).map(|of| of.lives.blocks);
        let blocks = rest.fold(report.rest.blocks, u64::saturating_add);
        out.push_str(&format!(
            "and {} with {}\n",
            counted(more, "more thread", "more threads"),
            counted(blocks, "block", "blocks")
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifetime_by_thread::LifetimeByThread;

    #[test]
    fn the_rest_is_counted() {
        let thread = |thread: u32| LifetimeByThread {
            process: 0,
            thread,
            lives: ThreadLives {
                blocks: 1_000 - 50 * u64::from(thread),
                bytes: 1 << 20,
                freed: u64::from(thread != 1) * 900,
                kept: 7,
                p50_ns: 1_500,
                p90_ns: 15_000,
                p99_ns: 2_000_000,
                max_ns: 3_000_000,
                ..ThreadLives::default()
            },
        };
        let mut report = LifetimeByThreadReport {
            threads: 14,
            listed: (0..14).map(thread).collect(),
            ..LifetimeByThreadReport::default()
        };
        let text = section(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 16);
        assert_eq!(
            lines[2],
            "allocated by thread  blocks      KiB  to the end  p50 us  p90 us  p99 ms  max ms  blocks"
        );
        assert_eq!(
            lines[3],
            "                  0   1,000  1,024.0           7     1.5    15.0     2.0     3.0  ████████████████████"
        );
        assert_eq!(
            lines[4],
            "                  1     950  1,024.0           7       -       -       -       -  ███████████████████"
        );
        assert_eq!(lines[15], "and 2 more threads with 750 blocks");
        report.listed[3].process = 2;
        assert!(section(&report).contains(" 3 of process 2 "));
        report.threads = 1;
        assert_eq!(section(&report), "");
    }
}
