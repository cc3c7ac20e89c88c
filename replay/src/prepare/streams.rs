//! Parts the operations of a process into a stream for each thread: which slot a block has, what a thread must wait for,
//! where threads meet. `streams.rs` has the file that this makes.
//!
//! Memory: the words between two cuts, and a few words for each live block, segment and thread.

use super::Output;
use crate::error::ReplayError;
use crate::program::{Facts, Point, Writer};
use crate::streams::{Piece, Rest, Segment, Shape, Span, finish};
use crate::word::{self, Op};
use std::collections::VecDeque;
use std::ops::Range;

/// Waits that a thread remembers, by the number of the other thread: what is forgotten is waited for again.
pub(crate) const WAITS_KNOWN: usize = 64;
/// Slots that a thread takes at once: those of a cache line, which then is its own.
const SLOTS_AT_ONCE: u32 = 4;
/// Vacant slots that a thread takes over at once.
const SLOTS_TAKEN_OVER: usize = 32;
/// Slots for each thread, and for each live block, up to which fresh ones are taken.
const SLOTS_A_THREAD: u64 = 64;
const SLOTS_A_BLOCK: u64 = 2;

/// How far a thread was, when it did something.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    thread: u32,
    /// Words that its stream had then.
    words: u64,
}

/// Of no thread: before the clock starts.
const NOBODY: u32 = u32::MAX;

/// A block, by its number in the heap.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    slot: u32,
    /// The latest operation on it.
    latest: Moment,
}

/// What a thread has waited for: `(thread, words)` by the lower bits of the thread's number.
#[derive(Clone, Debug)]
pub(crate) struct Known([(u32, u64); WAITS_KNOWN]);

impl Default for Known {
    fn default() -> Known {
        Known([(NOBODY, 0); WAITS_KNOWN])
    }
}

impl Known {
    /// Whether the first `words` of `thread` were waited for.
    #[inline]
    pub(crate) fn has(&self, thread: u32, words: u64) -> bool {
        let (known, until) = self.0[thread as usize % WAITS_KNOWN];
        known == thread && until >= words
    }

    /// They have been.
    #[inline]
    pub(crate) fn waited(&mut self, thread: u32, words: u64) {
        self.0[thread as usize % WAITS_KNOWN] = (thread, words);
    }
}

/// The stream of a thread, since the latest cut.
#[derive(Debug, Default)]
struct Stream {
    words: Vec<u64>,
    /// Words before the latest cut.
    before: u64,
    span: Span,
    known: Known,
    /// Slots it has not used yet.
    fresh: Range<u32>,
    /// Slots that are free, the one freed last at the end, and when that was.
    vacant: VecDeque<(u32, Moment)>,
    /// The peak that `words_at_peak` is of.
    peak: u64,
    /// Words before the operations that followed the peak.
    words_at_peak: usize,
    /// Words that are in pieces already.
    told: usize,
}

impl Stream {
    fn done(&self) -> u64 {
        self.before + self.words.len() as u64
    }
}

/// A moment between two cuts at which memory can be looked at.
struct Pause {
    end: u64,
    live_bytes: u64,
    /// Words of each thread that has some since the cut.
    words: Vec<(u32, usize)>,
}

/// Streams that are being made.
pub(super) struct Streams {
    writer: Writer,
    shape: Shape,
    /// Operations of the merged order from one cut to the next.
    between: u64,
    streams: Vec<Stream>,
    /// Threads that have words since the latest cut.
    active: Vec<u32>,
    places: Vec<Place>,
    /// Slots given out so far.
    slots: u32,
    /// Slots that nobody has used and nobody has.
    unused: Vec<u32>,
    live_blocks: u64,
    most_live_blocks: u64,
    /// Operations of the merged order so far, and at the latest cut.
    operations: u64,
    cut: u64,
    live_bytes: u64,
    /// The most since the latest cut.
    most_live_bytes: u64,
    pauses: Vec<Pause>,
    /// Peaks so far; where the latest is, and live bytes then, if it is behind the latest cut.
    peaks: u64,
    peak: Option<(u64, u64)>,
    /// Words written so far.
    written: u64,
    segments: Vec<Segment>,
    pieces: Vec<Piece>,
}

