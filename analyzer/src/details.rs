//! The measures that go beyond first figures, of a process and of the run: who is told of what, and
//! what the report says of them.

use crate::age::{Age, AgeReport};
use crate::best_classes::BestClassesReport;
use crate::between_marks::{BetweenMarks, BetweenMarksReport};
use crate::bounds::{self, Bounds, BoundsReport, MeanBounds, Overhead};
use crate::exact_sizes::{ExactSizes, ExactSizesReport, SizeCounts};
use crate::fact::{Fact, Measure, Peaks, What};
use crate::growth::{Growth, GrowthReport};
use crate::handles::{Handles, HandlesReport};
use crate::lifetime_by_thread::{ByThread, LifetimeByThreadReport, ThreadSums};
use crate::odd_requests::{OddRequests, OddRequestsReport};
use crate::outlive::Outlive;
use crate::pages::{self, LiveBlock, Pages, PagesReport, PagesSums};
use crate::phases::{self, PhasesReport};
use crate::prefetch::prefetch_at;
use crate::rates::{Rates, RatesReport};
use crate::series::{BINS_PROCESS, BINS_RUN};
use crate::size_classes::SizeClassReport;
use crate::survival::{Survival, SurvivalReport};
use crate::temporary::{Temporary, TemporaryReport};
use crate::thread_matrix::{ThreadMatrix, ThreadMatrixReport, ThreadPairs};
use serde::Serialize;
use std::cmp::Reverse;

/// Figures of a process or of the run that take some room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    /// Allocations, frees and bytes over time.
    pub rates: RatesReport,
    /// Phases found from them.
    pub phases: PhasesReport,
    /// The stretches between named marks.
    pub between_marks: BetweenMarksReport,
    /// How many blocks outlive which age.
    pub survival: SurvivalReport,
    /// Blocks that end within the next few allocations.
    pub temporary: TemporaryReport,
    /// Lifetimes by the thread that allocated.
    pub lifetime_by_thread: LifetimeByThreadReport,
    /// Which thread frees what which thread allocated.
    pub thread_matrix: ThreadMatrixReport,
    /// By how much reallocs grow blocks, and what they copy.
    pub growth: GrowthReport,
    /// Alignments, zero sizes, failures.
    pub odd_requests: OddRequestsReport,
    /// Blocks by exact size.
    pub exact_sizes: ExactSizesReport,
    /// What the size classes of known allocators would waste.
    pub size_classes: SizeClassReport,
    /// What the best classes for this trace would waste.
    pub best_classes: BestClassesReport,
    /// What a handle table would see: of the run, in the process of `handle_table`.
    pub handles: HandlesReport,
    /// Figures of one process' memory.
    pub heap: HeapReport,
    /// Of the run: means of all processes' pages and bounds together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_heaps: Option<AllHeaps>,
}

/// What only one process has: pages, bounds, the age of its blocks. In the run's details it is that of
/// the process with the highest peak of live bytes, inherited blocks left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HeapReport {
    /// Number of the process.
    pub process: u32,
    /// How old the live heap was at the peak of live bytes; `null` where nothing lived.
    pub age: Option<AgeReport>,
    /// Pages that live blocks hold.
    pub pages: PagesReport,
    /// What relocation could save at most.
    pub bounds: BoundsReport,
}

/// Means over the run of the sums over all processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AllHeaps {
    /// Pages that live blocks hold.
    pub pages: PagesSums,
    /// What relocation could save.
    pub bounds: MeanBounds,
}

/// Live blocks by handle: what a walk over them needs. A place without a block has [`NOTHING`].
#[derive(Debug, Default)]
struct Mirror(Vec<LiveBlock>);

/// No block.
const NOTHING: LiveBlock = LiveBlock {
    address: 0,
    bytes: 0,
    born_ns: u64::MAX,
};

impl Mirror {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact) {
        let live = match fact.what {
            What::Born | What::Resized => LiveBlock {
                address: fact.address,
                bytes: fact.bytes,
                born_ns: fact.born_ns(),
            },
            What::Freed | What::Displaced => NOTHING,
            What::Kept | What::Nothing => return,
        };
        match self.0.get_mut(fact.handle as usize) {
            Some(slot) => *slot = live,
            None => self.add(fact, live),
        }
    }

    #[cold]
    fn add(&mut self, fact: &Fact, live: LiveBlock) {
        if fact.handle != Fact::NO_HANDLE && live != NOTHING {
            self.0.resize(fact.handle as usize, NOTHING);
            self.0.push(live);
        }
    }

    fn blocks(&self) -> impl Iterator<Item = LiveBlock> {
        self.0.iter().filter(|block| **block != NOTHING).copied()
    }
}

