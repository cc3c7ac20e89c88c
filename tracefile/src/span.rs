//! The part of the run's time that a merge delivers.

use crate::stream::calls;
use rmtrace_format::event::{Event, Step};
use std::ops::Range;

/// From `from_ns` to before `to_ns`.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
}

/// What [`Span::cut`] leaves, and what it takes away.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// What is left of the events.
    pub(crate) kept: Range<usize>,
    /// Calls before the span.
    pub(crate) before: u64,
    /// Calls behind it.
    pub(crate) behind: u64,
    /// Whether it reached behind the span: there is nothing more in it for the thread.
    pub(crate) ended: bool,
}

impl Span {
    /// The whole run, or this part of it.
    pub(crate) fn new(window: Option<&Range<u64>>) -> Span {
        let Range { start, end } = window.cloned().unwrap_or(0..u64::MAX);
        Span {
            from_ns: start,
            to_ns: end,
        }
    }

    /// Whether it leaves something out.
    pub(crate) fn cuts(&self) -> bool {
        self.from_ns > 0 || self.to_ns < u64::MAX
    }

    /// Whether `ns` lies in it.
    pub(crate) fn holds(&self, ns: u64) -> bool {
        self.from_ns <= ns && ns < self.to_ns
    }

    /// Whether something that lasts from `first_ns` to `last_ns`, both included, has a part in it.
    pub(crate) fn touches(&self, first_ns: u64, last_ns: u64) -> bool {
        self.from_ns < self.to_ns && first_ns < self.to_ns && self.from_ns <= last_ns
    }

    /// Which of `events`, whole calls of one thread in their order, are left: those that lie in it with
    /// all their steps. A realloc that begins before it or ends behind it goes, too.
    pub(crate) fn cut(&self, events: &[Event]) -> Cut {
        let mut from = events.partition_point(|event| event.time_ns < self.from_ns);
        let mut to = events.partition_point(|event| event.time_ns < self.to_ns);
        if events
            .get(from)
            .is_some_and(|event| event.step == Step::ReallocEnd)
        {
            from += 1;
        }
        let ended = to < events.len();
        let is_half = |event: &Event| event.step == Step::ReallocBegin;
        if to
            .checked_sub(1)
            .and_then(|last| events.get(last))
            .is_some_and(is_half)
        {
            to -= 1;
        }
        let to = to.max(from);
        Cut {
            kept: from..to,
            before: calls(events.get(..from).unwrap_or_default()),
            behind: calls(events.get(to..).unwrap_or_default()),
            ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Call;
    use crate::stream::{Clock, Steps, put_steps};
    use proptest::prelude::*;
    use rmtrace_format::event::Entry;

    proptest! {
        /// The twin looks at each call by itself.
        #[test]
        fn a_cut_keeps_the_calls_that_lie_in_the_span(
            steps in proptest::collection::vec((any::<bool>(), 0u64..4, 0u64..4), 0..30), from_ns in 0u64..60, length in 0u64..60,
        ) {
            let span = Span { from_ns, to_ns: from_ns + length };
            let (mut tick, mut all, mut wanted) = (0, Vec::new(), Vec::new());
            let steps_of = |call: &Call| {
                let mut clock = Clock { origin: 0, tick_ns: 1, latest_ns: 0 };
                let mut steps = Steps::default();
                steps.make_room(1);
                steps.fill(|room| Ok::<_, ()>(put_steps(room, 0, call, &mut clock, 0, 0))).unwrap();
                steps.left().to_vec()
            };
            let (mut before, mut kept) = (0, 0);
            for (n, (resizes, wait, lasts)) in steps.iter().enumerate() {
                let mut call = Call {
                    entry: if *resizes { Entry::Realloc } else { Entry::Malloc },
                    align_log2: 0, freed: false, address: 16 * n as u64, new_address: 0, requested_bytes: 1,
                    tick: tick + wait, tick_end: tick + wait, caller: 0, usable_bytes: 0,
                };
                if *resizes {
                    call.tick_end += lasts;
                }
                tick = call.tick_end;
                all.extend(steps_of(&call));
                if span.holds(call.tick) && span.holds(call.tick_end) {
                    wanted.extend(steps_of(&call));
                    kept += 1;
                } else if call.tick < from_ns {
                    before += 1;
                }
            }
            let cut = span.cut(&all);
            prop_assert_eq!(&all[cut.kept], &wanted[..]);
            prop_assert_eq!(cut.before + cut.behind + kept, steps.len() as u64);
            if kept > 0 {
                prop_assert_eq!(cut.before, before);
            }
            prop_assert_eq!(cut.ended, tick >= span.to_ns && !steps.is_empty());
        }
    }
}
