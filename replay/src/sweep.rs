//! What locks cost: one replay for each share of locked blocks, and a table of what compaction gains then.

use crate::report::{Machine, Report, Settings, Trace};
use crate::text::{columns, count, row};
use serde::Serialize;

/// Shares that are tried, in millionths.
pub const SHARES: [u32; 7] = [0, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000];

/// Which blocks a share is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By chance.
    Random,
    /// Those that live longest.
    Old,
}

/// One allocator at one share.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The allocator.
    pub name: String,
    /// Which blocks are locked for life.
    pub order: Order,
    /// The share of all blocks, from 0 to 1.
    pub locked_share: f64,
    /// Median, and the ends of its 95 % interval.
    pub ns_per_op: f64,
    /// See `ns_per_op`.
    pub ns_per_op_low: f64,
    /// See `ns_per_op`.
    pub ns_per_op_high: f64,
    /// The longest pause of a compaction while operations ran.
    pub longest_pause_ns: Option<u64>,
    /// Peak of resident bytes over the peak of live bytes.
    pub peak_resident_over_live: Option<f64>,
    /// Resident bytes before a full compaction.
    pub before_bytes: Option<u64>,
    /// Resident bytes after it.
    pub after_bytes: Option<u64>,
    /// The same over live blocks rounded up to 16, with 12 bytes each.
    pub after_over_rounded: Option<f64>,
    /// Wall time of the full compaction.
    pub compaction_ns: Option<u64>,
    /// Bytes moved until then, the full compaction included.
    pub moved_bytes: Option<u64>,
    /// Blocks that stayed in place as they were locked, until then.
    pub pinned_blocks: Option<u64>,
}

/// A sweep, as JSON has it.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// 1.
    pub schema: u32,
    /// The trace.
    pub trace: Trace,
    /// As of a replay.
    pub settings: Settings,
    /// Where.
    pub machine: Machine,
    /// One for each allocator, order and share.
    pub sweep: Vec<Row>,
}

/// The rows of one replay.
pub fn rows(report: &Report, order: Order, millionths: u32) -> Vec<Row> {
    let allocators = report.allocators.iter().map(|allocator| {
        let memory = allocator.memory.as_ref();
        let compaction = memory.and_then(|memory| memory.compaction.as_ref());
        let own = compaction.and_then(|compaction| compaction.seen.own.as_ref());
        Row {
            name: allocator.name.clone(),
            order,
            locked_share: f64::from(millionths) / 1e6,
            ns_per_op: allocator.ns_per_op.median,
            ns_per_op_low: allocator.ns_per_op.low,
            ns_per_op_high: allocator.ns_per_op.high,
            longest_pause_ns: allocator.own.as_ref().map(|own| own.longest_pause_ns),
            peak_resident_over_live: memory.map(|memory| memory.peak_resident_over_live),
            before_bytes: compaction.map(|compaction| compaction.seen.before_bytes),
            after_bytes: compaction.map(|compaction| compaction.seen.after_bytes),
            after_over_rounded: compaction.map(|compaction| compaction.after_over_rounded),
            compaction_ns: compaction.map(|compaction| compaction.seen.wall_ns),
            moved_bytes: own.map(|own| own.moved_bytes),
            pinned_blocks: own.map(|own| own.pinned_blocks),
        }
    });
    allocators.collect()
}

/// The table.
pub fn render(sweep: &Sweep) -> String {
    const MIB: f64 = (1 << 20) as f64;
    let mut table = vec![row([
        "blocks locked for life",
        "ns/op",
        "95 % interval",
        "longest pause us",
        "peak/live",
        "before MiB",
        "after MiB",
        "after/live+D",
        "compaction ms",
        "moved MiB",
        "pinned",
    ])];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
    let mib = |bytes: Option<u64>| or_dash(bytes.map(|bytes| format!("{:.2}", bytes as f64 / MIB)));
    for line in &sweep.sweep {
        let order = match line.order {
            Order::Random => "by chance",
            Order::Old => "longest-lived",
        };
        table.push(vec![
            format!("{} {:>4.0} % {order}", line.name, line.locked_share * 100.0),
            format!("{:.1}", line.ns_per_op),
            format!("{:.1} - {:.1}", line.ns_per_op_low, line.ns_per_op_high),
            or_dash(
                line.longest_pause_ns
                    .map(|ns| format!("{:.0}", ns as f64 / 1e3)),
            ),
            or_dash(
                line.peak_resident_over_live
                    .map(|ratio| format!("{ratio:.3}")),
            ),
            mib(line.before_bytes),
            mib(line.after_bytes),
            or_dash(line.after_over_rounded.map(|ratio| format!("{ratio:.3}"))),
            or_dash(
                line.compaction_ns
                    .map(|ns| format!("{:.2}", ns as f64 / 1e6)),
            ),
            mib(line.moved_bytes),
            or_dash(line.pinned_blocks.map(count)),
        ]);
    }
    let trace = &sweep.trace;
    format!(
        "{}, process {} ({}): what locks cost; rmtrace {} on {}\n\n{}",
        trace.name,
        trace.process,
        trace.title,
        sweep.machine.rmtrace,
        sweep.machine.processor,
        columns(&table)
    )
}
