//! The shipped traces: figures that must agree, and parts of a trace against parts taken by hand.

mod identities;

use identities::About;
use rmtrace_analyzer::fact::{Fact, What};
use rmtrace_analyzer::ledger::{self, Filter};
use rmtrace_analyzer::{Options, Report, analyze};
use rmtrace_file::merge::MergeOptions;
use rmtrace_file::{Consumer, TraceReader};
use rmtrace_format::{Event, Kind, Step};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

const ALL: [&str; 5] = ["by_hand", "sqlite", "python", "gcc", "firefox-content"];
/// Those that a slow twin works through: one, several processes, resizes.
const SMALL: [&str; 4] = ["by_hand", "sqlite", "python", "gcc"];

fn open(name: &str) -> TraceReader {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces");
    rmtrace_file::open(&traces.join(format!("{name}.rmt"))).unwrap()
}

fn report(reader: &TraceReader, filter: &Filter, merge: MergeOptions<'_>) -> Report {
    let options = Options {
        filter: filter.clone(),
        merge,
        threads: 1,
        ..Options::default()
    };
    let (report, error) = analyze(reader, "sample", options);
    assert!(error.is_none(), "{error:?}");
    report
}

fn whole(reader: &TraceReader) -> Report {
    report(reader, &Filter::default(), MergeOptions::default())
}

fn filters() -> Vec<Filter> {
    let of_sizes = |sizes: Range<u64>| Filter {
        sizes: Some(sizes),
        ..Filter::default()
    };
    let of_kind = |kind| Filter {
        kind: Some(kind),
        ..Filter::default()
    };
    vec![
        of_sizes(0..64),
        of_sizes(64..u64::MAX),
        of_sizes(100..101),
        of_kind(Kind::Malloc),
        of_kind(Kind::Calloc),
        of_kind(Kind::Realloc),
        Filter {
            sizes: Some(16..4_096),
            kind: Some(Kind::Malloc),
        },
    ]
}

#[test]
fn the_figures_of_samples_agree() {
    let about = About {
        is_apart: true,
        is_filtered: false,
    };
    for name in ALL {
        let reader = open(name);
        identities::hold(&whole(&reader), about);
        let last_ns = reader.ns(reader.ticks().unwrap().1);
        let window = MergeOptions {
            window: Some(last_ns / 5..last_ns / 5 * 3),
            ..MergeOptions::default()
        };
        let part = report(&reader, &Filter::default(), window);
        assert_eq!(part.figures.events.unknown_frees, 0, "{name}");
        identities::hold(&part, about);
    }
}

/// All facts, in their order.
fn facts(reader: &TraceReader, filter: &Filter) -> Vec<Fact> {
    let mut all = Vec::new();
    ledger::facts(reader, MergeOptions::default(), filter, |fact| {
        all.push(*fact)
    })
    .unwrap();
    all
}

fn is_wanted(filter: &Filter, bytes: u64, kind: Kind) -> bool {
    filter
        .sizes
        .as_ref()
        .is_none_or(|sizes| sizes.contains(&bytes))
        && filter.kind.is_none_or(|wanted| wanted == kind)
}

/// Of all facts those about wanted blocks.
fn filtered_by_hand(all: &[Fact], filter: &Filter) -> Vec<Fact> {
    // By process and handle, whether the block is wanted; by process and address its handle.
    let mut blocks: HashMap<(u32, u32), bool> = HashMap::new();
    let mut places: HashMap<(u32, u64), u32> = HashMap::new();
    let mut wanted = Vec::new();
    for fact in all {
        let key = (fact.process, fact.handle);
        let is_told = match fact.what {
            What::Born => {
                let is_told = is_wanted(filter, fact.bytes, fact.entry.kind());
                blocks.insert(key, is_told);
                places.insert((fact.process, fact.address), fact.handle);
                is_told
            }
            _ if fact.is_inherited() || fact.flags & Fact::UNKNOWN != 0 => false,
            What::Resized => {
                places.remove(&(fact.process, fact.old_address));
                places.insert((fact.process, fact.address), fact.handle);
                blocks[&key]
            }
            What::Freed | What::Displaced | What::Kept => blocks[&key],
            // A realloc that failed is told with its block.
            What::Nothing if fact.address != 0 => places
                .get(&(fact.process, fact.address))
                .is_some_and(|handle| blocks[&(fact.process, *handle)]),
            What::Nothing => is_wanted(filter, fact.bytes, fact.entry.kind()),
        };
        if is_told {
            wanted.push(*fact);
        }
    }
    wanted
}

