//! `--lock` of `rmtrace replay`: the rules as they are written, and the sweep over shares of locked blocks.

use anyhow::Context;
use rmtrace::accesses::AccessFile;
use rmtrace::replay::ReplayError;
use rmtrace::replay::cache::Kept;
use rmtrace::replay::lock::Rule;
use rmtrace::replay::replay::{Options, Programs, replay};
use rmtrace::replay::report::Trace;
use rmtrace::replay::sweep::{Order, SHARES, Sweep, render, rows};
use rmtrace::replay::task::{Lock, Round};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// What `--lock` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockArgument {
    /// A rule without a file.
    Rule(Lock),
    /// Recorded accesses.
    Accesses(PathBuf),
    /// One replay for each share.
    Sweep,
}

impl LockArgument {
    /// The rule that workers know.
    pub fn lock(&self) -> Lock {
        match self {
            LockArgument::Rule(lock) => *lock,
            LockArgument::Accesses(_) => Lock::Accesses,
            LockArgument::Sweep => Lock::Touched,
        }
    }

    /// What the program has to carry for it.
    pub fn rule(&self) -> Option<Rule<'_>> {
        match self {
            LockArgument::Accesses(path) => Some(Rule::Accesses(path)),
            LockArgument::Rule(Lock::Score) => Some(Rule::Score),
            LockArgument::Rule(Lock::Old(millionths)) => Some(Rule::Old(*millionths)),
            LockArgument::Rule(_) | LockArgument::Sweep => None,
        }
    }

    /// The process that recorded accesses are of.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn process(&self) -> anyhow::Result<Option<u32>> {
        match self {
            LockArgument::Accesses(path) => Ok(Some(AccessFile::open(path)?.summary.process)),
            _ => Ok(None),
        }
    }
}

/// Reads a share, in millionths.
fn millionths(text: &str) -> Result<u32, String> {
    let (number, of) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share: f64 = number.trim().parse().map_err(|_| wrong())?;
    let millionths = share / of * 1e6;
    match (0.0..=1e6).contains(&millionths) {
        true => Ok(millionths.round() as u32),
        false => Err("a share is between 0% and 100%".to_string()),
    }
}

fn wrong() -> String {
    "touched, never, life, share:P (share:10%, share:10%,old), alloc:T (alloc:1ms), score, accesses:FILE.rma or sweep"
        .to_string()
}

/// Reads a rule.
pub fn parse(text: &str) -> Result<LockArgument, String> {
    let rule = |lock| Ok(LockArgument::Rule(lock));
    match text.split_once(':') {
        None => match text {
            "touched" | "never" => rule(Lock::Touched),
            "life" => rule(Lock::Life),
            "score" => rule(Lock::Score),
            "sweep" => Ok(LockArgument::Sweep),
            _ => Err(wrong()),
        },
        Some(("share", share)) => match share.strip_suffix(",old") {
            Some(share) => rule(Lock::Old(millionths(share)?)),
            None => rule(Lock::Share(millionths(share)?)),
        },
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
                true => rule(Lock::Alloc((number * unit) as u64)),
                false => Err(wrong()),
            }
        }
        Some(("accesses", "")) => {
            Err("accesses:FILE.rma, as `rmtrace accesses` wrote it".to_string())
        }
        Some(("accesses", path)) => Ok(LockArgument::Accesses(path.into())),
        _ => Err(wrong()),
    }
}

/// What a sweep is to do.
pub struct SweepOptions {
    /// As of a replay; the lock rule is the sweep's.
    pub options: Options,
    /// JSON instead of text.
    pub json: bool,
}

/// Replays once for each share, and prints the table. `prepare` makes the program in which a share of the blocks, in
/// millionths, those that live longest, is locked.
pub fn sweep(
    wanted: &SweepOptions,
    trace: Trace,
    plain: &Path,
    prepare: impl Fn(u32) -> Result<Kept, ReplayError>,
) -> anyhow::Result<()> {
    let shows = io::stderr().is_terminal();
    let mut table = Vec::new();
    let mut about = None;
    for order in [Order::Random, Order::Old] {
        for share in SHARES {
            // Without locks both orders are the same.
            if share == 0 && order == Order::Old {
                continue;
            }
            let locked = match order {
                Order::Old => Some(prepare(share)?),
                Order::Random => None,
            };
            let options = Options {
                lock: match order {
                    Order::Random => Lock::Share(share),
                    Order::Old => Lock::Old(share),
                },
                ..wanted.options.clone()
            };
            let programs = Programs {
                plain,
                locked: locked.as_ref().map(|kept| kept.path()),
            };
            let mut progress = |name: &str, _: Round| {
                if shows {
                    eprint!("\r\x1b[K{name}: {}", options.lock.name());
                }
            };
            let report = replay(programs, &options, trace.clone(), &mut progress)?;
            table.extend(rows(&report, order, share));
            about.get_or_insert(report);
        }
    }
    if shows {
        eprint!("\r\x1b[K");
    }
    let report = about.context("no replay")?;
    let mut settings = report.settings;
    settings.lock = "sweep".to_string();
    let sweep = Sweep {
        schema: report.schema,
        trace,
        settings,
        machine: report.machine,
        sweep: table,
    };
    let printed = match wanted.json {
        true => serde_json::to_string(&sweep)? + "\n",
        false => render(&sweep),
    };
    match io::stdout().lock().write_all(printed.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("can't write the report"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_rules_are_read_as_people_write_them() {
        let rule = |text| match parse(text) {
            Ok(LockArgument::Rule(lock)) => Some(lock),
            _ => None,
        };
        assert_eq!(rule("touched"), Some(Lock::Touched));
        assert_eq!(rule("never"), Some(Lock::Touched));
        assert_eq!(rule("life"), Some(Lock::Life));
        assert_eq!(rule("score"), Some(Lock::Score));
        assert_eq!(rule("share:10%"), Some(Lock::Share(100_000)));
        assert_eq!(rule("share:0.25"), Some(Lock::Share(250_000)));
        assert_eq!(rule("share:0.25,old"), Some(Lock::Old(250_000)));
        assert_eq!(rule("alloc:1ms"), Some(Lock::Alloc(1_000_000)));
        assert_eq!(rule("alloc:0.5us"), Some(Lock::Alloc(500)));
        assert_eq!(parse("sweep"), Ok(LockArgument::Sweep));
        assert_eq!(
            parse("accesses:a:b.rma"),
            Ok(LockArgument::Accesses("a:b.rma".into()))
        );
        for wrong in [
            "ever",
            "share",
            "share:200%",
            "share:x",
            "share:1%,young",
            "alloc:1",
            "alloc:-1ms",
            "alloc:ms",
            "accesses",
            "accesses:",
            "score:2",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
