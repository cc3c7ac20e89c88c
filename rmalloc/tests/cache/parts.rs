//! Parts of the example against twins.

use crate::example::cache::{Cache, Refused};
use crate::example::histogram::Histogram;
use crate::example::index::Index;
use crate::example::options::{Allocator, Command, Sizes};
use crate::example::resp::{self, Malformed, Parsed};
use crate::example::store::handles::Handles;
use crate::example::store::malloc::Malloc;
use crate::example::store::{Figures, Step, Store};
use crate::harness::request;
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};

/// What is done to an index.
#[derive(Debug, Clone)]
enum Act {
    Insert(u32),
    Touch(usize),
    Replace(usize),
    Remove(usize),
    RemoveOldest,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        // Few hashes, so that some are equal.
        6 => (0u32..400).prop_map(|n| Act::Insert(n.wrapping_mul(0x9e37_79b9))),
        2 => any::<usize>().prop_map(Act::Touch),
        1 => any::<usize>().prop_map(Act::Replace),
        2 => any::<usize>().prop_map(Act::Remove),
        1 => Just(Act::RemoveOldest),
    ]
}

/// Position of the entry that holds this block.
fn position(index: &Index, hash: u32, block: u64) -> u32 {
    let mut found = index
        .with_hash(hash)
        .filter(|&at| index.entry(at).block == block);
    let at = found.next().expect("it is there");
    assert_eq!(found.next(), None);
    at
}

proptest! {
    /// The index knows the same entries in the same order of use as a list, and its invariants hold after every step.
    #[test]
    fn the_index_is_a_list_with_hashes(acts in proptest::collection::vec(act(), 0..600)) {
        let mut index = Index::new(1000).expect("address space");
        // Oldest first: hash and block.
        let mut twin: VecDeque<(u32, u64)> = VecDeque::new();
        for (n, act) in acts.into_iter().enumerate() {
            let block = n as u64;
            match act {
                Act::Insert(hash) => {
                    index.insert(hash, block, 1, 2);
                    twin.push_back((hash, block));
                }
                Act::Touch(which) if !twin.is_empty() => {
                    let (hash, block) = twin.remove(which % twin.len()).expect("in range");
                    index.touch(position(&index, hash, block));
                    twin.push_back((hash, block));
                }
                Act::Replace(which) if !twin.is_empty() => {
                    let place = which % twin.len();
                    let (hash, before) = twin[place];
                    let old = index.replace(position(&index, hash, before), block, 7);
                    prop_assert_eq!(old.block, before);
                    twin[place].1 = block;
                }
                Act::Remove(which) if !twin.is_empty() => {
                    let (hash, block) = twin.remove(which % twin.len()).expect("in range");
                    prop_assert_eq!(index.remove(position(&index, hash, block)).block, block);
                }
                Act::RemoveOldest => {
                    let oldest = index.oldest().map(|at| index.remove(at).block);
                    prop_assert_eq!(oldest, twin.pop_front().map(|(_, block)| block));
                }
                _ => {}
            }
            index.check();
            prop_assert_eq!(index.entries(), twin.len());
        }
        while let Some(at) = index.oldest() {
            prop_assert_eq!(Some(index.remove(at).block), twin.pop_front().map(|(_, block)| block));
            index.check();
        }
    }

    /// Whatever byte requests are cut at: those before it come out whole, what is left is incomplete, and the length that is asked
    /// for is never more than what makes it whole.
    #[test]
    fn a_cut_request_is_incomplete(
        requests in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5), 1..5),
        cut in 0.0..=1.0f64,
    ) {
        let encoded: Vec<Vec<u8>> = requests.iter().map(|words| {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            request(&words)
        }).collect();
        let all = encoded.concat();
        let kept = &all[..(all.len() as f64 * cut) as usize];
        let mut words = Vec::new();
        let mut at = 0;
        for (wanted, bytes) in requests.iter().zip(&encoded) {
            match resp::parse(&kept[at..], 64, &mut words).expect("well formed") {
                Parsed::Request(used) => {
                    prop_assert_eq!(used, bytes.len());
                    let found: Vec<&[u8]> = words.iter().map(|word| &kept[at..][word.clone()]).collect();
                    prop_assert_eq!(&found, wanted);
                    at += used;
                }
                Parsed::Incomplete(needed) => {
                    prop_assert!(kept.len() - at < bytes.len());
                    prop_assert!(needed > kept.len() - at);
                    prop_assert!(needed <= bytes.len());
                    return Ok(());
                }
            }
        }
        prop_assert_eq!(at, all.len());
    }

    /// No input makes the parser panic, and a request never uses more than there is.
    #[test]
    fn any_bytes_are_parsed(input in proptest::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), b'0'..=b'9', any::<u8>()], 0..200)) {
        let mut words = Vec::new();
        if let Ok(Parsed::Request(used)) = resp::parse(&input, 64, &mut words) {
            prop_assert!(0 < used && used <= input.len());
            prop_assert!(words.iter().all(|word| word.end <= used));
        }
    }

    /// Percentiles are those of the sorted durations, at most 1/16 above them, and never above the longest.
    #[test]
    fn a_histogram_is_nearly_a_sorted_list(mut durations in proptest::collection::vec(prop_oneof![0..40u64, 0..100_000_000u64, any::<u64>()], 1..200), share in 0.0..=1.0f64) {
        let mut histogram = Histogram::default();
        durations.iter().for_each(|&ns| histogram.add(ns));
        durations.sort_unstable();
        let place = ((durations.len() as f64 * share).ceil() as usize).max(1);
        let (exact, found) = (durations[place - 1], histogram.percentile_ns(share));
        prop_assert!(exact <= found && found - exact <= exact / 16, "{exact} {found}");
        prop_assert_eq!(histogram.max_ns(), durations[durations.len() - 1]);
        prop_assert_eq!(histogram.percentile_ns(1.0), histogram.max_ns());
    }
}

