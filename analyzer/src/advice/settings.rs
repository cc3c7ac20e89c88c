//! The advice as settings: `rmalloc.toml` and a C header with the same constants. Each has a comment
//! that names the figure and the trace it comes from.

use super::{Advice, Method, SCHEMA, Source, WayKind};
use crate::handle_table::{HANDLE_BYTES, SEGMENT_ENTRIES};
use crate::text::units::{bytes, count, counted, ppm, time};
use std::fmt::Write;

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Number(u64),
    /// A word of lower case letters and `_`.
    Word(&'static str),
}

/// A setting of `rmalloc.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its table; empty at the top level.
    pub table: &'static str,
    /// Its key.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
    /// Where it comes from.
    pub comment: String,
}

/// Names of traces and processes in comments: no line ends, and nothing that ends a C comment.
fn plain(text: &str) -> String {
    let shown = text.chars().map(|letter| match letter {
        letter if letter.is_control() => ' ',
        '\\' | '*' => '?',
        letter => letter,
    });
    shown.collect()
}

/// The name of a way in the settings.
fn word(way: WayKind) -> &'static str {
    match way {
        WayKind::Beside => "beside",
        WayKind::Reserved => "reserved",
        WayKind::Segmented => "segmented",
    }
}

/// A trace and its process.
fn named(source: Option<&Source>) -> String {
    source.map_or_else(String::new, |source| {
        format!("{}, {}", plain(&source.trace), plain(&source.title))
    })
}

/// All settings that the advice has an opinion on, in the order in which they are written.
pub fn settings(advice: &Advice) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut set = |table, key, value, comment| {
        all.push(Setting {
            table,
            key,
            value,
            comment,
        });
    };
    // TOML has numbers of 63 bits.
    let number = |number: u64| Value::Number(number.min(i64::MAX as u64));
    let reference = named(advice.reference());
    let entries = &advice.entries;
    let traces = counted(advice.sources.len() as u64, "trace", "traces");
    set(
        "",
        "schema",
        number(SCHEMA.into()),
        "version of this file; a reader refuses others, and keys it does not know".to_string(),
    );
    if let Some(bytes_given) = advice.memory_bytes {
        let fits = advice.memory.iter().find(|of| of.bytes == bytes_given);
        let fits = fits.map_or(0, |of| of.segmented);
        set(
            "heap",
            "limit_bytes",
            number(bytes_given),
            format!(
                "R, as given: {} blocks of the sizes at the peak of {reference} fit with their entries",
                count(fits)
            ),
        );
    }
    if let Some(from_bytes) = advice.worth.from_bytes {
        set(
            "blocks",
            "handle_from_bytes",
            number(from_bytes),
            format!(
                "worth.from_bytes ({}) of {reference}: {} of its live blocks, with {} of their bytes, are smaller",
                advice.worth.source,
                ppm(advice.worth.blocks_below_ppm),
                ppm(advice.worth.bytes_below_ppm),
            ),
        );
    }
    let mean = |kind| {
        advice
            .ways
            .iter()
            .find(|way| way.way == kind)
            .map_or(0, |way| way.bytes_mean)
    };
    set(
        "table",
        "way",
        Value::Word(word(advice.way())),
        format!(
            "ways[].bytes_mean of {reference}: {} in segments, {} reserved",
            bytes(mean(WayKind::Segmented)),
            bytes(mean(WayKind::Reserved)),
        ),
    );
    let method = match entries.method {
        Method::Margin => "peak and margin",
        Method::OrderStatistic => "highest peaks, no model",
        Method::LogNormal => "ASSUMPTION: log-normal peaks",
    };
    set(
        "table",
        "entries",
        number(entries.entries),
        format!(
            "entries.entries from {traces} ({method}): peaks {} to {}, highest in {reference}",
            count(entries.peak_min),
            count(entries.peak_max),
        ),
    );
    set(
        "table",
        "segment_entries",
        number(SEGMENT_ENTRIES),
        format!("a page of 4 KiB: what can be given back at once; handles.segments of {reference}"),
    );
    set(
        "table",
        "first_entries",
        number(advice.growth.first_entries),
        format!("handles.entries_half_of_time, the greatest of {traces}, in whole segments"),
    );
    set(
        "table",
        "step_entries",
        number(advice.growth.step_entries),
        format!(
            "from there to `entries` in {}",
            counted(advice.growth.steps, "step", "steps")
        ),
    );
    let generations = &advice.generations;
    let split = &advice.split;
    let busiest = named(advice.sources.get(generations.of));
    set(
        "entry",
        "bytes",
        number(HANDLE_BYTES),
        "h of the report".to_string(),
    );
    set(
        "entry",
        "address_bits",
        number(split.address_bits),
        "offsets in a heap of 128 GiB at most, of blocks aligned to 16".to_string(),
    );
    set(
        "entry",
        "lock_bits",
        number(split.lock_bits),
        "a choice: traces hold no locks".to_string(),
    );
    set(
        "entry",
        "flag_bits",
        number(split.flag_bits),
        format!(
            "in use; being moved; may be dropped. The owner of a block's region has {} bits more",
            split.owner_bits
        ),
    );
    set(
        "entry",
        "generation_bits",
        number(split.entry_generation_bits),
        match split.generation_bits_beside {
            0 => "as many as are wanted".to_string(),
            bits => format!(
                "what an entry has left, {} less than wanted: see `generations.points`",
                counted(bits, "bit", "bits")
            ),
        },
    );
    set(
        "handle",
        "index_bits",
        number(split.index_bits),
        format!(
            "{} times `table.entries`, or what R holds",
            super::bits::GROWTH_ROOM
        ),
    );
    set(
        "handle",
        "generation_bits",
        number(split.generation_bits),
        format!(
            "generations.births_per_day {} of {busiest} (of {} in {}): at most {} of the entries retires in a day",
            count(generations.births_per_day),
            count(advice.sources.get(generations.of).map_or(0, |of| of.births)),
            time(
                advice
                    .sources
                    .get(generations.of)
                    .map_or(0, |of| of.duration_ns)
            ),
            ppm(1_000_000 / super::bits::RETIRED_PART),
        ),
    );
    set(
        "handle",
        "check_bits",
        number(split.check_bits),
        "the rest of 64: heap, and telling made-up handles".to_string(),
    );
    all
}