impl Streams {
    /// Streams with a cut after every `between` operations.
    pub(super) fn new(writer: Writer, between: u64) -> Streams {
        Streams {
            writer,
            shape: Shape::default(),
            between: between.max(1),
            streams: Vec::new(),
            active: Vec::new(),
            places: Vec::new(),
            slots: 0,
            unused: Vec::new(),
            live_blocks: 0,
            most_live_blocks: 0,
            operations: 0,
            cut: 0,
            live_bytes: 0,
            most_live_bytes: 0,
            pauses: Vec::new(),
            peaks: 0,
            peak: None,
            written: 0,
            segments: Vec::new(),
            pieces: Vec::new(),
        }
    }

    fn place(&mut self, block: u32) -> &mut Place {
        let at = block as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, Place::default());
        }
        &mut self.places[at]
    }

    /// Fresh slots, as many as one line of a cache has.
    fn fresh(&mut self) -> Result<Range<u32>, ReplayError> {
        let begin = self.slots;
        let end = begin.checked_add(SLOTS_AT_ONCE);
        self.slots = end.ok_or_else(|| ReplayError::Option("more than 2^32 slots".into()))?;
        Ok(begin..self.slots)
    }

    /// A slot for a block of a thread, and when it was freed if another thread did that.
    #[inline]
    fn vacant(&mut self, thread: u32) -> Result<(u32, Option<Moment>), ReplayError> {
        let stream = &mut self.streams[thread as usize];
        if let Some((slot, freed)) = stream.vacant.pop_back() {
            return Ok((slot, (freed.thread != thread).then_some(freed)));
        }
        if let Some(slot) = stream.fresh.next() {
            return Ok((slot, None));
        }
        self.more(thread)
    }

    #[cold]
    fn more(&mut self, thread: u32) -> Result<(u32, Option<Moment>), ReplayError> {
        if let Some(slot) = self.unused.pop() {
            return Ok((slot, None));
        }
        let threads = self.streams.len() as u64;
        let enough = (SLOTS_A_BLOCK * self.most_live_blocks).max(SLOTS_A_THREAD * threads);
        if u64::from(self.slots) >= enough {
            // The slots freed longest ago by the thread that has most.
            let most = self.streams.iter_mut().max_by_key(|one| one.vacant.len());
            let mut taken: VecDeque<_> = most.map_or_else(VecDeque::new, |one| {
                let count = one.vacant.len().min(SLOTS_TAKEN_OVER);
                one.vacant.drain(..count).collect()
            });
            if let Some((slot, freed)) = taken.pop_front() {
                self.shape.taken_over += 1 + taken.len() as u64;
                let own = &mut self.streams[thread as usize].vacant;
                own.extend(taken.into_iter().rev());
                return Ok((slot, (freed.thread != thread).then_some(freed)));
            }
        }
        let mut fresh = self.fresh()?;
        let slot = fresh.next().unwrap_or_default();
        self.streams[thread as usize].fresh = fresh;
        Ok((slot, None))
    }

    /// Makes a thread wait for what another one has done, unless it is known to be done.
    #[inline]
    fn wait(&mut self, thread: u32, latest: Moment) -> Result<(), ReplayError> {
        if latest.thread == thread || latest.thread == NOBODY {
            return Ok(());
        }
        self.shape.dependencies += 1;
        if latest.words <= self.streams[latest.thread as usize].before {
            return Ok(());
        }
        let stream = &mut self.streams[thread as usize];
        if stream.known.has(latest.thread, latest.words) {
            return Ok(());
        }
        if latest.words > word::DONE_MAX {
            return Err(ReplayError::Option("a thread has too many words".into()));
        }
        self.shape.waits += 1;
        stream.known.waited(latest.thread, latest.words);
        stream.words.push(word::wait(latest.thread, latest.words));
        Ok(())
    }

    /// Makes room for a thread that begins to work after a cut.
    #[cold]
    fn activate(&mut self, thread: u32) -> Result<(), ReplayError> {
        if thread >= word::THREADS_MAX {
            return Err(ReplayError::Option(format!(
                "thread {thread}: at most {} can be replayed; use --threads one",
                word::THREADS_MAX
            )));
        }
        let at = thread as usize;
        if at >= self.streams.len() {
            self.streams.resize_with(at + 1, Stream::default);
        }
        let stream = &mut self.streams[at];
        if stream.span.end == 0 {
            stream.span.begin = self.operations;
        }
        stream.peak = self.peaks;
        stream.words_at_peak = 0;
        self.active.push(thread);
        Ok(())
    }

    /// Words that each thread has at this moment.
    fn words_now(&self) -> Vec<(u32, usize)> {
        let now = |thread: &u32| (*thread, self.streams[*thread as usize].words.len());
        self.active.iter().map(now).collect()
    }

    /// Puts the words since the latest cut into the file.
    fn cut(&mut self) -> Result<(), ReplayError> {
        if self.operations == self.cut {
            return Ok(());
        }
        self.cut = self.operations;
        let mut pauses = std::mem::take(&mut self.pauses);
        if let Some((end, live_bytes)) = self.peak.take() {
            let at = pauses.partition_point(|pause| pause.end < end);
            if pauses.get(at).is_none_or(|pause| pause.end != end) {
                let words = |thread: &u32| {
                    let stream = &self.streams[*thread as usize];
                    let is_behind = stream.peak == self.peaks;
                    let all = stream.words.len();
                    (*thread, if is_behind { stream.words_at_peak } else { all })
                };
                let pause = Pause {
                    end,
                    live_bytes,
                    words: self.active.iter().map(words).collect(),
                };
                pauses.insert(at, pause);
            }
        }
        pauses.retain(|pause| pause.end != self.operations);
        pauses.push(Pause {
            end: self.operations,
            live_bytes: self.live_bytes,
            words: self.words_now(),
        });
        let mut first = self.written;
        let mut firsts = Vec::with_capacity(self.active.len());
        for thread in &self.active {
            let stream = &mut self.streams[*thread as usize];
            stream.told = 0;
            firsts.push(first);
            first += stream.words.len() as u64;
            for word in &stream.words {
                self.writer.word(*word)?;
            }
        }
        self.written = first;
        for pause in pauses {
            let pieces = self.pieces.len();
            // Threads become active one by one: those of a pause are the first ones of all.
            for ((thread, words), first) in pause.words.iter().zip(&firsts) {
                let stream = &mut self.streams[*thread as usize];
                if *words > stream.told {
                    self.pieces.push(Piece {
                        thread: u64::from(*thread),
                        word: first + stream.told as u64,
                        words: (words - stream.told) as u64,
                    });
                    stream.told = *words;
                }
            }
            self.segments.push(Segment {
                end: pause.end,
                is_cut: u64::from(pause.end == self.operations),
                live_bytes: pause.live_bytes,
                most_live_bytes: self.most_live_bytes,
                pieces: (self.pieces.len() - pieces) as u64,
            });
        }
        for thread in self.active.drain(..) {
            let stream = &mut self.streams[thread as usize];
            stream.before += stream.words.len() as u64;
            stream.words.clear();
        }
        self.shape.cuts += 1;
        self.most_live_bytes = self.live_bytes;
        Ok(())
    }
}

