//! Analyzes a trace with several threads: one decodes and merges ([`MergeOptions::workers`]), one keeps
//! the ledger, one takes the measures. Batches of facts go from the ledger to the measures through a
//! short queue and come back empty; the report is the same, whatever the number of threads.

use crate::analysis::{Analysis, TraceInfo};
use crate::first::Firsts;
use crate::ledger::{Batch, Filter, Ledger, Note, Sink};
use crate::report::Report;
use crate::survey::{Survey, Wanted};
use rmtrace_file::merge::{MergeOptions, MergeStats};
use rmtrace_file::model::Process;
use rmtrace_file::{ReadError, TraceReader};
use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Batches that wait between two threads at most.
const QUEUED: usize = 4;
/// Facts of a batch that another thread takes, or somewhat more.
const BATCH_FACTS: usize = 512;

/// What to analyze, and how.
pub struct Options<'a> {
    /// Which blocks.
    pub filter: Filter,
    /// Which part of the trace, and who is told how far it is.
    pub merge: MergeOptions<'a>,
    /// What the trace's own remarks lack: why the report is not of the whole run.
    pub remarks: Vec<String>,
    /// Whether details are wanted, or first figures only.
    pub details: bool,
    /// How many size classes the best are to be told of, beside the usual numbers.
    pub classes: Option<usize>,
    /// Threads: 1, or 3 and more.
    pub threads: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            filter: Filter::default(),
            merge: MergeOptions::default(),
            remarks: Vec::new(),
            details: true,
            classes: None,
            threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Analyzes a trace whose file is called `name`. The report is of what could be read; the error says
/// why that is not all, and stands in the report's damage, too.
pub fn analyze(
    reader: &TraceReader,
    name: &str,
    mut options: Options<'_>,
) -> (Report, Option<ReadError>) {
    let remarks = mem::take(&mut options.remarks);
    let window = options.merge.window.as_ref();
    let wanted = Wanted {
        start_ns: window.map_or(0, |window| window.start),
        whole: options.merge.threads.is_none() && !options.filter.is_active(),
        first_elsewhere: options.threads > 1,
        details: options.details,
        classes: options.classes,
    };
    // Of a part, only what is in it.
    let all = match (window, &options.merge.processes) {
        (None, None) => reader.processes(),
        _ => &[],
    };
    let (finish, merged) = if options.threads > 1 {
        in_threads(reader, options, wanted, all)
    } else {
        let mut analysis = Analysis::of(options.filter, wanted);
        let merged = reader.merge_with(&mut analysis, options.merge);
        let (survey, last_ns) = analysis.close(all);
        ((survey, last_ns), merged)
    };
    let mut damage: Vec<String> = reader.damage().iter().map(ToString::to_string).collect();
    let (stats, error) = match merged {
        Ok(stats) => (stats, None),
        Err(error) => {
            damage.push(format!("reading ended early: {error}"));
            (MergeStats::default(), Some(error))
        }
    };
    let (survey, last_ns) = finish;
    let trace = TraceInfo {
        name: name.to_owned(),
        info: Some(reader.info()),
        tick_ns: reader.tick_ns(),
        processes: reader.processes(),
        damage,
        ties: stats.ties,
        ties_unresolved: stats.ties_unresolved,
    };
    let mut report = survey.finish(&trace, last_ns);
    report.trace.remarks.extend(remarks);
    (report, error)
}

type Finished = ((Survey, u64), Result<MergeStats, ReadError>);

fn in_threads(
    reader: &TraceReader,
    options: Options<'_>,
    wanted: Wanted,
    all: &[Process],
) -> Finished {
    let (full, batches) = sync_channel(QUEUED);
    let (back, empty) = sync_channel(QUEUED + 2);
    let merge = MergeOptions {
        workers: options.threads.div_ceil(2),
        ..options.merge
    };
    thread::scope(|scope| {
        let survey = scope.spawn(move || take_batches(wanted, &batches, &back));
        let queue = Queue {
            firsts: Firsts::default(),
            full,
            empty,
        };
        let mut ledger = Ledger::with_batches(queue, options.filter, BATCH_FACTS);
        let merged = reader.merge_with(&mut ledger, merge);
        let (queue, last_ns) = ledger.finish(all);
        drop(queue);
        let survey = survey.join().unwrap_or_else(|_| Survey::new(wanted));
        ((survey, last_ns), merged)
    })
}

/// The thread of the measures.
fn take_batches(wanted: Wanted, full: &Receiver<Batch>, back: &SyncSender<Batch>) -> Survey {
    let mut survey = Survey::new(wanted);
    for mut batch in full {
        survey.take(&mut batch);
        batch.clear();
        let _ = back.try_send(batch);
    }
    survey
}

/// Takes first figures and hands the ledger's batches to the thread of the other measures.
struct Queue {
    firsts: Firsts,
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
}

impl Sink for Queue {
    fn take(&mut self, batch: &mut Batch) {
        self.firsts.facts(&batch.facts);
        for (_, note) in &mut batch.notes {
            if let Note::Ended { process, first, .. } = note {
                *first = Some(self.firsts.take(*process));
            }
        }
        let empty = self.empty.try_recv().unwrap_or_default();
        // It goes on until the queue's other end is closed, which it is after this one.
        let _ = self.full.send(mem::replace(batch, empty));
    }
}
