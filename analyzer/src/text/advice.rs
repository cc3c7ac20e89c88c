//! The advice for a handle table in words: a short section for the report of a trace, and the whole of
//! it for `rmtrace advise`.

use super::draw::{bar, columns, sparkline};
use super::handles::thousandths;
use super::units::{Unit, bytes, count, counted, ppm, share, time};
use crate::advice::{Advice, Way, WayKind};
use crate::handle_table::{HANDLE_BYTES, SEGMENT_ENTRIES};
use crate::handles::{HandleCurve, HandlesReport};
use std::fmt::Write;

/// Columns of a curve.
const WIDTH: usize = 66;
/// Columns of a bar.
const BAR: usize = 24;

fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.to_vec()
}

fn text<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_string).to_vec()
}

/// A mean in thousandths, as a whole number.
fn whole(milli: u64) -> u64 {
    milli.saturating_add(500) / 1000
}

/// The curves of segments: those that the entries need, and those that they hold.
fn curves(curve: &HandleCurve) -> String {
    let needed = curve.entries.iter();
    let needed: Vec<u64> = needed
        .map(|entries| entries.div_ceil(SEGMENT_ENTRIES))
        .collect();
    let most = curve.segments.iter().chain(&needed).copied().max();
    let mut rows = Vec::new();
    for (name, values) in [
        ("segments needed", &needed),
        ("segments held", &curve.segments),
    ] {
        // One scale for both: a last column that is cut off again is full.
        let columns = values.len().clamp(1, WIDTH);
        let mut scaled = values.clone();
        let per_column = scaled.len().div_ceil(columns);
        scaled.extend(std::iter::repeat_n(most.unwrap_or(0), per_column));
        let drawn = sparkline(&scaled, columns + 1);
        let drawn: String = drawn.chars().take(columns).collect();
        let own = values.iter().copied().max().unwrap_or(0);
        rows.push(row([name.to_string(), format!("│{drawn}│ {}", count(own))]));
    }
    columns(&rows, &[true, true])
}

/// What a handle table would see of a process, in a few lines: for the report of a trace.
pub fn section(handles: &HandlesReport) -> String {
    let mut out = String::new();
    if handles.entries_peak == 0 {
        return out;
    }
    let _ = writeln!(
        out,
        "its own blocks would use {} at the peak, {} on the mean, {} at the end",
        counted(handles.entries_peak, "entry", "entries"),
        count(whole(handles.entries_mean_milli)),
        count(handles.entries_at_end),
    );
    out.push_str(&curves(&handles.curve));
    if let Some(segments) = handles.segments_of(SEGMENT_ENTRIES) {
        let _ = writeln!(
            out,
            "stranded, as entries can't move: {} of {SEGMENT_ENTRIES} at the most, {} at the end",
            counted(segments.stranded_most, "segment", "segments"),
            count(segments.stranded_at_end),
        );
    }
    let _ = writeln!(
        out,
        "an entry is used again {} times, the busiest {} times, if the entry freed last is given out first",
        thousandths(handles.reuse.mean_milli),
        count(handles.reuse.most),
    );
    out.push_str("`rmtrace advise` says how many entries to reserve, and how sure that is with several traces\n");
    out
}

fn sources(out: &mut String, advice: &Advice) {
    let mut rows = vec![text([
        "trace",
        "process",
        "peak entries",
        "blocks born",
        "time",
    ])];
    for source in &advice.sources {
        rows.push(row([
            source.trace.clone(),
            source.title.clone(),
            count(source.entries_peak),
            count(source.births),
            time(source.duration_ns),
        ]));
    }
    out.push_str(&columns(&rows, &[true, true]));
    if !advice.same_program {
        out.push_str("These are traces of different programs: what one needs says nothing of how often another needs more.\n");
    }
}

