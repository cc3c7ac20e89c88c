//! Calls of one thread to columns and back. Predictions begin anew with every segment.

use crate::error::Malformed;
use crate::model::Call;
use crate::predict::{NUMBERED, Places, Prediction};
use crate::varint::{self, Cursor};
use rmtrace_format::event::{Entry, Kind};

/// Number of columns. In their order: operations, sizes, addresses, allocation numbers, times,
/// durations of reallocs, alignments, callers, usable bytes.
pub const COLUMNS: usize = 9;

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

/// Encodes segments, with tables kept from one to the next.
#[derive(Default)]
pub struct Encoder {
    places: Places,
}

impl Encoder {
    /// Appends a segment's calls to `columns`.
    pub fn encode(&mut self, calls: &[Call], columns: &mut Columns) {
        let mut tick = calls.first().map_or(0, |call| call.tick);
        let has_callers = calls.iter().any(|call| call.caller != 0);
        let has_usables = calls.iter().any(|call| call.usable_bytes != 0);
        let mut last_caller = 0u64;
        let places = &mut self.places;
        places.reset();
        let [
            ops,
            sizes,
            addresses,
            numbers,
            times,
            durations,
            aligns,
            callers,
            usables,
        ] = columns;
        ops.reserve(2 * calls.len());
        times.reserve(2 * calls.len());
        for call in calls {
            let kind = call.entry.kind();
            if call.align_log2 != 0 || call.freed {
                let mut prefix = PREFIX;
                if call.align_log2 != 0 {
                    prefix |= PREFIX_ALIGN;
                    aligns.push(call.align_log2);
                }
                if call.freed {
                    prefix |= PREFIX_FREED;
                }
                ops.push(prefix);
            }
            varint::put(times, call.tick.wrapping_sub(tick));
            tick = call.tick;
            let mut requested_bytes = 0;
            if kind != Kind::Free {
                requested_bytes = call.requested_bytes;
                varint::put(sizes, requested_bytes);
            }
            let place = if releases(kind) {
                places.put_release(call.address, numbers, addresses)
            } else {
                places.put_block(call.address, requested_bytes, addresses)
            };
            ops.push(call.entry as u8 | place);
            if kind == Kind::Realloc {
                let place = if call.new_address == call.address {
                    places.number(call.address, requested_bytes);
                    NUMBERED
                } else {
                    places.put_block(call.new_address, requested_bytes, addresses)
                };
                ops.push(place);
                varint::put(durations, call.tick_end.wrapping_sub(tick));
                tick = call.tick_end;
            }
            if has_callers {
                let delta = call.caller.wrapping_sub(last_caller) as i64;
                varint::put(callers, varint::zigzag(delta));
                last_caller = call.caller;
            }
            if has_usables {
                let slack = call.usable_bytes.wrapping_sub(requested_bytes) as i64;
                varint::put(usables, varint::zigzag(slack));
            }
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
