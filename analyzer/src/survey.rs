//! All measures of all processes: takes the ledger's batches, hands facts to the measures of their
//! process, and puts the report together.

use crate::analysis::TraceInfo;
use crate::counts::dropped_by_reason;
use crate::details;
use crate::fact::Fact;
use crate::fates::Sum;
use crate::first::First;
use crate::handle_table::HandleTable;
use crate::histogram::SizeHistogram;
use crate::ledger::{Batch, Note, Sink};
use crate::lifetime::{self, MacroLifetime};
use crate::live::Live;
use crate::measures::{Ended as EndedState, Measures};
use crate::report::{
    DETAILED_MAX, Figures, MarkReport, Marks, ProcessReport, Report, SCHEMA, TraceReport,
};
use crate::resident::{self, Pages};
use crate::run::Run;
use crate::series::{BINS_PROCESS, BINS_RUN};
use rmtrace_file::model::{Ended, Mark, Process, RunInfo, Sample, StartedBy};
use rmtrace_format::record;

#[derive(Debug)]
enum Slot {
    Unknown,
    Running(Box<Measures>),
    /// The report, and the peaks of the run that the process had seen.
    Ended(Box<ProcessReport>, u64),
}

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Where the run, or the part of it, begins.
    pub start_ns: u64,
    /// Whether all calls and blocks are looked at, in the time that is.
    pub whole: bool,
    /// Whether first figures are told elsewhere, and come when a process ends.
    pub first_elsewhere: bool,
    /// Whether details are.
    pub details: bool,
    /// Size classes that a person thinks of.
    pub classes: Option<usize>,
}

impl Wanted {
    /// Everything from `start_ns` on.
    pub fn from(start_ns: u64) -> Wanted {
        Wanted {
            start_ns,
            whole: true,
            first_elsewhere: false,
            details: true,
            classes: None,
        }
    }
}

/// The measures of all processes.
#[derive(Debug)]
pub(crate) struct Survey {
    wanted: Wanted,
    slots: Vec<Slot>,
    run: Run,
    totals: Totals,
    resident: Option<Box<resident::Collector>>,
    marks: Marks,
    /// Events that no process could take.
    strays: u64,
    detailed: Detailed,
}

/// The processes with most calls among those that have ended: calls and number.
#[derive(Debug, Default)]
struct Detailed(Vec<(u64, u32)>);

impl Detailed {
    /// A process has ended. `None` if it is not among them; else which one is not any more, if one is.
    fn enter(&mut self, report: &ProcessReport) -> Option<Option<u32>> {
        let calls = report.figures.events.total;
        // Of equals, the process that ended first.
        let at = self.0.partition_point(|(most, _)| *most >= calls);
        if at >= DETAILED_MAX {
            return None;
        }
        self.0.insert(at, (calls, report.number));
        let full = self.0.len() > DETAILED_MAX;
        Some(self.0.pop_if(|_| full).map(|(_, number)| number))
    }
}

/// Sums over the processes that have ended.
#[derive(Debug)]
struct Totals {
    figures: Figures,
    sizes: SizeHistogram,
    lifetimes: lifetime::Collector,
    details: details::Totals,
    integral: u128,
}

impl Survey {
    /// Measures that have seen nothing.
    pub fn new(wanted: Wanted) -> Survey {
        let start_ns = wanted.start_ns;
        let mut totals = Totals {
            figures: Figures::default(),
            sizes: SizeHistogram::default(),
            lifetimes: lifetime::Collector::default(),
            details: details::Totals::new(start_ns),
            integral: 0,
        };
        totals.figures.checks = crate::report::Checks {
            blocks: true,
            bytes: true,
            events: true,
        };
        Survey {
            wanted,
            slots: Vec::new(),
            run: Run::new(start_ns),
            totals,
            resident: None,
            marks: Marks::default(),
            strays: 0,
            detailed: Detailed::default(),
        }
    }

    fn running(&mut self, number: u32) -> Option<&mut Measures> {
        match self.slots.get_mut(number as usize) {
            Some(Slot::Running(measures)) => Some(measures),
            _ => None,
        }
    }

