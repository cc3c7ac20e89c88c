//! What is known of one process while its events pass: its live blocks and its share of every
//! measure. The rules of what an event does to a block are here; the measures have files of their
//! own.

use crate::counts::Counts;
use crate::cross_thread::Frees;
use crate::handle_table::HandleTable;
use crate::histogram::{SizeHistogram, size_class};
use crate::inherited::{Forks, Inherited};
use crate::invisible::{self, Invisible};
use crate::lifetime::{self, MacroLifetime};
use crate::live::{Gauge, Live};
use crate::realloc::Reallocs;
use crate::report::{Blocks, Bytes, Checks, Figures, ProcessReport};
use crate::resident;
use crate::run::Run;
use crate::series::BINS_PROCESS;
use crate::table::{Block, LiveTable};
use rmtrace_file::model::Sample;
use rmtrace_format::{Event, Step};

/// A block within a realloc: it has no address now.
#[derive(Debug)]
struct Aside {
    thread: u32,
    address: u64,
    /// `None`: no block was known there.
    block: Option<Block>,
}

/// Blocks and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub blocks: u64,
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    fn sub(&mut self, bytes: u64) {
        self.blocks = self.blocks.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(bytes);
    }
}

/// One process.
#[derive(Debug)]
pub(crate) struct State {
    /// What the trace says of it, figures still empty.
    about: ProcessReport,
    counts: Counts,
    /// The bytes clock: bytes requested so far.
    requested: u64,
    table: LiveTable,
    /// Whether `inherited` holds anything or `forks` wants to be told of changes.
    watched: bool,
    inherited: Option<Box<Inherited>>,
    forks: Forks,
    /// Blocks within a realloc, by thread; hardly ever more than one.
    aside: Vec<Aside>,
    /// What the heap of the process holds, inherited blocks included.
    heap: Gauge,
    sizes: SizeHistogram,
    lifetimes: lifetime::Collector,
    reallocs: Reallocs,
    allocated: u64,
    freed: Sum,
    cross_thread: u64,
    by_realloc: u64,
    shrunk_bytes: u64,
    displaced: Sum,
    displaced_own: u64,
    /// Of the displaced blocks, those that a pause explains.
    lost_in_pause: u64,
    /// Frees of unknown addresses that a pause explains.
    before_start: u64,
    inherited_all: Sum,
    /// Of `inherited_all` what is still live.
    inherited_live: Sum,
    inherited_freed: u64,
    /// As [`Gauge::integral`], of the inherited blocks.
    inherited_integral: u128,
    /// Peaks of the run that have been noted, by their number.
    peaks_seen: u64,
    /// Own live blocks and bytes at the run's peak of each.
    at_run_peak: Sum,
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
    /// Integrals over time of its own live blocks.
    pub integral: u128,
}

