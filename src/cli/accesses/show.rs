//! What is said of recorded accesses.

use super::EXIT_UNREADABLE;
use anyhow::Context;
use rmtrace::accesses::{AccessFile, BlockRecord, Summary};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A line of progress.
pub struct Running {
    shows: bool,
    shown: bool,
    began: Instant,
    drawn: Instant,
}

impl Running {
    /// Shown on a terminal if it is `wanted`.
    pub fn new(wanted: bool) -> Running {
        Running {
            shows: wanted && io::stderr().is_terminal(),
            shown: false,
            began: Instant::now(),
            drawn: Instant::now(),
        }
    }

    /// So far.
    pub fn show(&mut self, instructions: u64, calls: u64) {
        if !self.shows || self.drawn.elapsed() < Duration::from_millis(500) {
            return;
        }
        self.drawn = Instant::now();
        self.shown = true;
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = instructions as f64 / seconds / 1e6;
        eprint!(
            "\r\x1b[K{} instructions, {rate:.1} M/s, {} calls",
            grouped(instructions),
            grouped(calls)
        );
    }

    /// Takes the line away.
    pub fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

/// Runs `--show`.
pub fn run(path: &Path, blocks: bool, json: bool) -> anyhow::Result<ExitCode> {
    let file = match AccessFile::open(path) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("rmtrace: {:#}", anyhow::Error::new(error));
            return Ok(ExitCode::from(EXIT_UNREADABLE));
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match (blocks, json) {
        (true, _) => write_blocks(&file, &mut out)?,
        (false, true) => writeln!(out, "{}", serde_json::to_string(&file.summary)?),
        (false, false) => {
            out.write_all(text(&file.summary, &path.display().to_string(), file.bytes).as_bytes())
        }
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.context("can't write")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The threads of calls by number, from the runs of the file.
struct Callers(Vec<(u64, u32, u64)>);

impl Callers {
    fn new(file: &AccessFile) -> anyhow::Result<Callers> {
        let (mut at, mut of_thread) = (0, HashMap::new());
        let runs = file.order()?.into_iter().map(|(thread, calls)| {
            let before = of_thread.entry(thread).or_insert(0u64);
            let run = (at, thread, *before);
            at += calls;
            *before += calls;
            run
        });
        Ok(Callers(runs.collect()))
    }

    /// Thread and number in the thread of a call.
    fn find(&self, call: u64) -> (u32, u64) {
        let at = self.0.partition_point(|(first, ..)| *first <= call);
        match self.0.get(at.wrapping_sub(1)) {
            Some((first, thread, before)) => (*thread, before + (call - first)),
            None => (0, call),
        }
    }
}

fn write_blocks(file: &AccessFile, out: &mut impl Write) -> anyhow::Result<io::Result<()>> {
    let callers = Callers::new(file)?;
    let mut parts: HashMap<u64, Vec<rmtrace::accesses::Span>> = HashMap::new();
    let mut written = Ok(());
    file.blocks(|mut block: BlockRecord| {
        if block.is_part {
            parts.entry(block.birth).or_default().append(&mut block.crossing);
            return;
        }
        let mut spans = parts.remove(&block.birth).unwrap_or_default();
        spans.append(&mut block.crossing);
        let spans: Vec<[u64; 2]> = spans.into_iter().map(|span| [span.from, span.to]).collect();
        let (thread, thread_call) = callers.find(block.birth);
        let line = serde_json::json!({
            "birth": block.birth, "thread": thread, "thread_call": thread_call, "end": block.end, "bytes": block.bytes,
            "born_at": block.born_at, "reads": block.reads, "writes": block.writes, "first_access": block.first_access,
            "used_for": block.used_for, "spans": block.spans, "locked_instructions": block.locked_instructions,
            "crossing": spans,
        });
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    })?;
    Ok(written)
}

/// A number with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at != 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn share(part: u64, of: u64) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

/// The summary as text.
pub fn text(summary: &Summary, name: &str, bytes: u64) -> String {
    let mut text = String::new();
    let total = summary.accesses.total();
    let accesses = &summary.accesses;
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{name}: {} accesses of {} instructions, {} calls, {} thread{}",
        grouped(total),
        grouped(summary.instructions),
        grouped(summary.calls),
        summary.threads.len(),
        if summary.threads.len() == 1 { "" } else { "s" },
    );
    let _ = writeln!(
        text,
        "{bytes} bytes, {:.4} an access; trace {}, process {}",
        bytes as f64 / total.max(1) as f64,
        summary.trace,
        summary.process
    );
    let _ = writeln!(
        text,
        "loads {}, stores {}, both in one {}",
        grouped(accesses.loads),
        grouped(accesses.stores),
        grouped(accesses.modifies)
    );
    let places = &summary.places;
    let _ = writeln!(text, "\n{:<34}{:>16}{:>9}", "accesses of", "", "share");
    for (what, count) in [
        ("live blocks", places.blocks),
        ("freed blocks", places.freed),
        (
            "the allocator and the recorder",
            places.allocator + places.recorder,
        ),
        ("stacks", places.stack),
        ("code and data of images, files", places.files),
        ("other memory", places.other),
    ] {
        let _ = writeln!(
            text,
            "{what:<34}{:>16}{:>7.2} %",
            grouped(count),
            share(count, total)
        );
    }
    let known = places.blocks + places.freed + places.other;
    let _ = writeln!(
        text,
        "of memory that is no stack, image or the allocator's, {:.2} % is matched to live blocks",
        share(places.blocks, known)
    );
    let blocks = &summary.blocks;
    let _ = writeln!(
        text,
        "\n{:<34}{:>16}{:>9}",
        "blocks",
        grouped(blocks.recorded),
        "share"
    );
    for (what, count) in [
        ("never touched after their birth", blocks.never_touched),
        ("never read", blocks.never_read),
        ("live at the end", blocks.live_at_end),
    ] {
        let _ = writeln!(
            text,
            "{what:<34}{:>16}{:>7.2} %",
            grouped(count),
            share(count, blocks.recorded)
        );
    }
    let _ = writeln!(
        text,
        "times of use (accesses at most {} instructions apart) {}, with calls within {}",
        grouped(summary.gap_instructions),
        grouped(summary.spans.all),
        grouped(summary.spans.crossing)
    );
    after_free(&mut text, summary);
    cost(&mut text, summary);
    text
}

fn after_free(text: &mut String, summary: &Summary) {
    const SHOWN: usize = 5;
    for site in summary.after_free.iter().take(SHOWN) {
        let place = match site.file.as_str() {
            "" => format!("{:#x}", site.code),
            file => format!("{file}+{:#x}", site.file_offset),
        };
        let _ = writeln!(
            text,
            "{} access{} after free at {place}: first a {} of byte {} of a freed block of {} bytes that call {} had made",
            grouped(site.accesses),
            if site.accesses == 1 { "" } else { "es" },
            if site.writes { "write" } else { "read" },
            site.offset,
            site.bytes,
            site.birth,
        );
    }
    let more = summary.after_free.len().saturating_sub(SHOWN);
    if more != 0 {
        let _ = writeln!(
            text,
            "and at {more} more places: --show FILE --json has them"
        );
    }
}

fn cost(text: &mut String, summary: &Summary) {
    let cost = &summary.cost;
    let seconds = |ns: u64| ns as f64 / 1e9;
    let _ = writeln!(
        text,
        "\nunder Valgrind {:.2} s, CPU {:.2} s, reading its {} bytes took CPU {:.2} s",
        seconds(cost.wall_ns),
        seconds(cost.cpu_ns),
        grouped(cost.stream_bytes),
        seconds(cost.reader_cpu_ns)
    );
    if cost.plain_wall_ns != 0 {
        let _ = writeln!(
            text,
            "alone {:.3} s, CPU {:.3} s: {:.0} times slower, {:.0} times the CPU time",
            seconds(cost.plain_wall_ns),
            seconds(cost.plain_cpu_ns),
            cost.wall_ns as f64 / cost.plain_wall_ns as f64,
            (cost.cpu_ns + cost.reader_cpu_ns) as f64 / cost.plain_cpu_ns.max(1) as f64,
        );
    }
}