/// What the report says of some facts, counted one by one.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    /// By kind: malloc, calloc, realloc, memalign, free.
    calls: [u64; 5],
    failed: u64,
    allocated: u64,
    freed: u64,
    kept: u64,
    requested: u64,
    bytes_freed: u64,
    shrunk: u64,
    bytes_kept: u64,
    resized: u64,
    cross_thread: u64,
    first_sizes: u64,
    longest_ns: u64,
    live_blocks: u64,
    live_bytes: u64,
    /// Peaks of live blocks and bytes, each with its first moment.
    peaks: [(u64, u64); 2],
}

impl Counted {
    fn by_hand(facts: &[Fact]) -> Counted {
        let mut of = Counted::default();
        for fact in facts {
            if fact.is_call() {
                let kind = match fact.entry.kind() {
                    Kind::Malloc => 0,
                    Kind::Calloc => 1,
                    Kind::Realloc => 2,
                    Kind::Memalign => 3,
                    Kind::Free => 4,
                };
                of.calls[kind] += 1;
            }
            match fact.what {
                What::Born => {
                    of.allocated += 1;
                    of.requested += fact.bytes;
                    of.first_sizes += fact.bytes;
                    of.live_blocks += 1;
                    of.live_bytes += fact.bytes;
                }
                What::Freed => {
                    of.freed += 1;
                    of.bytes_freed += fact.bytes;
                    of.cross_thread += u64::from(fact.thread != fact.born_thread);
                    of.longest_ns = of.longest_ns.max(fact.life_ns);
                    of.live_blocks -= 1;
                    of.live_bytes -= fact.bytes;
                }
                What::Resized => {
                    of.resized += 1;
                    of.requested += fact.bytes.saturating_sub(fact.old_bytes);
                    of.shrunk += fact.old_bytes.saturating_sub(fact.bytes);
                    of.live_bytes = of.live_bytes + fact.bytes - fact.old_bytes;
                }
                What::Kept => {
                    of.kept += 1;
                    of.bytes_kept += fact.bytes;
                    // Its process is over.
                    of.live_blocks -= 1;
                    of.live_bytes -= fact.bytes;
                }
                What::Displaced => panic!("the samples are whole"),
                What::Nothing => of.failed += 1,
            }
            for (peak, live) in of.peaks.iter_mut().zip([of.live_blocks, of.live_bytes]) {
                if live > peak.0 {
                    *peak = (live, fact.time_ns);
                }
            }
        }
        (of.live_blocks, of.live_bytes) = (0, 0);
        of
    }

    fn reported(report: &Report) -> Counted {
        let of = &report.figures;
        let events = &of.events;
        Counted {
            calls: [
                events.malloc,
                events.calloc,
                events.realloc,
                events.memalign,
                events.free,
            ],
            failed: events.failed,
            allocated: of.blocks.allocated,
            freed: of.blocks.freed,
            kept: of.blocks.never_freed,
            requested: of.bytes.requested,
            bytes_freed: of.bytes.freed,
            shrunk: of.bytes.shrunk,
            bytes_kept: of.bytes.never_freed,
            resized: of.realloc.resized,
            cross_thread: of.frees.cross_thread,
            first_sizes: of.size_histogram.iter().map(|bin| bin.bytes).sum(),
            longest_ns: of.lifetime.ns.max,
            live_blocks: 0,
            live_bytes: 0,
            peaks: [
                (of.peak.live_blocks, of.peak.live_blocks_at_ns),
                (of.peak.live_bytes, of.peak.live_bytes_at_ns),
            ],
        }
    }
}