/// The measures of a process.
#[derive(Debug)]
pub(crate) struct Collector {
    process: u32,
    rates: Rates,
    outlive: Outlive,
    between_marks: BetweenMarks,
    survival: Survival,
    temporary: Temporary,
    by_thread: ByThread,
    threads: ThreadMatrix,
    growth: Growth,
    odd_requests: OddRequests,
    sizes: ExactSizes,
    age: Age,
    pages: Pages,
    bounds: Bounds,
    handles: Handles,
    mirror: Mirror,
}

impl Measure for Collector {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, peaks: Peaks) {
        self.rates.fact(fact, peaks);
        self.outlive.fact(fact, peaks);
        self.between_marks.fact(fact, peaks);
        self.survival.fact(fact, peaks);
        self.temporary.fact(fact, peaks);
        self.by_thread.fact(fact, peaks);
        self.threads.fact(fact, peaks);
        self.growth.fact(fact, peaks);
        self.odd_requests.fact(fact, peaks);
        self.sizes.fact(fact, peaks);
        self.age.fact(fact, peaks);
        self.pages.fact(fact, peaks);
        self.bounds.fact(fact, peaks);
        self.handles.fact(fact, peaks);
        self.mirror.fact(fact);
        if self.pages.wants_walk() {
            self.walk(fact.time_ns);
        }
    }
}

impl Collector {
    /// A process that begins now.
    pub fn new(process: u32, start_ns: u64) -> Collector {
        Collector {
            process,
            rates: Rates::new(start_ns),
            outlive: Outlive::new(start_ns),
            between_marks: BetweenMarks::new(start_ns),
            survival: Survival::default(),
            temporary: Temporary::default(),
            by_thread: ByThread::default(),
            threads: ThreadMatrix::default(),
            growth: Growth::default(),
            odd_requests: OddRequests::default(),
            sizes: ExactSizes::default(),
            age: Age::default(),
            pages: Pages::new(start_ns, BINS_PROCESS),
            bounds: Bounds::new(start_ns, Overhead::default()),
            handles: Handles::new(start_ns),
            mirror: Mirror::default(),
        }
    }

    /// Starts to fetch what a later fact needs.
    #[inline(always)]
    pub fn fetch(&self, fact: &Fact) {
        prefetch_at(&self.mirror.0, fact.handle as usize);
        self.pages.fetch(fact.address);
    }

    #[cold]
    fn walk(&mut self, now_ns: u64) {
        let mut blocks = self.mirror.blocks();
        self.pages.walk(now_ns, &mut blocks);
    }

    /// A named mark of the process, or of the run.
    pub fn mark(&mut self, time_ns: u64, name: &str) {
        self.between_marks.mark(time_ns, name);
    }

    /// The process ends after `peaks` peaks; it had so many live blocks at most.
    pub fn finish(
        mut self,
        peaks: Peaks,
        (start_ns, end_ns): (u64, u64),
        blocks_peak: u64,
    ) -> Box<Ended> {
        self.mirror = Mirror::default();
        Box::new(Ended {
            sizes: self.sizes.finish(peaks),
            measures: self,
            peaks,
            end_ns,
            duration_ns: end_ns.saturating_sub(start_ns),
            blocks_peak,
        })
    }
}

/// What is left of the measures of a process at its end.
#[derive(Debug)]
pub(crate) struct Ended {
    measures: Collector,
    sizes: SizeCounts,
    peaks: Peaks,
    end_ns: u64,
    duration_ns: u64,
    blocks_peak: u64,
}

impl Ended {
    /// The figures of the process; `classes` are how many size classes a person thinks of.
    pub fn report(&self, classes: Option<usize>) -> Details {
        let of = &self.measures;
        Details {
            rates: of.rates.report(self.end_ns, BINS_PROCESS),
            phases: phases::report(&of.rates, &of.outlive, self.end_ns),
            between_marks: of.between_marks.report(self.end_ns),
            survival: of.survival.report(),
            temporary: of.temporary.report(),
            lifetime_by_thread: of.by_thread.report(&of.threads),
            thread_matrix: of.threads.report(),
            growth: of.growth.report(),
            odd_requests: of.odd_requests.report(),
            exact_sizes: self.sizes.report(self.duration_ns),
            size_classes: SizeClassReport::new(&self.sizes, self.duration_ns),
            best_classes: BestClassesReport::new(&self.sizes, self.duration_ns, classes),
            handles: of.handles.report(self.end_ns),
            heap: self.heap(),
            all_heaps: None,
        }
    }

