//! `rmalloc.toml` from a configuration: all settings, in the order of the document, each with a comment.

use crate::error::TuneError;
use crate::space::number_text;
use rmalloc::config::{Config, KEYS, Unit};
use std::fmt::Write;

/// Sizes on a line.
const SIZES_A_LINE: usize = 12;

/// Settings from the text of a file.
///
/// # Errors
/// As [`Config::from_file`]; when there is no room for a temporary file.
pub fn read(text: &str) -> Result<Config, TuneError> {
    let place = std::env::temp_dir();
    let file = tempfile::NamedTempFile::new().map_err(|source| TuneError::file(&place, source))?;
    std::fs::write(file.path(), text).map_err(|source| TuneError::file(file.path(), source))?;
    Config::from_file(file.path()).map_err(|error| TuneError::Option(error.to_string()))
}

/// The file without comments.
pub fn plain(config: &Config) -> String {
    write(config, "", |_| String::new())
}

/// The file: `head` as comments before it, and behind each setting what `comment` says of its name.
pub fn write(config: &Config, head: &str, comment: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    for line in head.lines() {
        let _ = writeln!(out, "# {}", clean(line));
    }
    let _ = writeln!(out, "schema = 1");
    let mut section = "";
    for key in &KEYS {
        let (table, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if table != section {
            section = table;
            let _ = writeln!(out, "\n[{table}]");
        }
        let said = clean(&comment(key.name));
        let said = match said.is_empty() {
            true => String::new(),
            false => format!("  # {said}"),
        };
        match key.unit {
            Unit::Sizes if config.classes.sizes.as_slice().is_empty() => {
                let _ = writeln!(out, "# {name}: the default ones{said}");
            }
            Unit::Sizes => {
                let _ = writeln!(out, "{name} = [{said}");
                for line in config.classes.sizes.as_slice().chunks(SIZES_A_LINE) {
                    let sizes: Vec<String> = line.iter().map(u32::to_string).collect();
                    let _ = writeln!(out, "    {},", sizes.join(", "));
                }
                let _ = writeln!(out, "]");
            }
            Unit::Word(_) => {
                let _ = writeln!(out, "{name} = \"{}\"{said}", number_text(key, config));
            }
            _ => {
                let _ = writeln!(out, "{name} = {}{said}", number_text(key, config));
            }
        }
    }
    out
}

/// Without what ends a comment.
fn clean(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmalloc::config::{Mode, SizeList};

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let mut changed = Config::new();
        changed.compaction.mode = Mode::Background;
        changed.compaction.trigger_ppm = 123_456;
        changed.compaction.stop_ppm = 1;
        let sizes: Vec<u32> = (1..=64).map(|step| step * 16).chain([32 << 10]).collect();
        changed.classes.sizes = SizeList::new(&sizes).unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("rmalloc.toml");
        for config in [Config::new(), changed] {
            config.check().unwrap();
            let text = write(&config, "a trace\nwith\u{7}bell", |name| {
                format!("of {name}\nx = 1")
            });
            std::fs::write(&path, &text).unwrap();
            assert_eq!(Config::from_file(&path).unwrap(), config, "{text}");
            std::fs::write(&path, plain(&config)).unwrap();
            assert_eq!(Config::from_file(&path).unwrap(), config);
        }
    }
}
