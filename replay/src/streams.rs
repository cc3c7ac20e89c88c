//! A program for several threads: a stream of words for each recorded thread. A file of 64-bit little-endian words, as
//! `program.rs` has it for one thread. Owns the file's form; `prepare/streams.rs` makes one from a trace,
//! `streams/proof.rs` proves it, `team.rs` performs it.
//!
//! The merged order of all operations is divided at *cuts*: when all threads have done what lies before one, the blocks that
//! live are the recorded ones of that moment. The words of one thread between two cuts lie together. Between cuts there
//! are *pauses*: moments at which memory can be looked at, where threads meet only in a round that does so. A wait
//! never reaches across a cut.
//!
//! | words | what |
//! |---|---|
//! | 64 | header: magic, version, [`Facts`], [`Shape`], CRC-32 of all that follows the header and then of the header so far, zeros |
//! | `op_words` | between cut and cut, thread by thread: operations and waits; then [`PADDING`] words of zeros |
//! | `setup_words` | allocations before the clock starts, then [`PADDING`] words of zeros |
//! | 5 a point | [`Point`]; its `word` is the number of operations of the merged order before it, unlocks included |
//! | 5 a segment | [`Segment`]: from one cut or pause to the next |
//! | 3 a piece | [`Piece`]: the words of one thread in one segment |
//! | 3 a thread | [`Span`] of each recorded thread, by its number |

mod proof;

use crate::error::ReplayError;
use crate::program::{
    Facts, HEADER_WORDS, PADDING, Point, Writer, check, map_file, words as fields,
};
use crate::region::Region;
use crate::word::Op;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

/// First word of the file.
const MAGIC: u64 = u64::from_le_bytes(*b"rmthread");
/// Version of the form; another one is made anew.
pub const VERSION: u64 = 1;

fields! {
    /// What is known of the streams, counted when they were prepared.
    Shape {
        /// Threads that have operations.
        threads,
        /// Rows of the table of threads.
        spans,
        /// From cut or pause to the next.
        segments,
        /// Words of one thread in one segment.
        pieces,
        /// Cuts, the end included.
        cuts,
        /// Operations of the merged order between two cuts at most; no thread is further ahead of another one.
        window,
        /// Most threads that are between their first and their last operation at once.
        together,
        /// Operations on a block whose latest operation was another thread's.
        dependencies,
        /// Waits that keep those in order where neither a cut nor an earlier wait does.
        waits,
        /// Slots taken from another thread's vacant ones.
        taken_over,
    }
}

fields! {
    /// From one cut or pause to the next.
    Segment {
        /// Operations of the merged order before its end.
        end,
        /// Whether it ends at a cut: 1, or 0.
        is_cut,
        /// Live bytes at its end, as recorded.
        live_bytes,
        /// Most live bytes in it, as recorded.
        most_live_bytes,
        /// Pieces that it has; they follow those of the segment before it.
        pieces,
    }
}

fields! {
    /// The words of one thread in one segment.
    Piece {
        /// Number of the thread.
        thread,
        /// Words of all streams before it.
        word,
        /// Words.
        words,
    }
}

fields! {
    /// When a thread works, in operations of the merged order.
    Span {
        /// Operations before its first.
        begin,
        /// Operations until its last one is done; 0: it has none.
        end,
        /// Words of its stream.
        words,
    }
}

const _: () = assert!(Facts::WORDS + Shape::WORDS + 3 <= HEADER_WORDS);

/// What follows the streams in a file.
pub struct Rest<'a> {
    /// Blocks that are allocated before the clock starts.
    pub setup: &'a [Op],
    /// Moments of recorded time.
    pub points: &'a [Point],
    /// The segments.
    pub segments: &'a [Segment],
    /// Their pieces.
    pub pieces: &'a [Piece],
    /// The threads.
    pub spans: &'a [Span],
}

/// Ends a file: `facts.op_words` words were added to `writer`. Numbers of what follows are put into the facts.
///
/// # Errors
/// When the file can't be written.
pub fn finish(
    mut writer: Writer,
    mut facts: Facts,
    mut shape: Shape,
    rest: Rest<'_>,
) -> Result<(Facts, Shape), ReplayError> {
    let mut words = vec![0; PADDING];
    for op in rest.setup {
        let (wide, word) = op.encode();
        words.extend(wide);
        words.push(word);
    }
    facts.setup_words = (words.len() - PADDING) as u64;
    facts.points = rest.points.len() as u64;
    words.extend([0; PADDING]);
    rest.points.iter().for_each(|point| point.put(&mut words));
    shape.segments = rest.segments.len() as u64;
    let segments = rest.segments.iter();
    segments.for_each(|segment| segment.put(&mut words));
    shape.pieces = rest.pieces.len() as u64;
    rest.pieces.iter().for_each(|piece| piece.put(&mut words));
    shape.spans = rest.spans.len() as u64;
    rest.spans.iter().for_each(|span| span.put(&mut words));
    shape.threads = rest.spans.iter().filter(|span| span.end != 0).count() as u64;
    shape.together = seats(rest.spans).1 as u64;
    for word in words {
        writer.word(word)?;
    }
    let mut header = vec![MAGIC, VERSION];
    facts.put(&mut header);
    shape.put(&mut header);
    writer.end(header)?;
    Ok((facts, shape))
}

