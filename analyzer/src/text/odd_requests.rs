//! Odd requests as a few lines and a table of alignments.

use super::draw::columns;
use super::tables::{range, row};
use super::units::{Unit, bytes, count, counted, share, time};
use crate::odd_requests::{HUGE_BYTES, OddRequestsReport};
use std::fmt::Write;

/// What is out of the ordinary; nothing without blocks and failures.
pub(super) fn section(report: &OddRequestsReport) -> String {
    if report.blocks == 0 && report.failed.is_empty() {
        return String::new();
    }
    let zeros = &report.zeros;
    let zero_blocks = [zeros.malloc, zeros.calloc, zeros.realloc, zeros.memalign];
    let huge: u64 = report.huge.iter().map(|bin| bin.blocks).sum();
    let mut out = format!(
        "\nodd requests: {} of 0 bytes, {} of whole pages, {} of {} and more; {} of the blocks have a power of two of bytes\n",
        counted(zero_blocks.iter().sum(), "block", "blocks"),
        count(report.whole_pages.blocks),
        count(huge),
        bytes(HUGE_BYTES),
        share(report.powers_of_two, report.blocks),
    );
    if report.largest_bytes != 0 {
        let (most, at) = (bytes(report.largest_bytes), time(report.largest_at_ns));
        let grown = counted(report.grown_huge, "resize", "resizes");
        let huge = bytes(HUGE_BYTES);
        let _ = writeln!(
            out,
            "the largest was {most} at {at}; {grown} from below {huge} to that and more"
        );
    }
    if !report.failed.is_empty() {
        let failed = report.failed.iter();
        let failed =
            failed.map(|bin| format!("{} of {}", count(bin.calls), range(bin.low, bin.high)));
        let _ = writeln!(
            out,
            "failed, by bytes: {}",
            failed.collect::<Vec<_>>().join(", ")
        );
    }
    if report.aligned.is_empty() {
        return out;
    }
    let most = report
        .aligned
        .iter()
        .map(|bin| bin.bytes)
        .max()
        .unwrap_or(0);
    let most_padding = report.aligned.iter().map(|bin| bin.padding_bytes).max();
    let (unit, padding) = (
        Unit::column_of_bytes(most),
        Unit::column_of_bytes(most_padding.unwrap_or(0)),
    );
    let mut rows = vec![row([
        "alignment asked",
        "blocks",
        "of all",
        unit.name(),
        "smaller than it",
        &format!("rounding up adds {}", padding.name()),
    ])];
    for bin in &report.aligned {
        rows.push(vec![
            count(bin.align),
            count(bin.blocks),
            share(bin.blocks, report.blocks),
            unit.bare(bin.bytes),
            count(bin.above_size),
            padding.bare(bin.padding_bytes),
        ]);
    }
    out.push_str(&columns(&rows, &[]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::odd_requests::{AlignBin, FailedBin, HugeBin, Zeros};
    use crate::tally::Amount;

    #[test]
    fn odd_requests_are_shown() {
        let report = OddRequestsReport {
            blocks: 1_000,
            zeros: Zeros {
                malloc: 3,
                calloc: 2,
                ..Zeros::default()
            },
            powers_of_two: 400,
            whole_pages: Amount {
                blocks: 7,
                bytes: 28_672,
            },
            huge: vec![HugeBin {
                low: 1 << 20,
                high: 1 << 21,
                blocks: 2,
                bytes: 3 << 20,
            }],
            grown_huge: 1,
            largest_bytes: 2_000_000,
            largest_at_ns: 1_500_000,
            failed: vec![FailedBin {
                low: 1 << 40,
                high: 1 << 41,
                calls: 1,
            }],
            aligned: vec![AlignBin {
                align: 64,
                blocks: 50,
                bytes: 51_200,
                above_size: 4,
                padding_bytes: 640,
            }],
            ..OddRequestsReport::default()
        };
        let expected = "
odd requests: 5 blocks of 0 bytes, 7 of whole pages, 2 of 256.0 KiB and more; 40.0 % of the blocks have a power of two of bytes
the largest was 1.9 MiB at 1.5 ms; 1 resize from below 256.0 KiB to that and more
failed, by bytes: 1 of 1,099,511,627,776-2,199,023,255,551
alignment asked  blocks  of all   KiB  smaller than it  rounding up adds bytes
             64      50   5.0 %  50.0                4                     640
";
        assert_eq!(section(&report), expected);
        assert_eq!(section(&OddRequestsReport::default()), "");
    }
}
