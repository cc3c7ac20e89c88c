//! The worker: a process of its own that performs one program on one allocator once and writes what it saw to a file.
//! Owns the order of things: what is mapped before the baseline, what is timed, when memory is looked at. What is
//! different with several threads is in `worker/threads.rs`.

mod threads;

use crate::error::ReplayError;
use crate::handles::{Handles, Held};
use crate::instructions::Instructions;
use crate::latency::Timed;
use crate::load::{self, Loaded, Upkeep};
use crate::null::Null;
use crate::program::{Facts, Point, Program};
use crate::region::Region;
use crate::reuse::{Counts, Reuse};
use crate::run::{Run, Slots, Stopped};
use crate::slot::Fault;
use crate::streams::Streams;
use crate::subject::Subject;
use crate::system::{Resident, Source, Usage, resident};
use crate::task::{
    CompactAt, Compaction, Lock, Memory, Outcome, Pace, Pages, Round, Task, Threads, Touched, Which,
};
use crate::touch::{All, Check, First, Nothing, Touch};
use crate::watch::{Usable, Watched};
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
            let opened = Opened::new(task, &task.program)?;
            let null = Null::new(opened.facts().largest_bytes)?;
            let none = Equipment {
                upkeep: None,
                usable: Usable::Unknown,
            };
            return touched(task, &opened, null, none, Outcome::default());
        }
        which => match load::load(which) {
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
    let equipment = |upkeep| Equipment {
        upkeep,
        usable: allocator.usable,
    };
    match allocator.loaded {
        Loaded::Functions(functions) => {
            let opened = Opened::new(task, &task.program)?;
            touched(task, &opened, functions, equipment(None), outcome)
        }
        Loaded::Handles(functions, upkeep) => {
            let held = match task.lock {
                // The program says the rest.
                Lock::Touched | Lock::Old(_) | Lock::Score | Lock::Accesses => Held::Touched,
                Lock::Life | Lock::Alloc(_) => Held::Born,
                Lock::Share(ppm) => {
                    Held::Share((u128::from(u64::MAX) * u128::from(ppm) / 1_000_000) as u64)
                }
            };
            let opened = Opened::new(task, task.locked.as_ref().unwrap_or(&task.program))?;
            touched(
                task,
                &opened,
                Handles::new(functions, held),
                equipment(Some(upkeep)),
                outcome,
            )
        }
    }
}

/// What is replayed.
enum Opened {
    One(Program),
    Real(Streams),
}

impl Opened {
    fn new(task: &Task, path: &Path) -> Result<Opened, ReplayError> {
        Ok(match task.threads {
            Threads::One => {
                let mut program = Program::open(path)?;
                if let Some(points) = task.points {
                    program.shorten(points);
                }
                Opened::One(program)
            }
            Threads::Real => Opened::Real(Streams::open(path)?),
        })
    }

    fn facts(&self) -> &Facts {
        match self {
            Opened::One(program) => program.facts(),
            Opened::Real(streams) => streams.facts(),
        }
    }
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
    opened: &Opened,
    subject: S,
    equipment: Equipment,
    outcome: Outcome,
) -> Result<Outcome, ReplayError> {
    let program = match opened {
        Opened::One(program) => program,
        Opened::Real(streams) => {
            return threads::touched(task, streams, subject, equipment.upkeep, outcome);
        }
    };
    match task.touched {
        Touched::None => watched(task, program, subject, Nothing, equipment, outcome),
        Touched::First => watched(task, program, subject, First::default(), equipment, outcome),
        Touched::All => watched(task, program, subject, All::default(), equipment, outcome),
        Touched::Check => {
            let check = Check::new(program.facts().slots as usize)?;
            watched(task, program, subject, check, equipment, outcome)
        }
    }
}

/// What an allocator offers beside blocks.
#[derive(Clone, Copy)]
struct Equipment {
    upkeep: Option<Upkeep>,
    usable: Usable,
}

