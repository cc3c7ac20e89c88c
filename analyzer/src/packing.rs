//! The offline heuristic that bounds what a non-moving allocator needs: *death-epoch packing*. It
//! reads the facts twice. The first pass ([`Deaths`]) notes when blocks die; the second ([`Packing`])
//! places each block at its birth, for good, beside blocks that die at the same time, so that pages
//! come free together. A page without live blocks counts as given back; the cost is the greatest
//! number of pages held at once.
//!
//! Placing objects by their expected lifetime is after Barrett and Zorn, "Using lifetime predictors
//! to improve memory allocation performance" (PLDI 1993), with knowledge in place of prediction. The
//! problem itself (dynamic storage allocation, offline) is NP-hard; Buchsbaum, Karloff, Kenyon,
//! Reingold and Thorup, "OPT versus LOAD in dynamic storage allocation" (SIAM Journal on Computing
//! 33(2), 2004), show that packings close to the greatest sum of live sizes exist where blocks are small
//! beside it. Here the cost differs: pages in between may be given back, addresses never run out.

mod deaths;
mod heap;

pub use deaths::{Deaths, EPOCHS, Plan};

use crate::fact::{Fact, Measure, Peaks, What};
use crate::ledger::{self, Filter};
use crate::pages::{PAGE_BYTES, Span, Table};
use deaths::Known;
use heap::{HEAP_BITS, Heap};
use rmtrace_file::{MergeOptions, ReadError, TraceReader};
use serde::Serialize;

/// Blocks are placed at multiples of this, and take multiples of it.
pub(crate) const GRAIN: u64 = 16;
/// Blocks of more bytes are not placed.
const BYTES_MAX: u64 = 1 << 46;
/// Alignments above this are not kept.
const ALIGN_LOG2_MAX: u8 = 32;

/// Bytes that a block takes in a packing: rounded up to 16, zero bytes to 16 as well.
#[inline]
pub(crate) fn rounded(bytes: u64) -> u64 {
    bytes.max(1).saturating_add(GRAIN - 1) & !(GRAIN - 1)
}

/// How blocks are told apart: those of one class lie in addresses of their own.
#[derive(Clone, Copy, Debug)]
struct Rule {
    name: &'static str,
    class: fn(Known) -> u8,
}

fn by_epochs(known: Known, in_one: u64) -> u8 {
    let class = |epoch: u64| 1 + epoch / in_one * 2 + u64::from(known.at_peak);
    known.epoch.map_or(0, class) as u8
}

/// The rules that are tried. The first knows nothing: it is there to compare with.
const RULES: [Rule; 4] = [
    Rule {
        name: "best fit without knowledge",
        class: |_| 0,
    },
    Rule {
        name: "by life at the peak",
        class: |known| u8::from(known.at_peak),
    },
    Rule {
        name: "by death in 8 epochs and life at the peak",
        class: |known| by_epochs(known, EPOCHS / 8),
    },
    Rule {
        name: "by death in 64 epochs and life at the peak",
        class: |known| by_epochs(known, 1),
    },
];

/// What a rule came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PackingResult {
    /// Its name.
    pub rule: &'static str,
    /// Greatest number of pages held at once.
    pub pages_peak: u64,
    /// The same in bytes.
    pub bytes_peak: u64,
    /// The first moment of it, in nanoseconds since the run's first record.
    pub at_ns: u64,
}

/// What the packing came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PackingReport {
    /// The best of all rules, the first of equals.
    pub best: PackingResult,
    /// All rules that were tried.
    pub tried: Vec<PackingResult>,
    /// Blocks that were not placed: larger than 64 TiB, or where addresses ended. With any, the
    /// packing is not one of all blocks.
    pub unplaced: u64,
}

/// Packs the blocks of a process anew: reads the part of the trace twice that `part` says.
///
/// # Errors
/// When a frame can't be read or is damaged.
pub fn pack(
    reader: &TraceReader,
    process: u32,
    filter: &Filter,
    part: impl Fn() -> MergeOptions<'static>,
) -> Result<PackingReport, ReadError> {
    let mut deaths = Deaths::new(reader.calls_of(process));
    ledger::facts(reader, part(), filter, |fact| {
        if fact.process == process {
            deaths.fact(fact, Peaks::default());
        }
    })?;
    let mut packing = Packing::new(deaths.plan());
    ledger::facts(reader, part(), filter, |fact| {
        if fact.process == process {
            packing.fact(fact, Peaks::default());
        }
    })?;
    Ok(packing.report())
}

/// One rule at work.
#[derive(Clone, Debug, Default)]
struct Packer {
    heaps: Vec<Heap>,
    table: Table,
    held: u64,
    most: u64,
    most_at_ns: u64,
}

impl Packer {
    /// Address of a block in all heaps: the class above [`HEAP_BITS`].
    fn place(&mut self, class: u8, bytes: u64, align: u64) -> Option<u64> {
        let class = usize::from(class);
        if class >= self.heaps.len() {
            self.heaps.resize_with(class + 1, Heap::default);
        }
        let at = self.heaps[class].place(bytes, align)?;
        let at = at | (class as u64) << HEAP_BITS;
        self.hold(at, bytes);
        Some(at)
    }

