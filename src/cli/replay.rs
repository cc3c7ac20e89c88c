//! `rmtrace replay`: performs the recorded calls of a process on several allocators. The arguments, the choice of the
//! process and the worker's hidden command are here; preparation, rounds and figures are `rmtrace-replay`'s.

use super::locks::{self, LockArgument};
use super::progress::Progress;
use super::select::find_process;
use super::{EXIT_DAMAGED, EXIT_FAILED};
use anyhow::{Context, bail};
use rmtrace::file::TraceReader;
use rmtrace::replay::lock::Rule;
use rmtrace::replay::prepare::{Wanted, busiest};
use rmtrace::replay::replay::{Options, Programs, replay};
use rmtrace::replay::report::Trace;
use rmtrace::replay::spec::{self, Specs};
use rmtrace::replay::task::{CompactAt, Lock, Pace, Round, Threads, Touched};
use rmtrace::replay::{ReplayError, cache, text, worker};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Name of the hidden command that a worker is.
pub const WORKER: &str = "replay-worker";

/// Perform the recorded calls on several allocators: time, page faults, resident memory over recorded time.
///
/// Each allocator works in a process of its own, all threads' calls in their recorded order in one thread, or, with
/// --threads real, each recorded thread in one of its own, as fast as it goes. Of the trace the process with most events is replayed, or the one that --process names.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Trace file, or directory that LD_PRELOAD left
    trace: PathBuf,
    /// Allocators, separated by commas: names (`rmtrace allocators` lists them), or shared libraries by path; with settings
    /// as a row of its own: mimalloc3:MIMALLOC_PURGE_DELAY=0, rmalloc:compaction.stop=3%, rmalloc@FILE.toml
    /// [default: all that are there]
    #[arg(short = 'a', long = "allocators", value_name = "NAME|PATH.so[:KEY=VALUE;...]", value_parser = spec::parse_list)]
    allocators: Vec<Specs>,
    /// This process: its number in the trace, its pid, its name or its role
    #[arg(long, value_name = "P")]
    process: Option<String>,
    /// one: all calls in the order they were recorded in, in one thread. real: each recorded thread is a thread, and
    /// a free or realloc of a block waits for what other threads did to it before; times are CPU times then
    #[arg(long, value_name = "real|one", value_parser = parse_threads, default_value = "one")]
    threads: Threads,
    /// With --threads real: no thread runs more than N operations ahead of another one [default: a hundredth of all
    /// operations, at most 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    window: Option<u64>,
    /// Timed rounds of each allocator [default: 5 to 25, more for short traces]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Rounds of each in which single operations are timed: percentiles and scores; 0: none of them
    #[arg(long, value_name = "N", default_value_t = 3)]
    latency_rounds: u32,
    /// 3 timed rounds, one that times single operations
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Also count instructions with valgrind's callgrind: exact, and some 50 times slower
    #[arg(long)]
    callgrind: bool,
    /// Print all tables: latency by kind of operation and size, scores of the thesis, fragmentation, system calls
    #[arg(short = 'v', long)]
    tables: bool,
    /// What is written when a block is allocated and read when it is freed: nothing, its first word, or its first, its last and
    /// one in every page
    #[arg(long, value_name = "HOW", value_parser = parse_touch, default_value = "all")]
    touch: Touched,
    /// How fast memory rounds go: flat (as fast as they can) or recorded (no faster than the recorded process, so that what
    /// an allocator gives back after a time is given back). Timed rounds are always flat
    #[arg(long, value_name = "flat|recorded", value_parser = parse_pace, default_value = "flat")]
    pace: Pace,
    /// Fill blocks with patterns and look at them: finds allocators whose blocks overlap. Times mean little then
    #[arg(long)]
    check: bool,
    /// When blocks behind handles are locked: touched or never (only while they are touched), life, share:P (so many of all
    /// blocks for life, by chance; share:P,old: those that live longest), alloc:T (while they are younger than T of recorded time),
    /// score (while their own operations outweigh others'), accesses:FILE (when `rmtrace accesses` saw them used); or sweep: a table of what
    /// shares from 0 to 50 % cost
    #[arg(long, value_name = "RULE", value_parser = locks::parse, default_value = "touched")]
    lock: LockArgument,
    /// Ask allocators with handles for a full compaction after the last operation, or in a round of its own at the peak of
    /// live bytes
    #[arg(long, value_name = "end|peak", value_parser = parse_compact)]
    compact_at: Option<CompactAt>,
    /// Keep nothing in the cache directory: prepare anew
    #[arg(long)]
    no_cache: bool,
    /// Print JSON (docs/replay.md) instead of text
    #[arg(long)]
    json: bool,
}