/// Chooses the loop for what is watched meanwhile, and performs the round.
fn watched<S: Subject, T: Touch + Told>(
    task: &Task,
    program: &Program,
    subject: S,
    touch: T,
    equipment: Equipment,
    mut outcome: Outcome,
) -> Result<Outcome, ReplayError> {
    let facts = program.facts();
    match task.round {
        Round::Time | Round::Calls | Round::Setup => {
            let mut run = Run::new(program, subject, touch)?;
            trim();
            let done = match task.round {
                Round::Setup => run.setup(),
                Round::Calls => marked(&mut run, program, &mut outcome),
                _ => timed(&mut run, program, &mut outcome),
            };
            outcome.own = equipment
                .upkeep
                .and_then(|upkeep| upkeep.own)
                .map(|own| own());
            ended(&run, program, done, &mut outcome);
        }
        Round::Latency => {
            let (path, most) = match &task.durations {
                Some((path, most)) => (Some(path.as_path()), *most),
                None => (None, 0),
            };
            let touch = Timed::new(touch, S::LOCKS, facts.operations, most)?;
            let mut run = Run::new(program, subject, touch)?;
            trim();
            let done = run.setup().and_then(|()| {
                run.hand.touch.clear();
                run.ops(0..facts.op_words as usize)
            });
            outcome.points_differing = u64::from(run.hand.live_bytes != facts.end_live_bytes);
            let seen = run
                .hand
                .touch
                .seen(path)
                .map_err(|source| ReplayError::File {
                    path: path.unwrap_or(Path::new("/")).to_owned(),
                    source,
                })?;
            outcome.latency = Some(seen);
            ended(&run, program, done, &mut outcome);
        }
        Round::Memory(compact) => {
            let touch = Watched::new(touch, equipment.usable, facts.slots as usize)?;
            let mut run = Run::new(program, subject, touch)?;
            trim();
            let asked = compact.and_then(|at| Some((at, equipment.upkeep?)));
            let done = sampled(
                &mut run,
                facts,
                program.points(),
                asked,
                &mut outcome,
                task.pace,
            )?;
            outcome.own = equipment
                .upkeep
                .and_then(|upkeep| upkeep.own)
                .map(|own| own());
            ended(&run, program, done, &mut outcome);
        }
    }
    Ok(outcome)
}

/// What was freed before belongs to nobody: the C library's allocator must not begin with it.
fn trim() {
    // SAFETY: gives back free memory of the C library's allocator, and has no requirements.
    unsafe { libc::malloc_trim(0) };
}

/// Tells how a round ended.
fn ended<S: Subject, T: Touch + Told>(
    run: &Run<'_, S, T>,
    program: &Program,
    done: Result<(), Stopped>,
    outcome: &mut Outcome,
) {
    outcome.live_bytes = run.hand.live_bytes;
    if let Err(stopped) = done {
        let facts = program.facts();
        let at = format!("at operation {} of {}", stopped.word + 1, facts.op_words);
        outcome.fault = Some(tell(&run.slots, &run.hand.touch, stopped.fault, &at));
    }
    run.hand.touch.sum();
}

/// All operations between two marks.
fn marked<S: Subject, T: Touch>(
    run: &mut Run<'_, S, T>,
    program: &Program,
    outcome: &mut Outcome,
) -> Result<(), Stopped> {
    run.setup()?;
    crate::calls::mark(true);
    let done = run.ops(0..program.facts().op_words as usize);
    crate::calls::mark(false);
    outcome.points_differing = u64::from(run.hand.live_bytes != program.facts().end_live_bytes);
    done
}

fn timed<S: Subject, T: Touch>(
    run: &mut Run<'_, S, T>,
    program: &Program,
    outcome: &mut Outcome,
) -> Result<(), Stopped> {
    run.setup()?;
    let counter = Instructions::open();
    let counted = counter.as_ref().and_then(Instructions::read);
    let before = Usage::before();
    let done = run.ops(0..program.facts().op_words as usize);
    let usage = Usage::since(before);
    let now = counter.as_ref().and_then(Instructions::read);
    outcome.instructions = counted.and_then(|before| now?.checked_sub(before));
    outcome.wall_ns = usage.wall_ns;
    outcome.thread_cpu_ns = usage.thread_cpu_ns;
    outcome.cpu_ns = usage.cpu_ns;
    outcome.minor_faults = usage.minor_faults;
    outcome.major_faults = usage.major_faults;
    outcome.points_differing = u64::from(run.hand.live_bytes != program.facts().end_live_bytes);
    done
}

/// Words of a sample: resident bytes, those in huge pages, usable bytes of live blocks.
const SAMPLE_WORDS: usize = 3;
/// At so many points it is looked on which pages live blocks are.
const LOOKS: usize = 20;

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

    fn look(&mut self) -> Resident {
        let now = resident(self.source).unwrap_or_default();
        let own = Resident {
            bytes: now.bytes.saturating_sub(self.baseline.bytes),
            huge_bytes: now.huge_bytes.saturating_sub(self.baseline.huge_bytes),
        };
        if own.bytes > self.most.bytes {
            self.most = own;
        }
        own
    }
}

