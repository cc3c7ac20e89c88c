//! Who frees whose blocks: the pairs of threads with most blocks, and a picture of the busiest.

use super::draw::columns;
use super::units::{Unit, count, counted, share};
use crate::thread_matrix::{FreedBlocks, Picture, ThreadMatrixReport};
use std::fmt::Write;

/// Pairs that are shown.
const SHOWN: usize = 10;

/// Pairs of different threads; nothing where each thread freed only its own.
pub(super) fn section(report: &ThreadMatrixReport) -> String {
    let listed = &report.listed;
    let (same, other) = (&report.same, &report.other);
    if other.blocks == 0 {
        return String::new();
    }
    let all = same.blocks.saturating_add(other.blocks);
    let several = listed.iter().any(|of| of.process != listed[0].process);
    let shown = || listed.iter().take(SHOWN).map(|of| &of.freed);
    let units = [
        Unit::time_column(shown().map(|of| of.p50_ns)),
        Unit::time_column(shown().map(|of| of.p90_ns)),
        Unit::time_column(shown().map(|of| of.max_ns)),
    ];
    let bytes = Unit::column_of_bytes(same.bytes.max(other.bytes));
    let time = units.map(Unit::name);
    let mut rows = vec![vec![
        "allocated by".to_string(),
        "freed by".to_string(),
        "blocks".to_string(),
        "of frees".to_string(),
        bytes.name().to_string(),
        format!("p50 {}", time[0]),
        format!("p90 {}", time[1]),
        format!("max {}", time[2]),
    ]];
    let mut line = |from: String, to: String, freed: &FreedBlocks| {
        rows.push(vec![
            from,
            to,
            count(freed.blocks),
            share(freed.blocks, all),
            bytes.bare(freed.bytes),
            units[0].bare(freed.p50_ns),
            units[1].bare(freed.p90_ns),
            units[2].bare(freed.max_ns),
        ]);
    };
    line("any".to_string(), "itself".to_string(), same);
    line("any".to_string(), "another".to_string(), other);
    for of in listed.iter().take(SHOWN) {
        let from = match several {
            true => format!("process {}: {}", of.process, of.born_thread),
            false => of.born_thread.to_string(),
        };
        line(from, of.freed_thread.to_string(), &of.freed);
    }
    let mut out = String::from("\nwho frees whose blocks, by thread\n");
    out.push_str(&columns(&rows, &[]));
    if let Some(more @ 1..) = report.pairs.checked_sub(SHOWN as u64) {
        let rest = listed.iter().skip(SHOWN).map(|of| of.freed.blocks);
        let blocks = rest.fold(report.rest.blocks, u64::saturating_add);
        let _ = writeln!(
            out,
            "and {} with {}",
            counted(more, "more pair", "more pairs"),
            counted(blocks, "block", "blocks")
        );
    }
    if let Some(picture) = &report.picture {
        out.push_str(&draw(picture));
    }
    out
}

/// A square for each pair of threads, darker by powers of ten.
fn draw(picture: &Picture) -> String {
    let rows = picture.blocks.iter().enumerate();
    let others = rows.flat_map(|(from, row)| {
        let cells = row.iter().enumerate();
        cells.filter(move |(to, _)| *to != from)
    });
    let most = others.map(|(_, blocks)| *blocks).max().unwrap_or(0);
    let shade = |blocks: u64| match u128::from(blocks) {
        0 => "·",
        of if of * 10 >= most.into() => "█",
        of if of * 100 >= most.into() => "▓",
        of if of * 1_000 >= most.into() => "▒",
        _ => "░",
    };
    let name = |thread: &u32| thread.to_string();
    let mut head = vec![String::new()];
    head.extend(picture.threads.iter().map(name));
    let mut rows = vec![head];
    for (thread, row) in picture.threads.iter().zip(&picture.blocks) {
        let mut cells = vec![name(thread)];
        cells.extend(row.iter().map(|blocks| shade(*blocks).repeat(2)));
        rows.push(cells);
    }
    let of = match picture.is_whole {
        true => "",
        false => " of the busiest threads",
    };
    format!(
        "blocks{of}: a row for each thread that allocated, a column for each that freed;\n\
         █ from a tenth of the most between two threads on, ▓ a hundredth, ▒ a thousandth, ░ less, · none\n{}",
        columns(&rows, &[])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{Fact, Measure, Peaks, What};
    use crate::thread_matrix::ThreadMatrix;

    #[test]
    fn pairs_come_with_most_blocks_first() {
        let mut matrix = ThreadMatrix::default();
        for (born_thread, thread, blocks) in [(0, 0, 5_000), (0, 1, 300), (1, 1, 20), (1, 10, 2)] {
            for _ in 0..blocks {
                let fact = Fact {
                    what: What::Freed,
                    born_thread,
                    thread,
                    bytes: 100,
                    life_ns: 1_000 * (1 + u64::from(thread)),
                    ..Fact::default()
                };
                matrix.fact(&fact, Peaks::default());
            }
        }
        let expected = "
who frees whose blocks, by thread
allocated by  freed by  blocks  of frees    KiB  p50 us  p90 us  max us
         any    itself   5,020    94.3 %  490.2     1.0     1.0     2.0
         any   another     302     5.7 %   29.5     2.0     2.0    11.0
           0         1     300     5.6 %   29.3     2.0     2.0     2.0
           1        10       2     0.0 %    0.2    11.0    11.0    11.0
blocks: a row for each thread that allocated, a column for each that freed;
█ from a tenth of the most between two threads on, ▓ a hundredth, ▒ a thousandth, ░ less, · none
     0   1  10
 0  ██  ██  ··
 1  ··  ▓▓  ▒▒
10  ··  ··  ··
";
        assert_eq!(section(&matrix.report()), expected);
        assert_eq!(section(&ThreadMatrix::default().report()), "");
    }
}
