//! What comes in: new spools and processes, chunks that were handed over, appended or are still
//! being filled.

use super::{APPENDED, After, Drain, Spool};
use crate::collector::member::{Life, Member};
use crate::collector::pipeline::Item;
use crate::collector::spool::{Offset, SpoolMap};
use crate::collector::sys;
use rmtrace_file::gather::image::{Slot, SpoolImage};
use rmtrace_file::gather::journal::Entry;
use rmtrace_file::gather::processes::Origin;
use rmtrace_file::gather::run_dir::{read_data, stamps_of};
use rmtrace_file::gather::source::{Part, header_at};
use rmtrace_file::gather::spool_file::for_each_chunk;
use rmtrace_format::chunk::{
    Chunk, ForkPosition, KIND_EVENTS, KIND_FORK, STATE_ACTIVE, STATE_FULL,
};
use rmtrace_format::spool::{PROCESSES_MAX, SPOOL_SUFFIX};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

impl Drain {
    /// New spools and new processes in them.
    pub(super) fn discover(&mut self) {
        let mut new: Vec<(usize, Slot)> = Vec::new();
        // Those that have no room in the pool lie beside it.
        let run = self.run.clone();
        for place in [&run.pool, &run.path] {
            let Ok(entries) = std::fs::read_dir(place) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let is_spool = path.to_string_lossy().ends_with(SPOOL_SUFFIX);
                if !is_spool || self.known_paths.contains(&path) {
                    continue;
                }
                // Its header is complete a moment later, at the latest.
                let Ok(map) = SpoolMap::open(&path) else {
                    continue;
                };
                let Some(image) = map.image().filter(|image| image.started.monotonic_ns != 0)
                else {
                    continue;
                };
                self.known_paths.insert(path);
                self.add_spool(image, Some(map));
            }
        }
        for (n, spool) in self.spools.iter().enumerate() {
            if spool.over {
                continue;
            }
            let Some(map) = self.maps[n].as_ref() else {
                continue;
            };
            find_new(n, spool, map, &mut new);
        }
        self.begin_processes(new);
    }

    /// New processes of one spool.
    pub(super) fn discover_in(&mut self, n: usize) {
        let mut new = Vec::new();
        if let Some(map) = self.maps[n].as_ref() {
            find_new(n, &self.spools[n], map, &mut new);
        }
        self.begin_processes(new);
    }

    fn begin_processes(&mut self, mut new: Vec<(usize, Slot)>) {
        new.sort_by_key(|(n, slot)| (slot.started.monotonic_ns, *n, slot.number));
        for (n, slot) in new {
            self.begin_process(n, slot);
        }
    }

    pub(super) fn add_spool(&mut self, image: SpoolImage, map: Option<SpoolMap>) -> usize {
        if let Some(n) = self.by_id.get(&image.id) {
            let n = *n;
            self.spools[n].image = Some(image);
            if self.maps[n].is_none() && !self.spools[n].over {
                self.maps[n] = map;
            }
            return n;
        }
        let n = self.spools.len();
        self.by_id.insert(image.id, n);
        self.spools.push(Spool {
            id: image.id,
            image: Some(image),
            members: BTreeMap::new(),
            alive: BTreeSet::new(),
            unborn: 0,
            over: false,
        });
        self.maps.push(map);
        n
    }

    /// Gives a process its number.
    pub(super) fn begin_process(&mut self, n: usize, slot: Slot) {
        let limited = !self.has_room_for_process();
        let spool = &mut self.spools[n];
        if let (Some(image), Some(map)) = (&mut spool.image, self.maps[n].as_ref())
            && let Some(now) = map.image()
        {
            *image = now;
        }
        let (number, link) = self.family.add(Origin::new(spool.id, &slot));
        let entry = Entry::Process {
            number,
            spool: spool.id,
            number_in_spool: slot.number,
        };
        spool.alive.insert(slot.number);
        let member = spool
            .members
            .entry(slot.number)
            .or_insert_with(|| Member::new(slot.number));
        member.streams.process = number;
        member.streams.stamps = stamps_of(spool.image.as_ref());
        member.link = link;
        member.slot = slot;
        member.life = Life::Alive;
        member.cut_ns = sys::monotonic_ns();
        member.listed = !limited;
        let process = member.describe(spool.image.as_ref(), &self.clock, self.anonymous);
        let is_born = |member: &Member| member.life != Life::Unborn;
        while spool.members.get(&spool.unborn).is_some_and(is_born) {
            spool.unborn += 1;
        }
        self.status.processes.fetch_add(1, Relaxed);
        self.journal(&[entry]);
        if !limited {
            self.pipeline.send(Item::Process(Box::new(process)));
        }
    }

    /// Takes what was handed over; whether there was something.
    pub(super) fn take_full(&mut self) -> bool {
        let mut taken = std::mem::take(&mut self.taken);
        let mut any = false;
        for n in 0..self.maps.len() {
            let Some(map) = self.maps[n].as_ref() else {
                continue;
            };
            taken.clear();
            map.take_full(&mut taken);
            any |= !taken.is_empty();
            for offset in &taken {
                let Some(map) = self.maps[n].as_ref() else {
                    break;
                };
                if let Some(chunk) = header_at(map.file(), *offset) {
                    self.add_chunk(n, *offset, &chunk, true);
                }
            }
        }
        self.taken = taken;
        any
    }

    pub(super) fn check_clock(&mut self, chunk: &Chunk) {
        // Stamps that are CLOCK_MONOTONIC say nothing about the TSC.
        if chunk.opened.tsc != chunk.opened.monotonic_ns {
            self.report.readings += 1;
            self.report.compare(&self.clock, &chunk.opened);
        }
    }

    /// Files a chunk of spool `n`. `handed_over`: it came from the list, so it is ours to give back.
    pub(super) fn add_chunk(&mut self, n: usize, offset: Offset, chunk: &Chunk, handed_over: bool) {
        if chunk.spool_id != self.spools[n].id {
            return;
        }
        let source = n as u32 + 1;
        let limited = self.is_limited();
        if handed_over {
            self.check_clock(chunk);
        }
        let part = Part::new(chunk, source, offset, chunk.committed, true);
        let spool = &mut self.spools[n];
        let member = spool
            .members
            .entry(chunk.process)
            .or_insert_with(|| Member::new(chunk.process));
        member.touched(offset);
        match chunk.kind {
            KIND_EVENTS => {
                let wanted = member.life != Life::Over && member.streams.add(chunk, part);
                if handed_over {
                    member.pending_bytes += u64::from(chunk.committed);
                    if wanted {
                        self.ours.insert((source, offset));
                    } else {
                        // Its calls were taken before; the window with them is on its way.
                        let entry = Some(Entry::of_chunk(member.number(), chunk));
                        let item = self.pipeline.sent();
                        self.after
                            .push_back((item, After::Release(n, offset, entry)));
                    }
                }
            }
            KIND_FORK => {
                let Some(map) = self.maps[n].as_ref() else {
                    return;
                };
                let positions = ForkPosition::parse_all(&read_data(map.file(), &part)).collect();
                member.streams.fork.insert(chunk.sequence, positions);
                if handed_over {
                    if member.life != Life::Unborn && member.listed && !limited {
                        let process =
                            member.describe(spool.image.as_ref(), &self.clock, self.anonymous);
                        self.pipeline.send(Item::Process(Box::new(process)));
                    }
                    let item = self.pipeline.sent();
                    self.after
                        .push_back((item, After::Release(n, offset, None)));
                }
            }
            _ => {}
        }
    }

    /// Reads what processes appended themselves (while this one was stopped, or in a process that
    /// took it for dead).
    pub(super) fn take_appended(&mut self, more: bool) {
        let length = self.run.chunks.metadata().map_or(0, |m| m.len());
        if length <= self.appended.offset() {
            return;
        }
        while let Some(found) = self.appended.next(&self.run.chunks, length, more) {
            let chunk = found.chunk;
            let part = Part::new(&chunk, APPENDED, found.offset, found.data_bytes, false);
            let n = match self.by_id.get(&chunk.spool_id) {
                Some(n) => *n,
                None => {
                    let image = SpoolImage {
                        id: chunk.spool_id,
                        ..SpoolImage::default()
                    };
                    let n = self.add_spool(image, None);
                    self.spools[n].image = None;
                    n
                }
            };
            let member = self.spools[n]
                .members
                .entry(chunk.process)
                .or_insert_with(|| Member::new(chunk.process));
            match chunk.kind {
                KIND_EVENTS => {
                    let wanted = member.life != Life::Over && member.streams.add(&chunk, part);
                    member.pending_bytes += if wanted {
                        u64::from(found.data_bytes)
                    } else {
                        0
                    };
                }
                KIND_FORK => {
                    let data = read_data(&self.run.chunks, &part);
                    let positions = ForkPosition::parse_all(&data).collect();
                    member.streams.fork.insert(chunk.sequence, positions);
                }
                _ => {}
            }
        }
    }

    /// Looks at all chunks of a spool that belong to somebody.
    pub(super) fn scan(&mut self, n: usize) {
        let Some(map) = self.maps[n].as_ref() else {
            return;
        };
        let mut found: Vec<(Offset, Chunk)> = Vec::new();
        let claimed = map.shared().slabs_claimed.0.load(Acquire);
        for_each_chunk(map.file(), claimed, |offset, chunk| {
            if matches!(chunk.state, STATE_ACTIVE | STATE_FULL) {
                found.push((offset, chunk));
            }
        });
        for (offset, chunk) in found {
            if chunk.kind == KIND_EVENTS || chunk.kind == KIND_FORK && chunk.state == STATE_FULL {
                self.add_chunk(n, offset, &chunk, false);
            }
        }
    }
}

/// Processes of spool `n` that have filled their slots since.
fn find_new(n: usize, spool: &Spool, map: &SpoolMap, new: &mut Vec<(usize, Slot)>) {
    let count = map.shared().processes.0.load(Acquire);
    for number in spool.unborn..count.min(PROCESSES_MAX as u32) {
        let is_new = spool
            .members
            .get(&number)
            .is_none_or(|member| member.life == Life::Unborn);
        if is_new && let Some(slot) = map.slot(number) {
            new.push((n, slot));
        }
    }
}