/// What goes through a program and stops on the way.
trait Walk {
    /// Why it can't go on.
    type Fault;

    /// Allocates what was inherited.
    fn setup(&mut self) -> Result<(), Self::Fault>;

    /// Goes on from `from` to `to`, as points and the peak have them.
    fn walk(&mut self, from: u64, to: u64) -> Result<(), Self::Fault>;

    /// Where the program ends.
    fn end(&self) -> u64;

    /// Sum of the sizes of live blocks.
    fn live_bytes(&self) -> u64;

    /// What is known of live blocks beside their sizes; in real threads nothing.
    fn watch(&self) -> Option<Watch> {
        None
    }

    /// Pages of 4 KiB that hold a byte of a live block, where blocks are watched.
    fn pages(&mut self) -> Option<u64> {
        None
    }
}

/// What watching the blocks tells.
#[derive(Clone, Copy)]
struct Watch {
    /// Bytes that live blocks may use, where the allocator tells.
    usable_bytes: Option<u64>,
    reuse: Counts,
}

impl<S: Subject, T: Touch> Walk for Run<'_, S, Watched<T>> {
    type Fault = Stopped;

    fn setup(&mut self) -> Result<(), Stopped> {
        let done = Run::setup(self);
        // What was inherited is in no order of the program's own.
        self.hand.touch.reuse = Reuse::default();
        done
    }

    fn walk(&mut self, from: u64, to: u64) -> Result<(), Stopped> {
        self.ops(from as usize..to as usize)
    }

    fn end(&self) -> u64 {
        self.facts().op_words
    }

    fn live_bytes(&self) -> u64 {
        self.hand.live_bytes
    }

    fn watch(&self) -> Option<Watch> {
        let touch = &self.hand.touch;
        Some(Watch {
            usable_bytes: touch.knows_usable().then_some(touch.usable_bytes),
            reuse: touch.reuse.counts,
        })
    }

    fn pages(&mut self) -> Option<u64> {
        Some(Run::pages(self))
    }
}

