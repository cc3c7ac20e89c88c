//! The core without an operating system: a `no_std` program whose heap are 512 KiB of its own fills it, frees every
//! second block, and gets a block of a quarter of the heap by compaction (an eighth if sizes are mixed: regions keep
//! their places, so what is free lies in several runs). It is linked with memcpy and its like, and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = r#"
#![no_std]
#![no_main]
use core::mem::MaybeUninit;
use rmalloc::{Error, LocalHeap, TypedLocalHeap};

static mut MEMORY: [MaybeUninit<u8>; 512 << 10] = [MaybeUninit::uninit(); 512 << 10];

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The precompiled core library names it; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// 0, or the number of what went wrong.
fn raw(memory: &mut [MaybeUninit<u8>]) -> i32 {
    let eighth = memory.len() / 8;
    let Ok(heap) = LocalHeap::new(memory, None) else { return 1 };
    let mut handles = [None; 4000];
    let mut count = 0;
    loop {
        match heap.alloc(24 + count % 7 * 40) {
            Ok(handle) => {
                let Ok(()) = heap.with(handle, |bytes| bytes[..24].fill(count as u8)) else { return 2 };
                handles[count] = Some(handle);
                count += 1;
            }
            Err(Error::Memory) => break,
            Err(_) => return 3,
        }
    }
    if count < 1500 {
        return 4;
    }
    if heap.alloc(eighth).is_ok() {
        return 5;
    }
    for handle in handles.iter_mut().step_by(2) {
        if let Some(handle) = handle.take() {
            if heap.free(handle).is_err() {
                return 6;
            }
        }
    }
    // Made by compaction inside of the call; a cycle that evens out what the one before left may be needed.
    let Some(large) = (0..4).find_map(|_| heap.alloc(eighth).ok()) else { return 7 };
    if heap.stats().compaction.blocks_moved == 0 {
        return 8;
    }
    for (at, handle) in handles.iter().enumerate() {
        if let Some(handle) = handle {
            match heap.with(*handle, |bytes| bytes[..24].iter().all(|byte| *byte == at as u8)) {
                Ok(true) => {}
                _ => return 9,
            }
        }
    }
    if heap.free(large).is_err() { 10 } else { 0 }
}

fn typed(memory: &mut [MaybeUninit<u8>]) -> i32 {
    let Ok(heap) = TypedLocalHeap::new(memory, None) else { return 21 };
    let mut handles = [const { None }; 4000];
    let mut count = 0;
    while let Ok(handle) = heap.alloc([count as u64; 20]) {
        handles[count] = Some(handle);
        count += 1;
    }
    for handle in handles.iter_mut().step_by(2) {
        *handle = None;
    }
    let Some(mut large) = (0..4).find_map(|_| heap.alloc_slice_with(128 << 10, |at| at as u8).ok()) else { return 22 };
    large.lock_mut()[5] = 6;
    if large.lock()[4..7] != [4, 6, 6] {
        return 23;
    }
    for (at, handle) in handles.iter().enumerate() {
        if let Some(handle) = handle {
            if handle.lock()[19] != at as u64 {
                return 24;
            }
        }
    }
    if count < 2000 { 25 } else { 0 }
}

#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    let memory = unsafe { &mut *(&raw mut MEMORY) };
    match raw(memory) {
        0 => typed(memory),
        wrong => wrong,
    }
}
"#;

fn run(command: &mut Command) -> std::process::Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Builds the crate without its features, for programs that abort when they panic.
fn library(target: &Path) -> PathBuf {
    // Beside the other tests' builds, so that nothing is built anew each time; the lock of that directory is not ours.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "rustc",
        "-p",
        "rmalloc",
        "--lib",
        "--release",
        "--no-default-features",
        "--crate-type",
        "rlib",
        "--offline",
    ]);
    cargo
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(target);
    run(&mut cargo);
    target.join("release/librmalloc.rlib")
}

#[test]
fn a_program_without_std_lives_in_512_kib() {
    let dir = tempfile::tempdir().expect("a directory");
    let library = library(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("no_std"));
    let source = dir.path().join("small.rs");
    std::fs::write(&source, PROGRAM).expect("the program");
    let program = dir.path().join("small");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    rustc.args([
        "--edition",
        "2024",
        "-O",
        "-C",
        "panic=abort",
        "-C",
        "link-arg=-lc",
        "--extern",
    ]);
    rustc
        .arg(format!("rmalloc={}", library.display()))
        .arg("-o")
        .arg(&program)
        .arg(&source);
    run(&mut rustc);
    let code = Command::new(&program)
        .status()
        .expect("the program runs")
        .code();
    assert_eq!(code, Some(0), "the number tells where it went wrong");

    // What it asks of others: memory functions of the C library and what every program starts with.
    let undefined = run(Command::new("nm").arg("-u").arg(&program));
    for line in String::from_utf8_lossy(&undefined.stdout).lines() {
        let name = line.split_whitespace().last().unwrap_or_default();
        let name = name.split('@').next().unwrap_or_default();
        let known = name.starts_with("mem")
            || name == "bcmp"
            || name.starts_with("__libc")
            || name.starts_with("__cxa")
            || name.starts_with("_ITM")
            || name.starts_with("__gmon");
        assert!(known, "the program needs {name}");
    }
}
