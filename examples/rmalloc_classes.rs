//! The size classes above 1 KiB that `rmalloc` has when no others are set: chosen so that the programs of
//! some traces waste least, and sizes that none of them asks for little.
//!
//!     cargo run --release --example rmalloc_classes -- traces/{python,sqlite,gcc,firefox-content}.rmt
//!
//! Each trace counts the same: its blocks by size and time, over all its bytes and time. One share more
//! is of no trace: all sizes, as often as 1 / size. A block takes its class and its part of what the
//! pages of a region have left over. Of all lists with [`CLASSES`] classes in which each is at most a
//! 16th larger than the one before, and in which powers of two and whole pages are classes, the list
//! with least waste is printed, and as comments what other numbers of classes would waste.

use rmtrace::analyzer::exact_sizes::{ExactSizes, SizeCounts, Weight};
use rmtrace::analyzer::fact::{Measure, Peaks};
use rmtrace::analyzer::ledger::{Filter, facts};
use rmtrace::file::MergeOptions;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Classes above [`LEAST`] in the printed list.
pub const CLASSES: usize = 72;
/// Numbers of classes that are compared.
const COMPARED: [usize; 6] = [60, 64, 72, 80, 96, 120];
/// Up to here every multiple of [`STEP`] is a class, in bytes.
const LEAST: usize = 1024;
/// The largest class, in bytes.
const LARGEST: usize = 32 << 10;
/// What classes are multiples of, in bytes.
const STEP: usize = 16;
const PAGE: usize = 4096;

/// Sizes that are looked at: `LEAST`, `LEAST + 16` ... `LARGEST`, by their number.
const SIZES: usize = (LARGEST - LEAST) / STEP + 1;

const fn size(number: usize) -> usize {
    LEAST + number * STEP
}

/// Bytes of memory that a block of class `size` takes in a full region: blocks up to 8 KiB lie in
/// regions of 64 KiB, others in regions of 256 KiB, and the pages after the last block are not touched.
fn taken(size: usize) -> f64 {
    let region = if size <= 8 << 10 { 64 << 10 } else { 256 << 10 };
    let blocks = region / size;
    (blocks * size).next_multiple_of(PAGE) as f64 / blocks as f64
}

/// Running sums over sizes: `blocks[j]` of the blocks up to `size(j)`, `bytes[j]` of what they asked for;
/// both as a share of all bytes.
struct Sums {
    blocks: Vec<f64>,
    bytes: Vec<f64>,
}

impl Sums {
    /// Of blocks by size number: how many, and their bytes.
    fn new(of: impl Fn(usize) -> (f64, f64)) -> Sums {
        let mut sums = Sums {
            blocks: vec![0.0],
            bytes: vec![0.0],
        };
        for number in 1..SIZES {
            let (blocks, bytes) = of(number);
            sums.blocks.push(sums.blocks[number - 1] + blocks);
            sums.bytes.push(sums.bytes[number - 1] + bytes);
        }
        sums
    }

    /// Blocks of a recorded program, by the time they lived.
    fn of_trace(counts: &SizeCounts) -> Sums {
        let all = counts.bytes(Weight::OverTime).max(1) as f64;
        let mut rows = vec![(0.0, 0.0); SIZES];
        for row in counts.rows() {
            let bytes = row.high as usize;
            if bytes > LEAST && bytes <= LARGEST {
                let row_of = &mut rows[(bytes - LEAST).div_ceil(STEP)];
                row_of.0 += row.blocks(Weight::OverTime) as f64 / all;
                row_of.1 += row.bytes(Weight::OverTime) as f64 / all;
            }
        }
        Sums::new(|number| rows[number])
    }

    /// Blocks of every size, as many as 1 / size.
    fn of_all_sizes() -> Sums {
        let all = ((LEAST + 1)..=LARGEST).count() as f64;
        Sums::new(|number| {
            let sizes = (size(number - 1) + 1)..=size(number);
            let blocks: f64 = sizes.map(|bytes| 1.0 / bytes as f64).sum();
            (blocks / all, STEP as f64 / all)
        })
    }

    /// What class `size(j)` wastes if `size(i)` is the class before.
    fn waste(&self, i: usize, j: usize) -> f64 {
        let blocks = self.blocks[j] - self.blocks[i];
        blocks * taken(size(j)) - (self.bytes[j] - self.bytes[i])
    }
}