/// Operations that a thread may be ahead of another one, if nothing is said: what lies between two cuts is kept in memory
/// while a program is made, and this is a megabyte.
const WINDOW_OPERATIONS: u64 = 100_000;

const AFTER_HELP: &str = "\
Examples:
  rmtrace replay firefox.rmt                              all allocators that are there
  rmtrace replay python.rmt -a 'mimalloc3,mimalloc3:MIMALLOC_PURGE_DELAY=0'    settings, quoted for the shell
  rmtrace replay python.rmt -a system,mimalloc,null --rounds 15
  rmtrace replay firefox.rmt --threads real -a rmalloc,mimalloc,null
  rmtrace replay python.rmt -a ./libmine.so --check       are its blocks apart, zeroed, aligned?
  rmtrace replay gcc.rmt -a rmalloc --lock alloc:1ms --compact-at end
  rmtrace replay gcc.rmt -a rmalloc --lock sweep          what do locks cost?

Exit status: 0 done, 1 the trace is damaged, 2 failed.";

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reader = rmtrace::file::open(&args.trace)?;
    let process = match &args.process {
        Some(wanted) => find_process(&reader, wanted)?,
        // The process whose accesses they are.
        None => match args.lock.process()? {
            Some(process) => process,
            None => busiest(&reader).context("no process in it")?,
        },
    };
    let damaged = !reader.damage().is_empty();
    if damaged {
        eprintln!(
            "rmtrace: {} is damaged: what is there is replayed",
            args.trace.display()
        );
    }
    if args.window.is_some() && args.threads == Threads::One {
        bail!("--window has a meaning with --threads real alone");
    }
    let directory = cache::directory().filter(|_| !args.no_cache);
    let prepare = |lock_ns, rule| {
        let wanted = Wanted {
            process,
            lock_ns,
            rule,
        };
        let began = Instant::now();
        let mut progress = Progress::new(reader.calls_of(process));
        let shown = |events| progress.show(events);
        let kept = match args.threads {
            Threads::One => cache::program(&reader, wanted, directory.as_deref(), shown),
            Threads::Real => {
                let window = args.window.unwrap_or(WINDOW_OPERATIONS);
                cache::streams(&reader, wanted, window, directory.as_deref(), shown)
            }
        };
        progress.end();
        kept.map(|kept| (kept, began.elapsed()))
    };
    let (plain, took) = prepare(None, None)?;
    let about = trace(&args, &reader, process);
    if args.lock == LockArgument::Sweep {
        locks::sweep(
            &args.sweep(options(&args)?),
            about,
            plain.path(),
            |millionths| Ok(prepare(None, Some(Rule::Old(millionths)))?.0),
        )?;
        return Ok(match damaged {
            true => ExitCode::from(EXIT_DAMAGED),
            false => ExitCode::SUCCESS,
        });
    }
    let locked = match (args.lock.rule(), args.lock.lock()) {
        (Some(rule), _) => Some(prepare(None, Some(rule))?.0),
        (None, Lock::Alloc(ns)) => Some(prepare(Some(ns), None)?.0),
        _ => None,
    };
    let programs = Programs {
        plain: plain.path(),
        locked: locked.as_ref().map(|kept| kept.path()),
    };
    let options = options(&args)?;
    let shows = io::stderr().is_terminal();
    let mut progress = |name: &str, round: Round| {
        if shows {
            let what = match round {
                Round::Time => "time",
                Round::Latency => "latency",
                Round::Memory(_) => "memory",
                Round::Calls => "system calls",
                Round::Setup => "callgrind",
            };
            eprint!("\r\x1b[K{name}: {what}");
        }
    };
    let report = replay(programs, &options, about, &mut progress);
    if shows {
        eprint!("\r\x1b[K");
    }
    let mut report = report?;
    if !plain.found && !took.is_zero() {
        report.replayer.prepared_events_per_s =
            Some(reader.calls_of(process) as f64 / took.as_secs_f64());
    }
    for missing in &report.missing {
        eprintln!("rmtrace: left out: {}", missing.why);
    }
    let printed = match args.json {
        true => serde_json::to_string(&report)? + "\n",
        false => text::render(&report, args.tables),
    };
    match io::stdout().lock().write_all(printed.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.context("can't write the report")?,
    }
    Ok(match damaged {
        true => ExitCode::from(EXIT_DAMAGED),
        false => ExitCode::SUCCESS,
    })
}

