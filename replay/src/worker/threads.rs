//! Rounds of a replay in real threads: what is timed and compared. `team.rs` has the threads.

use super::{CompactAt, Outcome, Round, Task, Told, Touched, Upkeep, Walk, sampled, tell};
use crate::error::ReplayError;
use crate::streams::Streams;
use crate::subject::Subject;
use crate::system::Usage;
use crate::task::Waits;
use crate::team::{Team, Trouble};
use crate::touch::{All, Check, First, Nothing, Seated, Touch};

/// Chooses the loop for how blocks are touched.
pub(super) fn touched<S: Subject>(
    task: &Task,
    streams: &Streams,
    subject: S,
    upkeep: Option<Upkeep>,
    outcome: Outcome,
) -> Result<Outcome, ReplayError> {
    match task.touched {
        Touched::None => round(task, streams, subject, Nothing, upkeep, outcome),
        Touched::First => round(task, streams, subject, First::default(), upkeep, outcome),
        Touched::All => round(task, streams, subject, All::default(), upkeep, outcome),
        Touched::Check => {
            let check = Check::new(streams.facts().slots as usize)?;
            round(task, streams, subject, check, upkeep, outcome)
        }
    }
}

fn round<S: Subject, T: Touch + Seated + Told>(
    task: &Task,
    streams: &Streams,
    subject: S,
    touch: T,
    upkeep: Option<Upkeep>,
    mut outcome: Outcome,
) -> Result<Outcome, ReplayError> {
    let meets_often = matches!(task.round, Round::Memory(_));
    let team = Team::new(streams, subject, touch, meets_often)?;
    let mut walked = Walked {
        team,
        meetings: 0,
        differing: 0,
    };
    // As in one thread: the C library's allocator must not begin with what was freed before.
    // SAFETY: gives back free memory of the C library's allocator, and has no requirements.
    unsafe { libc::malloc_trim(0) };
    let done = match task.round {
        // The parent asks for no others in real threads.
        Round::Time | Round::Latency | Round::Calls | Round::Setup => {
            let done = timed(&mut walked, &mut outcome);
            outcome.own = upkeep.and_then(|upkeep| upkeep.own).map(|own| own());
            done
        }
        Round::Memory(compact) => {
            let asked: Option<(CompactAt, Upkeep)> = compact.and_then(|at| Some((at, upkeep?)));
            let (facts, points) = (streams.facts(), streams.points());
            sampled(&mut walked, facts, points, asked, &mut outcome, task.pace)?
        }
    };
    let team = &walked.team;
    outcome.points_differing += walked.differing;
    outcome.live_bytes = team.live_bytes();
    let times = team.times();
    outcome.waits = Some(Waits {
        meetings: walked.meetings,
        waits: times.tally.waits,
        sleeps: times.tally.sleeps,
        wall_ns: times.tally.wait_ns,
        cpu_ns: times.other_cpu_ns,
        excess_bytes: times.tally.excess_bytes,
    });
    match done {
        Ok(()) => {}
        Err(Trouble::Start(error)) => {
            return Err(ReplayError::Threads {
                threads: streams.shape().together,
                source: error,
            });
        }
        Err(Trouble::Fault {
            thread,
            seat,
            stopped,
        }) => {
            // The words of a thread lie apart: which of its own it was says little.
            let at = match seat {
                usize::MAX => "before the first operation".to_string(),
                _ => format!("in thread {thread}, word {} of all", stopped.word + 1),
            };
            let touch = team.touch(seat);
            outcome.fault = Some(tell(&team.slots, touch, stopped.fault, &at));
        }
    }
    for seat in 0..streams.shape().together as usize {
        team.touch(seat).sum();
    }
    Ok(outcome)
}

/// Streams on their way, compared at every meeting.
struct Walked<'a, S, T> {
    team: Team<'a, S, T>,
    meetings: u64,
    differing: u64,
}

impl<S: Subject, T: Touch + Seated> Walked<'_, S, T> {
    /// Until the next meeting; how many operations of the merged order are done then, nothing at the end.
    fn step(&mut self) -> Result<Option<u64>, Trouble> {
        let Some(step) = self.team.step()? else {
            return Ok(None);
        };
        self.meetings += 1;
        self.differing += u64::from(self.team.live_bytes() != step.live_bytes);
        Ok(Some(step.end))
    }
}

impl<S: Subject, T: Touch + Seated> Walk for Walked<'_, S, T> {
    type Fault = Trouble;

    fn setup(&mut self) -> Result<(), Trouble> {
        self.team.setup()
    }

    fn walk(&mut self, from: u64, to: u64) -> Result<(), Trouble> {
        let mut at = from;
        while at < to {
            match self.step()? {
                Some(end) => at = end,
                None => break,
            }
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        let facts = self.team.facts();
        facts.operations + facts.unlocks + facts.locks
    }

    fn live_bytes(&self) -> u64 {
        self.team.live_bytes()
    }
}

fn timed<S: Subject, T: Touch + Seated>(
    walked: &mut Walked<'_, S, T>,
    outcome: &mut Outcome,
) -> Result<(), Trouble> {
    walked.setup()?;
    let before = Usage::before();
    let mut done = Ok(());
    loop {
        match walked.step() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(trouble) => {
                done = Err(trouble);
                break;
            }
        }
    }
    let usage = Usage::since(before);
    let times = walked.team.times();
    outcome.wall_ns = usage.wall_ns;
    outcome.thread_cpu_ns = times.cpu_ns;
    // Neither who leads nor who waits does an operation; an allocator's own threads and a thread's exit count.
    let others = usage.thread_cpu_ns + times.other_cpu_ns;
    outcome.cpu_ns = usage.cpu_ns.saturating_sub(others);
    outcome.minor_faults = usage.minor_faults;
    outcome.major_faults = usage.major_faults;
    done
}
