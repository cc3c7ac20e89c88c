//! Which part of a trace a command is about: process, threads, time, sizes, kind. The same options in
//! every command that reads events.

use super::bytes::bytes;
use anyhow::{Context, bail};
use rmtrace::analyzer::ledger::Filter;
use rmtrace::file::model::Process;
use rmtrace::file::{MergeOptions, TraceReader};
use rmtrace::format::Kind;
use std::ops::Range;
use std::str::FromStr;

/// Which blocks, of which part of a trace.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Selection {
    #[command(flatten)]
    pub part: Part,
    #[command(flatten)]
    pub which: Which,
}

impl Selection {
    /// Looks everything up in the trace.
    pub fn resolve(&self, reader: &TraceReader) -> anyhow::Result<Selected> {
        let mut selected = self.part.resolve(reader)?;
        self.which.add_to(&mut selected);
        Ok(selected)
    }
}

/// The part of a trace to look at.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Part {
    /// Only this process: its number in the trace, its pid, its name or its role
    #[arg(long, value_name = "P", help_heading = "Which part")]
    pub process: Option<String>,
    /// Only calls of these threads: number, tid or name, in each process; several are separated by commas
    #[arg(
        long,
        value_name = "T",
        help_heading = "Which part",
        value_delimiter = ','
    )]
    pub thread: Vec<String>,
    /// Only calls from this moment on: 1.5s, 300ms, 20% of the run, or the name of a mark
    #[arg(long, value_name = "WHEN", help_heading = "Which part")]
    pub from: Option<When>,
    /// Only calls before this moment, said in the same ways
    #[arg(long, value_name = "WHEN", help_heading = "Which part")]
    pub to: Option<When>,
}

/// The blocks to look at.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Which {
    /// Only blocks of this many bytes at first: LOW..HIGH (HIGH excluded), either may be missing; 4K, 1M
    #[arg(long, value_name = "LOW..HIGH", help_heading = "Which part", value_parser = sizes)]
    pub size: Option<Range<u64>>,
    /// Only blocks allocated by functions of this kind
    #[arg(long, value_name = "KIND", help_heading = "Which part", value_parser = ["malloc", "calloc", "realloc", "memalign"])]
    pub kind: Option<String>,
}

/// A moment of a run, as people write it.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// Nanoseconds since the run's first record.
    Ns(u64),
    /// Millionths of the run.
    Ppm(u64),
    /// The first mark of this name.
    Mark(String),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent
                .trim()
                .parse()
                .map_err(|_| "not a percentage, as in 20%".to_string())?;
            if !(0.0..=100.0).contains(&percent) {
                return Err("a percentage is between 0 and 100".to_string());
            }
            return Ok(When::Ppm((percent * 10_000.0).round() as u64));
        }
        if !text.starts_with(|first: char| first.is_ascii_digit() || first == '.' || first == '-') {
            return Ok(When::Mark(text.to_owned()));
        }
        let duration: jiff::SignedDuration = text
            .parse()
            .map_err(|_| "not a time, as in 1.5s, 300ms or 2m 10s".to_string())?;
        let ns = u64::try_from(duration.as_nanos());
        ns.map(When::Ns)
            .map_err(|_| "a time before the run's first record".to_string())
    }
}

/// What a selection means in a trace.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    /// The process, if one is wanted.
    pub process: Option<u32>,
    /// Threads, in each process, if not all.
    pub threads: Option<Vec<u32>>,
    /// Nanoseconds since the run's first record, if not all.
    pub window: Option<Range<u64>>,
    /// Which blocks.
    pub filter: Filter,
    /// What is left out, in words.
    pub remarks: Vec<String>,
}

