//! Phases between marks: what calls did from each mark to the next, and what became of the blocks
//! born there. Exact times, unlike those of [`crate::phases`].

use crate::fact::{Fact, Measure, Peaks, What};
use crate::outlive::Fate;
use crate::phases::Phase;
use crate::tally::{Amount, Held, Tally, reach};
use serde::Serialize;

/// Phases at most; marks after these begin none.
pub const PHASES_MAX: usize = 64;

/// The phases between marks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BetweenMarksReport {
    /// From the begin to the first mark (with an empty name), then from each mark to the next; none
    /// where there are no marks.
    pub phases: Vec<Phase>,
    /// Marks that began no phase because there were too many.
    pub marks_left_out: u64,
}

/// Counts from mark to mark. Every process is told every mark that concerns it, in time order with
/// its facts.
#[derive(Clone, Debug)]
pub struct BetweenMarks {
    /// Begin of the current phase.
    begin_ns: u64,
    /// Its calls.
    now: Tally,
    /// Born and ended in it.
    own: Amount,
    /// All phases, the current one last: it lacks `now` and `own`.
    phases: Vec<Stretch>,
    held: Held,
    marks_left_out: u64,
}

/// A phase.
#[derive(Clone, Debug, Default)]
struct Stretch {
    from_ns: u64,
    name: String,
    tally: Tally,
    /// Blocks that ended in it, by the phase they were born in, as far as there are any.
    ended: Vec<Amount>,
    /// Blocks born in it that were not freed.
    kept: Amount,
}

impl BetweenMarks {
    /// Of a process that begins at `start_ns`; of the run, with 0.
    pub fn new(start_ns: u64) -> BetweenMarks {
        BetweenMarks {
            begin_ns: start_ns,
            now: Tally::default(),
            own: Amount::default(),
            phases: vec![Stretch {
                from_ns: start_ns,
                ..Stretch::default()
            }],
            held: Held::default(),
            marks_left_out: 0,
        }
    }

    /// A mark was set: a phase begins.
    pub fn mark(&mut self, time_ns: u64, name: &str) {
        if self.phases.len() >= PHASES_MAX {
            self.marks_left_out = self.marks_left_out.saturating_add(1);
            return;
        }
        self.close();
        self.begin_ns = self.begin_ns.max(time_ns);
        self.phases.push(Stretch {
            from_ns: self.begin_ns,
            name: name.to_string(),
            ..Stretch::default()
        });
    }

    fn close(&mut self) {
        let current = self.phases.len().saturating_sub(1);
        let (now, own) = (std::mem::take(&mut self.now), std::mem::take(&mut self.own));
        if let Some(stretch) = self.phases.get_mut(current) {
            stretch.tally.add(&now);
            stretch.end(current, own);
        }
    }

    /// The phase of a moment; of phases without time the last one.
    fn phase(&self, at_ns: u64) -> usize {
        let begun = self.phases.partition_point(|phase| phase.from_ns <= at_ns);
        begun.saturating_sub(1)
    }

    /// Adds the calls and blocks of another process. The one added to has been told of all marks of
    /// the one that is added.
    pub fn merge(&mut self, other: &BetweenMarks) {
        let mut other = other.clone();
        other.close();
        let places = other.phases.iter().map(|phase| self.phase(phase.from_ns));
        let places: Vec<usize> = places.collect();
        for (from, &place) in other.phases.iter().zip(&places) {
            let Some(to) = self.phases.get_mut(place) else {
                continue;
            };
            to.tally.add(&from.tally);
            to.kept.add(from.kept);
            for (amount, born) in from.ended.iter().zip(&places) {
                to.end(*born, *amount);
            }
        }
        if let Some(released) = self.held.take(other.held) {
            self.release(&released);
        }
        self.marks_left_out = self.marks_left_out.max(other.marks_left_out);
    }

    fn release(&mut self, held: &Held) {
        let place = self.phase(held.at_ns);
        if let Some(phase) = self.phases.get_mut(place) {
            phase.tally.add(&held.released());
        }
    }

    /// The phases up to `end_ns`. What is held then is not released.
    pub fn report(&self, end_ns: u64) -> BetweenMarksReport {
        let mut all = self.clone();
        all.close();
        if all.held.at_ns < end_ns {
            let held = all.held;
            all.release(&held);
        }
        let mut report = BetweenMarksReport {
            phases: Vec::new(),
            marks_left_out: all.marks_left_out,
        };
        if all.phases.len() < 2 {
            return report;
        }
        let mut live = Amount::default();
        for (n, stretch) in all.phases.iter().enumerate() {
            live = stretch.tally.after(live);
            let end_ns = end_ns.max(stretch.from_ns);
            let ended = all.phases.iter().skip(n);
            let mut phase = Phase {
                name: stretch.name.clone(),
                from_ns: stretch.from_ns,
                to_ns: all.phases.get(n + 1).map_or(end_ns, |next| next.from_ns),
                tally: stretch.tally,
                live_blocks: live.blocks,
                live_bytes: live.bytes,
                ..Phase::default()
            };
            phase.set_fate(Fate {
                ended: ended
                    .map(|later| later.ended.get(n).copied().unwrap_or_default())
                    .collect(),
                kept: stretch.kept,
            });
            report.phases.push(phase);
        }
        report
    }