/// Where a thread works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// Its number, from 0.
    pub number: usize,
    /// The thread that has it before and must have ended.
    pub before: Option<usize>,
}

/// Gives each thread a seat, so that no two that work at the same time have the same one; and how many seats there are. A
/// thread has the seat of the one that ended first.
pub fn seats(spans: &[Span]) -> (Vec<Seat>, usize) {
    let mut order: Vec<usize> = (0..spans.len()).filter(|at| spans[*at].end != 0).collect();
    order.sort_by_key(|at| (spans[*at].begin, *at));
    let mut seat_of = vec![Seat::default(); spans.len()];
    let mut vacant: BinaryHeap<Reverse<(u64, usize, usize)>> = BinaryHeap::new();
    let mut seats = 0;
    for at in order {
        let free = vacant
            .peek()
            .is_some_and(|Reverse((end, ..))| *end <= spans[at].begin);
        let seat = match vacant.pop() {
            Some(Reverse((_, number, before))) if free => Seat {
                number,
                before: Some(before),
            },
            other => {
                vacant.extend(other);
                seats += 1;
                Seat {
                    number: seats - 1,
                    before: None,
                }
            }
        };
        seat_of[at] = seat;
        vacant.push(Reverse((spans[at].end, seat.number, at)));
    }
    (seat_of, seats)
}

/// Streams that were opened and proven.
#[derive(Debug)]
pub struct Streams {
    region: Region,
    facts: Facts,
    shape: Shape,
    points: Vec<Point>,
    segments: Vec<Segment>,
    pieces: Vec<Piece>,
    spans: Vec<Span>,
}

impl Streams {
    /// Opens a file and checks all of it.
    ///
    /// # Errors
    /// When it can't be read or is malformed.
    pub fn open(path: &Path) -> Result<Streams, ReplayError> {
        let fault = |word: usize, what| ReplayError::Malformed {
            path: path.to_owned(),
            offset: (word * 8) as u64,
            what,
        };
        let region = map_file(path, MAGIC, VERSION)?;
        let words = region.words();
        let facts = Facts::take(&words[2..]);
        let shape = Shape::take(&words[2 + Facts::WORDS..]);
        let parts = [
            (1, facts.op_words),
            (1, facts.setup_words),
            (Point::WORDS, facts.points),
            (Segment::WORDS, shape.segments),
            (Piece::WORDS, shape.pieces),
            (Span::WORDS, shape.spans),
        ];
        let mut expected = Some((HEADER_WORDS + 2 * PADDING) as u64);
        for (words, count) in parts {
            expected = count
                .checked_mul(words as u64)
                .and_then(|more| expected?.checked_add(more));
        }
        if expected != Some(words.len() as u64) {
            return Err(fault(0, "counts that do not fit its length"));
        }
        if facts.slots > 1 << 32 {
            return Err(fault(0, "more slots than operations can name"));
        }
        check(words, Facts::WORDS + Shape::WORDS + 2).map_err(|(word, what)| fault(word, what))?;
        let tables = HEADER_WORDS + (facts.op_words + facts.setup_words) as usize + 2 * PADDING;
        let (points, rest) = words[tables..].split_at(facts.points as usize * Point::WORDS);
        let (segments, rest) = rest.split_at(shape.segments as usize * Segment::WORDS);
        let (pieces, spans) = rest.split_at(shape.pieces as usize * Piece::WORDS);
        let streams = Streams {
            facts,
            shape,
            points: points.chunks(Point::WORDS).map(Point::take).collect(),
            segments: segments.chunks(Segment::WORDS).map(Segment::take).collect(),
            pieces: pieces.chunks(Piece::WORDS).map(Piece::take).collect(),
            spans: spans.chunks(Span::WORDS).map(Span::take).collect(),
            region,
        };
        proof::prove(&streams).map_err(|(word, what)| fault(word, what))?;
        Ok(streams)
    }

    /// What is known of the operations; words of points and of the peak are operations of the merged order.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What is known of the streams.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The points, in order.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The pieces of all segments, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The threads, by number.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The words of all streams, with [`PADDING`] words behind them.
    pub fn ops(&self) -> &[u64] {
        &self.region.words()[HEADER_WORDS..][..self.facts.op_words as usize + PADDING]
    }

    /// The allocations before the clock starts, with [`PADDING`] words behind them.
    pub fn setup(&self) -> &[u64] {
        let first = HEADER_WORDS + self.facts.op_words as usize + PADDING;
        &self.region.words()[first..][..self.facts.setup_words as usize + PADDING]
    }
}
