//! Analyzes a trace with up to three threads: one decodes and merges, one keeps the ledger, one takes
//! the measures. Batches go from one to the next through short queues and come back empty; the report
//! is the same, whatever the number of threads.

use crate::analysis::{Analysis, TraceInfo};
use crate::ledger::{Batch, Filter, Ledger, Sink};
use crate::report::Report;
use crate::survey::Survey;
use rmtrace_file::consumer::Consumer;
use rmtrace_file::merge::{MergeOptions, MergeStats};
use rmtrace_file::model::{Ended, Mark, Process, Sample};
use rmtrace_file::{ReadError, TraceReader};
use rmtrace_format::Event;
use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Batches that wait between two threads at most.
const QUEUED: usize = 4;
/// Events of a batch.
const PARCEL_EVENTS: usize = 2048;
/// Facts of a batch, or somewhat more.
const BATCH_FACTS: usize = 2048;

/// What to analyze, and how.
pub struct Options<'a> {
    /// Which blocks.
    pub filter: Filter,
    /// Which part of the trace, and who is told how far it is.
    pub merge: MergeOptions<'a>,
    /// Threads: 1, or up to 3.
    pub threads: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            filter: Filter::default(),
            merge: MergeOptions::default(),
            threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Analyzes a trace whose file is called `name`. The report is of what could be read; the error says
/// why that is not all, and stands in the report's damage, too.
pub fn analyze(
    reader: &TraceReader,
    name: &str,
    options: Options<'_>,
) -> (Report, Option<ReadError>) {
    let (finish, merged) = if options.threads > 1 {
        in_threads(reader, options)
    } else {
        let mut analysis = Analysis::of(options.filter);
        let merged = reader.merge_with(&mut analysis, options.merge);
        let (survey, last_ns) = analysis.close(reader.processes());
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
    (survey.finish(&trace, last_ns), error)
}

type Finished = ((Survey, u64), Result<MergeStats, ReadError>);

fn in_threads(reader: &TraceReader, options: Options<'_>) -> Finished {
    let (parcels, parcels_in) = sync_channel(QUEUED);
    let (parcels_back, parcels_empty) = sync_channel(QUEUED + 2);
    let (batches, batches_in) = sync_channel(QUEUED);
    let (batches_back, batches_empty) = sync_channel(QUEUED + 2);
    let filter = options.filter;
    thread::scope(|scope| {
        let survey = scope.spawn(move || take_batches(&batches_in, &batches_back));
        let ledger = scope.spawn(move || {
            let queue = Queue {
                full: batches,
                empty: batches_empty,
            };
            let mut ledger = Ledger::with_batches(queue, filter, BATCH_FACTS);
            for mut parcel in parcels_in {
                deliver(&mut parcel, &mut ledger);
                // If nobody wants it back, it is the last.
                let _ = parcels_back.try_send(parcel);
            }
            ledger.finish(reader.processes()).1
        });
        let mut courier = Courier {
            parcel: Parcel::default(),
            full: parcels,
            empty: parcels_empty,
        };
        let merged = reader.merge_with(&mut courier, options.merge);
        courier.send();
        drop(courier);
        let last_ns = ledger.join().unwrap_or_default();
        let survey = survey.join().unwrap_or_else(|_| Survey::new());
        ((survey, last_ns), merged)
    })
}

/// The thread of the measures.
fn take_batches(full: &Receiver<Batch>, back: &SyncSender<Batch>) -> Survey {
    let mut survey = Survey::new();
    for mut batch in full {
        survey.take(&mut batch);
        batch.clear();
        let _ = back.try_send(batch);
    }
    survey
}

/// Hands the ledger's batches to the thread of the measures.
struct Queue {
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
}

impl Sink for Queue {
    fn take(&mut self, batch: &mut Batch) {
        let empty = self.empty.try_recv().unwrap_or_default();
        // It goes on until the queue's other end is closed, which it is after this one.
        let _ = self.full.send(mem::replace(batch, empty));
    }
}

/// What is delivered beside events.
enum Delivery {
    Started(Box<Process>, u64),
    Fork(u32, u32, u64),
    Inherit(u32, Box<Event>),
    Ended(u32, Ended, u64),
    Mark(Box<Mark>, u64),
    Sample(Sample, u64),
    /// Is a block live in this process at this address?
    Ask(u32, u64, SyncSender<Option<bool>>),
}

/// Events, and deliveries with the number of events before each.
#[derive(Default)]
struct Parcel {
    events: Vec<Event>,
    others: Vec<(usize, Delivery)>,
}

/// Takes the merged stream and hands it to the ledger's thread.
struct Courier {
    parcel: Parcel,
    full: SyncSender<Parcel>,
    empty: Receiver<Parcel>,
}

impl Courier {
    fn send(&mut self) {
        let empty = self.empty.try_recv().unwrap_or_default();
        let _ = self.full.send(mem::replace(&mut self.parcel, empty));
    }

    fn add(&mut self, delivery: Delivery) {
        self.parcel
            .others
            .push((self.parcel.events.len(), delivery));
    }
}

impl Consumer for Courier {
    #[inline]
    fn event(&mut self, event: &Event) {
        self.parcel.events.push(*event);
        if self.parcel.events.len() >= PARCEL_EVENTS {
            self.send();
        }
    }

    fn process_started(&mut self, process: &Process, time_ns: u64) {
        self.add(Delivery::Started(Box::new(process.clone()), time_ns));
    }

    fn fork(&mut self, child: u32, parent: u32, time_ns: u64) {
        self.add(Delivery::Fork(child, parent, time_ns));
    }

    fn inherit(&mut self, child: u32, event: &Event) {
        self.add(Delivery::Inherit(child, Box::new(*event)));
    }

    fn process_ended(&mut self, process: u32, how: Ended, time_ns: u64) {
        self.add(Delivery::Ended(process, how, time_ns));
    }

    fn mark(&mut self, mark: &Mark, time_ns: u64) {
        self.add(Delivery::Mark(Box::new(mark.clone()), time_ns));
    }

    fn sample(&mut self, sample: &Sample, time_ns: u64) {
        self.add(Delivery::Sample(*sample, time_ns));
    }

    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        let (answer, answered) = sync_channel(1);
        self.add(Delivery::Ask(process, address, answer));
        self.send();
        answered.recv().ok().flatten()
    }
}

/// Delivers a parcel, and leaves it empty.
fn deliver(parcel: &mut Parcel, consumer: &mut impl Consumer) {
    let mut from = 0;
    for (before, delivery) in parcel.others.drain(..) {
        for event in &parcel.events[from..before] {
            consumer.event(event);
        }
        from = before;
        match delivery {
            Delivery::Started(process, time_ns) => consumer.process_started(&process, time_ns),
            Delivery::Fork(child, parent, time_ns) => consumer.fork(child, parent, time_ns),
            Delivery::Inherit(child, event) => consumer.inherit(child, &event),
            Delivery::Ended(process, how, time_ns) => consumer.process_ended(process, how, time_ns),
            Delivery::Mark(mark, time_ns) => consumer.mark(&mark, time_ns),
            Delivery::Sample(sample, time_ns) => consumer.sample(&sample, time_ns),
            Delivery::Ask(process, address, answer) => {
                let _ = answer.send(consumer.is_live(process, address));
            }
        }
    }
    for event in &parcel.events[from..] {
        consumer.event(event);
    }
    parcel.events.clear();
}
