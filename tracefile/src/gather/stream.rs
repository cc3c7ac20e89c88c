//! The stream of one thread: its chunks in sequence, decoded up to a stamp at a time.

use super::clock::{Clock, Span, Stamps};
use super::source::Part;
use crate::frame::Filler;
use crate::model::{Call, Mark};
use rmtrace_format::chunk::{Chunk, Counters};
use rmtrace_format::event::{Entry, Kind};
use rmtrace_format::record::{
    ALIGN_SHIFT, DELTA_BITS, DELTA_MASK, Damage, ENTRY_MASK, EXTRA, FREED, FULL_END,
    ITEM_BYTES_MAX, Item, LONG, MARK_NAMED, Records, UNIT_BYTES, content_sum,
};
use std::collections::BTreeMap;
use std::fs::File;

/// Bytes that are copied from a chunk at a time: all of most chunks.
const PIECE_BYTES: usize = 64 << 10;

/// Where the bytes of parts are.
pub trait Files {
    /// The file of this number, if it is still there.
    fn file(&self, source: u32) -> Option<&File>;
}

impl Files for Vec<File> {
    fn file(&self, source: u32) -> Option<&File> {
        self.get(source as usize)
    }
}

/// What decoding needs besides the stream, kept from one call to the next.
pub struct Scratch {
    bytes: Vec<u8>,
    hint: usize,
    span: Span,
    /// Where the calls go.
    pub filler: Filler,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            bytes: vec![0; PIECE_BYTES],
            hint: 0,
            span: Span::default(),
            filler: Filler::default(),
        }
    }
}

/// Where decoding stands in the first part.
#[derive(Clone, Copy, Debug)]
struct Position {
    sequence: u32,
    offset: u32,
    base: u64,
    /// Calls of the thread before the record at `offset`.
    ordinal: u64,
    /// Nothing from `offset` on has a stamp below this.
    not_before: u64,
}

/// How far to decode.
#[derive(Clone, Copy, Debug)]
pub struct Until {
    /// Records with this stamp or a later one stay.
    pub stamp: u64,
    /// Whether chunks that are missing will not come any more.
    pub missing_is_lost: bool,
    /// Whether active chunks will not grow any more.
    pub open_is_done: bool,
}

/// A part that was decoded to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The part.
    pub part: Part,
    /// Its number in the thread's stream.
    pub sequence: u32,
}

/// Things noticed while decoding, summed over streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Chunks whose records could not be decoded to the end.
    pub damaged: u64,
    /// Stamps that lay before their predecessor's in the same thread and were set to it.
    pub repaired: u64,
}

/// One thread's chunks and what was taken of them.
#[derive(Clone, Debug, Default)]
pub struct ThreadStream {
    /// Number of the thread in its process.
    pub thread: u32,
    /// The kernel's thread id.
    pub tid: u32,
    parts: BTreeMap<u32, Part>,
    position: Option<Position>,
    next_sequence: u32,
    next_ordinal: u64,
    last_tick: u64,
    /// Tick of the first call taken.
    pub first_tick: Option<u64>,
    /// Sum of the ticks of the calls taken.
    pub tick_sum: u64,
    /// Counters of the chunk with the highest sequence number.
    pub counters: Counters,
    /// Whether that chunk was not handed over: its counters may be one call behind.
    pub counters_may_lag: bool,
    /// Counters of the handed-over chunks from the last one taken on, by sequence number.
    closed: BTreeMap<u32, Counters>,
    /// Chunks in the stream: the highest sequence number plus one.
    pub chunks: u32,
    /// Chunks missing from the sequence together with calls.
    pub chunks_missing: u32,
}

impl ThreadStream {
    /// The stream of this thread, nothing known of it.
    pub fn new(thread: u32) -> ThreadStream {
        ThreadStream {
            thread,
            ..ThreadStream::default()
        }
    }

    /// Begins behind the first `calls` calls, of which a trace that is being continued says the last
    /// tick, the sum of the ticks and the first one.
    pub fn resume(&mut self, calls: u64, last_tick: u64, tick_sum: u64, first_tick: u64) {
        self.next_ordinal = calls;
        self.last_tick = last_tick;
        self.tick_sum = tick_sum;
        self.first_tick = Some(first_tick);
    }

