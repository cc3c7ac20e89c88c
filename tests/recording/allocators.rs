//! Allocators that users choose: preloaded beside the library in either order, linked into the program
//! dynamically or statically, called under names of their own. Whatever the allocator, the same calls
//! are recorded, exactly.

use crate::harness::{How, Lab, Run, Seen};
use rmtrace_format::event::Kind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rounds of the shorter run.
const N: u64 = 50;

/// What a round calls.
struct Round {
    /// By [`Kind`].
    calls: &'static [(Kind, u64)],
    /// Allocations by size, of those that identify the round.
    sizes: &'static [(u64, u64)],
    failed: u64,
}

/// `portable.c`.
const C: Round = Round {
    calls: &[
        (Kind::Malloc, 5),
        (Kind::Calloc, 1),
        (Kind::Realloc, 5),
        (Kind::Memalign, 4),
        (Kind::Free, 11),
    ],
    sizes: &[
        (100, 1),
        (150, 1),
        (200, 1),
        (256, 1),
        (13, 1),
        (7, 1),
        (3_000_000, 1),
    ],
    failed: 1,
};

/// `portable.c` with `OWN`.
const C_OWN: Round = Round {
    calls: &[
        (Kind::Malloc, 2),
        (Kind::Calloc, 1),
        (Kind::Realloc, 3),
        (Kind::Memalign, 1),
        (Kind::Free, 5),
    ],
    sizes: &[(100, 1), (150, 1), (200, 1), (3_000_000, 1)],
    failed: 0,
};

/// `portable.cpp`. (libstdc++ rounds sizes up to the alignment: these are round.)
const CXX: Round = Round {
    calls: &[(Kind::Malloc, 6), (Kind::Memalign, 6), (Kind::Free, 12)],
    sizes: &[
        (100, 1),
        (200, 1),
        (300, 1),
        (400, 1),
        (512, 1),
        (640, 1),
        (768, 1),
        (896, 1),
        (900, 1),
        (1000, 1),
        (1088, 1),
        (1216, 1),
    ],
    failed: 0,
};

/// A library or archive of a package. Says `skipped:` if it is missing; fails in continuous integration.
fn library(name: &str, package: &str) -> Option<PathBuf> {
    let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let found = directories.iter().map(|d| Path::new(d).join(name));
    if let Some(path) = found.into_iter().find(|path| path.is_file()) {
        return Some(path);
    }
    let message = format!("{name} is not installed (Debian package {package})");
    assert!(std::env::var_os("RMTRACE_CI").is_none(), "{message}");
    eprintln!("skipped: {message}");
    None
}

/// Allocators that come as a shared library.
const SHARED: [(&str, &str); 3] = [
    ("libjemalloc.so.2", "libjemalloc2"),
    ("libmimalloc.so.2", "libmimalloc2.0"),
    ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
];

/// Number of the program's process, which `env` may have become.
fn last(seen: &Seen) -> u32 {
    seen.processes.last().expect("a process").number
}

fn kinds(seen: &Seen, process: u32) -> BTreeMap<Kind, u64> {
    let mut kinds = BTreeMap::new();
    for (entry, count) in seen.of(process).0 {
        *kinds.entry(entry.kind()).or_default() += count;
    }
    kinds
}

fn of_size(seen: &Seen, process: u32, size: u64) -> u64 {
    let threads = seen.threads.range((process, 0)..=(process, u32::MAX));
    threads
        .filter_map(|(_, thread)| thread.sizes.get(&size))
        .sum()
}

