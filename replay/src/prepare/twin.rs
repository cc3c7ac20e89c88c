//! Holds preparation to a slow, obvious twin: the facts of the analyzer's ledger, which does its own bookkeeping.

use super::*;
use crate::program::Program;
use rmtrace_analyzer::fact::{Fact, What};
use rmtrace_analyzer::ledger::{Filter, facts};
use std::collections::HashMap;

fn sample(name: &str) -> TraceReader {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../traces")
        .join(name);
    rmtrace_file::open(&path).unwrap()
}

fn program(reader: &TraceReader, wanted: Wanted) -> (Facts, Program) {
    let (file, path) = tempfile::NamedTempFile::new().unwrap().into_parts();
    let facts = prepare(reader, wanted, file, &path, |_| {}).unwrap();
    (facts, Program::open(&path).unwrap())
}

/// The operations of words, each with the number of words before it.
fn decoded(words: &[u64], count: usize) -> Vec<(usize, Op)> {
    let (mut at, mut ops) = (0, Vec::new());
    while at < count {
        match word::kind(words[at]) {
            word::WIDE => {
                ops.push((at, Op::decode_wide(words[at], words[at + 1])));
                at += 2;
            }
            _ => {
                ops.push((at, Op::decode(words[at])));
                at += 1;
            }
        }
    }
    ops
}

/// A block of the twin: who it is, and its bytes now.
type Named = (u64, u64);

/// The slow way: every fact of the analyzer's ledger against the operation in the same place, blocks told apart by
/// the number of their birth, looked up by address on one side and by slot on the other.
fn compare(name: &str) {
    let reader = sample(name);
    let process = busiest(&reader).unwrap();
    let (told, program) = program(
        &reader,
        Wanted {
            process,
            lock_ns: None,
            rule: None,
        },
    );
    assert_eq!(told, *program.facts());
    let ops = decoded(program.ops(), told.op_words as usize);
    let mut by_slot: HashMap<u32, Named> = HashMap::new();
    let setup = decoded(program.setup(), told.setup_words as usize);
    for (number, (_, op)) in setup.iter().enumerate() {
        // Numbers from the top: inherited.
        by_slot.insert(op.slot, (u64::MAX - number as u64, op.bytes));
    }
    let mut live: u64 = by_slot.values().map(|(_, bytes)| bytes).sum();
    let mut rounded: u64 = by_slot
        .values()
        .map(|(_, bytes)| bytes.div_ceil(16) * 16)
        .sum();
    let mut by_address: HashMap<u64, Named> = HashMap::new();
    let (mut next, mut born, mut peak) = (0, 0, (live, 0));
    let mut left_out = (0, 0, 0);
    // Live bytes and blocks after each operation, by its time.
    let mut history = vec![(0, live, by_slot.len() as u64, rounded)];
    let options = MergeOptions {
        processes: Some(reader.with_ancestors(process)),
        ..MergeOptions::default()
    };
    facts(&reader, options, &Filter::default(), |fact: &Fact| {
        if fact.process != process || fact.what == What::Kept {
            return;
        }
        if fact.what == What::Nothing {
            let is_unknown = fact.flags & Fact::UNKNOWN != 0;
            left_out.0 += u64::from(!is_unknown);
            left_out.1 += u64::from(is_unknown);
            return;
        }
        let (at, op) = ops[next];
        next += 1;
        let now = by_slot.get(&op.slot).copied();
        match fact.what {
            What::Born => {
                let kind = match fact.entry.kind() {
                    Kind::Calloc => word::ZEROED,
                    _ => word::ALLOC,
                };
                assert_eq!(
                    (op.kind, op.bytes, op.align_log2),
                    (kind, fact.bytes, fact.align_log2)
                );
                born += 1;
                assert_eq!(by_slot.insert(op.slot, (born, op.bytes)), None);
                by_address.insert(fact.address, (born, op.bytes));
                live += op.bytes;
                rounded += op.bytes.div_ceil(16) * 16;
            }
            What::Freed | What::Displaced => {
                left_out.2 += u64::from(fact.what == What::Displaced);
                assert_eq!(op.kind, word::FREE);
                let known = by_address.remove(&fact.address);
                let (number, bytes) = by_slot.remove(&op.slot).unwrap();
                match known {
                    Some(known) => assert_eq!(known, (number, bytes)),
                    None => assert!(fact.is_inherited() && number > born),
                }
                assert_eq!(bytes, fact.bytes);
                live -= bytes;
                rounded -= bytes.div_ceil(16) * 16;
            }
            What::Resized => {
                assert_eq!((op.kind, op.bytes), (word::RESIZE, fact.bytes));
                let (number, from) = now.unwrap();
                match by_address.remove(&fact.old_address) {
                    Some(known) => assert_eq!(known, (number, from)),
                    None => assert!(fact.is_inherited() && number > born),
                }
                assert_eq!(from, fact.old_bytes);
                by_slot.insert(op.slot, (number, op.bytes));
                by_address.insert(fact.address, (number, op.bytes));
                live = live - from + op.bytes;
                rounded = rounded - from.div_ceil(16) * 16 + op.bytes.div_ceil(16) * 16;
            }
            What::Kept | What::Nothing => unreachable!(),
        }
        let width = if op.encode().0.is_some() { 2 } else { 1 };
        if live > peak.0 {
            peak = (live, (at + width) as u64);
        }
        history.push((fact.time_ns, live, by_slot.len() as u64, rounded));
    })
    .unwrap();
    assert_eq!(next, ops.len());
    assert_eq!(left_out, (told.failed, told.unknown_frees, told.displaced));
    assert_eq!((told.peak_live_bytes, told.peak_word), peak);
    assert_eq!(
        (told.end_live_bytes, told.end_live_rounded_bytes),
        (live, rounded)
    );
    assert_eq!(told.end_live_blocks, by_slot.len() as u64);
    let most = history
        .iter()
        .map(|(_, _, blocks, _)| *blocks)
        .max()
        .unwrap();
    assert!(
        told.slots >= most && told.slots <= most + told.displaced + 1,
        "{} {most}",
        told.slots
    );
    assert_eq!(program.points().len() as u64, POINTS);
    for point in program.points() {
        let past = history
            .partition_point(|(time_ns, ..)| *time_ns <= point.time_ns)
            .max(1);
        let (_, live, blocks, rounded) = history[past - 1];
        assert_eq!(
            (
                point.live_bytes,
                point.live_blocks,
                point.live_rounded_bytes
            ),
            (live, blocks, rounded)
        );
    }
}

