//! The C interface from outside: C and C++ programs, linked with `librmalloc.a` and `librmalloc.so` as an ordinary
//! build makes them. What each program checks stands at its top.

use rmalloc::ffi::Options;
use rmalloc::{Compaction, Error, Stats};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Both libraries, built once: `cargo test` builds neither (rust-lang/cargo #8311).
fn libraries() -> &'static [PathBuf; 2] {
    static BUILT: OnceLock<[PathBuf; 2]> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args([
            "build",
            "-p",
            "rmalloc-c",
            "--lib",
            "--locked",
            "--message-format=json",
        ]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let output = cargo.output().expect("cargo runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo build failed:\n{errors}");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        // File names stand in quotes.
        let named = |end: &str| {
            let mut strings = answer.split('"');
            strings
                .find(|name| name.ends_with(end))
                .map(PathBuf::from)
                .expect("cargo names the library it built")
        };
        [named("/librmalloc.a"), named("/librmalloc.so")]
    })
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A program, compiled and linked in a directory of its own.
struct Program {
    directory: tempfile::TempDir,
}

impl Program {
    /// With the static library or the shared one.
    fn build(name: &str, shared: bool) -> Program {
        let directory = tempfile::tempdir().expect("a directory");
        let mut compiler = if name.ends_with(".cc") {
            let mut compiler = Command::new("g++");
            compiler.arg("-std=c++11");
            compiler
        } else {
            let mut compiler = Command::new("gcc");
            compiler.arg("-std=gnu11");
            compiler
        };
        compiler.args(["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-I"]);
        compiler.arg(source("include")).arg(source(name));
        compiler.arg("-o").arg(directory.path().join("program"));
        let [archive, library] = libraries();
        if shared {
            // Under the name that the program asks for when it starts.
            let at = directory.path().join("librmalloc.so.0");
            std::os::unix::fs::symlink(library, at).expect("a link");
            compiler
                .arg("-L")
                .arg(library.parent().expect("a directory"));
            compiler.args(["-l:librmalloc.so", "-Wl,-rpath,$ORIGIN", "-pthread"]);
        } else {
            compiler.arg(archive).args(STATIC_LIBRARIES);
        }
        let output = compiler.output().expect("the compiler runs");
        assert!(output.status.success(), "{name}:\n{}", text(&output.stderr));
        Program { directory }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.directory.path().join("program"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RMALLOC_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self
            .command()
            .args(arguments)
            .output()
            .expect("the program runs");
        let errors = text(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{errors}",
            output.status
        );
        output
    }
}

/// What `rustc --print native-static-libs` names for the archive; `Libs.private` of the pkg-config file.
const STATIC_LIBRARIES: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

/// Runs a program to its last line, with either library.
fn runs(name: &str) {
    for shared in [false, true] {
        let output = Program::build(name, shared).run(&[]);
        assert_eq!(text(&output.stdout), "done\n");
    }
}

#[test]
fn misuse_is_refused() {
    runs("tests/c/misuse.c");
}

#[test]
fn heaps_are_independent() {
    runs("tests/c/heaps.c");
}

#[test]
fn callbacks_are_called() {
    runs("tests/c/callbacks.c");
}

#[test]
fn a_thread_compacts_in_the_background() {
    runs("tests/c/background.c");
}

#[test]
fn the_header_is_cpp() {
    runs("tests/c/header.cc");
}

#[test]
fn the_default_heap_is_initialised_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.into_os_string().into_string().expect("UTF-8")
    };
    let good = path("good.toml", "schema = 1\n[heap]\nlimit_bytes = 8388608\n");
    let bad = path("bad.toml", "schema = 1\n\n[heap]\nlimit_byte = 8\n");
    for shared in [false, true] {
        let program = Program::build("tests/c/init.c", shared);
        for name in ["after-use", "in-given", "twice", "bad-options", "unlimited"] {
            assert_eq!(text(&program.run(&[name]).stderr), "", "{name}");
        }
        assert_eq!(text(&program.run(&["file", &good]).stderr), "");
        let told = text(&program.run(&["bad-file", &bad]).stderr);
        assert!(
            told.starts_with("rmalloc: ") && told.contains("bad.toml:4: "),
            "{told}"
        );
        program.run(&["bad-file", "/nowhere/rmalloc.toml"]);

        let with = |case: &str, name: &str, value: &str| {
            let output = program
                .command()
                .arg(case)
                .env(name, value)
                .output()
                .expect("runs");
            let errors = text(&output.stderr);
            assert!(output.status.success(), "{case} {name}={value}: {errors}");
            errors
        };
        assert_eq!(with("limited", "RMALLOC_CONFIG", &good), "");
        assert_eq!(with("limited", "RMALLOC_LIMIT", "8M"), "");
        // Nobody is there to be told: the defaults, and one line.
        let told = with("unlimited", "RMALLOC_CONFIG", &bad);
        assert!(
            told.contains("bad.toml:4: ") && told.lines().count() == 1,
            "{told}"
        );
    }
}