impl Output for Streams {
    #[inline]
    fn op(&mut self, thread: u32, op: Op, live_bytes: u64) -> Result<(), ReplayError> {
        let at = thread as usize;
        if self
            .streams
            .get(at)
            .is_none_or(|stream| stream.words.is_empty())
        {
            self.activate(thread)?;
        }
        let stream = &mut self.streams[at];
        if stream.peak != self.peaks {
            stream.peak = self.peaks;
            stream.words_at_peak = stream.words.len();
        }
        let is_birth = matches!(op.kind, word::ALLOC | word::ZEROED);
        let slot = if is_birth {
            let (slot, freed) = self.vacant(thread)?;
            if let Some(freed) = freed {
                self.wait(thread, freed)?;
            }
            self.live_blocks += 1;
            self.most_live_blocks = self.most_live_blocks.max(self.live_blocks);
            slot
        } else {
            let place = *self.place(op.slot);
            self.wait(thread, place.latest)?;
            place.slot
        };
        let (wide, word) = Op { slot, ..op }.encode();
        let stream = &mut self.streams[at];
        stream.words.extend(wide);
        stream.words.push(word);
        let latest = Moment {
            thread,
            words: stream.done(),
        };
        self.operations += 1;
        stream.span.end = self.operations;
        if op.kind == word::FREE {
            stream.vacant.push_back((slot, latest));
            self.live_blocks = self.live_blocks.wrapping_sub(1);
        }
        *self.place(op.slot) = Place { slot, latest };
        self.live_bytes = live_bytes;
        self.most_live_bytes = self.most_live_bytes.max(live_bytes);
        Ok(())
    }

