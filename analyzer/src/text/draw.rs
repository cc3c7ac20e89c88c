//! Bars, sparklines and aligned columns.

/// A bar of `part` in `of`, as long as `width` characters for the whole, in eighths of a character.
/// What is not zero is never empty.
pub fn bar(part: u64, of: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let scaled = u128::from(part) * width as u128 * 8;
    let eighths = scaled.checked_div(of.into()).unwrap_or(0) as usize;
    let eighths = eighths.clamp(usize::from(part != 0), width * 8);
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// A line of at most `width` blocks whose heights are the greatest values of their stretch, the
/// greatest of all being full.
pub fn sparkline(values: &[u64], width: usize) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or(0);
    let columns = values.len().min(width);
    let column = |n: usize| {
        let stretch = &values[n * values.len() / columns..(n + 1) * values.len() / columns];
        let value = stretch.iter().copied().max().unwrap_or(0);
        let height = (u128::from(value) * 8).div_ceil(u128::from(most.max(1)));
        match height {
            0 => ' ',
            _ => HEIGHTS[height as usize - 1],
        }
    };
    (0..columns).map(column).collect()
}

/// Rows of cells, each column as wide as its widest cell. Columns are right-aligned, those whose
/// place in `left` is set left-aligned. Cells behind the last column begin where the row ends.
pub fn columns(rows: &[Vec<String>], left: &[bool]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if column != 0 {
                line.push_str("  ");
            }
            let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if left.get(column).copied().unwrap_or(false) {
                line.push_str(cell);
                line.push_str(&padding);
            } else {
                line.push_str(&padding);
                line.push_str(cell);
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(1, 2, 4), "██");
        assert_eq!(bar(5, 8, 1), "▋");
        assert_eq!(bar(1, 1_000_000, 4), "▏");
        assert_eq!(bar(0, 5, 4), "");
        assert_eq!(bar(0, 0, 4), "");
        assert_eq!(bar(9, 3, 2), "██");
    }

    #[test]
    fn a_sparkline_shows_the_greatest_of_each_stretch() {
        assert_eq!(sparkline(&[0, 1, 8, 4], 4), " ▁█▄");
        assert_eq!(sparkline(&[0, 8, 0, 0], 2), "█ ");
        assert_eq!(sparkline(&[], 4), "");
        assert_eq!(sparkline(&[0, 0], 4), "  ");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [
            vec!["a".into(), "1".into()],
            vec!["bcd".into(), "10".into(), "x".into()],
        ];
        assert_eq!(columns(&rows, &[true]), "a     1\nbcd  10  x\n");
    }
}