fn entries(out: &mut String, advice: &Advice) {
    let entries = &advice.entries;
    let _ = writeln!(
        out,
        "\nHow many entries? {}\n  {}",
        count(entries.entries),
        entries.statement
    );
    if advice.sources.len() < 2 {
        return;
    }
    let _ = writeln!(
        out,
        "  peaks: least {}, median {}, greatest {}; half of them within {} of the median",
        count(entries.peak_min),
        count(entries.peak_median),
        count(entries.peak_max),
        count(entries.peak_mad),
    );
    let _ = writeln!(
        out,
        "  tested on each trace, advised from the others ({} of {} exceeded it):",
        entries
            .left_out
            .iter()
            .filter(|test| test.entries_over != 0)
            .count(),
        entries.left_out.len()
    );
    let mut rows = vec![text([
        "  left out",
        "advised",
        "peak",
        "entries short",
        "time above",
        "allocations without entry",
    ])];
    for test in &entries.left_out {
        rows.push(row([
            format!("  {}", test.trace),
            count(test.entries),
            count(test.entries_peak),
            count(test.entries_over),
            ppm(test.time_over_ppm),
            count(test.births_over),
        ]));
    }
    out.push_str(&columns(&rows, &[true]));
}

fn way_name(way: WayKind) -> &'static str {
    match way {
        WayKind::Beside => "option 1: beside the block, with `used`",
        WayKind::Reserved => "option 2: a reserved region",
        WayKind::Segmented => "a table that grows by segments",
    }
}

fn ways(out: &mut String, advice: &Advice) {
    out.push_str("\nWhere do handles go?\n");
    let most = advice
        .ways
        .iter()
        .map(|way| way.bytes_at_peak.max(way.bytes_mean))
        .max();
    let unit = Unit::column_of_bytes(most.unwrap_or(0));
    let mut rows = vec![row([
        String::new(),
        format!("{} at peak", unit.name()),
        "mean".to_string(),
        "at the end".to_string(),
        "of live at peak".to_string(),
        "mean".to_string(),
        "cache lines".to_string(),
    ])];
    for way in &advice.ways {
        rows.push(row([
            way_name(way.way).to_string(),
            unit.bare(way.bytes_at_peak),
            unit.bare(way.bytes_mean),
            unit.bare(way.bytes_at_end),
            ppm(way.share_at_peak_ppm),
            ppm(way.share_mean_ppm),
            format!(
                "{}.{:02}",
                way.lines_milli / 1000,
                way.lines_milli % 1000 / 10
            ),
        ]));
    }
    out.push_str(&columns(&rows, &[true]));
    for way in &advice.ways {
        out.push_str(&consequence(way));
    }
    let _ = writeln!(out, "advised: {}", way_name(advice.way()));
}

fn consequence(way: &Way) -> String {
    match way.way {
        WayKind::Beside => format!(
            "  option 1: {} at the peak, {} at the end; none of these places can move, so {} can't be emptied.\n  \
             Between two collections {} apart up to {} of freed blocks keep their places.\n",
            counted(
                way.fixed_at_peak,
                "handle lies in the heap",
                "handles lie in the heap"
            ),
            count(way.fixed_at_end),
            way.fixed_pages_most
                .map_or("a page with one".to_string(), |pages| {
                    format!("up to {}", counted(pages, "page", "pages"))
                }),
            time(way.collection_ns),
            counted(way.dead_most, "handle", "handles"),
        ),
        WayKind::Reserved => format!(
            "  option 2: {} unused on the mean, {} at the end; blocks move freely, but no more than the region has.\n",
            counted(way.stranded_mean, "entry", "entries"),
            count(way.stranded_at_end),
        ),
        WayKind::Segmented => format!(
            "  segments: {} stranded at the most, {} on the mean, {} at the end. One more cache line is that of the directory;\n  \
             in a reserved range of addresses whose pages are given back there is none, and two lines are touched.\n",
            counted(way.stranded_most, "entry", "entries"),
            count(way.stranded_mean),
            count(way.stranded_at_end),
        ),
    }
}

fn overflow(out: &mut String, advice: &Advice) {
    let Some(reference) = advice.reference() else {
        return;
    };
    // The last point is the peak; some eight before it say enough.
    let points = &advice.overflow;
    let step = points.len().div_ceil(8).max(1);
    let last = points.len().saturating_sub(1);
    let chosen = points
        .iter()
        .enumerate()
        .filter(|(at, _)| (last - at).is_multiple_of(step));
    let mut rows = vec![text([
        "  entries",
        "time above",
        "",
        "allocations above",
        "",
    ])];
    for (_, point) in chosen {
        rows.push(row([
            count(point.entries),
            share(point.time_ns, reference.duration_ns),
            bar(point.time_ns, reference.duration_ns, BAR / 2),
            count(point.births),
            bar(point.births, reference.births, BAR / 2),
        ]));
    }
    let _ = writeln!(
        out,
        "\nWhat would fewer entries mean? ({}, {})",
        reference.trace, reference.title
    );
    out.push_str(&columns(&rows, &[false, false, true, false, true]));
}

