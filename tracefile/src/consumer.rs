//! What merging delivers, and to whom.

use crate::model::{Ended, Mark, Process, Sample};
use rmtrace_format::Event;

/// Takes the merged stream of a trace, one step at a time, in time order.
///
/// Times are nanoseconds since the run's first record, rounded down to the trace's tick. Calls come
/// in this order for each process: [`Consumer::process_started`], for a forked one
/// [`Consumer::fork`], its events ([`Consumer::event`], [`Consumer::events`]),
/// [`Consumer::process_ended`].
pub trait Consumer {
    /// One event ([`Event`] tells what its halves mean).
    fn event(&mut self, event: &Event);

    /// Several events of one thread that follow each other with nothing in between, at least one: as
    /// [`Consumer::event`] of each. What a thread does while no other one does anything comes in this
    /// way, a few hundred or thousand at a time at most; how many come together says nothing.
    fn events(&mut self, events: &[Event]) {
        for event in events {
            self.event(event);
        }
    }

    /// A process appears. `process` is the whole of what the trace says of it, its end included.
    fn process_started(&mut self, process: &Process, time_ns: u64) {
        let _ = (process, time_ns);
    }

    /// `child` begins as a copy of `parent`: its inherited blocks are those live in `parent` now, plus
    /// what [`Consumer::inherit`] still brings.
    fn fork(&mut self, child: u32, parent: u32, time_ns: u64) {
        let _ = (child, parent, time_ns);
    }

    /// An event of `child`'s parent that happened before the fork but is delivered after it: apply it
    /// to the inherited blocks of `child`, not to its counts. The same event also goes to
    /// [`Consumer::event`], before this call.
    fn inherit(&mut self, child: u32, event: &Event) {
        let _ = (child, event);
    }

    /// A process ends; what it still holds is released by its exit or exec. Not called for processes
    /// that are the last thing in the run: see [`Process::ended`].
    fn process_ended(&mut self, process: u32, how: Ended, time_ns: u64) {
        let _ = (process, how, time_ns);
    }

    /// A mark.
    fn mark(&mut self, mark: &Mark, time_ns: u64) {
        let _ = (mark, time_ns);
    }

    /// A resident sample.
    fn sample(&mut self, sample: &Sample, time_ns: u64) {
        let _ = (sample, time_ns);
    }

    /// Whether a block is live at `address` in `process`, asked only to order events of different
    /// threads with equal times at that address. `None` (nobody keeps a table) puts frees first.
    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        let _ = (process, address);
        None
    }
}
