//! Calls of one thread to columns and back. Predictions begin anew with every segment.

use crate::error::Malformed;
use crate::model::Call;
use crate::predict::{NUMBERED, Places, Prediction};
use crate::varint::{self, Cursor, Pen, SPARE_BYTES};
use rmtrace_format::event::{Entry, Kind};

/// Number of columns. In their order: operations, sizes, addresses, allocation numbers, times,
/// durations of reallocs, alignments, callers, usable bytes.
pub const COLUMNS: usize = 9;
/// Position of the column of callers.
const CALLERS: usize = 7;

/// Operation byte, bits 0-5: the entry, or [`PREFIX`].
const ENTRY_MASK: u8 = 0x3f;
/// Entry number of an operation byte that says more about the one behind it.
const PREFIX: u8 = 0x3f;
/// Prefix: the call has an alignment.
const PREFIX_ALIGN: u8 = 0x40;
/// Prefix: the realloc ended its block and returned NULL.
const PREFIX_FREED: u8 = 0x80;

/// The bytes of columns being filled or read.
pub type Columns = [Vec<u8>; COLUMNS];

/// Whether a call of this kind releases an address.
#[inline(always)]
const fn releases(kind: Kind) -> bool {
    matches!(kind, Kind::Free | Kind::Realloc)
}

/// Calls that are encoded at a time.
pub(crate) const BATCH: usize = 256;
/// The longest that one call is in one column is 31 bytes.
pub(crate) const CALL_BYTES_MAX: usize = 32;

/// What a batch adds to a column at most.
const ROOM_BYTES: usize = BATCH * CALL_BYTES_MAX + SPARE_BYTES;
/// A column that a batch is added to.
pub(crate) type Column<'a> = Pen<'a, ROOM_BYTES>;

/// Encodes segments, with tables kept from one to the next.
pub struct Encoder {
    places: Places,
    rooms: Box<[[u8; ROOM_BYTES]; COLUMNS]>,
    /// Where the segment begins in each column.
    begin: [usize; COLUMNS],
    /// Calls of the segment so far.
    calls: usize,
    tick: u64,
    caller: u64,
    has_callers: bool,
    has_usables: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder {
            places: Places::default(),
            rooms: Box::new([[0; ROOM_BYTES]; COLUMNS]),
            begin: [0; COLUMNS],
            calls: 0,
            tick: 0,
            caller: 0,
            has_callers: false,
            has_usables: false,
        }
    }
}

impl Encoder {
    /// Begins a segment behind what is in `columns`.
    pub fn begin(&mut self, columns: &Columns) {
        self.places.reset();
        self.begin = std::array::from_fn(|n| columns[n].len());
        self.calls = 0;
        self.caller = 0;
        (self.has_callers, self.has_usables) = (false, false);
    }

    /// Bytes of the segment in each column.
    pub fn lengths(&self, columns: &Columns) -> [usize; COLUMNS] {
        std::array::from_fn(|n| columns[n].len() - self.begin[n])
    }

    /// Appends calls of the segment to `columns`.
    pub fn encode(&mut self, calls: &[Call], columns: &mut Columns) {
        if self.calls == 0 {
            self.tick = calls.first().map_or(0, |call| call.tick);
        }
        for batch in calls.chunks(BATCH) {
            let some = |(caller, usable): (u64, u64), call: &Call| {
                (caller | call.caller, usable | call.usable_bytes)
            };
            let (caller, usable) = batch.iter().fold((0, 0), some);
            if !self.has_callers && caller != 0 {
                self.has_callers = true;
                let callers = &mut columns[CALLERS];
                callers.resize(callers.len() + self.calls, 0);
            }
            if !self.has_usables && usable != 0 {
                self.has_usables = true;
                self.add_usables(columns);
            }
            self.batch(batch, columns);
            self.calls += batch.len();
        }
    }

    /// Says of all calls so far that their usable bytes are 0.
    fn add_usables(&self, columns: &mut Columns) {
        let [ops, sizes, .., usables] = columns;
        let mut ops = Cursor::new(ops.get(self.begin[0]..).unwrap_or_default());
        let mut sizes = Cursor::new(sizes.get(self.begin[1]..).unwrap_or_default());
        while let Ok(mut op) = ops.byte() {
            if op & ENTRY_MASK == PREFIX {
                op = ops.byte().unwrap_or_default();
            }
            let kind = Entry::from_number(op & ENTRY_MASK).map_or(Kind::Free, Entry::kind);
            if kind == Kind::Realloc {
                let _ = ops.byte();
            }
            let requested_bytes = match kind {
                Kind::Free => 0,
                _ => sizes.varint().unwrap_or_default(),
            };
            let slack = 0u64.wrapping_sub(requested_bytes) as i64;
            varint::put(usables, varint::zigzag(slack));
        }
    }

