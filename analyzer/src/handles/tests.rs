//! The slow twin: every figure by its definition, from the list of facts.

use super::*;
use crate::fact::sample::{Stream, streams};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What was live from `from_ns` on until the next moment.
struct Moment {
    from_ns: u64,
    to_ns: u64,
    live: Vec<Fact>,
}

/// All moments, the first before any fact. Moments may last no time.
fn moments(stream: &Stream) -> Vec<Moment> {
    let facts: Vec<Fact> = stream.told.iter().map(|told| told.0).collect();
    let mut all = vec![(0, Vec::new())];
    for (at, fact) in facts.iter().enumerate() {
        all.push((fact.time_ns, stream.live_after(at)));
    }
    let kept = facts.iter().filter(|fact| fact.what == What::Kept).count();
    // Kept facts change nothing but are told at the end.
    all.truncate(all.len() - kept);
    let ends: Vec<u64> = all.iter().skip(1).map(|one| one.0).collect();
    let ends = ends.into_iter().chain([stream.end_ns]);
    all.into_iter()
        .zip(ends)
        .map(|((from_ns, live), to_ns)| Moment {
            from_ns,
            to_ns,
            live,
        })
        .collect()
}

fn integral(moments: &[Moment], of: impl Fn(&Moment) -> u64) -> u128 {
    let area = |moment: &Moment| u128::from(moment.to_ns - moment.from_ns) * u128::from(of(moment));
    moments.iter().map(area).sum()
}

fn segments(live: &[Fact], entries: u64) -> u64 {
    let held: BTreeSet<u64> = live
        .iter()
        .map(|fact| u64::from(fact.handle) / entries)
        .collect();
    held.len() as u64
}

fn told(stream: &Stream) -> HandlesReport {
    let mut handles = Handles::new(0);
    stream.tell(&mut handles);
    handles.report(stream.end_ns)
}

fn sum(live: &[Fact], of: impl Fn(u64) -> u64) -> u64 {
    live.iter().map(|fact| of(fact.bytes)).sum()
}

fn r16(bytes: u64) -> u64 {
    bytes.div_ceil(16) * 16
}

