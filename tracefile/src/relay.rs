//! A merge on a thread of its own: what it delivers comes to the consumer's thread in batches, in the
//! same order and with the same errors as without. The consumer itself stays where it is.
//!
//! Memory: [`BATCHES`] batches of [`BATCH_EVENTS`] events wait, one is filled, one is used.

use crate::consumer::Consumer;
use crate::error::ReadError;
use crate::merge::{MergeOptions, MergeStats};
use crate::model::{Ended, Mark, Process, Sample};
use crate::reader::TraceReader;
use rmtrace_format::event::Event;
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Builder;

/// Events of a batch: 128 KiB.
const BATCH_EVENTS: usize = 2048;
/// Other things that a batch tells at most.
const BATCH_NOTES: usize = 256;
/// Batches that wait for the consumer.
const BATCHES: usize = 4;

/// Something to tell beside events.
enum Note {
    Started(u32, u64),
    Fork(u32, u32, u64),
    Inherit(u32, Box<Event>),
    Ended(u32, Ended, u64),
    Mark(Box<Mark>, u64),
    Sample(Box<Sample>, u64),
}

/// Events, and what comes in between.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    /// Where one thread's events end and another's begin.
    ends: Vec<usize>,
    /// Each before the event of this position.
    notes: Vec<(usize, Note)>,
}

impl Batch {
    /// Tells `consumer` all of it.
    fn deliver(&self, reader: &TraceReader, consumer: &mut impl Consumer) {
        let mut at = 0;
        let mut notes = self.notes.iter().peekable();
        for end in self.ends.iter().copied().chain([self.events.len()]) {
            loop {
                let note = notes.next_if(|(before, _)| *before < end || end == self.events.len());
                let stop = note.map_or(end, |(before, _)| *before);
                if let Some(events) = self.events.get(at..stop)
                    && !events.is_empty()
                {
                    consumer.events(events);
                }
                at = stop;
                match note {
                    Some((_, note)) => note.deliver(reader, consumer),
                    None => break,
                }
            }
        }
    }

    fn clear(&mut self) {
        self.events.clear();
        self.ends.clear();
        self.notes.clear();
    }

    fn is_full(&self) -> bool {
        self.events.len() >= BATCH_EVENTS || self.notes.len() >= BATCH_NOTES
    }
}

impl Note {
    fn deliver(&self, reader: &TraceReader, consumer: &mut impl Consumer) {
        match self {
            Note::Started(number, ns) => {
                if let Some(process) = reader.process(*number) {
                    consumer.process_started(process, *ns);
                }
            }
            Note::Fork(child, parent, ns) => consumer.fork(*child, *parent, *ns),
            Note::Inherit(child, event) => consumer.inherit(*child, event),
            Note::Ended(process, how, ns) => consumer.process_ended(*process, *how, *ns),
            Note::Mark(mark, ns) => consumer.mark(mark, *ns),
            Note::Sample(sample, ns) => consumer.sample(sample, *ns),
        }
    }
}

enum Message {
    Batch(Batch),
    /// Whether a block is live, after all that came before.
    IsLive(u32, u64),
}

/// The consumer that the merge has.
struct Relay<'a> {
    batch: RefCell<Batch>,
    to_consumer: SyncSender<Message>,
    /// Batches that were used.
    emptied: Receiver<Batch>,
    answers: Receiver<Option<bool>>,
    /// Set when nobody listens any more.
    is_over: &'a Cell<bool>,
}

impl Relay<'_> {
    fn send(&self, message: Message) {
        if self.to_consumer.send(message).is_err() {
            self.is_over.set(true);
        }
    }

    fn flush(&self) {
        let next = self.emptied.try_recv().unwrap_or_default();
        let batch = self.batch.replace(next);
        if !batch.events.is_empty() || !batch.notes.is_empty() {
            self.send(Message::Batch(batch));
        }
    }

    #[inline]
    fn flush_full(&mut self) {
        if self.batch.get_mut().is_full() {
            self.flush();
        }
    }

    fn note(&mut self, note: Note) {
        let batch = self.batch.get_mut();
        batch.notes.push((batch.events.len(), note));
        self.flush_full();
    }
}

