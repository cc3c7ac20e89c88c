//! Replays a program on several allocators: which worker runs when, and what follows from the outcomes. A worker
//! is a process for one allocator and one round; rounds alternate between allocators, so that what else
//! happens on the machine falls on all of them.

use crate::callgrind::{self, Counted};
use crate::calls;
use crate::distribution::{clock, latency, ns_per_tick};
use crate::durations::{DURATIONS_MAX, TimeScores, fold, rank};
use crate::environment;
use crate::error::ReplayError;
use crate::figure::{Figure, Ratio, median};
use crate::fragmentation::{internal, johnstone_wilson, pages};
use crate::latency::Latency;
use crate::process::{self, last_lines};
use crate::program::{Facts, Point, Program};
use crate::report::{
    AllocatorReport, AllocatorScores, CallgrindFunction, CallgrindReport, CompactionReport,
    EXCESS_SHARE_MAX, Fidelity, LiveBytes, Machine, MemoryReport, Missing, OVERHEAD_BYTES,
    RecordedReuse, Replayer, Report, ResidentFidelity, ReuseReport, SCHEMA, Series, Settings,
    Together, Trace, Waiting,
};
use crate::scores::Ranks;
use crate::spec::Spec;
use crate::streams::{Shape, Streams};
use crate::task::{
    CompactAt, Lock, Memory, Outcome, Pace, Round, Task, Threads, Touched, Waits, Which,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the file of a latency round's durations.
const DURATIONS: &str = "durations";

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// The allocators.
    pub allocators: Vec<Spec>,
    /// Timed rounds of each; `None`: as many as the length of the program asks for.
    pub rounds: Option<u32>,
    /// In how many threads; the programs are made for that.
    pub threads: Threads,
    /// Rounds of each in which single operations are timed.
    pub latency_rounds: u32,
    /// Count instructions with callgrind.
    pub callgrind: bool,
    /// How fast memory rounds go; timed ones always go as fast as they can.
    pub pace: Pace,
    /// How blocks are touched.
    pub touched: Touched,
    /// When blocks behind handles are locked.
    pub lock: Lock,
    /// Ask those that can for a full compaction.
    pub compact_at: Option<CompactAt>,
    /// The command that a worker is, to which its task is added.
    pub worker: Vec<OsString>,
}

/// Programs to replay.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// The one for most allocators: a program, or streams for real threads.
    pub plain: &'a Path,
    /// With ends of locks, for allocators with handles, if the lock rule needs it.
    pub locked: Option<&'a Path>,
}

/// What is known of the programs.
struct Recorded {
    facts: Facts,
    points: Vec<Point>,
    /// Of streams.
    shape: Option<Shape>,
}

impl Recorded {
    fn of(programs: Programs<'_>, threads: Threads) -> Result<Recorded, ReplayError> {
        Ok(match threads {
            Threads::One => {
                let program = Program::open(programs.plain)?;
                Recorded {
                    facts: *program.facts(),
                    points: program.points().to_vec(),
                    shape: None,
                }
            }
            Threads::Real => {
                let streams = Streams::open(programs.plain)?;
                Recorded {
                    facts: *streams.facts(),
                    points: streams.points().to_vec(),
                    shape: Some(*streams.shape()),
                }
            }
        })
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn points(&self) -> &[Point] {
        &self.points
    }
}

/// An allocator and what its workers saw.
struct Entry<'a> {
    spec: &'a Spec,
    which: Which,
    timed: Vec<Outcome>,
    latency: Vec<Latency>,
    /// The least duration of single operations.
    durations: PathBuf,
    calls: Option<Result<BTreeMap<&'static str, u64>, String>>,
    callgrind: Option<Counted>,
    memory: Option<Memory>,
    /// Of the memory round, in real threads.
    waits: Option<Waits>,
    differing: u64,
    compared: u64,
}

