//! One pass over the merged stream. [`Analysis`] hands every event to the state of its process and
//! puts the report together.

use crate::counts::dropped_by_reason;
use crate::handle_table::HandleTable;
use crate::histogram::SizeHistogram;
use crate::lifetime::{self, MacroLifetime};
use crate::process::{Ended as EndedState, State};
use crate::report::{Figures, MarkReport, Marks, ProcessReport, Report, SCHEMA, TraceReport};
use crate::resident::{self, Pages};
use crate::run::Run;
use crate::series::{BINS_PROCESS, BINS_RUN};
use rmtrace_file::consumer::Consumer;
use rmtrace_file::model::{Ended, Mark, Process, RunInfo, Sample, StartedBy};
use rmtrace_format::{Event, record};

/// Processes with higher numbers are not taken: numbers come from a file.
const PROCESSES_MAX: u32 = 1 << 22;

/// What the report says of the trace beside its events.
#[derive(Clone, Debug, Default)]
pub struct TraceInfo<'a> {
    /// Its name, without directories.
    pub name: String,
    /// What it says of the run.
    pub info: Option<&'a RunInfo>,
    /// Time unit in nanoseconds.
    pub tick_ns: u64,
    /// All its processes, those without events too.
    pub processes: &'a [Process],
    /// What is damaged or missing.
    pub damage: Vec<String>,
    /// Times several threads of a process had events at the same tick.
    pub ties: u64,
    /// Of these, those for which no order fits the table of addresses.
    pub ties_unresolved: u64,
}

#[derive(Debug)]
enum Slot {
    Unknown,
    Running(Box<State>),
    /// It ended, and nothing has happened since: it may be the last of the run.
    Leaving(Box<State>, u64),
    Ended(Box<ProcessReport>, u64),
}

/// Takes the events of a run and makes its report.
#[derive(Debug)]
pub struct Analysis {
    slots: Vec<Slot>,
    /// Processes whose slot is [`Slot::Leaving`]; all ended at the same time.
    leaving: Vec<u32>,
    run: Run,
    totals: Totals,
    resident: Option<Box<resident::Collector>>,
    marks: Marks,
    /// Latest time of any record.
    last_ns: u64,
    /// Events that no process could take.
    strays: u64,
}

/// Sums over the processes that have ended.
#[derive(Debug, Default)]
struct Totals {
    figures: Figures,
    sizes: SizeHistogram,
    lifetimes: lifetime::Collector,
    integral: u128,
}

impl Default for Analysis {
    fn default() -> Self {
        Analysis::new()
    }
}

impl Analysis {
    /// An analysis that has seen nothing.
    pub fn new() -> Analysis {
        let mut totals = Totals::default();
        totals.figures.checks = crate::report::Checks {
            blocks: true,
            bytes: true,
            events: true,
        };
        Analysis {
            slots: Vec::new(),
            leaving: Vec::new(),
            run: Run::new(),
            totals,
            resident: None,
            marks: Marks::default(),
            last_ns: 0,
            strays: 0,
        }
    }

