//! The configuration of a heap: every setting, its default, and what it may be.
//!
//! Owned here: the struct, its defaults and the rules between settings. Each setting's name and range
//! stand in `config/keys.rs`, what a refusal says in `config/fault.rs`, files and environment variables
//! are read in `config/file.rs`. Left to others: what a setting does (the heap); docs/rmalloc-config.md
//! tells both.
//!
//! `core` only, and integers only: shares are in millionths.

mod fault;
#[cfg(feature = "config-file")]
mod file;
mod keys;

pub use fault::{Amount, Fault, Rule};
#[cfg(feature = "config-file")]
pub use file::{CONFIG_VARIABLE, ConfigError, ENTRIES_VARIABLE, LIMIT_VARIABLE, MODE_VARIABLE};
pub use keys::{KEYS, Key, Unit};

use crate::class::{CLASSES_MAX, ClassError, Classes, Geometry, SIZE_MAX, check_sizes};

/// The version of the settings that is understood: `schema` of a file.
pub const SCHEMA: u64 = 1;
/// `heap.limit_bytes` of a heap that may take what the system gives.
pub const NO_LIMIT: u64 = i64::MAX as u64;
/// Entries of a page: what a segment of the table is, and what tables are multiples of.
pub const SEGMENT_ENTRIES: u64 = 512;
/// What the share of 1 is in a setting that is a share.
pub const MILLION: u32 = 1_000_000;

/// All settings of a heap. The fields are the sections of `rmalloc.toml`.
///
/// A struct that was changed by hand is to be checked ([`Config::check`]); one that was read is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[heap]`
    pub heap: HeapSettings,
    /// `[blocks]`
    pub blocks: BlockSettings,
    /// `[classes]`
    pub classes: ClassSettings,
    /// `[region]`
    pub region: RegionSettings,
    /// `[table]`
    pub table: TableSettings,
    /// `[entry]`
    pub entry: EntrySettings,
    /// `[handle]`
    pub handle: HandleSettings,
    /// `[cache]`
    pub cache: CacheSettings,
    /// `[compaction]`
    pub compaction: CompactionSettings,
}

/// How much memory a heap may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapSettings {
    /// Addresses to set aside for blocks; takes no memory.
    pub reserve_bytes: u64,
    /// The heap with its tables takes no more bytes of memory. [`NO_LIMIT`]: as many as there are.
    pub limit_bytes: u64,
}

/// Which blocks move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSettings {
    /// Smaller blocks need not be moved: what moving them gives back is less than it costs. Bytes. With the feature
    /// `beside`: compaction leaves blocks of smaller slots where they were born; 0 is 1,024 then.
    pub handle_from_bytes: u64,
}

/// The size classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassSettings {
    /// Sizes in bytes; none for the default ones.
    pub sizes: SizeList,
}

/// The regions that blocks of a class lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSettings {
    /// Bytes of a span, and of a region of blocks up to an eighth of it.
    pub bytes: u32,
    /// Bytes of a region of larger blocks, up to an eighth of it and at most 32 KiB.
    pub larger_bytes: u32,
}

/// The handle table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSettings {
    /// Where handles live.
    pub way: TableWay,
    /// Entries that the table is planned for.
    pub entries: u64,
    /// Entries of the least piece that is given back.
    pub segment_entries: u64,
    /// Entries at the beginning.
    pub first_entries: u64,
    /// Entries more when none is free.
    pub step_entries: u64,
}

/// The bits of an entry of the table. The defaults are those of the allocator, which has 8 more for the thread
/// that owns a block; of these settings only `generation_bits` changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntrySettings {
    /// Bytes of an entry.
    pub bytes: u32,
    /// Bits of address / 16.
    pub address_bits: u32,
    /// Bits that count locks held.
    pub lock_bits: u32,
    /// Bits for flags.
    pub flag_bits: u32,
    /// Bits of the generation.
    pub generation_bits: u32,
}