fn memory(out: &mut String, advice: &Advice) {
    out.push_str("\nHow many blocks does a memory R hold? (sizes as at the peak)\n");
    let mut rows = vec![text(["  R", "option 1", "option 2", "segments"])];
    let given = |bytes: u64| advice.memory_bytes == Some(bytes);
    for point in &advice.memory {
        let power = point.bytes.trailing_zeros();
        let is_step = power.is_multiple_of(4) && point.bytes.is_power_of_two();
        if !is_step && !given(point.bytes) {
            continue;
        }
        rows.push(row([
            format!("  {}", bytes(point.bytes)),
            count(point.beside),
            count(point.reserved),
            count(point.segmented),
        ]));
    }
    out.push_str(&columns(&rows, &[true]));
}

fn generations(out: &mut String, advice: &Advice) {
    let of = &advice.generations;
    let trace = |at: usize| advice.sources.get(at).map_or("", |source| &source.trace);
    out.push_str("\nHow many generations? A stale handle passes for a valid one if its entry has come round since.\n");
    let _ = writeln!(
        out,
        "  as busy as in {} all day, {} blocks would be born; the busiest entry would be used {} times ({})\n  \
         so that no entry comes round in a day: {} if the entry freed last is given out first, {} if the one freed first is,\n  \
         with {} lying free; an entry that would come round is retired, at most:",
        trace(of.of),
        count(of.births_per_day),
        count(of.busiest_per_day),
        trace(of.busiest_of),
        counted(of.bits_last_freed, "bit", "bits"),
        count(of.bits_first_freed),
        count(of.delay_entries),
    );
    let mut rows = vec![text(["  bits", "retired a day", "bytes a day"])];
    for point in &of.points {
        rows.push(row([
            count(point.bits),
            count(point.retired_per_day),
            count(point.retired_bytes_per_day),
        ]));
    }
    out.push_str(&columns(&rows, &[]));
    let split = &advice.split;
    let _ = writeln!(
        out,
        "advised: {}, with which at most {} of the entries retires in a day",
        counted(of.bits, "bit", "bits"),
        ppm(1_000_000 / crate::advice::RETIRED_PART),
    );
    let _ = writeln!(
        out,
        "  entry of {} bits: {} offset, {} locks, {} owner, {} flags, {} generation{}",
        8 * HANDLE_BYTES,
        split.address_bits,
        split.lock_bits,
        split.owner_bits,
        split.flag_bits,
        split.entry_generation_bits,
        match split.generation_bits_beside {
            0 => String::new(),
            bits =>
                format!(" ({bits} fewer than advised: entries retire earlier, as the table says)"),
        }
    );
    let _ = writeln!(
        out,
        "  handle of 64 bits: {} index, {} generation, {} to tell heaps and made-up handles",
        split.index_bits, split.generation_bits, split.check_bits,
    );
    let _ = writeln!(
        out,
        "  first segment: {}, then {} at a time",
        counted(advice.growth.first_entries, "entry", "entries"),
        count(advice.growth.step_entries),
    );
}