impl State {
    /// A process that begins now.
    pub fn new(about: ProcessReport, run: &Run) -> State {
        let start_ns = about.start_ns;
        State {
            about,
            counts: Counts::default(),
            requested: 0,
            table: LiveTable::default(),
            watched: false,
            inherited: None,
            forks: Forks::default(),
            aside: Vec::new(),
            heap: Gauge::new(start_ns, BINS_PROCESS),
            sizes: SizeHistogram::default(),
            lifetimes: lifetime::Collector::default(),
            reallocs: Reallocs::default(),
            allocated: 0,
            freed: Sum::default(),
            cross_thread: 0,
            by_realloc: 0,
            shrunk_bytes: 0,
            displaced: Sum::default(),
            displaced_own: 0,
            lost_in_pause: 0,
            before_start: 0,
            inherited_all: Sum::default(),
            inherited_live: Sum::default(),
            inherited_freed: 0,
            inherited_integral: 0,
            peaks_seen: run.peaks(),
            at_run_peak: Sum::default(),
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

    /// Applies an event of the process.
    #[inline]
    pub fn event(&mut self, run: &mut Run, event: &Event) {
        match event.step {
            Step::Alloc => {
                self.counts.add(event);
                if event.address != 0 {
                    self.begin(run, event, event.address);
                }
            }
            Step::Free => {
                self.counts.add(event);
                match self.table.remove(event.address) {
                    Some(block) => {
                        if self.watched {
                            self.touch(event.address);
                        }
                        self.end(run, event, block);
                    }
                    None => self.end_elsewhere(run, event),
                }
            }
            Step::ReallocBegin => self.realloc_begin(run, event),
            Step::ReallocEnd => self.realloc_end(run, event),
        }
    }

    /// A new block.
    #[inline]
    fn begin(&mut self, run: &mut Run, event: &Event, address: u64) {
        let bytes = event.requested_bytes;
        let class = size_class(bytes);
        self.requested = self.requested.wrapping_add(bytes);
        self.sizes.add(class, bytes);
        self.allocated += 1;
        let block = Block::new(
            address,
            bytes,
            event.time_ns,
            self.counts.total,
            self.requested,
            class,
            event.thread,
        );
        self.place(run, event.time_ns, block);
        self.note_run_peak(run);
        self.heap.add(event.time_ns, bytes);
        run.add(event.time_ns, bytes);
    }

    /// Puts a block at its address; what lived there is displaced.
    #[inline]
    fn place(&mut self, run: &mut Run, now_ns: u64, block: Block) {
        if self.watched {
            self.touch(block.address);
            self.displace_inherited(run, now_ns, block.address);
        }
        if let Some(old) = self.table.insert(block) {
            self.displace(run, now_ns, old);
        }
    }

    /// A block that is in the table no more was freed.
    #[inline]
    fn end(&mut self, run: &mut Run, event: &Event, block: Block) {
        self.note_run_peak(run);
        self.freed.add(block.bytes);
        self.heap.sub(event.time_ns, block.bytes);
        if block.is_inherited() {
            self.inherited_freed += 1;
            self.inherited_gone(event.time_ns, block.bytes);
            return;
        }
        run.sub(event.time_ns, block.bytes);
        self.cross_thread += u64::from(block.thread != event.thread);
        self.lifetimes.freed(
            block.class(),
            event.time_ns.saturating_sub(block.born_ns),
            self.counts.total - block.born_events(),
            self.requested.wrapping_sub(block.born_bytes),
        );
        if block.growths != 0 {
            self.reallocs.chain(block.growths);
        }
    }

    /// A free of an address that the table does not know.
    #[cold]
    fn end_elsewhere(&mut self, run: &mut Run, event: &Event) {
        match self.take(event.address) {
            Some(block) => self.end(run, event, block),
            None => self.unknown_free(run),
        }
    }

    /// A free or realloc of an address where no block is known.
    fn unknown_free(&mut self, run: &Run) {
        match run.was_paused {
            true => self.before_start += 1,
            false => self.counts.unknown_frees += 1,
        }
    }

    /// Takes the block at `address` out, wherever it is known.
    fn take(&mut self, address: u64) -> Option<Block> {
        let own = self.table.remove(address);
        let block = own.or_else(|| {
            let bytes = self.inherited.as_mut()?.take(address)?;
            Some(Block::inherited(address, bytes))
        });
        if block.is_some() && self.watched {
            self.touch(address);
        }
        block
    }

    #[cold]
    fn touch(&mut self, address: u64) {
        if self.forks.watching() && !self.forks.touch(address) {
            self.watched = self.inherited.is_some();
        }
    }

    #[cold]
    fn displace_inherited(&mut self, run: &mut Run, now_ns: u64, address: u64) {
        let taken = self
            .inherited
            .as_mut()
            .and_then(|blocks| blocks.take(address));
        if let Some(bytes) = taken {
            self.displace(run, now_ns, Block::inherited(address, bytes));
        }
    }

    /// A block that is in the table no more ended unseen: its address was given out again.
    #[cold]
    fn displace(&mut self, run: &mut Run, now_ns: u64, block: Block) {
        self.note_run_peak(run);
        match run.was_paused {
            true => self.lost_in_pause += 1,
            false => self.counts.live_duplicates += 1,
        }
        self.displaced.add(block.bytes);
        self.heap.sub(now_ns, block.bytes);
        if block.is_inherited() {
            self.inherited_gone(now_ns, block.bytes);
        } else {
            self.displaced_own += 1;
            self.reallocs.chain(block.growths);
            run.sub(now_ns, block.bytes);
        }
    }

    fn inherited_gone(&mut self, now_ns: u64, bytes: u64) {
        self.inherited_live.sub(bytes);
        self.inherited_integral = self.inherited_integral.wrapping_add(now_ns.into());
    }

    fn realloc_begin(&mut self, run: &mut Run, event: &Event) {
        if event.old_address == 0 {
            return;
        }
        // A thread has one realloc at a time; if another is left over, its end was lost.
        if let Some(left) = self.take_aside(event.thread, None) {
            self.restore(run, event.time_ns, left);
        }
        let block = self.take(event.old_address);
        self.aside.push(Aside {
            thread: event.thread,
            address: event.old_address,
            block,
        });
    }

    fn take_aside(&mut self, thread: u32, address: Option<u64>) -> Option<Aside> {
        let is_it = |aside: &Aside| {
            aside.thread == thread && address.is_none_or(|address| aside.address == address)
        };
        let at = self.aside.iter().position(is_it)?;
        Some(self.aside.swap_remove(at))
    }

    fn restore(&mut self, run: &mut Run, now_ns: u64, aside: Aside) {
        if let Some(block) = aside.block {
            self.place(run, now_ns, block);
        }
    }

    fn realloc_end(&mut self, run: &mut Run, event: &Event) {
        self.counts.add(event);
        if event.old_address == 0 {
            if event.address != 0 {
                self.reallocs.from_null += 1;
                self.begin(run, event, event.address);
            }
            return;
        }
        let aside = self
            .take_aside(event.thread, Some(event.old_address))
            .unwrap_or_else(|| Aside {
                thread: event.thread,
                address: event.old_address,
                block: self.take(event.old_address),
            });
        let freed = event.flags & Event::FREED != 0;
        match (event.address, aside.block) {
            (0, _) if !freed => self.restore(run, event.time_ns, aside),
            (0, Some(block)) => {
                self.reallocs.to_zero += 1;
                self.by_realloc += 1;
                self.end(run, event, block);
            }
            (0, None) => {
                self.reallocs.to_zero += 1;
                self.unknown_free(run);
            }
            (address, Some(block)) => self.resize(run, event, address, block),
            (address, None) => {
                self.unknown_free(run);
                self.begin(run, event, address);
            }
        }
    }

    /// A block that is in the table no more got a new size, and maybe another address.
    fn resize(&mut self, run: &mut Run, event: &Event, address: u64, mut block: Block) {
        let (from, to) = (block.bytes, event.requested_bytes);
        self.reallocs.resize(address != event.old_address, from, to);
        self.requested = self.requested.wrapping_add(to.saturating_sub(from));
        self.shrunk_bytes = self.shrunk_bytes.wrapping_add(from.saturating_sub(to));
        block.address = address;
        block.bytes = to;
        self.note_run_peak(run);
        if block.is_inherited() {
            self.inherited_live.bytes = self
                .inherited_live
                .bytes
                .wrapping_add(to)
                .wrapping_sub(from);
            block.growths = 1;
        } else {
            block.growths = block.growths.saturating_add(u32::from(to > from));
        }
        self.place(run, event.time_ns, block);
        self.note_run_peak(run);
        self.heap.resize(event.time_ns, from, to);
        if !block.is_inherited() {
            run.resize(event.time_ns, from, to);
        }
    }

    /// Whether a block lives at `address`.
    pub fn is_live(&self, address: u64) -> bool {
        self.table.get(address).is_some() || self.inherited_at(address).is_some()
    }

    fn inherited_at(&self, address: u64) -> Option<u64> {
        self.inherited
            .as_ref()
            .and_then(|blocks| blocks.get(address))
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
    fn own(&self) -> Sum {
        Sum {
            blocks: self
                .heap
                .live
                .blocks
                .wrapping_sub(self.inherited_live.blocks),
            bytes: self.heap.live.bytes.wrapping_sub(self.inherited_live.bytes),
        }
    }

    /// The process begins as a copy of `parent`.
    pub fn fork_from(&mut self, parent: &mut State, now_ns: u64) {
        let mut live = parent.heap.live;
        let mut aside: Vec<(u32, u64, u64)> = Vec::new();
        for one in &parent.aside {
            if let Some(block) = &one.block {
                aside.push((one.thread, one.address, block.bytes));
            }
        }
        // A block within a realloc is where it was, unless its place has been given out again.
        aside.sort_unstable();
        let places: Vec<u64> = aside.iter().map(|of| of.1).collect();
        let mut at = 0;
        aside.retain(|&(_, address, bytes)| {
            at += 1;
            let taken = parent.is_live(address) || places[at..].contains(&address);
            if taken {
                live.sub(bytes);
            }
            !taken
        });
        let layers = parent.forks.share(
            parent.inherited.as_deref(),
            parent
                .table
                .iter()
                .map(|block| (block.address, block.bytes)),
            |address| {
                let own = parent.table.get(address).map(|block| block.bytes);
                let inherited = || {
                    parent
                        .inherited
                        .as_ref()
                        .and_then(|blocks| blocks.get(address))
                };
                own.or_else(inherited)
            },
            aside.iter().map(|&(_, address, bytes)| (address, bytes)),
        );
        parent.watched = true;
        if live.blocks == 0 {
            return;
        }
        self.inherited = Some(Box::new(Inherited::new(layers, (live.blocks, live.bytes))));
        self.watched = true;
        self.inherited_begin(now_ns, live);
    }

    fn inherited_begin(&mut self, now_ns: u64, more: Live) {
        for sum in [&mut self.inherited_all, &mut self.inherited_live] {
            sum.blocks = sum.blocks.wrapping_add(more.blocks);
            sum.bytes = sum.bytes.wrapping_add(more.bytes);
        }
        let area = u128::from(now_ns) * u128::from(more.blocks);
        self.inherited_integral = self.inherited_integral.wrapping_sub(area);
        self.heap.add_all(now_ns, more);
    }

    /// Applies an event of the parent that happened before the fork to the inherited blocks.
    pub fn inherit(&mut self, now_ns: u64, event: &Event) {
        let old = match event.step {
            Step::ReallocBegin => return,
            Step::Alloc => 0,
            Step::Free => event.address,
            Step::ReallocEnd => event.old_address,
        };
        let new = match event.step {
            Step::Free => 0,
            _ => event.address,
        };
        let failed = event.step == Step::ReallocEnd && new == 0 && event.flags & Event::FREED == 0;
        if failed {
            return;
        }
        if old != 0
            && !self.has_own(old)
            && let Some(block) = self.take(old)
        {
            self.uninherit(now_ns, block.bytes);
        }
        if new != 0 && !self.has_own(new) {
            if let Some(block) = self.take(new) {
                self.uninherit(now_ns, block.bytes);
            }
            let mut more = Live::default();
            more.add(event.requested_bytes);
            self.inherited_begin(now_ns, more);
            self.table
                .insert(Block::inherited(new, event.requested_bytes));
            if self.watched {
                self.touch(new);
            }
        }
    }

    /// Whether a block lives at `address` that is newer than the fork: allocated by the process, or
    /// inherited and resized since.
    fn has_own(&self, address: u64) -> bool {
        let is_own = |block: &Block| !block.is_inherited() || block.growths != 0;
        self.table.get(address).is_some_and(is_own)
    }

    /// A block turns out not to have been inherited.
    fn uninherit(&mut self, now_ns: u64, bytes: u64) {
        self.inherited_all.sub(bytes);
        self.inherited_gone(now_ns, bytes);
        self.heap.sub(now_ns, bytes);
    }

    /// The process ends, or the run does.
    pub fn finish(mut self, run: &mut Run, now_ns: u64, released: bool) -> Ended {
        self.note_run_peak(run);
        let own = self.own();
        if released {
            run.sub_all(now_ns, own.blocks, own.bytes);
        }
        // What lives is counted anew, in the tables.
        let inherited_left = self
            .inherited
            .as_ref()
            .map_or((0, 0), |blocks| blocks.left());
        let mut live = Sum {
            blocks: inherited_left.0,
            bytes: inherited_left.1,
        };
        let aside = self.aside.iter().filter_map(|aside| aside.block.as_ref());
        for block in self.table.iter().chain(aside) {
            live.add(block.bytes);
            if !block.is_inherited() {
                self.lifetimes.kept(block.class());
                self.reallocs.chain(block.growths);
            }
        }
        let figures = self.figures(now_ns, own, live, released);
        let integral = self.integral(now_ns);
        let invisible = self.invisible();
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
            sizes: self.sizes,
            lifetimes: self.lifetimes,
            integral,
        }
    }

    /// Integral over time of the own live blocks.
    fn integral(&self, now_ns: u64) -> u128 {
        let at_end = u128::from(now_ns) * u128::from(self.inherited_live.blocks);
        let inherited = self.inherited_integral.wrapping_add(at_end);
        self.heap.integral(now_ns).0.wrapping_sub(inherited)
    }

    fn figures(&self, now_ns: u64, own: Sum, live: Sum, released: bool) -> Figures {
        let number = self.about.number;
        let dropped = self
            .about
            .dropped
            .iter()
            .fold(0u64, |sum, of| sum.saturating_add(of.calls));
        let events = self.counts.events(dropped);
        let of_end = |ended: bool, amount: u64| if ended { amount } else { 0 };
        let blocks = Blocks {
            allocated: self.allocated,
            freed: self.freed.blocks,
            never_freed: own.blocks,
            inherited: self.inherited_all.blocks,
            released: of_end(released, live.blocks),
            live_at_end: of_end(!released, live.blocks),
            displaced: self.displaced.blocks,
            lost_in_pause: self.lost_in_pause,
        };
        let peak = self.heap.peak(number);
        let bytes = Bytes {
            requested: self.requested,
            freed: self.freed.bytes,
            shrunk: self.shrunk_bytes,
            peak_live: peak.live_bytes,
            live_at_end: of_end(!released, live.bytes),
            never_freed: own.bytes,
            inherited: self.inherited_all.bytes,
            released: of_end(released, live.bytes),
            displaced: self.displaced.bytes,
        };
        let lifetime = self
            .lifetimes
            .report(self.allocated, own.blocks, self.displaced_own);
        let duration_ns = now_ns.saturating_sub(self.about.start_ns);
        Figures {
            checks: check(&events, &blocks, &bytes),
            events,
            blocks,
            bytes,
            peak,
            mean: self.heap.mean(self.about.start_ns, now_ns),
            size_histogram: self.sizes.bins(),
            macro_lifetime: MacroLifetime::new(
                &lifetime.ns,
                self.integral(now_ns),
                self.allocated,
                duration_ns,
            ),
            lifetime,
            lifetime_by_size: self.lifetimes.by_size(),
            frees: Frees {
                total: self.freed.blocks,
                cross_thread: self.cross_thread,
                inherited: self.inherited_freed,
                by_realloc: self.by_realloc,
                unknown: self.counts.unknown_frees,
                before_start: self.before_start,
            },
            realloc: self.reallocs.clone(),
            handle_table: HandleTable::new(number, &self.heap.most_blocks),
            live: self.heap.curve(now_ns),
            resident: self.resident.as_ref().map(|samples| samples.report(now_ns)),
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
