//! The packing is one: no two live blocks overlap, all are aligned, and the pages are those that a
//! count finds.

use super::deaths::NEVER;
use super::*;
use crate::fact::sample::{Stream, streams};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn plan(stream: &Stream, calls: u64) -> Plan {
    let mut deaths = Deaths::new(calls);
    stream.tell(&mut deaths);
    deaths.plan()
}

fn calls(stream: &Stream) -> u64 {
    stream
        .told
        .iter()
        .filter(|(fact, _)| fact.is_call())
        .count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_is_a_packing(stream in streams(80), calls in 0u64..160) {
        let mut packing = Packing::new(plan(&stream, calls));
        let mut most = [0; RULES.len()];
        let mut rounded_most = 0;
        // Where each block was placed last, by rule, and what it took: by birth.
        let histories = stream.histories();
        let mut was: Vec<Option<Placed>> = vec![None; histories.len()];
        for (at, (fact, peaks)) in stream.told.iter().enumerate() {
            packing.fact(fact, *peaks);
            if fact.what == What::Kept {
                continue;
            }
            let live = stream.live_after(at);
            let rounded_live: u64 = live.iter().map(|block| rounded(block.bytes)).sum();
            rounded_most = rounded_most.max(rounded_live);
            for (rule, most) in most.iter_mut().enumerate() {
                let mut places: Vec<(u64, u64)> = Vec::new();
                let mut pages = BTreeSet::new();
                for block in &live {
                    let placed = packing.placed[block.handle as usize];
                    let place = placed.at[rule];
                    prop_assert_eq!(placed.bytes, rounded(block.bytes));
                    prop_assert_eq!(place % 16, 0);
                    if block.what == What::Born {
                        prop_assert_eq!(place % (1 << block.align_log2), 0);
                    }
                    places.push((place, place + placed.bytes));
                    pages.extend(place / 4096..=(place + placed.bytes - 1) / 4096);
                }
                places.sort_unstable();
                prop_assert!(places.windows(2).all(|two| two[0].1 <= two[1].0));
                prop_assert_eq!(packing.packers[rule].held, pages.len() as u64);
                *most = (*most).max(pages.len() as u64);
            }
            // Nothing moves but what grows.
            for (history, was) in histories.iter().zip(&mut was) {
                let Some(last) = history.iter().rfind(|place| **place <= at) else { continue };
                let fact = stream.told[*last].0;
                if !matches!(fact.what, What::Born | What::Resized) {
                    continue;
                }
                let placed = packing.placed[fact.handle as usize];
                if let Some(was) = was {
                    prop_assert!(was.at == placed.at || placed.bytes > was.bytes);
                }
                *was = Some(placed);
            }
        }
        let report = packing.report();
        prop_assert_eq!(report.unplaced, 0);
        for (tried, most) in report.tried.iter().zip(most) {
            prop_assert_eq!(tried.pages_peak, most);
            prop_assert!(tried.bytes_peak >= rounded_most);
            prop_assert!(report.best.pages_peak <= tried.pages_peak);
        }
    }

    /// The first pass knows the blocks that outlive their epoch, when they end, and which live at the
    /// peak.
    #[test]
    fn deaths_are_those_of_the_histories(stream in streams(150)) {
        let plan = plan(&stream, calls(&stream));
        let epoch = |call: u64| (call - 1) / calls(&stream).div_ceil(64).max(1);
        let mut notes = Vec::new();
        for (number, history) in stream.histories().iter().enumerate() {
            let born = stream.told[history[0]].0;
            let last = stream.told[history[history.len() - 1]].0;
            if last.what == What::Kept {
                notes.push((number as u64 + 1, NEVER));
            } else if epoch(born.clock_events) != epoch(last.clock_events) {
                notes.push((number as u64 + 1, last.clock_events));
            }
        }
        let found: Vec<(u64, u64)> = plan.notes.iter().map(|of| (of.number, of.death)).collect();
        prop_assert_eq!(found, notes.clone());

        let mut peak = (0, 0);
        for (at, (fact, _)) in stream.told.iter().enumerate() {
            let live: u64 = stream.live_after(at).iter().map(|block| rounded(block.bytes)).sum();
            if live > peak.0 {
                peak = (live, fact.clock_events);
            }
        }
        prop_assert_eq!(plan.peak_call, peak.1);
        let mut asked = plan.clone();
        for (number, history) in stream.histories().iter().enumerate() {
            let born = stream.told[history[0]].0.clock_events;
            let known = asked.known(number as u64 + 1, born);
            let note = notes.iter().find(|note| note.0 == number as u64 + 1);
            let epoch = |death: u64| if death == NEVER { 64 } else { epoch(death) };
            prop_assert_eq!(known.epoch, note.map(|note| epoch(note.1)));
            let at_peak = note.is_some_and(|note| born <= peak.1 && peak.1 < note.1);
            prop_assert_eq!(known.at_peak, at_peak);
        }
    }

    /// Holes are what is not placed; the best of those with room is taken.
    #[test]
    fn a_heap_takes_the_smallest_hole(steps in vec((any::<bool>(), 1u64..40, 4u32..9, any::<usize>()), 0..200)) {
        let mut heap = Heap::default();
        let mut blocks: Vec<(u64, u64)> = Vec::new();
        for (frees, grains, align_log2, choice) in steps {
            if frees && !blocks.is_empty() {
                let (at, bytes) = blocks.swap_remove(choice % blocks.len());
                heap.free(at, bytes);
                continue;
            }
            let (bytes, align) = (grains * 16, 1u64 << align_log2);
            blocks.sort_unstable();
            let ends = std::iter::once(0).chain(blocks.iter().map(|(at, bytes)| at + bytes));
            let holes = ends.zip(&blocks).map(|(low, (high, _))| (high - low, low));
            let best = holes.filter(|(hole, _)| *hole >= bytes + align - 16).min();
            let top = blocks.last().map_or(0, |(at, bytes)| at + bytes);
            let low = best.map_or(top, |(_, low)| low);
            let at = heap.place(bytes, align).unwrap();
            prop_assert_eq!(at, low.next_multiple_of(align));
            blocks.push((at, bytes));
        }
    }
}