#[test]
fn inline_requests_are_words() {
    let mut words = Vec::new();
    assert_eq!(
        resp::parse(b"  get\t a  \r\nrest", 64, &mut words),
        Ok(Parsed::Request(12))
    );
    assert_eq!(words, [2..5, 7..8]);
    for nothing in [&b"\r\n"[..], b"\n", b"  \r\n", b"*0\r\n", b"*-1\r\n"] {
        assert_eq!(
            resp::parse(nothing, 64, &mut words),
            Ok(Parsed::Request(nothing.len()))
        );
        assert!(words.is_empty());
    }
}

#[test]
fn malformed_input_is_named() {
    let long = vec![b'x'; resp::LINE_BYTES_MAX];
    let many = format!("*{}\r\n", resp::WORDS_MAX + 1);
    for (input, wanted) in [
        (&b"*x\r\n"[..], Malformed::Count),
        (b"*99999999999999999999\r\n", Malformed::Count),
        (many.as_bytes(), Malformed::TooManyWords),
        (b"*1\r\n:3\r\n", Malformed::NoBulk(b':')),
        (b"*1\r\n$-1\r\n", Malformed::Length),
        (b"*1\r\n$\r\n", Malformed::Length),
        (b"*1\r\n$65\r\n", Malformed::TooLong(64)),
        (b"*1\r\n$3\r\nabcd\r\n", Malformed::NoLineEnd),
        (&long, Malformed::LineTooLong),
    ] {
        assert_eq!(
            resp::parse(input, 64, &mut Vec::new()),
            Err(wanted),
            "{}",
            input.escape_ascii()
        );
    }
    // Each word may be as long as that, but not all of them together.
    let word = vec![b'x'; 20_000];
    let words = vec![word.as_slice(); 100];
    let most = resp::request_bytes_max(20_000);
    assert_eq!(
        resp::parse(&request(&words), 20_000, &mut Vec::new()),
        Err(Malformed::RequestTooLong(most))
    );
}

#[test]
fn the_command_line_is_checked() {
    let parse = |line: &str| Command::parse(line.split_whitespace().map(String::from));
    let Ok(Command::Serve(serve)) = parse("--allocator malloc --limit 3M --step-us 100") else {
        panic!("a server");
    };
    assert_eq!(
        (serve.allocator, serve.limit_bytes, serve.step_ns),
        (Allocator::Malloc, 3 << 20, 100_000)
    );
    let Ok(Command::Drive(drive)) = parse("--drive --port 1 --phases 1-2,3-4+5-6/7") else {
        panic!("a load");
    };
    let second = Sizes {
        range: (3, 4),
        second: Some((5, 6, 7)),
    };
    assert_eq!(
        drive.phases,
        [
            Sizes {
                range: (1, 2),
                second: None
            },
            second
        ]
    );
    for (line, wrong) in [
        ("--limit", "--limit needs a value"),
        ("--limit many", "--limit many"),
        ("--limit 99999999999999G", "--limit 999"),
        ("--port 65536", "--port 65536"),
        ("--allocator best", "--allocator best"),
        ("--colour red", "--colour is unknown"),
        ("--seed 3", "--seed goes with --drive only"),
        ("--drive --clients 3", "--clients goes without --drive only"),
        ("--drive --phases 5-2", "\"5-2\" is no range"),
        ("--drive --turnover x", "--turnover x"),
    ] {
        let message = parse(line).expect_err(line);
        assert!(message.starts_with(wrong), "{line}: {message}");
    }
}

