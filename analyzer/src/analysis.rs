//! One pass over the merged stream: the ledger tells facts, the measures take them.

use crate::ledger::{Filter, Ledger};
use crate::report::Report;
use crate::survey::{Survey, Wanted};
use rmtrace_file::consumer::Consumer;
use rmtrace_file::model::{Ended, Mark, Process, RunInfo, Sample};
use rmtrace_format::Event;

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

/// Takes the events of a run and makes its report.
pub struct Analysis {
    ledger: Ledger<Survey>,
}

impl Default for Analysis {
    fn default() -> Self {
        Analysis::new()
    }
}

impl Analysis {
    /// An analysis that has seen nothing.
    pub fn new() -> Analysis {
        Analysis::of(Filter::default(), Wanted::from(0))
    }

    /// An analysis of the blocks that a filter takes.
    pub fn filtered(filter: Filter) -> Analysis {
        let whole = !filter.is_active();
        let wanted = Wanted {
            whole,
            ..Wanted::from(0)
        };
        Analysis::of(filter, wanted)
    }

    /// An analysis of some of the blocks.
    pub(crate) fn of(filter: Filter, wanted: Wanted) -> Analysis {
        Analysis {
            ledger: Ledger::new(Survey::new(wanted), filter),
        }
    }

    /// Everything has been delivered: the measures, and the latest time.
    pub(crate) fn close(self, processes: &[Process]) -> (Survey, u64) {
        self.ledger.finish(processes)
    }

    /// The report, when everything has been delivered.
    pub fn finish(self, trace: &TraceInfo) -> Report {
        let (survey, last_ns) = self.close(trace.processes);
        survey.finish(trace, last_ns)
    }
}

impl Consumer for Analysis {
    #[inline]
    fn event(&mut self, event: &Event) {
        self.ledger.event(event);
    }

    fn events(&mut self, events: &[Event]) {
        self.ledger.events(events);
    }

    fn process_started(&mut self, process: &Process, time_ns: u64) {
        self.ledger.process_started(process, time_ns);
    }

    fn fork(&mut self, child: u32, parent: u32, time_ns: u64) {
        self.ledger.fork(child, parent, time_ns);
    }

    fn inherit(&mut self, child: u32, event: &Event) {
        self.ledger.inherit(child, event);
    }

    fn process_ended(&mut self, process: u32, how: Ended, time_ns: u64) {
        self.ledger.process_ended(process, how, time_ns);
    }

    fn mark(&mut self, mark: &Mark, time_ns: u64) {
        self.ledger.mark(mark, time_ns);
    }

    fn sample(&mut self, sample: &Sample, time_ns: u64) {
        self.ledger.sample(sample, time_ns);
    }

    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        self.ledger.is_live(process, address)
    }
}
