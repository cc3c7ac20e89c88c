//! Faults put into the source on purpose, one at a time, each of which the tests must find: `mutations/list.txt`.
//!
//! Each runs in a copy of the crate that is built anew, so the whole list takes a quarter of an hour and more:
//!
//!     cargo test -p rmalloc --test mutations -- --ignored --nocapture
//!     RMALLOC_MUTATION='evacuate:' cargo test -p rmalloc --test mutations -- --ignored --nocapture
//!
//! A usual run checks that the list still fits the source, and tries three of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Mutation {
    name: String,
    file: String,
    old: String,
    new: String,
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn list() -> Vec<Mutation> {
    let text = std::fs::read_to_string(here().join("tests/mutations/list.txt")).unwrap();
    let items = text.split("\n= ").skip(1);
    items
        .map(|item| {
            let (name, rest) = item
                .split_once("\n@ ")
                .unwrap_or_else(|| panic!("no file: {item}"));
            let (file, rest) = rest
                .split_once("\n- ")
                .unwrap_or_else(|| panic!("no text: {item}"));
            let (old, new) = rest
                .split_once("\n+ ")
                .unwrap_or_else(|| panic!("nothing instead: {item}"));
            let [name, file, old] = [name, file, old].map(str::to_string);
            Mutation {
                name,
                file,
                old,
                new: new.trim_end_matches('\n').to_string(),
            }
        })
        .collect()
}

#[test]
fn each_fits_the_source() {
    let list = list();
    assert!(list.len() >= 40, "{} mutations", list.len());
    for mutation in &list {
        let source = std::fs::read_to_string(here().join("src").join(&mutation.file)).unwrap();
        assert_eq!(
            source.matches(&mutation.old).count(),
            1,
            "{}: its text in {}",
            mutation.name,
            mutation.file
        );
        assert_ne!(mutation.old, mutation.new, "{}", mutation.name);
    }
}

/// A copy of the crate in a workspace of its own.
struct Copy {
    directory: tempfile::TempDir,
    target: PathBuf,
}

impl Copy {
    fn new() -> Copy {
        let directory = tempfile::tempdir().unwrap();
        let root = here().parent().unwrap();
        // What the crate takes from the workspace, without its other members.
        let text = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
        let shared =
            &text[text.find("[workspace.package]").unwrap()..text.find("\n[package]").unwrap()];
        let own = format!("[workspace]\nresolver = \"3\"\nmembers = [\"rmalloc\"]\n\n{shared}");
        std::fs::write(directory.path().join("Cargo.toml"), own).unwrap();
        std::fs::copy(root.join("Cargo.lock"), directory.path().join("Cargo.lock")).unwrap();
        copy_tree(here(), &directory.path().join("rmalloc"));
        // Some tests hold the source to its documents.
        copy_tree(&root.join("docs"), &directory.path().join("docs"));
        // Beside the test's own program, so that the crates it depends on are built once.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutations");
        Copy { directory, target }
    }

    /// Runs tests of the copy; `None`: they do not end, else whether they pass.
    fn passes(&self, tests: &[&str]) -> Option<bool> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["test", "--offline", "--quiet", "-p", "rmalloc"])
            .args(tests);
        cargo
            .current_dir(self.directory.path())
            .env("CARGO_TARGET_DIR", &self.target);
        cargo.envs([
            ("CARGO_PROFILE_DEV_DEBUG", "0"),
            ("CARGO_PROFILE_DEV_OPT_LEVEL", "2"),
            ("CARGO_INCREMENTAL", "0"),
        ]);
        cargo.envs([
            ("RMALLOC_STRESS_SECONDS", "6"),
            ("PROPTEST_CASES", "24"),
            ("PROPTEST_MAX_SHRINK_ITERS", "0"),
            ("RUST_BACKTRACE", "0"),
        ]);
        // A failing test of random steps leaves no file behind.
        cargo.env("PROPTEST_FAILURE_PERSISTENCE", "off");
        cargo
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A group of its own, so that what hangs can be ended with all of its children.
        std::os::unix::process::CommandExt::process_group(&mut cargo, 0);
        let mut child = cargo.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(180);
        while Instant::now() < end {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status.success());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // SAFETY: the group is the child's, which was not waited for.
        unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
        child.wait().unwrap();
        None
    }

    /// Which tests find the mutation, if any.
    fn tried(&self, mutation: &Mutation) -> Option<&'static str> {
        let file = self
            .directory
            .path()
            .join("rmalloc/src")
            .join(&mutation.file);
        let source = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, source.replacen(&mutation.old, &mutation.new, 1)).unwrap();
        // A mutation that does not compile would be found by any test, for nothing.
        assert_eq!(
            self.passes(&["--no-run", "--lib"]),
            Some(true),
            "{} does not compile",
            mutation.name
        );
        let found = STAGES
            .iter()
            .find(|(_, tests)| self.passes(tests) != Some(true))
            .map(|(name, _)| *name);
        std::fs::write(&file, source).unwrap();
        found
    }
}

/// From the fastest to the slowest.
const STAGES: [(&str, &[&str]); 6] = [
    ("the crate's own", &["--lib"]),
    ("model", &["--test", "model"]),
    ("threads", &["--test", "threads"]),
    ("limits", &["--test", "limits"]),
    ("fork", &["--test", "fork"]),
    ("stress", &["--test", "stress"]),
];

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, place) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&source, &place);
        } else {
            std::fs::copy(&source, &place).unwrap();
        }
    }
}

fn try_all(mutations: &[&Mutation]) {
    let copy = Copy::new();
    assert_eq!(
        copy.passes(&["--lib", "--test", "model"]),
        Some(true),
        "the copy fails before anything is changed"
    );
    let mut missed = Vec::new();
    for mutation in mutations {
        let begin = Instant::now();
        let found = copy.tried(mutation);
        println!(
            "{:60} {:16} {:3} s",
            mutation.name,
            found.unwrap_or("MISSED"),
            begin.elapsed().as_secs()
        );
        if found.is_none() {
            missed.push(&mutation.name);
        }
    }
    assert!(missed.is_empty(), "no test finds {missed:#?}");
}

/// Three of them, of different kinds.
#[test]
fn some_are_found() {
    let list = list();
    let named = [
        "region: a slot taken keeps no name",
        "cache: records of locks are not looked at",
        "evacuate: one unit less is copied",
    ];
    let some: Vec<&Mutation> = list
        .iter()
        .filter(|mutation| named.contains(&mutation.name.as_str()))
        .collect();
    assert_eq!(some.len(), named.len());
    try_all(&some);
}

/// RMALLOC_MUTATION: only those whose name has this in it.
#[test]
#[ignore = "builds the crate once for each"]
fn all_are_found() {
    let list = list();
    let part = std::env::var("RMALLOC_MUTATION").unwrap_or_default();
    let wanted: Vec<&Mutation> = list
        .iter()
        .filter(|mutation| mutation.name.contains(&part))
        .collect();
    assert!(!wanted.is_empty(), "no mutation is named {part}");
    try_all(&wanted);
}
