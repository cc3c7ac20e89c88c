//! Parts of a trace against the whole of it filtered by hand, and merges with the help of threads
//! against those without.

mod common;

use common::{Run, open_bytes, true_run};
use proptest::prelude::*;
use rmtrace_file::model::*;
use rmtrace_file::table::AddressTables;
use rmtrace_file::{Consumer, MergeOptions, MergeStats, ReadError, TraceReader};
use rmtrace_format::event::{Entry, Event, Step};
use rmtrace_format::record::MARK_START;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{ControlFlow, Range};

/// One thing that a consumer is told.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Event(Event),
    Started(u32, u64),
    Fork(u32, u32, u64),
    Inherit(u32, Event),
    Ended(u32, Ended, u64),
    Mark(Mark, u64),
    Sample(Sample, u64),
}

/// Writes down everything in its order. With `tables` it answers whether blocks are live.
#[derive(Default)]
struct Log {
    told: Vec<Told>,
    tables: Option<AddressTables>,
}

impl Log {
    fn events(&self) -> Vec<Event> {
        let event = |told: &Told| match told {
            Told::Event(event) => Some(*event),
            _ => None,
        };
        self.told.iter().filter_map(event).collect()
    }
}

impl Consumer for Log {
    fn event(&mut self, event: &Event) {
        self.told.push(Told::Event(*event));
        if let Some(tables) = &mut self.tables {
            tables.event(event);
        }
    }
    fn events(&mut self, events: &[Event]) {
        assert!(!events.is_empty());
        let of = |event: &Event| (event.process, event.thread);
        assert!(events.iter().all(|event| of(event) == of(&events[0])));
        events.iter().for_each(|event| self.event(event));
    }
    fn process_started(&mut self, process: &Process, time_ns: u64) {
        self.told.push(Told::Started(process.number, time_ns));
        if let Some(tables) = &mut self.tables {
            tables.process_started(process, time_ns);
        }
    }
    fn fork(&mut self, child: u32, parent: u32, time_ns: u64) {
        self.told.push(Told::Fork(child, parent, time_ns));
        if let Some(tables) = &mut self.tables {
            tables.fork(child, parent, time_ns);
        }
    }
    fn inherit(&mut self, child: u32, event: &Event) {
        self.told.push(Told::Inherit(child, *event));
        if let Some(tables) = &mut self.tables {
            tables.inherit(child, event);
        }
    }
    fn process_ended(&mut self, process: u32, how: Ended, time_ns: u64) {
        self.told.push(Told::Ended(process, how, time_ns));
    }
    fn mark(&mut self, mark: &Mark, time_ns: u64) {
        self.told.push(Told::Mark(mark.clone(), time_ns));
    }
    fn sample(&mut self, sample: &Sample, time_ns: u64) {
        self.told.push(Told::Sample(*sample, time_ns));
    }
    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        self.tables.as_mut()?.is_live(process, address)
    }
}

fn merged(reader: &TraceReader, options: MergeOptions<'_>) -> (Log, MergeStats) {
    let mut log = Log::default();
    let stats = reader.merge_with(&mut log, options).unwrap();
    (log, stats)
}

fn of_window(window: Range<u64>) -> MergeOptions<'static> {
    MergeOptions {
        window: Some(window),
        ..MergeOptions::default()
    }
}

/// The calls of each thread in `events` that lie in `window`, with their numbers in the thread.
fn calls_in(events: &[Event], window: &Range<u64>) -> BTreeMap<(u32, u32), Vec<(u64, Event)>> {
    let mut threads: BTreeMap<(u32, u32), Vec<Vec<Event>>> = BTreeMap::new();
    for event in events {
        let calls = threads.entry((event.process, event.thread)).or_default();
        match (calls.last_mut(), event.step) {
            (Some(call), Step::ReallocEnd) => call.push(*event),
            _ => calls.push(vec![*event]),
        }
    }
    let mut kept = BTreeMap::new();
    for (thread, calls) in threads {
        let numbered = calls.into_iter().zip(0u64..).filter(|(call, _)| {
            let mut steps = call.iter();
            steps.all(|event| window.contains(&event.time_ns))
        });
        let events: Vec<(u64, Event)> = numbered
            .flat_map(|(call, number)| call.into_iter().map(move |event| (number, event)))
            .collect();
        if !events.is_empty() {
            kept.insert(thread, events);
        }
    }
    kept
}

