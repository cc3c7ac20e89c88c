//! All measures of one process: who is told of what. The measures have files of their own.

use crate::details;
use crate::fact::{Fact, Measure, Peaks, What};
use crate::fates::Sum;
use crate::first::First;
use crate::handle_table::HandleTable;
use crate::heritage::Heritage;
use crate::histogram::SizeHistogram;
use crate::invisible::{self, Invisible};
use crate::lifetime::{self, MacroLifetime};
use crate::live::{Gauge, Live};
use crate::report::{Blocks, Bytes, Checks, Figures, ProcessReport};
use crate::resident;
use crate::run::Run;
use crate::series::BINS_PROCESS;
use crate::survey::Wanted;
use rmtrace_file::model::Sample;

/// How many facts before its turn what a fact needs is fetched.
const FACTS_AHEAD: usize = 16;

/// One process.
#[derive(Debug)]
pub(crate) struct Measures {
    /// What the trace says of it, figures still empty.
    about: ProcessReport,
    /// What the heap of the process holds, inherited blocks included.
    heap: Gauge,
    /// New peaks of `heap`.
    peaks: Peaks,
    heritage: Heritage,
    first: First,
    /// Whether another thread tells `first`.
    first_elsewhere: bool,
    details: Option<details::Collector>,
    /// Peaks of the run that have been noted, by their number.
    peaks_seen: u64,
    /// Own live blocks and bytes at the run's peak of each.
    at_run_peak: Sum,
    /// Whether it has ended, though maybe not within the run.
    has_left: bool,
    pub resident: Option<Box<resident::Collector>>,
    invisible: Option<Box<invisible::Collector>>,
}

/// What is left of a process at its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub report: ProcessReport,
    /// Peaks of the run that it has seen.
    pub peaks_seen: u64,
    pub sizes: SizeHistogram,
    pub lifetimes: lifetime::Collector,
    pub details: Option<Box<details::Ended>>,
    /// Integrals over time of its own live blocks.
    pub integral: u128,
}

impl Measures {
    /// A process that begins now.
    pub fn new(about: ProcessReport, run: &Run, wanted: &Wanted) -> Measures {
        let (number, start_ns) = (about.number, about.start_ns);
        Measures {
            about,
            heap: Gauge::new(start_ns, BINS_PROCESS),
            peaks: Peaks::default(),
            heritage: Heritage::default(),
            first: First::default(),
            first_elsewhere: wanted.first_elsewhere,
            details: wanted
                .details
                .then(|| details::Collector::new(number, start_ns)),
            peaks_seen: run.peaks(),
            at_run_peak: Sum::default(),
            has_left: false,
            resident: None,
            invisible: None,
        }
    }

    /// Number of the process.
    pub fn number(&self) -> u32 {
        self.about.number
    }

    /// When it started.
    pub fn start_ns(&self) -> u64 {
        self.about.start_ns
    }

    /// Takes the first figures that were told elsewhere.
    pub fn take_first(&mut self, first: First) {
        self.first = first;
    }

    /// It ended: what is sampled of it from now on is nobody's.
    pub fn leave(&mut self) {
        self.has_left = true;
    }

    /// Whether it has ended.
    pub fn has_left(&self) -> bool {
        self.has_left
    }

    /// Facts of the process.
    pub fn facts(&mut self, run: &mut Run, facts: &[Fact]) {
        for (at, fact) in facts.iter().enumerate() {
            if let Some(details) = &self.details
                && let Some(later) = facts.get(at + FACTS_AHEAD)
            {
                details.fetch(later);
            }
            // What happened is looked at here, once: in the copies of `all` it is known, and no measure
            // branches on it again. The order of births and deaths is hard to predict for a processor.
            match fact.what {
                What::Born => {
                    let what = What::Born;
                    self.all(run, &Fact { what, ..*fact });
                }
                What::Freed => {
                    let what = What::Freed;
                    self.all(run, &Fact { what, ..*fact });
                }
                _ => self.rare(run, fact),
            }
        }
    }

