//! The merged stream for callers that want no [`Consumer`]: a closure for each event, or an iterator.

use crate::consumer::Consumer;
use crate::error::ReadError;
use crate::merge::{MergeOptions, MergeStats};
use crate::reader::TraceReader;
use rmtrace_format::Event;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Events that go from the merging thread to an iterator at a time: 256 KiB.
const BATCH_EVENTS: usize = 4096;
/// Batches that wait for the iterator: memory stays below 2 MiB however long the trace is.
const BATCHES: usize = 4;

/// Hands events to a closure until it breaks.
struct ForEach<'a, F> {
    each: F,
    stopped: &'a Cell<bool>,
}

impl<F: FnMut(&Event) -> ControlFlow<()>> Consumer for ForEach<'_, F> {
    #[inline]
    fn event(&mut self, event: &Event) {
        if !self.stopped.get() && (self.each)(event).is_break() {
            self.stopped.set(true);
        }
    }
}

impl TraceReader {
    /// Calls `each` for every event in time order, until it breaks. Events of different threads in the
    /// same tick that concern the same address come with the frees first; a [`Consumer`] that knows
    /// what is live may order them better.
    ///
    /// # Errors
    /// When a frame can't be read or is damaged; what came before was told.
    pub fn for_each_event(
        &self,
        each: impl FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<MergeStats, ReadError> {
        let stopped = Cell::new(false);
        let mut consumer = ForEach {
            each,
            stopped: &stopped,
        };
        let mut progress = |_| match stopped.get() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let options = MergeOptions {
            progress: Some(&mut progress),
            ..MergeOptions::default()
        };
        self.merge_with(&mut consumer, options)
    }

    /// The events in time order, as an iterator. A thread merges ahead of it, by some 25,000 events at
    /// most, and ends when the iterator is dropped. [`TraceReader::for_each_event`] needs no
    /// thread.
    pub fn events(self: &Arc<Self>) -> Events {
        let (batches, received) = sync_channel(BATCHES);
        let reader = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name("rmtrace-merge".into())
            .spawn(move || send(&reader, &batches));
        let (thread, failed) = match thread {
            Ok(thread) => (Some(thread), None),
            Err(source) => (
                None,
                Some(ReadError::Open {
                    path: self.path().to_owned(),
                    source,
                }),
            ),
        };
        Events {
            received: Some(received),
            thread,
            batch: Vec::new().into_iter(),
            failed,
        }
    }
}

type Batch = Result<Vec<Event>, ReadError>;

/// Merges `reader` and sends what comes, in batches, until nobody receives.
fn send(reader: &TraceReader, batches: &SyncSender<Batch>) {
    let mut batch = Vec::with_capacity(BATCH_EVENTS);
    let merged = reader.for_each_event(|event| {
        batch.push(*event);
        if batch.len() < BATCH_EVENTS {
            return ControlFlow::Continue(());
        }
        let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_EVENTS));
        match batches.send(Ok(full)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    // Whether somebody still receives matters no more.
    let _ = batches.send(Ok(batch));
    if let Err(error) = merged {
        let _ = batches.send(Err(error));
    }
}

/// The events of a trace ([`TraceReader::events`]). After an error there is nothing more.
pub struct Events {
    received: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
    batch: std::vec::IntoIter<Event>,
    failed: Option<ReadError>,
}

impl Iterator for Events {
    type Item = Result<Event, ReadError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.batch.next() {
                return Some(Ok(event));
            }
            if let Some(error) = self.failed.take() {
                self.received = None;
                return Some(Err(error));
            }
            match self.received.as_ref()?.recv() {
                Ok(Ok(batch)) => self.batch = batch.into_iter(),
                Ok(Err(error)) => self.failed = Some(error),
                Err(_) => self.received = None,
            }
        }
    }
}

impl std::iter::FusedIterator for Events {}

impl Drop for Events {
    /// Ends the merging thread.
    fn drop(&mut self) {
        self.received = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, that was printed; there is nobody to hand it to here.
            let _ = thread.join();
        }
    }
}