fn number() -> impl Strategy<Value = u64> {
    let near = prop_oneof![Just(u64::MAX), Just(0u64), 0u64..8, 0u64..1 << 20];
    prop_oneof![near, any::<u64>(), (0u32..64).prop_map(|shift| 1 << shift)]
}

fn fact() -> impl Strategy<Value = Fact> {
    let whats = [
        What::Born,
        What::Born,
        What::Freed,
        What::Resized,
        What::Displaced,
        What::Kept,
    ];
    let numbers = (number(), number(), number(), number(), number());
    let more = (number(), number(), number(), number(), 0u32..6, any::<u8>());
    (numbers, more, 0..whats.len()).prop_map(move |(numbers, more, what)| Fact {
        time_ns: numbers.0,
        address: numbers.1,
        old_address: numbers.2,
        bytes: numbers.3,
        old_bytes: numbers.4,
        life_ns: more.0,
        life_events: more.1,
        clock_events: more.2,
        clock_allocations: more.3,
        handle: more.4,
        align_log2: more.5,
        what: whats[what],
        ..Fact::default()
    })
}

proptest! {
    /// Whatever facts say, nothing panics, and a packing is one of what was placed.
    #[test]
    fn any_facts_make_no_panic(facts in vec(fact(), 0..60), calls: u64, end_ns: u64) {
        let mut deaths = Deaths::new(calls);
        let mut pages = crate::pages::Pages::new(0, 8);
        let mut bounds = crate::bounds::Bounds::new(0, Default::default());
        for fact in &facts {
            deaths.fact(fact, Peaks::default());
            pages.fact(fact, Peaks::default());
            bounds.fact(fact, Peaks::default());
        }
        let mut packing = Packing::new(deaths.plan());
        for fact in &facts {
            packing.fact(fact, Peaks::default());
            for rule in 0..RULES.len() {
                let placed = packing.placed.iter().filter(|placed| placed.bytes != 0);
                let mut places: Vec<(u64, u64)> =
                    placed.map(|placed| (placed.at[rule], placed.at[rule] + placed.bytes)).collect();
                places.sort_unstable();
                prop_assert!(places.windows(2).all(|two| two[0].1 <= two[1].0));
            }
        }
        let pages = pages.report(Peaks::default(), end_ns);
        bounds.report(&pages, end_ns).add_packing(packing.report());
    }
}

/// Blocks that live to the end lie together, so pages of the others come free.
#[test]
fn knowledge_saves_pages() {
    let mut facts = Vec::new();
    let block = |number: u64, what: What, call: u64| Fact {
        bytes: 1024,
        what,
        clock_events: call,
        clock_allocations: if what == What::Born {
            number + 1
        } else {
            4_000
        },
        life_events: if what == What::Born {
            0
        } else {
            call - number - 1
        },
        life_allocations: if what == What::Born {
            0
        } else {
            3_999 - number
        },
        handle: number as u32,
        ..Fact::default()
    };
    facts.extend((0..4_000).map(|number| block(number, What::Born, number + 1)));
    let mut call = 4_000;
    // One of four stays.
    for number in (0..4_000).filter(|number| number % 4 != 0) {
        call += 1;
        facts.push(block(number, What::Freed, call));
    }
    // 4,500 blocks that end at once, of a page each: they fit in no hole.
    for number in 4_000..4_500u64 {
        call += 1;
        let page = Fact {
            bytes: 4096,
            clock_allocations: number + 1,
            ..block(number, What::Born, call)
        };
        facts.push(page);
    }
    let mut deaths = Deaths::new(call);
    let kept = (0..4_500).filter(|number| number % 4 == 0 || *number >= 4_000);
    let kept = kept.map(|number| Fact {
        what: What::Kept,
        clock_events: call,
        clock_allocations: 4_500,
        life_allocations: 4_499 - number,
        ..Fact::default()
    });
    for fact in facts.iter().copied().chain(kept) {
        deaths.fact(&fact, Peaks::default());
    }
    let mut packing = Packing::new(deaths.plan());
    for fact in &facts {
        packing.fact(fact, Peaks::default());
    }
    let report = packing.report();
    // 1,000 pages of four blocks, of which one stays, and 500; or 250 of those that stay, 750 before.
    let pages: Vec<u64> = report.tried.iter().map(|tried| tried.pages_peak).collect();
    assert_eq!(pages[0], 1_500);
    // The classes of 64 epochs begin pages of their own.
    assert!(
        (1_000..1_010).contains(&report.best.pages_peak),
        "{report:?}"
    );
}
