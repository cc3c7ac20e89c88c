//! The size classes of allocators against the libraries themselves: a C program asks each for blocks of
//! all sizes to 64 KiB, and of sizes around every edge of classes to 64 MiB.

use rmtrace_analyzer::size_classes::System;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name, Debian package.
fn library(system: System) -> Option<(&'static str, &'static str)> {
    match system {
        System::Glibc => None,
        System::Jemalloc => Some(("libjemalloc.so.2", "libjemalloc2")),
        System::Mimalloc => Some(("libmimalloc.so.2", "libmimalloc2.0")),
        System::Tcmalloc => Some(("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4")),
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let mut paths = directories.iter().map(|d| Path::new(d).join(name));
    paths.find(|path| path.is_file())
}

/// All to 64 KiB; above, three around each 64th of a power of two, and others between.
fn sizes() -> Vec<u64> {
    const MOST: u64 = 64 << 20;
    let mut sizes: BTreeSet<u64> = (0..=65_536).collect();
    for shift in 16..26 {
        let edges = (64..=128u64).map(|part| part << shift >> 6);
        sizes.extend(edges.flat_map(|edge| edge - 1..=edge + 1));
    }
    let mut between = 65_537;
    while between < MOST {
        sizes.insert(between);
        between += between / 301 + 1;
    }
    sizes.retain(|size| *size <= MOST);
    sizes.into_iter().collect()
}

fn compiled() -> PathBuf {
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/programs/usable_sizes.c"
    );
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("usable_sizes");
    let status = Command::new("gcc")
        .args(["-O1", "-Wall", "-Werror", source, "-o"])
        .arg(&program)
        .status()
        .expect("gcc runs");
    assert!(status.success(), "{source} compiles");
    program
}

/// What the library says of each size.
fn told(program: &Path, preload: Option<&Path>, sizes: &[u64]) -> Vec<u64> {
    let mut command = Command::new(program);
    match preload {
        Some(library) => command.env("LD_PRELOAD", library),
        None => command.env_remove("LD_PRELOAD"),
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let asked: String = sizes.iter().map(|size| format!("{size}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(asked.as_bytes()));
    let output = child.wait_with_output().expect("the program ends");
    writer
        .join()
        .expect("no panic")
        .expect("all sizes are written");
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).expect("digits");
    text.lines()
        .map(|line| line.parse().expect("a number"))
        .collect()
}

#[test]
fn classes_are_those_of_the_libraries() {
    let (program, sizes) = (compiled(), sizes());
    for system in System::ALL {
        let name = format!("{} {}", system.name(), system.version());
        let mut path = None;
        if let Some((library, package)) = library(system) {
            path = find(library);
            if path.is_none() {
                let message = format!("{library} is not installed (Debian package {package})");
                assert!(std::env::var_os("RMTRACE_CI").is_none(), "{message}");
                eprintln!("skipped: {message}");
                continue;
            }
        }
        let told = told(&program, path.as_deref(), &sizes);
        assert_eq!(told.len(), sizes.len(), "{name}");
        for (bytes, usable) in sizes.iter().zip(told) {
            let block = system.block(*bytes);
            assert_eq!(block.usable_bytes, usable, "{name}: {bytes} bytes");
        }
    }
}
