//! A measure of one's own: of the blocks in each size class, how many are dead before their process has
//! made ten more? The ledger keeps the address tables, joins the halves of reallocs and follows forks;
//! a measure only takes the facts.
//!
//!     cargo run --release --example one_measure -- traces/firefox-content.rmt

use rmtrace::analyzer::fact::{Fact, What};
use rmtrace::analyzer::histogram::{CLASSES, class_bounds};
use rmtrace::analyzer::ledger::{Filter, facts};
use rmtrace::file::MergeOptions;
use std::error::Error;
use std::io::Write;
use std::path::Path;

/// Allocations after which a block is no temporary one.
const SOON: u64 = 10;

/// Blocks of each size class: all, and those freed soon.
struct Temporary {
    all: [u64; CLASSES],
    soon: [u64; CLASSES],
}

impl Temporary {
    fn fact(&mut self, fact: &Fact) {
        let class = usize::from(fact.class);
        match fact.what {
            What::Born => self.all[class] += 1,
            What::Freed if !fact.is_inherited() && fact.life_allocations < SOON => {
                self.soon[class] += 1;
            }
            _ => {}
        }
    }
}

/// Writes the share of each size class in `trace` to `out`.
pub fn run(trace: &Path, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let reader = rmtrace::file::open(trace)?;
    let mut measure = Temporary {
        all: [0; CLASSES],
        soon: [0; CLASSES],
    };
    facts(
        &reader,
        MergeOptions::default(),
        &Filter::default(),
        |fact| measure.fact(fact),
    )?;
    for (class, (all, soon)) in (0..).zip(measure.all.iter().zip(measure.soon)) {
        if *all > 0 {
            let (low, high) = class_bounds(class);
            let percent = soon * 100 / all;
            writeln!(
                out,
                "{low:>10} .. {high:<10} {all:>9} blocks {percent:>3} % freed soon"
            )?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let trace = std::env::args().nth(1).ok_or("usage: one_measure TRACE")?;
    run(Path::new(&trace), &mut std::io::stdout().lock())
}
