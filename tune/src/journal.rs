//! What was measured, line by line in a file: an interrupted search reads it and repeats nothing. A search is decided by its
//! options and these figures alone, so it goes on where it was.

use crate::bench::{Bench, Candidate, Part, Refusal, Sample, Subject};
use crate::error::TuneError;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Version of the form.
const VERSION: u32 = 1;

/// The first line: what the figures depend on beside candidate, trace and round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the form.
    pub journal: u32,
    /// Version of rmalloc and of the replay.
    pub version: String,
    /// Checksum of the program: another build may be another allocator.
    pub build: String,
    /// How it is measured: touch, locks, pace.
    pub settings: String,
}

impl Header {
    /// Of this program and these settings. `build`: a checksum of the program.
    pub fn new(build: String, settings: String) -> Header {
        Header {
            journal: VERSION,
            version: env!("CARGO_PKG_VERSION").to_string(),
            build,
            settings,
        }
    }

    fn words(&self) -> String {
        format!(
            "rmtrace {} (build {}, {})",
            self.version, self.build, self.settings
        )
    }
}

/// What tells one content from another: hexadecimal CRC-32.
pub fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    candidate: String,
    trace: String,
    checksum: String,
    points: u64,
    round: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<Sample>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// Candidate, checksum of the trace, points, round.
type Key = (String, String, u64, u32);

/// A bench that remembers. What stands in the file is seen only once it is asked for, so that a search that goes on decides
/// as it did.
pub struct Journal<B> {
    bench: B,
    file: Option<(File, PathBuf)>,
    known: HashMap<Key, Result<Sample, String>>,
    seen: HashSet<Key>,
    /// Nothing new is measured after this.
    pub stop_at: Option<Instant>,
    /// Rounds measured by this run.
    pub measured: u64,
    /// Rounds that were in the file.
    pub found: u64,
}

impl<B: Bench> Journal<B> {
    /// Keeps figures in memory alone.
    pub fn in_memory(bench: B) -> Journal<B> {
        Journal {
            bench,
            file: None,
            known: HashMap::new(),
            seen: HashSet::new(),
            stop_at: None,
            measured: 0,
            found: 0,
        }
    }

    /// Keeps them in a new file; one that is there is overwritten.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn create(bench: B, path: &Path, header: &Header) -> Result<Journal<B>, TuneError> {
        let of_file = |source| TuneError::file(path, source);
        let mut file = File::create(path).map_err(of_file)?;
        let line = serde_json::to_string(header).map_err(|error| of_file(error.into()))?;
        writeln!(file, "{line}").map_err(of_file)?;
        Ok(Journal {
            file: Some((file, path.to_owned())),
            ..Journal::in_memory(bench)
        })
    }

    /// Goes on with a file. A last line that was cut short is dropped.
    ///
    /// # Errors
    /// When it can't be read or written, is damaged, or was made by another version or in another way; when a
    /// trace of the same name was another one.
    pub fn resume(bench: B, path: &Path, header: &Header) -> Result<Journal<B>, TuneError> {
        let of_file = |source| TuneError::file(path, source);
        let text = std::fs::read_to_string(path).map_err(of_file)?;
        let damaged = |line: usize, what: String| TuneError::DamagedJournal {
            path: path.to_owned(),
            line: line + 1,
            what,
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines().enumerate();
        let (_, first) = lines
            .next()
            .ok_or_else(|| damaged(0, "it is empty".to_string()))?;
        let found: Header =
            serde_json::from_str(first).map_err(|error| damaged(0, error.to_string()))?;
        if found != *header {
            return Err(TuneError::OtherJournal {
                path: path.to_owned(),
                found: found.words(),
                wanted: header.words(),
            });
        }
        let mut known = HashMap::new();
        for (number, text) in lines {
            let line: Line =
                serde_json::from_str(text).map_err(|error| damaged(number, error.to_string()))?;
            let mut subjects = bench.subjects().iter();
            if let Some(other) = subjects
                .find(|subject| subject.name == line.trace && subject.checksum != line.checksum)
            {
                let of = |checksum: &str| format!("{} with checksum {checksum}", line.trace);
                return Err(TuneError::OtherJournal {
                    path: path.to_owned(),
                    found: of(&line.checksum),
                    wanted: of(&other.checksum),
                });
            }
            let result = match (line.sample, line.failed) {
                (Some(sample), None) => Ok(sample),
                (None, Some(why)) => Err(why),
                _ => {
                    return Err(damaged(
                        number,
                        "neither a sample nor a failure".to_string(),
                    ));
                }
            };
            known.insert(
                (line.candidate, line.checksum, line.points, line.round),
                result,
            );
        }
        let mut file = File::options().write(true).open(path).map_err(of_file)?;
        file.set_len(whole as u64).map_err(of_file)?;
        file.seek(SeekFrom::End(0)).map_err(of_file)?;
        Ok(Journal {
            file: Some((file, path.to_owned())),
            found: known.len() as u64,
            known,
            ..Journal::in_memory(bench)
        })
    }

    /// The traces.
    pub fn subjects(&self) -> &[Subject] {
        self.bench.subjects()
    }

    fn key(&self, candidate: &str, part: Part, round: u32) -> Key {
        let subject = self.bench.subjects().get(part.subject);
        let checksum = subject.map_or(String::new(), |subject| subject.checksum.clone());
        (candidate.to_string(), checksum, part.points, round)
    }

    /// The rounds of a candidate that this run asked for, from `first` on, until one is missing.
    pub fn rounds(&self, candidate: &str, part: Part, first: u32) -> Vec<&Sample> {
        let get = |round| {
            let key = self.seen.get(&self.key(candidate, part, round))?;
            self.known.get(key)?.as_ref().ok()
        };
        (first..).map_while(get).collect()
    }

    /// A round: known, or measured and written down.
    ///
    /// # Errors
    /// As [`Bench::measure`]; [`Refusal::Stopped`] after [`Journal::stop_at`].
    pub fn measure(
        &mut self,
        candidate: &Candidate,
        part: Part,
        round: u32,
    ) -> Result<(), Refusal> {
        let key = self.key(&candidate.name, part, round);
        if let Some(known) = self.known.get(&key) {
            self.seen.insert(key);
            return match known {
                Ok(_) => Ok(()),
                Err(why) => Err(Refusal::Failed(why.clone())),
            };
        }
        if self.stop_at.is_some_and(|at| Instant::now() >= at) {
            return Err(Refusal::Stopped);
        }
        let result = match self.bench.measure(candidate, part, round) {
            Ok(sample) => Ok(sample),
            Err(Refusal::Failed(why)) => Err(why),
            Err(other) => return Err(other),
        };
        self.measured += 1;
        let line = Line {
            candidate: key.0.clone(),
            trace: self.bench.subjects()[part.subject].name.clone(),
            checksum: key.1.clone(),
            points: part.points,
            round,
            sample: result.as_ref().ok().cloned(),
            failed: result.as_ref().err().cloned(),
        };
        if let Some((file, path)) = &mut self.file {
            let of_file = |source| Refusal::Fatal(TuneError::file(path, source));
            let text = serde_json::to_string(&line).map_err(|error| of_file(error.into()))?;
            // One call: what another reads meanwhile are whole lines.
            file.write_all(format!("{text}\n").as_bytes())
                .map_err(of_file)?;
        }
        self.seen.insert(key.clone());
        self.known.insert(key, result.clone());
        result.map(|_| ()).map_err(Refusal::Failed)
    }
}
