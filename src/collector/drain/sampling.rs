//! Resident memory and names of processes, from /proc.

use super::{Drain, NAMES_NS, SAMPLE_NS, SEARCH_NS};
use crate::collector::member::{Life, Member};
use crate::collector::pipeline::Item;
use crate::collector::procfs;
use crate::collector::spool::SpoolMap;
use rmtrace_file::Sample;
use rmtrace_file::gather::clock::Clock;

impl Drain {
    /// Resident memory and names, of those processes for which it is time.
    pub(super) fn sample(&mut self, now: u64) {
        let mut samples = Vec::new();
        for n in 0..self.spools.len() {
            if self.spools[n].over {
                continue;
            }
            let program = self.program(n);
            let numbers: Vec<u32> = self.spools[n].alive.iter().copied().collect();
            for number in numbers {
                self.find_outside(n, number, now);
                let Some(member) = self.spools[n].members.get_mut(&number) else {
                    continue;
                };
                if member.life != Life::Alive || member.outside.is_none() {
                    continue;
                }
                let new_threads = member.named_threads != member.streams.threads.len();
                let since = now.saturating_sub(member.names_at_ns);
                if since >= NAMES_NS && new_threads || since >= 5 * NAMES_NS {
                    member.names_at_ns = now;
                    member.read_names(program.as_deref());
                }
                if now.saturating_sub(member.last_sample_ns) < SAMPLE_NS {
                    continue;
                }
                member.last_sample_ns = now;
                member.read_title(program.as_deref());
                let spool_bytes = self.maps[n].as_ref().map_or(0, SpoolMap::bytes);
                samples.extend(sample_of(member, &self.clock, now, spool_bytes));
            }
        }
        if !samples.is_empty() {
            self.pipeline.send(Item::Samples(samples));
        }
    }

    pub(super) fn find_outside(&mut self, n: usize, number: u32, now: u64) {
        let Some(member) = self.spools[n].members.get(&number) else {
            return;
        };
        if member.life != Life::Alive || member.outside.is_some() || now < member.look_at_ns {
            return;
        }
        let looks = member.looks;
        let slot = member.slot.clone();
        let spool = &self.spools[n];
        let taken = |found| {
            let members = spool.alive.iter().filter_map(|n| spool.members.get(n));
            members.into_iter().any(|m| m.outside == Some(found))
        };
        // Everywhere only now and then: that reads all of /proc.
        let everywhere = looks % 4 == 1 && now >= self.searched_at_ns;
        let launched = spool.image.as_ref().map(|image| image.arguments.as_slice());
        let found = procfs::find(&slot, launched.unwrap_or_default(), &taken, everywhere);
        if everywhere {
            self.searched_at_ns = now + SEARCH_NS;
        }
        let Some(member) = self.spools[n].members.get_mut(&number) else {
            return;
        };
        member.outside = found;
        member.looks = looks + 1;
        member.look_at_ns = now + (10_000_000 << looks.min(8));
        if found.is_some() {
            member.looks = 0;
            let program = self.program(n);
            if let Some(member) = self.spools[n].members.get_mut(&number) {
                member.read_names(program.as_deref());
            }
        }
    }

    /// Path of the program of spool `n`.
    fn program(&self, n: usize) -> Option<String> {
        let image = self.spools[n].image.as_ref()?;
        Some(image.program.clone())
    }
}

fn sample_of(member: &Member, clock: &Clock, now: u64, spool_bytes: u64) -> Option<Sample> {
    let status = procfs::Status::of(member.outside?.pid)?;
    if status.virtual_bytes == 0 {
        return None; // A zombie.
    }
    Some(Sample {
        tick: clock.tick_of_monotonic(now),
        process: member.number(),
        anonymous_bytes: status.anonymous_bytes,
        file_bytes: status.file_bytes,
        shared_bytes: status.shared_bytes.saturating_sub(member.touched_bytes()),
        virtual_bytes: status.virtual_bytes.saturating_sub(spool_bytes),
    })
}