    fn facts(&mut self, mut facts: &[Fact]) {
        while let Some(first) = facts.first() {
            let same = facts
                .iter()
                .take_while(|fact| fact.process == first.process);
            let (run, rest) = facts.split_at(same.count());
            facts = rest;
            if let Some(Slot::Running(measures)) = self.slots.get_mut(first.process as usize) {
                measures.facts(&mut self.run, run);
            }
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Started(process, time_ns) => self.start(&process, time_ns),
            Note::Forked {
                child,
                parent,
                time_ns,
                without,
            } => {
                let parent = self.running(parent).map(|parent| parent.live_now());
                let mut live = parent.unwrap_or_default();
                without.iter().for_each(|bytes| live.sub(*bytes));
                if live.blocks != 0
                    && let Some(child) = self.running(child)
                {
                    child.inherit(time_ns, live);
                }
            }
            Note::Inherited {
                process,
                time_ns,
                bytes,
                is_there,
            } => {
                if let Some(process) = self.running(process) {
                    if is_there {
                        let mut more = Live::default();
                        more.add(bytes);
                        process.inherit(time_ns, more);
                    } else {
                        process.uninherit(time_ns, bytes);
                    }
                }
            }
            Note::Leaving { process, time_ns } => {
                let mut now = None;
                if let Some(process) = self.running(process) {
                    process.leave();
                    now = process.resident.as_ref().map(|own| own.now());
                }
                if let (Some(all), Some(own)) = (&mut self.resident, now) {
                    all.end(time_ns, own);
                }
            }
            Note::Ended {
                process,
                time_ns,
                released,
                blocks,
                bytes,
                first,
            } => self.end(process, time_ns, released, Sum { blocks, bytes }, first),
            Note::Mark(mark, time_ns) => self.mark(&mark, time_ns),
            Note::Sample(sample, time_ns) => self.sample(&sample, time_ns),
            Note::Stray => self.strays += 1,
        }
    }