impl Args {
    /// What a sweep is to do.
    fn sweep(&self, options: Options) -> locks::SweepOptions {
        locks::SweepOptions {
            options: Options {
                allocators: match self.allocators.is_empty() {
                    true => spec::parse("rmalloc").into_iter().collect(),
                    false => options.allocators.clone(),
                },
                compact_at: Some(self.compact_at.unwrap_or(CompactAt::Peak)),
                ..options
            },
            json: self.json,
        }
    }
}

fn options(args: &Args) -> anyhow::Result<Options> {
    let rounds = if args.quick { Some(3) } else { args.rounds };
    if rounds == Some(0) {
        bail!("--rounds is at least 1");
    }
    // The image that runs, also where its file has been replaced since.
    let this = "/proc/self/exe";
    Ok(Options {
        allocators: match args.allocators.is_empty() {
            true => spec::known(),
            false => args
                .allocators
                .iter()
                .flat_map(|Specs(specs)| specs.clone())
                .collect(),
        },
        rounds,
        touched: if args.check {
            Touched::Check
        } else {
            args.touch
        },
        threads: args.threads,
        latency_rounds: match args.quick {
            // With every byte filled and compared, times mean little.
            _ if args.check => 0,
            true => args.latency_rounds.min(1),
            false => args.latency_rounds,
        },
        callgrind: args.callgrind,
        pace: args.pace,
        lock: args.lock.lock(),
        compact_at: args.compact_at,
        worker: vec![this.into(), WORKER.into()],
    })
}

fn trace(args: &Args, reader: &TraceReader, process: u32) -> Trace {
    let about = reader.process(process);
    let words = about.map(|process| [process.name.as_str(), process.role.as_str()]);
    let words: Vec<&str> = words
        .into_iter()
        .flatten()
        .filter(|word| !word.is_empty())
        .collect();
    let span = about.map_or(0, |process| {
        reader
            .ns(process.ended_at)
            .saturating_sub(reader.ns(process.started))
    });
    Trace {
        name: args
            .trace
            .file_name()
            .map_or(String::new(), |name| name.to_string_lossy().into_owned()),
        process,
        title: words.join(", "),
        processes: reader.processes().len() as u64,
        duration_ns: span,
    }
}

/// What the hidden command takes.
#[derive(clap::Args)]
pub struct WorkerArgs {
    /// The task, as JSON
    task: String,
}

/// Runs the hidden command.
pub fn run_worker(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    Ok(match worker::main(&args.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ReplayError::File { .. }) => return Err(error.into()),
        Err(error) => {
            eprintln!("rmtrace: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    })
}

fn parse_threads(text: &str) -> Result<Threads, String> {
    match text {
        "real" => Ok(Threads::Real),
        "one" => Ok(Threads::One),
        _ => Err("real or one".to_string()),
    }
}

fn parse_touch(text: &str) -> Result<Touched, String> {
    match text {
        "none" => Ok(Touched::None),
        "first" => Ok(Touched::First),
        "all" => Ok(Touched::All),
        _ => Err("none, first or all".to_string()),
    }
}

fn parse_compact(text: &str) -> Result<CompactAt, String> {
    match text {
        "end" => Ok(CompactAt::End),
        "peak" => Ok(CompactAt::Peak),
        _ => Err("end or peak".to_string()),
    }
}

pub(super) fn parse_pace(text: &str) -> Result<Pace, String> {
    match text {
        "flat" => Ok(Pace::Flat),
        "recorded" => Ok(Pace::Recorded),
        _ => Err("flat or recorded".to_string()),
    }
}