/// Replays a program on all allocators. `progress` is told each round before it begins.
///
/// # Errors
/// When an allocator that was asked for can't be loaded, one fails, or a worker dies.
pub fn replay(
    programs: Programs<'_>,
    options: &Options,
    trace: Trace,
    progress: &mut dyn FnMut(&str, Round),
) -> Result<Report, ReplayError> {
    let program = Recorded::of(programs, options.threads)?;
    let place = tempfile::tempdir().map_err(|source| ReplayError::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let outcome_path = place.path().join("outcome.json");
    let workers = Workers {
        programs,
        options,
        outcome: &outcome_path,
        place: place.path(),
    };
    let (mut entries, missing) = first_rounds(&workers, progress)?;
    let operations = program.facts().operations.max(1);
    let rounds = options.rounds.unwrap_or_else(|| default_rounds(operations));
    for round in 0..rounds {
        for at in 0..entries.len() {
            // Each begins as often as any other.
            let at = (at + round as usize) % entries.len();
            progress(&entries[at].spec.name, Round::Time);
            let outcome = workers.run(entries[at].spec, &entries[at].which, Round::Time)?;
            entries[at].timed.push(outcome);
        }
    }
    // Single operations are timed, and calls and instructions counted, in one thread.
    let latency_rounds = match options.threads {
        Threads::One => options.latency_rounds,
        Threads::Real => 0,
    };
    for round in 0..latency_rounds {
        for at in 0..entries.len() {
            let at = (at + round as usize) % entries.len();
            progress(&entries[at].spec.name, Round::Latency);
            workers.latency(&mut entries[at])?;
        }
    }
    for entry in &mut entries {
        if options.threads == Threads::Real {
            break;
        }
        progress(&entry.spec.name, Round::Calls);
        entry.calls = Some(workers.calls(entry));
        if options.callgrind {
            progress(&entry.spec.name, Round::Setup);
            entry.callgrind = Some(workers.callgrind(entry)?);
        }
    }
    let scores = scores(programs.plain, &entries)?;
    for entry in &mut entries {
        entry.differing += entry
            .timed
            .iter()
            .map(|outcome| outcome.points_differing)
            .sum::<u64>();
        entry.compared += entry.timed.iter().map(compared_once).sum::<u64>();
    }
    let mut report = report(&program, options, rounds, trace, &entries, missing);
    scored(&mut report, &program, &entries, scores);
    if let Some(path) = programs.locked {
        let locked = Recorded::of(
            Programs {
                plain: path,
                locked: None,
            },
            options.threads,
        )?;
        let (told, facts) = (&mut report.program, locked.facts());
        (told.locks, told.unlocks) = (facts.locks, facts.unlocks);
        (told.locked_blocks_sum, told.live_blocks_sum) =
            (facts.locked_blocks_sum, facts.live_blocks_sum);
    }
    Ok(report)
}

/// Comparisons of live bytes in a timed round.
fn compared_once(outcome: &Outcome) -> u64 {
    outcome.waits.as_ref().map_or(1, |waits| waits.meetings)
}

/// Short programs are over before anything settles: more rounds.
fn default_rounds(operations: u64) -> u32 {
    (20_000_000 / operations).clamp(5, 25) as u32
}

/// The memory round of each allocator, which also tells whether it can be loaded.
fn first_rounds<'a>(
    workers: &Workers<'a>,
    progress: &mut dyn FnMut(&str, Round),
) -> Result<(Vec<Entry<'a>>, Vec<Missing>), ReplayError> {
    let (mut entries, mut missing) = (Vec::new(), Vec::new());
    let plain = Round::Memory(
        workers
            .options
            .compact_at
            .filter(|at| *at == CompactAt::End),
    );
    for spec in &workers.options.allocators {
        progress(&spec.name, plain);
        let mut which = spec.which.clone();
        let mut outcome = workers.run(spec, &which, plain);
        if let (Err(ReplayError::Load { .. }), Which::Library { name, .. }) =
            (&outcome, &spec.which)
        {
            which = Which::Library {
                name: name.clone(),
                preloaded: true,
            };
            // Why it can't be opened says more than why it can't be preloaded.
            outcome = workers.run(spec, &which, plain).or(outcome);
        }
        let outcome = match outcome {
            Err(error @ ReplayError::Load { .. }) if !spec.wanted => {
                missing.push(Missing {
                    name: spec.name.clone(),
                    why: error.to_string(),
                });
                continue;
            }
            other => other?,
        };
        let mut memory = outcome.memory;
        if workers.options.compact_at == Some(CompactAt::Peak) && which != Which::Null {
            let at_peak = workers.run(spec, &which, Round::Memory(workers.options.compact_at))?;
            let compaction = at_peak.memory.and_then(|memory| memory.compaction);
            if let Some(memory) = &mut memory {
                memory.compaction = compaction;
            }
        }
        let compared = memory
            .as_ref()
            .map_or(0, |memory| memory.resident_bytes.len() as u64 + 2)
            + outcome.waits.as_ref().map_or(0, |waits| waits.meetings);
        entries.push(Entry {
            spec,
            memory: memory.filter(|_| which != Which::Null),
            waits: outcome.waits,
            which,
            timed: Vec::new(),
            latency: Vec::new(),
            durations: workers.place.join(format!("durations-{}", entries.len())),
            calls: None,
            callgrind: None,
            differing: outcome.points_differing,
            compared,
        });
    }
    Ok((entries, missing))
}

