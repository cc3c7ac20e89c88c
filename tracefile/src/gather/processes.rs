//! From spools and their slots to the processes of a trace: numbers, parents, names.

use super::clock::Clock;
use super::cutter::ProcessStreams;
use super::image::{Slot, SpoolId, SpoolImage};
use super::role::{MAIN, name_main_processes, refined, role};
use super::run_dir::stamps_of;
use crate::model::{Ended, Process, StartedBy, Thread};
use rmtrace_format::spool::{STARTED_EXEC, STARTED_FORK};
use std::collections::HashMap;

/// What identifies a process in a run and says where it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its spool.
    pub spool: SpoolId,
    /// Its number there.
    pub number_in_spool: u32,
    /// Process id as it saw itself.
    pub pid: u32,
    /// Its parent's id as it saw it.
    pub ppid: u32,
    /// Number in the spool of the process that forked it.
    pub forked_by: Option<u32>,
    /// CLOCK_MONOTONIC at its start.
    pub started_ns: u64,
    /// Whether its exit handlers ran: it was not replaced by an exec.
    pub exited: bool,
}

impl Origin {
    /// Of a slot in the spool `spool`.
    pub fn new(spool: SpoolId, slot: &Slot) -> Origin {
        Origin {
            spool,
            number_in_spool: slot.number,
            pid: slot.pid,
            ppid: slot.ppid,
            forked_by: (slot.started_by == STARTED_FORK && slot.parent != slot.number)
                .then_some(slot.parent),
            started_ns: slot.started.monotonic_ns,
            exited: slot.ended.monotonic_ns != 0,
        }
    }
}

/// Where a process came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Number of that process.
    pub parent: Option<u32>,
    /// How.
    pub started_by: StartedBy,
    /// Whether it is the command that was recorded, or what became of that by exec.
    pub is_main: bool,
}

/// Numbers processes and finds out where each came from. Number = place in the order of adding.
#[derive(Debug, Default)]
pub struct Family {
    members: Vec<(Origin, bool)>,
    /// Their numbers by process id, and by spool and number there.
    by_pid: HashMap<u32, Vec<u32>>,
    by_place: HashMap<(SpoolId, u32), u32>,
    main: Option<u32>,
}

