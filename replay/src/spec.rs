//! What a user may name as an allocator: one that has a name ([`crate::find`]) or a library by its path, and settings that make
//! a row of its own of it.
//!
//! ```text
//! NAME | PATH.so           mimalloc3
//! ...:KEY=VALUE[;...]      mimalloc3:MIMALLOC_PURGE_DELAY=0      environment of its workers
//! rmalloc:a.b=VALUE[;...]  rmalloc:compaction.trigger=10%        settings of rmalloc.toml
//! rmalloc@FILE.toml        rmalloc@mine.toml                     all of them
//! ```

use crate::find::{KNOWN, Known, reads};
use crate::task::Which;
use std::path::PathBuf;

/// An allocator as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// As the user wrote it: `jemalloc`, the path of a library, either with settings.
    pub name: String,
    /// Which one it is.
    pub which: Which,
    /// What to do if it is missing, or empty.
    pub remedy: String,
    /// Whether the user asked for it; otherwise it may be missing.
    pub wanted: bool,
    /// Environment variables of its workers.
    pub settings: Vec<(String, String)>,
    /// rmalloc's configuration.
    pub config: Option<Config>,
    /// Environment variables that it reads; of a library by path, those that any allocator reads.
    pub variables: Vec<&'static str>,
}

/// Where a configuration of rmalloc is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// A file.
    File(PathBuf),
    /// The text of one.
    Text(String),
}

/// Some allocators, named in one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Specs(pub Vec<Spec>);

/// All allocators that have a name.
pub fn known() -> Vec<Spec> {
    KNOWN.iter().map(of_known).collect()
}

fn of_known(known: &Known) -> Spec {
    Spec {
        name: known.name.to_string(),
        which: match (known.file(), known.name) {
            (Some(file), _) => library(&file),
            (None, "null") => Which::Null,
            (None, "rmalloc") => Which::Rmalloc,
            (None, _) => Which::System,
        },
        remedy: known.remedy(),
        wanted: false,
        settings: Vec::new(),
        config: None,
        variables: known.variables.to_vec(),
    }
}

fn library(name: &str) -> Which {
    Which::Library {
        name: name.to_string(),
        preloaded: false,
    }
}

/// The allocators that a word names, separated by commas. A comma within a setting belongs to it (`MALLOC_CONF=a:1,b:2`)
/// unless an allocator follows.
///
/// # Errors
/// As [`parse`].
pub fn parse_list(word: &str) -> Result<Specs, String> {
    let mut words: Vec<String> = Vec::new();
    for piece in word.split(',') {
        let (head, _) = split_settings(piece);
        let (head, _) = split_file(head);
        match words.last_mut() {
            Some(last) if split_settings(last).1.is_some() && base(head).is_err() => {
                last.push(',');
                last.push_str(piece);
            }
            _ => words.push(piece.to_string()),
        }
    }
    let specs: Result<Vec<Spec>, String> = words.iter().map(|word| parse(word)).collect();
    Ok(Specs(specs?))
}

/// The allocator that a word names: one of [`known`], or a library by its path or file name; with settings behind a colon.
///
/// # Errors
/// What may be named, or what is wrong with a setting.
pub fn parse(word: &str) -> Result<Spec, String> {
    let (head, settings) = split_settings(word);
    let (head, file) = split_file(head);
    let mut spec = Spec {
        name: word.to_string(),
        wanted: true,
        ..base(head)?
    };
    let takes_config = spec.which == Which::Rmalloc || Known::of(head).is_none();
    if let Some(file) = file {
        if !takes_config {
            return Err(format!(
                "`{word}`: a file of settings is for rmalloc; {head} takes none"
            ));
        }
        // Workers run in the same directory, but what they are told should not depend on that.
        let path = std::path::absolute(file).map_err(|error| format!("{file}: {error}"))?;
        if let Err(error) = std::fs::File::open(&path) {
            return Err(format!("{file}: {error}"));
        }
        spec.config = Some(Config::File(path));
    }
    let mut lines = String::new();
    for setting in settings.unwrap_or_default().split(';') {
        let setting = setting.trim();
        if setting.is_empty() {
            continue;
        }
        let Some((key, value)) = setting.split_once('=') else {
            return Err(format!("`{setting}` in `{word}` is no setting: KEY=VALUE"));
        };
        if key.contains('.') {
            if !takes_config {
                return Err(format!(
                    "`{key}` in `{word}`: settings with a dot are rmalloc's; {}",
                    readable(head, &spec.variables)
                ));
            }
            lines += &format!("{key} = {}\n", toml_value(value));
            continue;
        }
        if key.starts_with("LD_") {
            return Err(format!(
                "`{key}` in `{word}`: workers are never preloaded with anything else; name the library by its path"
            ));
        }
        if Known::of(head).is_some() && !reads(&spec.variables, key) {
            return Err(format!(
                "`{key}` in `{word}` would change nothing: {}",
                readable(head, &spec.variables)
            ));
        }
        spec.settings.push((key.to_string(), value.to_string()));
    }
    if !lines.is_empty() {
        if spec.config.is_some() {
            return Err(format!(
                "`{word}`: write the settings into the file, or give them without a file"
            ));
        }
        spec.config = Some(Config::Text(lines));
    }
    Ok(spec)
}