    fn start(&mut self, process: &Process, time_ns: u64) {
        let at = process.number as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || Slot::Unknown);
        }
        let measures = Measures::new(about(process, time_ns), &self.run, &self.wanted);
        self.slots[at] = Slot::Running(Box::new(measures));
    }

    fn end(
        &mut self,
        number: u32,
        time_ns: u64,
        released: bool,
        live: Sum,
        first: Option<Box<First>>,
    ) {
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return;
        };
        match std::mem::replace(slot, Slot::Unknown) {
            Slot::Running(mut measures) => {
                if let Some(first) = first {
                    measures.take_first(*first);
                }
                let mut ended = measures.finish(&mut self.run, time_ns, released, live);
                self.totals.add(&ended, released);
                if let Some(details) = &ended.details
                    && let Some(without) = self.detailed.enter(&ended.report)
                {
                    let details = details.report(self.wanted.classes);
                    ended.report.figures.details = Some(Box::new(details));
                    let last = without.and_then(|number| self.slots.get_mut(number as usize));
                    if let Some(Slot::Ended(report, _)) = last {
                        report.figures.details = None;
                    }
                }
                self.slots[number as usize] = Slot::Ended(Box::new(ended.report), ended.peaks_seen);
            }
            other => *slot = other,
        }
    }

    /// The report, when everything has been delivered.
    pub fn finish(self, trace: &TraceInfo, last_ns: u64) -> Report {
        let (blocks_peak, bytes_peak) = (self.run.blocks_peak(), self.run.bytes_peak());
        let mut processes: Vec<ProcessReport> = Vec::new();
        for slot in self.slots {
            let Slot::Ended(mut report, peaks_seen) = slot else {
                continue;
            };
            // Blocks of a pause are not known, nor what a filter leaves out.
            if self.run.was_paused || !self.wanted.whole {
                report.invisible = None;
            }
            // It had ended when the run came to its peak.
            if peaks_seen < blocks_peak {
                report.live_blocks_at_run_peak = 0;
            }
            if peaks_seen < bytes_peak {
                report.live_bytes_at_run_peak = 0;
            }
            processes.push(*report);
        }
        let mut figures = self
            .totals
            .figures(&self.run, &self.wanted, last_ns, &processes);
        figures.checks.events &= self.strays == 0;
        figures.resident = self.resident.map(|samples| samples.report(last_ns));
        Report {
            schema: SCHEMA,
            trace: about_trace(trace),
            process: None,
            duration_ns: last_ns.saturating_sub(self.run.start_ns),
            threads: processes.iter().map(|process| process.threads).sum(),
            figures,
            marks: self.marks,
            processes,
        }
    }

    fn mark(&mut self, mark: &Mark, time_ns: u64) {
        if mark.is_named() && !mark.name.is_empty() {
            self.totals.details.mark(time_ns, &mark.name);
            for slot in &mut self.slots {
                if let Slot::Running(measures) = slot
                    && (mark.is_of_run() || mark.process == measures.number())
                {
                    measures.mark(time_ns, &mark.name);
                }
            }
        }
        self.run.was_paused |= mark.is_pause();
        self.marks.total += 1;
        if self.marks.listed.len() < Marks::LISTED_MAX {
            let name = match (mark.name.as_str(), u64::from(mark.number)) {
                ("", record::MARK_DISPOSE_ARENA) => "dispose_arena".to_string(),
                ("", record::MARK_DROPPED) => "dropped".to_string(),
                ("", number) => format!("mark {number}"),
                (name, _) => name.to_string(),
            };
            self.marks.listed.push(MarkReport {
                at_ns: time_ns,
                process: mark.process,
                thread: mark.thread,
                of_run: mark.is_of_run(),
                name,
                value: mark.value,
            });
        }
    }

    fn sample(&mut self, sample: &Sample, time_ns: u64) {
        let Some(Slot::Running(measures)) = self.slots.get_mut(sample.process as usize) else {
            return;
        };
        if measures.has_left() {
            return;
        }
        measures.sample(time_ns, sample);
        let start_of_run = self.run.start_ns;
        let pages = Pages::of(sample);
        let start_ns = measures.start_ns();
        let own = measures
            .resident
            .get_or_insert_with(|| Box::new(resident::Collector::new(start_ns, BINS_PROCESS)));
        let before = own.now();
        own.replace(time_ns, before, pages);
        self.resident
            .get_or_insert_with(|| Box::new(resident::Collector::new(start_of_run, BINS_RUN)))
            .replace(time_ns, before, pages);
    }
}

impl Sink for Survey {
    fn take(&mut self, batch: &mut Batch) {
        let mut from = 0;
        for (before, note) in batch.notes.drain(..) {
            self.facts(&batch.facts[from..before]);
            from = before;
            self.note(note);
        }
        self.facts(&batch.facts[from..]);
    }
}

impl Totals {
    fn add(&mut self, ended: &EndedState, released: bool) {
        let all = &mut self.figures;
        let one = &ended.report.figures;
        all.events.merge(&one.events);
        all.frees.merge(&one.frees);
        all.realloc.merge(&one.realloc);
        self.sizes.merge(&ended.sizes);
        self.lifetimes.merge(&ended.lifetimes);
        if let Some(details) = &ended.details {
            self.details.add(details);
        }
        self.integral = self.integral.wrapping_add(ended.integral);
        // Inherited blocks are the parent's already: what lives is only what a process allocated.
        let add = |to: &mut u64, from: u64| *to = to.wrapping_add(from);
        add(&mut all.blocks.allocated, one.blocks.allocated);
        add(&mut all.blocks.freed, one.blocks.freed);
        add(&mut all.blocks.never_freed, one.blocks.never_freed);
        add(&mut all.blocks.inherited, one.blocks.inherited);
        add(&mut all.blocks.displaced, one.blocks.displaced);
        add(&mut all.blocks.lost_in_pause, one.blocks.lost_in_pause);
        add(&mut all.bytes.requested, one.bytes.requested);
        add(&mut all.bytes.freed, one.bytes.freed);
        add(&mut all.bytes.shrunk, one.bytes.shrunk);
        add(&mut all.bytes.never_freed, one.bytes.never_freed);
        add(&mut all.bytes.inherited, one.bytes.inherited);
        add(&mut all.bytes.displaced, one.bytes.displaced);
        add(
            &mut all.lifetime.shares.displaced,
            one.lifetime.shares.displaced,
        );
        let (blocks, bytes) = if released {
            (&mut all.blocks.released, &mut all.bytes.released)
        } else {
            (&mut all.blocks.live_at_end, &mut all.bytes.live_at_end)
        };
        add(blocks, one.blocks.never_freed);
        add(bytes, one.bytes.never_freed);
        all.checks.blocks &= one.checks.blocks;
        all.checks.bytes &= one.checks.bytes;
        all.checks.events &= one.checks.events;
    }