#[test]
fn it_agrees_with_the_ledger_on_python() {
    compare("python.rmt");
}

#[test]
fn it_agrees_with_the_ledger_on_sqlite() {
    compare("sqlite.rmt");
}

#[test]
fn it_agrees_with_the_ledger_on_gcc() {
    compare("gcc.rmt");
}

#[test]
fn it_agrees_with_the_ledger_on_firefox() {
    compare("firefox-content.rmt");
}

#[test]
fn what_a_fork_leaves_is_there_from_the_start() {
    let reader = sample("firefox-content.rmt");
    let process = busiest(&reader).unwrap();
    let (report, _) = rmtrace_analyzer::analyze(&reader, "x", rmtrace_analyzer::Options::default());
    let figures = &report
        .processes
        .iter()
        .find(|of| of.number == process)
        .unwrap()
        .figures;
    let (told, _) = program(
        &reader,
        Wanted {
            process,
            lock_ns: None,
            rule: None,
        },
    );
    assert!(told.inherited_blocks > 1_000);
    assert_eq!(told.inherited_blocks, figures.blocks.inherited);
    assert_eq!(told.inherited_bytes, figures.bytes.inherited);
    assert!(told.cross_thread_frees > 0);
    assert_eq!(told.cross_thread_frees, figures.frees.cross_thread);
    assert_eq!(
        told.end_live_bytes,
        figures.bytes.live_at_end + figures.bytes.released
    );
}

#[test]
fn locks_end_after_their_time_and_before_their_block() {
    let reader = sample("gcc.rmt");
    let process = busiest(&reader).unwrap();
    let (plain, _) = program(
        &reader,
        Wanted {
            process,
            lock_ns: None,
            rule: None,
        },
    );
    let mut earlier = u64::MAX;
    for lock_ns in [0, 1_000, 1_000_000, 1_000_000_000] {
        let (told, locked) = program(
            &reader,
            Wanted {
                process,
                lock_ns: Some(lock_ns),
                rule: None,
            },
        );
        assert_eq!(
            (told.operations, told.peak_live_bytes),
            (plain.operations, plain.peak_live_bytes)
        );
        assert!(told.unlocks < earlier, "{lock_ns}: {}", told.unlocks);
        earlier = told.unlocks;
        // One at most for each block.
        let mut locked_now = HashMap::new();
        for (_, op) in decoded(locked.ops(), told.op_words as usize) {
            match op.kind {
                word::ALLOC | word::ZEROED => drop(locked_now.insert(op.slot, ())),
                word::UNLOCK => assert!(locked_now.remove(&op.slot).is_some()),
                _ => {}
            }
        }
    }
    // None lives for a second and was born one before the end.
    assert_eq!(earlier, 0);
}