/// The allocator itself.
fn base(head: &str) -> Result<Spec, String> {
    if let Some(known) = Known::of(head) {
        return Ok(of_known(known));
    }
    if head.contains('/') || head.contains(".so") {
        return Ok(Spec {
            name: head.to_string(),
            which: library(head),
            remedy: String::new(),
            wanted: true,
            settings: Vec::new(),
            config: None,
            variables: all_variables(),
        });
    }
    let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
    Err(format!(
        "`{head}` is none of {}, and no shared library (`rmtrace allocators` tells more)",
        names.join(", ")
    ))
}

/// What any allocator reads.
fn all_variables() -> Vec<&'static str> {
    let mut all: Vec<&str> = KNOWN
        .iter()
        .flat_map(|known| known.variables.iter().copied())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn readable(name: &str, variables: &[&str]) -> String {
    match variables {
        [] => format!("{name} reads no variables"),
        some => format!("{name} reads {}", some.join(", ")),
    }
}

/// The word before the settings, and them: what follows the first colon behind which a key and `=` stand, as paths may have
/// colons.
fn split_settings(word: &str) -> (&str, Option<&str>) {
    for (at, _) in word.match_indices(':') {
        let rest = &word[at + 1..];
        let key = rest.split('=').next().unwrap_or_default();
        let is_key = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.');
        if rest.contains('=') && !key.is_empty() && key.chars().all(is_key) {
            return (&word[..at], Some(rest));
        }
    }
    // Settings without `=` are a mistake to be told, of a name; a path may end with them.
    match word.split_once(':') {
        Some((head, rest)) if Known::of(head).is_some() => (head, Some(rest)),
        _ => (word, None),
    }
}

/// The word before `@FILE.toml`, and the file.
fn split_file(head: &str) -> (&str, Option<&str>) {
    match head.split_once('@') {
        Some((name, file)) if Known::of(name).is_some() || file.ends_with(".toml") => {
            (name, Some(file))
        }
        _ => (head, None),
    }
}

