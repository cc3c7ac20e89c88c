//! Proves streams: the tables fit each other and the words, and every operation finds its slot as it needs it, in whatever
//! order the threads run.
//!
//! The words are walked through in one order that the waits allow: thread after thread, each until it must wait for words that
//! are not done. If that order comes to the end of a segment, any does: what a thread waits for, once done, stays done. And
//! on the way each operation is found to be behind the one before it on the same slot by a cut, by a wait, or as both
//! are of one thread: so on each slot all orders are this one. A thread also waits for the one that had its seat before.

use super::{Facts, HEADER_WORDS, Piece, Seat, Span, Streams, seats};
use crate::prepare::Known;
use crate::program::PADDING;
use crate::region::Region;
use crate::word::{self, Op};

type Wrong = (usize, &'static str);

/// Words of a slot in the table of slots.
const SLOT_WORDS: usize = 2;
/// Thread of the latest operation on a slot: none.
const NOBODY: u64 = 0x7fff_ffff;

struct Proof<'a> {
    streams: &'a Streams,
    /// Of each slot: twice the thread of its latest operation, plus one while it holds a block; how many words that
    /// thread had done then.
    slots: Region,
    threads: Vec<Thread>,
    seats: Vec<Seat>,
    facts: Facts,
    waits: u64,
}

#[derive(Clone, Default)]
struct Thread {
    /// Words done, and those of them that were done at the latest cut.
    done: u64,
    before_cut: u64,
    known: Known,
}

/// A thread's words between two cuts.
struct Turn {
    thread: usize,
    at: usize,
    end: usize,
}

/// Walks through streams. Where they are wrong, the word (from the file's start) and why.
pub(super) fn prove(streams: &Streams) -> Result<(), Wrong> {
    let facts = &streams.facts;
    let slots = Region::zeroed(facts.slots as usize * SLOT_WORDS * 8, false);
    let (seats, together) = seats(&streams.spans);
    let mut proof = Proof {
        streams,
        slots: slots.map_err(|_| (0, "more slots than there is memory"))?,
        threads: vec![Thread::default(); streams.spans.len()],
        seats,
        facts: Facts::default(),
        waits: 0,
    };
    proof.setup()?;
    proof.tables(together)?;
    let (mut piece, mut first_word) = (0, 0);
    let mut segments = streams.segments.iter();
    while !segments.as_slice().is_empty() {
        let mut turns: Vec<Turn> = Vec::new();
        let mut pieces = 0;
        for segment in segments.by_ref() {
            pieces += segment.pieces as usize;
            // From pause to pause: this order is one where threads meet at pauses, and one where they do not.
            proof.segment(&streams.pieces[piece..][..segment.pieces as usize])?;
            if proof.operations() != segment.end {
                return Err((
                    HEADER_WORDS + first_word,
                    "a segment with other operations than it says",
                ));
            }
            piece += segment.pieces as usize;
            if segment.is_cut != 0 {
                break;
            }
        }
        // The words of a thread lie together from cut to cut.
        for one in &streams.pieces[piece - pieces..piece] {
            let thread = one.thread as usize;
            let (at, words) = (one.word as usize, one.words as usize);
            match turns.iter_mut().find(|turn| turn.thread == thread) {
                Some(turn) if turn.end == at => turn.end += words,
                Some(_) => return Err((HEADER_WORDS + at, "a stream with a gap")),
                None => turns.push(Turn {
                    thread,
                    at,
                    end: at + words,
                }),
            }
        }
        turns.sort_by_key(|turn| turn.at);
        for turn in &turns {
            if turn.at != first_word {
                return Err((HEADER_WORDS + first_word, "words that nobody has"));
            }
            first_word = turn.end;
        }
        for thread in &mut proof.threads {
            thread.before_cut = thread.done;
        }
    }
    proof.end(first_word)
}

