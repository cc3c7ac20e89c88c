//! Measures by replay: a round is one worker that looks at memory and some that are timed, in turn with the defaults.

use crate::bench::{Bench, Candidate, Part, Refusal, Sample, Subject};
use crate::error::TuneError;
use crate::journal::checksum;
use crate::settings;
use rmalloc::config::{Config, TableWay};
use rmtrace_replay::ReplayError;
use rmtrace_replay::program::Program;
use rmtrace_replay::report::OVERHEAD_BYTES;
use rmtrace_replay::single::{self, Single};
use rmtrace_replay::spec::Spec;
use rmtrace_replay::task::{Outcome, Pace, Round};
use std::path::{Path, PathBuf};

/// What a page fault costs in nanoseconds: as rmalloc reckons (`docs/rmalloc.md`).
pub const FAULT_NS: f64 = 1_500.0;
/// Operations after which times are measured often enough.
const OPERATIONS: u64 = 1_500_000;

/// A program to replay.
#[derive(Debug)]
struct Replay {
    program: PathBuf,
    points: Vec<rmtrace_replay::program::Point>,
}

/// Measures by replay.
pub struct Replayed {
    subjects: Vec<Subject>,
    replays: Vec<Replay>,
    single: Single,
    /// An rmalloc built with handles beside the blocks.
    beside: Option<Spec>,
    place: tempfile::TempDir,
    is_interrupted: fn() -> bool,
}

/// A trace as it is given to [`Replayed::new`].
#[derive(Clone, Debug)]
pub struct Trace {
    /// The file's name.
    pub name: String,
    /// The process, in words.
    pub title: String,
    /// Number of the process in the trace.
    pub process: u32,
    /// The prepared program, with ends of locks where the lock rule has them.
    pub program: PathBuf,
}

impl Replayed {
    /// Opens the programs. `beside` is a library of rmalloc that can have handles beside the blocks; `is_interrupted` tells whether
    /// the user wants an end.
    ///
    /// # Errors
    /// When a program can't be read.
    pub fn new(
        traces: Vec<Trace>,
        single: Single,
        beside: Option<Spec>,
        is_interrupted: fn() -> bool,
    ) -> Result<Replayed, TuneError> {
        let place =
            tempfile::tempdir().map_err(|source| TuneError::file(&std::env::temp_dir(), source))?;
        let (mut subjects, mut replays) = (Vec::new(), Vec::new());
        for trace in traces {
            let program = Program::open(&trace.program)?;
            let bytes = std::fs::read(&trace.program)
                .map_err(|source| TuneError::file(&trace.program, source))?;
            let facts = program.facts();
            let pairs = pairs(facts.operations);
            let recorded_ns = match single.pace {
                Pace::Recorded => facts.end_ns.saturating_sub(facts.start_ns),
                Pace::Flat => 0,
            };
            // Starting a worker, proving the program, operations; memory is looked at 1,000 times, which takes the
            // longer the more there is.
            let worker_ns = 20_000_000 + facts.operations * 80;
            let looking_ns = 1_000 * (30_000 + facts.peak_live_bytes / 400);
            subjects.push(Subject {
                name: trace.name,
                title: trace.title,
                process: trace.process,
                checksum: checksum(&bytes),
                points: program.points().len() as u64,
                operations: facts.operations,
                round_ns: recorded_ns + looking_ns + worker_ns * (1 + 2 * pairs as u64),
            });
            replays.push(Replay {
                points: program.points().to_vec(),
                program: trace.program,
            });
        }
        Ok(Replayed {
            subjects,
            replays,
            single,
            beside,
            place,
            is_interrupted,
        })
    }

    fn config(&self, name: &str, config: &Config) -> Result<PathBuf, Refusal> {
        let path = self.place.path().join(name);
        std::fs::write(&path, settings::plain(config))
            .map_err(|source| Refusal::Fatal(TuneError::file(&path, source)))?;
        Ok(path)
    }

    fn run(
        &self,
        config: &Config,
        path: &Path,
        part: single::Part<'_>,
        round: Round,
    ) -> Result<Outcome, Refusal> {
        if (self.is_interrupted)() {
            return Err(Refusal::Stopped);
        }
        let outcome = self.place.path().join("outcome.json");
        let beside = self
            .beside
            .as_ref()
            .filter(|_| config.table.way == TableWay::Beside);
        let done = match beside {
            None => self.single.run(part, path, round, &outcome),
            Some(spec) => {
                let spec = spec.clone();
                let single = Single {
                    spec,
                    ..self.single.clone()
                };
                single.run(part, path, round, &outcome)
            }
        };
        done.map_err(|error| match error {
            // The terminal interrupts workers as well.
            _ if (self.is_interrupted)() => Refusal::Stopped,
            ReplayError::Allocator { .. } | ReplayError::Worker { .. } => {
                Refusal::Failed(error.to_string())
            }
            other => Refusal::Fatal(other.into()),
        })
    }
}

/// How often times are measured in a round: more often where a program is short.
fn pairs(operations: u64) -> usize {
    (OPERATIONS / operations.max(1)).clamp(3, 7) as usize
}

fn compaction_ns(outcome: &Outcome) -> f64 {
    outcome.own.as_ref().map_or(0.0, |own| {
        (own.survey_ns + own.move_ns + own.release_ns) as f64
    })
}

fn paced_ns(outcome: &Outcome) -> f64 {
    compaction_ns(outcome) + outcome.minor_faults as f64 * FAULT_NS
}

impl Bench for Replayed {
    fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    fn measure(
        &mut self,
        candidate: &Candidate,
        part: Part,
        round: u32,
    ) -> Result<Sample, Refusal> {
        let own = self.config("candidate.toml", &candidate.config)?;
        let defaults = Config::new();
        let reference = self.config("defaults.toml", &defaults)?;
        let replay = &self.replays[part.subject];
        let whole = replay.points.len() as u64;
        let of_program = single::Part {
            program: &replay.program,
            points: (part.points < whole).then_some(part.points),
        };
        let looked = self.run(&candidate.config, &own, of_program, Round::Memory(None))?;
        let memory = looked.memory.clone().unwrap_or_default();
        let live: f64 = replay
            .points
            .iter()
            .take(part.points as usize)
            .map(|point| {
                point.live_rounded_bytes as f64 + (point.live_blocks * OVERHEAD_BYTES) as f64
            })
            .sum();
        let resident: f64 = memory
            .resident_bytes
            .iter()
            .map(|bytes| *bytes as f64)
            .sum();
        let mut sample = Sample {
            resident_over_rounded: resident / live.max(1.0),
            peak_resident_bytes: memory.peak_bytes,
            paced_ns: paced_ns(&looked),
            moved_bytes: looked.own.as_ref().map_or(0, |own| own.moved_bytes),
            released_bytes: looked.own.as_ref().map_or(0, |own| own.released_bytes),
            pause_ns: looked.own.as_ref().map(|own| own.longest_pause_ns),
            ..Sample::default()
        };
        for pair in 0..pairs(self.subjects[part.subject].operations) {
            // Each goes first as often as the other.
            for turn in 0..2 {
                let is_own = (pair + turn + round as usize).is_multiple_of(2);
                let (config, path) = match is_own {
                    true => (&candidate.config, &own),
                    false => (&defaults, &reference),
                };
                let timed = self.run(config, path, of_program, Round::Time)?;
                let net = (timed.cpu_ns as f64 - paced_ns(&timed)).max(0.0);
                match is_own {
                    true => sample.cpu_ns.push(net),
                    false => sample.reference_cpu_ns.push(net),
                }
            }
        }
        Ok(sample)
    }
}
