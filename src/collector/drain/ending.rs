//! Ends: of processes, of spools, and of the recording.

use super::{After, DEAD_NS, Drain, Sources, Spool, WINDOW_NS};
use crate::collector::member::Life;
use crate::collector::pipeline::Item;
use crate::collector::procfs;
use crate::collector::spool::{Offset, SpoolMap};
use rmtrace_file::gather::clock::Stamps;
use rmtrace_file::gather::image::Slot;
use rmtrace_file::gather::journal::Entry;
use rmtrace_file::gather::lease::Lease;
use rmtrace_file::gather::pack::{flag_notes, noticed_notes, refused_note};
use rmtrace_file::gather::processes::{complete, slot_of_image};
use rmtrace_file::gather::run_dir::stamps_of;
use rmtrace_file::gather::spool_file::for_each_chunk;
use rmtrace_file::gather::stream::Until;
use rmtrace_file::{Mark, Process, RunInfo};
use rmtrace_format::chunk::KIND_EVENTS;
use rmtrace_format::record::{MARK_START, MARK_STOP};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

impl Drain {
    /// Children that were waited for.
    pub(super) fn take_ended(&mut self) {
        let new = match self.status.ended.lock() {
            Ok(mut ended) => std::mem::take(&mut *ended),
            Err(_) => return,
        };
        self.ended.extend(new);
    }

    /// Marks that were asked for.
    pub(super) fn take_asked(&mut self) {
        let new = match self.status.asked.lock() {
            Ok(mut asked) => std::mem::take(&mut *asked),
            Err(_) => return,
        };
        if new.is_empty() {
            return;
        }
        // A knot behind them, so that their times are those of calls with the same stamp.
        self.read_clock();
        for asked in new {
            let at_ns = asked.at.monotonic_ns;
            match asked.number {
                MARK_STOP => {
                    self.pauses.0 += 1;
                    self.paused_at_ns = Some(at_ns);
                }
                MARK_START => self.end_pause(at_ns),
                _ => {}
            }
            let tick = self.clock.tick_of(&asked.at, Stamps::Tsc);
            self.marks
                .push(Mark::of_run(tick, asked.number, &asked.name));
        }
        let marks = std::mem::take(&mut self.marks);
        self.pipeline.send(Item::Marks(marks));
    }

    fn end_pause(&mut self, at_ns: u64) {
        if let Some(from_ns) = self.paused_at_ns.take() {
            self.pauses.1 += at_ns.saturating_sub(from_ns);
        }
    }

    /// What is to be said of pauses at the end.
    fn note_of_pauses(&mut self) -> Option<String> {
        let goes_on = self.paused_at_ns.is_some();
        self.end_pause(self.last_reading.monotonic_ns);
        let (pauses, ns) = self.pauses;
        (pauses > 0).then(|| {
            format!(
                "recording was paused {}, {:.1} s in all{}: calls made then are not in the trace",
                match pauses {
                    1 => "once".to_owned(),
                    n => format!("{n} times"),
                },
                ns as f64 / 1e9,
                if goes_on { ", up to the end" } else { "" },
            )
        })
    }

    /// Calls dropped so far, for the progress line.
    pub(super) fn count_dropped(&mut self, now: u64) {
        if now < self.slots_at_ns {
            return;
        }
        self.slots_at_ns = now + WINDOW_NS / 2;
        let mut dropped: u64 = 0;
        for n in 0..self.spools.len() {
            if !self.spools[n].over {
                self.refresh_slots(n);
            }
            let members = self.spools[n].members.values();
            dropped = members
                .flat_map(|m| m.slot.dropped)
                .fold(dropped, u64::saturating_add);
        }
        self.status.dropped.store(dropped, Relaxed);
    }

