//! The command and the library under test.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `rmtrace` command.
pub fn rmtrace() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rmtrace"))
}

fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

/// `librmtrace.so`, built once: `cargo test` builds no cdylib.
pub fn interposer() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let output = cargo()
            .args(["build", "-p", "rmtrace-interpose", "--release", "--locked"])
            .arg("--message-format=json")
            .output()
            .expect("cargo runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo build failed:\n{errors}");
        let answer = String::from_utf8_lossy(&output.stdout);
        answer
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["reason"] == "compiler-artifact")
            .filter_map(|message| message["filenames"].as_array().cloned())
            .flatten()
            .filter_map(|name| name.as_str().map(PathBuf::from))
            .find(|name| name.ends_with("librmtrace.so"))
            .expect("cargo names the library it built")
    })
}

/// What `cargo metadata` says of the workspace, without dependencies of other people.
pub fn metadata() -> Value {
    let output = cargo()
        .args(["metadata", "--no-deps", "--locked", "--format-version=1"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata failed");
    serde_json::from_slice(&output.stdout).expect("cargo metadata answers in JSON")
}
