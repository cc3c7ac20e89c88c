//! `rmtrace dump`: the merged events, one a line.

use super::info::{ended, finish, started_by, warn_of_damage};
use super::select::Part;
use rmtrace::file::model::{Ended, Mark, Process, Sample};
use rmtrace::file::{Consumer, MergeOptions};
use rmtrace::format::{Event, Step};
use std::cell::Cell;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write the events in time order, one a line (a realloc is two: its begin and its end).
#[derive(clap::Args)]
pub struct Args {
    /// A trace file, or the directory that LD_PRELOAD left.
    trace: PathBuf,
    /// Stop after N lines of events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    part: Part,
    /// A JSON object a line, integers exact.
    #[arg(long)]
    json_lines: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let reader = rmtrace::file::open(&args.trace)?;
    let selected = args.part.resolve(&reader)?;
    let done = Cell::new(args.limit == Some(0));
    let mut dump = Dump {
        out: io::BufWriter::with_capacity(1 << 16, io::stdout().lock()),
        written: Ok(()),
        left: args.limit.unwrap_or(u64::MAX),
        done: &done,
        json: args.json_lines,
    };
    if !dump.json {
        dump.line(format_args!(
            "{:>15} {:>5} {:>5}  {:<24} {:>14}  address",
            "ns", "proc", "thr", "call", "bytes"
        ));
    }
    let mut progress = |_| match done.get() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let options = MergeOptions {
        // Not those it inherited from: their events are not wanted.
        processes: selected.process.map(|process| vec![process]),
        progress: Some(&mut progress),
        ..selected.merge(&reader)
    };
    reader.merge_with(&mut dump, options)?;
    finish(dump.written.and_then(|()| dump.out.flush()))?;
    Ok(warn_of_damage(&reader))
}

struct Dump<'a, W> {
    out: W,
    /// After the first failure nothing more is written.
    written: io::Result<()>,
    left: u64,
    /// Set when nothing more is to be written.
    done: &'a Cell<bool>,
    json: bool,
}

impl<W: Write> Dump<'_, W> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        if self.written.is_ok() && self.left > 0 {
            self.written = self
                .out
                .write_fmt(line)
                .and_then(|()| self.out.write_all(b"\n"));
        }
    }

    fn object(&mut self, object: &serde_json::Value) {
        self.line(format_args!("{object}"));
    }

    /// A line of text that is no event.
    fn remark(&mut self, time_ns: u64, process: u32, text: std::fmt::Arguments<'_>) {
        self.line(format_args!("{time_ns:>15} {process:>5}        {text}"));
    }

    fn text_event(&mut self, event: &Event) {
        let Event {
            time_ns,
            process,
            thread,
            requested_bytes,
            address,
            old_address,
            ..
        } = *event;
        let name = event.entry.name();
        let call = match event.step {
            Step::Alloc | Step::Free => name.to_string(),
            Step::ReallocBegin => format!("{name} begins"),
            Step::ReallocEnd => format!("{name} ends"),
        };
        let hex = |address| match address {
            0 => "NULL".to_string(),
            address => format!("{address:#x}"),
        };
        let place = match event.step {
            _ if event.failed() => "failed".to_string(),
            Step::Alloc | Step::Free => hex(address),
            Step::ReallocBegin => hex(old_address),
            Step::ReallocEnd if address == 0 => format!("{} -> freed", hex(old_address)),
            Step::ReallocEnd => format!("{} -> {}", hex(old_address), hex(address)),
        };
        let mut more = String::new();
        if event.align_log2 != 0 {
            more += &format!("  align 2^{}", event.align_log2);
        }
        if event.usable_bytes != 0 {
            more += &format!("  usable {}", event.usable_bytes);
        }
        if event.caller != 0 {
            more += &format!("  caller {:#x}", event.caller);
        }
        let bytes = match event.step {
            Step::Free => String::new(),
            _ => requested_bytes.to_string(),
        };
        self.line(format_args!(
            "{time_ns:>15} {process:>5} {thread:>5}  {call:<24} {bytes:>14}  {place}{more}"
        ));
    }

    fn json_event(&mut self, event: &Event) {
        let step = match event.step {
            Step::Alloc => "alloc",
            Step::Free => "free",
            Step::ReallocBegin => "realloc_begin",
            Step::ReallocEnd => "realloc_end",
        };
        // Written by hand: names need no escapes, and this is ten times as fast as a tree.
        self.line(format_args!(
            "{{\"type\":\"event\",\"time_ns\":{},\"process\":{},\"thread\":{},\"call\":\"{}\",\
             \"kind\":\"{}\",\"step\":\"{step}\",\"requested_bytes\":{},\"address\":{},\
             \"old_address\":{},\"align_log2\":{},\"usable_bytes\":{},\"caller\":{},\"freed\":{},\
             \"failed\":{}}}",
            event.time_ns,
            event.process,
            event.thread,
            event.entry.name(),
            event.kind().name(),
            event.requested_bytes,
            event.address,
            event.old_address,
            event.align_log2,
            event.usable_bytes,
            event.caller,
            event.flags & Event::FREED != 0,
            event.failed(),
        ));
    }
}

