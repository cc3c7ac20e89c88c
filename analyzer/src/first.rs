//! The measures of first figures that need nothing but facts. With several threads the ledger's tells
//! them, as the thread of the other measures has more to do.

use crate::counts::Counts;
use crate::cross_thread::Frees;
use crate::fact::{Fact, Measure, Peaks, What};
use crate::fates::Fates;
use crate::histogram::SizeHistogram;
use crate::lifetime;
use crate::realloc::Reallocs;

/// Of one process.
#[derive(Debug, Default)]
pub(crate) struct First {
    pub fates: Fates,
    pub counts: Counts,
    pub sizes: SizeHistogram,
    pub lifetimes: lifetime::Collector,
    pub frees: Frees,
    pub reallocs: Reallocs,
}

impl Measure for First {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, peaks: Peaks) {
        self.fates.fact(fact, peaks);
        self.counts.fact(fact, peaks);
        self.sizes.fact(fact, peaks);
        self.lifetimes.fact(fact, peaks);
        self.frees.fact(fact, peaks);
        self.reallocs.fact(fact, peaks);
    }
}

impl First {
    /// Facts of the process.
    fn facts(&mut self, facts: &[Fact]) {
        let peaks = Peaks::default();
        for fact in facts {
            // Branched on once, as in `measures.rs`.
            match fact.what {
                What::Born => {
                    let what = What::Born;
                    self.fact(&Fact { what, ..*fact }, peaks);
                }
                What::Freed => {
                    let what = What::Freed;
                    self.fact(&Fact { what, ..*fact }, peaks);
                }
                _ => self.rare(fact),
            }
        }
    }

    #[cold]
    fn rare(&mut self, fact: &Fact) {
        self.fact(fact, Peaks::default());
    }
}

/// Of all processes that run.
#[derive(Debug, Default)]
pub(crate) struct Firsts(Vec<Option<Box<First>>>);

impl Firsts {
    /// Facts of any process.
    pub fn facts(&mut self, facts: &[Fact]) {
        for of_one in facts.chunk_by(|a, b| a.process == b.process) {
            let at = of_one[0].process as usize;
            if at >= self.0.len() {
                self.0.resize_with(at + 1, || None);
            }
            self.0[at].get_or_insert_default().facts(of_one);
        }
    }

    /// A process has ended.
    pub fn take(&mut self, process: u32) -> Box<First> {
        let first = self.0.get_mut(process as usize).and_then(Option::take);
        first.unwrap_or_default()
    }
}
