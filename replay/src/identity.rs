//! Asks an allocator what it is, without a replay: a worker loads it and writes what it says to standard output.

use crate::environment;
use crate::error::ReplayError;
use crate::load;
use crate::spec::Spec;
use crate::task::Which;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::process::{Command, Stdio};

/// What an allocator says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Its version, or empty.
    pub version: String,
    /// The file it was loaded from, or empty.
    pub file: String,
    /// `linked`, `opened` or `preloaded`.
    pub loaded: String,
    /// Why it can't be loaded.
    pub error: Option<String>,
}

/// What a worker does: `argument` is a [`Which`] as JSON; prints a [`Probed`] as JSON.
///
/// # Errors
/// When the argument is none.
pub fn main(argument: &str) -> Result<String, ReplayError> {
    let wrong =
        |error: serde_json::Error| ReplayError::Option(format!("not an allocator: {error}"));
    let which: Which = serde_json::from_str(argument).map_err(wrong)?;
    let is_null = which == Which::Null;
    let probed = match load::load(&which) {
        _ if is_null => Probed::default(),
        Ok(allocator) => Probed {
            version: allocator.version,
            file: allocator.file,
            ..Probed::default()
        },
        Err(why) => Probed {
            error: Some(why),
            ..Probed::default()
        },
    };
    serde_json::to_string(&probed).map_err(wrong)
}

/// Asks an allocator in a worker, which is `worker` with an argument added. What can't be opened is preloaded.
///
/// # Errors
/// When no worker can be started.
pub fn probe(spec: &Spec, worker: &[OsString]) -> Result<Probed, ReplayError> {
    let opened = ask(spec, &spec.which, worker)?;
    let Which::Library { name, .. } = &spec.which else {
        return Ok(Probed {
            loaded: "linked".into(),
            ..opened
        });
    };
    if opened.error.is_none() {
        return Ok(Probed {
            loaded: "opened".into(),
            ..opened
        });
    }
    let preloaded = Which::Library {
        name: name.clone(),
        preloaded: true,
    };
    let again = ask(spec, &preloaded, worker)?;
    Ok(match again.error {
        None => Probed {
            loaded: "preloaded".into(),
            ..again
        },
        // Why it can't be opened says more.
        Some(_) => opened,
    })
}

fn ask(spec: &Spec, which: &Which, worker: &[OsString]) -> Result<Probed, ReplayError> {
    let of_option = |error: serde_json::Error| ReplayError::Option(error.to_string());
    let Some((first, rest)) = worker.split_first() else {
        return Err(ReplayError::Option("no command for workers".to_string()));
    };
    let place = tempfile::tempdir().map_err(|source| ReplayError::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let mut command = Command::new(first);
    command
        .args(rest)
        .arg(serde_json::to_string(which).map_err(of_option)?);
    environment::set(&mut command, spec, which, place.path())?;
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|source| ReplayError::File {
            path: first.into(),
            source,
        })?;
    // An allocator may end the process, or print.
    let probed = output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).ok())
        .flatten();
    Ok(probed.unwrap_or_else(|| Probed {
        error: Some(format!("loading it ends the process ({})", output.status)),
        ..Probed::default()
    }))
}