/// What stands above the settings.
fn preamble(advice: &Advice) -> Vec<String> {
    let mut lines = vec![format!(
        "Written by `rmtrace advise`, schema {SCHEMA}, from:"
    )];
    let sources = advice.sources.iter().map(|source| {
        format!(
            "  {}: peak {}, {} in {}",
            named(Some(source)),
            counted(source.entries_peak, "entry", "entries"),
            counted(source.births, "block", "blocks"),
            time(source.duration_ns),
        )
    });
    lines.extend(sources);
    lines.push(plain(&format!("entries: {}", advice.entries.statement)));
    lines
}

/// `rmalloc.toml`.
pub fn toml(advice: &Advice) -> String {
    let mut out = String::new();
    for line in preamble(advice) {
        let _ = writeln!(out, "# {line}");
    }
    let mut table = "";
    for setting in settings(advice) {
        if setting.table != table {
            table = setting.table;
            let _ = writeln!(out, "\n[{table}]");
        }
        let _ = writeln!(out, "# {}", setting.comment);
        let _ = match setting.value {
            Value::Number(number) => writeln!(out, "{} = {number}", setting.key),
            Value::Word(word) => writeln!(out, "{} = \"{word}\"", setting.key),
        };
    }
    out
}

/// A C header with a constant for each setting: `RMALLOC_TABLE_ENTRIES` is `entries` of `[table]`. A
/// word is a constant of its own: `RMALLOC_TABLE_WAY_SEGMENTED` is 1.
pub fn header(advice: &Advice) -> String {
    let mut out = String::new();
    for line in preamble(advice) {
        let _ = writeln!(out, "/* {line} */");
    }
    out.push_str("#ifndef RMALLOC_CONFIG_H\n#define RMALLOC_CONFIG_H\n");
    for setting in settings(advice) {
        let mut name = match setting.table {
            "" => format!("RMALLOC_CONFIG_{}", setting.key),
            table => format!("RMALLOC_{table}_{}", setting.key),
        };
        let value = match setting.value {
            Value::Number(number) if number > i32::MAX as u64 => format!("{number}ULL"),
            Value::Number(number) => number.to_string(),
            Value::Word(word) => {
                name = format!("{name}_{word}");
                "1".to_string()
            }
        };
        let _ = writeln!(out, "\n/* {} */", setting.comment);
        let _ = writeln!(out, "#define {} {value}", name.to_ascii_uppercase());
    }
    out.push_str("\n#endif\n");
    out
}
