//! Merges the threads of all processes into one stream in time order, for a [`Consumer`].
//!
//! A frame is opened when its first tick is reached, a thread's stream decoded in blocks of
//! [`BLOCK_CALLS`] and dropped when it is exhausted, so memory grows with the threads that are busy
//! at the same time, not with the threads of the run. Forks are told by `fork.rs`; `span.rs` has the
//! window of time, `relay.rs` and `ahead.rs` the help of other threads; `merge/plan.rs` what there is to do.

mod plan;

use crate::agenda::{Appointment, PHASE_END, What};
use crate::ahead::Frames;
use crate::codec::BATCH;
use crate::consumer::Consumer;
use crate::error::ReadError;
use crate::fork::{Due, ForkTable};
use crate::frame::Frame;
use crate::heap::Heap;
use crate::index::{FrameEntry, SegmentEntry};
use crate::model::{Call, Mark, StartedBy};
use crate::reader::TraceReader;
use crate::relay;
use crate::span::Span;
use crate::stream::{Clock, Pending, Steps, Stream, calls, nanoseconds, put_steps};
use crate::tie;
use rmtrace_format::event::Event;
use rmtrace_format::record::MARK_START;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

/// Calls decoded at a time and thread: 16 to 32 KiB of events, which stay in the first-level cache.
pub const BLOCK_CALLS: u64 = BATCH as u64;

/// What to merge, and who is told how far it is.
#[derive(Default)]
pub struct MergeOptions<'a> {
    /// Only these processes. What a fork inherits comes from its parent:
    /// [`TraceReader::with_ancestors`] adds the parents.
    pub processes: Option<Vec<u32>>,
    /// Only these threads (of each process).
    pub threads: Option<Vec<u32>>,
    /// Only calls of this time: all their steps lie at or after the start and before the end, in
    /// nanoseconds since the run's first record ([`TraceReader::ns`]); so do marks and samples. Frames
    /// and segments that lie outside are not read.
    ///
    /// Processes that ended before are left out. One that started before is told of at the start,
    /// without its fork: it inherits nothing. Where the window begins behind the run's first record, a
    /// mark of the kind `MARK_START` comes first, as where the beginning of a recording is missing:
    /// blocks may be freed that nothing here allocated.
    pub window: Option<Range<u64>>,
    /// Called about every few hundred or thousand events with the number delivered; may end the merge.
    pub progress: Option<&'a mut dyn FnMut(u64) -> ControlFlow<()>>,
    /// Threads that help: 0, all is done by the calling thread; 1, frames are read and merged by another
    /// one, a few thousand events ahead of the consumer; 2 and more, a further one opens frames, a
    /// few ahead. What is delivered, the order and the errors are the same; the consumer is called by
    /// the calling thread.
    pub workers: usize,
}

/// What a merge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeStats {
    /// Steps delivered (a realloc is two).
    pub events: u64,
    /// Frames opened.
    pub frames: u64,
    /// Times several threads of a process had events at the same tick.
    pub ties: u64,
    /// Ties in which no order fits the address table.
    pub ties_unresolved: u64,
    /// Most streams open at a time.
    pub streams_peak: usize,
    /// Whether the progress callback ended it.
    pub stopped: bool,
}

impl TraceReader {
    /// Delivers everything to `consumer` in time order.
    ///
    /// # Errors
    /// When a frame can't be read or is damaged; what came before was delivered.
    pub fn merge(&self, consumer: &mut impl Consumer) -> Result<MergeStats, ReadError> {
        self.merge_with(consumer, MergeOptions::default())
    }

    /// As [`TraceReader::merge`], of a part, or with progress.
    ///
    /// # Errors
    /// As [`TraceReader::merge`].
    pub fn merge_with(
        &self,
        consumer: &mut impl Consumer,
        options: MergeOptions<'_>,
    ) -> Result<MergeStats, ReadError> {
        match options.workers {
            0 => self.merge_alone(consumer, options, false),
            _ => relay::merge(self, consumer, options),
        }
    }

    /// Merges on this thread; with `opens_ahead` another one opens the frames.
    pub(crate) fn merge_alone(
        &self,
        consumer: &mut impl Consumer,
        options: MergeOptions<'_>,
        opens_ahead: bool,
    ) -> Result<MergeStats, ReadError> {
        let mut merge = Merge::new(self, consumer, options);
        if !opens_ahead {
            return merge.run();
        }
        std::thread::scope(|scope| {
            merge.frames = Frames::ahead(scope, self, merge.opening_order());
            merge.run()
        })
    }