    #[inline(never)]
    fn batch(&mut self, calls: &[Call], columns: &mut Columns) {
        let [
            mut ops,
            mut sizes,
            mut addresses,
            mut numbers,
            mut times,
            mut durations,
            mut aligns,
            mut callers,
            mut usables,
        ] = self.rooms.each_mut().map(Pen::new);
        let (has_callers, has_usables) = (self.has_callers, self.has_usables);
        let mut caller = self.caller;
        let places = &mut self.places;
        let mut tick = self.tick;
        for call in calls {
            let kind = call.entry.kind();
            if call.align_log2 != 0 || call.freed {
                let mut prefix = PREFIX;
                if call.align_log2 != 0 {
                    prefix |= PREFIX_ALIGN;
                    aligns.byte(call.align_log2);
                }
                if call.freed {
                    prefix |= PREFIX_FREED;
                }
                ops.byte(prefix);
            }
            times.varint(call.tick.wrapping_sub(tick));
            tick = call.tick;
            let mut requested_bytes = 0;
            if kind != Kind::Free {
                requested_bytes = call.requested_bytes;
                sizes.varint(requested_bytes);
            }
            let place = if releases(kind) {
                places.put_release(call.address, &mut numbers, &mut addresses)
            } else {
                places.put_block(call.address, requested_bytes, &mut addresses)
            };
            ops.byte(call.entry as u8 | place);
            if kind == Kind::Realloc {
                let place = if call.new_address == call.address {
                    places.number(call.address, requested_bytes);
                    NUMBERED
                } else {
                    places.put_block(call.new_address, requested_bytes, &mut addresses)
                };
                ops.byte(place);
                durations.varint(call.tick_end.wrapping_sub(tick));
                tick = call.tick_end;
            }
            if has_callers {
                let delta = call.caller.wrapping_sub(caller) as i64;
                callers.varint(varint::zigzag(delta));
                caller = call.caller;
            }
            if has_usables {
                let slack = call.usable_bytes.wrapping_sub(requested_bytes) as i64;
                usables.varint(varint::zigzag(slack));
            }
        }
        self.tick = tick;
        self.caller = caller;
        let pens = [
            ops, sizes, addresses, numbers, times, durations, aligns, callers, usables,
        ];
        for (column, pen) in columns.iter_mut().zip(&pens) {
            column.extend_from_slice(pen.written());
        }
    }
}

/// Where a decoder is in each column: first byte not yet read, and the segment's end.
pub type Ranges = [(usize, usize); COLUMNS];

/// Decodes a segment, block by block.
#[derive(Clone)]
pub struct Decoder {
    ranges: Ranges,
    left: u64,
    tick: u64,
    caller: u64,
    has_callers: bool,
    has_usables: bool,
    prediction: Prediction,
}

impl Decoder {
    /// A decoder of the `count` calls in `ranges` of a frame's columns.
    pub fn new(ranges: Ranges, count: u64, first_tick: u64) -> Decoder {
        let [.., callers, usables] = ranges;
        Decoder {
            ranges,
            left: count,
            tick: first_tick,
            caller: 0,
            has_callers: callers.0 != callers.1,
            has_usables: usables.0 != usables.1,
            prediction: Prediction::default(),
        }
    }

    /// Calls not yet decoded.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Decodes up to `calls_max` calls of the frame with these columns.
    ///
    /// # Errors
    /// When the columns do not hold what they should; the decoder is of no use after that.
    #[inline(always)]
    pub fn decode(
        &mut self,
        columns: &Columns,
        calls_max: u64,
        mut sink: impl FnMut(&Call),
    ) -> Result<(), Malformed> {
        let mut cursors = [Cursor::new(&[]); COLUMNS];
        for ((cursor, column), (from, to)) in cursors.iter_mut().zip(columns).zip(self.ranges) {
            let bytes = column.get(from..to).ok_or(Malformed::new(
                "a segment names bytes that its columns do not have",
            ))?;
            *cursor = Cursor::new(bytes);
        }
        let [
            mut ops,
            mut sizes,
            mut addresses,
            mut numbers,
            mut times,
            mut durations,
            mut aligns,
            mut callers,
            mut usables,
        ] = cursors;
        let count = self.left.min(calls_max);
        for _ in 0..count {
            let mut op = ops.byte()?;
            let mut align_log2 = 0;
            let mut freed = false;
            if op & ENTRY_MASK == PREFIX {
                if op & PREFIX_ALIGN != 0 {
                    align_log2 = aligns.byte()?;
                }
                freed = op & PREFIX_FREED != 0;
                op = ops.byte()?;
            }
            let entry = Entry::from_number(op & ENTRY_MASK)
                .ok_or(Malformed::new("a call has an unknown entry"))?;
            let place = op & !ENTRY_MASK;
            let kind = entry.kind();
            let tick = self.tick.wrapping_add(times.varint()?);
            self.tick = tick;
            let mut requested_bytes = 0;
            if kind != Kind::Free {
                requested_bytes = sizes.varint()?;
            }
            let address = if releases(kind) {
                self.prediction
                    .take_release(place, &mut numbers, &mut addresses)?
            } else {
                self.prediction
                    .take_block(place, requested_bytes, &mut addresses)?
            };
            let mut new_address = 0;
            if kind == Kind::Realloc {
                let place = ops.byte()?;
                new_address = if place == NUMBERED {
                    self.prediction.number(address, requested_bytes);
                    address
                } else {
                    self.prediction
                        .take_block(place, requested_bytes, &mut addresses)?
                };
                self.tick = tick.wrapping_add(durations.varint()?);
            }
            if self.has_callers {
                let delta = varint::unzigzag(callers.varint()?);
                self.caller = self.caller.wrapping_add(delta as u64);
            }
            let mut usable_bytes = 0;
            if self.has_usables {
                let slack = varint::unzigzag(usables.varint()?);
                usable_bytes = requested_bytes.wrapping_add(slack as u64);
            }
            sink(&Call {
                entry,
                align_log2,
                freed,
                address,
                new_address,
                requested_bytes,
                tick,
                tick_end: self.tick,
                caller: self.caller,
                usable_bytes,
            });
        }
        self.left -= count;
        let cursors = [
            ops, sizes, addresses, numbers, times, durations, aligns, callers, usables,
        ];
        let mut all_read = true;
        for (range, cursor) in self.ranges.iter_mut().zip(&cursors) {
            range.0 = range.1 - cursor.rest().len();
            all_read &= cursor.rest().is_empty();
        }
        if self.left == 0 && !all_read {
            return Err(Malformed::new("a segment has bytes behind its last call"));
        }
        Ok(())
    }
}
