//! The drain: takes chunks out of the spools, cuts windows of time, sends them to the encoders, and
//! gives chunks back once their calls are in the file.
//!
//! One thread does all of it, so nothing here is locked. It never waits for a traced process.

mod ending;
mod intake;
mod room;
mod sampling;

use super::member::Member;
use super::pipeline::{Item, Pipeline};
use super::run::Run;
use super::spool::{Offset, SpoolMap};
use super::{Status, sys};
use rmtrace_file::gather::buffers::Buffers;
use rmtrace_file::gather::chunk_file::Walk;
use rmtrace_file::gather::clock::{Clock, ClockReport, SUSPEND_NS};
use rmtrace_file::gather::cutter::{Reading, WINDOW_EVENTS};
use rmtrace_file::gather::image::{SpoolId, SpoolImage};
use rmtrace_file::gather::journal::Entry;
use rmtrace_file::gather::pack::suspend_mark;
use rmtrace_file::gather::processes::Family;
use rmtrace_file::gather::source::header_at;
use rmtrace_file::gather::stream::{Files, Noticed, Scratch, Until};
use rmtrace_file::{Mark, RunInfo};
use rmtrace_format::chunk::Triple;
use room::Room;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

/// A window is cut at least this often while calls come.
const WINDOW_NS: u64 = 1_000_000_000;
/// Bytes of records that make a window worth cutting.
const PENDING_BYTES: u64 = WINDOW_EVENTS * 16 * 3 / 2;
/// How often each process' resident memory is read.
const SAMPLE_NS: u64 = 100_000_000;
/// How often names are read.
const NAMES_NS: u64 = 1_000_000_000;
/// How often it is looked whether processes have gone.
const LIFE_NS: u64 = 20_000_000;
/// How often single processes of living spools are looked for.
const DEAD_NS: u64 = 200_000_000;
/// How often all of /proc may be read to find one process.
const SEARCH_NS: u64 = 50_000_000;
/// Shortest and longest sleep.
const SLEEP_US: (u64, u64) = (1_000, 20_000);
/// Number of the `chunks` file among the sources.
const APPENDED: u32 = 0;

/// A spool and its processes.
struct Spool {
    id: SpoolId,
    image: Option<SpoolImage>,
    members: BTreeMap<u32, Member>,
    /// Those that run, as far as is known.
    alive: BTreeSet<u32>,
    /// The first number that no process has yet.
    unborn: u32,
    over: bool,
}

/// Sources of parts: the appended chunks, then the spools.
struct Sources<'a> {
    chunks: &'a File,
    spools: &'a [Option<SpoolMap>],
}

impl Files for Sources<'_> {
    fn file(&self, source: u32) -> Option<&File> {
        match source.checked_sub(1) {
            None => Some(self.chunks),
            Some(n) => Some(self.spools.get(n as usize)?.as_ref()?.file()),
        }
    }
}

/// What is to be done once an item is in the file.
enum After {
    /// Give the chunk back.
    Release(usize, Offset, Option<Entry>),
    /// Nothing is needed of this spool any more.
    Close(usize),
}

/// The drain's state.
pub struct Drain {
    run: Arc<Run>,
    status: Arc<Status>,
    pipeline: Pipeline,
    anonymous: bool,
    clock: Clock,
    report: ClockReport,
    last_reading: Triple,
    spools: Vec<Spool>,
    /// Maps apart from the rest, so that parts are read while streams are changed.
    maps: Vec<Option<SpoolMap>>,
    by_id: HashMap<SpoolId, usize>,
    known_paths: HashSet<PathBuf>,
    family: Family,
    /// Chunks that were handed over to us and are not yet given back.
    ours: HashSet<(u32, Offset)>,
    after: VecDeque<(u64, After)>,
    appended: Walk,
    scratch: Scratch,
    buffers: Arc<Buffers>,
    noticed: Noticed,
    pending_limit: u64,
    ended: Vec<(u32, i32)>,
    lives_at_ns: u64,
    dead_at_ns: u64,
    searched_at_ns: u64,
    slots_at_ns: u64,
    taken: Vec<Offset>,
    marks: Vec<Mark>,
    failed_journal: bool,
    /// CLOCK_MONOTONIC of the stop of a pause that goes on.
    paused_at_ns: Option<u64>,
    /// Pauses, and nanoseconds of those that ended.
    pauses: (u32, u64),
    room: Option<Room>,
}

