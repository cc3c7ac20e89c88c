//! The records of low rate: the run, processes, samples and marks. This module alone knows bincode
//! (version 2, standard configuration: little-endian, integers of variable length);
//! `docs/format.md` states the bytes, so no reader needs the crate.

use crate::error::Malformed;
use crate::model::{Ended, Hooks, Mark, Part, Process, RunInfo, Sample, StartedBy, Thread};
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use rmtrace_format::chunk::Counters;
use rmtrace_format::spool;

/// Longest record that is decoded, counted as it lies in memory.
const RECORD_BYTES_MAX: usize = 1 << 26;

type Config = Configuration<LittleEndian, Varint, Limit<RECORD_BYTES_MAX>>;

fn config() -> Config {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

fn to_bytes(value: impl bincode::Encode) -> Vec<u8> {
    // Encoding plain values into a vector has no way to fail; an empty record is refused by readers.
    bincode::encode_to_vec(value, bincode::config::standard()).unwrap_or_default()
}

fn from_bytes<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, Malformed> {
    // What a later version appends stays unread.
    split_bytes(bytes).map(|(value, _)| value)
}

/// The value, and the bytes behind it.
fn split_bytes<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<(T, &[u8]), Malformed> {
    bincode::decode_from_slice(bytes, config())
        .map(|(value, read)| (value, bytes.get(read..).unwrap_or_default()))
        .map_err(|_| Malformed::new("a record can't be decoded"))
}

type RunWire = (Vec<String>, u64, String, String, bool, bool, Vec<String>);

/// Fields that are there only if one of them is not 0.
type PartWire = (u64, u32, bool, u64);

/// The bytes of a run record.
pub fn run_to_bytes(info: &RunInfo) -> Vec<u8> {
    let wire: RunWire = (
        info.command.clone(),
        info.realtime_ns,
        info.writer.clone(),
        info.machine.clone(),
        info.collected,
        info.monotonic_clock,
        info.notes.clone(),
    );
    let mut bytes = to_bytes(wire);
    let part = &info.part;
    let rest: PartWire = (
        part.recording,
        part.number,
        part.goes_on,
        info.stopped_at_bytes,
    );
    if rest != PartWire::default() {
        bytes.extend(to_bytes(rest));
    }
    bytes
}

/// Reads a run record.
pub fn run_from_bytes(bytes: &[u8]) -> Result<RunInfo, Malformed> {
    let (wire, rest) = split_bytes::<RunWire>(bytes)?;
    let (command, realtime_ns, writer, machine, collected, monotonic_clock, notes) = wire;
    let (recording, number, goes_on, stopped_at_bytes) = match rest.is_empty() {
        true => PartWire::default(),
        false => from_bytes(rest)?,
    };
    Ok(RunInfo {
        command,
        realtime_ns,
        writer,
        machine,
        collected,
        monotonic_clock,
        notes,
        part: Part {
            recording,
            number,
            goes_on,
        },
        stopped_at_bytes,
    })
}

type ThreadWire = (
    (u32, u32, String),
    (u32, u32),
    (Vec<u64>, u64, u64, u64),
    (bool, u64),
);

type ProcessWire = (
    (u32, u32, u32, Option<u32>, u8, u32),
    (String, String, String, Vec<String>),
    (u64, u64, u8, i64),
    (Vec<(u32, u64)>, u32),
    Vec<ThreadWire>,
    (Vec<u64>, (u64, u64), (u64, u64, u64), u32, u64),
);

fn started_number(started: StartedBy) -> u8 {
    match started {
        StartedBy::Root => 0,
        StartedBy::Fork => 1,
        StartedBy::Exec => 2,
        StartedBy::Spawn => 3,
    }
}

const ENDED_UNKNOWN: u8 = 0;
const ENDED_EXIT: u8 = 1;
const ENDED_EXIT_STATUS: u8 = 2;
const ENDED_SIGNAL: u8 = 3;
const ENDED_EXEC: u8 = 4;

fn ended_numbers(ended: Ended) -> (u8, i64) {
    match ended {
        Ended::Unknown => (ENDED_UNKNOWN, 0),
        Ended::Exit(None) => (ENDED_EXIT, 0),
        Ended::Exit(Some(status)) => (ENDED_EXIT_STATUS, i64::from(status)),
        Ended::Signal(signal) => (ENDED_SIGNAL, i64::from(signal)),
        Ended::Exec => (ENDED_EXEC, 0),
    }
}

/// The bytes of a process record.
pub fn process_to_bytes(process: &Process) -> Vec<u8> {
    let (ended, ended_value) = ended_numbers(process.ended);
    let thread = |thread: &Thread| -> ThreadWire {
        (
            (thread.number, thread.tid, thread.name.clone()),
            (thread.chunks, thread.chunks_missing),
            (
                thread.counters.calls.to_vec(),
                thread.counters.bytes,
                thread.counters.sum,
                thread.counters.dropped,
            ),
            (thread.counters_may_lag, thread.tick_sum),
        )
    };
    let hooks = process.hooks;
    let wire: ProcessWire = (
        (
            process.number,
            process.pid,
            process.pid_inside,
            process.parent,
            started_number(process.started_by),
            process.parent_thread,
        ),
        (
            process.name.clone(),
            process.role.clone(),
            process.program.clone(),
            process.arguments.clone(),
        ),
        (process.started, process.ended_at, ended, ended_value),
        (process.fork_positions.clone(), process.parent_threads),
        process.threads.iter().map(thread).collect(),
        (
            process.dropped.to_vec(),
            process.waits,
            (hooks.interposed, hooks.detoured, hooks.refused),
            process.flags,
            process.cost_ps,
        ),
    );
    to_bytes(wire)
}

/// As many of `values` as there is room for; a later version may know more.
fn fixed<const N: usize>(values: &[u64]) -> [u64; N] {
    let mut out = [0; N];
    for (slot, value) in out.iter_mut().zip(values) {
        *slot = *value;
    }
    out
}

/// Reads a process record.
pub fn process_from_bytes(bytes: &[u8]) -> Result<Process, Malformed> {
    let (ids, names, times, fork, threads, rest) = from_bytes::<ProcessWire>(bytes)?;
    let (number, pid, pid_inside, parent, started_by, parent_thread) = ids;
    let (name, role, program, arguments) = names;
    let (started, ended_at, ended, ended_value) = times;
    let (fork_positions, parent_threads) = fork;
    let (dropped, waits, (interposed, detoured, refused), flags, cost_ps) = rest;
    let threads = threads.into_iter().map(|wire| {
        let ((number, tid, name), (chunks, chunks_missing), counters, (lag, tick_sum)) = wire;
        let (calls, bytes, sum, dropped) = counters;
        Thread {
            number,
            tid,
            name,
            chunks,
            chunks_missing,
            counters: Counters {
                calls: fixed(&calls),
                bytes,
                sum,
                dropped,
            },
            counters_may_lag: lag,
            tick_sum,
        }
    });
    Ok(Process {
        number,
        pid,
        pid_inside,
        parent,
        started_by: match started_by {
            0 => StartedBy::Root,
            1 => StartedBy::Fork,
            2 => StartedBy::Exec,
            3 => StartedBy::Spawn,
            _ => return Err(Malformed::new("a process was started in an unknown way")),
        },
        parent_thread,
        name,
        role,
        program,
        arguments,
        started,
        ended_at,
        ended: match ended {
            ENDED_EXIT => Ended::Exit(None),
            ENDED_EXIT_STATUS => Ended::Exit(Some(ended_value as i32)),
            ENDED_SIGNAL => Ended::Signal(ended_value as i32),
            ENDED_EXEC => Ended::Exec,
            ENDED_UNKNOWN => Ended::Unknown,
            _ => return Err(Malformed::new("a process ended in an unknown way")),
        },
        fork_positions,
        parent_threads,
        threads: threads.collect(),
        dropped: fixed::<{ spool::Drop::COUNT }>(&dropped),
        waits,
        hooks: Hooks {
            interposed,
            detoured,
            refused,
        },
        flags,
        cost_ps,
    })
}

type SampleWire = (u64, u32, u64, u64, u64, u64);

/// The bytes of a list of samples.
pub fn samples_to_bytes(samples: &[Sample]) -> Vec<u8> {
    let wire: Vec<SampleWire> = samples
        .iter()
        .map(|s| {
            (
                s.tick,
                s.process,
                s.anonymous_bytes,
                s.file_bytes,
                s.shared_bytes,
                s.virtual_bytes,
            )
        })
        .collect();
    to_bytes(wire)
}

/// Reads a list of samples.
pub fn samples_from_bytes(bytes: &[u8]) -> Result<Vec<Sample>, Malformed> {
    let wire = from_bytes::<Vec<SampleWire>>(bytes)?;
    let sample =
        |(tick, process, anonymous_bytes, file_bytes, shared_bytes, virtual_bytes)| Sample {
            tick,
            process,
            anonymous_bytes,
            file_bytes,
            shared_bytes,
            virtual_bytes,
        };
    Ok(wire.into_iter().map(sample).collect())
}

type MarkWire = (u64, u32, u32, u64, u32, u64, String);

/// The bytes of a list of marks.
pub fn marks_to_bytes(marks: &[Mark]) -> Vec<u8> {
    let wire: Vec<MarkWire> = marks
        .iter()
        .map(|m| {
            (
                m.tick,
                m.process,
                m.thread,
                m.ordinal,
                m.number,
                m.value,
                m.name.clone(),
            )
        })
        .collect();
    to_bytes(wire)
}

/// Reads a list of marks.
pub fn marks_from_bytes(bytes: &[u8]) -> Result<Vec<Mark>, Malformed> {
    let wire = from_bytes::<Vec<MarkWire>>(bytes)?;
    let mark = |(tick, process, thread, ordinal, number, value, name)| Mark {
        tick,
        process,
        thread,
        ordinal,
        number,
        value,
        name,
    };
    Ok(wire.into_iter().map(mark).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn process() -> impl Strategy<Value = Process> {
        let numbers = any::<(u32, u32, u32, Option<u32>, u32, u64, u64, i32)>();
        let positions = proptest::collection::vec(any::<(u32, u64)>(), 0..5);
        let more = (
            any::<[u64; 5]>(),
            any::<[u64; 7]>(),
            any::<(u64, u64)>(),
            positions,
        );
        (
            numbers,
            more,
            0u8..4,
            0u8..5,
            ".*",
            proptest::collection::vec(".*", 0..5),
        )
            .prop_map(|(n, more, started, ended, name, arguments)| Process {
                number: n.0,
                pid: n.1,
                pid_inside: n.2,
                parent: n.3,
                started_by: [
                    StartedBy::Root,
                    StartedBy::Fork,
                    StartedBy::Exec,
                    StartedBy::Spawn,
                ][usize::from(started)],
                parent_thread: n.4,
                name: name.clone(),
                role: name.clone(),
                program: name.clone(),
                arguments,
                started: n.5,
                ended_at: n.6,
                ended: [
                    Ended::Unknown,
                    Ended::Exit(None),
                    Ended::Exit(Some(n.7)),
                    Ended::Signal(n.7),
                    Ended::Exec,
                ][usize::from(ended)],
                fork_positions: more.3,
                parent_threads: n.2,
                threads: vec![Thread {
                    number: n.0,
                    tid: n.1,
                    name,
                    chunks: n.2,
                    chunks_missing: n.4,
                    counters: Counters {
                        calls: more.0,
                        bytes: n.5,
                        sum: n.6,
                        dropped: n.5,
                    },
                    counters_may_lag: n.0 & 1 == 1,
                    tick_sum: n.6,
                }],
                dropped: more.1,
                waits: more.2,
                hooks: Hooks {
                    interposed: n.5,
                    detoured: n.6,
                    refused: 7,
                },
                flags: n.0,
                cost_ps: n.5,
            })
    }

    proptest! {
        #[test]
        fn processes_round_trip(process in process()) {
            let bytes = process_to_bytes(&process);
            prop_assert_eq!(process_from_bytes(&bytes), Ok(process));
            for cut in (0..bytes.len()).rev().take(40) {
                prop_assert!(process_from_bytes(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = process_from_bytes(&bytes);
            let _ = run_from_bytes(&bytes);
            let _ = samples_from_bytes(&bytes);
            let _ = marks_from_bytes(&bytes);
        }

        #[test]
        fn runs_round_trip(command: Vec<String>, realtime_ns: u64, writer: String, machine: String, collected: bool, notes: Vec<String>, place: (u64, u32, bool, u64)) {
            let (recording, number, goes_on, stopped_at_bytes) = place;
            let part = Part { recording, number, goes_on };
            let info = RunInfo { command, realtime_ns, writer, machine, collected, monotonic_clock: !collected, notes, part, stopped_at_bytes };
            prop_assert_eq!(run_from_bytes(&run_to_bytes(&info)), Ok(info));
        }

        #[test]
        fn samples_and_marks_round_trip(values: Vec<(u64, u32, u64, u64)>, name: String) {
            let samples: Vec<Sample> = values.iter().map(|v| Sample {
                tick: v.0, process: v.1, anonymous_bytes: v.2, file_bytes: v.3, shared_bytes: v.0, virtual_bytes: v.2,
            }).collect();
            prop_assert_eq!(samples_from_bytes(&samples_to_bytes(&samples)), Ok(samples));
            let marks: Vec<Mark> = values.iter().map(|v| Mark {
                tick: v.0, process: v.1, thread: v.1, ordinal: v.2, number: v.1, value: v.3, name: name.clone(),
            }).collect();
            prop_assert_eq!(marks_from_bytes(&marks_to_bytes(&marks)), Ok(marks));
        }
    }
}