    /// Reads again what the processes of a spool say of themselves.
    pub(super) fn refresh_slots(&mut self, n: usize) {
        let Some(map) = self.maps[n].as_ref() else {
            return;
        };
        let spool = &mut self.spools[n];
        for number in &spool.alive {
            if let Some(slot) = map.slot(*number)
                && let Some(member) = spool.members.get_mut(number)
            {
                member.slot = slot;
            }
        }
    }

    /// Reads again what a spool says of itself: its flags are complete a moment after it is found.
    pub(super) fn refresh_image(&mut self, n: usize) {
        if let Some(image) = self.maps[n].as_ref().and_then(SpoolMap::image) {
            self.spools[n].image = Some(image);
        }
    }

    /// Finds spools that no process has any more, and processes that are gone.
    pub(super) fn look_for_ends(&mut self, now: u64) {
        let look_for_dead = now >= self.dead_at_ns;
        if look_for_dead {
            self.dead_at_ns = now + DEAD_NS;
        }
        let mut running: Option<HashMap<u32, u64>> = None;
        for n in 0..self.spools.len() {
            if self.spools[n].over {
                continue;
            }
            let alone = match self.maps[n].as_ref() {
                Some(map) => match map.lease() {
                    Lease::Alone => true,
                    Lease::InUse => false,
                    // No leases here: over when nobody is left at all.
                    Lease::Unknown => self.status.childless.load(Relaxed),
                },
                None => true, // Known from appended chunks only.
            };
            if alone {
                self.end_spool(n);
                continue;
            }
            if look_for_dead {
                self.end_dead(n, now, &mut running);
            }
        }
    }

    /// Processes of a living spool that are gone: their chunks would never come back by themselves.
    /// `running` are all processes of the system, once they were asked for.
    fn end_dead(&mut self, n: usize, now: u64, running: &mut Option<HashMap<u32, u64>>) {
        let mut dead: BTreeMap<u32, u32> = BTreeMap::new();
        let Spool { alive, members, .. } = &mut self.spools[n];
        for number in alive.iter() {
            let Some(member) = members.get_mut(number) else {
                continue;
            };
            let is_gone = match member.outside {
                Some(outside) => !procfs::is_running(outside),
                // The spool ends with its first process, or that was seen.
                None if *number == 0 => false,
                // Never seen: it may have been gone before it was looked for.
                None if now.saturating_sub(member.slot.started.monotonic_ns) < DEAD_NS => false,
                None => {
                    let running = running.get_or_insert_with(procfs::running);
                    let missed = member.missed;
                    member.missed = procfs::is_gone(&member.slot, running);
                    missed && member.missed
                }
            };
            if is_gone {
                dead.insert(*number, member.number());
            }
        }
        if dead.is_empty() {
            return;
        }
        self.take_full();
        self.scan(n);
        self.take_appended(true);
        self.read_clock();
        let until = Until {
            stamp: u64::MAX,
            missing_is_lost: true,
            open_is_done: true,
        };
        for number in dead.keys() {
            self.window(n, *number, until);
            self.end_member(n, *number);
        }
        // What they had not handed over is nobody's now.
        let Some(map) = self.maps[n].as_ref() else {
            return;
        };
        let claimed = map.shared().slabs_claimed.0.load(Acquire);
        let item = self.pipeline.sent();
        let waiting: HashSet<Offset> = self
            .after
            .iter()
            .filter_map(|(_, after)| match after {
                After::Release(at, offset, _) if *at == n => Some(*offset),
                _ => None,
            })
            .collect();
        let mut releases = Vec::new();
        for_each_chunk(map.file(), claimed, |offset, chunk| {
            if let Some(process) = dead.get(&chunk.process)
                && !waiting.contains(&offset)
            {
                let is_events = chunk.kind == KIND_EVENTS;
                let entry = is_events.then(|| Entry::of_chunk(*process, &chunk));
                releases.push((item, After::Release(n, offset, entry)));
            }
        });
        for (_, after) in &releases {
            if let After::Release(n, offset, _) = after {
                self.ours.remove(&(*n as u32 + 1, *offset));
            }
        }
        self.after.extend(releases);
    }