    fn slot(&mut self, number: u32) -> Option<&mut Slot> {
        if number >= PROCESSES_MAX {
            return None;
        }
        let at = number as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || Slot::Unknown);
        }
        self.slots.get_mut(at)
    }

    fn start(&mut self, process: &Process, time_ns: u64) {
        let state = State::new(about(process, time_ns), &self.run);
        if let Some(slot @ Slot::Unknown) = self.slot(process.number) {
            *slot = Slot::Running(Box::new(state));
        }
    }

    #[cold]
    fn stray(&mut self, event: &Event) {
        match self.slot(event.process) {
            Some(Slot::Unknown) => {
                let process = Process {
                    number: event.process,
                    ..Process::default()
                };
                self.start(&process, event.time_ns);
                self.event(event);
            }
            _ => self.strays += 1,
        }
    }

    /// Takes the running state of a process out.
    fn take(&mut self, number: u32) -> Option<Box<State>> {
        let slot = self.slots.get_mut(number as usize)?;
        match std::mem::replace(slot, Slot::Unknown) {
            Slot::Running(state) => Some(state),
            other => {
                *slot = other;
                None
            }
        }
    }

    fn end(&mut self, state: Box<State>, time_ns: u64, released: bool) {
        let number = state.number();
        let ended = state.finish(&mut self.run, time_ns, released);
        self.totals.add(&ended, released);
        if let Some(slot) = self.slot(number) {
            *slot = Slot::Ended(Box::new(ended.report), ended.peaks_seen);
        }
    }

    /// Ends the processes that were leaving.
    #[cold]
    fn let_go(&mut self, released: bool) {
        for number in std::mem::take(&mut self.leaving) {
            let Some(slot) = self.slots.get_mut(number as usize) else {
                continue;
            };
            match std::mem::replace(slot, Slot::Unknown) {
                Slot::Leaving(state, time_ns) => self.end(state, time_ns, released),
                other => *slot = other,
            }
        }
    }

    /// The report, when everything has been delivered.
    pub fn finish(mut self, trace: &TraceInfo) -> Report {
        let last_ns = self.last_ns;
        // What the last process held was not given back within the run.
        let others = self
            .slots
            .iter()
            .any(|slot| matches!(slot, Slot::Running(_)));
        self.let_go(others);
        for process in trace.processes {
            self.start(process, last_ns);
        }
        for number in 0..self.slots.len() as u32 {
            if let Some(state) = self.take(number) {
                self.end(state, last_ns, false);
            }
        }
        let (blocks_peak, bytes_peak) = (self.run.blocks_peak(), self.run.bytes_peak());
        let mut processes: Vec<ProcessReport> = Vec::new();
        for slot in self.slots {
            let Slot::Ended(mut report, peaks_seen) = slot else {
                continue;
            };
            // Blocks of a pause are not known.
            if self.run.was_paused {
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
        let mut figures = self.totals.figures(&self.run, last_ns, &processes);
        figures.checks.events &= self.strays == 0;
        figures.resident = self.resident.map(|samples| samples.report(last_ns));
        Report {
            schema: SCHEMA,
            trace: about_trace(trace),
            process: None,
            duration_ns: last_ns,
            threads: processes.iter().map(|process| process.threads).sum(),
            figures,
            marks: self.marks,
            processes,
        }
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

    fn figures(self, run: &Run, last_ns: u64, processes: &[ProcessReport]) -> Figures {
        let Totals {
            mut figures,
            sizes,
            lifetimes,
            integral,
        } = self;
        let blocks = figures.blocks;
        figures.checks.blocks &= run.gauge.live.blocks == blocks.live_at_end;
        figures.checks.bytes &= run.gauge.live.bytes == figures.bytes.live_at_end;
        let displaced = figures.lifetime.shares.displaced;
        figures.lifetime = lifetimes.report(blocks.allocated, blocks.never_freed, displaced);
        figures.lifetime_by_size = lifetimes.by_size();
        figures.macro_lifetime =
            MacroLifetime::new(&figures.lifetime.ns, integral, blocks.allocated, last_ns);
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
        figures.mean = run.gauge.mean(0, last_ns);
        figures.live = run.gauge.curve(last_ns);
        figures
    }
}

impl Consumer for Analysis {
    #[inline]
    fn event(&mut self, event: &Event) {
        self.last_ns = self.last_ns.max(event.time_ns);
        if !self.leaving.is_empty() {
            self.let_go(true);
        }
        match self.slots.get_mut(event.process as usize) {
            Some(Slot::Running(state)) => state.event(&mut self.run, event),
            _ => self.stray(event),
        }
    }

    fn process_started(&mut self, process: &Process, time_ns: u64) {
        self.last_ns = self.last_ns.max(time_ns);
        self.let_go(true);
        self.start(process, time_ns);
    }

    fn fork(&mut self, child: u32, parent: u32, time_ns: u64) {
        self.last_ns = self.last_ns.max(time_ns);
        if let Some(mut state) = self.take(child) {
            if let Some(Slot::Running(parent)) = self.slots.get_mut(parent as usize) {
                state.fork_from(parent, time_ns);
            }
            if let Some(slot) = self.slot(child) {
                *slot = Slot::Running(state);
            }
        }
    }

    fn inherit(&mut self, child: u32, event: &Event) {
        if let Some(Slot::Running(state)) = self.slots.get_mut(child as usize) {
            let now_ns = self.last_ns.max(event.time_ns).max(state.start_ns());
            state.inherit(now_ns, event);
        }
    }

    fn process_ended(&mut self, process: u32, _how: Ended, time_ns: u64) {
        let earlier = self
            .leaving
            .first()
            .and_then(|number| self.slots.get(*number as usize));
        if matches!(earlier, Some(Slot::Leaving(_, earlier_ns)) if *earlier_ns != time_ns) {
            self.let_go(true);
        }
        self.last_ns = self.last_ns.max(time_ns);
        let Some(state) = self.take(process) else {
            return;
        };
        if let (Some(all), Some(own)) = (&mut self.resident, &state.resident) {
            all.end(time_ns, own.now());
        }
        if let Some(slot) = self.slot(process) {
            *slot = Slot::Leaving(state, time_ns);
            self.leaving.push(process);
        }
    }

    fn mark(&mut self, mark: &Mark, time_ns: u64) {
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
        let Some(Slot::Running(state)) = self.slots.get_mut(sample.process as usize) else {
            return;
        };
        state.sample(time_ns, sample);
        let pages = Pages::of(sample);
        let start_ns = state.start_ns();
        let own = state
            .resident
            .get_or_insert_with(|| Box::new(resident::Collector::new(start_ns, BINS_PROCESS)));
        let before = own.now();
        own.replace(time_ns, before, pages);
        self.resident
            .get_or_insert_with(|| Box::new(resident::Collector::new(0, BINS_RUN)))
            .replace(time_ns, before, pages);
    }

    fn is_live(&self, process: u32, address: u64) -> Option<bool> {
        match self.slots.get(process as usize) {
            Some(Slot::Running(state)) => Some(state.is_live(address)),
            _ => Some(false),
        }
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