#[test]
fn layouts_agree() {
    let mut expected = String::new();
    macro_rules! layout {
        ($name:literal, $type:ty: $($field:ident)*) => {
            expected += &format!("{} {}\n", $name, size_of::<$type>());
            $(
                let bytes = bytes_of(|value: &$type| &raw const value.$field);
                let offset = core::mem::offset_of!($type, $field);
                expected += &format!("{}.{} {offset} {bytes}\n", $name, stringify!($field));
            )*
        };
    }
    fn bytes_of<T, F>(_: impl Fn(&T) -> *const F) -> usize {
        size_of::<F>()
    }
    layout!("rmoptions_t", Options:
        size memory memory_bytes reserve_bytes limit_bytes entries floor_bytes budget_ns config_path
        generation_bits compaction trigger_ppm stop_ppm cpu_share_ppm slack_ppm);
    layout!("rmcompact_result_t", Compaction:
        blocks_moved bytes_moved blocks_pinned blocks_abandoned blocks_discarded regions_emptied
        bytes_released survey_ns move_ns release_ns steps longest_ns finished reserved);
    layout!("rmstats_t", Stats:
        live_blocks live_bytes large_blocks resident_bytes table_bytes dirty_bytes span_bytes entries
        entries_taken entries_retired threads stranded_slots stranded_bytes compaction);
    expected += "status 0 success\n";
    for (at, error) in Error::ALL.iter().enumerate() {
        expected += &format!("status {} {}\n", at + 1, error.text());
    }
    expected += &format!("status {} not a status of rmalloc\n", Error::ALL.len() + 1);
    expected += "status -1 not a status of rmalloc\n";
    let numbers: Vec<String> = Error::ALL
        .iter()
        .map(|&error| (error as i32).to_string())
        .collect();
    expected += &format!("numbers {}\n", numbers.join(" "));
    let found = text(&Program::build("tests/c/layout.c", true).run(&[]).stdout);
    assert_eq!(found, expected);
}

/// The program of the seed draws x ^ y.
#[test]
fn the_bitmap_is_drawn() {
    for shared in [false, true] {
        let picture = Program::build("examples/bitmap.c", shared).run(&[]).stdout;
        let header = b"P5 100 100 255\n";
        let (found, pixels) = picture.split_at(header.len());
        assert_eq!(found, header);
        assert_eq!(pixels.len(), 100 * 100);
        for (at, &pixel) in pixels.iter().enumerate() {
            assert_eq!(pixel as usize, (at % 100) ^ (at / 100));
        }
    }
}

/// Each function of the header is exported, and nothing else is.
#[test]
fn the_header_names_what_is_exported() {
    let header = std::fs::read_to_string(source("include/rmalloc.h")).expect("the header");
    let mut declared: Vec<&str> = header
        .lines()
        .filter_map(|line| {
            line.strip_prefix("status_t rm")
                .or(line.strip_prefix("const char *rm"))
        })
        .filter_map(|line| line.split('(').next())
        .collect();
    declared.sort_unstable();
    let output = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(&libraries()[1])
        .output()
        .expect("nm runs");
    assert!(output.status.success());
    let names = text(&output.stdout);
    let mut exported: Vec<&str> = names
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| name.strip_prefix("rm").unwrap_or(name))
        .collect();
    exported.sort_unstable();
    assert_eq!(exported, declared);
}

/// Every function has its place in the manual page, which renders without a warning.
#[test]
fn the_manual_page_is_whole() {
    let page = source("man/rmalloc.3");
    let output = Command::new("groff")
        .args(["-ww", "-mdoc", "-Tutf8", "-z"])
        .arg(&page)
        .output();
    // Not everybody who builds has groff.
    if let Ok(output) = output {
        assert!(output.status.success());
        assert_eq!(text(&output.stderr), "");
    }
    let page = std::fs::read_to_string(page).expect("the page");
    let header = std::fs::read_to_string(source("include/rmalloc.h")).expect("the header");
    for line in header.lines() {
        let declared = line
            .strip_prefix("status_t rm")
            .or(line.strip_prefix("const char *rm"));
        if let Some(name) = declared.and_then(|line| line.split('(').next()) {
            assert!(
                page.contains(&format!(".Fn rm{name}")) || page.contains(&format!(".Fo rm{name}")),
                "rm{name}"
            );
        }
    }
    for status in header.lines().filter_map(|line| line.strip_prefix("  RM_")) {
        let name = status.split(' ').next().unwrap_or_default();
        if !name.starts_with("COMPACTION") {
            assert!(page.contains(&format!("Dv RM_{name}")), "RM_{name}");
        }
    }
}