    #[cold]
    fn rare(&mut self, run: &mut Run, fact: &Fact) {
        self.all(run, fact);
    }

    /// Tells all measures of a fact.
    #[inline(always)]
    fn all(&mut self, run: &mut Run, fact: &Fact) {
        let before = self.peaks;
        self.live(run, fact);
        if !self.first_elsewhere {
            self.first.fact(fact, before);
        }
        if let Some(details) = &mut self.details {
            details.fact(fact, before);
        }
    }

    /// Live blocks and bytes, of the process and of the run.
    #[inline(always)]
    fn live(&mut self, run: &mut Run, fact: &Fact) {
        let now_ns = fact.time_ns;
        let own = !fact.is_inherited();
        let new = match fact.what {
            What::Born => {
                self.note_run_peak(run);
                run.add(now_ns, fact.bytes);
                self.heap.add(now_ns, fact.bytes)
            }
            What::Freed | What::Displaced => {
                self.note_run_peak(run);
                self.heap.sub(now_ns, fact.bytes);
                match own {
                    true => run.sub(now_ns, fact.bytes),
                    false => self.heritage.fact(fact),
                }
                return;
            }
            What::Resized => {
                self.note_run_peak(run);
                match own {
                    true => run.resize(now_ns, fact.old_bytes, fact.bytes),
                    false => self.heritage.fact(fact),
                }
                self.heap.resize(now_ns, fact.old_bytes, fact.bytes)
            }
            What::Kept | What::Nothing => return,
        };
        self.peaks.blocks += u64::from(new.blocks);
        self.peaks.bytes += u64::from(new.bytes);
    }

    /// A named mark of the process, or of the run.
    pub fn mark(&mut self, time_ns: u64, name: &str) {
        if let Some(details) = &mut self.details {
            details.mark(time_ns, name);
        }
    }

    /// Takes a resident sample of the process, for what its blocks can't account for.
    pub fn sample(&mut self, now_ns: u64, sample: &Sample) {
        match &mut self.invisible {
            Some(collector) => collector.sample(now_ns, sample, &self.heap),
            None => self.invisible = Some(Box::new(invisible::Collector::new(now_ns, sample))),
        }
    }

    /// What its blocks can't account for; `None` without samples, and where calls were dropped.
    fn invisible(&self) -> Option<Invisible> {
        let whole = self.about.dropped.iter().all(|dropped| dropped.calls == 0);
        let collector = self.invisible.as_ref().filter(|_| whole)?;
        Some(collector.report(&self.heap))
    }

    /// Before own live blocks change: what they were at the latest peak of the run.
    #[inline]
    fn note_run_peak(&mut self, run: &Run) {
        if self.peaks_seen != run.peaks() {
            let own = self.own();
            if self.peaks_seen < run.blocks_peak() {
                self.at_run_peak.blocks = own.blocks;
            }
            if self.peaks_seen < run.bytes_peak() {
                self.at_run_peak.bytes = own.bytes;
            }
            self.peaks_seen = run.peaks();
        }
    }

    /// Own live blocks: inherited ones left out.
    #[inline]
    fn own(&self) -> Sum {
        let (heap, inherited) = (&self.heap.live, &self.heritage.live);
        Sum {
            blocks: heap.blocks.wrapping_sub(inherited.blocks),
            bytes: heap.bytes.wrapping_sub(inherited.bytes),
        }
    }

    /// What its heap holds.
    pub fn live_now(&self) -> Live {
        self.heap.live
    }

    /// Blocks are inherited.
    pub fn inherit(&mut self, now_ns: u64, more: Live) {
        self.heritage.inherit(now_ns, more);
        let new = self.heap.add_all(now_ns, more);
        self.peaks.blocks += u64::from(new.blocks);
        self.peaks.bytes += u64::from(new.bytes);
    }

    /// A block turns out not to have been inherited.
    pub fn uninherit(&mut self, now_ns: u64, bytes: u64) {
        self.heritage.uninherit(now_ns, bytes);
        self.heap.sub(now_ns, bytes);
    }