fn by_thread(events: &[Event]) -> BTreeMap<(u32, u32), Vec<Event>> {
    let mut threads: BTreeMap<(u32, u32), Vec<Event>> = BTreeMap::new();
    for event in events {
        let thread = threads.entry((event.process, event.thread)).or_default();
        thread.push(*event);
    }
    threads
}

fn sample(tick: u64, process: u32) -> Sample {
    Sample {
        tick,
        process,
        anonymous_bytes: 1,
        file_bytes: 0,
        shared_bytes: 0,
        virtual_bytes: 0,
    }
}

fn mark(tick: u64, process: u32, name: &str) -> Mark {
    Mark {
        tick,
        process,
        thread: 0,
        ordinal: 1,
        number: 4,
        value: 0,
        name: name.to_owned(),
    }
}

fn call(tick: u64) -> Call {
    Call {
        entry: Entry::Malloc,
        align_log2: 0,
        freed: false,
        address: 16 + 16 * tick,
        new_address: 0,
        requested_bytes: 1,
        tick,
        tick_end: tick,
        caller: 0,
        usable_bytes: 0,
    }
}

/// A run with forks of process 0, marks and samples.
fn forking_run(seed: u64, gap: u64, forks: &[(u16, u16, u64)]) -> Run {
    let mut run = true_run(seed, 1, 3, 300, gap);
    let lists = run.threads.clone();
    for (n, (a, b, delay)) in forks.iter().enumerate() {
        let number = n as u32 + 1;
        let place = |list: &Vec<Call>, at: u16| at as usize % (list.len() + 1);
        let positions = vec![
            (0, place(&lists[0].2, *a) as u64),
            (1, place(&lists[1].2, *b) as u64),
        ];
        let before = lists.iter().zip(&positions).filter_map(|(list, (_, at))| {
            let last = list.2.get((*at as usize).checked_sub(1)?)?;
            Some(last.tick_end)
        });
        let started = before.max().unwrap_or(5) + delay;
        run.processes.push(Process {
            number,
            parent: Some(0),
            started_by: StartedBy::Fork,
            fork_positions: positions,
            parent_threads: 2 + (number & 1),
            started,
            ended_at: started + 40,
            ended: Ended::Exit(None),
            ..Process::default()
        });
        let calls = (0..3).map(|n| call(started + 20 * n)).collect();
        run.threads.push((number, 0, calls));
    }
    for n in 0..20 {
        run.samples.push(sample(20 * n, n as u32 % 3));
        run.marks.push(mark(17 * n, n as u32 % 3, "here"));
    }
    run
}

fn forks() -> impl Strategy<Value = Vec<(u16, u16, u64)>> {
    proptest::collection::vec((any::<u16>(), any::<u16>(), 0u64..40), 1..4)
}

