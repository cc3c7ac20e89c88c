//! The collector's journal: what a trace cannot be continued without if the collector dies. It lies
//! in the run directory; entries are 128 bytes and are appended, a cut last one does not count.
//!
//! A thread's entry is there before the collector gives its chunk back.

use super::image::{SpoolId, u32_at, u64_at};
use rmtrace_format::chunk::{Chunk, Counters, Triple};
use rmtrace_format::event::Kind;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 128;
/// Version of the entries.
pub const VERSION: u32 = 1;

const BEGIN: u32 = 0x4a4d_5201;
const CLOCK: u32 = 0x4a4d_5202;
const PROCESS: u32 = 0x4a4d_5203;
const THREAD: u32 = 0x4a4d_5204;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The first: tick, CLOCK_MONOTONIC of tick 0 in nanoseconds, TSC frequency (0: not known).
    Begin {
        /// Nanoseconds of a tick.
        tick_ns: u64,
        /// CLOCK_MONOTONIC of tick 0.
        origin_ns: u64,
        /// Frequency of the TSC, or 0.
        tsc_hz: u64,
    },
    /// A reading of the clocks that stamps were converted with.
    Clock(Triple),
    /// A process got its number.
    Process {
        /// Number in the trace.
        number: u32,
        /// Its spool.
        spool: SpoolId,
        /// Number in the spool.
        number_in_spool: u32,
    },
    /// A chunk is about to be given back.
    Thread {
        /// Number of the process in the trace.
        process: u32,
        /// Number of the thread.
        thread: u32,
        /// The kernel's thread id.
        tid: u32,
        /// Sequence number of the chunk.
        sequence: u32,
        /// The thread's counters with this chunk.
        counters: Counters,
    },
}

impl Entry {
    /// The entry of a chunk of process `process`.
    pub fn of_chunk(process: u32, chunk: &Chunk) -> Entry {
        Entry::Thread {
            process,
            thread: chunk.thread,
            tid: chunk.tid,
            sequence: chunk.sequence,
            counters: chunk.counters,
        }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; ENTRY_BYTES] {
        let (kind, number, words): (u32, u32, Vec<u64>) = match *self {
            Entry::Begin {
                tick_ns,
                origin_ns,
                tsc_hz,
            } => (BEGIN, VERSION, vec![tick_ns, origin_ns, tsc_hz]),
            Entry::Clock(t) => (CLOCK, 0, vec![t.tsc, t.monotonic_ns, t.boottime_ns]),
            Entry::Process {
                number,
                spool,
                number_in_spool,
            } => (
                PROCESS,
                number,
                vec![spool[0], spool[1], u64::from(number_in_spool)],
            ),
            Entry::Thread {
                process,
                thread,
                tid,
                sequence,
                counters,
            } => {
                let mut words = vec![
                    u64::from(thread) << 32 | u64::from(tid),
                    u64::from(sequence),
                ];
                words.extend(counters.calls);
                words.extend([counters.bytes, counters.sum, counters.dropped]);
                (THREAD, process, words)
            }
        };
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&number.to_le_bytes());
        for (at, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads an entry; `None` for a kind that is not known.
    pub fn parse(bytes: &[u8; ENTRY_BYTES]) -> Option<Entry> {
        let number = u32_at(bytes, 4);
        let word = |n: usize| u64_at(bytes, 8 + 8 * n);
        Some(match u32_at(bytes, 0) {
            BEGIN if number == VERSION => Entry::Begin {
                tick_ns: word(0),
                origin_ns: word(1),
                tsc_hz: word(2),
            },
            CLOCK => Entry::Clock(Triple {
                tsc: word(0),
                monotonic_ns: word(1),
                boottime_ns: word(2),
            }),
            PROCESS => Entry::Process {
                number,
                spool: [word(0), word(1)],
                number_in_spool: word(2) as u32,
            },
            THREAD => Entry::Thread {
                process: number,
                thread: (word(0) >> 32) as u32,
                tid: word(0) as u32,
                sequence: word(1) as u32,
                counters: Counters {
                    calls: core::array::from_fn(|n| word(2 + n)),
                    bytes: word(2 + Kind::COUNT),
                    sum: word(3 + Kind::COUNT),
                    dropped: word(4 + Kind::COUNT),
                },
            },
            _ => return None,
        })
    }
}

/// What a thread had written when its last chunk was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// The kernel's thread id.
    pub tid: u32,
    /// Sequence number of the chunk.
    pub sequence: u32,
    /// Counters with it.
    pub counters: Counters,
}

/// A journal, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// Nanoseconds of a tick.
    pub tick_ns: u64,
    /// CLOCK_MONOTONIC of tick 0.
    pub origin_ns: u64,
    /// Frequency of the TSC, or 0.
    pub tsc_hz: u64,
    /// Readings in their order.
    pub clock: Vec<Triple>,
    /// Spool and number in it, by number in the trace.
    pub processes: BTreeMap<u32, (SpoolId, u32)>,
    /// Threads by process and number.
    pub threads: BTreeMap<(u32, u32), ThreadState>,
}

impl Journal {
    /// Reads the journal at `path`; `None` if there is none or its beginning is not one.
    pub fn read(path: &Path) -> Option<Journal> {
        let file = super::run_dir::open_regular(path).ok()?;
        let mut file = std::io::BufReader::with_capacity(1 << 16, file);
        let mut bytes = [0; ENTRY_BYTES];
        file.read_exact(&mut bytes).ok()?;
        let Entry::Begin {
            tick_ns,
            origin_ns,
            tsc_hz,
        } = Entry::parse(&bytes)?
        else {
            return None;
        };
        let mut journal = Journal {
            tick_ns,
            origin_ns,
            tsc_hz,
            ..Journal::default()
        };
        while file.read_exact(&mut bytes).is_ok() {
            match Entry::parse(&bytes) {
                Some(Entry::Clock(triple)) => journal.clock.push(triple),
                Some(Entry::Process {
                    number,
                    spool,
                    number_in_spool,
                }) => {
                    journal.processes.insert(number, (spool, number_in_spool));
                }
                Some(Entry::Thread {
                    process,
                    thread,
                    tid,
                    sequence,
                    counters,
                }) => {
                    let state = ThreadState {
                        tid,
                        sequence,
                        counters,
                    };
                    let known = journal.threads.entry((process, thread)).or_insert(state);
                    if known.sequence <= sequence {
                        *known = state;
                    }
                }
                Some(Entry::Begin { .. }) | None => {}
            }
        }
        Some(journal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_round_trip(words in proptest::array::uniform10(any::<u64>()), numbers in any::<[u32; 4]>()) {
            let counters = Counters {
                calls: core::array::from_fn(|n| words[n]),
                bytes: words[5],
                sum: words[6],
                dropped: words[7],
            };
            for entry in [
                Entry::Begin { tick_ns: words[0], origin_ns: words[1], tsc_hz: words[2] },
                Entry::Clock(Triple { tsc: words[0], monotonic_ns: words[1], boottime_ns: words[2] }),
                Entry::Process { number: numbers[0], spool: [words[0], words[1]], number_in_spool: numbers[1] },
                Entry::Thread { process: numbers[0], thread: numbers[1], tid: numbers[2], sequence: numbers[3], counters },
            ] {
                prop_assert_eq!(Entry::parse(&entry.to_bytes()), Some(entry));
            }
        }
    }
}
