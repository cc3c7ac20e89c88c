//! Builds what is tested, runs programs in directories of their own, reads what was recorded.

mod built;
mod lab;
mod process;
mod seen;

pub use built::{interposer, metadata, rmtrace};
pub use lab::{Lab, Outcome, Recorded, Run, runs_in, verify};
pub use process::{PATIENCE, Started, appears, touch, wait_until};
pub use seen::{Counts, Seen};

use std::path::PathBuf;

/// The two ways to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `LD_PRELOAD` alone.
    Bare,
    /// `rmtrace record`.
    Record,
}

impl How {
    /// Both.
    pub const BOTH: [How; 2] = [How::Bare, How::Record];
}

/// The first of `names` that is on the PATH. Says `skipped:` if none is; fails in continuous
/// integration.
pub fn installed(names: &[&str], what: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in names {
        for directory in std::env::split_paths(&path) {
            let candidate = directory.join(name);
            if candidate.is_file() {
                return Some(candidate);
            }
        }
    }
    let message = format!("{what}: none of {names:?} is installed");
    assert!(std::env::var_os("RMTRACE_CI").is_none(), "{message}");
    eprintln!("skipped: {message}");
    None
}
