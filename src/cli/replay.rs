//! `rmtrace replay`: performs the recorded calls of a process on several allocators. The arguments, the choice of the
//! process and the worker's hidden command are here; preparation, rounds and figures are `rmtrace-replay`'s.

use super::progress::Progress;
use super::select::find_process;
use super::{EXIT_DAMAGED, EXIT_FAILED};
use anyhow::{Context, bail};
use rmtrace::file::TraceReader;
use rmtrace::replay::prepare::{Wanted, busiest};
use rmtrace::replay::replay::{Options, Programs, replay};
use rmtrace::replay::report::Trace;
use rmtrace::replay::spec::{self, Spec};
use rmtrace::replay::task::{CompactAt, Lock, Pace, Round, Touched};
use rmtrace::replay::{ReplayError, cache, text, worker};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Name of the hidden command that a worker is.
pub const WORKER: &str = "replay-worker";

/// Perform the recorded calls on several allocators: time, page faults, resident memory over recorded time.
///
/// Each allocator works in a process of its own, all threads' calls in their recorded order in one thread, as fast as
/// it goes. Of the trace the process with most events is replayed, or the one that --process names.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Trace file, or directory that LD_PRELOAD left
    trace: PathBuf,
    /// Allocators, separated by commas: system, jemalloc, mimalloc, tcmalloc, rmalloc, null (never frees: the replayer's own
    /// cost), or shared libraries by path [default: all that are installed]
    #[arg(short = 'a', long = "allocators", value_name = "NAME|PATH.so", value_delimiter = ',', value_parser = spec::parse)]
    allocators: Vec<Spec>,
    /// This process: its number in the trace, its pid, its name or its role
    #[arg(long, value_name = "P")]
    process: Option<String>,
    /// Timed rounds of each allocator [default: 5 to 25, more for short traces]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// 3 timed rounds
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
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
    /// When blocks behind handles are locked: touched (only while they are touched), life, share:P (so many of all blocks
    /// for life, by chance), alloc:T (while they are younger than T of recorded time)
    #[arg(long, value_name = "RULE", value_parser = parse_lock, default_value = "touched")]
    lock: Lock,
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

const AFTER_HELP: &str = "\
Examples:
  rmtrace replay firefox.rmt                              all allocators that are installed
  rmtrace replay python.rmt -a system,mimalloc,null --rounds 15
  rmtrace replay python.rmt -a ./libmine.so --check       are its blocks apart, zeroed, aligned?
  rmtrace replay gcc.rmt -a rmalloc --lock alloc:1ms --compact-at end

Exit status: 0 done, 1 the trace is damaged, 2 failed.";

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reader = rmtrace::file::open(&args.trace)?;
    let process = match &args.process {
        Some(wanted) => find_process(&reader, wanted)?,
        None => busiest(&reader).context("no process in it")?,
    };
    let damaged = !reader.damage().is_empty();
    if damaged {
        eprintln!(
            "rmtrace: {} is damaged: what is there is replayed",
            args.trace.display()
        );
    }
    let directory = cache::directory().filter(|_| !args.no_cache);
    let prepare = |lock_ns| {
        let wanted = Wanted { process, lock_ns };
        let began = Instant::now();
        let mut progress = Progress::new(reader.calls_of(process));
        let kept = cache::program(&reader, wanted, directory.as_deref(), |events| {
            progress.show(events)
        });
        progress.end();
        kept.map(|kept| (kept, began.elapsed()))
    };
    let (plain, took) = prepare(None)?;
    let locked = match args.lock {
        Lock::Alloc(ns) => Some(prepare(Some(ns))?.0),
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
            let what = if round == Round::Time {
                "time"
            } else {
                "memory"
            };
            eprint!("\r\x1b[K{name}: {what}");
        }
    };
    let report = replay(
        programs,
        &options,
        trace(&args, &reader, process),
        &mut progress,
    );
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
        false => text::render(&report),
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
            false => args.allocators.clone(),
        },
        rounds,
        touched: if args.check {
            Touched::Check
        } else {
            args.touch
        },
        pace: args.pace,
        lock: args.lock,
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

fn parse_pace(text: &str) -> Result<Pace, String> {
    match text {
        "flat" => Ok(Pace::Flat),
        "recorded" => Ok(Pace::Recorded),
        _ => Err("flat or recorded".to_string()),
    }
}

fn parse_lock(text: &str) -> Result<Lock, String> {
    let wrong = || "touched, life, share:P (share:10%) or alloc:T (alloc:1ms)".to_string();
    match text.split_once(':') {
        None if text == "touched" => Ok(Lock::Touched),
        None if text == "life" => Ok(Lock::Life),
        Some(("share", share)) => {
            let (number, of) = match share.strip_suffix('%') {
                Some(number) => (number, 100.0),
                None => (share, 1.0),
            };
            let share: f64 = number.trim().parse().map_err(|_| wrong())?;
            let ppm = share / of * 1e6;
            match (0.0..=1e6).contains(&ppm) {
                true => Ok(Lock::Share(ppm.round() as u32)),
                false => Err("a share is between 0% and 100%".to_string()),
            }
        }
        Some(("alloc", time)) => {
            let digits = time.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
            let unit = match &time[digits.len()..] {
                "ns" => 1.0,
                "us" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                _ => return Err("a time has a unit: ns, us, ms or s".to_string()),
            };
            let number: f64 = digits.parse().map_err(|_| wrong())?;
            match (0.0..1e18).contains(&(number * unit)) {
                true => Ok(Lock::Alloc((number * unit) as u64)),
                false => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_rules_are_read_as_people_write_them() {
        assert_eq!(parse_lock("touched"), Ok(Lock::Touched));
        assert_eq!(parse_lock("life"), Ok(Lock::Life));
        assert_eq!(parse_lock("share:10%"), Ok(Lock::Share(100_000)));
        assert_eq!(parse_lock("share:0.25"), Ok(Lock::Share(250_000)));
        assert_eq!(parse_lock("alloc:1ms"), Ok(Lock::Alloc(1_000_000)));
        assert_eq!(parse_lock("alloc:0.5us"), Ok(Lock::Alloc(500)));
        for wrong in [
            "never",
            "share",
            "share:200%",
            "share:x",
            "alloc:1",
            "alloc:-1ms",
            "alloc:ms",
        ] {
            assert!(parse_lock(wrong).is_err(), "{wrong}");
        }
    }
}