/// Waste of a list of classes above [`LEAST`], as a share of all bytes.
fn waste(sums: &Sums, classes: &[usize]) -> f64 {
    let number = |class: usize| (class - LEAST) / STEP;
    let mut before = 0;
    let mut waste = 0.0;
    for &class in classes {
        waste += sums.waste(before, number(class));
        before = number(class);
    }
    waste
}

/// For each number of classes to `most`, the list above [`LEAST`] that wastes least; `None` where so few
/// classes can't be close enough.
///
/// With `D(k, j)` the least waste of `k` classes that end with `size(j)`: the least over `i` of
/// `D(k - 1, i) + waste(i, j)`, with `i` not further below than a 16th of `size(j)` and no class that
/// must be there between the two.
fn best(all: &[&Sums], most: usize) -> Vec<Option<Vec<usize>>> {
    let must = |number: usize| size(number).is_power_of_two() || size(number).is_multiple_of(PAGE);
    // first[j]: the least `i` that may come before `j`; wastes[j][n]: with the `i` that is `n` above it.
    let mut first = vec![0];
    let mut wastes: Vec<Vec<f64>> = vec![Vec::new()];
    for j in 1..SIZES {
        let close = j.saturating_sub(size(j) / 16 / STEP);
        let from = (close..j).rfind(|&i| must(i)).unwrap_or(close);
        let waste = |i: usize| all.iter().map(|sums| sums.waste(i, j)).sum();
        first.push(from);
        wastes.push((from..j).map(waste).collect());
    }
    let mut least = vec![f64::INFINITY; SIZES];
    least[0] = 0.0;
    let mut before: Vec<Vec<usize>> = Vec::new();
    let mut lists = vec![None];
    for k in 1..=most {
        let mut more = vec![f64::INFINITY; SIZES];
        let mut from = vec![0; SIZES];
        for j in 1..SIZES {
            for (i, waste) in (first[j]..).zip(&wastes[j]) {
                let with = least[i] + waste;
                if with < more[j] {
                    (more[j], from[j]) = (with, i);
                }
            }
        }
        before.push(from);
        least = more;
        lists.push(least[SIZES - 1].is_finite().then(|| {
            let mut j = SIZES - 1;
            let mut list = Vec::with_capacity(k);
            for from in before.iter().rev() {
                list.push(size(j));
                j = from[j];
            }
            list.reverse();
            list
        }));
    }
    lists
}

fn counts(trace: &Path) -> Result<SizeCounts, Box<dyn Error>> {
    let reader = rmtrace::file::open(trace)?;
    let mut sizes = ExactSizes::default();
    // Of the run as a whole. Nothing here is of the peak, so peaks need no count.
    facts(
        &reader,
        MergeOptions::default(),
        &Filter::default(),
        |fact| sizes.fact(fact, Peaks::default()),
    )?;
    Ok(sizes.finish(Peaks::default()))
}

/// Writes the list, eight sizes a line, and before it the comparison.
pub fn run(traces: &[PathBuf], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let mut all = Vec::new();
    for trace in traces {
        all.push(Sums::of_trace(&counts(trace)?));
    }
    all.push(Sums::of_all_sizes());
    let most = COMPARED[COMPARED.len() - 1];
    let lists = best(&all.iter().collect::<Vec<_>>(), most);
    // For each trace the lists made from the others.
    let without: Vec<_> = (0..traces.len())
        .map(|left_out| {
            let others = (0..all.len()).filter(|&i| i != left_out).map(|i| &all[i]);
            best(&others.collect::<Vec<_>>(), most)
        })
        .collect();
    writeln!(
        out,
        "// classes above {LEAST} bytes, and their waste in % of all bytes:"
    )?;
    writeln!(
        out,
        "// of each trace, and of all sizes alike | of each trace with the best classes of the others"
    )?;
    for k in COMPARED {
        let Some(list) = &lists[k] else { continue };
        write!(out, "// {k:>3}")?;
        for sums in &all {
            write!(out, "  {:.3}", 100.0 * waste(sums, list))?;
        }
        write!(out, "  |")?;
        for (sums, lists) in all.iter().zip(&without) {
            let list = lists[k].as_deref().unwrap_or_default();
            write!(out, "  {:.3}", 100.0 * waste(sums, list))?;
        }
        writeln!(out)?;
    }
    let list = lists[CLASSES].as_deref().unwrap_or_default();
    for line in list.chunks(8) {
        let sizes: Vec<String> = line.iter().map(|size| format!("{size},")).collect();
        writeln!(out, "{}", sizes.join(" "))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let traces: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if traces.is_empty() {
        return Err("usage: rmalloc_classes TRACE...".into());
    }
    run(&traces, &mut std::io::stdout().lock())
}
