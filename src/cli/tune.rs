//! `rmtrace tune`: searches rmalloc's settings by replaying traces. The arguments, the choice of processes, what the analyzer
//! suggests to begin with, and Ctrl-C are here; the search is `rmtrace-tune`'s.

use super::bytes::bytes;
use super::locks::{self, LockArgument};
use super::select::{Selected, find_process};
use super::{EXIT_DAMAGED, advise, analyze, replay as replay_command};
use anyhow::{Context, bail};
use rmtrace::analyzer::advice;
use rmtrace::analyzer::best_classes;
use rmtrace::analyzer::exact_sizes::{ExactSizes, SizeCounts, Weight};
use rmtrace::analyzer::fact::{Measure, Peaks};
use rmtrace::analyzer::ledger::{Filter, facts};
use rmtrace::file::{MergeOptions, TraceReader};
use rmtrace::replay::cache;
use rmtrace::replay::prepare::{Wanted as Prepared, busiest};
use rmtrace::replay::single::Single;
use rmtrace::replay::spec::{self, Spec};
use rmtrace::replay::task::{Lock, Pace, Touched};
use rmtrace::tune::config::{
    CONFIG_VARIABLE, Config, ENTRIES_VARIABLE, LIMIT_VARIABLE, MODE_VARIABLE,
};
use rmtrace::tune::journal::{Header, Journal};
use rmtrace::tune::replayed::{Replayed, Trace};
use rmtrace::tune::score::{Limits, Objective};
use rmtrace::tune::search::{Options, Progress};
use rmtrace::tune::space::{ClassList, Space};
use rmtrace::tune::tune::{Wanted, tune};
use rmtrace::tune::{settings, text};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Exit status after Ctrl-C, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// Search rmalloc's settings by replaying traces, and write rmalloc.toml.
///
/// Candidates are replayed beside the shipped defaults: a part of the shortest trace first, all traces for those that do well.
/// What is chosen is confirmed in rounds that the search did not see; where nothing is better by more than noise, the
/// defaults are written, and the report says so. docs/tuning.md tells how, and what the figures mean.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Trace files, or directories that LD_PRELOAD left: what the settings are to serve, each counts the same
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Only report on these: traces that the search does not see
    #[arg(long, value_name = "TRACE", num_args = 1..)]
    test: Vec<PathBuf>,
    /// Write the settings here, as rmalloc reads them (RMALLOC_CONFIG); the journal of what was measured lies beside it
    #[arg(short = 'o', long, value_name = "FILE", default_value = "rmalloc.toml")]
    output: PathBuf,
    /// In each trace this process: its number in the trace, its pid, its name or its role [default: the one with most events]
    #[arg(long, value_name = "P")]
    process: Option<String>,
    /// What is to be small: time (CPU), memory (mean resident over live blocks), or both (their geometric mean)
    #[arg(long, value_name = "time|memory|both", value_parser = Objective::parse, default_value = "both")]
    objective: Objective,
    /// Drop what takes so much more CPU time than the defaults, over all traces (5%, 0.05)
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_overhead: Option<f64>,
    /// Drop what has a longer step of compaction on any trace (1ms, 500us)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_pause: Option<Duration>,
    /// R: drop what has more bytes resident on any trace at any moment (64M, 1G)
    #[arg(long, value_name = "R", value_parser = bytes)]
    memory: Option<u64>,
    /// End after this time (2m, 90s, 1h) with the best so far [default: when nothing is left to try]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// End the search after so many candidates
    #[arg(long, value_name = "N")]
    candidates: Option<usize>,
    /// Leave these settings at their defaults (compaction.mode,table.way)
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    keep: Vec<String>,
    /// Begin with these settings as well: an rmalloc.toml from before
    #[arg(long, value_name = "rmalloc.toml")]
    start: Vec<PathBuf>,
    /// An rmalloc built with handles beside the blocks (feature `beside`): then `table.way = "beside"` is tried with it
    #[arg(long, value_name = "PATH.so")]
    beside: Option<PathBuf>,
    /// When blocks are locked, as in `rmtrace replay`: touched, life, share:P, alloc:T
    #[arg(long, value_name = "RULE", value_parser = parse_lock, default_value = "touched")]
    lock: Lock,
    /// How fast rounds that look at memory go: recorded (compaction has the time that it had in the program) or flat
    /// (quicker; compaction, which may take a share of the time, has nearly none)
    #[arg(long, value_name = "flat|recorded", value_parser = replay_command::parse_pace, default_value = "recorded")]
    pace: Pace,
    /// Of the numbers by chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Go on with this journal: nothing in it is measured again
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Print JSON (docs/tuning.md) instead of text
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  rmtrace tune app-*.rmt                                     until nothing is left to try
  rmtrace tune app-1.rmt app-2.rmt --test app-3.rmt --time 10m
  rmtrace tune app.rmt --objective memory --max-overhead 5% --max-pause 1ms
  rmtrace tune app.rmt --time 1h --resume rmalloc.toml.journal    after an interruption
  RMALLOC_CONFIG=rmalloc.toml rmtrace replay app.rmt -a rmalloc   what it gives