impl Drain {
    /// A drain that begins now. At `limit_bytes` of the trace it stops to record.
    #[allow(clippy::too_many_arguments)] // What it works with.
    pub fn new(
        run: Arc<Run>,
        status: Arc<Status>,
        pipeline: Pipeline,
        clock: Clock,
        buffers: Arc<Buffers>,
        pool_bytes: u64,
        anonymous: bool,
        limit_bytes: Option<u64>,
    ) -> Drain {
        Drain {
            run,
            status,
            pipeline,
            anonymous,
            clock,
            report: ClockReport::default(),
            last_reading: sys::triple(),
            spools: Vec::new(),
            maps: Vec::new(),
            by_id: HashMap::new(),
            known_paths: HashSet::new(),
            family: Family::default(),
            ours: HashSet::new(),
            after: VecDeque::new(),
            appended: Walk::default(),
            scratch: Scratch::default(),
            buffers,
            noticed: Noticed::default(),
            pending_limit: PENDING_BYTES.min(pool_bytes / 8).max(16 << 10),
            ended: Vec::new(),
            lives_at_ns: 0,
            dead_at_ns: 0,
            searched_at_ns: 0,
            slots_at_ns: 0,
            taken: Vec::new(),
            marks: Vec::new(),
            failed_journal: false,
            paused_at_ns: None,
            pauses: (0, 0),
            room: limit_bytes.map(Room::new),
        }
    }

    /// Works until it is told to stop or writing fails. Then everything there is has been sent, and
    /// the run is ended with `info`.
    pub fn work(mut self, info: RunInfo) -> Pipeline {
        let mut sleep_us = SLEEP_US.0;
        loop {
            if self.status.failed.load(Acquire) {
                self.run.gone();
                return self.pipeline;
            }
            let stop = self.status.stop.load(Acquire);
            let busy = self.round();
            if stop {
                break;
            }
            sleep_us = match busy {
                true => SLEEP_US.0,
                false => (sleep_us * 5 / 4).min(SLEEP_US.1),
            };
            if self.status.hurry.load(Relaxed) {
                sleep_us = SLEEP_US.0;
            }
            std::thread::sleep(Duration::from_micros(sleep_us));
        }
        self.end(info);
        self.pipeline
    }

    /// Looks at everything once; whether there was something.
    fn round(&mut self) -> bool {
        let now = sys::monotonic_ns();
        self.take_ended();
        self.take_asked();
        self.discover();
        let mut busy = self.take_full();
        let cuts = self.cuts_due(now);
        if !cuts.is_empty() {
            // Whatever was stamped before this moment is published, but for calls in progress.
            let reading = self.read_clock();
            let mut scanned = None;
            for (n, number, whole) in cuts {
                if scanned != Some(n) {
                    self.scan(n);
                    self.take_appended(true);
                    scanned = Some(n);
                }
                busy |= self.cut(n, number, &reading, whole);
            }
        }
        if now >= self.lives_at_ns {
            self.lives_at_ns = now
                + if self.status.hurry.load(Relaxed) {
                    1_000_000
                } else {
                    LIFE_NS
                };
            self.look_for_ends(now);
            let alive = self.spools.iter().filter(|spool| !spool.over).count();
            self.status.spools.store(alive as u32, Relaxed);
            self.count_dropped(now);
            self.status.rounds.fetch_add(1, Relaxed);
        }
        if !self.is_limited() {
            self.sample(now);
        }
        self.give_back();
        self.look_at_limit();
        busy
    }

    fn read_clock(&mut self) -> Triple {
        let reading = sys::triple();
        let asleep = |t: &Triple| t.boottime_ns.saturating_sub(t.monotonic_ns);
        let rose = asleep(&reading).saturating_sub(asleep(&self.last_reading));
        if rose > SUSPEND_NS {
            let mark = suspend_mark(&self.clock, reading.monotonic_ns, rose);
            self.marks.push(mark);
        }
        self.last_reading = reading;
        if self.clock.push(&reading, 0) {
            self.journal(&[Entry::Clock(reading)]);
        }
        reading
    }

    fn journal(&mut self, entries: &[Entry]) {
        // Without the journal the trace can't be continued if this process dies, nothing worse.
        if self.run.write_journal(entries).is_err() {
            self.failed_journal = true;
        }
    }

    /// Processes whose next window is due: spool, number, and whether everything is wanted.
    fn cuts_due(&self, now: u64) -> Vec<(usize, u32, bool)> {
        let mut due = Vec::new();
        for (n, spool) in self.spools.iter().enumerate().filter(|(_, s)| !s.over) {
            for number in &spool.alive {
                let Some(member) = spool.members.get(number) else {
                    continue;
                };
                let late = now.saturating_sub(member.cut_ns) >= WINDOW_NS;
                if late || member.pending_bytes >= self.pending_limit {
                    due.push((n, *number, late));
                }
            }
        }
        due
    }