    fn figures(
        self,
        run: &Run,
        wanted: &Wanted,
        last_ns: u64,
        processes: &[ProcessReport],
    ) -> Figures {
        let Totals {
            mut figures,
            sizes,
            lifetimes,
            details,
            integral,
        } = self;
        let blocks = figures.blocks;
        figures.checks.blocks &= run.gauge.live.blocks == blocks.live_at_end;
        figures.checks.bytes &= run.gauge.live.bytes == figures.bytes.live_at_end;
        let displaced = figures.lifetime.shares.displaced;
        figures.lifetime = lifetimes.report(blocks.allocated, blocks.never_freed, displaced);
        figures.lifetime_by_size = lifetimes.by_size();
        figures.macro_lifetime = MacroLifetime::new(
            &figures.lifetime.ns,
            integral,
            blocks.allocated,
            last_ns.saturating_sub(run.start_ns),
        );
        figures.size_histogram = sizes.bins();
        figures.peak = run.gauge.peak(0);
        figures.bytes.peak_live = figures.peak.live_bytes;
        // Of equals, the process with the lowest number.
        let most = |of: fn(&ProcessReport) -> u64| {
            let first = processes.iter().rev().max_by_key(|process| of(process));
            first.map_or(0, |process| process.number)
        };
        figures.peak.process = most(|process| process.live_blocks_at_run_peak);
        figures.peak.live_bytes_process = most(|process| process.live_bytes_at_run_peak);
        let highest = most(|process| process.figures.peak.live_blocks);
        let table = processes.iter().find(|process| process.number == highest);
        figures.handle_table = table.map_or_else(
            || HandleTable::new(0, &Default::default()),
            |process| process.figures.handle_table.clone(),
        );
        figures.mean = run.gauge.mean(run.start_ns, last_ns);
        figures.live = run.gauge.curve(last_ns);
        if wanted.details {
            let details = details.report(run.start_ns, last_ns, wanted.classes);
            figures.details = Some(Box::new(details));
        }
        figures
    }
}

/// What the trace says of a process.
fn about(process: &Process, start_ns: u64) -> ProcessReport {
    let (ended_by, ended_status) = match process.ended {
        Ended::Unknown => ("unknown", None),
        Ended::Exit(status) => ("exit", status),
        Ended::Signal(signal) => ("signal", Some(signal)),
        Ended::Exec => ("exec", None),
    };
    ProcessReport {
        number: process.number,
        pid: process.pid,
        name: process.name.clone(),
        role: process.role.clone(),
        parent: process.parent,
        started_by: match process.started_by {
            StartedBy::Root => "root",
            StartedBy::Fork => "fork",
            StartedBy::Exec => "exec",
            StartedBy::Spawn => "spawn",
        },
        ended_by,
        ended_status,
        threads: process.threads.len() as u64,
        start_ns,
        dropped: dropped_by_reason(&process.dropped),
        cost_ps: process.cost_ps,
        ..ProcessReport::default()
    }
}

fn about_trace(trace: &TraceInfo) -> TraceReport {
    let none = RunInfo::default();
    let info = trace.info.unwrap_or(&none);
    TraceReport {
        name: trace.name.clone(),
        command: info.command.clone(),
        realtime_ns: info.realtime_ns,
        writer: info.writer.clone(),
        machine: info.machine.clone(),
        collected: info.collected,
        tick_ns: trace.tick_ns,
        monotonic_clock: info.monotonic_clock,
        remarks: info.remarks(),
        notes: info.notes.clone(),
        damage: trace.damage.clone(),
        ties: trace.ties,
        ties_unresolved: trace.ties_unresolved,
    }
}
