//! Programs that bring their own allocator: in the executable, where only patching reaches it, or in a
//! library of its own.

use crate::harness::{How, Lab, Recorded};
use rmtrace_format::event::{Entry, Kind};
use std::path::Path;

const N: &str = "500";

/// Calls by kind, as the allocator counted them, against those recorded.
fn compare(recorded: &Recorded, case: &str) {
    let seen = recorded.read().clean();
    let text = recorded.outcome.text();
    let counted: Vec<u64> = text
        .split_whitespace()
        .map(|word| word.parse().expect("a number"))
        .collect();
    let calls = seen.of(0);
    let kind = |kind: Kind| -> u64 {
        calls
            .0
            .iter()
            .filter(|(entry, _)| entry.kind() == kind)
            .map(|(_, n)| n)
            .sum()
    };
    let recorded = [
        kind(Kind::Malloc) - calls.get(Entry::Strdup),
        kind(Kind::Calloc),
        kind(Kind::Realloc),
        kind(Kind::Free),
        kind(Kind::Memalign),
        calls.get(Entry::Strdup),
    ];
    assert_eq!(recorded.as_slice(), counted, "{case}");
}

#[test]
fn an_allocator_in_the_executable() {
    for how in How::BOTH {
        for flags in [
            &["-rdynamic", "-O2"][..],
            &["-rdynamic", "-O2", "-fcf-protection=full"],
            &["-rdynamic", "-O0"],
            &["-rdynamic", "-Os", "-fno-pie", "-no-pie"],
            &["-rdynamic", "-O3", "-fcf-protection=none", "-fno-plt"],
        ] {
            let lab = Lab::new();
            let program = lab.compile(&["own_use.c", "own_allocator.c"], "own", flags);
            let recorded = lab.run(&program).arg(N).recorded(how).ok();
            compare(&recorded, &format!("{how:?} {flags:?}"));
            let seen = recorded.read();
            let hooks = seen.processes[0].hooks;
            for entry in [Entry::Malloc, Entry::Free, Entry::Realloc, Entry::Strdup] {
                assert_ne!(hooks.detoured & 1 << entry as u64, 0, "{entry:?} {flags:?}");
            }
            assert_eq!(hooks.refused, 0, "{flags:?}");
        }
    }
}

fn with_library(lab: &Lab, library: &Path) -> std::path::PathBuf {
    let directory = library.parent().expect("it is in a directory");
    let path = format!("-Wl,-rpath,{}", directory.display());
    let library = library.to_string_lossy().into_owned();
    lab.compile(&["own_use.c"], "own", &[library.as_str(), path.as_str()])
}

#[test]
fn an_allocator_in_a_library() {
    for how in How::BOTH {
        let lab = Lab::new();
        let flags = ["-shared", "-fPIC", "-O2"];
        let library = lab.compile(&["own_allocator.c"], "libmyalloc.so", &flags);
        let program = with_library(&lab, &library);
        let recorded = lab.run(&program).arg(N).recorded(how).ok();
        compare(&recorded, &format!("{how:?}"));
    }
}

/// A function too short for a patch is left alone and named; the program runs as ever.
#[test]
fn a_function_too_short_to_be_patched() {
    for how in How::BOTH {
        for flags in [
            // A caller in the same file may count on registers that a short function leaves alone.
            &["-rdynamic", "-O2", "-fno-ipa-ra"][..],
            &["-rdynamic", "-O2", "-fno-ipa-ra", "-fcf-protection=full"],
        ] {
            let lab = Lab::new();
            let program = lab.compile(&["short_free.c"], "short", flags);
            let recorded = lab.run(&program).recorded(how).ok();
            assert_eq!(recorded.outcome.text(), "done\n");
            let seen = recorded.read();
            let hooks = seen.processes[0].hooks;
            assert_eq!(hooks.refused, 1 << Entry::Free as u64, "{how:?} {flags:?}");
            assert_ne!(
                hooks.detoured & 1 << Entry::Malloc as u64,
                0,
                "{how:?} {flags:?}"
            );
            assert_eq!(
                seen.threads[&(0, 0)].sizes[&7001],
                1000,
                "{how:?} {flags:?}"
            );
            let info = recorded.info();
            let refused = &info["processes"][0]["hooks"]["refused"];
            assert_eq!(*refused, serde_json::json!(["free"]), "{how:?} {flags:?}");
            let notes = format!("{}", info["run"]["notes"]);
            assert!(notes.contains("could not be patched"), "{how:?}: {notes}");
        }
    }
}