    /// `process` and the processes that it inherited blocks from.
    pub fn with_ancestors(&self, process: u32) -> Vec<u32> {
        let mut numbers = vec![process];
        let mut child = self.process(process);
        while let Some(parent) = child
            .filter(|child| child.started_by == StartedBy::Fork)
            .and_then(|child| child.parent.filter(|parent| *parent < child.number))
        {
            numbers.push(parent);
            child = self.process(parent);
        }
        numbers
    }
}

/// Order of the merge: time, then process, then thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    ns: u64,
    process: u32,
    thread: u32,
    slot: u32,
}

/// What [`Merge::refill`] found.
enum Refill {
    Events,
    /// The next segment begins at this time.
    NotBefore(u64),
    Exhausted,
}

struct ProcessState {
    included: bool,
    started: bool,
    /// Whether it started before the window.
    began_before: bool,
    /// Open streams by thread.
    streams: HashMap<u32, usize>,
    forks: ForkTable,
}

struct Merge<'r, 'c, 'o, C> {
    reader: &'r TraceReader,
    consumer: &'c mut C,
    options: MergeOptions<'o>,
    origin: u64,
    heap: Heap<Key>,
    agenda: BinaryHeap<Appointment>,
    orders: u64,
    streams: Vec<Option<Box<Stream>>>,
    slots_free: Vec<usize>,
    buffers: Vec<Steps>,
    processes: Vec<ProcessState>,
    frames: Frames,
    /// What the window leaves.
    span: Span,
    tied: Tied,
    /// Time of what was delivered last: a trace that lies does not make it go backwards.
    now_ns: u64,
    stats: MergeStats,
}

/// Streams with events at the same tick; kept for its buffers.
#[derive(Default)]
struct Tied {
    streams: Vec<(Key, Box<Stream>)>,
    /// Their events of that tick, one stream after the other.
    events: Vec<Event>,
    /// First and last (excluded) in `events`, of each stream.
    ends: Vec<(usize, usize)>,
}

impl<'r, 'c, 'o, C: Consumer> Merge<'r, 'c, 'o, C> {
    fn new(reader: &'r TraceReader, consumer: &'c mut C, options: MergeOptions<'o>) -> Self {
        let origin = reader.ticks().map_or(0, |(first, _)| first);
        let span = Span::new(options.window.as_ref());
        let mut merge = Merge {
            reader,
            consumer,
            options,
            origin,
            heap: Heap::new(),
            agenda: BinaryHeap::new(),
            orders: 0,
            streams: Vec::new(),
            slots_free: Vec::new(),
            buffers: Vec::new(),
            processes: Vec::new(),
            frames: Frames::default(),
            span,
            tied: Tied::default(),
            now_ns: 0,
            stats: MergeStats::default(),
        };
        merge.plan();
        merge
    }

    fn ns(&self, tick: u64) -> u64 {
        nanoseconds(tick, self.origin, self.reader.tick_ns())
    }

    fn appoint(&mut self, ns: u64, phase: u8, what: What) {
        let order = self.orders;
        self.orders += 1;
        self.agenda.push(Appointment {
            ns,
            phase,
            order,
            what,
        });
    }

    fn position(&self, process: u32) -> Option<usize> {
        self.reader
            .processes()
            .binary_search_by_key(&process, |process| process.number)
            .ok()
    }

    fn wants_thread(&self, thread: u32) -> bool {
        self.options
            .threads
            .as_ref()
            .is_none_or(|threads| threads.contains(&thread))
    }

    fn wants(&self, frame: &FrameEntry) -> bool {
        self.position(frame.process)
            .is_some_and(|at| self.processes[at].included)
            && frame.segments.iter().any(|s| self.wants_segment(s))
    }

    fn wants_segment(&self, segment: &SegmentEntry) -> bool {
        self.wants_thread(segment.thread)
            && (!self.span.cuts()
                || self
                    .span
                    .touches(self.ns(segment.first_tick), self.ns(segment.last_tick)))
    }

    /// When a stream whose next segment is this one goes on, at the earliest.
    fn begin_ns(&self, segment: &SegmentEntry) -> u64 {
        self.ns(segment.first_tick).max(self.span.from_ns)
    }

