//! Survival curves: shares that live at least some ages, and the curve as a line.

use super::draw::{columns, sparkline};
use super::tables::range;
use super::units::{bytes, count, ppm, time};
use crate::survival::{SurvivalCurve, SurvivalReport};

/// Binary logarithms of the ages shown: about 1 us, 33 us, 1 ms, 34 ms, 1 s, 34 s in nanoseconds; the
/// same numbers of bytes.
const AGES_LOG2: [u32; 6] = [10, 15, 20, 25, 30, 35];
/// Characters of a curve.
const SPARK: usize = 32;

/// The share that lives 2^log2, or nothing where no block was seen to get older.
fn share_at(curve: &SurvivalCurve, shares: &[u64], log2: u32) -> Option<u64> {
    match log2.checked_sub(curve.first_log2) {
        None => Some(1_000_000),
        Some(at) => {
            let at_risk = curve.at_risk_blocks.get(at as usize)?;
            shares.get(at as usize).copied().filter(|_| *at_risk != 0)
        }
    }
}

/// A table of curves: their name, the number of blocks, the curve, whether it is weighted by bytes.
fn table(
    clock: &str,
    lines: &[(String, u64, &SurvivalCurve, bool)],
    age: fn(u64) -> String,
) -> String {
    let ends = lines
        .iter()
        .map(|(_, _, curve, _)| curve.first_log2 + curve.blocks_ppm.len() as u32);
    let end_log2 = ends.max().unwrap_or(0);
    let starts = lines.iter().map(|(_, _, curve, _)| curve.first_log2);
    let start_log2 = starts.min().unwrap_or(0);
    let is_known = |log2: &u32| {
        let mut curves = lines.iter().map(|(_, _, curve, _)| curve);
        curves.any(|curve| share_at(curve, &curve.blocks_ppm, *log2).is_some())
    };
    let is_shown = |log2: &u32| *log2 < end_log2 && is_known(log2);
    let shown: Vec<u32> = AGES_LOG2.into_iter().filter(is_shown).collect();
    let mut head = vec![clock.to_string(), "blocks".into(), "half gone by".into()];
    head.extend(shown.iter().map(|log2| age(1 << log2)));
    head.push(match end_log2.checked_sub(1) {
        Some(last) => format!(
            "from {} to {}",
            age(1 << start_log2),
            age(1 << last.min(63))
        ),
        None => String::new(),
    });
    let mut rows = vec![head];
    for (name, blocks, curve, by_bytes) in lines {
        let (shares, half) = match by_bytes {
            false => (&curve.blocks_ppm, curve.half_blocks),
            true => (&curve.bytes_ppm, curve.half_bytes),
        };
        let mut cells = vec![
            name.clone(),
            count(*blocks),
            half.map_or_else(|| "never".to_string(), age),
        ];
        let at = |log2| share_at(curve, shares, log2);
        cells.extend(
            shown
                .iter()
                .map(|log2| at(*log2).map_or_else(|| "-".to_string(), ppm)),
        );
        let line: Vec<u64> = (start_log2..end_log2).map_while(at).collect();
        cells.push(sparkline(&line, SPARK));
        rows.push(cells);
    }
    let mut left = vec![false; shown.len() + 4];
    left[shown.len() + 3] = true;
    left[0] = true;
    columns(&rows, &left)
}

/// The curves of all blocks in both clocks, and by first size in time.
pub(super) fn section(report: &SurvivalReport) -> String {
    let all = report.freed + report.censored;
    if all == 0 {
        return String::new();
    }
    let mut lines = vec![
        ("all blocks".to_string(), all, &report.ns, false),
        ("their bytes".to_string(), all, &report.ns, true),
    ];
    // Rows of fewer than a thousandth of the blocks would only fill the page.
    let is_shown = |freed: u64, censored: u64| freed + censored >= all / 1_000;
    let rows = report.by_size.iter();
    for row in rows.filter(|row| is_shown(row.freed, row.censored)) {
        let name = format!("{} B", range(row.low, row.high));
        lines.push((name, row.freed + row.censored, &row.ns, false));
    }
    let mut out = String::from(
        "\nsurvival: the share that lives at least so long; what was not freed counts for as long as it was seen\n",
    );
    out.push_str(&table("in time", &lines, time));
    let lines = [
        ("all blocks".to_string(), all, &report.bytes, false),
        ("their bytes".to_string(), all, &report.bytes, true),
    ];
    out.push_str(&table("in bytes allocated", &lines, bytes));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{Fact, Measure, Peaks, What};
    use crate::histogram::size_class;
    use crate::survival::Survival;

    #[test]
    fn curves_go_as_far_as_blocks_were_seen() {
        let mut survival = Survival::default();
        for (life_ns, what, size) in [
            (500, What::Freed, 24),
            (2_000, What::Freed, 24),
            (2_000_000, What::Kept, 24),
            (3_000, What::Kept, 100),
        ] {
            let fact = Fact {
                life_ns,
                life_bytes: life_ns / 2,
                what,
                bytes: size,
                class: size_class(size),
                ..Fact::default()
            };
            survival.fact(&fact, Peaks::default());
        }
        let text = section(&survival.report());
        let expected = "
survival: the share that lives at least so long; what was not freed counts for as long as it was seen
in time      blocks  half gone by   1.0 us  32.8 us  1.0 ms  from 256 ns to 2.1 ms
all blocks        4        2.0 us   75.0 %   50.0 %  50.0 %  █▆▆▄▄▄▄▄▄▄▄▄▄
their bytes       4         never   86.0 %   72.1 %  72.1 %  █▇▇▆▆▆▆▆▆▆▆▆▆
16-31 B           3        2.0 us   66.7 %   33.3 %  33.3 %  █▆▆▃▃▃▃▃▃▃▃▃▃
64-127 B          1         never  100.0 %        -       -  ████
in bytes allocated  blocks  half gone by  1.0 KiB  32.0 KiB  from 128 B to 1.0 MiB
all blocks               4       1,023 B   50.0 %    50.0 %  █▆▆▄▄▄▄▄▄▄▄▄▄
their bytes              4         never   72.1 %    72.1 %  █▇▇▆▆▆▆▆▆▆▆▆▆
";
        assert_eq!(text, expected);
    }

    #[test]
    fn without_blocks_there_is_nothing_to_say() {
        assert_eq!(section(&SurvivalReport::default()), "");
    }
}