    /// Says what was known of the thread when the chunk with this sequence number was given back.
    pub fn known(&mut self, tid: u32, sequence: u32, counters: &Counters) {
        if sequence >= self.chunks {
            self.tid = tid;
            self.chunks = sequence.saturating_add(1);
            self.counters = *counters;
            self.counters_may_lag = false;
        }
    }

    /// Adds a part, or replaces what is known of the same part (an active chunk has grown, or was
    /// appended since). Parts that were taken to their end before are left out; returns whether it
    /// is wanted.
    pub fn add(&mut self, chunk: &Chunk, part: Part) -> bool {
        let newest = chunk.sequence.saturating_add(1) >= self.chunks;
        if newest && chunk.counters.total() >= self.counters.total() {
            self.tid = chunk.tid;
            self.chunks = chunk.sequence.saturating_add(1);
            self.counters = chunk.counters;
            self.counters_may_lag = part.open || chunk.closed.tsc == 0;
        } else if newest {
            self.chunks = chunk.sequence.saturating_add(1);
        }
        if !part.open && chunk.sequence.saturating_add(1) >= self.next_sequence {
            self.closed.insert(chunk.sequence, chunk.counters);
        }
        if chunk.sequence < self.next_sequence {
            return false;
        }
        let Some(known) = self.parts.get_mut(&chunk.sequence) else {
            self.parts.insert(chunk.sequence, part);
            return true;
        };
        if known.check != part.check {
            // An empty chunk was given back and its number used again by a later one.
            if part.opened >= known.opened {
                *known = part;
                self.position = self.position.filter(|at| at.sequence != chunk.sequence);
            }
            return true;
        }
        // The longer one wins; of equals the one that is not going to change.
        let longer = part.data_bytes > known.data_bytes;
        let equal = part.data_bytes == known.data_bytes;
        if longer || equal && (known.open || !part.in_spool) {
            *known = part;
        }
        true
    }

    /// Calls taken so far, lost ones before them included.
    pub fn next_ordinal(&self) -> u64 {
        self.next_ordinal
    }

    /// Tick of the last call taken.
    pub fn last_tick(&self) -> u64 {
        self.last_tick
    }

    /// For a thread that goes on after the recording: its counters become those of the calls that
    /// were taken, from the last chunk taken whole and a count of what was taken behind it.
    pub fn stop_at_taken(&mut self, files: &impl Files) {
        let first = self.parts.first_key_value();
        let sequence = first.map_or(self.next_sequence, |(sequence, _)| *sequence);
        let before = match sequence.checked_sub(1) {
            None => Some(Counters::default()),
            Some(before) => self.closed.get(&before).copied(),
        };
        let Some(mut counters) = before else {
            return;
        };
        let at = self.position.filter(|at| at.sequence == sequence);
        let mut bytes = vec![0; at.map_or(0, |at| at.offset) as usize];
        if let Some((_, part)) = first {
            let file = files.file(part.source);
            let read = file.map_or(0, |file| part.read(file, 0, &mut bytes));
            if read != bytes.len() {
                return;
            }
            for item in Records::new(&bytes, part.opened) {
                if let Ok(Item::Call(record)) = item {
                    let count = &mut counters.calls[record.entry.kind() as usize];
                    *count = count.wrapping_add(1);
                    counters.bytes = counters.bytes.wrapping_add(record.size);
                    counters.sum = content_sum(counters.sum, &record);
                }
            }
        }
        counters.dropped = self.counters.dropped;
        self.counters = counters;
        self.counters_may_lag = false;
        self.chunks = sequence.saturating_add(u32::from(at.is_some()));
    }

