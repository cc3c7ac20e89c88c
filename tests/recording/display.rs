//! A display without a screen, for programs with windows.

use crate::harness::{Lab, Started, wait_until};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A running X server; it ends with this.
pub struct Display {
    server: Started,
    /// As in `DISPLAY`.
    pub name: String,
}

impl Display {
    /// Starts `program`, an Xvfb; whoever is on this machine may use it.
    pub fn start(lab: &Lab, program: &Path) -> Display {
        let mut command = Command::new(program);
        command
            .args(["-displayfd", "1", "-ac", "-nolisten", "tcp"])
            .args(["-screen", "0", "1280x1024x24"]);
        let stem = lab.path("display");
        let server = Started::new(command, &[], &stem, Duration::from_secs(1200));
        let number = || std::fs::read_to_string(stem.with_extension("out")).unwrap_or_default();
        let limit = Duration::from_secs(120);
        let started = wait_until(limit, || number().ends_with('\n'));
        assert!(started, "Xvfb does not start: {}", server.stderr());
        let name = format!(":{}", number().trim());
        Display { server, name }
    }
}

impl Drop for Display {
    /// It takes its socket and its lock file with it.
    fn drop(&mut self) {
        self.server.signal(libc::SIGTERM, false);
        if !std::thread::panicking() {
            self.server.wait_program();
        }
    }
}