impl Family {
    /// Processes so far.
    pub fn len(&self) -> u32 {
        self.members.len() as u32
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Says that the exit of process `number` was seen.
    pub fn exited(&mut self, number: u32) {
        if let Some((origin, _)) = self.members.get_mut(number as usize) {
            origin.exited = true;
        }
    }

    /// Adds the next process. Those that started before it should be there already.
    pub fn add(&mut self, origin: Origin) -> (u32, Link) {
        let number = self.len();
        let mut link = self.link(&origin);
        let follows = link.started_by == StartedBy::Exec && link.parent == self.main;
        link.is_main = number == 0 || follows;
        if link.is_main {
            self.main = Some(number);
        }
        if let (StartedBy::Exec, Some(parent)) = (link.started_by, link.parent)
            && let Some((_, replaced)) = self.members.get_mut(parent as usize)
        {
            *replaced = true;
        }
        self.by_pid.entry(origin.pid).or_default().push(number);
        self.by_place
            .insert((origin.spool, origin.number_in_spool), number);
        self.members.push((origin, false));
        (number, link)
    }

    fn link(&self, origin: &Origin) -> Link {
        let latest = |pid: u32, test: &dyn Fn(&Origin, bool) -> bool| {
            let numbers = self.by_pid.get(&pid)?.iter().rev().copied();
            numbers
                .filter_map(|n| Some((n, self.members.get(n as usize)?)))
                .find(|(_, (other, replaced))| test(other, *replaced))
                .map(|(n, _)| n)
        };
        if let Some(forked_by) = origin.forked_by {
            let parent = self.by_place.get(&(origin.spool, forked_by)).copied();
            return Link {
                parent,
                started_by: parent.map_or(StartedBy::Root, |_| StartedBy::Fork),
                is_main: false,
            };
        }
        let other_image = |o: &Origin| o.spool != origin.spool;
        // The process of the same id that was there before and did not say that it exits.
        if let Some(parent) = latest(origin.pid, &|o, replaced| {
            other_image(o) && !o.exited && !replaced
        }) {
            return Link {
                parent: Some(parent),
                started_by: StartedBy::Exec,
                is_main: false,
            };
        }
        let parent = latest(origin.ppid, &|o, replaced| other_image(o) && !replaced);
        Link {
            parent,
            started_by: parent.map_or(StartedBy::Root, |_| StartedBy::Spawn),
            is_main: false,
        }
    }
}

/// The slot of a spool's first process where it did not fill one: what the header says.
pub fn slot_of_image(image: &SpoolImage) -> Slot {
    Slot {
        pid: image.pid,
        ppid: image.ppid,
        started_by: STARTED_EXEC,
        started: image.started,
        ..Slot::default()
    }
}

/// Everything that a process record says, from what the spool says and what was taken so far.
pub fn describe(
    number: u32,
    link: Link,
    image: Option<&SpoolImage>,
    slot: &Slot,
    streams: &ProcessStreams,
    clock: &Clock,
) -> Process {
    let stamps = stamps_of(image);
    let first_tick = streams.threads.values().filter_map(|t| t.first_tick).min();
    let started = clock.tick_of(&slot.started, stamps);
    let started = first_tick.map_or(started, |first| first.min(started));
    let last_tick = streams.threads.values().map(|t| t.last_tick()).max();
    let last_tick = last_tick.unwrap_or(0).max(started);
    let (ended, ended_at) = match slot.ended.monotonic_ns {
        0 => (Ended::Unknown, last_tick),
        _ => (
            Ended::Exit(None),
            clock.tick_of(&slot.ended, stamps).max(last_tick),
        ),
    };
    let program = image.map(|i| i.program.clone()).unwrap_or_default();
    let launched = image.map(|i| i.arguments.as_slice()).unwrap_or_default();
    let arguments = match slot.title.is_empty() {
        true => launched.to_vec(),
        false => slot.title.clone(),
    };
    let mut dropped = slot.dropped;
    if slot.number == 0
        && let Some(image) = image
    {
        for (sum, more) in dropped.iter_mut().zip(image.dropped) {
            *sum = sum.saturating_add(more);
        }
    }
    let mut process = Process {
        number,
        pid: slot.pid,
        pid_inside: slot.pid,
        parent: link.parent,
        started_by: link.started_by,
        parent_thread: slot.parent_thread,
        name: base_name(&program, &arguments),
        role: String::new(),
        program,
        arguments,
        started,
        ended_at,
        ended,
        fork_positions: Vec::new(),
        parent_threads: 0,
        threads: streams.threads.values().map(thread).collect(),
        dropped,
        waits: slot.waits,
        hooks: image.map(|i| i.hooks).unwrap_or_default(),
        flags: image.map_or(0, |i| i.flags),
        cost_ps: image.map_or(0, |i| i.cost_ps),
    };
    set_role(&mut process, launched, link);
    if link.started_by == StartedBy::Fork {
        process.fork_positions = streams.fork_positions();
        process.parent_threads = slot.parent_threads;
    }
    process
}

/// Sets the role from the command line as it is shown, else as it was at the start, and from the
/// names of its threads; `main` for the command itself. What relatives tell comes at the end:
/// [`complete`].
pub fn set_role(process: &mut Process, launched: &[String], link: Link) {
    process.role = role(&process.name, &process.arguments);
    if process.role.is_empty() {
        process.role = role(&process.name, launched);
    }
    if process.role.is_empty() && link.is_main {
        process.role = MAIN.to_owned();
    }
    let main_thread = process.threads.iter().find(|t| t.tid == process.pid_inside);
    let main_thread = main_thread.map(|thread| thread.name.as_str());
    let threads = process.threads.iter().map(|thread| thread.name.as_str());
    if let Some(role) = refined(&process.role, main_thread, threads) {
        process.role = role.to_owned();
    }
}

/// Takes out what names the recording machine or its user.
pub fn anonymize(process: &mut Process) {
    process.program.clear();
    process.arguments.clear();
}

fn base_name(program: &str, arguments: &[String]) -> String {
    let path = match (program, arguments.first()) {
        ("", Some(first)) => first.as_str(),
        (program, _) => program,
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split_whitespace().next().unwrap_or("").to_owned()
}

fn thread(stream: &super::stream::ThreadStream) -> Thread {
    Thread {
        number: stream.thread,
        tid: stream.tid,
        name: String::new(),
        chunks: stream.chunks,
        chunks_missing: stream.chunks_missing,
        counters: stream.counters,
        counters_may_lag: stream.counters_may_lag,
        tick_sum: stream.tick_sum,
    }
}

/// What only all processes together tell: who was replaced, who is the main process of a browser.
pub fn complete(processes: &mut [Process]) {
    end_replaced(processes);
    name_main_processes(processes);
}

/// Marks processes that another one replaced by exec.
fn end_replaced(processes: &mut [Process]) {
    let replaced: Vec<(u32, u64)> = processes
        .iter()
        .filter(|p| p.started_by == StartedBy::Exec)
        .filter_map(|p| Some((p.parent?, p.started)))
        .collect();
    let places: HashMap<u32, usize> = processes
        .iter()
        .enumerate()
        .map(|(place, p)| (p.number, place))
        .collect();
    for (number, at) in replaced {
        let place = places.get(&number).copied();
        if let Some(process) = place.and_then(|place| processes.get_mut(place)) {
            process.ended = Ended::Exec;
            process.ended_at = process.ended_at.max(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(spool: u64, number: u32, pid: u32, ppid: u32, forked_by: Option<u32>) -> Origin {
        Origin {
            spool: [spool, 0],
            number_in_spool: number,
            pid,
            ppid,
            forked_by,
            started_ns: 0,
            exited: false,
        }
    }

    #[test]
    fn forks_execs_and_spawns_are_linked() {
        let mut family = Family::default();
        let mut add = |origin: Origin| {
            let (_, link) = family.add(origin);
            (link.parent, link.started_by)
        };
        assert_eq!(add(origin(1, 0, 100, 50, None)), (None, StartedBy::Root));
        assert_eq!(
            add(origin(1, 1, 101, 100, Some(0))),
            (Some(0), StartedBy::Fork)
        );
        // The fork execs; what it becomes spawns another image and is itself replaced.
        assert_eq!(
            add(origin(2, 0, 101, 100, None)),
            (Some(1), StartedBy::Exec)
        );
        assert_eq!(
            add(origin(3, 0, 102, 101, None)),
            (Some(2), StartedBy::Spawn)
        );
        assert_eq!(
            add(origin(4, 0, 101, 100, None)),
            (Some(2), StartedBy::Exec)
        );
        assert_eq!(
            add(origin(5, 0, 103, 101, None)),
            (Some(4), StartedBy::Spawn)
        );
        assert_eq!(add(origin(6, 0, 900, 800, None)), (None, StartedBy::Root));
        // A fork of a process that left no slot.
        assert_eq!(add(origin(7, 3, 1, 0, Some(2))), (None, StartedBy::Root));
    }

    #[test]
    fn a_reused_process_id_is_no_exec() {
        let mut family = Family::default();
        let mut first = origin(1, 0, 100, 50, None);
        first.exited = true;
        family.add(first);
        let (_, link) = family.add(origin(2, 0, 100, 50, None));
        assert_eq!(
            (link.parent, link.started_by, link.is_main),
            (None, StartedBy::Root, false)
        );
    }

    #[test]
    fn what_the_command_becomes_is_the_main_process() {
        let mut family = Family::default();
        assert!(family.add(origin(1, 0, 100, 50, None)).1.is_main);
        assert!(!family.add(origin(2, 0, 101, 100, None)).1.is_main);
        assert!(family.add(origin(3, 0, 100, 50, None)).1.is_main);
        assert!(family.add(origin(4, 0, 100, 50, None)).1.is_main);
        assert!(!family.add(origin(5, 0, 101, 100, None)).1.is_main);
    }
}
