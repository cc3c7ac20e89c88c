//! The worker: a process of its own that performs one program on one allocator once and writes what it saw to a file.
//! Owns the order of things: what is mapped before the baseline, what is timed, when memory is looked at.

use crate::error::ReplayError;
use crate::handles::{Handles, Held};
use crate::load::{self, Loaded, Upkeep};
use crate::null::Null;
use crate::program::{Facts, Program};
use crate::region::Region;
use crate::run::{Run, Stopped};
use crate::slot::Fault;
use crate::subject::Subject;
use crate::system::{Resident, Source, Usage, resident};
use crate::task::{
    CompactAt, Compaction, Lock, Memory, Outcome, Pace, Round, Task, Touched, Which,
};
use crate::touch::{All, Check, First, Nothing, Touch};
use std::path::Path;
use std::time::{Duration, Instant};

/// Up to so many live bytes resident memory is read from the page tables: above, that takes too long and the
/// error of the counters is too small to matter.
const PAGE_TABLES_BYTES_MAX: u64 = 1 << 30;

/// Runs a worker: `argument` is a [`Task`] as JSON. Whatever it found is in the outcome.
///
/// # Errors
/// When there is nothing to write an outcome to.
pub fn main(argument: &str) -> Result<(), ReplayError> {
    let task: Task = serde_json::from_str(argument)
        .map_err(|error| ReplayError::Option(format!("not a task: {error}")))?;
    let outcome = perform(&task).unwrap_or_else(|error| Outcome {
        fault: Some(error.to_string()),
        ..Outcome::default()
    });
    write(&task.outcome, &outcome)
}