#[test]
fn blocks_filtered_by_the_analysis_are_those_filtered_by_hand() {
    for name in SMALL {
        let reader = open(name);
        let all = facts(&reader, &Filter::default());
        let mut told = 0;
        for filter in filters() {
            let by_hand = filtered_by_hand(&all, &filter);
            let found = facts(&reader, &filter);
            assert_eq!(found.len(), by_hand.len(), "{name}: {filter:?}");
            // Kept blocks come in the order of a table, and handles are those of a table that has only
            // the wanted blocks.
            let in_order = |facts: &[Fact]| {
                let without_handle = |fact: &Fact| Fact { handle: 0, ..*fact };
                let mut facts: Vec<Fact> = facts.iter().map(without_handle).collect();
                facts.sort_by_key(|fact| {
                    (
                        fact.time_ns,
                        fact.what == What::Kept,
                        match fact.what {
                            What::Kept => (fact.process, fact.address),
                            _ => (0, 0),
                        },
                    )
                });
                facts
            };
            assert!(in_order(&found) == in_order(&by_hand), "{name}: {filter:?}");
            let report = report(&reader, &filter, MergeOptions::default());
            assert_eq!(
                Counted::reported(&report),
                Counted::by_hand(&by_hand),
                "{name}: {filter:?}"
            );
            identities::hold(
                &report,
                About {
                    is_apart: true,
                    is_filtered: true,
                },
            );
            told += by_hand.len();
        }
        assert!(told > 5, "{name}");
    }
}

/// A trace with forks: what is inherited belongs to no filter.
#[test]
fn filtered_children_inherit_nothing() {
    let reader = open("firefox-content");
    let all = whole(&reader);
    assert!(all.figures.blocks.inherited > 0);
    let mut allocated = 0;
    for sizes in [0..64, 64..u64::MAX] {
        let filter = Filter {
            sizes: Some(sizes),
            ..Filter::default()
        };
        let part = report(&reader, &filter, MergeOptions::default());
        identities::hold(
            &part,
            About {
                is_apart: true,
                is_filtered: true,
            },
        );
        allocated += part.figures.blocks.allocated;
    }
    assert_eq!(allocated, all.figures.blocks.allocated);
}

/// All steps of a trace, in their order.
#[derive(Default)]
struct Steps(Vec<Event>);

impl Consumer for Steps {
    fn event(&mut self, event: &Event) {
        self.0.push(*event);
    }
}

/// Counts some of the calls of a process without forks: allocated, freed, frees of unknown blocks,
/// peak of live bytes.
fn count_calls(steps: &[Event], is_wanted: impl Fn(&Event) -> bool) -> [u64; 4] {
    // A realloc is wanted with both of its steps.
    let mut begun: HashMap<u32, bool> = HashMap::new();
    let mut live: HashMap<u64, u64> = HashMap::new();
    let [mut allocated, mut freed, mut unknown, mut now, mut most] = [0; 5];
    for step in steps {
        match step.step {
            Step::ReallocBegin => {
                begun.insert(step.thread, is_wanted(step));
                continue;
            }
            Step::ReallocEnd
                if !(begun.remove(&step.thread).unwrap_or(true) && is_wanted(step)) =>
            {
                continue;
            }
            _ if !is_wanted(step) => continue,
            _ => {}
        }
        let old = match step.step {
            Step::Free => step.address,
            _ => step.old_address,
        };
        let keeps =
            step.step == Step::ReallocEnd && step.address == 0 && step.flags & Event::FREED == 0;
        if keeps {
            continue;
        }
        let before = live.remove(&old);
        now -= before.unwrap_or(0);
        unknown += u64::from(old != 0 && before.is_none());
        match step.step {
            Step::Free => {
                freed += u64::from(before.is_some());
                continue;
            }
            _ if step.address == 0 => {
                freed += u64::from(before.is_some());
                continue;
            }
            _ => allocated += u64::from(before.is_none()),
        }
        live.insert(step.address, step.requested_bytes);
        now += step.requested_bytes;
        most = most.max(now);
    }
    [allocated, freed, unknown, most]
}