    fn run(mut self) -> Result<MergeStats, ReadError> {
        let from_ns = self.span.from_ns;
        if self.reader.lacks_beginning() || from_ns > 0 {
            // What was recorded before is as unknown as what is called in a pause.
            let ticks = from_ns.div_ceil(self.reader.tick_ns().max(1));
            let tick = self.origin.saturating_add(ticks);
            let mark = Mark::of_run(tick, MARK_START, "begins here");
            self.consumer.mark(&mark, from_ns);
        }
        loop {
            let head = self.heap.first();
            let mut limit = u64::MAX;
            if let Some(next) = self.agenda.peek() {
                let due = head.is_none_or(|head| {
                    next.ns < head.ns || (next.ns == head.ns && next.phase < PHASE_END)
                });
                if due {
                    if let Some(appointment) = self.agenda.pop() {
                        self.keep(appointment)?;
                    }
                    continue;
                }
                limit = next.ns.saturating_add(u64::from(next.phase == PHASE_END));
            }
            let Some(head) = head else { break };
            self.now_ns = self.now_ns.max(head.ns);
            if let Some(second) = self.heap.second() {
                if second.ns == head.ns && second.process == head.process {
                    self.tie(head)?;
                    continue;
                }
                let after = second
                    .ns
                    .saturating_add(u64::from(second.process > head.process));
                limit = limit.min(after);
            }
            self.run_stream(head, limit)?;
            if let Some(progress) = &mut self.options.progress
                && progress(self.stats.events).is_break()
            {
                self.stats.stopped = true;
                break;
            }
        }
        if let Some(progress) = &mut self.options.progress {
            // Whether it is to go on matters no more.
            let _ = progress(self.stats.events);
        }
        Ok(self.stats)
    }

    /// Does what an appointment says.
    fn keep(&mut self, appointment: Appointment) -> Result<(), ReadError> {
        // What a frame of samples holds may lie before the frame's own time, if it says so wrongly.
        let ns = appointment.ns.max(self.now_ns);
        self.now_ns = ns;
        match appointment.what {
            What::Start(at) => self.start(at, ns, None),
            What::Frame(at) => self.open_frame(at)?,
            What::Side(at) => {
                if let Some(side) = self.reader.sides().get(at) {
                    for mark in self.reader.marks(side)? {
                        let ns = self.ns(mark.tick);
                        if self.span.holds(ns)
                            && (mark.is_of_run()
                                || self.includes(mark.process) && self.wants_thread(mark.thread))
                        {
                            self.appoint(ns, 2, What::Mark(Box::new(mark)));
                        }
                    }
                    for sample in self.reader.samples(side)? {
                        let ns = self.ns(sample.tick);
                        if self.span.holds(ns) && self.includes(sample.process) {
                            self.appoint(ns, 2, What::Sample(Box::new(sample)));
                        }
                    }
                }
            }
            What::Mark(mark) => self.consumer.mark(&mark, ns),
            What::Sample(sample) => self.consumer.sample(&sample, ns),
            What::End(at) => {
                if let Some(process) = self.reader.processes().get(at) {
                    self.consumer
                        .process_ended(process.number, process.ended, ns);
                }
            }
        }
        Ok(())
    }

    fn includes(&self, process: u32) -> bool {
        self.position(process)
            .is_none_or(|at| self.processes[at].included)
    }

    /// Tells of a process and, if it was forked, of its fork. `current` is the parent's stream that
    /// is being run, if it is that which brought the fork about.
    fn start(&mut self, at: usize, ns: u64, current: Option<&Stream>) {
        let reader = self.reader;
        let Some(process) = reader.processes().get(at) else {
            return;
        };
        if std::mem::replace(&mut self.processes[at].started, true) {
            return;
        }
        let parent = process
            .parent
            .filter(|parent| *parent < process.number)
            .and_then(|number| self.position(number))
            .filter(|parent| self.processes[*parent].included);
        if let Some(parent) = parent {
            self.start(parent, ns, None);
        }
        self.consumer.process_started(process, ns);
        let is_fork = process.started_by == StartedBy::Fork && !self.processes[at].began_before;
        let Some(parent) = parent.filter(|_| is_fork) else {
            return;
        };
        let parent_number = reader.processes()[parent].number;
        self.consumer.fork(process.number, parent_number, ns);
        let streams = &self.streams;
        let open = &self.processes[parent].streams;
        let delivered = |thread: u32| match current {
            Some(stream) if stream.thread == thread => Some(stream.ordinal),
            _ => open
                .get(&thread)
                .and_then(|slot| streams.get(*slot)?.as_ref())
                .map(|stream| stream.ordinal),
        };
        let outstanding =
            self.processes[parent]
                .forks
                .outstanding(reader, process, parent_number, delivered);
        self.processes[parent]
            .forks
            .inherit(process.number, outstanding);
    }

