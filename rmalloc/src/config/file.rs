//! Reads `rmalloc.toml` and the environment.
//!
//! Owned here: the way from text to the struct, and errors that name file, line and setting. Left to
//! others: names and ranges (`config/keys.rs`), rules between settings (`config.rs`), and what the
//! default heap does with an error: it takes the defaults and writes [`ConfigError::warning`] to standard
//! error, once.
//!
//! The file is read as a tree with places in the text, not by derived code: only so can every refusal
//! say on which line and what would be allowed.

use super::keys::{KEYS, Key, Unit};
use super::{Config, Fault, MILLION, Rule, SCHEMA, SEGMENT_ENTRIES, SizeList};
use core::fmt;
use core::ops::Range;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The environment variable with the path of the file.
pub const CONFIG_VARIABLE: &str = "RMALLOC_CONFIG";
/// The one that sets `heap.limit_bytes`.
pub const LIMIT_VARIABLE: &str = "RMALLOC_LIMIT";
/// The one that sets `table.entries`.
pub const ENTRIES_VARIABLE: &str = "RMALLOC_TABLE_ENTRIES";
/// The one that sets `compaction.mode`.
pub const MODE_VARIABLE: &str = "RMALLOC_COMPACTION";

/// Why no configuration could be read.
#[derive(Debug)]
pub enum ConfigError {
    /// The file can't be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line of it, from 1 on; none if it is about settings that are not in the file.
        line: Option<usize>,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// An environment variable is wrong.
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

impl ConfigError {
    /// The line that a heap writes when it takes the defaults because of this.
    pub fn warning(&self) -> String {
        format!("rmalloc: {self}; the defaults are used\n")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { path, source } => write!(f, "{}: {source}", path.display()),
            ConfigError::Wrong {
                path,
                line: Some(line),
                message,
            } => write!(f, "{}:{line}: {message}", path.display()),
            ConfigError::Wrong { path, message, .. } => write!(f, "{}: {message}", path.display()),
            ConfigError::Variable { name, message } => write!(f, "{name}: {message}"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Config {
    /// Reads a file. What it does not set has its default.
    ///
    /// # Errors
    /// If it can't be read, is no TOML, has a key that is not known or another `schema`, or a setting
    /// that may not be what it is.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Config, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.into(),
            source,
        })?;
        parse(&text).map_err(|wrong| ConfigError::Wrong {
            path: path.into(),
            line: wrong.at.map(|at| line_of(&text, at)),
            message: wrong.message,
        })
    }

    /// The file that [`CONFIG_VARIABLE`] names, or the defaults; then the variables for single settings.
    /// An empty variable is as good as none.
    ///
    /// # Errors
    /// As [`Config::from_file`]; or if a variable may not be what it is.
    pub fn from_env() -> Result<Config, ConfigError> {
        Config::from_variables(|name| std::env::var_os(name))
    }

    pub(super) fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Config, ConfigError> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let mut config = match set(CONFIG_VARIABLE) {
            Some(path) => Config::from_file(path)?,
            None => Config::new(),
        };
        for (name, key, number) in [
            (
                LIMIT_VARIABLE,
                "heap.limit_bytes",
                bytes as fn(&str) -> Option<u64>,
            ),
            (ENTRIES_VARIABLE, "table.entries", entries),
            (MODE_VARIABLE, "compaction.mode", mode),
        ] {
            let Some(value) = set(name) else { continue };
            let text = value.to_string_lossy();
            // A variable names a setting that exists: a test sets each.
            let Some(key) = key_of(key) else { continue };
            let Some(number) = number(&text) else {
                let message = format!("`{text}` is not allowed: it must be {}", key.allowed());
                return Err(ConfigError::Variable { name, message });
            };
            let fault = |fault: Fault| ConfigError::Variable {
                name,
                message: fault.to_string(),
            };
            key.set(&mut config, number).map_err(fault)?;
            config.check().map_err(fault)?;
        }
        Ok(config)
    }
}

/// Bytes as they are written in a variable: `64M` are 64 MiB.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Entries, rounded up to whole segments.
fn entries(text: &str) -> Option<u64> {
    text.parse::<u64>()
        .ok()?
        .checked_next_multiple_of(SEGMENT_ENTRIES)
}

fn mode(text: &str) -> Option<u64> {
    word(&super::Mode::WORDS, text)
}

fn word(words: &[&str], text: &str) -> Option<u64> {
    let place = words.iter().position(|&word| word == text)?;
    Some(place as u64)
}

fn key_of(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.bytes().take(at);
    1 + before.filter(|&byte| byte == b'\n').count()
}

/// What is wrong in a text, and where: the offset in bytes.
struct Wrong {
    at: Option<usize>,
    message: String,
}

impl Wrong {
    fn at(span: Range<usize>, message: String) -> Wrong {
        Wrong {
            at: Some(span.start),
            message,
        }
    }
}

/// Where a setting stands in the text.
struct Placed {
    key: &'static Key,
    at: usize,
}

