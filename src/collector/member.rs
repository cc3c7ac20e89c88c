//! One recorded process as the collector knows it.

use super::procfs::{self, Outside};
use super::spool::Offset;
use rmtrace_file::gather::clock::Clock;
use rmtrace_file::gather::cutter::ProcessStreams;
use rmtrace_file::gather::image::{Slot, SpoolImage};
use rmtrace_file::gather::processes::{Link, anonymize, describe, set_role};
use rmtrace_file::{Ended, Process};
use rmtrace_format::spool::STARTED_FORK;
use std::collections::{BTreeMap, BTreeSet};

/// Where a process is in its life, for the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It has no number yet: its slot is not filled.
    Unborn,
    /// It runs, as far as is known.
    Alive,
    /// Everything of it was taken.
    Over,
}

/// One process of a spool.
pub struct Member {
    /// Its streams.
    pub streams: ProcessStreams,
    /// Its slot, as last read.
    pub slot: Slot,
    /// Where it came from.
    pub link: Link,
    /// Where it is.
    pub life: Life,
    /// Whether the trace tells of it: it does not of those that began when it was full.
    pub listed: bool,
    /// The process outside, once found.
    pub outside: Option<Outside>,
    /// When to look for it next, and how often that was done.
    pub look_at_ns: u64,
    /// How often it was looked for.
    pub looks: u32,
    /// Nothing that could be it was there at the last look at all processes.
    pub missed: bool,
    /// Command line as /proc last showed it.
    pub shown: Vec<String>,
    /// Thread names by thread id.
    pub names: BTreeMap<u32, String>,
    /// Threads when names were last read.
    pub named_threads: usize,
    /// Slabs that it wrote to: what of the spool it can have touched.
    pub slabs: BTreeSet<u32>,
    /// Bytes of records that came since the last window.
    pub pending_bytes: u64,
    /// CLOCK_MONOTONIC at the last window.
    pub cut_ns: u64,
    /// When its resident memory was last read.
    pub last_sample_ns: u64,
    /// When its names were last read.
    pub names_at_ns: u64,
}

impl Member {
    /// A process of which nothing but its number in the spool is known.
    pub fn new(number_in_spool: u32) -> Member {
        Member {
            streams: ProcessStreams::default(),
            slot: Slot {
                number: number_in_spool,
                ..Slot::default()
            },
            link: Link::default(),
            life: Life::Unborn,
            listed: true,
            outside: None,
            look_at_ns: 0,
            looks: 0,
            missed: false,
            shown: Vec::new(),
            names: BTreeMap::new(),
            named_threads: 0,
            slabs: BTreeSet::new(),
            pending_bytes: 0,
            cut_ns: 0,
            last_sample_ns: 0,
            names_at_ns: 0,
        }
    }

    /// Its number in the trace.
    pub fn number(&self) -> u32 {
        self.streams.process
    }

    /// Notes that it wrote to the chunk at `offset`.
    pub fn touched(&mut self, offset: Offset) {
        use rmtrace_format::spool::{SLAB_BYTES, SLABS_OFFSET};
        let slab = (offset as usize).saturating_sub(SLABS_OFFSET) / SLAB_BYTES;
        self.slabs.insert(slab as u32);
    }

    /// Bytes of the spool that may be resident in it: the pages of chunks that it filled, the header
    /// page, the directory and its slot. An estimate from above: pages it did not come to are
    /// counted too.
    pub fn touched_bytes(&self) -> u64 {
        use rmtrace_format::spool::{PAGE_BYTES, SLAB_BYTES};
        self.slabs.len() as u64 * SLAB_BYTES as u64 + 3 * PAGE_BYTES as u64
    }

    /// Reads names from /proc, if it is known there and still runs `program`: after an exec /proc shows
    /// another's. A command line is taken from forked processes only: an exec'ed one told its own.
    pub fn read_names(&mut self, program: Option<&str>) {
        let Some(outside) = self.outside else {
            return;
        };
        if !procfs::is_running(outside) {
            return;
        }
        self.named_threads = self.streams.threads.len();
        if procfs::program(outside.pid).as_deref() != program {
            return;
        }
        self.names.extend(procfs::thread_names(outside.pid));
        self.read_title(program);
    }

    /// Reads what changes soon after a start, if it still runs `program`: what a forked process shows
    /// as its command line, and the name of the main thread. Some tell their role there.
    pub fn read_title(&mut self, program: Option<&str>) {
        let Some(outside) = self.outside else {
            return;
        };
        if procfs::program(outside.pid).as_deref() != program {
            return;
        }
        if let Some(name) = procfs::main_thread_name(outside.pid)
            && outside.pid == self.slot.pid
        {
            self.names.insert(self.slot.pid, name);
        }
        // In a namespace of its own it may have been mistaken for another: what it says itself counts.
        if self.slot.started_by == STARTED_FORK
            && outside.pid == self.slot.pid
            && let Some(shown) = procfs::command_line(outside.pid)
        {
            self.shown = shown;
        }
    }

    /// What the trace says of it.
    pub fn describe(&self, image: Option<&SpoolImage>, clock: &Clock, anonymous: bool) -> Process {
        let mut process = describe(
            self.number(),
            self.link,
            image,
            &self.slot,
            &self.streams,
            clock,
        );
        if let Some(outside) = self.outside {
            process.pid = outside.pid;
        }
        if !self.shown.is_empty() {
            process.arguments = self.shown.clone();
        }
        for thread in &mut process.threads {
            if let Some(name) = self.names.get(&thread.tid) {
                thread.name = name.clone();
            }
        }
        let launched = image.map(|i| i.arguments.as_slice()).unwrap_or_default();
        set_role(&mut process, launched, self.link);
        if self.life == Life::Over && process.ended == Ended::Unknown {
            process.ended = Ended::Exit(None);
        }
        if anonymous {
            anonymize(&mut process);
        }
        process
    }
}