fn with_handle(bytes: u64) -> u64 {
    r16(bytes + 8) - r16(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn entries_and_bytes(stream in streams(150)) {
        let report = told(&stream);
        let moments = moments(&stream);
        let mean = |of: &dyn Fn(&Moment) -> u64| integral(&moments, of).checked_div(stream.end_ns.into()).unwrap_or(0) as u64;
        let peak = moments.iter().map(|moment| moment.live.len()).max().unwrap();
        let at = moments.iter().find(|moment| moment.live.len() == peak).unwrap();
        prop_assert_eq!(report.duration_ns, stream.end_ns);
        prop_assert_eq!(report.entries_peak, peak as u64);
        prop_assert_eq!(report.entries_peak_at_ns, at.from_ns);
        prop_assert_eq!(report.entries_at_end, moments.last().unwrap().live.len() as u64);
        prop_assert_eq!(report.in_place_bytes_at_end, sum(&moments.last().unwrap().live, with_handle));
        let milli = integral(&moments, |moment| 1000 * moment.live.len() as u64);
        prop_assert_eq!(u128::from(report.entries_mean_milli), milli.checked_div(stream.end_ns.into()).unwrap_or(0));
        prop_assert_eq!(report.live_bytes_at_peak, sum(&at.live, |bytes| bytes));
        prop_assert_eq!(report.live_bytes_rounded_at_peak, sum(&at.live, r16));
        prop_assert_eq!(report.in_place_bytes_at_peak, sum(&at.live, with_handle));
        prop_assert_eq!(report.live_bytes_mean, mean(&|moment| sum(&moment.live, |bytes| bytes)));
        prop_assert_eq!(report.in_place_bytes_mean, mean(&|moment| sum(&moment.live, with_handle)));
    }

    #[test]
    fn reuse_is_how_often_each_handle_was_born_again(stream in streams(300)) {
        let report = told(&stream);
        let mut births: BTreeMap<u32, u64> = BTreeMap::new();
        for (fact, _) in stream.told.iter().filter(|(fact, _)| fact.what == What::Born) {
            *births.entry(fact.handle).or_default() += 1;
        }
        let reuses: Vec<u64> = births.values().map(|births| births - 1).collect();
        prop_assert_eq!(report.births, births.values().sum::<u64>());
        prop_assert_eq!(report.reuse.entries, births.len() as u64);
        prop_assert_eq!(report.reuse.most, reuses.iter().copied().max().unwrap_or(0));
        let all: u64 = reuses.iter().sum();
        prop_assert_eq!(report.reuse.mean_milli, (all * 1000).checked_div(births.len() as u64).unwrap_or(0));
        for bin in &report.reuse.histogram {
            prop_assert_eq!(bin.entries as usize, reuses.iter().filter(|n| (bin.low..bin.high).contains(n)).count());
        }
        prop_assert_eq!(report.reuse.histogram.iter().map(|bin| bin.entries).sum::<u64>(), births.len() as u64);
    }

    #[test]
    fn segments_that_hold_an_entry(stream in crowds()) {
        let report = told(&stream);
        let mut held_now: BTreeSet<u32> = BTreeSet::new();
        // From when on, live entries, and segments held by size.
        let mut moments = vec![(0, 0, [0; 3])];
        for (fact, _) in &stream.told {
            if fact.what == What::Born {
                held_now.insert(fact.handle);
            } else {
                held_now.remove(&fact.handle);
            }
            let of = |entries: u32| held_now.iter().map(|handle| handle / entries).collect::<BTreeSet<_>>().len() as u64;
            let held = [of(64), of(512), of(4096)];
            moments.push((fact.time_ns, held_now.len() as u64, held));
        }
        let ends: Vec<u64> = moments.iter().skip(1).map(|moment| moment.0).chain([stream.end_ns]).collect();
        for (which, entries) in [64, 512, 4096].into_iter().enumerate() {
            let held: Vec<u64> = moments.iter().map(|moment| moment.2[which]).collect();
            let stranded: Vec<u64> = moments.iter().map(|moment| moment.2[which] - moment.1.div_ceil(entries)).collect();
            let milli = |of: &[u64]| {
                let area = |at: usize| (ends[at] - moments[at].0) * 1000 * of[at];
                (0..of.len()).map(area).sum::<u64>() / stream.end_ns
            };
            let most = stranded.iter().copied().max().unwrap();
            let found = report.segments_of(entries).unwrap();
            prop_assert_eq!(found.held_peak, held.iter().copied().max().unwrap());
            prop_assert_eq!(found.held_mean_milli, milli(&held));
            prop_assert_eq!(found.held_at_end, held[held.len() - 1]);
            prop_assert_eq!(found.stranded_most, most);
            if most != 0 {
                let first = stranded.iter().position(|n| *n == most).unwrap();
                prop_assert_eq!(found.stranded_most_at_ns, moments[first].0);
            }
            prop_assert_eq!(found.stranded_mean_milli, milli(&stranded));
            prop_assert_eq!(found.stranded_at_end, stranded[stranded.len() - 1]);
        }
    }

    #[test]
    fn time_and_births_above_a_number(stream in streams(200), asked in 0u64..80) {
        let report = told(&stream);
        let moments = moments(&stream);
        let over = |entries: u64| {
            let above = moments.iter().filter(|moment| moment.live.len() as u64 > entries);
            let time_ns: u64 = above.map(|moment| moment.to_ns - moment.from_ns).sum();
            let births = stream.told.iter().enumerate().filter(|(at, (fact, _))| {
                fact.what == What::Born && stream.live_after(*at).len() as u64 > entries
            });
            (time_ns, births.count() as u64)
        };
        for point in &report.overflow {
            prop_assert_eq!((point.time_ns, point.births), over(point.entries));
        }
        let last = report.overflow.last().map(|point| (point.entries, point.time_ns));
        prop_assert!(report.births == 0 || last == Some((report.entries_peak, 0)));
        let (time_ns, births) = over(asked);
        let found = report.over(asked);
        prop_assert!(found.time_ns >= time_ns && found.births >= births);
        prop_assert_eq!(found.births == 0, asked >= report.entries_peak);
        // Below 32 each number has a bucket of its own.
        let half = (0..).find(|entries| 2 * over(*entries).0 <= stream.end_ns).unwrap();
        let found = report.entries_half_of_time;
        prop_assert!(half <= found && found - half <= half / 16);
    }

    #[test]
    fn curves_hold_the_greatest_of_their_time(stream in streams(120)) {
        let report = told(&stream);
        let moments = moments(&stream);
        let curve = &report.curve;
        let shift = (10..).find(|shift| stream.end_ns >> shift < 128).unwrap();
        prop_assert_eq!(curve.step_ns, 1 << shift);
        prop_assert_eq!(curve.entries.len() as u64, (stream.end_ns >> shift) + 1);
        for (bin, from) in (0..).map(|bin| bin << shift).take(curve.entries.len()).enumerate() {
            let to = from + curve.step_ns;
            // Moments that begin in the bin, or held at its beginning.
            let of: Vec<&Moment> = moments.iter().enumerate().filter(|(at, moment)| {
                let held_on_entry = moment.from_ns < from && moments.get(at + 1).is_none_or(|next| next.from_ns >= from);
                (from..to).contains(&moment.from_ns) || held_on_entry
            }).map(|(_, moment)| moment).collect();
            prop_assert_eq!(curve.entries[bin], of.iter().map(|moment| moment.live.len() as u64).max().unwrap_or(0));
            prop_assert_eq!(curve.segments[bin], of.iter().map(|moment| segments(&moment.live, 512)).max().unwrap_or(0));
            let facts = |what: &[What]| {
                let of_bin = |fact: &Fact| (from..to).contains(&fact.time_ns) && what.contains(&fact.what);
                stream.told.iter().filter(|(fact, _)| of_bin(fact)).count() as u64
            };
            prop_assert_eq!(curve.births[bin], facts(&[What::Born]));
            prop_assert_eq!(curve.frees[bin], facts(&[What::Freed, What::Displaced]));
        }
    }

    #[test]
    fn sizes_at_the_peak_and_over_time(stream in streams(150)) {
        let report = told(&stream);
        let moments = moments(&stream);
        let peak = moments.iter().map(|moment| moment.live.len()).max().unwrap();
        let at = moments.iter().find(|moment| moment.live.len() == peak).unwrap();
        let mut blocks_seen = 0;
        for row in &report.sizes {
            let of = |live: &[Fact]| -> Vec<Fact> {
                live.iter().filter(|fact| (row.low..row.high).contains(&fact.bytes)).copied().collect()
            };
            let bytes = |moment: &Moment| sum(&of(&moment.live), |bytes| bytes);
            prop_assert_eq!(row.blocks_at_peak, of(&at.live).len() as u64);
            prop_assert_eq!(row.bytes_at_peak, bytes(at));
            prop_assert_eq!(row.rounded_at_peak, sum(&of(&at.live), r16));
            prop_assert_eq!(row.in_place_at_peak, sum(&of(&at.live), with_handle));
            let mean = |area: u128| area.checked_div(stream.end_ns.into()).unwrap_or(0) as u64;
            prop_assert_eq!(row.blocks_mean_milli, mean(integral(&moments, |moment| 1000 * of(&moment.live).len() as u64)));
            prop_assert_eq!(row.bytes_mean, mean(integral(&moments, bytes)));
            prop_assert_eq!(row.in_place_mean, mean(integral(&moments, |moment| sum(&of(&moment.live), with_handle))));
            let mut most = 0;
            let mut area = 0u128;
            for moment in &moments {
                most = most.max(bytes(moment));
                area += u128::from(most) * u128::from(moment.to_ns - moment.from_ns);
            }
            prop_assert_eq!(row.most_so_far_mean, mean(area));
            blocks_seen += row.blocks_at_peak;
        }
        prop_assert_eq!(blocks_seen, report.entries_peak);
    }
}

/// Streams with hundreds of live blocks that fall and rise, so that segments come and go: `streams`
/// hardly reaches them.
fn crowds() -> impl Strategy<Value = Stream> {
    let phase = (1u64..900, any::<u64>(), 1u64..200);
    proptest::collection::vec(phase, 1..5).prop_map(|phases| {
        let mut stream = Stream::default();
        let mut live: Vec<(u64, u32)> = Vec::new();
        let mut free: Vec<u32> = Vec::new();
        let (mut now, mut entries, mut addresses) = (0u64, 0u32, 0u64);
        for (steps, seed, pause) in phases {
            let mut dice = seed | 1;
            let births = seed % 101;
            for _ in 0..steps {
                dice = dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                now += pause;
                let mut fact = Fact {
                    time_ns: now,
                    bytes: dice >> 56,
                    flags: Fact::CALL,
                    ..Fact::default()
                };
                if (dice >> 33) % 100 < births || live.is_empty() {
                    fact.what = What::Born;
                    fact.address = 16 * addresses;
                    addresses += 1;
                    fact.handle = free.pop().unwrap_or_else(|| {
                        entries += 1;
                        entries - 1
                    });
                    live.push((fact.address, fact.handle));
                } else {
                    let at = (dice >> 40) as usize % live.len();
                    fact.what = What::Freed;
                    (fact.address, fact.handle) = live.swap_remove(at);
                    free.push(fact.handle);
                }
                stream.told.push((fact, Peaks::default()));
            }
        }
        stream.end_ns = now + 77;
        stream
    })
}

#[test]
fn large_segments_by_hand() {
    let mut handles = Handles::new(0);
    let fact = |what, handle, time_ns| Fact {
        what,
        handle,
        time_ns,
        ..Fact::default()
    };
    for handle in 0..9_000 {
        handles.fact(&fact(What::Born, handle, 0), Peaks::default());
    }
    // One entry in each 4,096 stays, until the last is freed too.
    for handle in (0..9_000).filter(|handle| handle % 4_096 != 1) {
        handles.fact(&fact(What::Freed, handle, 1_000), Peaks::default());
    }
    handles.fact(&fact(What::Freed, 8_193, 3_000), Peaks::default());
    let report = handles.report(4_000);
    let of = |entries| report.segments_of(entries).unwrap();
    for (entries, held) in [(64, 141), (512, 18), (4_096, 3)] {
        assert_eq!(of(entries).held_peak, held);
        assert_eq!(of(entries).held_at_end, 2);
        // Two, and while they are freed the segment at hand and a part of the last.
        assert!((2..=4).contains(&of(entries).stranded_most));
        assert_eq!(of(entries).stranded_most_at_ns, 1_000);
        assert_eq!(of(entries).stranded_at_end, 1);
        // For 2 us two too many, then for 1 us one.
        assert_eq!(of(entries).stranded_mean_milli, 1_250);
        assert_eq!(
            of(entries).held_mean_milli,
            (held * 1_000 + 3 * 2_000 + 2 * 1_000) / 4
        );
    }
}

#[test]
fn damaged_numbers_do_no_harm() {
    let mut handles = Handles::new(u64::MAX - 5);
    let fact = |what, bytes, handle, time_ns, life_ns| Fact {
        what,
        bytes,
        handle,
        time_ns,
        life_ns,
        old_bytes: u64::MAX,
        ..Fact::default()
    };
    for round in 0..3 {
        handles.fact(&fact(What::Born, u64::MAX, 1, round, 0), Peaks::default());
        handles.fact(
            &fact(What::Resized, 0, 1, u64::MAX, u64::MAX),
            Peaks::default(),
        );
        handles.fact(
            &fact(What::Freed, u64::MAX, 1, 0, u64::MAX),
            Peaks::default(),
        );
        // More ends than births, of an entry that never was.
        handles.fact(&fact(What::Displaced, 7, 900, 5, 1), Peaks::default());
    }
    let report = handles.report(3);
    assert_eq!(report.births, 3);
    assert_eq!(report.entries_peak, 1);
    assert_eq!(report.reuse.most, 2);
}

#[test]
fn a_small_process_costs_little() {
    assert!(size_of::<Handles>() < 1024, "{}", size_of::<Handles>());
}