    fn may_cut(&mut self) -> Result<(), ReplayError> {
        match self.operations - self.cut >= self.between {
            true => self.cut(),
            false => Ok(()),
        }
    }

    #[inline]
    fn position(&self) -> u64 {
        self.operations
    }

    #[inline]
    fn peak(&mut self) {
        self.peaks += 1;
        self.peak = Some((self.operations, self.live_bytes));
    }

    fn point(&mut self) {
        let latest = self.pauses.last().map_or(self.cut, |pause| pause.end);
        if latest != self.operations {
            let pause = Pause {
                end: self.operations,
                live_bytes: self.live_bytes,
                words: self.words_now(),
            };
            self.pauses.push(pause);
        }
    }

    fn there(&mut self, block: u32, bytes: u64) -> Result<u32, ReplayError> {
        let slot = match self.unused.pop() {
            Some(slot) => slot,
            None => {
                // The next one is taken first.
                let fresh = self.fresh()?;
                self.unused.extend(fresh.clone().skip(1).rev());
                fresh.start
            }
        };
        let latest = Moment {
            thread: NOBODY,
            words: 0,
        };
        *self.place(block) = Place { slot, latest };
        self.live_blocks = self.live_blocks.wrapping_add(1);
        self.most_live_blocks = self.most_live_blocks.max(self.live_blocks);
        self.shift(bytes);
        Ok(slot)
    }

    fn gone(&mut self, block: u32, bytes: u64) -> u32 {
        let slot = self.place(block).slot;
        self.unused.push(slot);
        self.live_blocks = self.live_blocks.wrapping_sub(1);
        self.shift(bytes.wrapping_neg());
        slot
    }

    fn slots(&self, _blocks: u64) -> u64 {
        u64::from(self.slots)
    }

    fn finish(
        mut self,
        mut facts: Facts,
        setup: &[Op],
        points: &[Point],
    ) -> Result<Facts, ReplayError> {
        self.cut()?;
        facts.op_words = self.written;
        let between = |end: &mut u64, cut: &Segment| {
            let operations = cut.end - *end;
            *end = cut.end;
            Some(operations)
        };
        let cuts = self.segments.iter().filter(|segment| segment.is_cut != 0);
        self.shape.window = cuts.scan(0, between).max().unwrap_or_default();
        let mut spans = Vec::with_capacity(self.streams.len());
        for stream in &self.streams {
            spans.push(Span {
                words: stream.before,
                ..stream.span
            });
        }
        let rest = Rest {
            setup,
            points,
            segments: &self.segments,
            pieces: &self.pieces,
            spans: &spans,
        };
        let (facts, _) = finish(self.writer, facts, self.shape, rest)?;
        Ok(facts)
    }
}

impl Streams {
    /// A block is there from the start on, or is not: everything that was seen since moves with it.
    fn shift(&mut self, bytes: u64) {
        let each = |live: &mut u64| *live = live.wrapping_add(bytes);
        each(&mut self.live_bytes);
        each(&mut self.most_live_bytes);
        self.pauses
            .iter_mut()
            .for_each(|pause| each(&mut pause.live_bytes));
        if let Some((_, live_bytes)) = &mut self.peak {
            each(live_bytes);
        }
        for segment in &mut self.segments {
            each(&mut segment.live_bytes);
            each(&mut segment.most_live_bytes);
        }
    }
}
