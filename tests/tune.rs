//! `rmtrace tune` as a whole, on a trace that is over in a moment: what it writes is read by rmalloc and by itself. Which
//! candidate wins is measured, so it is not looked at; the deterministic part is tested in `tune/tests/search.rs`.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/sqlite.rmt");

fn tune(place: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .arg("tune")
        .args(arguments)
        .current_dir(place)
        .env("XDG_CACHE_HOME", place)
        .env_remove("RMALLOC_CONFIG")
        .output()
        .expect("rmtrace starts")
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn what_it_writes_is_a_configuration_and_its_journal_is_gone_on_with() {
    let temp = tempfile::tempdir().expect("a directory");
    let few = ["--candidates", "5", "--pace", "flat", "--json"];
    let first = json(&tune(temp.path(), &[&[TRACE], &few[..]].concat()));
    assert_eq!(first["schema"], 1);
    assert_eq!(first["candidates"].as_array().map(Vec::len), Some(5));
    assert_eq!(first["search"]["ended"], "candidates");
    assert_eq!(first["settings"].as_array().map(Vec::len), Some(27));
    assert_eq!(first["traces"][0]["name"], "sqlite.rmt");
    assert!(first["search"]["rounds"].as_u64() > Some(0));
    let written = fs::read_to_string(temp.path().join("rmalloc.toml")).expect("a file");
    // The same options and figures: nothing is measured, and the same is found.
    let again = ["--resume", "rmalloc.toml.journal"];
    let second = json(&tune(temp.path(), &[&[TRACE], &few[..], &again].concat()));
    assert_eq!(second["search"]["rounds"], 0);
    assert_eq!(
        second["search"]["resumed_rounds"],
        first["search"]["rounds"]
    );
    assert_eq!(second["result"], first["result"]);
    assert_eq!(
        fs::read_to_string(temp.path().join("rmalloc.toml")).expect("a file"),
        written
    );
    let replay = Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .args(["replay", TRACE, "-a", "rmalloc", "--rounds", "1"])
        .env("XDG_CACHE_HOME", temp.path())
        .env("RMALLOC_CONFIG", temp.path().join("rmalloc.toml"))
        .output()
        .expect("rmtrace starts");
    assert!(replay.status.success());
    // A heap that can't read its file says so on stderr, which a worker's failure shows; a wrong one is refused here.
    let start = tune(
        temp.path(),
        &[
            TRACE,
            "--start",
            "rmalloc.toml",
            "--candidates",
            "1",
            "--pace",
            "flat",
        ],
    );
    assert!(start.status.success(), "{start:?}");
}

#[test]
fn what_has_no_meaning_is_told() {
    let temp = tempfile::tempdir().expect("a directory");
    let refused = |arguments: &[&str]| {
        let output = tune(temp.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&[TRACE, TRACE]).contains("given twice"));
    assert!(refused(&[TRACE, "--test", TRACE]).contains("given twice"));
    assert!(refused(&[TRACE, "--keep", "cache.entry"]).contains("cache.entries"));
    assert!(refused(&[TRACE, "--max-pause", "1"]).contains("a time has a unit"));
    assert!(refused(&[TRACE, "--resume", "nothing.journal"]).contains("nothing.journal"));
    fs::write(
        temp.path().join("old.journal"),
        "{\"journal\":1,\"version\":\"0.0.1\",\"build\":\"0\",\"settings\":\"\"}\n",
    )
    .expect("written");
    assert!(refused(&[TRACE, "--resume", "old.journal"]).contains("made with rmtrace 0.0.1"));
    let output = Command::new(env!("CARGO_BIN_EXE_rmtrace"))
        .args(["tune", TRACE])
        .env("RMALLOC_COMPACTION", "off")
        .output()
        .expect("rmtrace starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("RMALLOC_COMPACTION is set"), "{said}");
}
