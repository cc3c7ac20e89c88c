//! A program: what a worker replays. A file of 64-bit little-endian words: a header, the operations, the blocks that
//! were inherited, the points at which memory is looked at. Owns the file's form and its proof; `prepare.rs`
//! makes one from a trace, `word.rs` has the operations themselves.
//!
//! A worker runs the operations without looking back, so everything it relies on is checked when a program is
//! opened: every slot within the table, every operation on a block that is there, every count as the header says.
//!
//! | words | what |
//! |---|---|
//! | 64 | header: magic, version, then [`Facts`] in the order of its fields, CRC-32 of all that follows the header and then of the header so far, zeros |
//! | `op_words` | operations, then [`PADDING`] words of zeros |
//! | `setup_words` | allocations before the clock starts, then [`PADDING`] words of zeros |
//! | 5 a point | [`Point`] in the order of its fields |

mod proof;

use crate::error::ReplayError;
use crate::region::Region;
use crate::word::Op;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// First word of a program.
const MAGIC: u64 = u64::from_le_bytes(*b"rmreplay");
/// Version of the form; another one is made anew.
pub const VERSION: u64 = 2;
/// Words of the header.
pub(crate) const HEADER_WORDS: usize = 64;
/// Words of zeros behind operations: whoever looks ahead stays within.
pub const PADDING: usize = 64;
/// Points equally spaced in recorded time.
pub const POINTS: u64 = 1_000;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name { $($(#[$doc])* pub $field: u64,)* }

        impl $name {
            /// How many words it is.
            pub const WORDS: usize = [$(stringify!($field)),*].len();

            pub(crate) fn put(&self, out: &mut Vec<u64>) {
                $(out.push(self.$field);)*
            }

            pub(crate) fn take(words: &[u64]) -> $name {
                let mut words = words.iter().copied();
                $name { $($field: words.next().unwrap_or_default(),)* }
            }
        }
    };
}

pub(crate) use words;

words! {
    /// What is known of a program, counted when it was prepared.
    Facts {
        /// Words of the operations.
        op_words,
        /// Words of the blocks that are allocated before the clock starts.
        setup_words,
        /// Slots that are needed.
        slots,
        /// Points.
        points,
        /// Number of the process in its trace.
        process,
        /// Operations that reach the allocator: allocations, resizes, frees.
        operations,
        /// Allocations, zeroed and aligned ones included.
        allocations,
        /// Allocations of zeroed memory.
        zeroed,
        /// Allocations with an alignment.
        aligned,
        /// Resizes.
        resizes,
        /// Frees.
        frees,
        /// Locks that end before their block does.
        unlocks,
        /// Blocks inherited by a fork, allocated before the clock starts.
        inherited_blocks,
        /// Their bytes.
        inherited_bytes,
        /// Calls that failed when they were recorded: left out.
        failed,
        /// Frees of addresses at which no block was known: left out.
        unknown_frees,
        /// Resizes of addresses at which no block was known: allocations here.
        unknown_resizes,
        /// Blocks whose address was given out again though no free was seen: freed here.
        displaced,
        /// Calls that the recording dropped: missing here.
        dropped,
        /// Bytes asked for by allocations and by the growth of resizes.
        requested_bytes,
        /// Bytes of the largest block.
        largest_bytes,
        /// When the process began, in nanoseconds since the run's first record.
        start_ns,
        /// When it ended.
        end_ns,
        /// Words before the peak of live bytes.
        peak_word,
        /// Most live bytes.
        peak_live_bytes,
        /// Live blocks then.
        peak_live_blocks,
        /// Sum of live sizes then, each rounded up to 16.
        peak_live_rounded_bytes,
        /// Live bytes at the end.
        end_live_bytes,
        /// Live blocks at the end.
        end_live_blocks,
        /// Sum of live sizes at the end, each rounded up to 16.
        end_live_rounded_bytes,
        /// Time of a lock after birth in nanoseconds, plus one; 0: no unlocks in it.
        lock_ns_plus_one,
        /// Frees of blocks that another thread of the process had allocated.
        cross_thread_frees,
        /// Allocations at the recorded address of the latest free, whichever thread that was.
        reused_last,
        /// Allocations at the recorded address of one of the 16 latest frees.
        reused_recent,
        /// Allocations at the recorded address of the latest free of the same thread.
        reused_last_in_thread,
        /// Allocations at the recorded address of one of the 16 latest frees of the same thread.
        reused_recent_in_thread,
        /// Samples of resident memory that the recording took.
        resident_samples,
        /// The most anonymous memory in one of them.
        resident_peak_bytes,
        /// Locks that begin after their block (`--lock score`, `share:P,old`, `accesses:FILE`).
        locks,
        /// Sum over the points of the blocks that are locked by such a rule.
        locked_blocks_sum,
        /// Sum over the points of the live blocks.
        live_blocks_sum,
    }
}

words! {
    /// A moment of recorded time.
    Point {
        /// Words of operations before it.
        word,
        /// When, in nanoseconds since the run's first record.
        time_ns,
        /// Live bytes, as recorded.
        live_bytes,
        /// Live blocks, as recorded.
        live_blocks,
        /// Sum of live sizes, each rounded up to 16.
        live_rounded_bytes,
    }
}

const _: () = assert!(Facts::WORDS + 3 <= HEADER_WORDS);

/// Writes a program to a file, operations first.
pub struct Writer {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    checksum: crc32fast::Hasher,
}

/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 1 << 20;

impl Writer {
    /// Begins a program in a file that is there and empty.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn new(file: File, path: &Path) -> Result<Writer, ReplayError> {
        let mut writer = Writer {
            file,
            path: path.to_owned(),
            buffer: Vec::with_capacity(BUFFER_BYTES + 64),
            checksum: crc32fast::Hasher::new(),
        };
        writer.write(&[0; HEADER_WORDS * 8])?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ReplayError> {
        self.file
            .write_all(bytes)
            .map_err(|source| ReplayError::File {
                path: self.path.clone(),
                source,
            })
    }

    /// Adds a word.
    ///
    /// # Errors
    /// When the file can't be written.
    #[inline]
    pub fn word(&mut self, word: u64) -> Result<(), ReplayError> {
        self.buffer.extend_from_slice(&word.to_le_bytes());
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    #[cold]
    fn flush(&mut self) -> Result<(), ReplayError> {
        let buffer = std::mem::take(&mut self.buffer);
        self.checksum.update(&buffer);
        let written = self.write(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        written
    }

    /// Ends the program: `facts.op_words` words were added, then come `setup` and `points`. Their numbers are put
    /// into the facts.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn finish(
        mut self,
        mut facts: Facts,
        setup: &[Op],
        points: &[Point],
    ) -> Result<Facts, ReplayError> {
        let mut rest = vec![0; PADDING];
        for op in setup {
            let (wide, word) = op.encode();
            rest.extend(wide);
            rest.push(word);
        }
        facts.setup_words = (rest.len() - PADDING) as u64;
        facts.points = points.len() as u64;
        rest.extend([0; PADDING]);
        points.iter().for_each(|point| point.put(&mut rest));
        for word in rest {
            self.word(word)?;
        }
        let mut header = vec![MAGIC, VERSION];
        facts.put(&mut header);
        self.end(header)?;
        Ok(facts)
    }

    /// Writes what is buffered and the header, whose checksum is added to it.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn end(mut self, mut header: Vec<u64>) -> Result<(), ReplayError> {
        self.flush()?;
        let bytes = |words: &[u64]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        };
        self.checksum.update(&bytes(&header));
        header.push(u64::from(self.checksum.clone().finalize()));
        let bytes = bytes(&header);
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(|source| ReplayError::File {
                path: self.path.clone(),
                source,
            })?;
        self.write(&bytes)
    }
}