impl Proof<'_> {
    fn operations(&self) -> u64 {
        let facts = &self.facts;
        facts.allocations + facts.resizes + facts.frees + facts.unlocks + facts.locks
    }

    fn setup(&mut self) -> Result<(), Wrong> {
        let facts = &self.streams.facts;
        let base = HEADER_WORDS + facts.op_words as usize + PADDING;
        let (words, mut at) = (self.streams.setup(), 0);
        while at < facts.setup_words as usize {
            let (op, width) = operation(words, at, facts.setup_words as usize)
                .map_err(|what| (base + at, what))?;
            self.apply(op, NOBODY, 0)
                .map_err(|what| (base + at, what))?;
            at += width;
        }
        if self.facts.allocations != self.operations()
            || self.facts.allocations != facts.inherited_blocks
        {
            return Err((base, "inherited blocks that are no allocations"));
        }
        self.facts = Facts::default();
        let is_padding = |words: &[u64], from: u64| {
            let behind = &words[from as usize..];
            behind.iter().all(|word| *word == 0)
        };
        if !is_padding(words, facts.setup_words) || !is_padding(self.streams.ops(), facts.op_words)
        {
            return Err((base, "something between its parts"));
        }
        Ok(())
    }

    /// Looks at what does not need the words.
    fn tables(&self, together: usize) -> Result<(), Wrong> {
        let streams = self.streams;
        let (facts, segments) = (&streams.facts, &streams.segments);
        let tables = HEADER_WORDS + (facts.op_words + facts.setup_words) as usize + 2 * PADDING;
        let wrong = |what| Err((tables, what));
        let (mut end, mut pieces, mut cut, mut cuts, mut window) = (0, 0u64, 0, 0, 0);
        for segment in segments {
            if segment.end <= end {
                return wrong("segments out of order");
            }
            end = segment.end;
            pieces = pieces.saturating_add(segment.pieces);
            if segment.is_cut != 0 {
                cuts += 1;
                window = window.max(end - cut);
                cut = end;
            }
        }
        if cut != end || cuts != streams.shape.cuts || window != streams.shape.window {
            return wrong("cuts other than it says");
        }
        if pieces != streams.pieces.len() as u64 {
            return wrong("pieces of no segment");
        }
        let is_outside = |piece: &Piece| {
            let after = piece.word.checked_add(piece.words);
            piece.thread >= streams.spans.len() as u64
                || piece.words == 0
                || after.is_none_or(|after| after > facts.op_words)
        };
        if streams.pieces.iter().any(is_outside) {
            return wrong("a piece outside of the streams");
        }
        let is_end = |at: u64| at == 0 || segments.binary_search_by_key(&at, |one| one.end).is_ok();
        if !is_end(facts.peak_word) || !streams.points.iter().all(|point| is_end(point.word)) {
            return wrong("a point that is within a segment");
        }
        if !streams.points.is_sorted_by_key(|point| point.word) {
            return wrong("points out of order");
        }
        if together as u64 != streams.shape.together {
            return wrong("another number of threads at once");
        }
        Ok(())
    }

    /// Runs the pieces of a segment, in an order that their waits allow.
    fn segment(&mut self, pieces: &[Piece]) -> Result<(), Wrong> {
        let mut turns: Vec<Turn> = pieces
            .iter()
            .map(|piece| Turn {
                thread: piece.thread as usize,
                at: piece.word as usize,
                end: (piece.word + piece.words) as usize,
            })
            .collect();
        while !turns.is_empty() {
            let mut is_stuck = true;
            for turn in &mut turns {
                let from = turn.at;
                self.turn(turn)?;
                is_stuck &= turn.at == from;
            }
            if is_stuck {
                let at = turns.first().map_or(0, |turn| turn.at);
                return Err((HEADER_WORDS + at, "threads that wait for each other"));
            }
            turns.retain(|turn| turn.at < turn.end);
        }
        Ok(())
    }

    /// Runs a thread until it must wait, or its piece ends.
    fn turn(&mut self, turn: &mut Turn) -> Result<(), Wrong> {
        let before = self.seats[turn.thread].before;
        if before.is_some_and(|other| self.threads[other].done != self.streams.spans[other].words) {
            return Ok(());
        }
        let words = self.streams.ops();
        while turn.at < turn.end {
            let base = HEADER_WORDS + turn.at;
            if word::kind(words[turn.at]) == word::WAIT {
                let (thread, done) = word::waited(words[turn.at]);
                match self.threads.get(thread as usize) {
                    Some(other) if other.done >= done => {}
                    Some(_) => return Ok(()),
                    None => return Err((base, "a wait for a thread that is not there")),
                }
                self.waits += 1;
                let this = &mut self.threads[turn.thread];
                this.known.waited(thread, done);
                this.done += 1;
                turn.at += 1;
                continue;
            }
            let (op, width) = operation(words, turn.at, turn.end).map_err(|what| (base, what))?;
            let done = self.threads[turn.thread].done + width as u64;
            self.apply(op, turn.thread as u64, done)
                .map_err(|what| (base, what))?;
            self.threads[turn.thread].done = done;
            turn.at += width;
        }
        Ok(())
    }

    /// An operation of a thread, which then has done so many words.
    #[inline]
    fn apply(&mut self, op: Op, thread: u64, done: u64) -> Result<(), &'static str> {
        if u64::from(op.slot) >= self.streams.facts.slots {
            return Err("a slot outside of the table");
        }
        let place = op.slot as usize * SLOT_WORDS;
        let held = &mut self.slots.words_mut()[place..place + SLOT_WORDS];
        let (is_live, latest, until) = (held[0] & 1 != 0, held[0] >> 1, held[1]);
        let is_birth = matches!(op.kind, word::ALLOC | word::ZEROED);
        if is_birth == is_live {
            return Err(match is_birth {
                true => "an allocation into a slot that is taken",
                false => "an operation on a block that is not there",
            });
        }
        // A slot that nobody used has thread 0 with no word done.
        if latest != thread && latest != NOBODY && until != 0 {
            let other = &self.threads[latest as usize];
            let is_behind = until <= other.before_cut
                || (thread != NOBODY
                    && self.threads[thread as usize]
                        .known
                        .has(latest as u32, until));
            if !is_behind {
                return Err("an operation that does not wait for the one before it");
            }
        }
        if op.bytes > word::BYTES_MAX || op.align_log2 > word::ALIGN_LOG2_MAX {
            return Err("a size or an alignment that no block has");
        }
        if op.align_log2 != 0 && op.kind != word::ALLOC {
            return Err("an alignment of what takes none");
        }
        let mut lives = 1;
        match op.kind {
            word::ALLOC => self.facts.allocations += 1,
            word::ZEROED => {
                self.facts.allocations += 1;
                self.facts.zeroed += 1;
            }
            word::RESIZE => self.facts.resizes += 1,
            word::FREE => {
                lives = 0;
                self.facts.frees += 1;
            }
            word::UNLOCK => match op.bytes {
                0 => self.facts.unlocks += 1,
                1 => self.facts.locks += 1,
                _ => return Err("a lock with a size"),
            },
            _ => return Err("an unknown operation"),
        }
        held[0] = thread << 1 | lives;
        held[1] = done;
        Ok(())
    }

    /// Compares what was counted.
    fn end(&self, words: usize) -> Result<(), Wrong> {
        let (found, facts) = (&self.facts, &self.streams.facts);
        let same = found.allocations == facts.allocations
            && found.zeroed == facts.zeroed
            && found.resizes == facts.resizes
            && found.frees == facts.frees
            && found.unlocks == facts.unlocks
            && found.locks == facts.locks
            && found.allocations + found.resizes + found.frees == facts.operations
            && self.waits == self.streams.shape.waits
            && words as u64 == facts.op_words;
        let is_same = |(thread, span): (&Thread, &Span)| {
            thread.done == span.words && (span.words == 0) == (span.end == 0)
        };
        match same && self.threads.iter().zip(&self.streams.spans).all(is_same) {
            true => Ok(()),
            false => Err((2, "counts that are not those of its operations")),
        }
    }
}

/// The operation at a word, and how many words it has.
#[inline]
fn operation(words: &[u64], at: usize, end: usize) -> Result<(Op, usize), &'static str> {
    match word::kind(words[at]) {
        word::WIDE if at + 1 < end => Ok((Op::decode_wide(words[at], words[at + 1]), 2)),
        word::WIDE => Err("a wide word without its operation"),
        _ => Ok((Op::decode(words[at]), 1)),
    }
}
