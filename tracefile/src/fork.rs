//! When the forks of a process are due while its threads are merged, and what their children still
//! inherit after that.

use crate::model::Process;
use crate::reader::TraceReader;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// The forks of one process: those to come, and those told whose children inherit.
#[derive(Default)]
pub(crate) struct ForkTable {
    /// By thread: position of the fork in its stream, place of the child.
    positions: HashMap<u32, BinaryHeap<Reverse<(u64, usize)>>>,
    /// Threads of the parent at a fork, place of the child: a thread of that number or a higher one
    /// began after it.
    later: BinaryHeap<Reverse<(u32, usize)>>,
    /// Calls delivered of threads whose stream is not open, by thread.
    delivered: HashMap<u32, u64>,
    /// Children that inherit, with the positions that threads have not reached.
    heirs: Vec<(u32, Vec<(u32, u64)>)>,
}

/// What is due at a thread's position.
pub(crate) enum Due {
    /// The fork of the child at this place.
    Child(usize),
    /// Nothing before this position.
    Nothing { stop: u64 },
}

impl ForkTable {
    /// Notes that `process`, at `place`, is a fork of this process.
    pub(crate) fn add(&mut self, place: usize, process: &Process) {
        for (thread, calls) in &process.fork_positions {
            self.positions
                .entry(*thread)
                .or_default()
                .push(Reverse((*calls, place)));
        }
        self.later.push(Reverse((process.parent_threads, place)));
    }

    /// The position in the thread's stream at which something is due.
    pub(crate) fn stop(&self, thread: u32) -> u64 {
        if self
            .later
            .peek()
            .is_some_and(|Reverse((threads, _))| *threads <= thread)
        {
            return 0;
        }
        self.positions
            .get(&thread)
            .and_then(|heap| heap.peek())
            .map_or(u64::MAX, |Reverse((calls, _))| *calls)
    }

    /// Takes the next fork that a thread at `ordinal` has passed. Children that are told already may
    /// come up again.
    pub(crate) fn due(&mut self, thread: u32, ordinal: u64) -> Due {
        if let Some(Reverse((threads, place))) = self.later.peek().copied()
            && threads <= thread
        {
            self.later.pop();
            return Due::Child(place);
        }
        if let Some(heap) = self.positions.get_mut(&thread)
            && let Some(Reverse((calls, place))) = heap.peek().copied()
            && calls <= ordinal
        {
            heap.pop();
            return Due::Child(place);
        }
        Due::Nothing {
            stop: self.stop(thread),
        }
    }

    /// The threads whose events before the fork of `child` are not all delivered, with the position
    /// of the fork. `open` tells the calls delivered of threads with an open stream.
    pub(crate) fn outstanding(
        &self,
        reader: &TraceReader,
        child: &Process,
        parent: u32,
        open: impl Fn(u32) -> Option<u64>,
    ) -> Vec<(u32, u64)> {
        let listed: HashMap<u32, u64> = child.fork_positions.iter().copied().collect();
        let mut outstanding = Vec::new();
        for (thread, total) in reader.threads_of(parent) {
            let position = match listed.get(thread) {
                Some(calls) => (*calls).min(*total),
                None if *thread < child.parent_threads => *total,
                None => 0,
            };
            let delivered = open(*thread)
                .or_else(|| self.delivered.get(thread).copied())
                .unwrap_or(0);
            if delivered < position {
                outstanding.push((*thread, position));
            }
        }
        outstanding
    }

    /// Notes that `child` inherits what is outstanding.
    pub(crate) fn inherit(&mut self, child: u32, outstanding: Vec<(u32, u64)>) {
        if !outstanding.is_empty() {
            self.heirs.push((child, outstanding));
        }
    }

    /// Whether any child inherits from events to come.
    #[inline]
    pub(crate) fn inheriting(&self) -> bool {
        !self.heirs.is_empty()
    }

    /// An event of `thread` at `ordinal` was delivered; `heir` is called for each child that it
    /// happened before. `counts` says that the thread's next event has the next ordinal.
    pub(crate) fn deliver(
        &mut self,
        thread: u32,
        ordinal: u64,
        counts: bool,
        mut heir: impl FnMut(u32),
    ) {
        let next = ordinal.saturating_add(u64::from(counts));
        self.heirs.retain_mut(|(child, outstanding)| {
            outstanding.retain(|(waiting, position)| {
                if *waiting != thread {
                    return true;
                }
                if ordinal < *position {
                    heir(*child);
                }
                next < *position
            });
            !outstanding.is_empty()
        });
    }

    /// Whether the process has forks at all.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        !self.positions.is_empty() || !self.later.is_empty()
    }

    /// The stream of `thread` was closed, or put aside, after so many calls.
    pub(crate) fn closed(&mut self, thread: u32, ordinal: u64) {
        self.delivered.insert(thread, ordinal);
    }

    /// Calls delivered of `thread` when its stream was closed last.
    pub(crate) fn delivered(&self, thread: u32) -> u64 {
        self.delivered.get(&thread).copied().unwrap_or(0)
    }
}
