//! The slow twin: pages and bytes of live blocks, counted anew after every fact.

use super::*;
use crate::fact::sample::{Stream, streams};
use crate::histogram::{class_row, row_bounds, size_class};
use crate::series::SHIFT_MIN;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The same facts with addresses as an allocator gives them out: no two live blocks overlap.
pub(crate) fn tidy(mut stream: Stream) -> Stream {
    // Place in the stream -> where it is now and its end.
    let mut placed: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (fact, _) in &mut stream.told {
        let before = match fact.what {
            What::Nothing | What::Born => None,
            What::Resized => placed.remove(&fact.old_address),
            What::Kept => placed.get(&fact.address).copied(),
            What::Freed | What::Displaced => placed.remove(&fact.address),
        };
        match fact.what {
            What::Nothing => {}
            What::Kept | What::Freed | What::Displaced => fact.address = before.unwrap().0,
            What::Born | What::Resized => {
                let bytes = fact.bytes.max(1);
                let free = |at: u64| {
                    (placed.values()).all(|(low, high)| at + bytes <= *low || *high <= at)
                };
                // Some blocks lie close together, some far apart.
                let from = fact.address % 7 * 40_000;
                let ends = placed.values().map(|(_, high)| high.next_multiple_of(16));
                let mut fits: Vec<u64> = (ends.chain([from]))
                    .filter(|at| *at >= from && free(*at))
                    .collect();
                fits.sort_unstable();
                let same = before.map(|(at, _)| at).filter(|at| free(*at));
                let at = same.unwrap_or_else(|| fits[0]);
                placed.insert(fact.address, (at, at + bytes));
                fact.address = at;
                fact.old_address = before.map_or(0, |(at, _)| at);
            }
        }
    }
    stream
}

/// Live bytes and number of blocks of each page.
fn pages_of(live: &[Fact]) -> BTreeMap<u64, (u64, u64)> {
    let mut pages: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for block in live {
        if block.bytes == 0 {
            pages.entry(block.address / 4096).or_default().1 += 1;
        }
        let end = block.address + block.bytes;
        let mut at = block.address;
        while at < end {
            let next = end.min((at / 4096 + 1) * 4096);
            let page = pages.entry(at / 4096).or_default();
            page.0 += next - at;
            page.1 += 1;
            at = next;
        }
    }
    pages
}

fn eighths(pages: &BTreeMap<u64, (u64, u64)>) -> Vec<u64> {
    let mut all = vec![0; 8];
    for (bytes, _) in pages.values() {
        let eighth = (0..8).find(|eighth| *bytes <= (eighth + 1) * 512);
        all[eighth.unwrap() as usize] += 1;
    }
    all
}

type Rows = BTreeMap<u64, (u64, u64, u64)>;

/// Blocks in pages of 512 bytes and fewer, by size and by age: blocks, bytes, millionths of a page.
fn sparse(live: &[Fact], now_ns: u64) -> (Rows, Rows) {
    let pages = pages_of(live);
    let (mut by_size, mut by_age) = (Rows::new(), Rows::new());
    let low = |value: u64| row_bounds(class_row(size_class(value))).0;
    for block in live {
        let last = block.address + block.bytes.max(1) - 1;
        let of_block = pages.range(block.address / 4096..=last / 4096);
        let shares: Vec<u64> = of_block
            .filter(|(_, (bytes, _))| *bytes <= 512)
            .map(|(_, (_, blocks))| 1_000_000 / blocks)
            .collect();
        if shares.is_empty() {
            continue;
        }
        let age_ns = now_ns - block.born_ns();
        for (rows, low) in [(&mut by_size, low(block.bytes)), (&mut by_age, low(age_ns))] {
            let row = rows.entry(low).or_default();
            row.0 += 1;
            row.1 += block.bytes;
            row.2 += shares.iter().sum::<u64>();
        }
    }
    (by_size, by_age)
}

fn rows(rows: &[SparseRow]) -> Vec<(u64, (u64, u64, u64))> {
    let row = |row: &SparseRow| (row.low, (row.blocks, row.bytes, row.pages_milli));
    rows.iter().map(row).collect()
}

fn milli(rows: Rows) -> Vec<(u64, (u64, u64, u64))> {
    let row = |(low, (blocks, bytes, share))| (low, (blocks, bytes, (share + 500) / 1_000));
    rows.into_iter().map(row).collect()
}

fn holding(live: &[Fact]) -> Holding {
    let pages = pages_of(live).len() as u64;
    let bytes = live.iter().map(|block| block.bytes).sum::<u64>();
    let lost = (pages * 4096 - bytes) * 1_000_000;
    Holding {
        pages,
        held_bytes: pages * 4096,
        live_bytes: bytes,
        external_fragmentation_ppm: lost.checked_div(pages * 4096).unwrap_or(0),
    }
}