    /// Cuts windows of a process up to `reading`. With `whole` the last one takes everything before
    /// it, else what would make a small window waits.
    fn cut(&mut self, n: usize, number: u32, reading: &Triple, whole: bool) -> bool {
        let Some(member) = self.spools[n].members.get_mut(&number) else {
            return false;
        };
        member.cut_ns = reading.monotonic_ns;
        member.pending_bytes = 0;
        let limit = member.streams.stamps.of(reading);
        let mut any = false;
        loop {
            let Some(member) = self.spools[n].members.get_mut(&number) else {
                return any;
            };
            let cut = member.streams.next_cut(limit);
            if cut.is_none() && any && !whole {
                return any;
            }
            let until = Until {
                stamp: cut.unwrap_or(limit),
                missing_is_lost: false,
                open_is_done: false,
            };
            any |= self.window(n, number, until);
            if cut.is_none() || self.is_full() {
                return any;
            }
        }
    }

    /// Sends one window, and notes which chunks are to be given back after it.
    fn window(&mut self, n: usize, number: u32, until: Until) -> bool {
        let mut any = false;
        loop {
            let Some(member) = self.spools[n].members.get_mut(&number) else {
                return any;
            };
            let process = member.number();
            let sources = Sources {
                chunks: &self.run.chunks,
                spools: &self.maps,
            };
            let mut reading = Reading {
                clock: &self.clock,
                files: &sources,
                scratch: &mut self.scratch,
                buffers: &self.buffers,
                noticed: &mut self.noticed,
            };
            let tight = match &mut self.room {
                Some(room) => room.is_tight(&self.pipeline, &self.status),
                None => false,
            };
            if self.room.as_ref().is_some_and(|room| room.is_full) {
                return any;
            }
            let before = tight.then(|| (member.streams.clone(), *reading.noticed));
            let marks_before = self.marks.len();
            let mut done = Vec::new();
            let (window, again) =
                member
                    .streams
                    .window(until, &mut reading, &mut self.marks, |_, part| {
                        done.push(part.part);
                    });
            if let (Some(room), false) = (&mut self.room, window.segments.is_empty()) {
                let bytes = window.bytes_max();
                if let Some((streams, noticed)) = before
                    && !room.fits(bytes, &self.pipeline, &self.status)
                {
                    // Not this one, and nothing behind it.
                    member.streams = streams;
                    self.noticed = noticed;
                    self.marks.truncate(marks_before);
                    self.buffers.give_loose(window);
                    return any;
                }
                room.spend(self.pipeline.sent() + 1, bytes);
            }
            if !window.segments.is_empty() {
                any = true;
                self.pipeline.send(Item::Window(Box::new(window)));
            }
            let item = self.pipeline.sent();
            for part in done {
                if !self.ours.remove(&(part.source, part.offset)) {
                    continue; // Not handed over yet; it will be.
                }
                let at = (part.source - 1) as usize;
                let header = self.maps[at]
                    .as_ref()
                    .and_then(|map| header_at(map.file(), part.offset));
                if let Some(chunk) = header {
                    let entry = Some(Entry::of_chunk(process, &chunk));
                    self.after
                        .push_back((item, After::Release(at, part.offset, entry)));
                }
            }
            if !self.marks.is_empty() {
                let marks = std::mem::take(&mut self.marks);
                self.pipeline.send(Item::Marks(marks));
            }
            // Not only at the end of a round: threads may be waiting.
            self.give_back();
            if !again {
                return any;
            }
        }
    }

    /// Gives back what is in the file by now.
    fn give_back(&mut self) {
        let written = self.pipeline.written();
        if self.after.front().is_none_or(|(item, _)| *item > written) {
            return;
        }
        let mut entries = Vec::new();
        let mut releases = Vec::new();
        let mut closed = Vec::new();
        while let Some((item, _)) = self.after.front() {
            if *item > written {
                break;
            }
            match self.after.pop_front() {
                Some((_, After::Release(n, offset, entry))) => {
                    entries.extend(entry);
                    releases.push((n, offset));
                }
                Some((_, After::Close(n))) => closed.push(n),
                None => break,
            }
        }
        if !entries.is_empty() {
            self.journal(&entries);
        }
        for (n, offset) in releases {
            if let Some(map) = self.maps[n].as_ref() {
                map.release(offset);
            }
        }
        for n in closed {
            if let Some(map) = self.maps[n].take() {
                let _ = std::fs::remove_file(&map.path);
            }
        }
    }
}
