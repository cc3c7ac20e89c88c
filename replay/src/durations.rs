//! Files of durations: one 32-bit number an operation, of one allocator. Rounds of the same allocator are made one by
//! taking the least, which is what the call takes when nothing else happens; then all allocators are ranked.

use crate::latency::Kind;
use crate::program::Program;
use crate::scores::{Ranks, Score};
use crate::word::{self, Op};
use serde::Serialize;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// So many durations of an allocator are kept at most.
pub const DURATIONS_MAX: u64 = 8 << 20;

/// Takes the least of each pair of two files of the same length into the first; the second is removed.
///
/// # Errors
/// When one can't be read or written.
pub fn fold(into: &Path, from: &Path) -> io::Result<()> {
    if !into.exists() {
        return fs::rename(from, into);
    }
    let (mut kept, new) = (fs::read(into)?, fs::read(from)?);
    for (one, other) in kept.chunks_exact_mut(4).zip(new.chunks_exact(4)) {
        let least = number(one).min(number(other));
        one.copy_from_slice(&least.to_le_bytes());
    }
    fs::write(into, kept)?;
    fs::remove_file(from)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

/// Scores for time: of all operations, and of those of a kind. One [`Score`] an allocator, in their order.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TimeScores {
    /// All operations.
    pub all: Vec<Score>,
    /// Allocations of every kind.
    pub malloc: Vec<Score>,
    /// Resizes.
    pub realloc: Vec<Score>,
    /// Frees.
    pub free: Vec<Score>,
    /// Operations that were ranked.
    pub operations: u64,
    /// Of every so-manieth operation.
    pub every: u64,
}

/// Ranks allocators by files of durations: paths, and nanoseconds a tick.
///
/// # Errors
/// When a file can't be read or ends too early.
pub fn rank(program: &Program, every: u64, files: &[(&Path, f64)]) -> io::Result<TimeScores> {
    let mut readers = Vec::with_capacity(files.len());
    for (path, _) in files {
        readers.push(BufReader::with_capacity(1 << 16, fs::File::open(path)?));
    }
    let units: Vec<f64> = files.iter().map(|(_, unit)| *unit).collect();
    let mut ranks: [Ranks; 4] = std::array::from_fn(|_| Ranks::new(files.len()));
    let mut values = vec![0i64; files.len()];
    let operations = kinds(program.ops(), program.facts().op_words as usize);
    for kind in operations.step_by(every.max(1) as usize) {
        for (value, reader) in values.iter_mut().zip(&mut readers) {
            let mut bytes = [0; 4];
            reader.read_exact(&mut bytes)?;
            *value = u32::from_le_bytes(bytes).into();
        }
        ranks[0].place(&values);
        ranks[match kind {
            Kind::Malloc | Kind::Calloc | Kind::Aligned => 1,
            Kind::Realloc => 2,
            Kind::FreeSame | Kind::FreeCross => 3,
        }]
        .place(&values);
    }
    let [all, malloc, realloc, free] = ranks.each_ref().map(|ranks| ranks.scores(&units));
    Ok(TimeScores {
        all,
        malloc,
        realloc,
        free,
        operations: ranks[0].places(),
        every,
    })
}

/// The kinds of a program's operations, in their order.
fn kinds(words: &[u64], count: usize) -> impl Iterator<Item = Kind> {
    let mut is_aligned = false;
    words[..count].iter().filter_map(move |&word| {
        if word::kind(word) == word::WIDE {
            is_aligned = Op::decode_wide(word, 0).align_log2 != 0;
            return None;
        }
        Kind::of(word, std::mem::take(&mut is_aligned))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_rounds_the_least_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let bytes = |numbers: &[u32]| -> Vec<u8> {
            numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect()
        };
        for numbers in [[5u32, 9, 300], [7, 8, 300], [6, 10, 299]] {
            fs::write(path("new"), bytes(&numbers)).unwrap();
            fold(&path("kept"), &path("new")).unwrap();
            assert!(!path("new").exists());
        }
        assert_eq!(fs::read(path("kept")).unwrap(), bytes(&[5, 8, 299]));
    }

    #[test]
    fn kinds_are_those_of_the_words() {
        let op = |kind, bytes, align_log2| Op {
            kind,
            slot: 1,
            bytes,
            align_log2,
        };
        let ops = [
            op(word::ALLOC, 1, 0),
            op(word::ALLOC, 1, 6),
            op(word::ALLOC, 1 << 40, 0),
            op(word::UNLOCK, 0, 0),
            op(word::RESIZE, 1, 0),
            op(word::ZEROED, 1, 0),
            op(word::FREE, 1, 0),
            op(word::FREE, 0, 0),
        ];
        let words: Vec<u64> = ops
            .iter()
            .flat_map(|op| {
                let (wide, word) = op.encode();
                wide.into_iter().chain([word])
            })
            .collect();
        let found: Vec<Kind> = kinds(&words, words.len()).collect();
        assert_eq!(
            found,
            [
                Kind::Malloc,
                Kind::Aligned,
                Kind::Malloc,
                Kind::Realloc,
                Kind::Calloc,
                Kind::FreeCross,
                Kind::FreeSame,
            ]
        );
    }
}