/// Tells the stream, walking after the facts whose place is a multiple of `every`.
fn told(stream: &Stream, every: usize) -> Pages {
    let mut pages = Pages::new(0, 8);
    for (at, (fact, peaks)) in stream.told.iter().enumerate() {
        pages.fact(fact, *peaks);
        if at % every == every - 1 && fact.what != What::Kept {
            let live = stream.live_after(at);
            let blocks = live.iter().map(|block| LiveBlock {
                address: block.address,
                bytes: block.bytes,
                born_ns: block.born_ns(),
            });
            pages.walk(fact.time_ns, &mut blocks.collect::<Vec<_>>().into_iter());
        }
    }
    pages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_tells_what_counting_tells(stream in streams(70).prop_map(tidy), every in 1usize..40) {
        let report = told(&stream, every).report(stream.peaks, stream.end_ns);
        let end_ns = stream.end_ns;

        // After each fact that changes what lives.
        let changes: Vec<usize> = (0..stream.told.len())
            .filter(|at| stream.told[*at].0.changes_live())
            .collect();
        let after: Vec<(u64, Vec<Fact>, Holding)> = changes
            .iter()
            .map(|at| {
                let live = stream.live_after(*at);
                let holding = holding(&live);
                (stream.told[*at].0.time_ns, live, holding)
            })
            .collect();
        let first_of_most = |key: &dyn Fn(&Holding) -> u64| {
            let mut best = HoldingAt::default();
            for (at_ns, _, holding) in &after {
                if key(holding) > key(&best.holding) {
                    best = HoldingAt { at_ns: *at_ns, holding: *holding };
                }
            }
            best
        };
        prop_assert_eq!(report.peak, first_of_most(&|of| of.pages));
        prop_assert_eq!(report.gap, first_of_most(&|of| of.held_bytes - of.live_bytes));

        let at_peak = stream.bytes_peak_at.map_or(vec![], |at| stream.live_after(at));
        prop_assert_eq!(report.at_live_bytes_peak, holding(&at_peak));
        prop_assert_eq!(report.occupancy_at_live_bytes_peak, eighths(&pages_of(&at_peak)));

        // Over time: what held from one change to the next.
        let mut pages_ns = 0u128;
        let mut live_ns = 0u128;
        let mut eighths_ns = vec![0u128; 8];
        for (at, (from_ns, live, holding)) in after.iter().enumerate() {
            let to_ns = after.get(at + 1).map_or(end_ns, |next| next.0);
            let passed = u128::from(to_ns - from_ns);
            pages_ns += passed * u128::from(holding.pages);
            live_ns += passed * u128::from(holding.live_bytes);
            for (sum, pages) in eighths_ns.iter_mut().zip(eighths(&pages_of(live))) {
                *sum += passed * u128::from(pages);
            }
        }
        let end = after.last().map_or(vec![], |last| last.1.clone());
        let over_time = &report.over_time;
        prop_assert_eq!(over_time.end, holding(&end));
        let ends: Vec<u64> = over_time.occupancy.iter().map(|of| of.pages_end).collect();
        prop_assert_eq!(ends, eighths(&pages_of(&end)));
        if end_ns != 0 {
            let mean = |sum: u128| (sum / u128::from(end_ns)) as u64;
            prop_assert_eq!(over_time.mean.pages, mean(pages_ns));
            prop_assert_eq!(over_time.mean.live_bytes, mean(live_ns));
            let means: Vec<u64> = over_time.occupancy.iter().map(|of| of.pages_mean).collect();
            prop_assert_eq!(means, eighths_ns.into_iter().map(mean).collect::<Vec<_>>());
            let lost = (pages_ns * 4096 - live_ns) * 1_000_000;
            let lost_ppm = lost.checked_div(pages_ns * 4096).unwrap_or(0);
            prop_assert_eq!(u128::from(over_time.mean.external_fragmentation_ppm), lost_ppm);
        }

        // Who held nearly empty pages.
        let (by_size, by_age) = sparse(&aged(&end, end_ns), end_ns);
        prop_assert_eq!(rows(&over_time.sparse_end.by_size), milli(by_size));
        prop_assert_eq!(rows(&over_time.sparse_end.by_age), milli(by_age));
        let walked = (0..stream.told.len())
            .rfind(|at| at % every == every - 1 && stream.told[*at].0.what != What::Kept);
        prop_assert_eq!(report.sparse_at_gap.is_some(), walked.is_some());
        if let (Some(told), Some(at)) = (report.sparse_at_gap, walked) {
            let now_ns = stream.told[at].0.time_ns;
            let live = stream.live_after(at);
            let (by_size, by_age) = sparse(&aged(&live, now_ns), now_ns);
            prop_assert_eq!(told.holding, holding(&live));
            prop_assert_eq!(told.sparse.all.blocks, by_size.values().map(|row| row.0).sum::<u64>());
            prop_assert_eq!(rows(&told.sparse.by_size), milli(by_size));
            prop_assert_eq!(rows(&told.sparse.by_age), milli(by_age));
        }

        // The curve.
        let curve = &report.curve;
        let shift = (SHIFT_MIN..).find(|shift| end_ns >> shift < 8).unwrap();
        prop_assert_eq!(curve.step_ns, 1 << shift);
        for (bin, (pages, live)) in curve.pages.iter().zip(&curve.live_bytes).enumerate() {
            let (from, to) = ((bin as u64) << shift, (bin as u64 + 1) << shift);
            let mut best = (after.iter().rfind(|of| of.0 < from)).map_or(Holding::default(), |of| of.2);
            for (_, _, holding) in after.iter().filter(|of| (from..to).contains(&of.0)) {
                if holding.pages > best.pages {
                    best = *holding;
                }
            }
            prop_assert_eq!((*pages, *live), (best.pages, best.live_bytes));
        }
    }

    /// Blocks that overlap, wherever they are, make no panic; and what ends leaves nothing.
    #[test]
    fn blocks_may_overlap(stream in streams(200), far: u64) {
        let mut pages = Pages::new(0, 8);
        for (fact, peaks) in &stream.told {
            let fact = Fact {
                address: fact.address.wrapping_add(far),
                old_address: fact.old_address.wrapping_add(far),
                ..*fact
            };
            pages.fact(&fact, *peaks);
        }
        for (fact, peaks) in stream.told.iter().filter(|(fact, _)| fact.what == What::Kept) {
            let address = fact.address.wrapping_add(far);
            pages.fact(&Fact { address, what: What::Freed, ..*fact }, *peaks);
        }
        let report = pages.report(stream.peaks, stream.end_ns);
        prop_assert_eq!(report.over_time.end, Holding::default());
        prop_assert!(report.over_time.occupancy.iter().all(|of| of.pages_end == 0));
    }

    /// Sums of two processes are those of both.
    #[test]
    fn sums_add_up(a in streams(60).prop_map(tidy), b in streams(60).prop_map(tidy)) {
        let of = |stream: &Stream| told(stream, usize::MAX).sums(stream.end_ns);
        let mut both = of(&a);
        both.merge(&of(&b));
        let (a_end, b_end) = (of(&a).report(0).end, of(&b).report(0).end);
        let sum = both.report(0);
        prop_assert_eq!(sum.end.pages, a_end.pages + b_end.pages);
        prop_assert_eq!(sum.end.live_bytes, a_end.live_bytes + b_end.live_bytes);
        prop_assert_eq!(both.pages_integral, of(&a).pages_integral + of(&b).pages_integral);
        let blocks = |sums: &Sums| sums.report(0).sparse_end.all.blocks;
        prop_assert_eq!(blocks(&both), blocks(&of(&a)) + blocks(&of(&b)));
    }
}