impl<W: Write> Consumer for Dump<'_, W> {
    fn event(&mut self, event: &Event) {
        if self.json {
            self.json_event(event);
        } else {
            self.text_event(event);
        }
        self.left = self.left.saturating_sub(1);
        if self.written.is_err() || self.left == 0 {
            self.done.set(true);
        }
    }

    fn process_started(&mut self, process: &Process, time_ns: u64) {
        if self.json {
            self.object(&serde_json::json!({
                "type": "process", "time_ns": time_ns, "process": process.number,
                "pid": process.pid, "name": process.name, "role": process.role,
                "parent": process.parent, "started_by": started_by(process),
            }));
        } else {
            let (name, pid) = (super::info::name_and_role(process), process.pid);
            let how = started_by(process);
            match process.parent {
                Some(parent) => self.remark(
                    time_ns,
                    process.number,
                    format_args!("{name} (pid {pid}) starts: {how} of process {parent}"),
                ),
                None => self.remark(
                    time_ns,
                    process.number,
                    format_args!("{name} (pid {pid}) starts"),
                ),
            }
        }
    }

    fn process_ended(&mut self, process: u32, how: Ended, time_ns: u64) {
        if self.json {
            self.object(&serde_json::json!({
                "type": "end", "time_ns": time_ns, "process": process, "how": ended(how),
            }));
        } else {
            self.remark(time_ns, process, format_args!("ends: {}", ended(how)));
        }
    }

    fn mark(&mut self, mark: &Mark, time_ns: u64) {
        if self.json {
            self.object(&serde_json::json!({
                "type": "mark", "time_ns": time_ns, "process": mark.process, "thread": mark.thread,
                "ordinal": mark.ordinal, "number": mark.number, "value": mark.value,
                "name": mark.name, "of_run": mark.is_of_run(),
            }));
        } else {
            let Mark {
                thread,
                number,
                value,
                name,
                ..
            } = mark;
            let value = match value {
                0 => String::new(),
                value => format!(" value {value}"),
            };
            let text = format_args!("mark {number} {name}{value}");
            match mark.is_of_run() {
                true => self.line(format_args!("{time_ns:>15} {:>5} {:>5}  {text}", "-", "-")),
                false => {
                    let process = mark.process;
                    self.line(format_args!(
                        "{time_ns:>15} {process:>5} {thread:>5}  {text}"
                    ));
                }
            }
        }
    }

    fn sample(&mut self, sample: &Sample, time_ns: u64) {
        if self.json {
            self.object(&serde_json::json!({
                "type": "sample", "time_ns": time_ns, "process": sample.process,
                "anonymous_bytes": sample.anonymous_bytes, "file_bytes": sample.file_bytes,
                "shared_bytes": sample.shared_bytes, "virtual_bytes": sample.virtual_bytes,
            }));
        } else {
            self.remark(
                time_ns,
                sample.process,
                format_args!(
                    "resident: anonymous {}, file {}, shared {}; virtual {}",
                    sample.anonymous_bytes,
                    sample.file_bytes,
                    sample.shared_bytes,
                    sample.virtual_bytes
                ),
            );
        }
    }
}