struct Workers<'a> {
    programs: Programs<'a>,
    options: &'a Options,
    outcome: &'a PathBuf,
    /// Where files may be put.
    place: &'a Path,
}

impl<'a> Workers<'a> {
    /// A latency round.
    fn latency(&self, entry: &mut Entry<'_>) -> Result<(), ReplayError> {
        let outcome = self.run(entry.spec, &entry.which, Round::Latency)?;
        let new = self.place.join(DURATIONS);
        fold(&entry.durations, &new).map_err(|source| ReplayError::File { path: new, source })?;
        entry.latency.extend(outcome.latency);
        Ok(())
    }

    /// System calls of a round, or why they can't be counted.
    fn calls(&self, entry: &Entry<'_>) -> Result<BTreeMap<&'static str, u64>, String> {
        let task = self.task(&entry.which, Round::Calls);
        let mut command = self.start(entry.spec, &task, &[]);
        let command = command.as_mut().map_err(|error| error.to_string())?;
        let (output, mut counts) = calls::trace(command).map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err("the worker failed when it was traced".to_string());
        }
        let total = counts.values().sum();
        counts.insert("total", total);
        Ok(counts)
    }

    /// Instructions of all operations.
    fn callgrind(&self, entry: &Entry<'_>) -> Result<Counted, ReplayError> {
        let path = self.place.join("callgrind.out");
        let file = format!("--callgrind-out-file={}", path.display());
        let prefix = ["valgrind", "-q", "--tool=callgrind", &file].map(OsString::from);
        let run = |round| {
            let task = self.task(&entry.which, round);
            let mut command = self.start(entry.spec, &task, &prefix)?;
            let output = command.output().map_err(|error| {
                ReplayError::Option(match error.kind() {
                    io::ErrorKind::NotFound => {
                        "--callgrind needs valgrind; Debian has it in the package valgrind".into()
                    }
                    _ => format!("valgrind can't be started: {error}"),
                })
            })?;
            callgrind::read(&path).map_err(|source| ReplayError::Worker {
                name: entry.spec.name.clone(),
                how: format!("left no counts: {source}"),
                round: "under callgrind".to_string(),
                stderr: last_lines(&output.stderr),
            })
        };
        let before = run(Round::Setup)?;
        let mut counted = run(Round::Time)?.since(&before);
        if entry.which == Which::Null {
            // Calls of the replayer's own: it has none of these.
            counted.functions.clear();
        }
        Ok(counted)
    }

    /// Runs a worker and returns what it saw.
    fn run(&self, spec: &Spec, which: &Which, round: Round) -> Result<Outcome, ReplayError> {
        let task = self.task(which, round);
        process::outcome(self.start(spec, &task, &[])?, spec, &task)
    }

