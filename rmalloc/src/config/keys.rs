//! The name, unit and range of every setting, and the field of the struct that holds it.
//!
//! Owned here: the one list that files are read by, faults are found by and docs/rmalloc-config.md is
//! tested against. Left to others: rules between settings (`config.rs`).

use super::{
    Amount, Config, Fault, MILLION, Mode, NO_LIMIT, Rule, SEGMENT_ENTRIES, SizeList, TableWay,
};
use core::fmt;

/// What a setting counts, or how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Bits.
    Bits,
    /// Entries of the handle table.
    Entries,
    /// Nanoseconds.
    Nanoseconds,
    /// A share of 1, kept in millionths.
    Share,
    /// One of some words.
    Word(&'static [&'static str]),
    /// A list of sizes in bytes.
    Sizes,
}

/// A setting.
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// The least; of a share in millionths; without meaning for words and sizes.
    pub low: u64,
    /// The greatest.
    pub high: u64,
    /// It is a multiple of this.
    pub multiple: u64,
    pub(super) field: fn(&mut Config) -> Field<'_>,
}

/// The field of a setting.
pub(super) enum Field<'a> {
    U64(&'a mut u64),
    U32(&'a mut u32),
    Way(&'a mut TableWay),
    Mode(&'a mut Mode),
    Sizes(&'a mut SizeList),
}

const fn key(
    name: &'static str,
    unit: Unit,
    (low, high): (u64, u64),
    field: fn(&mut Config) -> Field<'_>,
) -> Key {
    Key {
        name,
        unit,
        low,
        high,
        multiple: match unit {
            Unit::Entries => SEGMENT_ENTRIES,
            _ => 1,
        },
        field,
    }
}

const WAY: Unit = Unit::Word(&TableWay::WORDS);
const MODE: Unit = Unit::Word(&Mode::WORDS);
/// A range without meaning.
const ANY: (u64, u64) = (0, u64::MAX);
/// Shares above 0.
const PART: (u64, u64) = (1, MILLION as u64);
const ENTRIES: (u64, u64) = (SEGMENT_ENTRIES, 1 << 32);

/// All settings, in the order of the document; `schema` is none of them.
#[rustfmt::skip]
pub static KEYS: [Key; 27] = [
    Key {
        multiple: 1 << 20,
        ..key("heap.reserve_bytes", Unit::Bytes, (1 << 20, 1 << 37), |c| Field::U64(&mut c.heap.reserve_bytes))
    },
    key("heap.limit_bytes", Unit::Bytes, (1, NO_LIMIT), |c| Field::U64(&mut c.heap.limit_bytes)),
    key("blocks.handle_from_bytes", Unit::Bytes, (0, NO_LIMIT), |c| Field::U64(&mut c.blocks.handle_from_bytes)),
    key("classes.sizes", Unit::Sizes, ANY, |c| Field::Sizes(&mut c.classes.sizes)),
    key("region.bytes", Unit::Bytes, (4 << 10, 1 << 20), |c| Field::U32(&mut c.region.bytes)),
    key("region.larger_bytes", Unit::Bytes, (4 << 10, 1 << 20), |c| Field::U32(&mut c.region.larger_bytes)),
    key("table.way", WAY, ANY, |c| Field::Way(&mut c.table.way)),
    key("table.entries", Unit::Entries, ENTRIES, |c| Field::U64(&mut c.table.entries)),
    key("table.segment_entries", Unit::Entries, (512, 512), |c| Field::U64(&mut c.table.segment_entries)),
    key("table.first_entries", Unit::Entries, ENTRIES, |c| Field::U64(&mut c.table.first_entries)),
    key("table.step_entries", Unit::Entries, ENTRIES, |c| Field::U64(&mut c.table.step_entries)),
    key("entry.bytes", Unit::Bytes, (8, 8), |c| Field::U32(&mut c.entry.bytes)),
    key("entry.address_bits", Unit::Bits, (33, 60), |c| Field::U32(&mut c.entry.address_bits)),
    key("entry.lock_bits", Unit::Bits, (0, 16), |c| Field::U32(&mut c.entry.lock_bits)),
    key("entry.flag_bits", Unit::Bits, (0, 8), |c| Field::U32(&mut c.entry.flag_bits)),
    key("entry.generation_bits", Unit::Bits, (0, 16), |c| Field::U32(&mut c.entry.generation_bits)),
    key("handle.index_bits", Unit::Bits, (1, 32), |c| Field::U32(&mut c.handle.index_bits)),
    key("handle.generation_bits", Unit::Bits, (1, 63), |c| Field::U32(&mut c.handle.generation_bits)),
    key("handle.check_bits", Unit::Bits, (0, 62), |c| Field::U32(&mut c.handle.check_bits)),
    Key {
        multiple: 1,
        ..key("cache.entries", Unit::Entries, (0, 4096), |c| Field::U32(&mut c.cache.entries))
    },
    key("compaction.mode", MODE, ANY, |c| Field::Mode(&mut c.compaction.mode)),
    key("compaction.trigger", Unit::Share, PART, |c| Field::U32(&mut c.compaction.trigger_ppm)),
    key("compaction.stop", Unit::Share, (0, MILLION as u64), |c| Field::U32(&mut c.compaction.stop_ppm)),
    key("compaction.floor_bytes", Unit::Bytes, (0, NO_LIMIT), |c| Field::U64(&mut c.compaction.floor_bytes)),
    key("compaction.budget_ns", Unit::Nanoseconds, (1_000, 1_000_000_000), |c| Field::U64(&mut c.compaction.budget_ns)),
    key("compaction.cpu_share", Unit::Share, PART, |c| Field::U32(&mut c.compaction.cpu_share_ppm)),
    key("compaction.slack", Unit::Share, (0, MILLION as u64), |c| Field::U32(&mut c.compaction.slack_ppm)),
];

impl Key {
    /// What the setting is; of a word its place among the words, nothing of sizes.
    pub fn number(&self, config: &Config) -> Option<u64> {
        let mut copy = *config;
        Some(match (self.field)(&mut copy) {
            Field::U64(field) => *field,
            Field::U32(field) => (*field).into(),
            Field::Way(field) => *field as u64,
            Field::Mode(field) => *field as u64,
            Field::Sizes(_) => return None,
        })
    }

    fn amount(&self, value: u64) -> Amount {
        Amount {
            value,
            is_share: self.unit == Unit::Share,
        }
    }

    /// Whether the setting is in its range.
    pub(super) fn check(&self, config: &Config) -> Result<(), Fault> {
        if matches!(self.unit, Unit::Word(_) | Unit::Sizes) {
            return Ok(());
        }
        self.number(config)
            .map_or(Ok(()), |number| self.check_number(number))
    }

    fn check_number(&self, number: u64) -> Result<(), Fault> {
        let fault = |rule| {
            Err(Fault {
                key: self.name,
                rule,
            })
        };
        if number < self.low || number > self.high {
            return fault(Rule::Range {
                found: self.amount(number),
                low: self.amount(self.low),
                high: self.amount(self.high),
            });
        }
        if !number.is_multiple_of(self.multiple) {
            return fault(Rule::Multiple {
                found: number,
                of: self.multiple,
            });
        }
        Ok(())
    }

    /// Sets a number, of a share in millionths, of a word its place among the words.
    ///
    /// # Errors
    /// If it may not be that; then nothing is changed.
    pub fn set(&self, config: &mut Config, number: u64) -> Result<(), Fault> {
        if !matches!(self.unit, Unit::Word(_)) {
            self.check_number(number)?;
        }
        match (self.field)(config) {
            Field::U64(field) => *field = number,
            // All that fit are in the range.
            Field::U32(field) => *field = number as u32,
            Field::Way(field) => *field = TableWay::ALL[number as usize % TableWay::ALL.len()],
            Field::Mode(field) => *field = Mode::ALL[number as usize % Mode::ALL.len()],
            Field::Sizes(_) => {}
        }
        Ok(())
    }

    /// Sets sizes, if that is what the setting is.
    pub fn set_sizes(&self, config: &mut Config, sizes: SizeList) {
        if let Field::Sizes(field) = (self.field)(config) {
            *field = sizes;
        }
    }

    /// What may be written: for messages.
    pub fn allowed(&self) -> Allowed<'_> {
        Allowed(self)
    }
}

/// The text of what may be written for a setting.
pub struct Allowed<'a>(&'a Key);

impl fmt::Display for Allowed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Allowed(key) = self;
        let (low, high) = (key.amount(key.low), key.amount(key.high));
        match key.unit {
            Unit::Word(words) => {
                write!(f, "one of ")?;
                for (i, word) in words.iter().enumerate() {
                    write!(f, "{}\"{word}\"", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Unit::Sizes => write!(
                f,
                "a list of ascending whole numbers, multiples of 16, at most 192 of them"
            ),
            Unit::Share => write!(f, "a number from {low} to {high}"),
            _ if key.low == key.high => write!(f, "{low}"),
            _ => {
                write!(f, "a whole number from {low} to {high}")?;
                match key.multiple {
                    1 => Ok(()),
                    multiple => write!(f, ", a multiple of {multiple}"),
                }
            }
        }
    }
}
