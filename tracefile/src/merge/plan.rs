//! What a merge is going to do: which processes, forks, frames, marks and samples it has, and when.

use super::{Merge, ProcessState};
use crate::agenda::{PHASE_END, What};
use crate::consumer::Consumer;
use crate::fork::ForkTable;
use crate::model::{Ended, Process, StartedBy};
use std::collections::HashMap;

impl<C: Consumer> Merge<'_, '_, '_, C> {
    /// Fills the agenda and the fork tables.
    pub(super) fn plan(&mut self) {
        let reader = self.reader;
        let last_ns = self.ns(reader.ticks().map_or(0, |(_, last)| last));
        let mut spans: HashMap<u32, (u64, u64)> = HashMap::new();
        for frame in reader.frames() {
            let span = spans.entry(frame.process).or_insert((u64::MAX, 0));
            span.0 = span.0.min(frame.first_tick());
            span.1 = span.1.max(frame.last_tick());
        }
        let wanted = |number: u32| {
            self.options
                .processes
                .as_ref()
                .is_none_or(|processes| processes.contains(&number))
        };
        let start_of = |process: &Process| {
            let span = spans.get(&process.number);
            span.map_or(process.started, |(first, _)| {
                first.min(&process.started).to_owned()
            })
        };
        // Where the end was not seen from outside, a process is taken to end at its last call; but it
        // lived when it forked, and its children inherit then.
        let mut last_fork: HashMap<u32, u64> = HashMap::new();
        for child in reader.processes() {
            if let (StartedBy::Fork, Some(parent)) = (child.started_by, child.parent) {
                let last = last_fork.entry(parent).or_default();
                *last = start_of(child).max(*last);
            }
        }
        let end_of = |process: &Process| {
            let last = spans.get(&process.number).map_or(0, |(_, last)| *last);
            let fork = last_fork.get(&process.number).copied().unwrap_or(0);
            process.ended_at.max(last).max(fork)
        };
        let span = self.span;
        self.processes = reader
            .processes()
            .iter()
            .map(|process| {
                let start_ns = self.ns(start_of(process));
                // A collector sees every end: without one the process lives to the end of the run.
                let lives_on = process.ended == Ended::Unknown && reader.info().collected;
                let end_ns = match lives_on {
                    true => u64::MAX,
                    false => self.ns(end_of(process)),
                };
                ProcessState {
                    included: wanted(process.number)
                        && (span.touches(start_ns, end_ns.max(start_ns)) || !span.cuts()),
                    started: false,
                    began_before: start_ns < span.from_ns,
                    streams: HashMap::new(),
                    forks: ForkTable::default(),
                }
            })
            .collect();
        for (at, process) in reader.processes().iter().enumerate() {
            if !self.processes[at].included {
                continue;
            }
            let start_ns = self.ns(start_of(process)).max(span.from_ns);
            self.appoint(start_ns, 0, What::Start(at));
            let end_ns = self.ns(end_of(process));
            if process.ended != Ended::Unknown && end_ns < last_ns && end_ns < span.to_ns {
                self.appoint(end_ns, PHASE_END, What::End(at));
            }
            let parent = process
                .parent
                .filter(|parent| process.started_by == StartedBy::Fork && *parent < process.number)
                .and_then(|parent| self.position(parent))
                .filter(|parent| self.processes[*parent].included);
            if let Some(parent) = parent.filter(|_| !self.processes[at].began_before) {
                self.processes[parent].forks.add(at, process);
            }
        }
        if span.from_ns > 0 {
            self.pass_what_is_before();
        }
        for (at, frame) in reader.frames().iter().enumerate() {
            if self.wants(frame) {
                let ns = self.ns(frame.first_tick()).max(span.from_ns);
                self.appoint(ns, 1, What::Frame(at));
            }
        }
        for (at, side) in reader.sides().iter().enumerate() {
            let ns = self.ns(side.first_tick);
            if ns < span.to_ns {
                // Nothing tells how long it lasts.
                self.appoint(ns.max(span.from_ns), 2, What::Side(at));
            }
        }
    }

    /// Counts the calls before the window that no stream will bring: forks within it are due by
    /// numbers of calls.
    fn pass_what_is_before(&mut self) {
        for frame in self.reader.frames() {
            let Some(at) = self.position(frame.process) else {
                continue;
            };
            for segment in &frame.segments {
                if self.ns(segment.last_tick) < self.span.from_ns {
                    let end = segment.first_ordinal.saturating_add(segment.count);
                    let forks = &mut self.processes[at].forks;
                    let passed = forks.delivered(segment.thread).max(end);
                    forks.closed(segment.thread, passed);
                }
            }
        }
    }

    /// The frames of the agenda in the order in which they will be opened.
    pub(super) fn opening_order(&self) -> Vec<usize> {
        let mut order: Vec<_> = self
            .agenda
            .iter()
            .filter_map(|appointment| match appointment.what {
                What::Frame(at) => Some((appointment.key(), at)),
                _ => None,
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, at)| at).collect()
    }
}