Ctrl-C ends the search with the best so far written. Exit status: 0 done, 1 a trace is damaged, 2 failed, 130 interrupted.";

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_interrupt(signal: libc::c_int) {
    if INTERRUPTS.fetch_add(1, Relaxed) > 0 {
        // SAFETY: a plain call that ends the process; nothing of it runs after.
        unsafe { libc::_exit(128 + signal) };
    }
}

/// The first interrupt is counted, the second one ends the process.
fn catch_interrupts() {
    // SAFETY: an all-zero `sigaction` is a valid value; the handler does nothing but atomic additions and `_exit`.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_interrupt as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

fn is_interrupted() -> bool {
    INTERRUPTS.load(Relaxed) > 0
}

/// A trace that was opened.
struct Opened {
    path: PathBuf,
    reader: TraceReader,
    process: u32,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    refuse_variables()?;
    let all: Vec<PathBuf> = args.traces.iter().chain(&args.test).cloned().collect();
    advise::refuse_twins(&all)?;
    let opened = all.iter().map(|path| open(path, args.process.as_deref()));
    let opened = opened.collect::<anyhow::Result<Vec<Opened>>>()?;
    let mut damaged = false;
    for trace in opened
        .iter()
        .filter(|trace| !trace.reader.damage().is_empty())
    {
        damaged = true;
        eprintln!(
            "rmtrace: {} is damaged: what is there is replayed",
            trace.path.display()
        );
    }
    catch_interrupts();
    let shows = io::stderr().is_terminal();
    let say = |what: &str| {
        if shows {
            eprint!("\r\x1b[K{what}");
        }
    };
    say("preparing");
    let prepared = opened.iter().map(|trace| prepare(trace, args.lock));
    let prepared = prepared.collect::<anyhow::Result<Vec<cache::Kept>>>()?;
    let searched = &opened[..args.traces.len()];
    say("analyzing");
    let (lists, advised) = suggestions(searched)?;
    let space = Space::new(lists, args.beside.is_some(), &args.keep)?;
    let mut starts = vec![("the advice".to_string(), advised)];
    for path in &args.start {
        starts.push((path.display().to_string(), Config::from_file(path)?));
    }
    let single = Single {
        spec: spec::parse("rmalloc").map_err(anyhow::Error::msg)?,
        touched: Touched::All,
        lock: args.lock,
        pace: args.pace,
        // The image that runs, also where its file has been replaced since.
        worker: vec!["/proc/self/exe".into(), replay_command::WORKER.into()],
    };
    let traces = opened.iter().zip(&prepared).map(|(trace, kept)| Trace {
        name: name(&trace.path),
        title: title(trace),
        process: trace.process,
        program: kept.path().to_owned(),
    });
    let beside = args.beside.as_deref().map(library).transpose()?;
    let measured = format!(
        "touch all, locks {}, pace {}{}",
        args.lock.name(),
        match args.pace {
            Pace::Recorded => "recorded",
            Pace::Flat => "flat",
        },
        match &args.beside {
            Some(path) => format!(", beside {} {}", path.display(), checksum(path)?),
            None => String::new(),
        }
    );
    let bench = Replayed::new(traces.collect(), single, beside, is_interrupted)?;
    let header = Header::new(checksum(Path::new("/proc/self/exe"))?, measured.clone());
    let mut journal = match &args.resume {
        Some(path) => Journal::resume(bench, path, &header)?,
        None => Journal::create(bench, &journal_path(&args.output)?, &header)?,
    };
    let wanted = Wanted {
        search: Options {
            objective: args.objective,
            limits: Limits {
                overhead: args.max_overhead,
                pause_ns: args.max_pause.map(|pause| pause.as_nanos() as u64),
                memory_bytes: args.memory,
            },
            seed: args.seed,
            candidates_max: args.candidates,
            starts,
        },
        time: args.time,
        searched: args.traces.len(),
        measured,
        keep: args.keep.clone(),
    };
    let began = Instant::now();
    let mut progress = |at: Progress<'_>| {
        if shows {
            eprint!("\r\x1b[K{}", progress_line(&at, began.elapsed(), args.time));
        }
    };
    let tuned = tune(&mut journal, &space, &wanted, is_interrupted, &mut progress)?;
    say("");
    std::fs::write(&args.output, &tuned.toml)
        .with_context(|| format!("{}: can't be written", args.output.display()))?;
    eprintln!("rmtrace: {} written", args.output.display());
    let printed = match args.json {
        true => serde_json::to_string(&tuned.report)? + "\n",
        false => text::render(&tuned.report),
    };
    match io::stdout().lock().write_all(printed.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.context("can't write the report")?,
    }
    Ok(match (is_interrupted(), damaged) {
        (true, _) => ExitCode::from(EXIT_INTERRUPTED),
        (false, true) => ExitCode::from(EXIT_DAMAGED),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Variables that win over a configuration would win over every candidate.
fn refuse_variables() -> anyhow::Result<()> {
    for name in [LIMIT_VARIABLE, ENTRIES_VARIABLE, MODE_VARIABLE] {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            bail!("{name} is set: it would win over what every candidate says; unset it");
        }
    }
    if std::env::var_os(CONFIG_VARIABLE).is_some_and(|value| !value.is_empty()) {
        eprintln!(
            "rmtrace: {CONFIG_VARIABLE} is set and has no effect here; --start FILE begins with its settings"
        );
    }
    Ok(())
}

fn open(path: &Path, process: Option<&str>) -> anyhow::Result<Opened> {
    let reader = rmtrace::file::open(path)?;
    let process = match process {
        Some(wanted) => {
            find_process(&reader, wanted).with_context(|| path.display().to_string())?
        }
        None => {
            busiest(&reader).with_context(|| format!("{}: no process in it", path.display()))?
        }
    };
    Ok(Opened {
        path: path.to_owned(),
        reader,
        process,
    })
}

fn prepare(trace: &Opened, lock: Lock) -> anyhow::Result<cache::Kept> {
    let lock_ns = match lock {
        Lock::Alloc(ns) => Some(ns),
        _ => None,
    };
    let wanted = Prepared {
        process: trace.process,
        lock_ns,
        rule: None,
    };
    let directory = cache::directory();
    Ok(cache::program(
        &trace.reader,
        wanted,
        directory.as_deref(),
        |_| (),
    )?)
}

/// What the analyzer suggests: size classes to try, and the settings of `rmtrace advise`.
fn suggestions(traces: &[Opened]) -> anyhow::Result<(Vec<ClassList>, Config)> {
    let mut counts = Vec::new();
    let mut subjects = Vec::new();
    for trace in traces {
        counts.push(sizes(trace)?);
        let selected = Selected {
            process: Some(trace.process),
            ..Selected::default()
        };
        let wanted = analyze::Wanted::default();
        let (report, _) = analyze::analyze(&trace.reader, &trace.path, &selected, &wanted);
        subjects.push(advise::subject(&report, &trace.path, Some(trace.process))?);
    }
    let wanted = advice::Wanted {
        memory: None,
        risk_ppm: None,
    };
    let advice = advice::Advice::new(&subjects, wanted).context("there is no trace")?;
    let advised = settings::read(&advice::toml(&advice)).context("the advice")?;
    Ok((class_lists(&counts), advised))
}

/// Blocks of the process by their sizes and the time they lived.
fn sizes(trace: &Opened) -> anyhow::Result<SizeCounts> {
    let mut sizes = ExactSizes::default();
    let options = MergeOptions {
        processes: Some(vec![trace.process]),
        ..MergeOptions::default()
    };
    facts(&trace.reader, options, &Filter::default(), |fact| {
        sizes.fact(fact, Peaks::default());
    })?;
    Ok(sizes.finish(Peaks::default()))
}

/// The largest class.
const LARGEST: u64 = best_classes::BOUND;
/// Classes of a list at most, as rmalloc has room for.
const CLASSES_MAX: usize = 192;

/// Size classes to try: steps of a size's 4th, 8th and 16th, and the best ones of all traces with a safety net of steps, so
/// that sizes that no trace has waste little.
fn class_lists(counts: &[SizeCounts]) -> Vec<ClassList> {
    let steps = |parts: u64| -> BTreeSet<u32> {
        let mut sizes = BTreeSet::new();
        let mut size = 16;
        while size <= LARGEST {
            sizes.insert(size as u32);
            let octave = 1u64 << size.ilog2();
            size += (octave / parts).max(16);
        }
        sizes
    };
    let list = |name: String, sizes: BTreeSet<u32>| ClassList {
        name,
        sizes: sizes.into_iter().collect(),
    };
    let mut lists = vec![
        list("steps-4".to_string(), steps(4)),
        list("steps-8".to_string(), steps(8)),
        list("steps-16".to_string(), steps(16)),
    ];
    for (count, net) in [(16, 4), (32, 4), (64, 8)] {
        let mut sizes = steps(net);
        for trace in counts {
            let best = best_classes::best(trace, Weight::OverTime, count);
            sizes.extend(best.sizes.iter().map(|size| *size as u32));
        }
        sizes.retain(|size| u64::from(*size) <= LARGEST);
        if sizes.len() <= CLASSES_MAX {
            lists.push(list(format!("best-{count}"), sizes));
        }
    }
    lists
}

fn library(path: &Path) -> anyhow::Result<Spec> {
    let path = path
        .canonicalize()
        .with_context(|| format!("{}: can't be opened", path.display()))?;
    spec::parse(&path.to_string_lossy()).map_err(anyhow::Error::msg)
}

/// CRC-32 of a file.
fn checksum(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(rmtrace::tune::journal::checksum(&bytes))
}

/// Beside the output; one that is there is kept under another name.
fn journal_path(output: &Path) -> anyhow::Result<PathBuf> {
    let with = |end: &str| {
        let mut name = output.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let path = with(".journal");
    if path.exists() {
        let old = with(".journal.old");
        std::fs::rename(&path, &old).with_context(|| path.display().to_string())?;
        eprintln!(
            "rmtrace: the journal of an earlier run is now {}; --resume goes on with it",
            old.display()
        );
    }
    Ok(path)
}

fn name(path: &Path) -> String {
    path.file_name()
        .map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

fn title(trace: &Opened) -> String {
    let about = trace.reader.process(trace.process);
    let words = about.map(|process| [process.name.as_str(), process.role.as_str()]);
    let words = words.into_iter().flatten().filter(|word| !word.is_empty());
    words.collect::<Vec<&str>>().join(", ")
}

/// Rules that a worker follows by itself, or with a program that carries ends of locks.
fn parse_lock(text: &str) -> Result<Lock, String> {
    match locks::parse(text)? {
        LockArgument::Rule(
            lock @ (Lock::Touched | Lock::Life | Lock::Share(_) | Lock::Alloc(_)),
        ) => Ok(lock),
        _ => Err("touched, life, share:P (share:10%) or alloc:T (alloc:1ms)".to_string()),
    }
}

fn progress_line(at: &Progress<'_>, elapsed: Duration, time: Option<Duration>) -> String {
    let best = match at.best {
        Some((name, score)) => {
            let short: String = name.chars().take(60).collect();
            format!("best {:.3} of the defaults: {short}", score.exp())
        }
        None => "best: the defaults".to_string(),
    };
    let left = match time {
        Some(time) => format!("{} s left", time.saturating_sub(elapsed).as_secs()),
        None => format!("{} s", elapsed.as_secs()),
    };
    format!(
        "{} candidates, rung {}/{}, {left}; {best}",
        at.tried, at.rung.0, at.rung.1
    )
}

/// A share as people write it: `5%` or `0.05`.
fn share(text: &str) -> Result<f64, String> {
    let (number, of) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share: f64 = number
        .trim()
        .parse()
        .map_err(|_| "a share, as in 5% or 0.05".to_string())?;
    match (0.0..=10.0).contains(&(share / of)) {
        true => Ok(share / of),
        false => Err("a share is from 0% to 1000%".to_string()),
    }
}

/// A time with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let ns = match &text[digits.len()..] {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3_600e9,
        _ => return Err("a time has a unit: us, ms, s, m or h".to_string()),
    };
    let number: f64 = digits
        .trim()
        .parse()
        .map_err(|_| "a time, as in 1ms or 2m".to_string())?;
    let ns = number * ns;
    match (1.0..1e18).contains(&ns) {
        true => Ok(Duration::from_nanos(ns as u64)),
        false => Err("a time is above 0".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_times_are_read_as_people_write_them() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("0.25"), Ok(0.25));
        for wrong in ["", "-1%", "x", "5", "nan"] {
            assert_eq!(share(wrong).is_err(), wrong != "5", "{wrong}");
        }
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1.5ms"), Ok(Duration::from_micros(1_500)));
        for wrong in ["", "1", "0s", "-1s", "s", "1d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn class_lists_may_be_and_serve_all_sizes() {
        let lists = class_lists(&[]);
        assert_eq!(lists.len(), 6);
        for list in &lists {
            assert_eq!(list.sizes.last(), Some(&(LARGEST as u32)), "{}", list.name);
        }
        assert!(Space::new(lists, false, &[]).is_ok());
    }
}
