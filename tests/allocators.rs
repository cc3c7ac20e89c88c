//! `rmtrace allocators`, settings as rows of their own, what can't be loaded and why, executables as libraries, and the script that
//! builds allocators. Times are never compared; counts that a setting must change are.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A test's own directory: its cache, and its built allocators.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// rmtrace, with no allocator built and none of the variables that change one.
    fn rmtrace(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rmtrace"));
        command
            .env("XDG_CACHE_HOME", self.path())
            .env_remove("RMTRACE_ALLOCATORS");
        for name in ["GLIBC_TUNABLES", "MALLOC_CONF", "RMALLOC_CONFIG"] {
            command.env_remove(name);
        }
        command
    }

    fn replay(&self, trace: &str, allocators: &str) -> Output {
        self.rmtrace()
            .args(["replay", &format!("{ROOT}/traces/{trace}.rmt")])
            .args(["-a", allocators, "--rounds", "1", "--json"])
            .output()
            .expect("rmtrace starts")
    }

    fn report(&self, trace: &str, allocators: &str) -> Value {
        json(&self.replay(trace, allocators))
    }

    fn refused(&self, allocators: &str) -> String {
        let output = self.replay("by_hand", allocators);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn compile(&self, name: &str, options: &[&str], source: &str) -> String {
        let path: PathBuf = self.path().join(name);
        let built = Command::new("cc")
            .args(["-O1", "-fno-builtin", "-D_GNU_SOURCE", "-o"])
            .arg(&path)
            .args(options)
            .arg(format!("{ROOT}/tests/programs/{source}.c"))
            .output()
            .expect("a C compiler");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{said}");
        path.to_string_lossy().into_owned()
    }
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_list_tells_what_is_here_and_what_brings_the_rest() {
    let place = Place::new();
    let listed = json(
        &place
            .rmtrace()
            .args(["allocators", "--json"])
            .output()
            .expect("a list"),
    );
    assert_eq!(listed["schema"], 1);
    let cache = place.path().join("rmtrace/allocators");
    assert_eq!(
        listed["directories"][0].as_str().map(Path::new),
        Some(&*cache)
    );
    let of = |name: &str| {
        let rows = listed["allocators"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("{name} is not listed"))
    };
    assert_eq!(of("system")["present"], true);
    assert!(
        of("system")["version"]
            .as_str()
            .is_some_and(|version| version.starts_with("glibc 2."))
    );
    assert_eq!(of("rmalloc")["loaded"], "linked");
    // Nothing was built for this test.
    assert_eq!(of("rpmalloc")["present"], false);
    assert_eq!(
        of("rpmalloc")["remedy"],
        "`scripts/allocators rpmalloc` builds it"
    );
    let text = place
        .rmtrace()
        .arg("allocators")
        .output()
        .expect("a list")
        .stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("missing: rpmalloc"), "{text}");

    // One that is asked for and is missing is a failure; the list knows what the script knows.
    let one = place
        .rmtrace()
        .args(["allocators", "rpmalloc"])
        .status()
        .expect("a list");
    assert_eq!(one.code(), Some(2));
    let script = Command::new(format!("{ROOT}/scripts/allocators"))
        .arg("--names")
        .output();
    let script = String::from_utf8(script.expect("the script").stdout).expect("text");
    let mut built = 0;
    for line in script.lines() {
        let (name, kind) = line.split_once(' ').expect("a name and its kind");
        let source = of(name)["source"].as_str().unwrap_or_default();
        assert_eq!(
            source.starts_with("crate "),
            kind == "built",
            "{line}: {source}"
        );
        built += usize::from(kind == "built");
    }
    let crates = listed["allocators"].as_array().expect("rows").iter();
    let crates = crates.filter(|row| {
        row["source"]
            .as_str()
            .is_some_and(|source| source.starts_with("crate "))
    });
    assert_eq!(crates.count(), built);
}