fn counts(report: &Report) -> [u64; 4] {
    let of = &report.figures;
    let unknown = of.frees.unknown + of.frees.before_start;
    [
        of.blocks.allocated,
        of.blocks.freed,
        unknown,
        of.peak.live_bytes,
    ]
}

#[test]
fn parts_in_time_are_those_cut_by_hand() {
    for name in ["sqlite", "python"] {
        let reader = open(name);
        let mut steps = Steps::default();
        reader.merge(&mut steps).unwrap();
        let last_ns = reader.ns(reader.ticks().unwrap().1);
        assert_eq!(
            counts(&whole(&reader)),
            count_calls(&steps.0, |_| true),
            "{name}"
        );
        for window in [
            0..last_ns / 3,
            last_ns / 3..last_ns / 2,
            last_ns / 2..u64::MAX,
            last_ns / 7..last_ns / 7 + 1_000,
        ] {
            let merge = MergeOptions {
                window: Some(window.clone()),
                ..MergeOptions::default()
            };
            let report = report(&reader, &Filter::default(), merge);
            let by_hand = count_calls(&steps.0, |step| window.contains(&step.time_ns));
            assert_eq!(counts(&report), by_hand, "{name}: {window:?}");
            // Shares of the run are of the part.
            let (of, part_ns) = (&report.figures, report.duration_ns);
            let longest = (of.lifetime.ns.max * 1_000_000).checked_div(part_ns);
            assert_eq!(of.macro_lifetime.max_ppm, longest.unwrap_or(0));
        }
    }
}

/// Threads and processes of the only trace that has several of both. The child's inherited blocks
/// are looked at where they are all (`of_process`), not by hand.
#[test]
fn parts_by_process_and_thread_are_those_taken_by_hand() {
    let reader = open("firefox-content");
    let all = whole(&reader);
    for process in &all.processes {
        let merge = MergeOptions {
            processes: Some(reader.with_ancestors(process.number)),
            ..MergeOptions::default()
        };
        let part = report(&reader, &Filter::default(), merge);
        let part = part.of_process(process.number).unwrap();
        assert_eq!(part.figures.events, process.figures.events);
        assert!(
            part.figures == process.figures,
            "process {}",
            process.number
        );
    }
    let mut steps = Steps::default();
    reader.merge(&mut steps).unwrap();
    let child = all
        .processes
        .iter()
        .max_by_key(|of| of.figures.events.total)
        .unwrap();
    let of_child: Vec<Event> = steps
        .0
        .into_iter()
        .filter(|step| step.process == child.number)
        .collect();
    assert!(child.threads > 2);
    for threads in [vec![0], vec![1, 2], (1..child.threads as u32).collect()] {
        let merge = MergeOptions {
            threads: Some(threads.clone()),
            ..MergeOptions::default()
        };
        let part = report(&reader, &Filter::default(), merge);
        let part = &part
            .processes
            .iter()
            .find(|of| of.number == child.number)
            .unwrap()
            .figures;
        let calls = of_child
            .iter()
            .filter(|step| threads.contains(&step.thread));
        let calls: Vec<&Event> = calls.collect();
        let count =
            |is: &[Step]| calls.iter().filter(|step| is.contains(&step.step)).count() as u64;
        assert_eq!(part.events.free, count(&[Step::Free]), "{threads:?}");
        assert_eq!(
            part.events.total - part.events.free,
            count(&[Step::Alloc, Step::ReallocEnd]),
            "{threads:?}"
        );
        assert!(part.checks.all(), "{threads:?}");
    }
}