/// The bits of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleSettings {
    /// Bits of the entry's number.
    pub index_bits: u32,
    /// Bits of the generation.
    pub generation_bits: u32,
    /// Bits that tell heaps and made-up handles.
    pub check_bits: u32,
}

/// What a thread keeps for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Free handles that a thread holds at most.
    pub entries: u32,
}

/// When the heap compacts itself, and for how long. Shares are in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionSettings {
    /// Who does it.
    pub mode: Mode,
    /// It begins when this share of the resident bytes is free.
    pub trigger_ppm: u32,
    /// It ends when this share of the resident bytes is free.
    pub stop_ppm: u32,
    /// It does nothing while fewer bytes are free than this.
    pub floor_bytes: u64,
    /// CPU time of a step, in nanoseconds.
    pub budget_ns: u64,
    /// Steps take at most this share of the time since the heap was made.
    pub cpu_share_ppm: u32,
    /// Share of the resident bytes that empty regions may keep instead of being given back.
    pub slack_ppm: u32,
}

/// Where handles live: the seed's two options, and segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum TableWay {
    /// In pages of 512 entries that are taken and given back.
    #[default]
    Segmented,
    /// In a table that is set aside once (option 2).
    Reserved,
    /// Beside the block (option 1).
    Beside,
}

impl TableWay {
    /// All, in the order of [`TableWay::WORDS`].
    pub const ALL: [TableWay; 3] = [TableWay::Segmented, TableWay::Reserved, TableWay::Beside];
    /// What they are called.
    pub const WORDS: [&'static str; 3] = ["segmented", "reserved", "beside"];
}

/// Who compacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Only the program, when it asks for it, and a heap that is short of memory.
    Off,
    /// Threads that allocate and free, a step at a time.
    #[default]
    Inline,
    /// A thread of its own.
    Background,
}

impl Mode {
    /// All, in the order of [`Mode::WORDS`].
    pub const ALL: [Mode; 3] = [Mode::Off, Mode::Inline, Mode::Background];
    /// What they are called.
    pub const WORDS: [&'static str; 3] = ["off", "inline", "background"];
}

/// Some sizes, in bytes, at most [`CLASSES_MAX`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SizeList {
    sizes: [u32; CLASSES_MAX],
    count: u32,
}

impl SizeList {
    /// No size.
    pub const EMPTY: SizeList = SizeList {
        sizes: [0; CLASSES_MAX],
        count: 0,
    };

    /// These sizes.
    ///
    /// # Errors
    /// If they are no ascending multiples of 16 up to 32 KiB, too many, or none.
    pub fn new(sizes: &[u32]) -> Result<SizeList, ClassError> {
        check_sizes(sizes, SIZE_MAX)?;
        let mut list = SizeList::EMPTY;
        list.sizes[..sizes.len()].copy_from_slice(sizes);
        list.count = sizes.len() as u32;
        Ok(list)
    }

    /// The sizes.
    pub fn as_slice(&self) -> &[u32] {
        &self.sizes[..self.count as usize]
    }
}

impl core::fmt::Debug for SizeList {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl Config {
    /// The defaults.
    pub const fn new() -> Config {
        Config {
            heap: HeapSettings {
                reserve_bytes: 64 << 30,
                limit_bytes: NO_LIMIT,
            },
            blocks: BlockSettings {
                handle_from_bytes: 0,
            },
            classes: ClassSettings {
                sizes: SizeList::EMPTY,
            },
            region: RegionSettings {
                bytes: Geometry::DEFAULT.region_bytes,
                larger_bytes: Geometry::DEFAULT.larger_bytes,
            },
            table: TableSettings {
                way: if cfg!(feature = "beside") {
                    TableWay::Beside
                } else {
                    TableWay::Segmented
                },
                entries: 1 << 26,
                segment_entries: SEGMENT_ENTRIES,
                first_entries: SEGMENT_ENTRIES,
                step_entries: SEGMENT_ENTRIES,
            },
            entry: EntrySettings {
                bytes: 8,
                address_bits: 33,
                lock_bits: 4,
                flag_bits: 3,
                generation_bits: 16,
            },
            handle: HandleSettings {
                index_bits: 32,
                generation_bits: 16,
                check_bits: 16,
            },
            cache: CacheSettings { entries: 64 },
            compaction: CompactionSettings {
                mode: Mode::Inline,
                trigger_ppm: 40_000,
                stop_ppm: 20_000,
                floor_bytes: 64 << 10,
                budget_ns: 200_000,
                cpu_share_ppm: 100_000,
                slack_ppm: 10_000,
            },
        }
    }

