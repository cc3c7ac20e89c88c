//! The merged stream against a slow obvious twin, and the rules for ties and forks by hand.

mod common;

use common::{Run, open_bytes, true_run};
use proptest::prelude::*;
use rmtrace_file::model::*;
use rmtrace_file::table::AddressTables;
use rmtrace_file::{Consumer, MergeOptions};
use rmtrace_format::event::{Entry, Event, Kind, Step};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

/// Writes down everything it is told. With `tables` it answers whether blocks are live.
#[derive(Default)]
struct Log {
    events: Vec<Event>,
    /// Child: events delivered before its fork.
    forks: BTreeMap<u32, usize>,
    /// Child, number of the inherited event.
    inherited: Vec<(u32, usize)>,
    /// Process: events delivered before its start.
    started: BTreeMap<u32, usize>,
    /// Process: events delivered before its end.
    ended: BTreeMap<u32, usize>,
    marks: Vec<(Mark, usize)>,
    samples: Vec<(Sample, usize)>,
    tables: Option<AddressTables>,
}

impl Consumer for Log {
    fn event(&mut self, event: &Event) {
        assert!(self.started.contains_key(&event.process));
        assert!(!self.ended.contains_key(&event.process));
        self.events.push(*event);
        if let Some(tables) = &mut self.tables {
            tables.event(event);
        }
    }
    fn process_started(&mut self, process: &Process, time_ns: u64) {
        assert!(
            self.events
                .last()
                .is_none_or(|event| event.time_ns <= time_ns)
        );
        assert_eq!(self.started.insert(process.number, self.events.len()), None);
    }
    fn fork(&mut self, child: u32, parent: u32, _: u64) {
        assert!(self.started.contains_key(&parent));
        assert_eq!(self.started[&child], self.events.len());
        assert_eq!(self.forks.insert(child, self.events.len()), None);
    }
    fn inherit(&mut self, child: u32, event: &Event) {
        assert_eq!(self.events.last(), Some(event));
        self.inherited.push((child, self.events.len() - 1));
    }
    fn process_ended(&mut self, process: u32, _: Ended, _: u64) {
        assert_eq!(self.ended.insert(process, self.events.len()), None);
    }
    fn mark(&mut self, mark: &Mark, _: u64) {
        self.marks.push((mark.clone(), self.events.len()));
    }
    fn sample(&mut self, sample: &Sample, _: u64) {
        self.samples.push((*sample, self.events.len()));
    }
    fn is_live(&mut self, process: u32, address: u64) -> Option<bool> {
        self.tables.as_mut()?.is_live(process, address)
    }
}

/// The two steps of a realloc, the one of others.
fn steps(process: u32, thread: u32, call: &Call, origin: u64) -> Vec<Event> {
    let kind = call.entry.kind();
    let event = |step, tick: u64, address, old_address, usable_bytes| Event {
        time_ns: (tick - origin) * 25,
        address,
        old_address,
        requested_bytes: call.requested_bytes,
        usable_bytes,
        caller: call.caller,
        process,
        thread,
        entry: call.entry,
        step,
        align_log2: call.align_log2,
        flags: u8::from(call.freed),
    };
    match kind {
        Kind::Realloc => vec![
            event(Step::ReallocBegin, call.tick, 0, call.address, 0),
            event(
                Step::ReallocEnd,
                call.tick_end,
                call.new_address,
                call.address,
                call.usable_bytes,
            ),
        ],
        Kind::Free => vec![event(
            Step::Free,
            call.tick,
            call.address,
            0,
            call.usable_bytes,
        )],
        _ => vec![event(
            Step::Alloc,
            call.tick,
            call.address,
            0,
            call.usable_bytes,
        )],
    }
}

/// The address that an event is about, and whether there is a block after it.
fn about(event: &Event) -> (u64, bool) {
    match event.step {
        Step::Free => (event.address, false),
        Step::ReallocBegin => (event.old_address, false),
        Step::ReallocEnd if event.address == 0 && event.flags == 0 => (event.old_address, true),
        _ => (event.address, true),
    }
}