/// Compares the checksum of a file whose header has `summed` words before it. Where it is wrong, the word and why.
pub(crate) fn check(words: &[u64], summed: usize) -> Result<(), (usize, &'static str)> {
    let (header, rest) = words.split_at(HEADER_WORDS);
    let (before, others) = header.split_at(summed);
    let mut hasher = crc32fast::Hasher::new();
    for words in [rest, before] {
        // SAFETY: any initialised words are bytes, eight times as many; the slice is of the same borrow.
        hasher
            .update(unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 8) });
    }
    if u64::from(hasher.finalize()) != others[0] {
        return Err((summed, "a wrong checksum"));
    }
    if others[1..].iter().any(|word| *word != 0) {
        return Err((summed + 1, "something behind the header"));
    }
    Ok(())
}

/// A program that was opened and proven.
#[derive(Debug)]
pub struct Program {
    region: Region,
    facts: Facts,
    points: Vec<Point>,
    /// The word at which `setup` begins; it stays where it is when the program is shortened.
    setup_first: usize,
}

impl Program {
    /// Opens a program and checks all of it.
    ///
    /// # Errors
    /// When it can't be read or is malformed.
    pub fn open(path: &Path) -> Result<Program, ReplayError> {
        let (region, facts) = map(path)?;
        let fault = |word: usize, what| ReplayError::Malformed {
            path: path.to_owned(),
            offset: (word * 8) as u64,
            what,
        };
        check(region.words(), Facts::WORDS + 2).map_err(|(word, what)| fault(word, what))?;
        let mut program = Program {
            region,
            facts,
            points: Vec::new(),
            setup_first: HEADER_WORDS + facts.op_words as usize + PADDING,
        };
        let first_point = program.setup_first + facts.setup_words as usize + PADDING;
        program.points = program.region.words()[first_point..]
            .chunks_exact(Point::WORDS)
            .map(Point::take)
            .collect();
        proof::prove(&program).map_err(|(word, what)| fault(word, what))?;
        Ok(program)
    }