    /// What a worker is to do.
    fn task(&self, which: &Which, round: Round) -> Task {
        // A check needs memory that is not given out twice.
        let touched = match (self.options.touched, which) {
            (Touched::Check, Which::Null) => Touched::All,
            (touched, _) => touched,
        };
        Task {
            which: which.clone(),
            program: self.programs.plain.to_owned(),
            locked: self.programs.locked.map(Path::to_owned),
            outcome: self.outcome.clone(),
            threads: self.options.threads,
            durations: (round == Round::Latency)
                .then(|| (self.place.join(DURATIONS), DURATIONS_MAX)),
            round,
            pace: self.options.pace,
            touched,
            lock: self.options.lock,
            points: None,
        }
    }

    /// The command of a worker, behind another one that runs it.
    fn start(&self, spec: &Spec, task: &Task, prefix: &[OsString]) -> Result<Command, ReplayError> {
        process::command(&self.options.worker, spec, task, prefix)
    }
}

fn report(
    program: &Recorded,
    options: &Options,
    rounds: u32,
    trace: Trace,
    entries: &[Entry<'_>],
    missing: Vec<Missing>,
) -> Report {
    let operations = program.facts().operations.max(1) as f64;
    let figure = |entry: &Entry<'_>, of: fn(&Outcome) -> u64| {
        Figure::new(
            entry
                .timed
                .iter()
                .map(|outcome| of(outcome) as f64 / operations)
                .collect(),
        )
    };
    let null = entries
        .iter()
        .find(|entry| entry.which == Which::Null && !entry.timed.is_empty());
    // In real threads an operation's time is its thread's: the wall clock goes on while others work.
    let time_of: fn(&Outcome) -> u64 = match options.threads {
        Threads::One => |outcome| outcome.wall_ns,
        Threads::Real => |outcome| outcome.thread_cpu_ns,
    };
    let null_ns = null.map(|entry| figure(entry, time_of).median);
    let reference = entries.iter().find(|entry| entry.which != Which::Null);
    let reference = reference.map(|entry| {
        let ns_per_op = figure(entry, time_of);
        (entry.spec.name.as_str(), ns_per_op)
    });
    let null_count = null.and_then(|entry| entry.callgrind.as_ref());
    let clock_rounds: Vec<&Latency> = match null {
        Some(null) => null.latency.iter().collect(),
        None => entries.iter().flat_map(|entry| &entry.latency).collect(),
    };
    let facts = program.facts();
    let system = entries.iter().find(|entry| entry.which == Which::System);
    let allocators = entries.iter().map(|entry| {
        let ns_per_op = figure(entry, time_of);
        let mut counts: Vec<f64> = entry
            .timed
            .iter()
            .filter_map(|outcome| outcome.instructions.map(|number| number as f64))
            .collect();
        counts.sort_by(f64::total_cmp);
        let (system_calls, system_calls_why) = match entry.calls.clone() {
            Some(Ok(counts)) => (Some(counts), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let mut faults: Vec<f64> = entry
            .timed
            .iter()
            .map(|outcome| outcome.minor_faults as f64)
            .collect();
        faults.sort_by(f64::total_cmp);
        let first = entry.timed.first().cloned().unwrap_or_default();
        AllocatorReport {
            name: entry.spec.name.clone(),
            environment: environment::told(entry.spec),
            version: first.version,
            file: Path::new(&first.file)
                .file_name()
                .map_or(String::new(), |name| name.to_string_lossy().into_owned()),
            loaded: match &entry.which {
                Which::Library {
                    preloaded: true, ..
                } => "preloaded",
                Which::Library { .. } => "opened",
                _ => "linked",
            },
            relative: reference
                .as_ref()
                .filter(|(name, _)| *name != entry.spec.name && entry.which != Which::Null)
                .and_then(|(name, over)| Ratio::new(&ns_per_op, over, name)),
            latency_ns: latency(&entry.latency.iter().collect::<Vec<_>>()),
            scores: None,
            reuse: entry.memory.as_ref().and_then(|memory| {
                let counts = memory.reuse;
                (counts.allocations != 0)
                    .then(|| reuse(counts.last, counts.recent, counts.allocations))
            }),
            system_calls,
            system_calls_why,
            instructions_per_op: (!counts.is_empty()).then(|| median(&counts) / operations),
            callgrind: entry
                .callgrind
                .as_ref()
                .map(|counted| counted_report(counted, null_count, operations)),
            over_null_ns_per_op: null_ns.map(|null| ns_per_op.median - null),
            ns_per_op,
            cpu_ns_per_op: figure(entry, |outcome| outcome.cpu_ns),
            own: entry
                .timed
                .iter()
                .filter_map(|outcome| outcome.own.clone())
                .max_by_key(|own| own.longest_pause_ns),
            compaction_share: compaction_share(&entry.timed),
            threads: waiting(program, entry, operations),
            page_faults: median(&faults) as u64,
            major_faults: entry.timed.iter().map(|outcome| outcome.major_faults).sum(),
            memory: entry
                .memory
                .as_ref()
                .map(|memory| memory_report(program, memory, first.loading_bytes, options.touched)),
        }
    });
    let points = program.points();
    Report {
        schema: SCHEMA,
        settings: Settings {
            threads: match options.threads {
                Threads::One => "one",
                Threads::Real => "real",
            },
            window: program.shape.map(|shape| shape.window),
            pace: match options.pace {
                Pace::Flat => "flat",
                Pace::Recorded => "recorded",
            },
            rounds,
            latency_rounds: options.latency_rounds,
            scored_every: None,
            touch: match options.touched {
                Touched::None => "none",
                Touched::First => "first",
                Touched::All => "all",
                Touched::Check => "check",
            }
            .to_string(),
            lock: options.lock.name(),
        },
        machine: machine(),
        replayer: Replayer {
            ns_per_op: null_ns,
            cpu_ns_per_op: null.map(|entry| figure(entry, |outcome| outcome.cpu_ns).median),
            clock: clock(&clock_rounds),
            prepared_events_per_s: None,
        },
        fidelity: Fidelity {
            live_bytes: LiveBytes {
                points: entries.iter().map(|entry| entry.compared).sum(),
                differing: entries.iter().map(|entry| entry.differing).sum(),
            },
            order: match options.threads {
                Threads::One => "merged",
                Threads::Real => "dependencies",
            },
            threads: program.shape.map(|shape| Together {
                threads: shape.threads,
                at_once: shape.together,
                dependencies: shape.dependencies,
                waits: shape.waits,
                words_per_op: program.facts.op_words as f64 / operations,
                cuts: shape.cuts,
                lead_max: shape.window,
            }),
            reuse: RecordedReuse {
                merged: reuse(facts.reused_last, facts.reused_recent, facts.allocations),
                in_thread: reuse(
                    facts.reused_last_in_thread,
                    facts.reused_recent_in_thread,
                    facts.allocations,
                ),
            },
            resident: (facts.resident_samples != 0).then(|| ResidentFidelity {
                samples: facts.resident_samples,
                recorded_peak_bytes: facts.resident_peak_bytes,
                system_peak_bytes: system
                    .and_then(|entry| entry.memory.as_ref())
                    .map(|memory| memory.peak_bytes),
            }),
        },
        allocators: allocators.collect(),
        missing,
        series: Series {
            time_ns: points.iter().map(|point| point.time_ns).collect(),
            live_bytes: points.iter().map(|point| point.live_bytes).collect(),
            live_blocks: points.iter().map(|point| point.live_blocks).collect(),
            live_rounded_bytes: points
                .iter()
                .map(|point| point.live_rounded_bytes)
                .collect(),
        },
        trace,
        program: program.facts,
    }
}

fn reuse(last: u64, recent: u64, allocations: u64) -> ReuseReport {
    ReuseReport {
        last: ratio(last.into(), allocations.into()),
        recent: ratio(recent.into(), allocations.into()),
    }
}

fn counted_report(counted: &Counted, null: Option<&Counted>, operations: f64) -> CallgrindReport {
    let each = |counted: &Counted| counted.instructions as f64 / operations;
    let functions = counted
        .functions
        .iter()
        .map(|(name, &(calls, instructions))| {
            let function = CallgrindFunction {
                calls,
                instructions_per_call: instructions as f64 / calls.max(1) as f64,
            };
            (*name, function)
        });
    CallgrindReport {
        instructions_per_op: each(counted),
        over_null_per_op: null.map(|null| each(counted) - each(null)),
        functions: functions.collect(),
    }
}

/// Those that are ranked, by their places among all.
fn ranked<'e>(entries: &'e [Entry<'_>]) -> Vec<(usize, &'e Entry<'e>)> {
    let entries = entries.iter().enumerate();
    entries
        .filter(|(_, entry)| entry.which != Which::Null)
        .collect()
}

/// Ranks by time; `None` without durations.
fn scores(program: &Path, entries: &[Entry<'_>]) -> Result<Option<TimeScores>, ReplayError> {
    let mut files = Vec::new();
    let mut every = 1;
    for (_, entry) in ranked(entries) {
        let Some(first) = entry.latency.first() else {
            return Ok(None);
        };
        every = first.every;
        let rounds: Vec<&Latency> = entry.latency.iter().collect();
        files.push((entry.durations.as_path(), ns_per_tick(&rounds)));
    }
    let of_file = |source| ReplayError::File {
        path: files
            .first()
            .map_or(PathBuf::new(), |(path, _)| path.to_path_buf()),
        source,
    };
    match files.is_empty() {
        true => Ok(None),
        false => {
            let program = Program::open(program)?;
            rank(&program, every, &files).map(Some).map_err(of_file)
        }
    }
}

/// Puts scores into the report, and makes those of space.
fn scored(
    report: &mut Report,
    program: &Recorded,
    entries: &[Entry<'_>],
    times: Option<TimeScores>,
) {
    let Some(times) = times else {
        return;
    };
    let ranked = ranked(entries);
    let mut space = Ranks::new(ranked.len());
    for (number, point) in program.points().iter().enumerate() {
        let values: Vec<i64> = ranked
            .iter()
            .map(|(_, entry)| {
                let memory = entry.memory.as_ref();
                let resident = memory.and_then(|memory| memory.resident_bytes.get(number));
                resident.copied().unwrap_or_default() as i64 - point.live_bytes as i64
            })
            .collect();
        space.place(&values);
    }
    let space = space.scores(&vec![1.0; ranked.len()]);
    for (at, (entry, _)) in ranked.iter().enumerate() {
        report.allocators[*entry].scores = Some(AllocatorScores {
            all: times.all[at].clone(),
            malloc: times.malloc[at].clone(),
            realloc: times.realloc[at].clone(),
            free: times.free[at].clone(),
            space: space[at].clone(),
        });
    }
    report.settings.scored_every = Some(times.every);
}

/// Time in compaction over all time, where the allocator tells.
fn compaction_share(timed: &[Outcome]) -> Option<f64> {
    let mut shares = Vec::new();
    for outcome in timed {
        let own = outcome.own.as_ref()?;
        let ns = own.survey_ns + own.move_ns + own.release_ns;
        shares.push(ns as f64 / outcome.wall_ns.max(1) as f64);
    }
    shares.sort_by(f64::total_cmp);
    (!shares.is_empty()).then(|| median(&shares))
}

/// What threads waited for each other, where there were several.
fn waiting(program: &Recorded, entry: &Entry<'_>, operations: f64) -> Option<Waiting> {
    program.shape?;
    let of = |of: fn(&Outcome, &Waits) -> u64| {
        let mut rounds: Vec<f64> = entry
            .timed
            .iter()
            .filter_map(|outcome| Some(of(outcome, outcome.waits.as_ref()?) as f64 / operations))
            .collect();
        rounds.sort_by(f64::total_cmp);
        median(&rounds)
    };
    let waits = entry.waits.clone().unwrap_or_default();
    let excess_share = ratio(
        waits.excess_bytes.into(),
        program.facts.peak_live_bytes.into(),
    );
    Some(Waiting {
        elapsed_ns_per_op: of(|outcome, _| outcome.wall_ns),
        waiting_share: of(|_, waits| waits.waits),
        sleeping_share: of(|_, waits| waits.sleeps),
        wait_ns_per_op: of(|_, waits| waits.wall_ns),
        other_cpu_ns_per_op: of(|_, waits| waits.cpu_ns),
        excess_live_bytes: waits.excess_bytes,
        excess_share,
        memory_is_comparable: excess_share <= EXCESS_SHARE_MAX,
    })
}

/// One number over another; 0 over nothing.
fn ratio(of: u128, over: u128) -> f64 {
    match over {
        0 => 0.0,
        over => of as f64 / over as f64,
    }
}

/// Live blocks rounded up to 16, with the allowed overhead.
fn with_overhead(rounded_bytes: u64, blocks: u64) -> u128 {
    u128::from(rounded_bytes) + u128::from(blocks) * u128::from(OVERHEAD_BYTES)
}

fn memory_report(
    program: &Recorded,
    memory: &Memory,
    loading_bytes: u64,
    touched: Touched,
) -> MemoryReport {
    let facts = program.facts();
    let points = program.points();
    let sum: u128 = memory
        .resident_bytes
        .iter()
        .map(|bytes| u128::from(*bytes))
        .sum();
    let live: u128 = points
        .iter()
        .map(|point| u128::from(point.live_bytes))
        .sum();
    let rounded: u128 = points
        .iter()
        .map(|point| with_overhead(point.live_rounded_bytes, point.live_blocks))
        .sum();
    let peak_rounded = with_overhead(facts.peak_live_rounded_bytes, facts.peak_live_blocks);
    MemoryReport {
        resident_source: memory.source.clone(),
        peak_resident_bytes: memory.peak_bytes,
        peak_resident_over_live: ratio(memory.peak_bytes.into(), facts.peak_live_bytes.into()),
        peak_resident_over_rounded: ratio(memory.peak_bytes.into(), peak_rounded),
        mean_resident_bytes: (sum / (points.len().max(1) as u128)) as u64,
        mean_resident_over_live: ratio(sum, live),
        mean_resident_over_rounded: ratio(sum, rounded),
        end_resident_bytes: memory.end_bytes,
        end_resident_less_live_bytes: memory.end_bytes as i64 - facts.end_live_bytes as i64,
        huge_page_bytes: memory.huge_bytes,
        loading_bytes,
        internal_fragmentation: internal(memory, points, facts.peak_live_bytes),
        page_use: match touched {
            // Pages that nobody has touched may not be there.
            Touched::None | Touched::First => Vec::new(),
            Touched::All | Touched::Check => pages(memory, points),
        },
        johnstone_wilson: johnstone_wilson(memory, points, facts.peak_live_bytes),
        huge_bytes: memory.huge_bytes_at.clone(),
        compaction: memory.compaction.as_ref().map(|seen| CompactionReport {
            after_over_live: ratio(seen.after_bytes.into(), seen.live_bytes.into()),
            after_over_rounded: ratio(
                seen.after_bytes.into(),
                with_overhead(seen.live_rounded_bytes, seen.live_blocks),
            ),
            seen: seen.clone(),
        }),
        resident_bytes: memory.resident_bytes.clone(),
    }
}

/// This machine.
pub fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let chosen = huge.split(['[', ']']).nth(1).unwrap_or("unknown");
    Machine {
        processor: model.map_or(String::new(), |text| {
            text.trim_start_matches([' ', '\t', ':']).to_string()
        }),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
        huge_pages: chosen.to_string(),
        rmtrace: env!("CARGO_PKG_VERSION").to_string(),
    }
}