#[test]
fn a_library_is_found_by_its_name_where_it_was_built() {
    let place = Place::new();
    let said = place.refused("snmalloc");
    assert!(said.contains("scripts/allocators snmalloc"), "{said}");
    // Any allocator serves as a stand-in.
    let directory = place.path().join("rmtrace/allocators");
    std::fs::create_dir_all(&directory).expect("a directory");
    let built = place.compile("stand_in.so", &["-shared", "-fPIC"], "lib_broken");
    std::fs::copy(built, directory.join("snmalloc.so")).expect("a copy");
    let report = place.report("by_hand", "snmalloc");
    assert_eq!(report["allocators"][0]["name"], "snmalloc");
    assert_eq!(report["allocators"][0]["file"], "snmalloc.so");
}

#[test]
fn functions_of_two_allocators_are_refused() {
    let place = Place::new();
    for (name, options, function) in [
        ("m1.so", &[][..], "calloc"),
        ("m2.so", &["-DCALLOC"], "realloc"),
        ("m3.so", &["-DCALLOC", "-DREALLOC"], "posix_memalign"),
    ] {
        let options = [&["-shared", "-fPIC"], options].concat();
        let said = place.refused(&place.compile(name, &options, "lib_mixed"));
        assert!(
            said.contains(&format!("its {function} is that of")) && said.contains("libc.so"),
            "{said}"
        );
    }
}