    #[inline]
    fn ended(&mut self, fact: &Fact) {
        match fact.born_ns() >= self.begin_ns {
            true => self.own.count(fact.bytes),
            false => self.ended_later(fact),
        }
    }

    /// The end of a block born in an earlier phase; finding it among at most 64 takes six steps.
    #[inline(never)]
    fn ended_later(&mut self, fact: &Fact) {
        let born = self.phase(fact.born_ns());
        let (blocks, bytes) = (1, fact.bytes);
        if let Some(current) = self.phases.last_mut() {
            current.end(born, Amount { blocks, bytes });
        }
    }

    #[cold]
    fn kept(&mut self, fact: &Fact) {
        let born = self.phase(fact.born_ns());
        if let Some(phase) = self.phases.get_mut(born) {
            phase.kept.count(fact.bytes);
        }
        let (blocks, bytes, at_ns) = (1, fact.bytes, fact.time_ns);
        let what = Amount { blocks, bytes };
        if let Some(released) = self.held.take(Held { at_ns, what }) {
            self.release(&released);
        }
    }
}

impl Stretch {
    /// Blocks born in phase `born`, less than [`PHASES_MAX`], ended.
    fn end(&mut self, born: usize, amount: Amount) {
        reach(&mut self.ended, born.min(PHASES_MAX - 1)).add(amount);
    }
}