fn write(path: &Path, outcome: &Outcome) -> Result<(), ReplayError> {
    let of_file = |source| ReplayError::File {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec(outcome).map_err(|error| of_file(error.into()))?;
    std::fs::write(path, text).map_err(of_file)
}

fn perform(task: &Task) -> Result<Outcome, ReplayError> {
    let before = resident(Source::PageTables).unwrap_or_default().bytes;
    let allocator = match &task.which {
        Which::Null => {
            let program = Program::open(&task.program)?;
            let null = Null::new(program.facts().largest_bytes)?;
            return touched(task, &program, null, None, Outcome::default());
        }
        Which::System => load::system(),
        Which::Rmalloc => match linked() {
            Some(allocator) => allocator,
            None => return Ok(failed_to_load("this rmtrace was built without it".into())),
        },
        Which::Library { name, preloaded } => match load::library(name, *preloaded) {
            Ok(allocator) => allocator,
            Err(why) => return Ok(failed_to_load(why)),
        },
    };
    let after = resident(Source::PageTables).unwrap_or_default().bytes;
    let outcome = Outcome {
        version: allocator.version,
        file: allocator.file,
        loading_bytes: after.saturating_sub(before),
        ..Outcome::default()
    };
    match allocator.loaded {
        Loaded::Functions(functions) => {
            let program = Program::open(&task.program)?;
            touched(task, &program, functions, None, outcome)
        }
        Loaded::Handles(functions, upkeep) => {
            let held = match task.lock {
                Lock::Touched => Held::Touched,
                Lock::Life | Lock::Alloc(_) => Held::Born,
                Lock::Share(ppm) => {
                    Held::Share((u128::from(u64::MAX) * u128::from(ppm) / 1_000_000) as u64)
                }
            };
            let program = Program::open(task.locked.as_ref().unwrap_or(&task.program))?;
            touched(
                task,
                &program,
                Handles::new(functions, held),
                Some(upkeep),
                outcome,
            )
        }
    }
}

/// The rmalloc that is linked in, if it is.
fn linked() -> Option<load::Allocator> {
    #[cfg(feature = "rmalloc")]
    return crate::linked::linked();
    #[cfg(not(feature = "rmalloc"))]
    None
}

fn failed_to_load(why: String) -> Outcome {
    Outcome {
        load_error: Some(why),
        ..Outcome::default()
    }
}

/// Chooses the loop for how blocks are touched.
fn touched<S: Subject>(
    task: &Task,
    program: &Program,
    subject: S,
    upkeep: Option<Upkeep>,
    outcome: Outcome,
) -> Result<Outcome, ReplayError> {
    match task.touched {
        Touched::None => round(
            task,
            Run::new(program, subject, Nothing)?,
            program,
            upkeep,
            outcome,
        ),
        Touched::First => round(
            task,
            Run::new(program, subject, First::default())?,
            program,
            upkeep,
            outcome,
        ),
        Touched::All => round(
            task,
            Run::new(program, subject, All::default())?,
            program,
            upkeep,
            outcome,
        ),
        Touched::Check => {
            let check = Check::new(program.facts().slots as usize)?;
            round(
                task,
                Run::new(program, subject, check)?,
                program,
                upkeep,
                outcome,
            )
        }
    }
}

fn round<S: Subject, T: Touch + Told>(
    task: &Task,
    mut run: Run<'_, S, T>,
    program: &Program,
    upkeep: Option<Upkeep>,
    mut outcome: Outcome,
) -> Result<Outcome, ReplayError> {
    // What was freed before belongs to nobody: the C library's allocator must not begin with it.
    // SAFETY: gives back free memory of the C library's allocator, and has no requirements.
    unsafe { libc::malloc_trim(0) };
    let done = match task.round {
        Round::Time => {
            let done = timed(&mut run, program, &mut outcome);
            outcome.own = upkeep.and_then(|upkeep| upkeep.own).map(|own| own());
            done
        }
        Round::Memory(compact) => {
            let asked = compact.and_then(|at| Some((at, upkeep?)));
            sampled(&mut run, program, asked, &mut outcome, task.pace)?
        }
    };
    outcome.live_bytes = run.live_bytes;
    if let Err(stopped) = done {
        outcome.fault = Some(tell(&run, program, stopped));
    }
    run.touch.sum();
    Ok(outcome)
}

fn timed<S: Subject, T: Touch>(
    run: &mut Run<'_, S, T>,
    program: &Program,
    outcome: &mut Outcome,
) -> Result<(), Stopped> {
    run.setup()?;
    let before = Usage::before();
    let done = run.ops(0..program.facts().op_words as usize);
    let usage = Usage::since(before);
    outcome.wall_ns = usage.wall_ns;
    outcome.thread_cpu_ns = usage.thread_cpu_ns;
    outcome.cpu_ns = usage.cpu_ns;
    outcome.minor_faults = usage.minor_faults;
    outcome.major_faults = usage.major_faults;
    outcome.points_differing = u64::from(run.live_bytes != program.facts().end_live_bytes);
    done
}

/// Looks at resident memory, without what was there before.
struct Look {
    source: Source,
    baseline: Resident,
    most: Resident,
}

impl Look {
    fn new(source: Source) -> Result<Look, ReplayError> {
        let baseline = resident(source).ok_or_else(|| {
            let name = source.name();
            ReplayError::Option(format!(
                "/proc/self/{name} does not tell resident memory: /proc is not there, or Linux is older than 5.9"
            ))
        })?;
        Ok(Look {
            source,
            baseline,
            most: Resident::default(),
        })
    }

    fn look(&mut self) -> u64 {
        let now = resident(self.source).unwrap_or_default();
        let own = Resident {
            bytes: now.bytes.saturating_sub(self.baseline.bytes),
            huge_bytes: now.huge_bytes.saturating_sub(self.baseline.huge_bytes),
        };
        if own.bytes > self.most.bytes {
            self.most = own;
        }
        own.bytes
    }
}

fn sampled<S: Subject, T: Touch>(
    run: &mut Run<'_, S, T>,
    program: &Program,
    upkeep: Option<(CompactAt, Upkeep)>,
    outcome: &mut Outcome,
    pace: Pace,
) -> Result<Result<(), Stopped>, ReplayError> {
    let facts = program.facts();
    let points = program.points();
    let mut samples = Region::zeroed(points.len() * 8, true)?;
    let source = match facts.peak_live_bytes <= PAGE_TABLES_BYTES_MAX {
        true => Source::PageTables,
        false => Source::Counters,
    };
    let mut look = Look::new(source)?;
    let mut seen = Seen::default();
    let mut clock = Clock::new(pace, program.facts().start_ns);
    let done = walk(
        run,
        program,
        &mut look,
        upkeep,
        &mut samples,
        &mut seen,
        &mut clock,
    );
    outcome.points_differing = seen.differing;
    outcome.memory = Some(Memory {
        source: source.name().to_string(),
        resident_bytes: samples.words()[..points.len()].to_vec(),
        at_peak_bytes: seen.at_peak_bytes,
        peak_bytes: look.most.bytes,
        huge_bytes: look.most.huge_bytes,
        end_bytes: seen.end_bytes,
        compaction: seen.compaction.map(|(at, compaction)| {
            let is_end = at == CompactAt::End;
            let of = |end: u64, peak: u64| if is_end { end } else { peak };
            Compaction {
                at: if is_end { "end" } else { "peak" }.to_string(),
                live_bytes: of(facts.end_live_bytes, facts.peak_live_bytes),
                live_rounded_bytes: of(facts.end_live_rounded_bytes, facts.peak_live_rounded_bytes),
                live_blocks: of(facts.end_live_blocks, facts.peak_live_blocks),
                ..compaction
            }
        }),
    });
    Ok(done)
}

/// Keeps a memory round from running ahead of recorded time.
struct Clock {
    pace: Pace,
    /// Recorded time at `begun`.
    start_ns: u64,
    begun: Instant,
}

impl Clock {
    fn new(pace: Pace, start_ns: u64) -> Clock {
        Clock {
            pace,
            start_ns,
            begun: Instant::now(),
        }
    }

    /// Sleeps until that moment of recorded time; true: it did.
    fn wait_until(&self, time_ns: u64) -> bool {
        if self.pace == Pace::Flat {
            return false;
        }
        let due = Duration::from_nanos(time_ns.saturating_sub(self.start_ns));
        match due.checked_sub(self.begun.elapsed()) {
            Some(early) => {
                std::thread::sleep(early);
                true
            }
            None => false,
        }
    }
}

/// What was seen on the way. Holds nothing that is allocated.
#[derive(Default)]
struct Seen {
    at_peak_bytes: u64,
    end_bytes: u64,
    differing: u64,
    compaction: Option<(CompactAt, Compaction)>,
}

fn walk<S: Subject, T: Touch>(
    run: &mut Run<'_, S, T>,
    program: &Program,
    look: &mut Look,
    upkeep: Option<(CompactAt, Upkeep)>,
    samples: &mut Region,
    seen: &mut Seen,
    clock: &mut Clock,
) -> Result<(), Stopped> {
    let facts = program.facts();
    run.setup()?;
    let mut at = 0;
    let mut latest = look.look();
    let mut is_past_peak = false;
    let end = [(None, facts.op_words)];
    let points_ns = program.points();
    let points = program.points().iter().enumerate();
    let stops = points
        .map(|(number, point)| (Some((number, point.live_bytes)), point.word))
        .chain(end);
    for (point, word) in stops {
        if !is_past_peak && facts.peak_word <= word {
            is_past_peak = true;
            run.ops(at..facts.peak_word as usize)?;
            at = facts.peak_word as usize;
            seen.at_peak_bytes = look.look();
            latest = seen.at_peak_bytes;
            seen.differing += u64::from(run.live_bytes != facts.peak_live_bytes);
            if let Some((CompactAt::Peak, upkeep)) = upkeep {
                seen.compaction = Some((CompactAt::Peak, compact(upkeep, look)));
                return Ok(());
            }
        }
        if word as usize > at {
            run.ops(at..word as usize)?;
            at = word as usize;
            latest = look.look();
        }
        if let Some((number, live_bytes)) = point {
            if clock.wait_until(points_ns[number].time_ns) {
                latest = look.look();
            }
            samples.words_mut()[number] = latest;
            seen.differing += u64::from(run.live_bytes != live_bytes);
        }
    }
    seen.end_bytes = latest;
    seen.differing += u64::from(run.live_bytes != facts.end_live_bytes);
    if let Some((CompactAt::End, upkeep)) = upkeep {
        seen.compaction = Some((CompactAt::End, compact(upkeep, look)));
    }
    Ok(())
}

fn compact(upkeep: Upkeep, look: &mut Look) -> Compaction {
    // Room for the result, whatever its version.
    let mut result = [0u64; 512];
    let before_bytes = look.look();
    let before = Usage::before();
    // SAFETY: a budget of 0 has no end but that of the work; the result is larger than the structure.
    let status = unsafe { (upkeep.compact)(0, result.as_mut_ptr().cast()) };
    let usage = Usage::since(before);
    Compaction {
        before_bytes,
        after_bytes: look.look(),
        wall_ns: usage.wall_ns,
        cpu_ns: usage.thread_cpu_ns,
        status,
        own: upkeep.own.map(|own| own()),
        ..Compaction::default()
    }
}

/// What a way of touching tells after a replay.
trait Told {
    /// Makes sure that what was read was read.
    fn sum(&self) {}

    /// Who owns a word that was found, and the number of the block in a slot.
    fn owner(&self, word: u64) -> Option<(usize, u64)> {
        let _ = word;
        None
    }

    /// The number of the block in a slot, if it is known.
    fn block(&self, slot: usize) -> Option<u64> {
        let _ = slot;
        None
    }
}

impl Told for Nothing {}

impl Told for First {
    fn sum(&self) {
        std::hint::black_box(self.sum);
    }
}

impl Told for All {
    fn sum(&self) {
        std::hint::black_box(self.sum);
    }
}

impl Told for Check {
    fn owner(&self, word: u64) -> Option<(usize, u64)> {
        Check::owner(self, word)
    }

    fn block(&self, slot: usize) -> Option<u64> {
        Some(self.number(slot))
    }
}

/// A fault in words.
fn tell<S: Subject, T: Touch + Told>(
    run: &Run<'_, S, T>,
    program: &Program,
    stopped: Stopped,
) -> String {
    let facts: &Facts = program.facts();
    let at = format!("at operation {} of {}", stopped.word + 1, facts.op_words);
    let name = |slot: usize| match run.touch.block(slot) {
        Some(number) => format!("block {number} of {} bytes", run.bytes(slot)),
        None => format!("the block of {} bytes in slot {slot}", run.bytes(slot)),
    };
    match stopped.fault {
        Fault::Refused { bytes, status: 0 } => format!("it refused {bytes} bytes {at}"),
        Fault::Refused { bytes, status } => {
            format!("it refused {bytes} bytes with status {status} {at}")
        }
        Fault::Failed {
            function,
            slot,
            status,
        } => format!("{function} of {} returned {status} {at}", name(slot)),
        Fault::Misaligned { address, alignment } => {
            format!("a block aligned to {alignment} was put at {address:#x} {at}")
        }
        Fault::Contents {
            slot,
            offset,
            found,
        } => {
            let owner = match run.touch.owner(found) {
                Some((other, number)) => {
                    let bytes = run.bytes(other);
                    format!("block {number} of {bytes} bytes, which is live too: they overlap")
                }
                None => "something that no live block wrote".to_string(),
            };
            format!(
                "{} holds at byte {offset} {found:#018x}, {owner} ({at})",
                name(slot)
            )
        }
        Fault::NotZero {
            slot,
            offset,
            found,
        } => format!(
            "zeroed memory, {}, holds {found:#018x} at byte {offset} ({at})",
            name(slot)
        ),
    }
}