#[test]
fn settings_make_a_row_of_their_own_and_are_told() {
    let place = Place::new();
    // That settings have their effect is seen below, where rmalloc counts it.
    let row = "system:GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4096";
    let report = place.report("by_hand", &format!("system,{row}"));
    let of = |at: usize| &report["allocators"][at];
    assert_eq!(of(1)["name"], row);
    assert_eq!(
        of(1)["environment"]["GLIBC_TUNABLES"],
        "glibc.malloc.mmap_threshold=4096"
    );
    assert_eq!(
        of(0)["environment"].as_object().map(|set| set.len()),
        Some(0)
    );

    // What is set for all rows is told of those that read it.
    let output = place
        .rmtrace()
        .args([
            "replay",
            &format!("{ROOT}/traces/by_hand.rmt"),
            "-a",
            "system,rmalloc",
        ])
        .args(["--rounds", "1", "--json"])
        .env("RMALLOC_COMPACTION", "off")
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .expect("rmtrace starts");
    let report = json(&output);
    let told = |at: usize| report["allocators"][at]["environment"].to_string();
    assert_eq!(told(0), r#"{"MALLOC_ARENA_MAX":"1"}"#);
    assert_eq!(told(1), r#"{"RMALLOC_COMPACTION":"off"}"#);
}

#[test]
fn settings_of_rmalloc_reach_it_or_are_refused() {
    let place = Place::new();
    let rows = "rmalloc:compaction.trigger=1%;compaction.stop=0;compaction.floor_bytes=4096,rmalloc:compaction.mode=off";
    let report = place.report("python", rows);
    let steps = |at: usize| {
        report["allocators"][at]["own"]["steps"]
            .as_u64()
            .expect("a number")
    };
    assert!(
        steps(0) > 0 && steps(1) == 0,
        "{} and {}",
        steps(0),
        steps(1)
    );
    let file = place.path().join("mine.toml");
    std::fs::write(&file, "[compaction]\nmode = \"off\"\n").expect("a file");
    let named = format!("rmalloc@{}", file.to_string_lossy());
    let report = place.report("python", &named);
    assert_eq!(report["allocators"][0]["own"]["steps"], 0);
    // rmalloc itself would take its defaults and go on.
    let said = place.refused("rmalloc:compaction.stopp=3%");
    assert!(
        said.contains("compaction.stopp") || said.contains("stopp"),
        "{said}"
    );
    std::fs::write(&file, "schema = 7\n").expect("a file");
    assert!(place.refused(&named).contains("mine.toml"));
}

/// An executable with an allocator of its own, as Firefox is one; the real one where it is installed.
#[test]
fn an_executable_serves_or_says_why_not() {
    let place = Place::new();
    // A program with all functions of an allocator, and nothing else.
    let pie = [
        "-fPIE",
        "-pie",
        "-rdynamic",
        "-nostartfiles",
        "-Wl,-e,malloc",
    ];
    let program = place.compile("program", &pie, "lib_broken");
    let report = place.report("by_hand", &program);
    assert_eq!(report["allocators"][0]["file"], "program");
    assert_eq!(report["allocators"][0]["loaded"], "opened");
    let large = [&pie[..], &["-DBIG_TLS"]].concat();
    let said = place.refused(&place.compile("large", &large, "lib_broken"));
    assert!(said.contains("variables of a thread take 2000"), "{said}");
    let firefox = "/usr/lib/firefox-esr/firefox-esr";
    if !Path::new(firefox).exists() {
        assert!(
            std::env::var_os("RMTRACE_CI").is_none(),
            "firefox-esr must be installed here"
        );
        eprintln!("firefox-esr is not installed: left out");
        return;
    }
    let output = place
        .rmtrace()
        .args([
            "replay",
            &format!("{ROOT}/traces/python.rmt"),
            "-a",
            "mozjemalloc",
        ])
        .args(["--rounds", "1", "--check", "--json"])
        .output()
        .expect("rmtrace starts");
    let report = json(&output);
    assert_eq!(report["fidelity"]["live_bytes"]["differing"], 0);
    let version = report["allocators"][0]["version"]
        .as_str()
        .unwrap_or_default();
    assert!(version.starts_with("mozjemalloc of Firefox "), "{version}");
    assert_eq!(report["allocators"][0]["file"], "firefox-esr");
}

/// rpmalloc, as it is built in a second. Where the registry can't be reached that is said, and is no failure of the script.
#[test]
fn the_script_builds_an_allocator_once_and_it_passes_the_check() {
    let place = Place::new();
    let directory = place.path().join("built");
    let script = |name: &str| {
        Command::new(format!("{ROOT}/scripts/allocators"))
            .arg(name)
            .env("RMTRACE_ALLOCATORS", &directory)
            .output()
            .expect("the script starts")
    };
    let wrong = script("rpmaloc");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("rpmalloc"));
    // Without a network, and with nothing fetched before.
    let offline = Command::new(format!("{ROOT}/scripts/allocators"))
        .arg("rpmalloc")
        .env("RMTRACE_ALLOCATORS", &directory)
        .env("CARGO_HOME", place.path().join("cargo"))
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .expect("the script starts");
    let said = String::from_utf8_lossy(&offline.stderr);
    assert_eq!(offline.status.code(), Some(3), "{said}");
    assert!(said.contains("can't be reached"), "{said}");
    assert!(!directory.join("rpmalloc.so").exists());

    let first = script("rpmalloc");
    let said = String::from_utf8_lossy(&first.stderr);
    if first.status.code() == Some(3) {
        eprintln!("the registry of crates can't be reached, so nothing was built:\n{said}");
        assert!(said.contains("can't be reached"), "{said}");
        return;
    }
    assert!(first.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&first.stdout).contains("built in"));
    let told = std::fs::read_to_string(directory.join("rpmalloc.txt")).expect("what was built");
    assert!(
        told.contains("crate rpmalloc-sys 0.2.3") && told.contains("-O3"),
        "{told}"
    );
    let again = script("rpmalloc");
    assert!(again.status.success() && !String::from_utf8_lossy(&again.stdout).contains("built in"));
    let left = std::fs::read_dir(&directory)
        .expect("the directory")
        .count();
    assert_eq!(left, 3, "rpmalloc.so, rpmalloc.txt and the lock");

    let output = place
        .rmtrace()
        .env("RMTRACE_ALLOCATORS", &directory)
        .args([
            "replay",
            &format!("{ROOT}/traces/python.rmt"),
            "-a",
            "rpmalloc",
        ])
        .args(["--rounds", "1", "--check", "--json"])
        .output()
        .expect("rmtrace starts");
    let report = json(&output);
    let version = report["allocators"][0]["version"]
        .as_str()
        .unwrap_or_default();
    assert!(version.starts_with("rpmalloc 1."), "{version}");
}
