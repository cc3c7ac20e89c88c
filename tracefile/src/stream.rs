//! A thread's stream while it is merged, and the steps that its calls become.

use crate::codec::Decoder;
use crate::frame::Frame;
use crate::index::SegmentEntry;
use crate::model::Call;
use rmtrace_format::event::{Entry, Event, Kind, Step};
use std::collections::VecDeque;
use std::rc::Rc;

/// A segment of an open frame that is not being decoded yet.
pub(crate) struct Pending {
    pub(crate) frame: Rc<Frame>,
    pub(crate) segment: SegmentEntry,
    pub(crate) decoder: Decoder,
}

/// A thread's stream, while it has events.
pub(crate) struct Stream {
    /// The segment being decoded.
    pub(crate) current: Option<(Rc<Frame>, Decoder)>,
    /// The thread's further segments in frames that are open, by ordinal. None is begun before its
    /// time: frames overlap in time, and one that is opened later may hold earlier calls.
    pub(crate) queue: VecDeque<Pending>,
    pub(crate) steps: Steps,
    pub(crate) process: u32,
    pub(crate) thread: u32,
    /// Position of the process in the reader's list.
    pub(crate) process_at: usize,
    /// Calls of the thread before the next event.
    pub(crate) ordinal: u64,
    /// Calls of the thread before the next block.
    pub(crate) decoded: u64,
    /// Ordinal at which a fork is due.
    pub(crate) stop: u64,
    /// Latest time decoded: times never go backwards within a thread.
    pub(crate) clock_ns: u64,
}

/// The latest time: limits lie behind it, also for a trace whose ticks are anything.
const NS_MAX: u64 = 1 << 63;

/// Nanoseconds from `origin` to `tick`.
#[inline(always)]
pub(crate) fn nanoseconds(tick: u64, origin: u64, tick_ns: u64) -> u64 {
    let ns = tick.saturating_sub(origin).saturating_mul(tick_ns);
    ns.min(NS_MAX)
}

/// The steps of the calls decoded last, as far as they are not delivered. The room is as long as the
/// steps of the largest block so far can be, so that a step is stored without any care for it.
#[derive(Default)]
pub(crate) struct Steps {
    room: Box<[Event]>,
    at: usize,
    end: usize,
}

/// What room is filled with.
const NO_EVENT: Event = Event {
    time_ns: 0,
    address: 0,
    old_address: 0,
    requested_bytes: 0,
    usable_bytes: 0,
    caller: 0,
    process: 0,
    thread: 0,
    entry: Entry::Malloc,
    step: Step::Alloc,
    align_log2: 0,
    flags: 0,
};

impl Steps {
    /// Makes room for the steps of so many calls.
    pub(crate) fn make_room(&mut self, calls: usize) {
        if self.room.len() < 2 * calls {
            self.room = vec![NO_EVENT; 2 * calls].into_boxed_slice();
        }
    }

    /// Whether it has room at all.
    pub(crate) fn has_room(&self) -> bool {
        !self.room.is_empty()
    }

    /// Those that are left.
    #[inline]
    pub(crate) fn left(&self) -> &[Event] {
        self.room.get(self.at..self.end).unwrap_or_default()
    }

    /// The next one.
    #[inline]
    pub(crate) fn next(&self) -> Option<&Event> {
        self.left().first()
    }

    /// The next `count` are delivered.
    #[inline]
    pub(crate) fn pass(&mut self, count: usize) {
        self.at += count;
    }

    /// Takes what `fill` puts into the room, from its beginning on: it returns how much that is.
    #[inline(always)]
    pub(crate) fn fill<E>(
        &mut self,
        fill: impl FnOnce(&mut [Event]) -> Result<usize, E>,
    ) -> Result<(), E> {
        (self.at, self.end) = (0, 0);
        self.end = fill(&mut self.room)?.min(self.room.len());
        Ok(())
    }

    /// Leaves those of this range of [`Steps::left`], to be changed.
    pub(crate) fn keep(&mut self, range: std::ops::Range<usize>) -> &mut [Event] {
        self.end = self.end.min(self.at + range.end);
        self.at = self.end.min(self.at + range.start);
        self.room.get_mut(self.at..self.end).unwrap_or_default()
    }
}

/// Calls that are counted in `events`.
pub(crate) fn calls(events: &[Event]) -> u64 {
    events.iter().map(|event| u64::from(event.counts())).sum()
}

/// Turns ticks of a thread's stream into nanoseconds that never go backwards.
pub(crate) struct Clock {
    pub(crate) origin: u64,
    pub(crate) tick_ns: u64,
    pub(crate) latest_ns: u64,
}

impl Clock {
    #[inline(always)]
    pub(crate) fn ns(&mut self, tick: u64) -> u64 {
        let ns = nanoseconds(tick, self.origin, self.tick_ns);
        self.latest_ns = self.latest_ns.max(ns);
        self.latest_ns
    }
}

/// Stores the steps of a call at `at` and behind; where the next call's go.
#[inline(always)]
pub(crate) fn put_steps(
    room: &mut [Event],
    mut at: usize,
    call: &Call,
    clock: &mut Clock,
    process: u32,
    thread: u32,
) -> usize {
    let kind = call.entry.kind();
    let flags = if call.freed { Event::FREED } else { 0 };
    // Each is written where it goes, not made elsewhere and copied.
    if kind == Kind::Realloc {
        if let Some(place) = room.get_mut(at) {
            *place = Event {
                time_ns: clock.ns(call.tick),
                address: 0,
                old_address: call.address,
                requested_bytes: call.requested_bytes,
                usable_bytes: 0,
                caller: call.caller,
                process,
                thread,
                entry: call.entry,
                step: Step::ReallocBegin,
                align_log2: call.align_log2,
                flags,
            };
        }
        at += 1;
        if let Some(place) = room.get_mut(at) {
            *place = Event {
                time_ns: clock.ns(call.tick_end),
                address: call.new_address,
                old_address: call.address,
                requested_bytes: call.requested_bytes,
                usable_bytes: call.usable_bytes,
                caller: call.caller,
                process,
                thread,
                entry: call.entry,
                step: Step::ReallocEnd,
                align_log2: call.align_log2,
                flags,
            };
        }
    } else if let Some(place) = room.get_mut(at) {
        *place = Event {
            time_ns: clock.ns(call.tick),
            address: call.address,
            old_address: 0,
            requested_bytes: call.requested_bytes,
            usable_bytes: call.usable_bytes,
            caller: call.caller,
            process,
            thread,
            entry: call.entry,
            step: match kind {
                Kind::Free => Step::Free,
                _ => Step::Alloc,
            },
            align_log2: call.align_log2,
            flags,
        };
    }
    at + 1
}