impl Consumer for Relay<'_> {
    fn event(&mut self, event: &Event) {
        self.events(std::slice::from_ref(event));
    }

    fn events(&mut self, events: &[Event]) {
        let batch = self.batch.get_mut();
        if let (Some(last), Some(next)) = (batch.events.last(), events.first())
            && (last.thread, last.process) != (next.thread, next.process)
        {
            batch.ends.push(batch.events.len());
        }
        batch.events.extend_from_slice(events);
        self.flush_full();
    }

    fn process_started(&mut self, process: &Process, time_ns: u64) {
        self.note(Note::Started(process.number, time_ns));
    }

    fn fork(&mut self, child: u32, parent: u32, time_ns: u64) {
        self.note(Note::Fork(child, parent, time_ns));
    }

    fn inherit(&mut self, child: u32, event: &Event) {
        self.note(Note::Inherit(child, Box::new(*event)));
    }

    fn process_ended(&mut self, process: u32, how: Ended, time_ns: u64) {
        self.note(Note::Ended(process, how, time_ns));
    }

    fn mark(&mut self, mark: &Mark, time_ns: u64) {
        self.note(Note::Mark(Box::new(mark.clone()), time_ns));
    }

    fn sample(&mut self, sample: &Sample, time_ns: u64) {
        self.note(Note::Sample(Box::new(*sample), time_ns));
    }

    fn is_live(&self, process: u32, address: u64) -> Option<bool> {
        self.flush();
        self.send(Message::IsLive(process, address));
        self.answers.recv().unwrap_or_default()
    }
}

/// The consumer's end.
struct Desk<'r> {
    reader: &'r TraceReader,
    inbox: Receiver<Message>,
    emptied: Sender<Batch>,
    answers: Sender<Option<bool>>,
}

impl Desk<'_> {
    /// Tells `consumer` everything that comes. The events told, and whether `progress` ended it.
    fn work(
        self,
        consumer: &mut impl Consumer,
        progress: &mut Option<&mut dyn FnMut(u64) -> ControlFlow<()>>,
    ) -> (u64, bool) {
        let mut told = 0;
        for message in &self.inbox {
            match message {
                Message::Batch(mut batch) => {
                    batch.deliver(self.reader, consumer);
                    told += batch.events.len() as u64;
                    batch.clear();
                    // It has ended, or takes the batch.
                    let _ = self.emptied.send(batch);
                    if let Some(progress) = progress
                        && progress(told).is_break()
                    {
                        return (told, true);
                    }
                }
                Message::IsLive(process, address) => {
                    let _ = self.answers.send(consumer.is_live(process, address));
                }
            }
        }
        (told, false)
    }
}

/// Merges with the help of `options.workers` threads, at least one.
pub(crate) fn merge(
    reader: &TraceReader,
    consumer: &mut impl Consumer,
    options: MergeOptions<'_>,
) -> Result<MergeStats, ReadError> {
    let (to_consumer, inbox) = sync_channel(BATCHES);
    let (emptied, to_relay) = channel();
    let (answers, to_asker) = channel();
    let desk = Desk {
        reader,
        inbox,
        emptied,
        answers,
    };
    let mut progress = options.progress;
    let opens_ahead = options.workers > 1;
    let part = (options.processes, options.threads, options.window);
    let part_there = part.clone();
    std::thread::scope(|scope| {
        let work = move || {
            let is_over = Cell::new(false);
            let mut relay = Relay {
                batch: RefCell::default(),
                to_consumer,
                emptied: to_relay,
                answers: to_asker,
                is_over: &is_over,
            };
            let mut goes_on = |_| match is_over.get() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let (processes, threads, window) = part_there;
            let options = MergeOptions {
                processes,
                threads,
                window,
                progress: Some(&mut goes_on),
                workers: 0,
            };
            let merged = reader.merge_alone(&mut relay, options, opens_ahead);
            relay.flush();
            merged
        };
        let begun = Builder::new()
            .name("merge".to_owned())
            .spawn_scoped(scope, work);
        let Ok(merging) = begun else {
            // No more threads may be had: the slow way.
            let (processes, threads, window) = part;
            let options = MergeOptions {
                processes,
                threads,
                window,
                progress,
                workers: 0,
            };
            return reader.merge_alone(consumer, options, false);
        };
        // The desk goes when this is done: the merge finds nobody then, and ends.
        let (events, stopped) = desk.work(consumer, &mut progress);
        let merged = match merging.join() {
            Ok(merged) => merged,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if stopped {
            return Ok(MergeStats {
                events,
                stopped,
                ..merged.unwrap_or_default()
            });
        }
        let stats = merged?;
        if let Some(progress) = &mut progress {
            // Whether it is to go on matters no more.
            let _ = progress(events);
        }
        Ok(stats)
    })
}
