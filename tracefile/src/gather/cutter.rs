//! The streams of one process, cut into windows of time.

use super::buffers::Buffers;
use super::clock::{Clock, Stamps};
use super::stream::{Done, Files, Noticed, Scratch, ThreadStream, Until};
use crate::frame::LooseFrame;
use crate::model::Mark;
use rmtrace_format::chunk::{Chunk, ForkPosition};
use std::collections::BTreeMap;

/// Events that a window is meant to hold.
pub const WINDOW_EVENTS: u64 = 96 << 10;

/// The threads of one process.
#[derive(Clone, Debug, Default)]
pub struct ProcessStreams {
    /// Number of the process in the trace.
    pub process: u32,
    /// What its stamps are.
    pub stamps: Stamps,
    /// Threads by number.
    pub threads: BTreeMap<u32, ThreadStream>,
    /// Its fork chunks by sequence number.
    pub fork: BTreeMap<u32, Vec<ForkPosition>>,
    /// Stamp that the last window ended at.
    cut: u64,
}

/// What decoding reads from and counts into.
pub struct Reading<'a, F: Files> {
    /// Stamps to ticks.
    pub clock: &'a Clock,
    /// Where the parts are.
    pub files: &'a F,
    /// What decoding needs.
    pub scratch: &'a mut Scratch,
    /// Room for windows.
    pub buffers: &'a Buffers,
    /// Sums of what was noticed.
    pub noticed: &'a mut Noticed,
}

impl ProcessStreams {
    /// The stream of a thread.
    pub fn thread(&mut self, thread: u32) -> &mut ThreadStream {
        self.threads
            .entry(thread)
            .or_insert_with(|| ThreadStream::new(thread))
    }

    /// Adds an events chunk; see [`ThreadStream::add`].
    pub fn add(&mut self, chunk: &Chunk, part: super::source::Part) -> bool {
        self.thread(chunk.thread).add(chunk, part)
    }

    /// Whether nothing is left to take.
    pub fn is_empty(&self) -> bool {
        self.threads.values().all(ThreadStream::is_empty)
    }

    /// About how many events lie before `stamp`, as far as the chunks' ends tell; counting stops at
    /// `enough`.
    fn estimate(&self, stamp: u64, enough: u64) -> u64 {
        let mut bytes: u64 = 0;
        for thread in self.threads.values() {
            for (from, until, left) in thread.left() {
                if from >= stamp {
                    break;
                }
                let left = u64::from(left);
                bytes += if until <= stamp || until <= from {
                    left
                } else {
                    let share = u128::from(left) * u128::from(stamp - from);
                    (share / u128::from(until - from)) as u64
                };
            }
            if bytes / 16 >= enough {
                break;
            }
        }
        bytes / 16
    }

    /// The stamp at which the next window should end so that it holds about [`WINDOW_EVENTS`]: at
    /// most `limit`, or `None` if there are fewer before `limit`.
    pub fn next_cut(&self, limit: u64) -> Option<u64> {
        let enough = 2 * WINDOW_EVENTS;
        if self.estimate(limit, enough) < WINDOW_EVENTS * 3 / 2 {
            return None;
        }
        let first = self.threads.values().filter_map(|t| t.left().next());
        let first = first.map(|(from, ..)| from).min().unwrap_or(0);
        let begin = self.cut.max(first.saturating_sub(1)).min(limit);
        let (mut low, mut high) = (begin, limit);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.estimate(middle, enough) >= WINDOW_EVENTS {
                high = middle;
            } else {
                low = middle;
            }
            // Near enough: a thousandth of what is left of the range.
            if high - low <= (high - begin) >> 10 {
                break;
            }
        }
        Some(high)
    }

    /// Takes everything before `until` as one window and the marks met. The window has no segments if
    /// there was nothing. Returns whether a stream stopped where calls are missing, or the window was
    /// full: the same has to be asked again then.
    pub fn window<F: Files>(
        &mut self,
        until: Until,
        reading: &mut Reading<'_, F>,
        marks: &mut Vec<Mark>,
        mut done: impl FnMut(u32, Done),
    ) -> (LooseFrame, bool) {
        let room = reading.buffers.loose();
        reading.scratch.filler.begin(self.process, room);
        let mut again = false;
        for (number, stream) in &mut self.threads {
            if stream.is_empty() {
                continue;
            }
            reading.scratch.filler.begin_segment(*number);
            again |= stream.take(
                self.process,
                until,
                reading.clock,
                self.stamps,
                reading.files,
                reading.scratch,
                marks,
                reading.noticed,
                |part| done(*number, part),
            );
            reading.scratch.filler.end_segment();
        }
        if !again {
            self.cut = self.cut.max(until.stamp);
        }
        let mut window = reading.scratch.filler.finish();
        if window.segments.is_empty() {
            reading.buffers.give_loose(std::mem::take(&mut window));
        }
        (window, again)
    }

    /// Positions of the parent's threads at the fork.
    pub fn fork_positions(&self) -> Vec<(u32, u64)> {
        let mut positions: Vec<(u32, u64)> = self
            .fork
            .values()
            .flatten()
            .map(|p| (p.thread, p.calls))
            .collect();
        positions.sort_unstable();
        positions.dedup_by_key(|p| p.0);
        positions
    }
}
