//! The measures that go beyond first figures, of a process and of the run: who is told of what, and
//! what the report says of them.

use crate::age::{Age, AgeReport};
use crate::best_classes::BestClassesReport;
use crate::exact_sizes::{ExactSizes, ExactSizesReport, SizeCounts};
use crate::fact::{Fact, Measure, Peaks};
use crate::lifetime_by_thread::{ByThread, LifetimeByThreadReport, ThreadSums};
use crate::size_classes::SizeClassReport;
use crate::survival::{Survival, SurvivalReport};
use crate::temporary::{Temporary, TemporaryReport};
use crate::thread_matrix::{ThreadMatrix, ThreadMatrixReport, ThreadPairs};
use serde::Serialize;

/// Figures of a process or of the run that take some room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    /// How many blocks outlive which age.
    pub survival: SurvivalReport,
    /// Blocks that end within the next few allocations.
    pub temporary: TemporaryReport,
    /// How old the live heap was at the peak of live bytes: of the run, that of the process with the
    /// highest; `null` where nothing lived.
    pub age: Option<AgeReport>,
    /// Lifetimes by the thread that allocated.
    pub lifetime_by_thread: LifetimeByThreadReport,
    /// Which thread frees what which thread allocated.
    pub thread_matrix: ThreadMatrixReport,
    /// Blocks by exact size.
    pub exact_sizes: ExactSizesReport,
    /// What the size classes of known allocators would waste.
    pub size_classes: SizeClassReport,
    /// What the best classes for this trace would waste.
    pub best_classes: BestClassesReport,
}

/// The measures of a process.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    survival: Survival,
    temporary: Temporary,
    age: Age,
    by_thread: ByThread,
    threads: ThreadMatrix,
    sizes: ExactSizes,
}

/// What is left of the measures of a process at its end.
#[derive(Debug)]
pub(crate) struct Ended {
    measures: Collector,
    sizes: SizeCounts,
    peaks: Peaks,
    duration_ns: u64,
    peak_bytes: u64,
}

/// Sums over the processes that have ended.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    survival: Survival,
    temporary: Temporary,
    by_thread: ThreadSums,
    threads: ThreadPairs,
    sizes: SizeCounts,
    /// Age of the heap of the process with the highest peak of live bytes.
    age: Option<AgeReport>,
    peak_bytes: Option<u64>,
}

impl Measure for Collector {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, peaks: Peaks) {
        self.survival.fact(fact, peaks);
        self.temporary.fact(fact, peaks);
        self.age.fact(fact, peaks);
        self.by_thread.fact(fact, peaks);
        self.threads.fact(fact, peaks);
        self.sizes.fact(fact, peaks);
    }
}

impl Collector {
    /// The process ends after `peaks` peaks, the highest of `peak_bytes` live bytes.
    pub fn finish(self, peaks: Peaks, duration_ns: u64, peak_bytes: u64) -> Ended {
        Ended {
            sizes: self.sizes.finish(peaks),
            measures: self,
            peaks,
            duration_ns,
            peak_bytes,
        }
    }
}

impl Ended {
    /// The figures of the process.
    pub fn report(&self) -> Details {
        let of = &self.measures;
        Details {
            survival: of.survival.report(),
            temporary: of.temporary.report(),
            age: of.age.report(self.peaks),
            lifetime_by_thread: of.by_thread.report(&of.threads),
            thread_matrix: of.threads.report(),
            exact_sizes: self.sizes.report(self.duration_ns),
            size_classes: SizeClassReport::new(&self.sizes, self.duration_ns),
            best_classes: BestClassesReport::new(&self.sizes, self.duration_ns, None),
        }
    }
}

impl Totals {
    /// Adds a process, once.
    pub fn add(&mut self, ended: &Ended) {
        let of = &ended.measures;
        self.survival.merge(&of.survival);
        self.temporary.merge(&of.temporary);
        self.by_thread.merge(&of.by_thread, &of.threads);
        self.threads.merge(&of.threads);
        self.sizes.merge(&ended.sizes);
        // Of equals the first that ended.
        if self.peak_bytes.is_none_or(|bytes| ended.peak_bytes > bytes) {
            self.peak_bytes = Some(ended.peak_bytes);
            self.age = of.age.report(ended.peaks);
        }
    }

    /// The figures of the run.
    pub fn report(&self, duration_ns: u64) -> Details {
        Details {
            survival: self.survival.report(),
            temporary: self.temporary.report(),
            age: self.age.clone(),
            lifetime_by_thread: self.by_thread.report(),
            thread_matrix: self.threads.report(),
            exact_sizes: self.sizes.report(duration_ns),
            size_classes: SizeClassReport::new(&self.sizes, duration_ns),
            best_classes: BestClassesReport::new(&self.sizes, duration_ns, None),
        }
    }
}