/// Two times within a run that lasts so long, or a little outside, in no order.
fn window_of(reader: &TraceReader, (from, to): (u16, u16)) -> Range<u64> {
    let (_, last) = reader.ticks().unwrap();
    let at = |part: u16| (reader.ns(last) + 100) * u64::from(part) / u64::from(u16::MAX);
    at(from)..at(to)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Events, marks, samples, starts and ends of a window are those of the whole that lie in it.
    #[test]
    fn a_window_has_what_the_whole_has_in_it(seed: u64, processes in 1u32..4, threads in 1u32..5, calls in 1usize..800, gap in 1u64..6, ends: (u16, u16)) {
        let mut run = true_run(seed, processes, threads, calls, gap);
        for n in 0..20 {
            run.samples.push(sample(n * 30, n as u32 % processes));
            run.marks.push(mark(n * 17, n as u32 % processes, "here"));
        }
        let reader = open_bytes(&run.to_trace()).unwrap();
        prop_assume!(reader.ticks().is_some());
        let window = window_of(&reader, ends);
        let (whole, _) = merged(&reader, MergeOptions::default());
        let (part, stats) = merged(&reader, of_window(window.clone()));

        let wanted: BTreeMap<_, Vec<Event>> = calls_in(&whole.events(), &window).into_iter()
            .map(|(thread, events)| (thread, events.into_iter().map(|(_, event)| event).collect())).collect();
        let events = part.events();
        prop_assert!(events.is_sorted_by_key(|event| event.time_ns));
        prop_assert_eq!(stats.events, events.len() as u64);
        prop_assert_eq!(by_thread(&events), wanted);

        let last = reader.ticks().unwrap().1;
        let mut lives = BTreeMap::new();
        for process in &run.processes {
            let ticks = run.threads.iter().filter(|thread| thread.0 == process.number).flat_map(|thread| &thread.2);
            let first = ticks.clone().map(|call| call.tick).min().unwrap_or(u64::MAX).min(process.started);
            let end = ticks.map(|call| call.tick_end).max().unwrap_or(0).max(process.ended_at);
            lives.insert(process.number, (reader.ns(first), reader.ns(end), end < last));
        }
        let lives_in = |number: u32| lives.get(&number).is_some_and(|(first, end, _)| first.max(&window.start) <= end && *first < window.end && window.start < window.end);
        let mut wanted = Vec::new();
        if window.start > 0 {
            let ticks = reader.ticks().unwrap().0 + window.start.div_ceil(25);
            wanted.push(Told::Mark(Mark::of_run(ticks, MARK_START, "begins here"), window.start));
        }
        for told in &whole.told {
            match told {
                Told::Started(number, ns) if lives_in(*number) => wanted.push(Told::Started(*number, (*ns).max(window.start))),
                Told::Ended(_, _, ns) if window.contains(ns) => wanted.push(told.clone()),
                Told::Mark(mark, ns) if window.contains(ns) && lives_in(mark.process) => wanted.push(told.clone()),
                Told::Sample(sample, ns) if window.contains(ns) && lives_in(sample.process) => wanted.push(told.clone()),
                _ => {}
            }
        }
        let rest: Vec<Told> = part.told.iter().filter(|told| !matches!(told, Told::Event(_))).cloned().collect();
        let start_first = |told: &Told| match told {
            // Those that had started, in the order of their numbers.
            Told::Started(number, ns) if *ns == window.start => (*ns, 1, *number),
            Told::Mark(_, ns) if *ns == window.start => (*ns, 0, 0),
            Told::Started(_, ns) | Told::Ended(_, _, ns) | Told::Mark(_, ns) | Told::Sample(_, ns) => (*ns, 2, 0),
            _ => (0, 0, 0),
        };
        let sorted = |mut told: Vec<Told>| { told.sort_by_key(start_first); told };
        prop_assert_eq!(sorted(rest), sorted(wanted));
    }

    /// A window that leaves nothing out changes nothing.
    #[test]
    fn the_whole_as_a_window_is_the_whole(seed: u64, gap in 1u64..4, forks in forks()) {
        let reader = open_bytes(&forking_run(seed, gap, &forks).to_trace()).unwrap();
        let (whole, _) = merged(&reader, MergeOptions::default());
        for end in [u64::MAX, 1 << 40] {
            let (part, _) = merged(&reader, of_window(0..end));
            prop_assert_eq!(&part.told, &whole.told);
        }
    }

    /// What a child of a fork within the window begins with: its parent's calls before the fork, and
    /// of those the ones within the window, each once.
    #[test]
    fn forks_within_a_window_inherit_what_is_in_it(seed: u64, gap in 2u64..4, forks in forks(), ends: (u16, u16)) {
        let run = forking_run(seed, gap, &forks);
        let reader = open_bytes(&run.to_trace()).unwrap();
        let window = window_of(&reader, ends);
        let (whole, _) = merged(&reader, MergeOptions::default());
        let (part, _) = merged(&reader, of_window(window.clone()));
        let numbered = calls_in(&whole.events(), &window);

        let mut next: HashMap<u32, usize> = HashMap::new();
        let mut parents: Vec<(u32, u64)> = Vec::new();
        let mut had: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
        let mut latest = None;
        for told in &part.told {
            match told {
                Told::Event(event) if event.process == 0 => {
                    let at = next.entry(event.thread).or_default();
                    let (number, same) = numbered[&(0, event.thread)][*at];
                    prop_assert_eq!(same, *event);
                    *at += 1;
                    parents.push((event.thread, number));
                    latest = Some((event.thread, number));
                }
                Told::Fork(child, 0, ns) => {
                    prop_assert!(*ns >= window.start);
                    had.insert(*child, parents.clone());
                }
                Told::Inherit(child, _) => had.get_mut(child).unwrap().push(latest.unwrap()),
                _ => {}
            }
        }
        let started: BTreeSet<u32> = part.told.iter().filter_map(|told| match told { Told::Started(number, _) => Some(*number), _ => None }).collect();
        for child in &run.processes[1..] {
            let start = reader.ns(child.started);
            let in_window = window.contains(&start) && started.contains(&0);
            prop_assert_eq!(had.contains_key(&child.number), in_window && started.contains(&child.number));
            let Some(had) = had.get(&child.number) else { continue };
            let before = |thread: u32, number: u64| match child.fork_positions.iter().find(|position| position.0 == thread) {
                Some((_, calls)) => number < *calls,
                None => thread < child.parent_threads,
            };
            let mut wanted: Vec<(u32, u64)> = numbered.iter().filter(|((process, _), _)| *process == 0)
                .flat_map(|((_, thread), events)| events.iter().map(|(number, _)| (*thread, *number)))
                .filter(|(thread, number)| before(*thread, *number)).collect();
            let mut had = had.clone();
            wanted.sort_unstable();
            had.sort_unstable();
            prop_assert_eq!(had, wanted);
        }
    }

    /// Threads that help change nothing: neither order nor errors nor what is counted.
    #[test]
    fn help_of_threads_changes_nothing(seed: u64, gap in 1u64..4, forks in forks(), ends in proptest::option::of(any::<(u16, u16)>()), damage in proptest::option::of(any::<(u16, u8)>())) {
        let mut bytes = forking_run(seed, gap, &forks).to_trace();
        let window = {
            let reader = open_bytes(&bytes).unwrap();
            ends.map(|ends| window_of(&reader, ends))
        };
        if let Some((at, bits)) = damage {
            let reader = open_bytes(&bytes).unwrap();
            let frames = reader.frames();
            let frame = &frames[at as usize % frames.len()];
            let at = frame.offset as usize + at as usize % frame.bytes as usize;
            bytes[at] ^= bits;
        }
        let reader = open_bytes(&bytes).unwrap();
        for keeps_table in [false, true] {
            let run = |workers| {
                let mut log = Log { tables: keeps_table.then(AddressTables::default), ..Log::default() };
                let options = MergeOptions { window: window.clone(), workers, ..MergeOptions::default() };
                let done = reader.merge_with(&mut log, options).map_err(|error: ReadError| error.to_string());
                (log.told, done)
            };
            let alone = run(0);
            prop_assert_eq!(&run(1), &alone);
            prop_assert_eq!(&run(2), &alone);
        }
    }
}