    /// The process ends, or the run does; `live` was counted in its tables.
    pub fn finish(mut self, run: &mut Run, now_ns: u64, released: bool, live: Sum) -> Ended {
        self.note_run_peak(run);
        let own = self.own();
        if released {
            run.sub_all(now_ns, own.blocks, own.bytes);
        }
        let figures = self.figures(now_ns, own, live, released);
        let integral = self.integral(now_ns);
        let invisible = self.invisible();
        let blocks_peak = self.heap.most_blocks.blocks;
        let lived = (self.about.start_ns, now_ns);
        let details = self.details.take();
        let details = details.map(|details| details.finish(self.peaks, lived, blocks_peak));
        let mut report = self.about;
        report.end_ns = now_ns.max(report.start_ns);
        report.duration_ns = report.end_ns - report.start_ns;
        report.live_blocks_at_run_peak = self.at_run_peak.blocks;
        report.live_bytes_at_run_peak = self.at_run_peak.bytes;
        report.invisible = invisible;
        report.figures = figures;
        Ended {
            report,
            peaks_seen: self.peaks_seen,
            sizes: self.first.sizes,
            lifetimes: self.first.lifetimes,
            details,
            integral,
        }
    }

    /// Integral over time of the own live blocks.
    fn integral(&self, now_ns: u64) -> u128 {
        let inherited = self.heritage.integral(now_ns);
        self.heap.integral(now_ns).0.wrapping_sub(inherited)
    }

    fn figures(&self, now_ns: u64, own: Sum, live: Sum, released: bool) -> Figures {
        let number = self.about.number;
        let dropped = self.about.dropped.iter();
        let dropped = dropped.fold(0u64, |sum, of| sum.saturating_add(of.calls));
        let events = self.first.counts.events(dropped);
        let peak = self.heap.peak(number);
        let (blocks, bytes) =
            self.first
                .fates
                .report(own, live, released, peak.live_bytes, &self.heritage);
        let allocated = self.first.fates.allocated();
        let displaced = self.first.fates.displaced_own;
        let lifetime = self
            .first
            .lifetimes
            .report(allocated, own.blocks, displaced);
        let duration_ns = now_ns.saturating_sub(self.about.start_ns);
        Figures {
            checks: check(&events, &blocks, &bytes),
            events,
            blocks,
            bytes,
            peak,
            mean: self.heap.mean(self.about.start_ns, now_ns),
            size_histogram: self.first.sizes.bins(),
            macro_lifetime: MacroLifetime::new(
                &lifetime.ns,
                self.integral(now_ns),
                allocated,
                duration_ns,
            ),
            lifetime,
            lifetime_by_size: self.first.lifetimes.by_size(),
            frees: self.first.frees,
            realloc: self.first.reallocs.clone(),
            handle_table: HandleTable::new(number, &self.heap.most_blocks),
            live: self.heap.curve(now_ns),
            resident: self.resident.as_ref().map(|samples| samples.report(now_ns)),
            details: None,
        }
    }
}

/// Whether the figures of a process agree.
pub(crate) fn check(events: &crate::counts::Events, blocks: &Blocks, bytes: &Bytes) -> Checks {
    let sum = |parts: &[u64]| parts.iter().fold(0u64, |sum, part| sum.wrapping_add(*part));
    Checks {
        blocks: sum(&[blocks.inherited, blocks.allocated])
            == sum(&[
                blocks.freed,
                blocks.displaced,
                blocks.released,
                blocks.live_at_end,
            ]),
        bytes: sum(&[bytes.inherited, bytes.requested])
            == sum(&[
                bytes.freed,
                bytes.shrunk,
                bytes.displaced,
                bytes.released,
                bytes.live_at_end,
            ]),
        events: sum(&[
            events.malloc,
            events.calloc,
            events.realloc,
            events.memalign,
            events.free,
        ]) == events.total,
    }
}