impl Part {
    /// Looks everything up in the trace.
    pub fn resolve(&self, reader: &TraceReader) -> anyhow::Result<Selected> {
        let process = match &self.process {
            Some(wanted) => Some(find_process(reader, wanted)?),
            None => None,
        };
        let mut selected = Selected {
            process,
            ..Selected::default()
        };
        if !self.thread.is_empty() {
            let mut threads = Vec::new();
            for wanted in &self.thread {
                find_threads(reader, process, wanted, &mut threads)?;
            }
            threads.sort_unstable();
            threads.dedup();
            selected
                .remarks
                .push(format!("only thread {}", self.thread.join(", ")));
            selected.threads = Some(threads);
        }
        if self.from.is_some() || self.to.is_some() {
            let from = self
                .from
                .as_ref()
                .map_or(Ok(0), |when| moment(reader, when))?;
            let to = self
                .to
                .as_ref()
                .map_or(Ok(u64::MAX), |when| moment(reader, when))?;
            if from >= to {
                bail!("--from is not before --to: {} ns and {} ns", from, to);
            }
            let text = |ns| rmtrace::analyzer::text::units::time(ns);
            selected.remarks.push(match (from, to) {
                (0, to) => format!("only until {}", text(to)),
                (from, u64::MAX) => format!("only from {}", text(from)),
                (from, to) => format!("only from {} to {}", text(from), text(to)),
            });
            selected.window = Some(from..to);
        }
        Ok(selected)
    }
}

impl Which {
    /// Whether all blocks are wanted.
    pub fn is_all(&self) -> bool {
        self.size.is_none() && self.kind.is_none()
    }

    fn add_to(&self, selected: &mut Selected) {
        if let Some(sizes) = &self.size {
            selected.remarks.push(match sizes.end {
                u64::MAX => format!("only blocks of {} bytes and more", sizes.start),
                end if end - sizes.start == 1 => format!("only blocks of {} bytes", sizes.start),
                end => format!("only blocks of {} to {} bytes", sizes.start, end - 1),
            });
            selected.filter.sizes = Some(sizes.clone());
        }
        if let Some(kind) = &self.kind {
            selected.remarks.push(format!("only blocks from {kind}"));
            selected.filter.kind = Some(match kind.as_str() {
                "malloc" => Kind::Malloc,
                "calloc" => Kind::Calloc,
                "realloc" => Kind::Realloc,
                _ => Kind::Memalign,
            });
        }
    }
}

impl Selected {
    /// What to merge.
    pub fn merge(&self, reader: &TraceReader) -> MergeOptions<'static> {
        MergeOptions {
            processes: self.process.map(|process| reader.with_ancestors(process)),
            threads: self.threads.clone(),
            window: self.window.clone(),
            ..MergeOptions::default()
        }
    }

    /// About how many calls that is: those of the frames that touch it.
    pub fn calls(&self, reader: &TraceReader) -> u64 {
        let processes = self.process.map(|process| reader.with_ancestors(process));
        let wanted = reader.frames().iter().filter(|frame| {
            let (first, last) = (reader.ns(frame.first_tick()), reader.ns(frame.last_tick()));
            let in_time = self
                .window
                .as_ref()
                .is_none_or(|window| first < window.end && last >= window.start);
            in_time
                && processes
                    .as_ref()
                    .is_none_or(|processes| processes.contains(&frame.process))
        });
        wanted.fold(0, |sum, frame| sum.saturating_add(frame.calls()))
    }
}

/// The process that a person means: by number, pid, role or name; of several, the one with most
/// calls.
pub fn find_process(reader: &TraceReader, wanted: &str) -> anyhow::Result<u32> {
    let number: Option<u32> = wanted.parse().ok();
    if let Some(process) = number.and_then(|number| reader.process(number)) {
        return Ok(process.number);
    }
    let fits = |process: &&Process| {
        Some(process.pid) == number || process.role == wanted || process.name == wanted
    };
    let found: Vec<&Process> = reader.processes().iter().filter(fits).collect();
    let most = found
        .iter()
        .rev()
        .max_by_key(|process| reader.calls_of(process.number));
    let Some(process) = most else {
        bail!("no process has the number, pid, role or name `{wanted}`: `rmtrace info` lists them");
    };
    if found.len() > 1 {
        eprintln!(
            "rmtrace: {} processes are `{wanted}`; this is process {}, pid {}, the one with most events",
            found.len(),
            process.number,
            process.pid
        );
    }
    Ok(process.number)
}