/// The same blocks, seen at another time: `born_ns` stays.
fn aged(live: &[Fact], now_ns: u64) -> Vec<Fact> {
    let aged = |block: &Fact| Fact {
        time_ns: now_ns,
        life_ns: now_ns - block.born_ns(),
        ..*block
    };
    live.iter().map(aged).collect()
}

#[test]
fn a_walk_is_wanted_when_the_gap_has_grown() {
    let mut pages = Pages::new(0, 8);
    let block = |number: u64| Fact {
        address: number * 4096,
        bytes: 16,
        clock_events: number + 1,
        what: What::Born,
        ..Fact::default()
    };
    let mut walks = Vec::new();
    for number in 0..2_000 {
        pages.fact(&block(number), Peaks::default());
        if pages.wants_walk() {
            let live = (0..=number).map(|number| LiveBlock {
                address: number * 4096,
                bytes: 16,
                born_ns: 0,
            });
            let mut live = live.collect::<Vec<_>>().into_iter();
            pages.walk(0, &mut live);
            walks.push(number + 1);
        }
    }
    // 4,080 bytes of each page are not live: 1 MiB at 257.01 pages; then half as many calls as blocks.
    assert_eq!(walks, [258, 387, 580, 870, 1305, 1957]);
    let report = pages.report(Peaks::default(), 0);
    let sparse = report.sparse_at_gap.unwrap();
    assert_eq!(sparse.sparse.by_size[0].blocks, 1957);
    assert_eq!(sparse.sparse.by_size[0].pages_milli, 1_957_000);
}