    /// No process has this spool any more: takes all that is left.
    pub(super) fn end_spool(&mut self, n: usize) {
        self.refresh_image(n);
        // Forks since the last look have their slots, and those tell where they came from.
        self.discover_in(n);
        self.take_full();
        self.scan(n);
        self.take_appended(false);
        self.read_clock();
        let unborn: Vec<u32> = self.spools[n]
            .members
            .iter()
            .filter(|(_, member)| member.life == Life::Unborn)
            .map(|(number, _)| *number)
            .collect();
        // A process that was killed before its slot was complete; or one without any slot.
        for number in unborn {
            let slot = self.slot_without(n, number);
            self.begin_process(n, slot);
        }
        if self.spools[n].members.is_empty() {
            let slot = self.slot_without(n, 0);
            self.begin_process(n, slot);
        }
        let until = Until {
            stamp: u64::MAX,
            missing_is_lost: true,
            open_is_done: true,
        };
        let numbers: Vec<u32> = self.spools[n].members.keys().copied().collect();
        for number in numbers {
            let life = self.spools[n].members.get(&number).map(|m| m.life);
            if life != Some(Life::Over) {
                self.cut_rest(n, number, until);
                self.end_member(n, number);
            }
        }
        self.spools[n].over = true;
        let item = self.pipeline.sent();
        self.after.push_back((item, After::Close(n)));
    }

    pub(super) fn slot_without(&self, n: usize, number: u32) -> Slot {
        match (&self.spools[n].image, number) {
            (Some(image), 0) => slot_of_image(image),
            _ => Slot {
                number,
                started: self.last_reading,
                ..Slot::default()
            },
        }
    }

    /// Cuts everything that is left of a process, in windows of the usual size.
    pub(super) fn cut_rest(&mut self, n: usize, number: u32, until: Until) {
        while !self.is_full() {
            let Some(member) = self.spools[n].members.get_mut(&number) else {
                return;
            };
            let limit = member
                .streams
                .stamps
                .of(&self.last_reading)
                .min(until.stamp);
            match member.streams.next_cut(limit) {
                Some(stamp) => self.window(n, number, Until { stamp, ..until }),
                None => {
                    self.window(n, number, until);
                    return;
                }
            };
        }
    }

    /// The last word on a process that is gone.
    pub(super) fn end_member(&mut self, n: usize, number: u32) {
        let slot = self.maps[n].as_ref().and_then(|map| map.slot(number));
        let limited = self.is_limited();
        let spool = &mut self.spools[n];
        let Some(member) = spool.members.get_mut(&number) else {
            return;
        };
        if let Some(slot) = slot {
            member.slot = slot;
        }
        if limited {
            // What it called later is not in the trace, and is not missed there.
            let sources = Sources {
                chunks: &self.run.chunks,
                spools: &self.maps,
            };
            for stream in member.streams.threads.values_mut() {
                stream.stop_at_taken(&sources);
            }
        }
        member.life = Life::Over;
        spool.alive.remove(&number);
        let process = member.describe(spool.image.as_ref(), &self.clock, self.anonymous);
        if member.slot.ended.monotonic_ns != 0 {
            self.family.exited(process.number);
        }
        // At the limit there is room for one more word on it, the last.
        if member.listed && !limited {
            self.pipeline.send(Item::Process(Box::new(process)));
        }
    }