/// Runs with N and with 2N rounds: the difference is N rounds, and nothing else is amiss.
fn exact<'a>(round: &Round, case: &str, how: How, run: impl Fn() -> Run<'a>) {
    let seen = [N, 2 * N].map(|n| {
        let recorded = run().arg(n.to_string()).recorded(how);
        assert!(
            recorded.outcome.status.success(),
            "{case}: {:?}",
            recorded.outcome
        );
        recorded.read().clean()
    });
    let [once, twice] = seen.each_ref().map(|seen| (seen, last(seen)));
    let (before, after) = (kinds(once.0, once.1), kinds(twice.0, twice.1));
    for kind in Kind::ALL {
        let expected = round.calls.iter().find(|(of, _)| *of == kind);
        let difference =
            after.get(&kind).copied().unwrap_or(0) - before.get(&kind).copied().unwrap_or(0);
        assert_eq!(
            difference,
            expected.map_or(0, |(_, calls)| calls * N),
            "{case} {how:?}: {kind:?} in {before:?} and {after:?}"
        );
    }
    for (size, calls) in round.sizes {
        let difference = of_size(twice.0, twice.1, *size) - of_size(once.0, once.1, *size);
        assert_eq!(
            difference,
            calls * N,
            "{case} {how:?}: blocks of {size} bytes"
        );
    }
    let failed = twice.0.failed(twice.1) - once.0.failed(once.1);
    assert_eq!(failed, round.failed * N, "{case} {how:?}: failed calls");
}

/// Runs with `LD_PRELOAD` as given, whatever the way to record.
fn preloaded<'a>(lab: &'a Lab, program: &Path, preload: &[&Path]) -> Run<'a> {
    let words: Vec<String> = preload
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let run = lab.run("/usr/bin/env");
    run.arg(format!("LD_PRELOAD={}", words.join(" ")))
        .arg(program)
}