    fn open_frame(&mut self, at: usize) -> Result<(), ReadError> {
        let Some(entry) = self.reader.frames().get(at) else {
            return Ok(());
        };
        let Some(process_at) = self.position(entry.process) else {
            return Ok(());
        };
        let Some(frame) = self.frames.open(self.reader, at) else {
            return Ok(());
        };
        let frame = Rc::new(frame?);
        self.stats.frames += 1;
        for (n, segment) in entry.segments.iter().enumerate() {
            if !self.wants_segment(segment) {
                continue;
            }
            let Some(decoder) = frame.decoder(n) else {
                continue;
            };
            let pending = Pending {
                frame: Rc::clone(&frame),
                segment: *segment,
                decoder,
            };
            self.open_segment(process_at, entry.process, pending);
        }
        self.stats.streams_peak = self.stats.streams_peak.max(self.heap.len());
        Ok(())
    }

    /// Adds a segment to the stream of its thread.
    fn open_segment(&mut self, process_at: usize, process: u32, pending: Pending) {
        let thread = pending.segment.thread;
        let key = Key {
            ns: self.begin_ns(&pending.segment),
            process,
            thread,
            slot: 0,
        };
        let state = &mut self.processes[process_at];
        if let Some(slot) = state.streams.get(&thread).copied() {
            if let Some(stream) = self.streams.get_mut(slot).and_then(Option::as_mut) {
                let ordinal = pending.segment.first_ordinal;
                let at = stream
                    .queue
                    .partition_point(|other| other.segment.first_ordinal <= ordinal);
                stream.queue.insert(at, pending);
                if at == 0 && stream.steps.left().is_empty() {
                    let slot = slot as u32;
                    self.heap.lower(|key| key.slot == slot, Key { slot, ..key });
                }
            }
            return;
        }
        let delivered = state.forks.delivered(thread);
        let stream = Stream {
            current: None,
            queue: VecDeque::from([pending]),
            steps: Steps::default(),
            process,
            thread,
            process_at,
            ordinal: delivered,
            decoded: delivered,
            stop: state.forks.stop(thread),
            clock_ns: 0,
        };
        let slot = match self.slots_free.pop() {
            Some(slot) => slot,
            None => {
                self.streams.push(None);
                self.streams.len() - 1
            }
        };
        state.streams.insert(thread, slot);
        self.streams[slot] = Some(Box::new(stream));
        self.heap.push(Key {
            slot: slot as u32,
            ..key
        });
    }

    /// Decodes the next block of a stream whose events are all delivered, unless its next segment
    /// begins at `limit_ns` or later.
    fn refill(&mut self, stream: &mut Stream, limit_ns: u64) -> Result<Refill, ReadError> {
        if !stream.steps.has_room() {
            stream.steps = self.buffers.pop().unwrap_or_default();
        }
        while stream.current.as_ref().is_none_or(|(_, d)| d.left() == 0) {
            stream.current = None;
            let Some(next) = stream.queue.front() else {
                return Ok(Refill::Exhausted);
            };
            let ns = self.begin_ns(&next.segment);
            if ns >= limit_ns {
                return Ok(Refill::NotBefore(ns));
            }
            if let Some(next) = stream.queue.pop_front() {
                // Calls may be missing in between; events taken but not delivered still count.
                let missing = next.segment.first_ordinal.saturating_sub(stream.decoded);
                stream.ordinal = stream.ordinal.saturating_add(missing);
                stream.decoded = stream.decoded.max(next.segment.first_ordinal);
                stream.current = Some((next.frame, next.decoder));
            }
        }
        let Some((frame, decoder)) = &mut stream.current else {
            return Ok(Refill::Exhausted);
        };
        let block = decoder.left().min(BLOCK_CALLS);
        stream.decoded = stream.decoded.saturating_add(block);
        // What is before the window keeps its time, to be left out for it.
        let is_before = stream.clock_ns < self.span.from_ns;
        let mut clock = Clock {
            origin: self.origin,
            tick_ns: self.reader.tick_ns(),
            latest_ns: stream.clock_ns.max(if is_before { 0 } else { self.now_ns }),
        };
        let (process, thread) = (stream.process, stream.thread);
        stream.steps.make_room(block as usize);
        let decoded = stream.steps.fill(|room| {
            let mut at = 0;
            let put = |call: &Call| at = put_steps(room, at, call, &mut clock, process, thread);
            decoder
                .decode(frame.columns(), BLOCK_CALLS, put)
                .map(|()| at)
        });
        if let Err(found) = decoded {
            let offset = self.offset_of(process, frame);
            return Err(self.reader.damaged(offset, "the frame of events", found));
        }
        stream.clock_ns = clock.latest_ns;
        if self.span.cuts() && (is_before || clock.latest_ns >= self.span.to_ns) {
            let cut = self.span.cut(stream.steps.left());
            stream.ordinal = stream.ordinal.saturating_add(cut.before);
            stream.decoded = stream.decoded.saturating_sub(cut.behind);
            for event in stream.steps.keep(cut.kept) {
                event.time_ns = event.time_ns.max(self.now_ns);
            }
            if cut.ended {
                stream.current = None;
                stream.queue.clear();
            }
        }
        Ok(Refill::Events)
    }