    /// The regions that these settings mean. Of use only if [`Config::check`] finds no fault.
    pub const fn geometry(&self) -> Geometry {
        let eighth = self.region.larger_bytes / 8;
        Geometry {
            span_bytes: self.region.bytes,
            region_bytes: self.region.bytes,
            block_most: self.region.bytes / 8,
            larger_bytes: self.region.larger_bytes,
            largest: if eighth < SIZE_MAX { eighth } else { SIZE_MAX },
        }
    }

    /// The size classes that these settings mean.
    ///
    /// # Errors
    /// What is wrong with the sizes or the regions; nothing if [`Config::check`] finds no fault.
    pub fn size_classes(&self) -> Result<Classes, ClassError> {
        match self.classes.sizes.as_slice() {
            [] => Classes::with_default_sizes(&self.geometry()),
            sizes => Classes::new(sizes, &self.geometry()),
        }
    }

    /// Whether each setting may be what it is, and all agree.
    ///
    /// # Errors
    /// The first one that may not, in the order of [`KEYS`]; then the first two that disagree.
    pub fn check(&self) -> Result<(), Fault> {
        for key in &KEYS {
            key.check(self)?;
        }
        let Config {
            region,
            table,
            entry,
            handle,
            compaction,
            ..
        } = self;
        let fault = |key, rule| Err(Fault { key, rule });
        let (bytes, larger) = (u64::from(region.bytes), u64::from(region.larger_bytes));
        let word = TableWay::WORDS[table.way as usize];
        if (table.way == TableWay::Beside) != cfg!(feature = "beside") {
            return fault("table.way", Rule::NotBuilt { found: word });
        }
        if !region.bytes.is_power_of_two() {
            return fault("region.bytes", Rule::PowerOfTwo { found: bytes });
        }
        if larger < bytes || !larger.is_multiple_of(bytes) {
            let rule = Rule::MultipleOf {
                found: larger,
                other: "region.bytes",
                of: bytes,
            };
            return fault("region.larger_bytes", rule);
        }
        if let Err(error) = self.size_classes() {
            return fault("classes.sizes", Rule::Classes(error));
        }
        if table.first_entries > table.entries {
            let rule = Rule::AtMost {
                found: Amount::count(table.first_entries),
                other: "table.entries",
                limit: Amount::count(table.entries),
            };
            return fault("table.first_entries", rule);
        }
        let bits = entry.address_bits + entry.lock_bits + entry.flag_bits + entry.generation_bits;
        if bits > entry.bytes * 8 {
            let most = entry.bytes * 8;
            return fault("entry.generation_bits", Rule::Bits { bits, most });
        }
        if table.entries > 1 << handle.index_bits {
            let rule = Rule::TooFewBits {
                found: handle.index_bits,
                other: "table.entries",
                numbers: table.entries,
            };
            return fault("handle.index_bits", rule);
        }
        let bits = handle.index_bits + handle.generation_bits + handle.check_bits;
        if bits > 64 {
            return fault("handle.check_bits", Rule::Bits { bits, most: 64 });
        }
        if compaction.stop_ppm >= compaction.trigger_ppm {
            let rule = Rule::LessThan {
                found: Amount::share(compaction.stop_ppm),
                other: "compaction.trigger",
                limit: Amount::share(compaction.trigger_ppm),
            };
            return fault("compaction.stop", rule);
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

#[cfg(all(test, feature = "config-file"))]
#[cfg_attr(
    feature = "beside",
    allow(
        dead_code,
        unused_imports,
        reason = "tests of the table's way are left out"
    )
)]
mod tests;
