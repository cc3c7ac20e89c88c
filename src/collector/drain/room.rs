//! The end of a recording whose trace is as long as it may get.
//!
//! Nothing is written that might not fit: what is on its way to the file counts with the most bytes that
//! it can have, and so does the end of the trace. Recording is switched off in the programs while there
//! still is room for the calls that were made before. Should it not be enough for all of them, each
//! process' calls end at its last window that fits, and the mark of the stop lies before the first call
//! that is missing.

use super::{Drain, Status};
use crate::collector::pipeline::{Item, Pipeline};
use crate::collector::sys;
use rmtrace_file::gather::clock::Stamps;
use rmtrace_file::{Mark, RunInfo};
use rmtrace_format::record::MARK_STOP;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};

/// With less room than this a window is made only to see whether it fits: no window has more bytes.
const TIGHT_BYTES: u64 = 16 << 20;
/// What is left for calls that were made before the switch, at least and at most; else a share.
const BEFORE_BYTES: (u64, u64) = (256 << 10, 16 << 20);
const BEFORE_SHARE: u64 = 16;
/// What items beside windows may have while they are on their way.
const OTHERS_BYTES: u64 = 64 << 10;
/// What a process may take, all words on it together.
const PROCESS_BYTES: u64 = 32 << 10;

/// What is left of the trace's size.
pub(super) struct Room {
    limit_bytes: u64,
    /// Items on their way, with the most bytes that they can have.
    spent: VecDeque<(u64, u64)>,
    /// A window did not fit: none is made any more.
    pub(super) is_full: bool,
    /// CLOCK_MONOTONIC when recording was stopped.
    stopped_ns: Option<u64>,
}

impl Room {
    pub(super) fn new(limit_bytes: u64) -> Room {
        Room {
            limit_bytes,
            spent: VecDeque::new(),
            is_full: false,
            stopped_ns: None,
        }
    }

    /// Bytes that nothing is meant for.
    fn left(&mut self, pipeline: &Pipeline, status: &Status) -> u64 {
        // First: what is written in between counts twice, never not at all.
        let written = pipeline.written();
        while self.spent.front().is_some_and(|(item, _)| *item <= written) {
            self.spent.pop_front();
        }
        let on_their_way: u64 = self.spent.iter().map(|(_, bytes)| bytes).sum();
        let used = status.bytes.load(Relaxed) + status.reserved.load(Relaxed) + on_their_way;
        self.limit_bytes.saturating_sub(used + OTHERS_BYTES)
    }

    /// Whether the next window may be too long.
    pub(super) fn is_tight(&mut self, pipeline: &Pipeline, status: &Status) -> bool {
        self.is_full || self.left(pipeline, status) < TIGHT_BYTES
    }

    /// Whether a window of at most so many bytes fits; if not, nothing does from now on.
    pub(super) fn fits(&mut self, bytes: u64, pipeline: &Pipeline, status: &Status) -> bool {
        let fits = !self.is_full
            && (self.left(pipeline, status) >= bytes
                || pipeline.settle() && self.left(pipeline, status) >= bytes);
        self.is_full |= !fits;
        fits
    }

    /// Notes an item that is going to be sent.
    pub(super) fn spend(&mut self, item: u64, bytes: u64) {
        self.spent.push_back((item, bytes));
    }
}

impl Drain {
    /// Whether recording was stopped because of the limit, or is going to be at once.
    pub(super) fn is_limited(&self) -> bool {
        let room = self.room.as_ref();
        room.is_some_and(|room| room.is_full || room.stopped_ns.is_some())
    }

    /// Whether nothing is taken any more.
    pub(super) fn is_full(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.is_full)
    }

    /// Whether the trace can tell of one more process.
    pub(super) fn has_room_for_process(&mut self) -> bool {
        let limited = self.is_limited();
        match &mut self.room {
            Some(room) => !limited && room.fits(PROCESS_BYTES, &self.pipeline, &self.status),
            None => true,
        }
    }

    /// Stops recording when little room is left.
    pub(super) fn look_at_limit(&mut self) {
        let Some(room) = &mut self.room else {
            return;
        };
        if room.stopped_ns.is_some() {
            if !self.status.paused.swap(true, AcqRel) {
                self.run.set_paused(true); // It was started at the same moment.
            }
            return;
        }
        let share = (room.limit_bytes / BEFORE_SHARE).clamp(BEFORE_BYTES.0, BEFORE_BYTES.1);
        if !room.is_full && room.left(&self.pipeline, &self.status) >= share {
            return;
        }
        self.stop_at_limit();
    }

    /// Switches recording off for good, and takes what was called before.
    fn stop_at_limit(&mut self) {
        let at = sys::triple();
        if let Some(room) = &mut self.room {
            room.stopped_ns = Some(at.monotonic_ns);
        }
        self.status.limited.store(true, Release);
        if !self.status.paused.swap(true, AcqRel) {
            self.status.pauses.fetch_add(1, Relaxed);
        }
        self.run.set_paused(true);
        self.take_asked();
        for n in 0..self.spools.len() {
            if self.spools[n].over {
                continue;
            }
            self.discover_in(n);
            self.take_full();
            self.scan(n);
            self.take_appended(true);
            let reading = self.read_clock();
            let numbers: Vec<u32> = self.spools[n].alive.iter().copied().collect();
            for number in numbers {
                self.cut(n, number, &reading, true);
            }
        }
        self.read_clock();
        let mut tick = self.clock.tick_of(&at, Stamps::Tsc);
        if self.is_full() {
            let members = self.spools.iter().flat_map(|spool| spool.members.values());
            for streams in members.map(|member| &member.streams) {
                let left = streams.threads.values().filter_map(|t| t.left().next());
                for (from, _, bytes) in left {
                    if bytes > 0 {
                        let first = self.clock.tick(from, streams.stamps, &mut 0);
                        tick = tick.min(first);
                    }
                }
            }
        }
        self.marks.push(Mark::of_run(tick, MARK_STOP, "limit"));
        let marks = std::mem::take(&mut self.marks);
        self.pipeline.send(Item::Marks(marks));
    }

    /// Says that recording was stopped.
    pub(super) fn note_limit(&self, info: &mut RunInfo) {
        let Some(room) = &self.room else {
            return;
        };
        let Some(stopped_ns) = room.stopped_ns else {
            return;
        };
        info.stopped_at_bytes = room.limit_bytes;
        info.notes.push(format!(
            "recording stopped {:.1} s after its beginning, as the trace had the {} bytes that --limit \
             allows: calls made later are not in the trace; --keep last keeps those instead",
            stopped_ns.saturating_sub(self.clock.origin_ns()) as f64 / 1e9,
            room.limit_bytes,
        ));
    }
}