    /// Leaves out what comes after so many of its points (at least one), as if the process had ended there. Live blocks,
    /// the peak and the end are those of the rest, the peak among its points; counts of operations stay those of the whole.
    pub fn shorten(&mut self, points: u64) {
        self.points.truncate((points as usize).max(1));
        let Some(last) = self.points.last().copied() else {
            return;
        };
        let facts = &mut self.facts;
        facts.points = self.points.len() as u64;
        facts.op_words = last.word;
        facts.end_ns = last.time_ns;
        facts.end_live_bytes = last.live_bytes;
        facts.end_live_blocks = last.live_blocks;
        facts.end_live_rounded_bytes = last.live_rounded_bytes;
        if facts.peak_word > last.word {
            // The first of equals, as the peak of a whole program is.
            let points = self.points.iter().rev();
            let peak = points.max_by_key(|point| point.live_bytes).unwrap_or(&last);
            facts.peak_word = peak.word;
            facts.peak_live_bytes = peak.live_bytes;
            facts.peak_live_blocks = peak.live_blocks;
            facts.peak_live_rounded_bytes = peak.live_rounded_bytes;
        }
    }

    /// What is known of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The points, in order.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The operations, with [`PADDING`] words behind them.
    pub fn ops(&self) -> &[u64] {
        &self.region.words()[HEADER_WORDS..][..self.facts.op_words as usize + PADDING]
    }

    /// The allocations before the clock starts, with [`PADDING`] words behind them.
    pub fn setup(&self) -> &[u64] {
        &self.region.words()[self.setup_first..][..self.facts.setup_words as usize + PADDING]
    }
}

/// Maps a file that begins with a header of this magic number and version.
pub(crate) fn map_file(path: &Path, magic: u64, version: u64) -> Result<Region, ReplayError> {
    let of_file = |source: io::Error| ReplayError::File {
        path: path.to_owned(),
        source,
    };
    let fault = |what| ReplayError::Malformed {
        path: path.to_owned(),
        offset: 0,
        what,
    };
    let file = File::open(path).map_err(of_file)?;
    let bytes = file.metadata().map_err(of_file)?.len() as usize;
    if bytes < HEADER_WORDS * 8 || !bytes.is_multiple_of(8) {
        return Err(fault("a length that no program has"));
    }
    let region = Region::of_file(&file, bytes).map_err(of_file)?;
    let words = region.words();
    if words[0] != magic {
        return Err(fault("no magic number"));
    }
    if words[1] != version {
        return Err(fault("another version"));
    }
    Ok(region)
}

