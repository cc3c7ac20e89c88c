//! A thread's stream while it is merged, and the steps that its calls become.

use crate::codec::Decoder;
use crate::frame::Frame;
use crate::index::SegmentEntry;
use crate::model::Call;
use rmtrace_format::event::{Event, Kind, Step};
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
    pub(crate) events: Vec<Event>,
    pub(crate) at: usize,
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

/// Appends the steps of a call.
#[inline(always)]
pub(crate) fn push_steps(
    events: &mut Vec<Event>,
    call: &Call,
    clock: &mut Clock,
    process: u32,
    thread: u32,
) {
    let kind = call.entry.kind();
    let mut event = Event {
        time_ns: clock.ns(call.tick),
        address: call.address,
        old_address: 0,
        requested_bytes: call.requested_bytes,
        usable_bytes: call.usable_bytes,
        caller: call.caller,
        process,
        thread,
        entry: call.entry,
        step: if kind == Kind::Free {
            Step::Free
        } else {
            Step::Alloc
        },
        align_log2: call.align_log2,
        flags: if call.freed { Event::FREED } else { 0 },
    };
    if kind == Kind::Realloc {
        event.step = Step::ReallocBegin;
        event.address = 0;
        event.old_address = call.address;
        event.usable_bytes = 0;
        events.push(event);
        event.step = Step::ReallocEnd;
        event.time_ns = clock.ns(call.tick_end);
        event.address = call.new_address;
        event.usable_bytes = call.usable_bytes;
    }
    events.push(event);
}
