//! Streams of random traces, run by schedulers that choose who goes next by chance, or against what helps: whatever they
//! choose, they come to the end, with the recorded live bytes at each meeting and each block's operations in order.

use super::streams::Streams as Parted;
use super::*;
use crate::streams::{Segment, Streams, seats};
use crate::subject::mix;
use proptest::prelude::*;
use rmtrace_format::Entry;
use std::collections::HashMap;

/// A call of a thread: 0-3 an allocation, 4-6 a free, 7 a realloc, 8 an allocation where another block is known.
type Call = (u32, u8, u16, u16);

fn event(time_ns: u64, thread: u32, step: Step, address: u64, bytes: u64) -> Event {
    Event {
        time_ns,
        address,
        old_address: 0,
        requested_bytes: bytes,
        usable_bytes: 0,
        caller: 0,
        process: 0,
        thread,
        entry: Entry::Malloc,
        step,
        align_log2: 0,
        flags: 0,
    }
}

/// Events of calls, over a few hundred addresses of which any thread may free any.
fn events(calls: &[Call]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut live: Vec<u64> = Vec::new();
    let mut next = 1;
    for (at, &(thread, call, which, bytes)) in calls.iter().enumerate() {
        let (time_ns, bytes) = (at as u64 * 10, u64::from(bytes));
        let chosen = (!live.is_empty()).then(|| usize::from(which) % live.len());
        match (call, chosen) {
            (4..=6, Some(chosen)) => {
                let address = live.swap_remove(chosen);
                events.push(event(time_ns, thread, Step::Free, address, 0));
            }
            (7, Some(chosen)) => {
                let old = live[chosen];
                live[chosen] = next * 16;
                next += 1;
                for (step, address) in [(Step::ReallocBegin, 0), (Step::ReallocEnd, live[chosen])] {
                    events.push(Event {
                        old_address: old,
                        ..event(time_ns, thread, step, address, bytes)
                    });
                }
            }
            (8, Some(chosen)) => {
                events.push(event(time_ns, thread, Step::Alloc, live[chosen], bytes));
            }
            _ => {
                live.push(next * 16);
                events.push(event(time_ns, thread, Step::Alloc, next * 16, bytes));
                next += 1;
            }
        }
    }
    events
}

/// The output of these events, with a block there from the start on.
fn write<O: Output>(events: &[Event], lock_ns: Option<u64>, output: O) -> Facts {
    let facts = Facts {
        end_ns: events.last().map_or(0, |event| event.time_ns + 1),
        lock_ns_plus_one: lock_ns.map_or(0, |ns| ns + 1),
        ..Facts::default()
    };
    let locks = lock_ns.map(|ns| Locks {
        ns,
        ends: VecDeque::new(),
        blocks: Vec::new(),
        calls: HashMap::new(),
    });
    let mut script = Script::new(facts, locks, output);
    let mut heap = Heap::default();
    for event in [(1 << 40, 100), (1 << 41, 200)]
        .map(|(address, bytes)| event(0, 0, Step::Alloc, address, bytes))
    {
        heap.inherit(&event, |correction| script.correct(correction));
    }
    let inherited_freed = event(0, 0, Step::Free, 1 << 41, 0);
    heap.events(&[inherited_freed], |event, change| {
        script.change(event, change)
    });
    heap.events(events, |event, change| script.change(event, change));
    script.finish(heap.slots()).unwrap()
}

/// What an operation does to a block, told apart by slots only while they hold it: kind, bytes.
type Done = (u64, u64);

/// Each block's operations in the merged order, by the number of its birth.
fn merged(program: &crate::program::Program) -> Vec<Vec<Done>> {
    let mut blocks: Vec<Vec<Done>> = Vec::new();
    let mut by_slot: HashMap<u32, usize> = HashMap::new();
    let facts = program.facts();
    let parts = [
        &program.setup()[..facts.setup_words as usize],
        &program.ops()[..facts.op_words as usize],
    ];
    for word in parts.into_iter().flatten() {
        let op = Op::decode(*word);
        if matches!(op.kind, word::ALLOC | word::ZEROED) {
            by_slot.insert(op.slot, blocks.len());
            blocks.push(Vec::new());
        }
        blocks[by_slot[&op.slot]].push((op.kind, op.bytes));
    }
    blocks
}