fn worth(out: &mut String, advice: &Advice) {
    let worth = &advice.worth;
    out.push_str("\nWhich blocks are worth a handle? ");
    match worth.from_bytes {
        Some(from_bytes) => {
            let _ = writeln!(
                out,
                "those of {} and more",
                counted(from_bytes, "byte", "bytes")
            );
        }
        None => out.push_str("none: moving them would give nothing back\n"),
    }
    let most = worth
        .rows
        .iter()
        .map(|row| row.cost_mean.max(row.saving_mean))
        .max()
        .unwrap_or(0);
    let unit = Unit::column_of_bytes(most.max(1));
    let mut rows = vec![row([
        "  bytes".to_string(),
        "live blocks".to_string(),
        format!("cost, {}", unit.name()),
        "saves at most".to_string(),
        String::new(),
    ])];
    for of in worth
        .rows
        .iter()
        .filter(|of| of.low < crate::worth::PAGE_BYTES)
    {
        rows.push(row([
            match of.high - of.low {
                1 => format!("  {}", count(of.low)),
                _ => format!("  {} .. {}", count(of.low), count(of.high - 1)),
            },
            count(whole(of.blocks_mean_milli)),
            unit.bare(of.cost_mean),
            unit.bare(of.saving_mean),
            bar(of.saving_mean, most, BAR),
        ]));
    }
    out.push_str(&columns(&rows, &[true, false, false, false, true]));
    let _ = writeln!(
        out,
        "  means over time; a block costs {} bytes of handle and header. Below lie {} of the live blocks and {} of their bytes.\n  \
         With handles for all blocks: cost {}, saves at most {}; from that size on: {} and {}.",
        worth.cost_bytes,
        ppm(worth.blocks_below_ppm),
        ppm(worth.bytes_below_ppm),
        bytes(worth.cost_of_all_mean),
        bytes(worth.saving_of_all_mean),
        bytes(worth.cost_mean),
        bytes(worth.saving_mean),
    );
}

/// The whole advice.
pub fn render(advice: &Advice) -> String {
    let mut out = String::new();
    sources(&mut out, advice);
    entries(&mut out, advice);
    ways(&mut out, advice);
    overflow(&mut out, advice);
    memory(&mut out, advice);
    generations(&mut out, advice);
    worth(&mut out, advice);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::Wanted;
    use crate::advice::tests::subject;

    #[test]
    fn the_advice_of_two_traces_by_hand() {
        let subjects = [subject("a.rmt", 4_000), subject("b.rmt", 5_120)];
        let wanted = Wanted {
            memory: Some(3 << 20),
            ..Wanted::default()
        };
        let advice = Advice::new(&subjects, wanted).unwrap();
        let text = render(&advice);
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for expected in [
            "a.rmt process 3 (demo) 4,000 40,000 10.00 s",
            "How many entries? 5,120",
            "peaks: least 4,000, median 5,120, greatest 5,120; half of them within 1,120 of the median",
            "tested on each trace, advised from the others (0 of 2 exceeded it):",
            "a.rmt 6,656 4,000 0 0.0 % 0",
            // 4,000 and 25 % are 5,000, up to a segment 5,120: not above.
            "b.rmt 5,120 5,120 0 0.0 % 0",
            "option 1: beside the block, with `used` 40.0 20.0 10.0 8.0 % 8.0 % 1.25",
            "option 2: a reserved region 40.0 40.0 40.0 8.0 % 16.0 % 2.00",
            "a table that grows by segments 40.1 30.1 20.0 8.0 % 12.0 % 3.00",
            "2,560 50.0 % ██████ 30,720 ███████▏",
            // Blocks take 112 bytes, handles 8, in segments 8 and 8/512.
            "3.0 MiB 26,214 26,214 26,210",
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "{expected}\n{text}"
            );
        }
    }

    #[test]
    fn a_section_by_hand() {
        let handles = HandlesReport {
            entries_peak: 1_024,
            entries_mean_milli: 500_500,
            entries_at_end: 3,
            curve: HandleCurve {
                entries: vec![512, 1_024, 3, 0],
                segments: vec![1, 2, 2, 0],
                ..HandleCurve::default()
            },
            segments: vec![crate::handles::SegmentReport {
                entries: 512,
                stranded_most: 1,
                ..Default::default()
            }],
            ..HandlesReport::default()
        };
        assert_eq!(
            section(&handles),
            "its own blocks would use 1,024 entries at the peak, 501 on the mean, 3 at the end\n\
             segments needed  │▄█▄ │ 2\n\
             segments held    │▄██ │ 2\n\
             stranded, as entries can't move: 1 segment of 512 at the most, 0 at the end\n\
             an entry is used again 0.0 times, the busiest 0 times, if the entry freed last is given out first\n\
             `rmtrace advise` says how many entries to reserve, and how sure that is with several traces\n"
        );
        assert_eq!(section(&HandlesReport::default()), "");
    }
}
