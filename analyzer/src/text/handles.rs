//! What relocatable blocks would ask for, in words that a reader of the seed knows: R, M, D, and the
//! two options for handles.

use super::draw::columns;
use super::units::{bytes, count, counted, ppm};
use crate::report::Report;
use std::fmt::Write;

/// Thousandths as a number with one digit: `27.3`.
pub(super) fn thousandths(number: u64) -> String {
    let tenths = number.saturating_add(50) / 100;
    format!("{}.{}", count(tenths / 10), tenths % 10)
}

/// The handle table of the process with the highest peak.
pub fn section(report: &Report) -> String {
    let table = &report.figures.handle_table;
    let process = report
        .processes
        .iter()
        .find(|process| process.number == table.process);
    let whose = process.map_or_else(|| format!("process {}", table.process), super::title);
    let mut out = format!("\nhandle table: {whose}\n");
    if table.entries_peak == 0 {
        out.push_str("no block was live: nothing to reserve\n");
        return out;
    }
    let _ = writeln!(
        out,
        "at its peak {} were live, {} in all: M, the mean size, was {} bytes",
        counted(table.entries_peak, "block", "blocks"),
        bytes(table.live_bytes_at_peak),
        thousandths(table.m_mean_millibytes),
    );
    let row = |cells: [&str; 4]| {
        cells
            .iter()
            .map(|cell| cell.to_string())
            .collect::<Vec<_>>()
    };
    let rows = [
        row(["", "bytes", "D per block", "of live bytes"]),
        row([
            "option 1: a handle and `used` beside each block",
            &count(table.bytes_in_place),
            &thousandths(table.d_in_place_millibytes),
            &ppm(table.in_place_share_ppm),
        ]),
        row([
            &format!(
                "option 2: a reserved region of {} handles",
                count(table.entries_recommended)
            ),
            &count(table.bytes_reserved),
            &thousandths(table.d_reserved_millibytes),
            &ppm(table.reserved_share_ppm),
        ]),
    ];
    out.push_str(&columns(&rows, &[true]));
    let _ = writeln!(
        out,
        "Option 1 is paid only for blocks that live, after rounding to 16 bytes, but a handle beside its block keeps\n\
         that place when the block is freed, until it is collected. Option 2 is paid always; of it {} were in use at\n\
         the peak. A region that grows by pages of {} handles would have reached {}.",
        bytes(table.bytes_used_at_peak),
        crate::handle_table::SEGMENT_ENTRIES,
        bytes(table.bytes_segmented),
    );
    let _ = writeln!(
        out,
        "recommended: {} entries: {}",
        count(table.entries_recommended),
        table.reasoning
    );
    if let Some(details) = &report.figures.details {
        out.push_str(&super::advice::section(&details.handles));
    }
    match &table.memory {
        Some(fit) => {
            let _ = writeln!(
                out,
                "with R = {} of memory and blocks as at the peak, N is at most {} (option 1) or {} (option 2)",
                bytes(fit.bytes),
                count(fit.entries_in_place),
                count(fit.entries_reserved),
            );
        }
        None => out.push_str(
            "--memory R (as in --memory 512M) tells the most blocks that a given memory holds\n",
        ),
    }
    out
}