/// Runs streams: `choose` picks one of so many threads that can go on, given the number of the choice. What was done to
/// each block.
fn run(
    streams: &Streams,
    pauses: bool,
    mut choose: impl FnMut(&[usize], u64) -> usize,
) -> Vec<Vec<Done>> {
    let words = streams.ops();
    let (seat_of, _) = seats(streams.spans());
    let mut done = vec![0u64; streams.spans().len()];
    let mut held: HashMap<u32, (usize, u64)> = HashMap::new();
    let mut blocks: Vec<Vec<Done>> = Vec::new();
    let mut live = 0u64;
    let mut perform = |word: u64| {
        let op = Op::decode(word);
        match op.kind {
            word::ALLOC | word::ZEROED => {
                assert_eq!(held.insert(op.slot, (blocks.len(), op.bytes)), None);
                blocks.push(Vec::new());
                live += op.bytes;
            }
            word::FREE => live -= held[&op.slot].1,
            word::RESIZE => {
                live = live - held[&op.slot].1 + op.bytes;
                held.get_mut(&op.slot).unwrap().1 = op.bytes;
            }
            _ => assert_eq!(op.kind, word::UNLOCK),
        }
        blocks[held[&op.slot].0].push((op.kind, op.bytes));
        if op.kind == word::FREE {
            held.remove(&op.slot);
        }
        live
    };
    for word in &streams.setup()[..streams.facts().setup_words as usize] {
        perform(*word);
    }
    let (mut piece, mut choices) = (0, 0);
    let mut turns: Vec<(usize, usize, usize)> = Vec::new();
    for segment in streams.segments() {
        let Segment {
            pieces,
            live_bytes,
            is_cut,
            ..
        } = *segment;
        for one in &streams.pieces()[piece..][..pieces as usize] {
            let (thread, at) = (one.thread as usize, one.word as usize);
            let end = at + one.words as usize;
            match turns.iter_mut().find(|turn| turn.0 == thread) {
                Some(turn) => turn.2 = end,
                None => turns.push((thread, at, end)),
            }
        }
        piece += pieces as usize;
        if !pauses && is_cut == 0 {
            continue;
        }
        let mut now = None;
        loop {
            turns.retain(|turn| turn.1 < turn.2);
            if turns.is_empty() {
                break;
            }
            let can_go: Vec<usize> = (0..turns.len())
                .filter(|at| {
                    let (thread, word, _) = turns[*at];
                    let before = seat_of[thread].before;
                    let has_seat =
                        before.is_none_or(|other| done[other] == streams.spans()[other].words);
                    let (other, count) = word::waited(words[word]);
                    has_seat
                        && (word::kind(words[word]) != word::WAIT || done[other as usize] >= count)
                })
                .collect();
            assert!(!can_go.is_empty(), "no thread can go on");
            let turn = &mut turns[choose(&can_go, choices)];
            choices += 1;
            if word::kind(words[turn.1]) != word::WAIT {
                now = Some(perform(words[turn.1]));
            }
            done[turn.0] += 1;
            turn.1 += 1;
        }
        assert_eq!(now, Some(live_bytes));
    }
    blocks
}