    /// Where an open frame begins in the file, for messages.
    fn offset_of(&self, process: u32, frame: &Frame) -> u64 {
        self.reader
            .frames()
            .iter()
            .find(|entry| entry.process == process && entry.segments == frame.segments)
            .map_or(0, |entry| entry.offset)
    }

    /// Delivers the events of the first stream up to `limit_ns`, that excluded.
    fn run_stream(&mut self, head: Key, limit_ns: u64) -> Result<(), ReadError> {
        let slot = head.slot as usize;
        let Some(mut stream) = self.streams.get_mut(slot).and_then(Option::take) else {
            self.heap.pop();
            return Ok(());
        };
        loop {
            let pending = stream.steps.left();
            let inheriting = self.processes[stream.process_at].forks.inheriting();
            let ready = if inheriting {
                0
            } else {
                ready(
                    pending,
                    limit_ns,
                    stream.stop.saturating_sub(stream.ordinal),
                )
            };
            if let Some(events) = pending.get(..ready).filter(|events| !events.is_empty()) {
                self.consumer.events(events);
                stream.ordinal = if ready == pending.len() {
                    stream.decoded
                } else {
                    stream.ordinal.saturating_add(calls(events))
                };
                stream.steps.pass(ready);
                self.stats.events += ready as u64;
            }
            match stream.steps.next() {
                Some(event) if event.time_ns >= limit_ns => {
                    self.heap.replace_first(Key {
                        ns: event.time_ns,
                        ..head
                    });
                    self.streams[slot] = Some(stream);
                    return Ok(());
                }
                Some(event) => {
                    let event = *event;
                    stream.steps.pass(1);
                    self.deliver(&mut stream, &event);
                }
                None => {
                    match self.refill(&mut stream, limit_ns)? {
                        Refill::Events => {}
                        Refill::NotBefore(ns) => {
                            self.heap.replace_first(Key { ns, ..head });
                            self.streams[slot] = Some(stream);
                            return Ok(());
                        }
                        Refill::Exhausted => {
                            self.heap.pop();
                            self.close(slot, stream);
                            return Ok(());
                        }
                    }
                    // A block at a time, so that progress is told also where nothing interrupts.
                    if self.options.progress.is_some()
                        && let Some(event) = stream.steps.next()
                    {
                        self.heap.replace_first(Key {
                            ns: event.time_ns,
                            ..head
                        });
                        self.streams[slot] = Some(stream);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Delivers an event of `stream` with all that forks ask for.
    fn deliver(&mut self, stream: &mut Stream, event: &Event) {
        if stream.ordinal >= stream.stop {
            loop {
                let forks = &mut self.processes[stream.process_at].forks;
                match forks.due(stream.thread, stream.ordinal) {
                    Due::Child(child) => self.start(child, event.time_ns, Some(stream)),
                    Due::Nothing { stop } => {
                        stream.stop = stop;
                        break;
                    }
                }
            }
        }
        self.consumer.event(event);
        let forks = &mut self.processes[stream.process_at].forks;
        if forks.inheriting() {
            let consumer = &mut *self.consumer;
            forks.deliver(stream.thread, stream.ordinal, event.counts(), |child| {
                consumer.inherit(child, event);
            });
        }
        let counts = u64::from(event.counts());
        stream.ordinal = stream.ordinal.saturating_add(counts);
        self.stats.events += 1;
    }

    fn close(&mut self, slot: usize, mut stream: Box<Stream>) {
        let state = &mut self.processes[stream.process_at];
        state.streams.remove(&stream.thread);
        state.forks.closed(stream.thread, stream.ordinal);
        if stream.steps.has_room() {
            stream.steps.keep(0..0);
            self.buffers.push(stream.steps);
        }
        self.slots_free.push(slot);
    }

    /// Several threads of a process have events at the same tick: [`crate::tie`] has the order.
    fn tie(&mut self, head: Key) -> Result<(), ReadError> {
        let mut tied = std::mem::take(&mut self.tied);
        while let Some(key) = self.heap.first() {
            if key.ns != head.ns || key.process != head.process {
                break;
            }
            self.heap.pop();
            let slot = key.slot as usize;
            let Some(mut stream) = self.streams.get_mut(slot).and_then(Option::take) else {
                continue;
            };
            let from = tied.events.len();
            self.take_tied(&mut stream, head.ns, &mut tied.events)?;
            tied.ends.push((from, tied.events.len()));
            tied.streams.push((key, stream));
        }
        // A stream of which the window leaves less than its segment says may have nothing yet.
        let busy = tied.ends.iter().filter(|(from, to)| from < to).count();
        self.stats.ties += u64::from(busy > 1);
        if let Some((_, first)) = tied.streams.first()
            && self.processes[first.process_at].forks.any()
        {
            // The tied streams are not in their places: a fork asks the table how far they are.
            for (_, stream) in &tied.streams {
                let forks = &mut self.processes[stream.process_at].forks;
                forks.closed(stream.thread, stream.ordinal);
            }
        }
        if tie::is_harmless(&tied.events, &tied.ends) {
            for n in 0..tied.streams.len() {
                let (from, to) = tied.ends[n];
                for at in from..to {
                    let event = tied.events[at];
                    self.deliver_tied(&mut tied.streams[n].1, &event);
                }
            }
        } else {
            let lists: Vec<&[Event]> = tied
                .ends
                .iter()
                .map(|(from, to)| &tied.events[*from..*to])
                .collect();
            let consumer = &mut *self.consumer;
            let is_live = |address| consumer.is_live(head.process, address);
            let (order, fits) = tie::order(&lists, is_live);
            self.stats.ties_unresolved += u64::from(!fits);
            for n in order {
                let event = tied.events[tied.ends[n].0];
                tied.ends[n].0 += 1;
                self.deliver_tied(&mut tied.streams[n].1, &event);
            }
        }
        for (key, stream) in tied.streams.drain(..) {
            let decoded = stream.steps.next().map(|event| event.time_ns);
            let queued = stream.queue.front();
            match decoded.or(queued.map(|next| self.begin_ns(&next.segment))) {
                Some(ns) => {
                    self.streams[key.slot as usize] = Some(stream);
                    self.heap.push(Key { ns, ..key });
                }
                None => self.close(key.slot as usize, stream),
            }
        }
        tied.events.clear();
        tied.ends.clear();
        self.tied = tied;
        Ok(())
    }

    fn deliver_tied(&mut self, stream: &mut Stream, event: &Event) {
        self.deliver(stream, event);
        let forks = &mut self.processes[stream.process_at].forks;
        if forks.any() {
            forks.closed(stream.thread, stream.ordinal);
        }
    }

    /// Takes the events of `stream` at time `ns`, and decodes on if it has none left.
    fn take_tied(
        &mut self,
        stream: &mut Stream,
        ns: u64,
        list: &mut Vec<Event>,
    ) -> Result<(), ReadError> {
        loop {
            match stream.steps.next() {
                Some(event) if event.time_ns <= ns => {
                    list.push(*event);
                    stream.steps.pass(1);
                }
                Some(_) => return Ok(()),
                None => match self.refill(stream, ns.saturating_add(1))? {
                    Refill::Events => {}
                    Refill::NotBefore(_) | Refill::Exhausted => return Ok(()),
                },
            }
        }
    }
}

/// How many of `pending` may be delivered: those before `limit_ns`, and no more than `calls_max` calls.
/// Looks at the last event alone where all may, as is the rule for a thread that runs alone.
#[inline]
fn ready(pending: &[Event], limit_ns: u64, calls_max: u64) -> usize {
    let all_before = pending.last().is_some_and(|last| last.time_ns < limit_ns);
    if all_before && pending.len() as u64 <= calls_max {
        return pending.len();
    }
    let mut left = calls_max;
    pending
        .iter()
        .take_while(|event| {
            let goes = event.time_ns < limit_ns && left > 0;
            left = left.saturating_sub(u64::from(event.counts()));
            goes
        })
        .count()
}
