//! The load: fills a server to its limit, lets the sizes of values drift from phase to phase, then rests, counts what is
//! live, and takes a last mix. Works with any server that speaks the Redis protocol. What is asked for is in
//! `drive/workload.rs`, how it is sent in `drive/client.rs`.
//!
//! One line of JSON for each phase; times in nanoseconds. All choices come from the seed, so that every server gets the same requests
//! in about the same order (connections are served as they become ready).

mod client;
mod workload;

use super::options::Drive;
use super::os::Process;
use client::{Clients, Tally};
use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use workload::Workload;

/// Part of the limit that the first phase writes: some keys come twice.
const FILL: f64 = 1.3;

/// Drives a server through all phases.
///
/// # Errors
/// The server is not there, ends, answers with an error, or gives a value that was never stored.
pub fn run(options: &Drive, out: &mut dyn Write) -> io::Result<()> {
    let mut clients = Clients::connect(options.port, options.connections, options.pipeline)?;
    let process = options
        .pid
        .map(|pid| Process::open(Some(pid)))
        .transpose()?;
    let mut workload = Workload::new(options.seed, options.limit_bytes, &options.phases);
    let limit = options.limit_bytes as f64;

    for (n, sizes) in options.phases.iter().enumerate() {
        workload.begin(*sizes);
        let (name, turnover) = if n == 0 {
            ("fill".to_string(), FILL)
        } else {
            (format!("drift {n}"), options.turnover)
        };
        let wanted = (limit * turnover) as u64;
        let mut written = 0;
        let mut load = Load::begin(process.as_ref())?;
        clients.run(&mut load.tally, &workload.values(), |request| {
            if written >= wanted {
                return None;
            }
            if n > 0 && workload.chance(50) {
                return Some(workload.get(request));
            }
            let (expected, bytes) = workload.set(request);
            written += bytes;
            Some(expected)
        })?;
        load.report(&name, out)?;
    }

    let at_once = resident(process.as_ref())?;
    std::thread::sleep(Duration::from_millis(options.rest_ms));
    let rested = resident(process.as_ref())?;
    let peak = process
        .as_ref()
        .map(Process::resident_bytes_peak)
        .transpose()?;
    let mut tally = Tally::default();
    let mut keys = workload.keys();
    clients.run(&mut tally, &workload.values(), |request| {
        keys.next().map(|key| workload.length(key, request))
    })?;
    let mut asked = Some(());
    clients.run(&mut tally, &workload.values(), |request| {
        asked.take().map(|()| workload.info(request))
    })?;
    Line::new("rest")
        .number("resident_bytes_at_once", at_once)
        .number("resident_bytes", rested)
        .number("resident_bytes_peak", peak.unwrap_or(0))
        .number("live_bytes", tally.live_bytes)
        .number("live_keys", tally.live_keys)
        .number("index_bytes", tally.index_bytes())
        .end(out)?;

    let mut left = options.mix;
    let mut load = Load::begin(process.as_ref())?;
    clients.run(&mut load.tally, &workload.values(), |request| {
        left = left.checked_sub(1)?;
        Some(if workload.chance(50) {
            workload.get(request)
        } else {
            workload.set(request).0
        })
    })?;
    load.report("mix", out)
}

fn resident(process: Option<&Process>) -> io::Result<u64> {
    process.map_or(Ok(0), Process::resident_bytes)
}

/// A phase under way.
struct Load<'a> {
    process: Option<&'a Process>,
    began: Instant,
    cpu_ns: u64,
    tally: Tally,
}

impl<'a> Load<'a> {
    fn begin(process: Option<&'a Process>) -> io::Result<Load<'a>> {
        Ok(Load {
            process,
            cpu_ns: process.map_or(Ok(0), Process::cpu_ns)?,
            tally: Tally::default(),
            began: Instant::now(),
        })
    }

    fn report(self, name: &str, out: &mut dyn Write) -> io::Result<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        let cpu_ns = self.process.map_or(Ok(0), Process::cpu_ns)? - self.cpu_ns;
        let tally = self.tally;
        let requests = tally.sets + tally.gets;
        let batches = &tally.batches;
        Line::new(name)
            .number("requests", requests)
            .number("sets", tally.sets)
            .number("set_bytes", tally.set_bytes)
            .number("gets", tally.gets)
            .number("hits", tally.hits)
            .number("seconds", format_args!("{seconds:.6}"))
            .number("server_cpu_ns", cpu_ns)
            .number("batches", batches.count())
            .number("batch_ns_p50", batches.percentile_ns(0.5))
            .number("batch_ns_p99", batches.percentile_ns(0.99))
            .number("batch_ns_p999", batches.percentile_ns(0.999))
            .number("batch_ns_max", batches.max_ns())
            .number("resident_bytes", resident(self.process)?)
            .end(out)
    }
}

/// A line of JSON: the phase's name, then numbers.
struct Line(String);

impl Line {
    fn new(phase: &str) -> Line {
        Line(format!("{{\"phase\": \"{phase}\""))
    }

    fn number(mut self, name: &str, value: impl Display) -> Line {
        self.0.push_str(&format!(", \"{name}\": {value}"));
        self
    }

    fn end(self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}}}", self.0)?;
        out.flush()
    }
}