/// Maps a program and reads its header; its length is as the header says.
fn map(path: &Path) -> Result<(Region, Facts), ReplayError> {
    let fault = |what| ReplayError::Malformed {
        path: path.to_owned(),
        offset: 0,
        what,
    };
    let region = map_file(path, MAGIC, VERSION)?;
    let words = region.words();
    let facts = Facts::take(&words[2..HEADER_WORDS]);
    let expected = facts
        .points
        .checked_mul(Point::WORDS as u64)
        .and_then(|sum| sum.checked_add(facts.op_words))
        .and_then(|sum| sum.checked_add(facts.setup_words))
        .and_then(|sum| sum.checked_add((HEADER_WORDS + 2 * PADDING) as u64));
    if expected != Some(words.len() as u64) {
        return Err(fault("counts that do not fit its length"));
    }
    if facts.slots > 1 << 32 {
        return Err(fault("more slots than operations can name"));
    }
    Ok((region, facts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word;

    /// An operation without an alignment.
    fn op(kind: u64, slot: u32, bytes: u64) -> Op {
        Op {
            kind,
            slot,
            bytes,
            align_log2: 0,
        }
    }

    fn aligned(kind: u64) -> Op {
        Op {
            align_log2: 6,
            ..op(kind, 0, 100)
        }
    }

    /// Writes a program whose counts are right, whatever its operations are.
    fn write(
        path: &Path,
        setup: &[Op],
        ops: &[Op],
        slots: u64,
        change: impl Fn(&mut Facts, &mut Vec<Point>),
    ) {
        let mut writer = Writer::new(File::create(path).unwrap(), path).unwrap();
        let mut facts = Facts {
            slots,
            inherited_blocks: setup.len() as u64,
            ..Facts::default()
        };
        for op in ops {
            let (wide, word) = op.encode();
            for word in wide.into_iter().chain([word]) {
                writer.word(word).unwrap();
                facts.op_words += 1;
            }
            match op.kind {
                word::ALLOC | word::ZEROED => facts.allocations += 1,
                word::RESIZE => facts.resizes += 1,
                word::FREE => facts.frees += 1,
                word::UNLOCK if op.bytes != 0 => facts.locks += 1,
                word::UNLOCK => facts.unlocks += 1,
                _ => {}
            }
            facts.zeroed += u64::from(op.kind == word::ZEROED);
        }
        facts.operations = facts.allocations + facts.resizes + facts.frees;
        let mut points = vec![Point {
            word: facts.op_words,
            ..Point::default()
        }];
        change(&mut facts, &mut points);
        writer.finish(facts, setup, &points).unwrap();
    }

    fn refusal(path: &Path) -> Option<String> {
        Program::open(path).err().map(|error| error.to_string())
    }

    #[test]
    fn every_single_wrong_bit_and_every_other_length_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let ops = [
            op(word::ALLOC, 1, 100),
            aligned(word::ALLOC).at(2),
            op(word::FREE, 0, 0),
            op(word::RESIZE, 1, 7),
        ];
        write(&path, &[op(word::ALLOC, 0, 24)], &ops, 3, |_, _| {});
        assert_eq!(refusal(&path), None);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            assert!(refusal(&path).is_some(), "byte {at}");
        }
        for length in (0..whole.len()).chain([whole.len() + 8]) {
            let mut bytes = whole.clone();
            bytes.resize(length, 0);
            std::fs::write(&path, &bytes).unwrap();
            assert!(refusal(&path).is_some(), "length {length}");
        }
    }

    #[test]
    fn a_shortened_program_still_allocates_what_was_inherited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let inherited = op(word::ALLOC, 0, 24);
        let ops = [
            op(word::ALLOC, 1, 100),
            op(word::ALLOC, 2, 8),
            op(word::RESIZE, 0, 7),
            op(word::FREE, 1, 0),
        ];
        write(&path, &[inherited], &ops, 3, |_, points| {
            points[0].word = 2;
        });
        let mut program = Program::open(&path).unwrap();
        let setup = program.setup().to_vec();
        program.shorten(1);
        assert_eq!(program.facts().op_words, 2);
        assert_eq!(program.setup(), setup);
        assert_eq!(program.ops()[0], ops[0].encode().1);
    }

    impl Op {
        fn at(self, slot: u32) -> Op {
            Op { slot, ..self }
        }
    }

    #[test]
    fn operations_that_a_worker_must_not_trust_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let alloc = op(word::ALLOC, 0, 1);
        let cases: [(&[Op], &[Op], &str); 9] = [
            (&[], &[alloc.at(2)], "outside"),
            (&[], &[alloc, alloc], "taken"),
            (&[alloc], &[alloc], "taken"),
            (
                &[],
                &[alloc, op(word::FREE, 0, 0), op(word::FREE, 0, 0)],
                "not there",
            ),
            (&[], &[alloc, op(word::RESIZE, 1, 0)], "not there"),
            (&[], &[alloc, op(word::UNLOCK, 1, 0)], "not there"),
            (&[], &[alloc, op(6, 0, 0)], "unknown operation"),
            (
                &[],
                &[aligned(word::ZEROED)],
                "zeroed memory with an alignment",
            ),
            (&[op(word::FREE, 0, 0)], &[alloc], "not there"),
        ];
        for (setup, ops, why) in cases {
            write(&path, setup, ops, 2, |_, _| {});
            let told = refusal(&path).unwrap_or_default();
            assert!(told.contains(why), "{ops:?}: {told}");
        }
        type Change = fn(&mut Facts, &mut Vec<Point>);
        let changes: [(Change, &str); 6] = [
            (|facts, _| facts.slots = 0, "outside"),
            (|facts, _| facts.slots = u64::MAX, "more slots"),
            (|facts, _| facts.op_words = u64::MAX, "counts"),
            (|facts, _| facts.frees += 1, "counts"),
            (
                |facts, points| points[0].word = facts.op_words + 1,
                "out of order",
            ),
            // Between a wide word and its operation.
            (|_, points| points[0].word = 1, "a wide word without"),
        ];
        for (change, why) in changes {
            write(&path, &[], &[aligned(word::ALLOC)], 1, change);
            let told = refusal(&path).unwrap_or_default();
            assert!(told.contains(why), "{why}: {told}");
        }
    }
}