    fn hold(&mut self, at: u64, bytes: u64) {
        let span = Span::new(at, bytes);
        self.held += span.between;
        self.held += u64::from(self.table.add(span.first, 0).0.is_empty());
        if span.last != span.first {
            self.held += u64::from(self.table.add(span.last, 0).0.is_empty());
        }
    }

    fn let_go(&mut self, at: u64, bytes: u64) {
        let span = Span::new(at, bytes);
        let mut emptied = |page: u64| u64::from(self.table.sub(page, 0).1.is_empty());
        self.held -= span.between;
        self.held -= emptied(span.first);
        if span.last != span.first {
            self.held -= emptied(span.last);
        }
    }

    fn free(&mut self, at: u64, bytes: u64) {
        self.let_go(at, bytes);
        self.heaps[(at >> HEAP_BITS) as usize].free(at & ((1 << HEAP_BITS) - 1), bytes);
    }

    /// A block gives its end back.
    fn shrink(&mut self, at: u64, bytes: u64, to: u64) {
        self.let_go(at, bytes);
        self.hold(at, to);
        let end = at + to;
        self.heaps[(end >> HEAP_BITS) as usize].free(end & ((1 << HEAP_BITS) - 1), bytes - to);
    }
}

/// Where a live block is, by rule.
#[derive(Clone, Copy, Debug, Default)]
struct Placed {
    /// What it takes; 0 where there is no block.
    bytes: u64,
    at: [u64; RULES.len()],
    known: Known,
}

/// The second pass: a block is placed when it is born and stays there. One that a resize grows beyond
/// what it takes is placed anew, since a realloc may move; one that shrinks gives its end back.
/// Takes the facts of one process once more, in the same order.
#[derive(Clone, Debug)]
pub struct Packing {
    plan: Plan,
    packers: [Packer; RULES.len()],
    /// By entry in a handle table that uses the entry freed last first.
    placed: Vec<Placed>,
    unplaced: u64,
}

impl Packing {
    /// With what the first pass knows.
    pub fn new(plan: Plan) -> Packing {
        Packing {
            plan,
            packers: Default::default(),
            placed: Vec::new(),
            unplaced: 0,
        }
    }

    fn place(&mut self, fact: &Fact, known: Known, align_log2: u8) {
        let bytes = rounded(fact.bytes);
        let at = fact.handle as usize;
        // Entries are given out one after the other: there are no more than blocks live at once.
        if bytes > BYTES_MAX || at > self.placed.len() {
            self.unplaced += 1;
            return;
        }
        let align = (1 << align_log2.min(ALIGN_LOG2_MAX)).max(GRAIN);
        let mut placed = Placed {
            bytes,
            known,
            ..Placed::default()
        };
        for (rule, packer) in self.packers.iter_mut().enumerate() {
            match packer.place((RULES[rule].class)(known), bytes, align) {
                Some(address) => placed.at[rule] = address,
                None => {
                    // Not by this rule: then by none.
                    for (packer, address) in self.packers.iter_mut().zip(placed.at).take(rule) {
                        packer.free(address, bytes);
                    }
                    self.unplaced += 1;
                    return;
                }
            }
        }
        match self.placed.get_mut(at) {
            Some(slot) => *slot = placed,
            None => self.placed.push(placed),
        }
    }

    fn free(&mut self, fact: &Fact) -> Option<Known> {
        let slot = self.placed.get_mut(fact.handle as usize)?;
        let placed = std::mem::take(slot);
        if placed.bytes == 0 {
            return None;
        }
        for (packer, at) in self.packers.iter_mut().zip(placed.at) {
            packer.free(at, placed.bytes);
        }
        Some(placed.known)
    }

    fn resize(&mut self, fact: &Fact) {
        let bytes = rounded(fact.bytes);
        match self.placed.get_mut(fact.handle as usize) {
            Some(placed) if placed.bytes >= bytes => {
                for (packer, at) in self.packers.iter_mut().zip(placed.at) {
                    packer.shrink(at, placed.bytes, bytes);
                }
                placed.bytes = bytes;
            }
            _ => {
                let known = self.free(fact).unwrap_or_default();
                self.place(fact, known, 0);
            }
        }
    }

    /// What it came to.
    pub fn report(&self) -> PackingReport {
        let result = |(rule, packer): (&Rule, &Packer)| PackingResult {
            rule: rule.name,
            pages_peak: packer.most,
            bytes_peak: packer.most.saturating_mul(PAGE_BYTES),
            at_ns: packer.most_at_ns,
        };
        let tried: Vec<PackingResult> = RULES.iter().zip(&self.packers).map(result).collect();
        let best = tried.iter().min_by_key(|of| of.pages_peak);
        PackingReport {
            best: best.cloned().unwrap_or_default(),
            tried,
            unplaced: self.unplaced,
        }
    }
}

impl Measure for Packing {
    fn fact(&mut self, fact: &Fact, _peaks: Peaks) {
        if fact.is_inherited() {
            return;
        }
        match fact.what {
            What::Born => {
                let known = self.plan.known(fact.clock_allocations, fact.clock_events);
                self.place(fact, known, fact.align_log2);
            }
            What::Freed | What::Displaced => {
                self.free(fact);
            }
            What::Resized => self.resize(fact),
            What::Kept | What::Nothing => return,
        }
        for packer in &mut self.packers {
            if packer.held > packer.most {
                packer.most = packer.held;
                packer.most_at_ns = fact.time_ns;
            }
        }
    }
}

#[cfg(test)]
mod tests;