fn both(calls: &[Call], lock_ns: Option<u64>, between: u64) -> (crate::program::Program, Streams) {
    let events = events(calls);
    let (file, path) = tempfile::NamedTempFile::new().unwrap().into_parts();
    let writer = Writer::new(file, &path).unwrap();
    let one = write(&events, lock_ns, Merged { writer, words: 0 });
    let program = crate::program::Program::open(&path).unwrap();
    let (file, path) = tempfile::NamedTempFile::new().unwrap().into_parts();
    let writer = Writer::new(file, &path).unwrap();
    let real = write(&events, lock_ns, Parted::new(writer, between));
    let streams = Streams::open(&path).unwrap();
    let same = |facts: Facts| Facts {
        slots: 0,
        op_words: 0,
        peak_word: 0,
        ..facts
    };
    assert_eq!(same(one), same(real));
    // No operation has two words here, so a place is a number of operations in both.
    assert_eq!(
        (one.op_words, one.peak_word),
        (real.operations + real.unlocks, real.peak_word)
    );
    assert_eq!(program.points(), streams.points());
    (program, streams)
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let threads = prop_oneof![Just(1u32), Just(2), Just(5), Just(70)];
    threads.prop_flat_map(|threads| {
        proptest::collection::vec((0..threads, 0u8..9, any::<u16>(), 0u16..500), 1..250)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever goes next, nobody is stuck, and every block sees what it saw.
    #[test]
    fn every_schedule_comes_to_the_recorded_end(
        calls in calls(),
        between in prop_oneof![Just(1u64), 2u64..20, 100u64..1_000],
        lock_ns in prop_oneof![Just(None), (0u64..500).prop_map(Some)],
        pauses in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (program, streams) = both(&calls, lock_ns, between);
        let mut expected = merged(&program);
        expected.sort_unstable();
        let choosers: [fn(&[usize], u64) -> usize; 3] = [
            |can_go, random| can_go[(mix(random) % can_go.len() as u64) as usize],
            |can_go, _| can_go[can_go.len() - 1],
            |can_go, _| can_go[0],
        ];
        for choose in choosers {
            let mut found = run(&streams, pauses, |can_go, choice| choose(can_go, choice ^ seed));
            found.sort_unstable();
            prop_assert_eq!(&found, &expected);
        }
    }

    /// Without its waits a program is refused: each of them is needed.
    #[test]
    fn a_stream_without_one_of_its_waits_is_refused(calls in calls(), which in any::<usize>()) {
        let events = events(&calls);
        let (file, path) = tempfile::NamedTempFile::new().unwrap().into_parts();
        write(&events, None, Parted::new(Writer::new(file, &path).unwrap(), 1_000));
        let streams = Streams::open(&path).unwrap();
        let ops = &streams.ops()[..streams.facts().op_words as usize];
        let waits: Vec<usize> = (0..ops.len()).filter(|at| word::kind(ops[*at]) == word::WAIT).collect();
        prop_assume!(!waits.is_empty());
        let at = waits[which % waits.len()];
        let (thread, _) = word::waited(ops[at]);
        // Another thread's first word in its place, or a wait for more than there is.
        for word in [word::wait(thread, 0), word::wait(thread, word::DONE_MAX), word::wait(word::THREADS_MAX - 1, 1)] {
            prop_assert!(changed(&path, at, word).is_some(), "{word:#x}");
        }
    }
}

/// Why streams are refused in which a word was changed and the checksum made right.
fn changed(path: &Path, at: usize, word: u64) -> Option<String> {
    let mut bytes = std::fs::read(path).unwrap();
    let place = (crate::program::HEADER_WORDS + at) * 8;
    bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
    let summed = (Facts::WORDS + crate::streams::Shape::WORDS + 2) * 8;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[crate::program::HEADER_WORDS * 8..]);
    hasher.update(&bytes[..summed]);
    let sum = u64::from(hasher.finalize());
    bytes[summed..summed + 8].copy_from_slice(&sum.to_le_bytes());
    let (mut file, path) = tempfile::NamedTempFile::new().unwrap().into_parts();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    Streams::open(&path).err().map(|error| error.to_string())
}

#[test]
fn streams_that_a_worker_must_not_trust_are_refused() {
    // Two threads; each block of the first one is freed by the second.
    let calls: Vec<Call> = (0..40)
        .map(|at| (at % 2, if at % 2 == 0 { 0 } else { 4 }, 0, 100))
        .collect();
    let events = events(&calls);
    let (file, path) = tempfile::NamedTempFile::new().unwrap().into_parts();
    write(
        &events,
        None,
        Parted::new(Writer::new(file, &path).unwrap(), 10),
    );
    let streams = Streams::open(&path).unwrap();
    assert!(streams.shape().waits > 10 && streams.shape().together == 2);
    let first = Op::decode(streams.ops()[0]);
    let (wide, alone) = Op {
        bytes: 1 << 40,
        ..first
    }
    .encode();
    let cases = [
        (
            Op {
                slot: 1 << 20,
                ..first
            }
            .encode()
            .1,
            "outside of the table",
        ),
        (wide.unwrap(), "a wide word without"),
        (alone | 7, "not there"),
    ];
    for (word, why) in cases {
        let told = changed(&path, 1, word).unwrap_or_default();
        assert!(told.contains(why), "{why}: {told}");
    }
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        assert!(Streams::open(&path).is_err(), "byte {at}");
    }
    for length in (0..whole.len()).step_by(8 * 5) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(Streams::open(&path).is_err(), "length {length}");
    }
}