/// A malloc that has room for so many blocks only.
struct Narrow {
    malloc: Malloc,
    room: usize,
}

impl Store for Narrow {
    const NAME: &'static str = "narrow";

    fn put(&mut self, key: &[u8], value: &[u8]) -> Option<u64> {
        self.room = self.room.checked_sub(1)?;
        self.malloc.put(key, value)
    }

    unsafe fn read<R>(&self, block: u64, bytes: usize, look: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: the same contract.
        unsafe { self.malloc.read(block, bytes, look) }
    }

    unsafe fn remove(&mut self, block: u64) {
        self.room += 1;
        // SAFETY: the same contract.
        unsafe { self.malloc.remove(block) };
    }

    fn compact(&mut self, _: u64) -> Option<Step> {
        None
    }

    fn figures(&self) -> Option<Figures> {
        None
    }
}

/// When memory is short, the oldest go; what was flushed goes before them.
#[test]
fn short_memory_evicts() {
    let narrow = |room| Narrow {
        malloc: Malloc,
        room,
    };
    let mut cache = Cache::new(narrow(3), 1 << 20).expect("address space");
    for key in [b"a", b"b", b"c", b"d"] {
        assert_eq!(cache.set(key, key), Ok(()));
        cache.check();
    }
    assert_eq!(cache.get(b"a", |_| ()), None);
    assert_eq!(cache.get(b"b", <[u8]>::to_vec), Some(b"b".to_vec()));
    assert_eq!(cache.counts().evictions, 1);
    // A new value for the only key needs room for both.
    assert_eq!(cache.set(b"c", b"new"), Ok(()));
    assert_eq!(cache.get(b"c", <[u8]>::to_vec), Some(b"new".to_vec()));
    cache.check();
    cache.flush().expect("address space");
    let before = cache.counts().evictions;
    assert_eq!(cache.set(b"e", b"e"), Ok(()));
    assert_eq!(cache.counts().evictions, before);
    while cache.sweep(1) {}
    assert_eq!((cache.entries(), cache.live_bytes()), (1, 2));

    let mut none = Cache::new(narrow(0), 1 << 20).expect("address space");
    assert_eq!(none.set(b"a", b"a"), Err(Refused::OutOfMemory));
    assert_eq!(none.set(b"a", &[0; 1 << 20]), Err(Refused::AboveLimit));
}

/// Both stores hold the same values through sets, removals, steps of compaction, and new blocks for all entries.
#[test]
fn stores_keep_values() {
    fn keeps(store: impl Store) {
        let mut cache = Cache::new(store, 1 << 20).expect("address space");
        let mut twin: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let mut renewing = None;
        for n in 0..20_000usize {
            let key = format!("{}", n * 7919 % 1000).into_bytes();
            if n % 3 == 0 {
                assert_eq!(cache.remove(&key), twin.remove(&key).is_some());
            } else {
                let value = vec![n as u8; n * 31 % 700];
                assert_eq!(cache.set(&key, &value), Ok(()));
                twin.insert(key, value);
            }
            if n % 64 == 0 {
                cache.compact(50_000);
                renewing = cache.renew(renewing.unwrap_or(0));
                cache.check();
            }
        }
        while renewing.is_some() {
            renewing = cache.renew(renewing.unwrap_or(0));
        }
        assert_eq!(cache.counts().evictions, 0);
        assert_eq!(cache.entries(), twin.len());
        for (key, value) in &twin {
            assert_eq!(cache.get(key, <[u8]>::to_vec).as_ref(), Some(value));
        }
    }
    keeps(Malloc);
    keeps(Handles::new().expect("a heap"));
}