/// A long run of one process, a frame each 100 calls, a call each 10 ticks.
fn long_run(calls: u64) -> Run {
    Run {
        processes: vec![Process {
            ended_at: 10 * calls,
            ..Process::default()
        }],
        threads: vec![(0, 0, (0..calls).map(|n| call(10 * n)).collect())],
        window_calls: 100,
        marks: vec![mark(10_000, 0, "load"), mark(20_000, 0, "load")],
        ..Run::default()
    }
}

#[test]
fn frames_outside_a_window_are_not_read() {
    let mut bytes = long_run(20_000).to_trace();
    let reader = open_bytes(&bytes).unwrap();
    let from = reader.mark_named("load").unwrap().unwrap();
    assert_eq!(from, 250_000);
    assert_eq!(reader.mark_named("unload").unwrap(), None);
    let marks = reader.all_marks().unwrap();
    assert_eq!(marks.len(), 2);
    assert_eq!(marks[1].0, 500_000);
    let window = from..marks[1].0;
    let (log, stats) = merged(&reader, of_window(window.clone()));
    assert_eq!(stats.events, 1000);
    let frames = reader.frames().len() as u64;
    assert!(frames > 100, "{frames}");
    assert!(stats.frames <= frames / 10, "{} of {frames}", stats.frames);
    // What is not read may be damaged.
    let outside = |frame: &&rmtrace_file::index::FrameEntry| {
        reader.ns(frame.last_tick()) < window.start || reader.ns(frame.first_tick()) >= window.end
    };
    for frame in reader.frames().iter().filter(outside) {
        bytes[frame.offset as usize + 30] ^= 0xff;
    }
    let damaged = open_bytes(&bytes).unwrap();
    assert!(damaged.merge(&mut Log::default()).is_err());
    assert_eq!(merged(&damaged, of_window(window)).0.told, log.told);
}

#[test]
fn a_merge_with_help_can_be_ended() {
    let reader = open_bytes(&long_run(20_000).to_trace()).unwrap();
    for workers in [1, 2] {
        let mut log = Log::default();
        let mut progress = |events| match events >= 100 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let options = MergeOptions {
            progress: Some(&mut progress),
            workers,
            ..MergeOptions::default()
        };
        let stats = reader.merge_with(&mut log, options).unwrap();
        assert!(stats.stopped);
        assert_eq!(stats.events as usize, log.events().len());
        assert!((100..20_000).contains(&stats.events), "{stats:?}");
    }
}