fn parse(text: &str) -> Result<Config, Wrong> {
    let tree = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map(|span| span.start),
        message: error.message().to_string(),
    })?;
    let mut config = Config::new();
    let mut placed = Vec::new();
    let section_of = |key: &Key| key.name.split('.').next().unwrap_or_default();
    for (name, value) in in_order(tree.get_ref()) {
        let section = name.get_ref().as_ref();
        if section == "schema" {
            let found = whole(value.get_ref());
            if found != Some(SCHEMA) {
                let found = written(text, value);
                let message = format!(
                    "schema: {found} is not understood: this version of rmalloc reads {SCHEMA}"
                );
                return Err(Wrong::at(value.span(), message));
            }
            continue;
        }
        if !KEYS.iter().any(|key| section_of(key) == section) {
            let mut known = vec!["schema"];
            known.extend(KEYS.iter().map(section_of));
            known.dedup();
            let message = format!("`{section}` is not known; allowed are {}", known.join(", "));
            return Err(Wrong::at(name.span(), message));
        }
        let DeValue::Table(settings) = value.get_ref() else {
            let message = format!("{section}: it is a section, with settings of its own");
            return Err(Wrong::at(value.span(), message));
        };
        for (name, value) in in_order(settings) {
            let Some(key) = key_of(&format!("{section}.{}", name.get_ref())) else {
                let known = KEYS.iter().filter(|key| section_of(key) == section);
                let known: Vec<&str> = known.map(|key| &key.name[section.len() + 1..]).collect();
                let message = format!(
                    "{section}.{}: this setting is not known; [{section}] has {}",
                    name.get_ref(),
                    known.join(", ")
                );
                return Err(Wrong::at(name.span(), message));
            };
            placed.push(Placed {
                key,
                at: name.span().start,
            });
            set(&mut config, key, value, text)?;
        }
    }
    config.check().map_err(|fault| Wrong {
        at: place_of(&fault, &placed),
        message: fault.to_string(),
    })?;
    Ok(config)
}

/// By their place in the text: the first mistake is to be told first.
fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(
    &'a Spanned<toml::de::DeString<'i>>,
    &'a Spanned<DeValue<'i>>,
)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// The line with the setting that a fault names; if it is not in the file, with the one it disagrees with.
fn place_of(fault: &Fault, placed: &[Placed]) -> Option<usize> {
    let place = |name: &str| placed.iter().find(|placed| placed.key.name == name);
    let in_section = || {
        let section = fault.key.split('.').next()?;
        let of_section = |placed: &&Placed| placed.key.name.split('.').next() == Some(section);
        placed.iter().find(of_section)
    };
    let other = match fault.rule {
        Rule::MultipleOf { other, .. }
        | Rule::AtMost { other, .. }
        | Rule::LessThan { other, .. }
        | Rule::TooFewBits { other, .. } => place(other),
        Rule::Bits { .. } => in_section(),
        // Default sizes that do not fit the regions.
        Rule::NotBuilt { .. } | Rule::Classes(_) => {
            place("region.larger_bytes").or_else(|| place("region.bytes"))
        }
        Rule::Range { .. } | Rule::Multiple { .. } | Rule::PowerOfTwo { .. } => None,
    };
    Some(place(fault.key).or(other)?.at)
}

fn set(
    config: &mut Config,
    key: &'static Key,
    value: &Spanned<DeValue<'_>>,
    text: &str,
) -> Result<(), Wrong> {
    let refused = || {
        let message = format!(
            "{}: {} is not allowed: it must be {}",
            key.name,
            written(text, value),
            key.allowed()
        );
        Wrong::at(value.span(), message)
    };
    let fault = |fault: Fault| Wrong::at(value.span(), fault.to_string());
    let number = match (key.unit, value.get_ref()) {
        (Unit::Sizes, DeValue::Array(array)) => {
            let mut sizes = Vec::with_capacity(array.len());
            for size in array.iter() {
                let whole = whole(size.get_ref()).and_then(|size| u32::try_from(size).ok());
                sizes.push(whole.ok_or_else(refused)?);
            }
            let sizes = SizeList::new(&sizes).map_err(|error| {
                fault(Fault {
                    key: key.name,
                    rule: Rule::Classes(error),
                })
            })?;
            key.set_sizes(config, sizes);
            return Ok(());
        }
        (Unit::Word(words), DeValue::String(found)) => word(words, found),
        (Unit::Share, value) => share(value),
        (Unit::Sizes | Unit::Word(_), _) => None,
        (_, value) => whole(value),
    };
    key.set(config, number.ok_or_else(refused)?).map_err(fault)
}

/// A value as it stands in the text, its first line cut to a length that a message bears.
fn written(text: &str, value: &Spanned<DeValue<'_>>) -> String {
    let whole = text.get(value.span()).unwrap_or_default();
    let line = whole.lines().next().unwrap_or_default();
    match line.char_indices().nth(60) {
        None if line.len() == whole.len() => line.to_string(),
        cut => format!("{}...", &line[..cut.map_or(line.len(), |(at, _)| at)]),
    }
}

fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A share in millionths, rounded; none if it is below 0 or above 1.
fn share(value: &DeValue<'_>) -> Option<u64> {
    let share = match value {
        DeValue::Float(float) => float.as_str().parse::<f64>().ok()?,
        value => whole(value)? as f64,
    };
    let one = f64::from(MILLION);
    (0.0..=1.0)
        .contains(&share)
        .then(|| (share * one).round() as u64)
}