/// A value as TOML has it: shares may be written as per cent, words without quotes.
fn toml_value(value: &str) -> String {
    let value = value.trim();
    if let Some(number) = value
        .strip_suffix('%')
        .and_then(|number| number.trim().parse::<f64>().ok())
    {
        // As many digits as rmalloc knows: millionths.
        let share = format!("{:.6}", number / 100.0);
        return share;
    }
    let is_plain = value.starts_with(|first: char| {
        first.is_ascii_digit() || matches!(first, '+' | '-' | '[' | '"' | '\'')
    });
    match is_plain || value == "true" || value == "false" {
        true => value.to_string(),
        false => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// An allocator's name for a table: paths without their directories.
pub fn shown(name: &str) -> String {
    let (head, settings) = split_settings(name);
    let (head, file) = split_file(head);
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_string();
    let mut out = last(head);
    if let Some(file) = file {
        out += &format!("@{}", last(file));
    }
    if let Some(settings) = settings {
        out += &format!(":{settings}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        assert_eq!(parse("system").unwrap().which, Which::System);
        assert!(parse("mimalloc").unwrap().remedy.contains("libmimalloc2.0"));
        assert!(
            parse("rpmalloc")
                .unwrap()
                .remedy
                .contains("scripts/allocators rpmalloc")
        );
        assert_eq!(parse("./libx.so").unwrap().which, library("./libx.so"));
        assert_eq!(parse("libx.so.3").unwrap().name, "libx.so.3");
        assert!(parse("jmalloc").unwrap_err().contains("jemalloc"));
    }

    #[test]
    fn settings_are_the_environment_of_a_row_of_its_own() {
        let spec = parse("mimalloc3:MIMALLOC_PURGE_DELAY=0;MIMALLOC_ARENA_EAGER_COMMIT=0").unwrap();
        assert_eq!(spec.which, parse("mimalloc3").unwrap().which);
        assert_eq!(
            spec.name,
            "mimalloc3:MIMALLOC_PURGE_DELAY=0;MIMALLOC_ARENA_EAGER_COMMIT=0"
        );
        let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
        assert_eq!(
            spec.settings,
            [
                pair("MIMALLOC_PURGE_DELAY", "0"),
                pair("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            ]
        );
        let spec = parse("/a:b/lib.so:GLIBC_TUNABLES=glibc.malloc.tcache_count=0:x=1").unwrap();
        assert_eq!(spec.which, library("/a:b/lib.so"));
        assert_eq!(
            spec.settings,
            [pair("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:x=1")]
        );
    }

    #[test]
    fn what_would_change_nothing_is_refused() {
        for (word, why) in [
            ("mimalloc:MALLOC_CONF=narenas:1", "reads MIMALLOC_*"),
            ("rpmalloc:A=1", "reads no variables"),
            ("null:A=1", "reads no variables"),
            ("system:LD_PRELOAD=libx.so", "by its path"),
            ("jemalloc:narenas", "KEY=VALUE"),
            ("mimalloc:compaction.stop=3%", "rmalloc's"),
            ("mimalloc@x.toml", "takes none"),
            ("rmalloc@/no/such/file.toml", "/no/such/file.toml"),
        ] {
            let said = parse(word).unwrap_err();
            assert!(said.contains(why), "{word}: {said}");
        }
    }

    #[test]
    fn commas_part_allocators_and_not_the_values_of_settings() {
        let names = |word: &str| -> Vec<String> {
            let Specs(specs) = parse_list(word).unwrap();
            specs.into_iter().map(|spec| spec.name).collect()
        };
        assert_eq!(names("system,null"), ["system", "null"]);
        assert_eq!(
            names(
                "jemalloc:MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0,null,mimalloc:MIMALLOC_X=1"
            ),
            [
                "jemalloc:MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0",
                "null",
                "mimalloc:MIMALLOC_X=1"
            ]
        );
        assert!(parse_list("system,jmalloc").is_err());
        assert!(parse_list("system,").is_err());
    }

    #[test]
    fn settings_of_rmalloc_are_written_as_its_file_has_them() {
        let text = |word: &str| match parse(word).unwrap().config {
            Some(Config::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            text("rmalloc:compaction.stop=3%;compaction.mode=off;region.bytes=65536"),
            "compaction.stop = 0.030000\ncompaction.mode = \"off\"\nregion.bytes = 65536\n"
        );
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        let word = format!(
            "rmalloc@{}:RMALLOC_COMPACTION=off",
            file.path().to_string_lossy()
        );
        let spec = parse(&word).unwrap();
        assert_eq!(spec.config, Some(Config::File(file.path().to_owned())));
        assert_eq!(spec.settings[0].0, "RMALLOC_COMPACTION");
    }

    #[test]
    fn tables_show_no_directories() {
        assert_eq!(shown("/a/b/libx.so:K=/tmp/1"), "libx.so:K=/tmp/1");
        assert_eq!(shown("rmalloc@/tmp/x.toml"), "rmalloc@x.toml");
        assert_eq!(shown("rmalloc:a.b=1"), "rmalloc:a.b=1");
        assert_eq!(shown("system"), "system");
    }
}