fn sampled<W: Walk>(
    run: &mut W,
    facts: &Facts,
    points: &[Point],
    upkeep: Option<(CompactAt, Upkeep)>,
    outcome: &mut Outcome,
    pace: Pace,
) -> Result<Result<(), W::Fault>, ReplayError> {
    let mut samples = Region::zeroed(points.len() * 8 * SAMPLE_WORDS, true)?;
    let source = match facts.peak_live_bytes <= PAGE_TABLES_BYTES_MAX {
        true => Source::PageTables,
        false => Source::Counters,
    };
    let mut look = Look::new(source)?;
    let mut seen = Seen::default();
    let mut clock = Clock::new(pace, facts.start_ns);
    let done = walk(
        run,
        (facts, points),
        &mut look,
        upkeep,
        &mut samples,
        &mut seen,
        &mut clock,
    );
    outcome.points_differing = seen.differing;
    let watch = run.watch();
    let knows = watch.is_some_and(|watch| watch.usable_bytes.is_some());
    let column = |number: usize| -> Vec<u64> {
        let rows = samples.words()[..points.len() * SAMPLE_WORDS].chunks_exact(SAMPLE_WORDS);
        rows.map(|row| row[number]).collect()
    };
    outcome.minor_faults = seen.faults;
    outcome.memory = Some(Memory {
        source: source.name().to_string(),
        resident_bytes: column(0),
        huge_bytes_at: column(1),
        usable_bytes: match knows {
            true => column(2),
            false => Vec::new(),
        },
        pages: seen.pages[..seen.looks].to_vec(),
        usable_at_peak_bytes: knows.then_some(seen.usable_at_peak_bytes),
        reuse: watch.map(|watch| watch.reuse).unwrap_or_default(),
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
    usable_at_peak_bytes: u64,
    end_bytes: u64,
    differing: u64,
    pages: [Pages; LOOKS],
    looks: usize,
    faults: u64,
    compaction: Option<(CompactAt, Compaction)>,
}

/// Bytes that live blocks may use, as far as is known.
fn usable<W: Walk>(run: &W) -> u64 {
    let known = run.watch().and_then(|watch| watch.usable_bytes);
    known.unwrap_or_default()
}

fn walk<W: Walk>(
    run: &mut W,
    (facts, all_points): (&Facts, &[Point]),
    look: &mut Look,
    upkeep: Option<(CompactAt, Upkeep)>,
    samples: &mut Region,
    seen: &mut Seen,
    clock: &mut Clock,
) -> Result<(), W::Fault> {
    run.setup()?;
    let before = Usage::before();
    let mut at = 0;
    let mut latest = look.look();
    let mut is_past_peak = false;
    let end = [(None, run.end())];
    let points = all_points.iter().enumerate();
    let stops = points
        .map(|(number, point)| (Some((number, point.live_bytes)), point.word))
        .chain(end);
    for (point, word) in stops {
        if !is_past_peak && facts.peak_word <= word {
            is_past_peak = true;
            run.walk(at, facts.peak_word)?;
            at = facts.peak_word;
            latest = look.look();
            seen.at_peak_bytes = latest.bytes;
            seen.usable_at_peak_bytes = usable(run);
            seen.differing += u64::from(run.live_bytes() != facts.peak_live_bytes);
            if let Some((CompactAt::Peak, upkeep)) = upkeep {
                seen.compaction = Some((CompactAt::Peak, compact(upkeep, look)));
                return Ok(());
            }
        }
        if word > at {
            run.walk(at, word)?;
            at = word;
            latest = look.look();
        }
        if let Some((number, live_bytes)) = point {
            if clock.wait_until(all_points[number].time_ns) {
                latest = look.look();
            }
            let sample = [latest.bytes, latest.huge_bytes, usable(run)];
            samples.words_mut()[number * SAMPLE_WORDS..][..SAMPLE_WORDS].copy_from_slice(&sample);
            if (number + 1) % (all_points.len() / LOOKS).max(1) == 0
                && seen.looks < LOOKS
                && let Some(used) = run.pages()
            {
                seen.pages[seen.looks] = Pages {
                    point: number,
                    used,
                    resident_bytes: latest.bytes,
                    live_bytes,
                };
                seen.looks += 1;
            }
            seen.differing += u64::from(run.live_bytes() != live_bytes);
        }
    }
    seen.faults = Usage::since(before).minor_faults;
    seen.end_bytes = latest.bytes;
    seen.differing += u64::from(run.live_bytes() != facts.end_live_bytes);
    if let Some((CompactAt::End, upkeep)) = upkeep {
        seen.compaction = Some((CompactAt::End, compact(upkeep, look)));
    }
    Ok(())
}

fn compact(upkeep: Upkeep, look: &mut Look) -> Compaction {
    // Room for the result, whatever its version.
    let mut result = [0u64; 512];
    let before_bytes = look.look().bytes;
    let before = Usage::before();
    // SAFETY: a budget of 0 has no end but that of the work; the result is larger than the structure.
    let status = unsafe { (upkeep.compact)(0, result.as_mut_ptr().cast()) };
    let usage = Usage::since(before);
    Compaction {
        before_bytes,
        after_bytes: look.look().bytes,
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

impl<T: Told> Told for Timed<T> {
    fn sum(&self) {
        self.inner().sum();
    }

    fn owner(&self, word: u64) -> Option<(usize, u64)> {
        self.inner().owner(word)
    }

    fn block(&self, slot: usize) -> Option<u64> {
        self.inner().block(slot)
    }
}

impl<T: Told> Told for Watched<T> {
    fn sum(&self) {
        self.inner().sum();
    }

    fn owner(&self, word: u64) -> Option<(usize, u64)> {
        self.inner().owner(word)
    }

    fn block(&self, slot: usize) -> Option<u64> {
        self.inner().block(slot)
    }
}

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

/// A fault in words; `at` says where it was.
fn tell<T: Touch + Told>(slots: &Slots, touch: &T, fault: Fault, at: &str) -> String {
    let name = |slot: usize| match touch.block(slot) {
        Some(number) => format!("block {number} of {} bytes", slots.bytes(slot)),
        None => format!("the block of {} bytes in slot {slot}", slots.bytes(slot)),
    };
    match fault {
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
            let owner = match touch.owner(found) {
                Some((other, number)) => {
                    let bytes = slots.bytes(other);
                    format!("block {number} of {bytes} bytes, which is live too: they overlap")
                }
                None => "something that no live block wrote".to_string(),
            };
            format!(
                "{} holds at byte {offset} {found:#018x}, {owner} ({at})",
                name(slot)
            )
        }
        Fault::Elsewhere => format!("it ended because of another thread {at}"),
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