    /// The end of the recording.
    pub(super) fn end(&mut self, mut info: RunInfo) {
        // Processes that run on keep what they write from now on.
        let running: Vec<usize> = (0..self.spools.len())
            .filter(|n| !self.spools[*n].over)
            .collect();
        self.take_asked();
        let reading = self.read_clock();
        for n in running.iter().copied() {
            self.refresh_image(n);
            self.refresh_slots(n);
        }
        if !running.is_empty() {
            // From here on calls may be dropped; all of them are behind the moment just read.
            self.run.close_gates();
            self.run.set_paused(true);
        }
        for n in running.iter().copied() {
            self.take_full();
            self.scan(n);
            let numbers: Vec<u32> = self.spools[n].members.keys().copied().collect();
            for number in numbers {
                let Some(member) = self.spools[n].members.get(&number) else {
                    continue;
                };
                if member.life != Life::Alive {
                    continue;
                }
                let until = Until {
                    stamp: member.streams.stamps.of(&reading),
                    missing_is_lost: true,
                    open_is_done: false,
                };
                self.cut_rest(n, number, until);
                let sources = Sources {
                    chunks: &self.run.chunks,
                    spools: &self.maps,
                };
                let Some(member) = self.spools[n].members.get_mut(&number) else {
                    continue;
                };
                for stream in member.streams.threads.values_mut() {
                    stream.stop_at_taken(&sources);
                }
            }
        }
        if !running.is_empty() {
            info.notes.push(format!(
                "the recording was ended while processes of {} programs went on",
                running.len()
            ));
        }
        // Of a process id that was used again, the last.
        let ended: HashMap<u32, i32> = self.ended.iter().copied().collect();
        let mut processes: Vec<Process> = self
            .spools
            .iter()
            .flat_map(|spool| {
                let image = spool.image.as_ref();
                spool
                    .members
                    .values()
                    .filter(|member| member.life != Life::Unborn && member.listed)
                    .map(move |member| (member, image))
            })
            .map(|(member, image)| {
                let mut process = member.describe(image, &self.clock, self.anonymous);
                set_status(&mut process, &ended);
                process
            })
            .collect();
        processes.sort_by_key(|process| process.number);
        complete(&mut processes);
        let hooked = processes
            .iter()
            .any(|p| p.hooks.interposed | p.hooks.detoured != 0);
        self.status.hooked.store(hooked, Relaxed);
        info.monotonic_clock = self.spools.iter().any(|spool| {
            spool.image.is_some() && stamps_of(spool.image.as_ref()) == Stamps::Monotonic
        });
        if let Ok(mut notes) = self.status.notes.lock() {
            info.notes.append(&mut notes);
        }
        info.notes.extend(self.note_of_pauses());
        self.note_limit(&mut info);
        info.notes.extend(self.report.note());
        let images = self.spools.iter().filter_map(|spool| spool.image.as_ref());
        info.notes
            .extend(flag_notes(images.map(|image| image.flags)));
        info.notes
            .extend(refused_note(processes.iter().map(|p| p.hooks.refused)));
        info.notes.extend(noticed_notes(&self.noticed));
        if self.failed_journal {
            info.notes
                .push("the collector's journal could not be written".to_owned());
        }
        let dropped = processes.iter().flat_map(|p| p.dropped);
        let dropped = dropped.fold(0, u64::saturating_add);
        self.status.dropped.store(dropped, Relaxed);
        for process in &processes {
            let [times, ns] = &self.status.waits;
            times.fetch_add(process.waits.0, Relaxed);
            ns.fetch_add(process.waits.1, Relaxed);
        }
        self.pipeline.send(Item::LastWords(processes));
        if !self.marks.is_empty() {
            let marks = std::mem::take(&mut self.marks);
            self.pipeline.send(Item::Marks(marks));
        }
        self.pipeline.send(Item::End(Box::new(info)));
    }
}

/// How a process that was waited for ended.
fn set_status(process: &mut Process, ended: &HashMap<u32, i32>) {
    use rmtrace_file::Ended;
    let Some(status) = ended.get(&process.pid) else {
        return;
    };
    if process.ended == Ended::Exec {
        return;
    }
    process.ended = match libc::WIFSIGNALED(*status) {
        true => Ended::Signal(libc::WTERMSIG(*status)),
        false => Ended::Exit(Some(libc::WEXITSTATUS(*status))),
    };
}
