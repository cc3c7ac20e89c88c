//! The environment of workers: what they get to make room for libraries, what a row's settings add, and which of the variables
//! that change an allocator are set.

use crate::error::ReplayError;
use crate::find::reads;
use crate::load::TUNABLES;
use crate::spec::{Config, Spec};
use crate::task::Which;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// Names rmalloc's file of settings.
const RMALLOC_CONFIG: &str = "RMALLOC_CONFIG";

/// Sets the environment of a worker for an allocator. Settings of rmalloc that are no file become one in `place`.
///
/// # Errors
/// When that file can't be written.
pub fn set(
    command: &mut Command,
    spec: &Spec,
    which: &Which,
    place: &Path,
) -> Result<(), ReplayError> {
    command.env_remove("LD_PRELOAD");
    if let Which::Library {
        name,
        preloaded: true,
    } = which
    {
        command.env("LD_PRELOAD", name);
    }
    command.envs(spec.settings.iter().map(|(key, value)| (key, value)));
    let of_row = spec.settings.iter().find(|(key, _)| key == TUNABLES.0);
    command.env(TUNABLES.0, tunables(of_row.map(|(_, value)| value.into())));
    match &spec.config {
        None => {}
        Some(Config::File(path)) => {
            command.env(RMALLOC_CONFIG, path);
        }
        Some(Config::Text(text)) => {
            let path = place.join("rmalloc.toml");
            std::fs::write(&path, text).map_err(|source| ReplayError::File {
                path: path.clone(),
                source,
            })?;
            command.env(RMALLOC_CONFIG, path);
        }
    }
    Ok(())
}

/// What workers get for [`TUNABLES`]: what the row or else the user has set stays.
fn tunables(of_row: Option<OsString>) -> OsString {
    let mut value = OsString::from(TUNABLES.1);
    let set = of_row.or_else(|| std::env::var_os(TUNABLES.0));
    if let Some(set) = set.filter(|set| !set.is_empty()) {
        value.push(":");
        value.push(set);
    }
    value
}

/// Variables that the allocator reads and that are set, for it alone or for all, with their values. rmalloc's settings that
/// are no file are told as their text.
pub fn told(spec: &Spec) -> BTreeMap<String, String> {
    let inherited = std::env::vars_os().filter_map(|(key, value)| {
        let key = key.into_string().ok()?;
        Some((key, value.to_string_lossy().into_owned()))
    });
    let mut told: BTreeMap<String, String> = inherited
        .filter(|(key, value)| !value.is_empty() && reads(&spec.variables, key))
        .collect();
    told.extend(spec.settings.iter().cloned());
    match &spec.config {
        None => {}
        Some(Config::File(path)) => {
            told.insert(RMALLOC_CONFIG.into(), path.to_string_lossy().into_owned());
        }
        Some(Config::Text(text)) => {
            told.insert(RMALLOC_CONFIG.into(), text.trim_end().replace('\n', "; "));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;

    fn of_command(word: &str, place: &Path) -> BTreeMap<String, Option<String>> {
        let spec = parse(word).unwrap();
        let mut command = Command::new("true");
        set(&mut command, &spec, &spec.which, place).unwrap();
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        command
            .get_envs()
            .map(|(key, value)| (text(key), value.map(text)))
            .collect()
    }

    #[test]
    fn settings_reach_the_worker_and_the_room_for_libraries_stays() {
        let place = tempfile::tempdir().unwrap();
        let set = of_command(
            "system:GLIBC_TUNABLES=glibc.malloc.tcache_count=0",
            place.path(),
        );
        assert_eq!(
            set["GLIBC_TUNABLES"].as_deref(),
            Some("glibc.rtld.optional_static_tls=65536:glibc.malloc.tcache_count=0")
        );
        assert_eq!(set["LD_PRELOAD"], None);
        let set = of_command("rmalloc:compaction.mode=off", place.path());
        let path = set["RMALLOC_CONFIG"].clone().unwrap();
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "compaction.mode = \"off\"\n"
        );
    }

    #[test]
    fn what_a_row_sets_is_told() {
        let told = told(&parse("mimalloc:MIMALLOC_VERBOSE=0").unwrap());
        assert_eq!(told["MIMALLOC_VERBOSE"], "0");
        let told = super::told(&parse("rmalloc:a.b=1;c.d=x").unwrap());
        assert_eq!(told["RMALLOC_CONFIG"], "a.b = 1; c.d = \"x\"");
    }
}