/// The numbers of the threads that a person means: by number, tid or name.
fn find_threads(
    reader: &TraceReader,
    process: Option<u32>,
    wanted: &str,
    into: &mut Vec<u32>,
) -> anyhow::Result<()> {
    let number: Option<u32> = wanted.parse().ok();
    let processes = reader
        .processes()
        .iter()
        .filter(|of| process.is_none_or(|process| process == of.number));
    let threads: Vec<_> = processes.flat_map(|process| &process.threads).collect();
    let before = into.len();
    into.extend(
        threads
            .iter()
            .filter(|thread| Some(thread.number) == number)
            .map(|thread| thread.number),
    );
    if into.len() == before {
        let fits = threads
            .iter()
            .filter(|thread| Some(thread.tid) == number || thread.name == wanted);
        into.extend(fits.map(|thread| thread.number));
    }
    if into.len() == before {
        bail!("no thread has the number, tid or name `{wanted}`: `rmtrace info -v` lists them");
    }
    Ok(())
}

fn moment(reader: &TraceReader, when: &When) -> anyhow::Result<u64> {
    match when {
        When::Ns(ns) => Ok(*ns),
        When::Ppm(ppm) => {
            let last = reader.ticks().map_or(0, |(_, last)| reader.ns(last));
            Ok((u128::from(last) * u128::from(*ppm) / 1_000_000) as u64)
        }
        When::Mark(name) => {
            let found = reader.mark_named(name).context("can't look for the mark")?;
            if let Some(ns) = found {
                return Ok(ns);
            }
            let marks = reader.all_marks()?;
            let mut names: Vec<&str> = marks
                .iter()
                .map(|(_, mark)| mark.name.as_str())
                .filter(|name| !name.is_empty())
                .collect();
            names.dedup();
            names.truncate(20);
            match names.is_empty() {
                true => bail!(
                    "`{name}` is neither a time (1.5s, 20%) nor a mark: the trace has no named marks"
                ),
                false => bail!(
                    "`{name}` is neither a time (1.5s, 20%) nor a mark; its marks are {}",
                    names.join(", ")
                ),
            }
        }
    }
}

/// LOW..HIGH, or one size.
fn sizes(text: &str) -> Result<Range<u64>, String> {
    let Some((low, high)) = text.split_once("..") else {
        let one = bytes(text)?;
        return Ok(one..one.saturating_add(1));
    };
    let low = if low.is_empty() { 0 } else { bytes(low)? };
    let high = if high.is_empty() {
        u64::MAX
    } else {
        bytes(high)?
    };
    if low >= high {
        return Err(format!("no size is in it: {low} is not less than {high}"));
    }
    Ok(low..high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_sizes_may_be_open() {
        assert_eq!(sizes("16..4K"), Ok(16..4096));
        assert_eq!(sizes("..64"), Ok(0..64));
        assert_eq!(sizes("1M.."), Ok(1 << 20..u64::MAX));
        assert_eq!(sizes("24"), Ok(24..25));
        assert!(sizes("64..64").is_err());
    }

    #[test]
    fn moments_are_times_shares_or_marks() {
        assert_eq!("1.5s".parse(), Ok(When::Ns(1_500_000_000)));
        assert_eq!("300ms".parse(), Ok(When::Ns(300_000_000)));
        assert_eq!("2m 10s".parse(), Ok(When::Ns(130_000_000_000)));
        assert_eq!("12.5%".parse(), Ok(When::Ppm(125_000)));
        assert_eq!("page loaded".parse(), Ok(When::Mark("page loaded".into())));
        assert!("-1s".parse::<When>().is_err());
        assert!("101%".parse::<When>().is_err());
        assert!("17".parse::<When>().is_err());
    }
}