impl Measure for BetweenMarks {
    /// Some 9 instructions a fact (callgrind, a browser's trace without marks): two additions within
    /// 88 bytes that every call touches, for an end a compare and two more. The end of a block from
    /// before the last mark looks for its phase as well.
    #[inline]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        if fact.is_inherited() {
            return;
        }
        self.now.count(fact);
        match fact.what {
            What::Freed | What::Displaced => self.ended(fact),
            What::Kept => self.kept(fact),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample::{Stream, streams};
    use proptest::collection::vec;
    use proptest::prelude::*;

    type Marks = Vec<(u64, String)>;

    /// A process whose facts come `later_ns` later, told of the marks from its begin on.
    fn measured(stream: &Stream, later_ns: u64, marks: &Marks) -> BetweenMarks {
        let mut measure = BetweenMarks::new(later_ns);
        let mut marks = marks.iter().filter(|(at, _)| *at > later_ns).peekable();
        for (fact, peaks) in &stream.told {
            let time_ns = fact.time_ns + later_ns;
            while let Some((at, name)) = marks.next_if(|(at, _)| *at <= time_ns) {
                measure.mark(*at, name);
            }
            measure.fact(&Fact { time_ns, ..*fact }, *peaks);
        }
        marks
            .filter(|(at, _)| *at <= stream.end_ns + later_ns)
            .for_each(|(at, name)| measure.mark(*at, name));
        measure
    }

    /// The definition: phases by time; of each block, when it was born and when it ended.
    fn slowly(streams: &[(&Stream, u64)], start_ns: u64, marks: &Marks, end_ns: u64) -> Vec<Phase> {
        let mut begins = vec![(start_ns, String::new())];
        begins.extend(marks.iter().filter(|(at, _)| *at > start_ns).cloned());
        if begins.len() == 1 {
            return Vec::new();
        }
        let mut phases = Vec::new();
        for (n, (from_ns, name)) in begins.iter().enumerate() {
            let to_ns = begins.get(n + 1).map_or(u64::MAX, |(at, _)| *at);
            let within = |at_ns: u64| (*from_ns..to_ns).contains(&at_ns);
            let mut phase = Phase {
                name: name.clone(),
                from_ns: *from_ns,
                to_ns: to_ns.min(end_ns),
                ended: vec![Amount::default(); begins.len() - n],
                ..Phase::default()
            };
            for (stream, later_ns) in streams {
                let mut changes = Vec::new();
                for (fact, _) in &stream.told {
                    let at_ns = fact.time_ns + later_ns;
                    let is_release = fact.what == What::Kept && at_ns != end_ns;
                    if fact.changes_live() || is_release {
                        changes.push((at_ns, fact));
                    }
                }
                for (_, fact) in changes.iter().filter(|(at_ns, _)| within(*at_ns)) {
                    let tally = &mut phase.tally;
                    match fact.what {
                        What::Born => tally.allocations += 1,
                        What::Resized => tally.reallocs += 1,
                        What::Kept => tally.blocks_released += 1,
                        _ => tally.frees += 1,
                    }
                    match fact.what {
                        What::Kept => tally.bytes_released += fact.bytes,
                        What::Freed | What::Displaced => tally.bytes_freed += fact.bytes,
                        _ if fact.bytes > fact.old_bytes => {
                            tally.bytes_allocated += fact.bytes - fact.old_bytes;
                        }
                        _ => tally.bytes_freed += fact.old_bytes - fact.bytes,
                    }
                }
                for (_, fact) in changes.iter().filter(|(at_ns, _)| *at_ns < to_ns) {
                    match fact.what {
                        What::Born => phase.live_blocks += 1,
                        What::Resized => {}
                        _ => phase.live_blocks -= 1,
                    }
                    match fact.what {
                        What::Born | What::Resized => {
                            phase.live_bytes = phase.live_bytes + fact.bytes - fact.old_bytes;
                        }
                        _ => phase.live_bytes -= fact.bytes,
                    }
                }
                for history in stream.histories() {
                    let (birth, _) = stream.told[history[0]];
                    let (end, _) = stream.told[history[history.len() - 1]];
                    if !within(birth.time_ns + later_ns) {
                        continue;
                    }
                    if end.what == What::Kept {
                        phase.kept.count(end.bytes);
                    } else {
                        let at_ns = end.time_ns + later_ns;
                        let begun = begins.iter().filter(|(begin, _)| *begin <= at_ns);
                        phase.ended[begun.count() - 1 - n].count(end.bytes);
                    }
                    if end.what == What::Kept || end.time_ns + later_ns >= to_ns {
                        phase.outlived.count(end.bytes);
                    }
                }
            }
            phases.push(phase);
        }
        phases
    }

    proptest! {
        /// Calls and blocks are in the phases of their times, in a process and in two together.
        #[test]
        fn phases_between_marks_hold_what_happened_between_them(
            a in streams(150),
            b in streams(150),
            later_ns in prop_oneof![0u64..3_000, 0u64..20_000_000_000],
            places in vec((any::<prop::sample::Index>(), 0u64..3, any::<bool>()), 0..8),
        ) {
            let end_ns = a.end_ns.max(b.end_ns + later_ns);
            // Marks at the very times of facts and beside them.
            let mut times: Vec<u64> = places
                .iter()
                .filter_map(|(index, beside, of_a)| {
                    let (told, later_ns) = if *of_a { (&a.told, 0) } else { (&b.told, later_ns) };
                    let (fact, _) = (!told.is_empty()).then(|| index.get(told))?;
                    Some(fact.time_ns + later_ns + beside)
                })
                .filter(|at| (1..=end_ns).contains(at))
                .collect();
            times.sort_unstable();
            times.dedup();
            let marks: Marks = times.iter().map(|at| (*at, format!("at {at}"))).collect();
            let of = |end_ns: u64| -> Marks {
                marks.iter().filter(|(at, _)| *at <= end_ns).cloned().collect()
            };
            let one = measured(&a, 0, &marks);
            let by_hand = slowly(&[(&a, 0)], 0, &of(a.end_ns), a.end_ns);
            prop_assert_eq!(one.report(a.end_ns).phases, by_hand);
            let other = measured(&b, later_ns, &marks);
            let last_ns = b.end_ns + later_ns;
            let by_hand = slowly(&[(&b, later_ns)], later_ns, &of(last_ns), last_ns);
            prop_assert_eq!(other.report(last_ns).phases, by_hand);
            let mut run = BetweenMarks::new(0);
            marks.iter().for_each(|(at, name)| run.mark(*at, name));
            run.merge(&one);
            run.merge(&other);
            let by_hand = slowly(&[(&a, 0), (&b, later_ns)], 0, &marks, end_ns);
            prop_assert_eq!(run.report(end_ns).phases, by_hand);
        }
    }

    #[test]
    fn marks_beyond_the_most_are_counted() {
        let mut measure = BetweenMarks::new(5);
        let mut fact = Fact {
            what: What::Born,
            bytes: 3,
            ..Fact::default()
        };
        for at in 0..100 {
            measure.mark(at, "again");
            fact.time_ns = at;
            measure.fact(&fact, Peaks::default());
        }
        fact.what = What::Freed;
        fact.life_ns = u64::MAX;
        measure.fact(&fact, Peaks::default());
        let report = measure.report(0);
        assert_eq!(report.phases.len(), PHASES_MAX);
        assert_eq!(report.marks_left_out, 100 - 63);
        assert_eq!(report.phases[63].tally.allocations, 38);
        assert_eq!(report.phases[0].ended[63].blocks, 1);
        assert!(BetweenMarks::new(0).report(9).phases.is_empty());
    }
}