/// The first order of tied events, thread by thread, in which every address is right, by trying all.
fn first_fit(
    lists: &[Vec<Event>],
    shared: &HashSet<u64>,
    live: &HashSet<u64>,
) -> Option<Vec<Event>> {
    if lists.iter().all(Vec::is_empty) {
        return Some(Vec::new());
    }
    for n in 0..lists.len() {
        let Some(event) = lists[n].first() else {
            continue;
        };
        let (address, occupies) = about(event);
        let mut live_then = live.clone();
        let right = match occupies {
            true => live_then.insert(address),
            false => live_then.remove(&address),
        };
        if address != 0 && shared.contains(&address) && !right {
            continue;
        }
        let mut rest = lists.to_vec();
        rest[n].remove(0);
        if let Some(mut order) = first_fit(&rest, shared, &live_then) {
            order.insert(0, *event);
            return Some(order);
        }
    }
    None
}

/// The obvious way: take all events of the earliest time of the first process, put them in the first
/// order that fits the addresses that are live; where nobody keeps a table, allocations of addresses
/// that several threads are concerned with wait for the others.
fn obvious(run: &Run, keeps_table: bool) -> Vec<Event> {
    let origin = run
        .threads
        .iter()
        .flat_map(|t| &t.2)
        .map(|c| c.tick)
        .min()
        .unwrap_or(0);
    let mut all: BTreeMap<(u64, u32), BTreeMap<u32, Vec<Event>>> = BTreeMap::new();
    for (p, t, calls) in &run.threads {
        for event in calls.iter().flat_map(|call| steps(*p, *t, call, origin)) {
            let tie = all.entry((event.time_ns, *p)).or_default();
            tie.entry(*t).or_default().push(event);
        }
    }
    let mut live: HashMap<u32, HashSet<u64>> = HashMap::new();
    let mut out = Vec::new();
    for ((_, process), tie) in all {
        let mut lists: Vec<Vec<Event>> = tie.into_values().collect();
        let mut concerned: HashMap<u64, HashSet<u32>> = HashMap::new();
        for event in lists.iter().flatten() {
            concerned
                .entry(about(event).0)
                .or_default()
                .insert(event.thread);
        }
        let shared: HashSet<u64> = concerned
            .into_iter()
            .filter(|(a, t)| *a != 0 && t.len() > 1)
            .map(|(a, _)| a)
            .collect();
        let table = live.entry(process).or_default();
        let order = if keeps_table {
            first_fit(&lists, &shared, table).expect("a true run has a true order")
        } else {
            let mut order = Vec::new();
            while let Some(first) = lists.iter().position(|list| !list.is_empty()) {
                let goes = |list: &Vec<Event>| {
                    list.first()
                        .is_some_and(|e| !about(e).1 || !shared.contains(&about(e).0))
                };
                let n = lists.iter().position(goes).unwrap_or(first);
                order.push(lists[n].remove(0));
            }
            order
        };
        for event in order {
            match about(&event) {
                (0, _) => {}
                (address, true) => drop(table.replace(address)),
                (address, false) => drop(table.take(&address)),
            }
            out.push(event);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merging_equals_the_obvious_way(seed: u64, processes in 1u32..4, threads in 1u32..6, calls in 0usize..800, gap in 2u64..6) {
        let run = true_run(seed, processes, threads, calls, gap);
        let reader = open_bytes(&run.to_trace()).unwrap();
        for keeps_table in [true, false] {
            let mut log = Log { tables: keeps_table.then(AddressTables::default), ..Log::default() };
            let stats = reader.merge(&mut log).unwrap();
            let expected = obvious(&run, keeps_table);
            prop_assert_eq!(stats.events as usize, expected.len());
            prop_assert_eq!(&log.events, &expected);
        }
    }

    /// The made-up runs are true ones, so nothing that is delivered may be out of order.
    #[test]
    fn no_inversion_is_delivered(seed: u64, threads in 1u32..6, gap in 2u64..5) {
        let reader = open_bytes(&true_run(seed, 1, threads, 3000, gap).to_trace()).unwrap();
        let mut tables = AddressTables::default();
        let stats = reader.merge(&mut tables).unwrap();
        prop_assert_eq!(tables.backwards, 0);
        prop_assert_eq!(stats.ties_unresolved, 0);
        let counts = &tables.counts()[&0];
        prop_assert_eq!((counts.unknown_frees, counts.live_duplicates), (0, 0));
        prop_assert!(counts.balanced());
    }

    /// A part of a trace is what the whole has of it.
    #[test]
    fn filters_leave_out_and_change_nothing(seed: u64, process in 0u32..3, thread in 0u32..3) {
        let run = true_run(seed, 3, 3, 300, 3);
        let reader = open_bytes(&run.to_trace()).unwrap();
        let mut part = Log::default();
        let options = MergeOptions { processes: Some(vec![process]), threads: Some(vec![thread]), ..MergeOptions::default() };
        reader.merge_with(&mut part, options).unwrap();
        let mut whole = Log::default();
        let mut told = 0;
        let mut progress = |events| { told = events; ControlFlow::Continue(()) };
        let stats = reader.merge_with(&mut whole, MergeOptions { progress: Some(&mut progress), ..MergeOptions::default() }).unwrap();
        prop_assert_eq!(told, stats.events);
        whole.events.retain(|event| event.process == process && event.thread == thread);
        prop_assert_eq!(part.events, whole.events);
    }

    /// Forks: told before the first event of the parent that is after it, or with the child's start;
    /// what is before it and comes later is inherited.
    #[test]
    fn forks_come_at_their_place(seed: u64, gap in 2u64..4, forks in proptest::collection::vec((any::<u16>(), any::<u16>(), 0u64..40), 1..4)) {
        let mut run = true_run(seed, 1, 3, 300, gap);
        for (n, (a, b, delay)) in forks.iter().enumerate() {
            let number = n as u32 + 1;
            let lists = run.threads.clone();
            let place = |list: &Vec<Call>, at: u16| at as usize % (list.len() + 1);
            // Thread 0 is at `a` of its calls, thread 1 at `b` of its; thread 2 began later or had ended.
            let positions = vec![(0, place(&lists[0].2, *a) as u64), (1, place(&lists[1].2, *b) as u64)];
            let call = |tick| Call { tick, tick_end: tick, entry: Entry::Malloc, align_log2: 0, freed: false, address: 0x9990, new_address: 0, requested_bytes: 1, caller: 0, usable_bytes: 0 };
            let latest = lists.iter().take(2).zip(&positions).filter_map(|((.., list), (_, at))| list.get((*at as usize).checked_sub(1)?)).map(|c| c.tick_end).max().unwrap_or(5);
            run.processes.push(Process {
                number, pid: 100 + number, parent: Some(0), started_by: StartedBy::Fork, fork_positions: positions,
                parent_threads: 2 + (number & 1), started: latest + delay, ended_at: latest + delay, ..Process::default()
            });
            run.threads.push((number, 0, vec![call(latest + delay)]));
        }
        let reader = open_bytes(&run.to_trace()).unwrap();
        let mut log = Log::default();
        reader.merge(&mut log).unwrap();
        prop_assert_eq!(&log.events, &obvious(&run, false));

        let origin = reader.ticks().unwrap().0;
        let mut ordinals: HashMap<u32, u64> = HashMap::new();
        let mut told: BTreeMap<u32, usize> = BTreeMap::new();
        let mut inherited = Vec::new();
        for (at, event) in log.events.iter().enumerate() {
            let ordinal = ordinals.get(&event.thread).copied().unwrap_or(0);
            for child in &run.processes[1..] {
                let before = event.process == 0 && match child.fork_positions.iter().find(|p| p.0 == event.thread) {
                    Some((_, calls)) => ordinal < *calls,
                    None => event.thread < child.parent_threads,
                };
                let due = event.process == 0 && !before || (child.started - origin) * 25 <= event.time_ns;
                if due {
                    told.entry(child.number).or_insert(at);
                }
                if before && told.contains_key(&child.number) {
                    inherited.push((child.number, at));
                }
            }
            if event.process == 0 {
                *ordinals.entry(event.thread).or_default() += u64::from(event.counts());
            }
        }
        for child in &run.processes[1..] {
            told.entry(child.number).or_insert(log.events.len());
        }
        prop_assert_eq!(&log.forks, &told);
        inherited.sort();
        log.inherited.sort();
        prop_assert_eq!(log.inherited, inherited);
    }
}

fn call(entry: Entry, address: u64, tick: u64) -> Call {
    Call {
        entry,
        align_log2: 0,
        freed: false,
        address,
        new_address: 0,
        requested_bytes: if entry == Entry::Free { 0 } else { 8 },
        tick,
        tick_end: tick,
        caller: 0,
        usable_bytes: 0,
    }
}

#[test]
fn ties_follow_the_state_of_the_address() {
    // Thread 0 allocates what thread 1 frees, all at one tick; and the other way round.
    let run = Run {
        processes: vec![Process::default()],
        threads: vec![
            (
                0,
                0,
                vec![
                    call(Entry::Malloc, 16, 1),
                    call(Entry::Malloc, 32, 9),
                    call(Entry::Malloc, 16, 9),
                ],
            ),
            (
                0,
                1,
                vec![call(Entry::Free, 16, 9), call(Entry::Free, 32, 9)],
            ),
        ],
        window_calls: 10,
        ..Run::default()
    };
    let reader = open_bytes(&run.to_trace()).unwrap();
    let mut tables = AddressTables::default();
    let stats = reader.merge(&mut tables).unwrap();
    assert_eq!((stats.ties, stats.ties_unresolved), (1, 0));
    let counts = &tables.counts()[&0];
    assert_eq!(
        (counts.unknown_frees, counts.live_duplicates, counts.live),
        (0, 0, 1)
    );
    // Nobody keeps a table: frees first.
    let mut log = Log::default();
    reader.merge(&mut log).unwrap();
    let order: Vec<(u32, u64)> = log.events.iter().map(|e| (e.thread, e.address)).collect();
    assert_eq!(order, [(0, 16), (1, 16), (1, 32), (0, 32), (0, 16)]);
}

#[test]
fn ends_marks_and_samples_have_their_place() {
    let process = |number, ended, ended_at| Process {
        number,
        started: 10 * u64::from(number),
        ended,
        ended_at,
        ..Process::default()
    };
    let mark = |tick| Mark {
        tick,
        process: 0,
        thread: 0,
        ordinal: 1,
        number: 1,
        value: 0,
        name: String::new(),
    };
    let sample = |tick| Sample {
        tick,
        process: 0,
        anonymous_bytes: 1,
        file_bytes: 0,
        shared_bytes: 0,
        virtual_bytes: 0,
    };
    let run = Run {
        processes: vec![
            process(0, Ended::Exit(Some(0)), 100),
            process(1, Ended::Signal(9), 20),
            process(2, Ended::Unknown, 40),
            process(3, Ended::Exec, 30),
        ],
        threads: vec![
            (
                0,
                0,
                vec![
                    call(Entry::Malloc, 16, 0),
                    call(Entry::Malloc, 32, 20),
                    call(Entry::Malloc, 48, 100),
                ],
            ),
            (1, 0, vec![call(Entry::Malloc, 16, 20)]),
            (2, 0, vec![call(Entry::Malloc, 16, 20)]),
            (3, 0, vec![call(Entry::Malloc, 16, 35)]),
        ],
        window_calls: 10,
        samples: vec![sample(20), sample(21), sample(500)],
        marks: vec![mark(20), mark(0)],
    };
    let reader = open_bytes(&run.to_trace()).unwrap();
    let mut log = Log::default();
    reader.merge(&mut log).unwrap();
    assert_eq!(log.events.len(), 6);
    // Process 0 is the last thing in the run, of process 2 no end was seen, 3 ends with its last event.
    assert_eq!(log.ended, BTreeMap::from([(1, 4), (3, 5)]));
    let marks: Vec<(u64, usize)> = log
        .marks
        .iter()
        .map(|(mark, at)| (mark.tick, *at))
        .collect();
    assert_eq!(marks, [(0, 0), (20, 1)]);
    let samples: Vec<(u64, usize)> = log.samples.iter().map(|(s, at)| (s.tick, *at)).collect();
    assert_eq!(samples, [(20, 1), (21, 4), (500, 6)]);
}

#[test]
fn many_processes_hold_few_streams() {
    let mut run = Run {
        window_calls: 10,
        ..Run::default()
    };
    for number in 0..2000u32 {
        let start = u64::from(number) * 10;
        run.processes.push(Process {
            number,
            started: start,
            ended_at: start + 15,
            ..Process::default()
        });
        run.threads.push((
            number,
            0,
            (0..15)
                .map(|n| call(Entry::Malloc, 16 * n + 16, start + n))
                .collect(),
        ));
    }
    let reader = open_bytes(&run.to_trace()).unwrap();
    let mut log = Log::default();
    let stats = reader.merge(&mut log).unwrap();
    assert_eq!(stats.events, 30_000);
    assert!(stats.streams_peak <= 4, "{stats:?}");
    assert!(log.events.is_sorted_by_key(|event| event.time_ns));
}

#[test]
fn a_merge_can_be_ended() {
    let reader = open_bytes(&true_run(1, 1, 2, 5000, 3).to_trace()).unwrap();
    let mut log = Log::default();
    let mut progress = |events| {
        if events >= 100 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let stats = reader
        .merge_with(
            &mut log,
            MergeOptions {
                progress: Some(&mut progress),
                ..MergeOptions::default()
            },
        )
        .unwrap();
    assert!(stats.stopped);
    assert!((100..1000).contains(&log.events.len()));
}
