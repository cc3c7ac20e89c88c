//! Replays a program on several allocators: which worker runs when, and what follows from the outcomes. A worker
//! is a process for one allocator and one round; rounds alternate between allocators, so that what else
//! happens on the machine falls on all of them.

use crate::error::ReplayError;
use crate::figure::{Figure, median};
use crate::load::TUNABLES;
use crate::program::Program;
use crate::report::{
    AllocatorReport, CompactionReport, Fidelity, LiveBytes, Machine, MemoryReport, Missing,
    OVERHEAD_BYTES, Replayer, Report, SCHEMA, Series, Settings, Trace,
};
use crate::spec::Spec;
use crate::task::{CompactAt, Lock, Memory, Outcome, Pace, Round, Task, Touched, Which};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Lines of a worker's stderr that are shown when it fails.
const STDERR_LINES: usize = 5;

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// The allocators.
    pub allocators: Vec<Spec>,
    /// Timed rounds of each; `None`: as many as the length of the program asks for.
    pub rounds: Option<u32>,
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
    /// The one for most allocators.
    pub plain: &'a Path,
    /// With ends of locks, for allocators with handles, if the lock rule needs it.
    pub locked: Option<&'a Path>,
}

/// An allocator and what its workers saw.
struct Entry<'a> {
    spec: &'a Spec,
    which: Which,
    timed: Vec<Outcome>,
    memory: Option<Memory>,
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
    let program = Program::open(programs.plain)?;
    let place = tempfile::tempdir().map_err(|source| ReplayError::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let outcome_path = place.path().join("outcome.json");
    let workers = Workers {
        programs,
        options,
        outcome: &outcome_path,
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
    for entry in &mut entries {
        entry.differing += entry
            .timed
            .iter()
            .map(|outcome| outcome.points_differing)
            .sum::<u64>();
        entry.compared += entry.timed.len() as u64;
    }
    Ok(report(&program, options, rounds, trace, &entries, missing))
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
            .map_or(0, |memory| memory.resident_bytes.len() as u64 + 2);
        entries.push(Entry {
            spec,
            memory: memory.filter(|_| which != Which::Null),
            which,
            timed: Vec::new(),
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
}

impl<'a> Workers<'a> {
    /// Runs a worker and returns what it saw.
    fn run(&self, spec: &Spec, which: &Which, round: Round) -> Result<Outcome, ReplayError> {
        // A check needs memory that is not given out twice.
        let touched = match (self.options.touched, which) {
            (Touched::Check, Which::Null) => Touched::All,
            (touched, _) => touched,
        };
        let task = Task {
            which: which.clone(),
            program: self.programs.plain.to_owned(),
            locked: self.programs.locked.map(Path::to_owned),
            outcome: self.outcome.clone(),
            round,
            pace: self.options.pace,
            touched,
            lock: self.options.lock,
        };
        let text =
            serde_json::to_string(&task).map_err(|error| ReplayError::Option(error.to_string()))?;
        let _ = std::fs::remove_file(self.outcome);
        let (first, rest) = match self.options.worker.split_first() {
            Some(command) => command,
            None => return Err(ReplayError::Option("no command for workers".to_string())),
        };
        let mut command = Command::new(first);
        command.args(rest).arg(text);
        command.env(TUNABLES.0, tunables());
        command.env_remove("LD_PRELOAD");
        if let Which::Library {
            name,
            preloaded: true,
        } = which
        {
            command.env("LD_PRELOAD", name);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let output = command.output().map_err(|source| ReplayError::File {
            path: first.into(),
            source,
        })?;
        let outcome: Option<Outcome> = std::fs::read(self.outcome)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let name = || spec.name.clone();
        let Some(outcome) = outcome.filter(|_| output.status.success()) else {
            let status = output.status;
            let how = match status.signal() {
                Some(signal) => format!("was killed by signal {signal} ({})", signal_name(signal)),
                None => format!("ended with status {}", status.code().unwrap_or_default()),
            };
            return Err(ReplayError::Worker {
                name: name(),
                how,
                round: round_name(round).to_string(),
                stderr: last_lines(&output.stderr),
            });
        };
        if let Some(what) = outcome.load_error {
            return Err(ReplayError::Load {
                name: name(),
                what,
                hint: match spec.package {
                    "" => String::new(),
                    package => format!("; Debian has it in the package {package}"),
                },
            });
        }
        if let Some(what) = outcome.fault {
            return Err(ReplayError::Allocator { name: name(), what });
        }
        if outcome.points_differing != 0 {
            let what = format!(
                "live bytes differ from the recorded ones at {} points",
                outcome.points_differing
            );
            return Err(ReplayError::Allocator { name: name(), what });
        }
        Ok(outcome)
    }
}

/// What workers get for [`TUNABLES`]: what the user has set stays.
fn tunables() -> OsString {
    let mut value = OsString::from(TUNABLES.1);
    if let Some(set) = std::env::var_os(TUNABLES.0).filter(|set| !set.is_empty()) {
        value.push(":");
        value.push(set);
    }
    value
}

fn round_name(round: Round) -> &'static str {
    match round {
        Round::Time => "a timed round",
        Round::Memory(_) => "the round that looks at memory",
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGABRT => "SIGABRT",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL: no memory left, perhaps",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        _ => "see signal(7)",
    }
}

/// The end of what a worker wrote to stderr, to be put behind a message.
fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = &lines[lines.len().saturating_sub(STDERR_LINES)..];
    last.iter().map(|line| format!("\n  {line}")).collect()
}

fn report(
    program: &Program,
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
    let null_ns = null.map(|entry| figure(entry, |outcome| outcome.wall_ns).median);
    let allocators = entries.iter().map(|entry| {
        let ns_per_op = figure(entry, |outcome| outcome.wall_ns);
        let mut faults: Vec<f64> = entry
            .timed
            .iter()
            .map(|outcome| outcome.minor_faults as f64)
            .collect();
        faults.sort_by(f64::total_cmp);
        let first = entry.timed.first().cloned().unwrap_or_default();
        AllocatorReport {
            name: entry.spec.name.clone(),
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
            over_null_ns_per_op: null_ns.map(|null| ns_per_op.median - null),
            ns_per_op,
            cpu_ns_per_op: figure(entry, |outcome| outcome.cpu_ns),
            own: entry
                .timed
                .iter()
                .filter_map(|outcome| outcome.own.clone())
                .max_by_key(|own| own.longest_pause_ns),
            compaction_share: compaction_share(&entry.timed),
            page_faults: median(&faults) as u64,
            major_faults: entry.timed.iter().map(|outcome| outcome.major_faults).sum(),
            memory: entry
                .memory
                .as_ref()
                .map(|memory| memory_report(program, memory, first.loading_bytes)),
        }
    });
    let points = program.points();
    Report {
        schema: SCHEMA,
        settings: Settings {
            threads: "one",
            pace: match options.pace {
                Pace::Flat => "flat",
                Pace::Recorded => "recorded",
            },
            rounds,
            touch: match options.touched {
                Touched::None => "none",
                Touched::First => "first",
                Touched::All => "all",
                Touched::Check => "check",
            }
            .to_string(),
            lock: match options.lock {
                Lock::Touched => "touched".to_string(),
                Lock::Life => "life".to_string(),
                Lock::Share(ppm) => format!("share:{}%", f64::from(ppm) / 10_000.0),
                Lock::Alloc(ns) => format!("alloc:{ns}ns"),
            },
        },
        machine: machine(),
        replayer: Replayer {
            ns_per_op: null_ns,
            cpu_ns_per_op: null.map(|entry| figure(entry, |outcome| outcome.cpu_ns).median),
            prepared_events_per_s: None,
        },
        fidelity: Fidelity {
            live_bytes: LiveBytes {
                points: entries.iter().map(|entry| entry.compared).sum(),
                differing: entries.iter().map(|entry| entry.differing).sum(),
            },
            order: "merged",
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
        program: *program.facts(),
    }
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

fn memory_report(program: &Program, memory: &Memory, loading_bytes: u64) -> MemoryReport {
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

fn machine() -> Machine {
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