    /// Whether nothing is left to take at the moment.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The parts that are left: not before which stamp, until which stamp (0: not known), and bytes.
    pub fn left(&self) -> impl Iterator<Item = (u64, u64, u32)> {
        let mut parts = self.parts.iter().peekable();
        core::iter::from_fn(move || {
            let (sequence, part) = parts.next()?;
            let at = self.position.filter(|p| p.sequence == *sequence);
            let from = at.map_or(part.opened, |p| p.not_before.max(part.opened));
            let bytes = part.data_bytes.saturating_sub(at.map_or(0, |p| p.offset));
            let until = match (part.closed, parts.peek()) {
                (0, Some((_, next))) => next.opened,
                (closed, _) => closed,
            };
            Some((from, until, bytes))
        })
    }

    /// Takes the calls with stamps below `until`, in the order of the stream, to the end of the
    /// segment that the filler of `scratch` has begun and the marks to `marks`. Stops where calls are
    /// missing if the segment holds some already, and where its frame is full: the rest is the next
    /// window's. Returns whether it stopped for that reason.
    #[allow(clippy::too_many_arguments)] // Where from, what with and where to.
    pub fn take(
        &mut self,
        process: u32,
        until: Until,
        clock: &Clock,
        stamps: Stamps,
        files: &impl Files,
        scratch: &mut Scratch,
        marks: &mut Vec<Mark>,
        noticed: &mut Noticed,
        mut done: impl FnMut(Done),
    ) -> bool {
        // Stamps of another process, perhaps.
        scratch.span = Span::default();
        while let Some((&sequence, &part)) = self.parts.first_key_value() {
            if scratch.filler.is_full() {
                return true;
            }
            let at = match self.position {
                Some(at) if at.sequence == sequence => at,
                _ => {
                    let calls_missing = part.first_ordinal > self.next_ordinal;
                    if sequence > self.next_sequence {
                        if !until.missing_is_lost {
                            return false;
                        }
                        if calls_missing && scratch.filler.segment_calls() > 0 {
                            return true;
                        }
                        if calls_missing {
                            let missing = sequence - self.next_sequence;
                            self.chunks_missing = self.chunks_missing.saturating_add(missing);
                        }
                        self.next_sequence = sequence;
                    } else if calls_missing && scratch.filler.segment_calls() > 0 {
                        return true;
                    }
                    Position {
                        sequence,
                        offset: 0,
                        base: part.opened,
                        ordinal: part.first_ordinal,
                        // The first call was stamped before its chunk was claimed.
                        not_before: 0,
                    }
                }
            };
            if at.not_before >= until.stamp && part.data_bytes > at.offset {
                self.position = Some(at);
                return false;
            }
            let mut work = Work {
                process,
                until: until.stamp,
                clock,
                stamps,
                marks,
                noticed,
                at,
            };
            let whole = match files.file(part.source) {
                Some(file) => work.part(self, &part, file, scratch),
                None => true,
            };
            let at = work.at;
            self.position = Some(at);
            if !whole {
                return scratch.filler.is_full();
            }
            if part.open && !until.open_is_done {
                // More may come.
                return false;
            }
            self.parts.remove(&sequence);
            self.next_sequence = sequence.saturating_add(1);
            self.position = None;
            while self
                .closed
                .first_key_value()
                .is_some_and(|(n, _)| *n < sequence)
            {
                self.closed.pop_first();
            }
            done(Done { part, sequence });
        }
        false
    }
}

/// Decoding of one part.
struct Work<'a> {
    process: u32,
    until: u64,
    clock: &'a Clock,
    stamps: Stamps,
    marks: &'a mut Vec<Mark>,
    noticed: &'a mut Noticed,
    at: Position,
}

/// The entries whose records may have one unit.
static PLAIN: [Option<Entry>; 64] = {
    let mut entries = [None; 64];
    let mut number = 0;
    while number < 64 {
        entries[number] = match Entry::from_number(number as u8) {
            Some(entry) if !matches!(entry.kind(), Kind::Realloc) => Some(entry),
            _ => None,
        };
        number += 1;
    }
    entries
};