fn programs(lab: &Lab) -> [(PathBuf, &'static Round); 2] {
    let cxx = ["-std=c++17"];
    [
        (lab.compile(&["portable.c"], "portable", &[]), &C),
        (lab.compile(&["portable.cpp"], "portable-cxx", &cxx), &CXX),
    ]
}

fn beside(name: &str, package: &str) {
    let Some(allocator) = library(name, package) else {
        return;
    };
    let ours = crate::harness::interposer();
    let lab = Lab::new();
    for (program, round) in programs(&lab) {
        for how in How::BOTH {
            let first = || preloaded(&lab, &program, &[ours, &allocator]);
            exact(round, &format!("{name} after ours"), how, first);
            let second = || preloaded(&lab, &program, &[&allocator, ours]);
            exact(round, &format!("{name} before ours"), how, second);
        }
    }
}

#[test]
fn jemalloc_preloaded_beside() {
    beside(SHARED[0].0, SHARED[0].1);
}

#[test]
fn mimalloc_preloaded_beside() {
    beside(SHARED[1].0, SHARED[1].1);
}

#[test]
fn tcmalloc_preloaded_beside() {
    beside(SHARED[2].0, SHARED[2].1);
}

/// The C library's own, which checks every call (and needs nothing installed).
#[test]
fn the_debugging_allocator_of_glibc_beside() {
    beside("libc_malloc_debug.so.0", "libc6");
}

/// What the user preloads stays preloaded under `rmtrace record`.
#[test]
fn the_users_preload_is_kept() {
    for (name, package) in SHARED {
        let Some(allocator) = library(name, package) else {
            continue;
        };
        let lab = Lab::new();
        for (program, round) in programs(&lab) {
            let run = || lab.run(&program).env("LD_PRELOAD", &allocator);
            exact(round, &format!("{name} of the user"), How::Record, run);
            // It is that allocator's memory: jemalloc and the others map it, glibc has a heap.
            let maps = lab.run("/bin/cat").env("LD_PRELOAD", &allocator);
            let maps = maps.arg("/proc/self/maps").record().ok().outcome.text();
            assert!(
                maps.contains(name) && maps.contains("librmtrace.so"),
                "{maps}"
            );
        }
    }
}

/// Blocks made in threads and freed in another.
#[test]
fn threads_with_each_allocator() {
    for (name, package) in SHARED {
        let Some(allocator) = library(name, package) else {
            continue;
        };
        let lab = Lab::new();
        let program = lab.compile(&["portable.c"], "portable", &[]);
        for how in How::BOTH {
            for order in [true, false] {
                let ours = crate::harness::interposer();
                let preload: [&Path; 2] = match order {
                    true => [ours, &allocator],
                    false => [&allocator, ours],
                };
                let run = preloaded(&lab, &program, &preload).args(["1", "threads"]);
                let seen = run.recorded(how).ok().read().clean();
                let process = last(&seen);
                assert_eq!(of_size(&seen, process, 3_000_000), 4, "{name} {how:?}");
                let place = |thread: u32| seen.threads.get(&(process, thread));
                assert!((1..4).all(|n| place(n).is_some()), "{name} {how:?}");
            }
        }
    }
}

fn linked(lab: &Lab, source: &str, libraries: &[&str], flags: &[&str]) -> PathBuf {
    let flags = [flags, &["-Wl,--no-as-needed"], libraries].concat();
    lab.compile(&[source], "linked", &flags)
}

#[test]
fn programs_linked_with_an_allocator() {
    for (name, package) in SHARED {
        let Some(allocator) = library(name, package) else {
            continue;
        };
        let path = allocator.to_string_lossy().into_owned();
        for (source, round, flags) in [
            ("portable.c", &C, &[][..]),
            ("portable.cpp", &CXX, &["-std=c++17"][..]),
        ] {
            let lab = Lab::new();
            let program = linked(&lab, source, &[&path], flags);
            for how in How::BOTH {
                let case = format!("{source} linked with {name}");
                exact(round, &case, how, || lab.run(&program));
            }
        }
    }
}

/// Functions under an allocator's own names, in its shared library.
#[test]
fn functions_with_a_prefix() {
    for (library_at, prefix) in [(1, "mi_"), (2, "tc_")] {
        let (name, package) = SHARED[library_at];
        let Some(allocator) = library(name, package) else {
            continue;
        };
        let path = allocator.to_string_lossy().into_owned();
        let lab = Lab::new();
        let define = format!("-DPREFIX={prefix}");
        let program = linked(&lab, "portable.c", &[&path], &[&define]);
        for how in How::BOTH {
            exact(&C_OWN, prefix, how, || lab.run(&program));
        }
    }
}

/// jemalloc as part of the program: exported, and hidden so that only a symbol table names it.
#[test]
fn an_archive_in_the_program() {
    let Some(archive) = library("libjemalloc.a", "libjemalloc-dev") else {
        return;
    };
    let whole = [
        "-Wl,--whole-archive",
        archive.to_str().expect("a plain path"),
        "-Wl,--no-whole-archive",
        "-lstdc++",
        "-lm",
        "-ldl",
    ];
    let hidden = [&["-Wl,--exclude-libs,ALL"][..], &whole].concat();
    let cxx: &[&str] = &["-std=c++17", "-static-libstdc++", "-static-libgcc"];
    for (case, source, round, flags) in [
        ("exported", "portable.c", &C, whole.to_vec()),
        (
            "exported",
            "portable.cpp",
            &CXX,
            [&["-std=c++17"][..], &whole].concat(),
        ),
        (
            "exported, static",
            "portable.cpp",
            &CXX,
            [cxx, &whole].concat(),
        ),
        (
            "hidden",
            "portable.c",
            &C_OWN,
            [&["-DOWN"][..], &hidden].concat(),
        ),
        ("hidden", "portable.cpp", &CXX, [cxx, &hidden].concat()),
    ] {
        let lab = Lab::new();
        let program = lab.compile(&[source], "archive", &flags);
        for how in How::BOTH {
            let case = format!("{source}, jemalloc {case}");
            exact(round, &case, how, || lab.run(&program));
        }
    }
}

/// A private allocator that only the symbol table names, in programs of several kinds.
#[test]
fn an_allocator_that_is_not_exported() {
    for flags in [
        &["-O2"][..],
        &["-O0"],
        &["-O2", "-fcf-protection=full"],
        &["-O2", "-fno-pie", "-no-pie"],
        &["-O2", "-Wl,-z,separate-code"],
        &["-O2", "-Wl,-z,noseparate-code"],
    ] {
        let lab = Lab::new();
        let flags = [&["-DOWN", "-fvisibility=hidden"], flags].concat();
        let sources = ["portable.c", "own_allocator.c"];
        let program = lab.compile(&sources, "hidden", &flags);
        for how in How::BOTH {
            let case = format!("not exported, {flags:?}");
            exact(&C_OWN, &case, how, || lab.run(&program));
        }
    }
}

/// The same under a prefix, as programs in Rust carry jemalloc.
#[test]
fn an_allocator_with_a_prefix_that_is_not_exported() {
    for prefix in ["_rjem_", "je_", "mi_", "tc_", "scalable_"] {
        let lab = Lab::new();
        let mut flags = vec!["-O2".to_owned(), format!("-DPREFIX={prefix}")];
        for name in ["malloc", "calloc", "realloc", "free", "posix_memalign"] {
            flags.push(format!("-Dprefixed_{name}={prefix}{name}"));
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let program = lab.compile(&["portable.c", "prefixed.c"], "prefixed", &flags);
        for how in How::BOTH {
            exact(&C_OWN, prefix, how, || lab.run(&program));
        }
    }
}

/// Stripped, with the symbols in a file of their own, as distributions package them.
#[test]
fn an_allocator_that_debug_symbols_name() {
    let lab = Lab::new();
    let flags = [
        "-DOWN",
        "-O2",
        "-fvisibility=hidden",
        "-Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567",
    ];
    let program = lab.compile(&["portable.c", "own_allocator.c"], "stripped", &flags);
    let debug = lab.path("debug/.build-id/01");
    std::fs::create_dir_all(&debug).expect("the directory can be made");
    let debug = debug.join("23456789abcdef0123456789abcdef01234567.debug");
    let tool = |program: &str, arguments: &[&Path]| {
        let status = std::process::Command::new(program).args(arguments).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "{program} (binutils)"
        );
    };
    tool("objcopy", &["--only-keep-debug".as_ref(), &program, &debug]);
    tool("strip", &[&program]);
    for how in How::BOTH {
        let run = || lab.run(&program).env("RMTRACE_DEBUG", lab.path("debug"));
        exact(&C_OWN, "debug symbols", how, run);
        // Without them nothing names the allocator, which is told.
        let blind = lab.run(&program).arg("10").recorded(how).ok();
        let info = blind.info();
        assert_eq!(
            info["processes"][0]["flags"],
            serde_json::json!(["no_allocator"]),
            "{how:?}"
        );
        assert_eq!(info["events"]["total"], 0, "{how:?}");
        let notes = format!("{}", info["run"]["notes"]);
        assert!(notes.contains("-dbgsym"), "{how:?}: {notes}");
    }
    // Symbols of another build, or damaged ones, are not believed.
    std::fs::write(&debug, b"\x7fELF\x02\x01 and no more").expect("it can be written");
    let run = lab
        .run(&program)
        .arg("10")
        .env("RMTRACE_DEBUG", lab.path("debug"));
    assert_eq!(run.bare().ok().info()["events"]["total"], 0);
}

/// A symbol table that is damaged in any of its places harms nobody.
#[test]
fn a_damaged_symbol_table_is_survived() {
    let lab = Lab::new();
    let flags = ["-DOWN", "-O2", "-fvisibility=hidden"];
    let program = lab.compile(&["portable.c", "own_allocator.c"], "whole", &flags);
    let whole = std::fs::read(&program).expect("it was compiled");
    let long = |at: usize| {
        let bytes = whole[at..at + 8].try_into().expect("8 bytes");
        u64::from_le_bytes(bytes) as usize
    };
    let (sections, count) = (long(40), usize::from(whole[60]));
    let table = (0..count)
        .map(|n| sections + n * 64)
        .find(|at| whole[at + 4] == 2)
        .expect("it has a symbol table");
    let (symbols, bytes) = (long(table + 24), long(table + 32));
    let spoil = |at: usize, length: usize| {
        let mut spoiled = whole.clone();
        spoiled[at..at + length].fill(0xff);
        let name = format!("spoiled-{at}");
        let path = lab.path(&name);
        std::fs::write(&path, spoiled).expect("it can be written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&path, mode).expect("it is ours");
        let recorded = lab.run(&path).arg("10").bare().ok();
        recorded.verify();
    };
    // The place of the sections; the table's place, length and link; names, places and sizes of symbols.
    for (at, length) in [(40, 8), (table + 24, 8), (table + 32, 8), (table + 40, 4)] {
        spoil(at, length);
    }
    for field in [0, 8, 16] {
        let mut spoiled = whole.clone();
        for symbol in (symbols..symbols + bytes).step_by(24) {
            spoiled[symbol + field..symbol + field + 4].fill(0xff);
        }
        let path = lab.path(&format!("spoiled-field-{field}"));
        std::fs::write(&path, spoiled).expect("it can be written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&path, mode).expect("it is ours");
        lab.run(&path).arg("10").bare().ok().verify();
    }
}
