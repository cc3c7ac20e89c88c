//! Temporary and lasting blocks, and by first size those of at least a thousandth of all blocks.

use super::draw::{bar, columns};
use super::tables::range;
use super::units::{Unit, count, counted, ppm, share};
use crate::temporary::{Part, TemporaryReport};

/// Characters of a bar.
const BAR: usize = 30;

/// What became of blocks, all and by first size.
pub(super) fn section(report: &TemporaryReport) -> String {
    let fates = &report.fates;
    if fates.blocks == 0 {
        return String::new();
    }
    let unit = Unit::column_of_bytes(fates.bytes);
    let head = ["temporary blocks", "blocks", "share", unit.name(), "share"];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    let mut line = |name: String, part: &Part| {
        rows.push(vec![
            name,
            count(part.blocks),
            ppm(part.blocks_ppm),
            unit.bare(part.bytes),
            ppm(part.bytes_ppm),
            bar(part.blocks, fates.blocks, BAR),
        ]);
    };
    for within in &fates.within {
        let name = match within.allocations {
            0 => "freed before the next allocation".to_string(),
            most => format!(
                "freed within {}",
                counted(most, "allocation", "allocations")
            ),
        };
        line(name, &within.part);
    }
    line("freed later".to_string(), &fates.later);
    line("kept to the end".to_string(), &fates.kept);
    if fates.displaced.blocks != 0 {
        line("ended unseen".to_string(), &fates.displaced);
    }
    let mut out = format!(
        "\n{}",
        columns(&rows, &[true, false, false, false, false, true])
    );
    // Rows of fewer than a thousandth of the blocks would only fill the page.
    let fewest = fates.blocks / 1_000;
    let mut head = vec!["requested bytes".to_string(), "blocks".to_string()];
    let numbers = fates.within.iter();
    head.extend(numbers.map(|within| format!("within {}", count(within.allocations))));
    head.extend(["later".to_string(), "kept".to_string()]);
    let mut rows = vec![head];
    for row in report.by_size.iter().filter(|row| row.blocks >= fewest) {
        let mut cells = vec![range(row.low, row.high), count(row.blocks)];
        let parts = row.within_blocks.iter();
        let parts = parts.chain([&row.later_blocks, &row.kept_blocks]);
        cells.extend(parts.map(|part| share(*part, row.blocks)));
        rows.push(cells);
    }
    out.push_str(&columns(&rows, &[]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{Fact, Measure, Peaks, What};
    use crate::histogram::size_class;
    use crate::temporary::Temporary;

    #[test]
    fn each_line_holds_the_one_before_as_far_as_freed_soon() {
        let mut temporary = Temporary::default();
        for (life_allocations, what, bytes) in [
            (0, What::Freed, 16),
            (5, What::Freed, 20),
            (5_000, What::Freed, 300),
            (7, What::Kept, 64),
        ] {
            let fact = Fact {
                life_allocations,
                what,
                bytes,
                class: size_class(bytes),
                ..Fact::default()
            };
            temporary.fact(&fact, Peaks::default());
        }
        let expected = "
temporary blocks                  blocks   share  bytes   share
freed before the next allocation       1  25.0 %     16   4.0 %  ███████▌
freed within 1 allocation              1  25.0 %     16   4.0 %  ███████▌
freed within 10 allocations            2  50.0 %     36   9.0 %  ███████████████
freed within 100 allocations           2  50.0 %     36   9.0 %  ███████████████
freed within 1,000 allocations         2  50.0 %     36   9.0 %  ███████████████
freed later                            1  25.0 %    300  75.0 %  ███████▌
kept to the end                        1  25.0 %     64  16.0 %  ███████▌
requested bytes  blocks  within 0  within 1  within 10  within 100  within 1,000    later     kept
          16-31       2    50.0 %    50.0 %    100.0 %     100.0 %       100.0 %    0.0 %    0.0 %
         64-127       1     0.0 %     0.0 %      0.0 %       0.0 %         0.0 %    0.0 %  100.0 %
        256-511       1     0.0 %     0.0 %      0.0 %       0.0 %         0.0 %  100.0 %    0.0 %
";
        assert_eq!(section(&temporary.report()), expected);
        assert_eq!(section(&TemporaryReport::default()), "");
    }
}
