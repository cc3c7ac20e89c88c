//! Locks when recorded accesses used a block (`rmtrace accesses`). The file counts calls in the order of the stream; the
//! merged order of the trace differs from it where calls of threads overlapped, so a block is locked when the first call behind its
//! first access comes.

use super::Turn;
use crate::error::ReplayError;
use crate::heap::Change;
use rmtrace_accesses::AccessFile;
use rmtrace_file::TraceReader;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// A thread's calls in the order of the stream.
#[derive(Debug, Default)]
struct Calls {
    /// Number of the first call of a run, and how many there are.
    runs: Vec<(u64, u64)>,
    run: usize,
    within: u64,
}

impl Calls {
    /// Number of the next call.
    fn next(&self) -> Option<u64> {
        let (first, _) = self.runs.get(self.run)?;
        Some(first + self.within)
    }

    fn advance(&mut self) {
        self.within += 1;
        if self
            .runs
            .get(self.run)
            .is_some_and(|(_, calls)| self.within >= *calls)
        {
            self.run += 1;
            self.within = 0;
        }
    }
}

/// A lock or its end, before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    call: u64,
    /// Ends come first.
    locks: bool,
    birth: u64,
}

/// Recorded times of use.
#[derive(Debug, Default)]
pub struct Spans {
    threads: Vec<Calls>,
    due: Vec<Due>,
    next: usize,
    /// Calls behind which everything that is due was told.
    now: u64,
    /// Slots of live blocks by the call that made them, and the reverse.
    slots: HashMap<u64, u32>,
    births: Vec<Option<u64>>,
    /// Blocks that are to be locked when they are born.
    early: HashSet<u64>,
}

impl Spans {
    /// Reads a file of accesses of a process of a trace.
    ///
    /// # Errors
    /// When it can't be read, or is of another run.
    pub fn open(path: &Path, reader: &TraceReader, process: u32) -> Result<Spans, ReplayError> {
        let unread = |error: rmtrace_accesses::AccessError| {
            let source = std::error::Error::source(&error)
                .map_or(String::new(), |source| format!(": {source}"));
            ReplayError::Option(format!("{error}{source}"))
        };
        let file = AccessFile::open(path).map_err(unread)?;
        let summary = &file.summary;
        let threads = reader
            .process(process)
            .map(|process| process.threads.as_slice())
            .unwrap_or_default();
        for thread in threads {
            let seen = summary
                .threads
                .get(thread.number as usize)
                .cloned()
                .unwrap_or_default();
            if (seen.calls, seen.sum) != (thread.counters.total(), thread.counters.sum) {
                return Err(ReplayError::Option(format!(
                    "{}: accesses of another run than this trace and process: thread {} made {} calls there, {} or others here; \
                     they are of process {} of {}",
                    path.display(),
                    thread.number,
                    seen.calls,
                    thread.counters.total(),
                    summary.process,
                    summary.trace
                )));
            }
        }
        let mut spans = Spans::default();
        spans.order(file.order().map_err(unread)?);
        file.blocks(|block| {
            for span in &block.crossing {
                for (call, locks) in [(span.from, true), (span.to, false)] {
                    spans.due.push(Due {
                        call,
                        locks,
                        birth: block.birth,
                    });
                }
            }
        })
        .map_err(unread)?;
        spans.due.sort_unstable();
        Ok(spans)
    }

    fn order(&mut self, runs: Vec<(u32, u64)>) {
        let mut first = 0;
        for (thread, calls) in runs {
            let thread = thread as usize;
            if thread >= self.threads.len() {
                self.threads.resize_with(thread + 1, Calls::default);
            }
            self.threads[thread].runs.push((first, calls));
            first += calls;
        }
    }

    fn call(&self, thread: u32) -> Option<u64> {
        self.threads.get(thread as usize)?.next()
    }

    /// What is due before the next call of a thread.
    pub fn before(&mut self, thread: u32, out: &mut Vec<Turn>) {
        let Some(call) = self.call(thread) else {
            return;
        };
        if call < self.now {
            return;
        }
        self.now = call;
        while let Some(due) = self.due.get(self.next).filter(|due| due.call <= call) {
            self.next += 1;
            match (self.slots.get(&due.birth), due.locks) {
                (Some(&slot), locks) => out.push(Turn { slot, locks }),
                (None, true) => drop(self.early.insert(due.birth)),
                (None, false) => drop(self.early.remove(&due.birth)),
            }
        }
    }

    /// Takes a change.
    pub fn after(&mut self, thread: u32, change: Change, out: &mut Vec<Turn>) {
        let call = self.call(thread);
        match change {
            Change::Displaced { slot, .. } => return self.ended(slot),
            Change::Freed { slot, .. } => self.ended(slot),
            Change::Born { slot, .. } => {
                if let Some(birth) = call {
                    let at = slot as usize;
                    if at >= self.births.len() {
                        self.births.resize(at + 1, None);
                    }
                    self.births[at] = Some(birth);
                    self.slots.insert(birth, slot);
                    if self.early.remove(&birth) {
                        out.push(Turn { slot, locks: true });
                    }
                }
            }
            Change::Resized { .. } | Change::Failed | Change::Unknown => {}
        }
        if let Some(calls) = self.threads.get_mut(thread as usize) {
            calls.advance();
        }
    }

    fn ended(&mut self, slot: u32) {
        if let Some(birth) = self.births.get_mut(slot as usize).and_then(Option::take) {
            self.slots.remove(&birth);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_locked_from_their_first_access_to_their_last() {
        let due = |call, locks, birth| Due { call, locks, birth };
        let mut spans = Spans {
            due: vec![
                due(1, true, 0),
                due(3, false, 0),
                due(3, true, 2),
                due(5, false, 2),
            ],
            ..Spans::default()
        };
        spans.order(vec![(0, 2), (1, 1), (0, 3)]);
        let born = |slot| Change::Born {
            slot,
            bytes: 1,
            unknown: false,
        };
        let mut said = Vec::new();
        // Call 2, of thread 1, is merged behind call 3.
        for (thread, change) in [
            (0, born(7)),
            (0, Change::Failed),
            (0, Change::Unknown),
            (1, born(9)),
            (
                0,
                Change::Resized {
                    slot: 7,
                    from: 1,
                    to: 2,
                },
            ),
            (0, Change::Freed { slot: 9, bytes: 1 }),
        ] {
            let mut out = Vec::new();
            spans.before(thread, &mut out);
            let before = out.len();
            spans.after(thread, change, &mut out);
            said.push((
                before,
                out.iter()
                    .map(|turn| (turn.slot, turn.locks))
                    .collect::<Vec<_>>(),
            ));
        }
        let expected = [
            (0, vec![]),
            (1, vec![(7, true)]),
            (1, vec![(7, false)]),
            (0, vec![(9, true)]),
            (0, vec![]),
            (1, vec![(9, false)]),
        ];
        assert_eq!(said, expected);
    }
}