impl Work<'_> {
    /// Takes what may be taken of `part`; false if records stay because of their stamps, or because
    /// there is no more room.
    fn part(
        &mut self,
        stream: &mut ThreadStream,
        part: &Part,
        file: &File,
        scratch: &mut Scratch,
    ) -> bool {
        while self.at.offset < part.data_bytes {
            let read = part.read(file, self.at.offset, &mut scratch.bytes);
            let read = read - read % UNIT_BYTES;
            if read == 0 {
                // The chunk isn't here any more; an empty one is given back by its thread.
                self.noticed.damaged += u64::from(part.data_bytes as usize > UNIT_BYTES);
                self.at.offset = part.data_bytes;
                return true;
            }
            let last_piece = self.at.offset as usize + read >= part.data_bytes as usize;
            match self.piece(stream, read, scratch) {
                Piece::Later => return false,
                Piece::Taken(taken) => {
                    self.at.offset += taken as u32;
                    if taken == 0 || (last_piece && taken < read) {
                        // A record that is cut by the end of the chunk, or malformed.
                        self.noticed.damaged += 1;
                        self.at.offset = part.data_bytes;
                    }
                }
                Piece::Damaged => {
                    self.noticed.damaged += 1;
                    self.at.offset = part.data_bytes;
                }
            }
        }
        true
    }

    /// Takes the records of the first `read` bytes of `scratch`; says how many bytes were taken.
    fn piece(&mut self, stream: &mut ThreadStream, read: usize, scratch: &mut Scratch) -> Piece {
        let Scratch {
            bytes,
            hint,
            span,
            filler,
        } = scratch;
        let bytes = &bytes[..read];
        let mut at = 0;
        while at < bytes.len() {
            if filler.is_full() {
                self.at.offset += at as u32;
                return Piece::Later;
            }
            let taken = self.plain(stream, &bytes[at..], span, filler);
            if taken > 0 {
                at += taken;
                continue;
            }
            // Everything else goes the long way, one item at a time.
            let mut records = Records::resume(bytes, at, self.at.base);
            let item = match records.next() {
                Some(Ok(item)) => item,
                Some(Err(error)) => {
                    let cut = error.found == Damage::CutShort;
                    return match cut && bytes.len() - error.offset < ITEM_BYTES_MAX {
                        true => Piece::Taken(self.behind_bases(bytes, at, error.offset)),
                        false => Piece::Damaged,
                    };
                }
                None => {
                    self.at.base = records.base();
                    return Piece::Taken(records.offset());
                }
            };
            match item {
                Item::Call(record) => {
                    if record.tsc >= self.until {
                        return self.later(at, record.tsc);
                    }
                    let tick = self.clock.tick(record.tsc, self.stamps, hint);
                    let tick_end = match record.tsc_end == record.tsc {
                        true => tick,
                        false => self.clock.tick(record.tsc_end, self.stamps, hint).max(tick),
                    };
                    self.call(
                        stream,
                        filler,
                        Call {
                            entry: record.entry,
                            align_log2: record.align_log2,
                            freed: record.freed,
                            address: record.address,
                            new_address: record.new_address,
                            requested_bytes: record.size,
                            tick,
                            tick_end,
                            caller: record.caller,
                            usable_bytes: record.usable,
                        },
                    );
                }
                Item::Mark {
                    number,
                    value,
                    tsc,
                    name,
                } => {
                    if tsc >= self.until {
                        return self.later(at, tsc);
                    }
                    if self.at.ordinal >= stream.next_ordinal {
                        self.marks.push(Mark {
                            tick: self.clock.tick(tsc, self.stamps, hint),
                            process: self.process,
                            thread: stream.thread,
                            ordinal: self.at.ordinal,
                            number,
                            // The length of a name is no value.
                            value: match u64::from(number) {
                                MARK_NAMED => 0,
                                _ => value,
                            },
                            name: readable(name.bytes()),
                        });
                    }
                }
            }
            self.at.base = records.base();
            at = records.offset();
        }
        Piece::Taken(at)
    }

    /// A record cut by the end of a piece is read again with the next one; bases before it are not.
    fn behind_bases(&mut self, bytes: &[u8], at: usize, cut: usize) -> usize {
        if cut > at {
            let mut records = Records::resume(&bytes[..cut], at, self.at.base);
            while records.next().is_some() {}
            self.at.base = records.base();
        }
        cut
    }

    fn later(&mut self, at: usize, tsc: u64) -> Piece {
        self.at.offset += at as u32;
        self.at.not_before = tsc;
        Piece::Later
    }

    /// Takes records of one unit as long as there is nothing unusual about them; says how many bytes
    /// were taken.
    fn plain(
        &mut self,
        stream: &mut ThreadStream,
        bytes: &[u8],
        span: &mut Span,
        filler: &mut Filler,
    ) -> usize {
        let first = self.at.ordinal;
        if first < stream.next_ordinal {
            return 0;
        }
        let (units, _) = bytes.as_chunks::<UNIT_BYTES>();
        let word = |unit: &[u8; UNIT_BYTES]| {
            let word = u128::from_le_bytes(*unit);
            (word as u64, (word >> 64) as u64)
        };
        let Some((_, w1)) = units.first().map(word) else {
            return 0;
        };
        let stamp = self.at.base.wrapping_add(w1 & DELTA_MASK);
        if span.tick(stamp).is_none() {
            match self.clock.span(stamp, self.stamps) {
                Some(other) => *span = other,
                None => return 0,
            }
        }
        let (base, until, span) = (self.at.base, self.until, *span);
        let (mut last_tick, mut tick_sum) = (stream.last_tick, stream.tick_sum);
        let (calls, room) = filler.room(first);
        let before = calls.len();
        for unit in units.iter().take(room) {
            let (w0, w1) = word(unit);
            let tsc = base.wrapping_add(w1 & DELTA_MASK);
            let Some(entry) = PLAIN[(w0 & ENTRY_MASK) as usize] else {
                break;
            };
            let Some(tick) = span.tick(tsc) else {
                break;
            };
            if w0 & (LONG | FULL_END | EXTRA) != 0 || tsc >= until || tick < last_tick {
                break;
            }
            last_tick = tick;
            tick_sum = tick_sum.wrapping_add(tick);
            calls.push(Call {
                entry,
                align_log2: ((w0 >> ALIGN_SHIFT) & 0x3f) as u8,
                freed: w0 & FREED != 0,
                address: w0 >> 16,
                new_address: 0,
                requested_bytes: w1 >> DELTA_BITS,
                tick,
                tick_end: tick,
                caller: 0,
                usable_bytes: 0,
            });
        }
        let taken = calls.len() - before;
        if taken == 0 {
            return 0;
        }
        if stream.first_tick.is_none() {
            stream.first_tick = calls.get(before).map(|call| call.tick);
        }
        filler.flush_full();
        stream.last_tick = last_tick;
        stream.tick_sum = tick_sum;
        self.at.ordinal = first.saturating_add(taken as u64);
        stream.next_ordinal = self.at.ordinal;
        taken * UNIT_BYTES
    }

    #[inline]
    fn call(&mut self, stream: &mut ThreadStream, filler: &mut Filler, mut call: Call) {
        let ordinal = self.at.ordinal;
        self.at.ordinal = ordinal.saturating_add(1);
        if ordinal < stream.next_ordinal {
            return;
        }
        if call.tick < stream.last_tick {
            self.noticed.repaired += 1;
            call.tick = stream.last_tick;
            call.tick_end = call.tick_end.max(call.tick);
        }
        stream.last_tick = call.tick_end;
        stream.tick_sum = stream.tick_sum.wrapping_add(call.tick);
        if let Kind::Realloc = call.entry.kind() {
            stream.tick_sum = stream.tick_sum.wrapping_add(call.tick_end);
        }
        if stream.first_tick.is_none() {
            stream.first_tick = Some(call.tick);
        }
        filler.push(ordinal, call);
        stream.next_ordinal = self.at.ordinal;
    }
}

enum Piece {
    /// So many bytes were taken.
    Taken(usize),
    /// A record with a later stamp was met, or the frame is full; the position is set.
    Later,
    /// A record that can't be decoded was met.
    Damaged,
}

/// A name as the program gave it, as text: a character that is cut at its end is left out, and whatever
/// else can't be shown is replaced.
fn readable(bytes: &[u8]) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    };
    String::from_utf8_lossy(whole)
        .chars()
        .map(|c| match c.is_control() {
            true => char::REPLACEMENT_CHARACTER,
            false => c,
        })
        .collect()
}