    fn heap(&self) -> HeapReport {
        let of = &self.measures;
        let pages = of.pages.report(self.peaks, self.end_ns);
        HeapReport {
            process: of.process,
            age: of.age.report(self.peaks),
            bounds: of.bounds.report(&pages, self.end_ns),
            pages,
        }
    }
}

/// Sums over the processes that have ended.
#[derive(Debug)]
pub(crate) struct Totals {
    rates: Rates,
    outlive: Outlive,
    between_marks: BetweenMarks,
    survival: Survival,
    temporary: Temporary,
    by_thread: ThreadSums,
    threads: ThreadPairs,
    growth: Growth,
    odd_requests: OddRequests,
    sizes: SizeCounts,
    pages: pages::Sums,
    bounds: bounds::Sums,
    /// The heap with the highest peak of live bytes, and that peak.
    heap: Option<(u64, HeapReport)>,
    /// The handles of the process with the highest peak of live blocks, with that peak.
    handles: Option<((u64, Reverse<u32>), HandlesReport)>,
}

impl Totals {
    /// Of a run, or a part of it, that begins at `start_ns`.
    pub fn new(start_ns: u64) -> Totals {
        Totals {
            rates: Rates::new(start_ns),
            outlive: Outlive::new(start_ns),
            between_marks: BetweenMarks::new(start_ns),
            survival: Survival::default(),
            temporary: Temporary::default(),
            by_thread: ThreadSums::default(),
            threads: ThreadPairs::default(),
            growth: Growth::default(),
            odd_requests: OddRequests::default(),
            sizes: SizeCounts::default(),
            pages: pages::Sums::default(),
            bounds: bounds::Sums::default(),
            heap: None,
            handles: None,
        }
    }

    /// A named mark.
    pub fn mark(&mut self, time_ns: u64, name: &str) {
        self.between_marks.mark(time_ns, name);
    }

    /// Adds a process, once.
    pub fn add(&mut self, ended: &Ended) {
        let of = &ended.measures;
        self.rates.merge(&of.rates);
        self.outlive.merge(&of.outlive);
        self.between_marks.merge(&of.between_marks);
        self.survival.merge(&of.survival);
        self.temporary.merge(&of.temporary);
        self.by_thread.merge(&of.by_thread, &of.threads);
        self.threads.merge(&of.threads);
        self.growth.merge(&of.growth);
        self.odd_requests.merge(&of.odd_requests);
        self.sizes.merge(&ended.sizes);
        self.pages.merge(&of.pages.sums(ended.end_ns));
        self.bounds.merge(&of.bounds.sums(ended.end_ns));
        // Of equals the first that ended. What a process inherited is not in these figures, so it does
        // not count here.
        let peak_bytes = of.bounds.live_bytes_peak();
        let highest = self.heap.as_ref().map(|(bytes, _)| *bytes);
        if highest.is_none_or(|bytes| peak_bytes > bytes) {
            self.heap = Some((peak_bytes, ended.heap()));
        }
        // Of equals the one with the lowest number.
        let key = (ended.blocks_peak, Reverse(of.process));
        if self.handles.as_ref().is_none_or(|(most, _)| key > *most) {
            self.handles = Some((key, of.handles.report(ended.end_ns)));
        }
    }

    /// The figures of the run.
    pub fn report(self, start_ns: u64, end_ns: u64, classes: Option<usize>) -> Details {
        let duration_ns = end_ns.saturating_sub(start_ns);
        let pages = self.pages.report(duration_ns);
        Details {
            rates: self.rates.report(end_ns, BINS_RUN),
            phases: phases::report(&self.rates, &self.outlive, end_ns),
            between_marks: self.between_marks.report(end_ns),
            survival: self.survival.report(),
            temporary: self.temporary.report(),
            lifetime_by_thread: self.by_thread.report(),
            thread_matrix: self.threads.report(),
            growth: self.growth.report(),
            odd_requests: self.odd_requests.report(),
            exact_sizes: self.sizes.report(duration_ns),
            size_classes: SizeClassReport::new(&self.sizes, duration_ns),
            best_classes: BestClassesReport::new(&self.sizes, duration_ns, classes),
            handles: self.handles.map(|(_, of)| of).unwrap_or_default(),
            heap: self.heap.map(|(_, heap)| heap).unwrap_or_default(),
            all_heaps: Some(AllHeaps {
                bounds: self.bounds.report(&pages, duration_ns),
                pages,
            }),
        }
    }
}
