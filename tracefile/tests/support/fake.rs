//! A writer that fills spools, slots and chunks as the interposed library does, over the layouts of
//! the format crate, with a clock that a test sets or the real one.
#![allow(dead_code)] // Each test binary uses a part of it.

use memmap2::MmapMut;
use rmtrace_format::chunk::{
    self, ChunkHeader, Counters, ForkPosition, HEADER_BYTES, LARGE_BYTES, SMALL_BYTES, Triple,
};
use rmtrace_format::event::Kind;
use rmtrace_format::record::{
    CODE_BASE, CODE_MARK, DELTA_BITS, DELTA_MASK, RECORD_BYTES_MAX, Record, UNIT_BYTES,
    content_sum, encode,
};
use rmtrace_format::spool::{
    self, Control, DIRECTORY_OFFSET, PAGE_BYTES, PROCESS_BYTES, PROCESSES_OFFSET, ProcessSlot,
    SHARED_OFFSET, SLAB_BYTES, SLAB_LARGE, SLAB_SMALL, SLABS_OFFSET, SMALL_PER_SLAB, Shared,
    SpoolHeader,
};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU64};

/// Where stamps come from.
#[derive(Clone)]
pub enum Time {
    /// A counter of nanoseconds shared by all; the TSC runs three times as fast.
    Set(Arc<AtomicU64>),
    /// The machine's.
    Real,
}

impl Time {
    pub fn set(start_ns: u64) -> Time {
        Time::Set(Arc::new(AtomicU64::new(start_ns)))
    }

    /// Goes on by `ns` and returns the TSC.
    #[inline]
    pub fn stamp(&self, ns: u64) -> u64 {
        match self {
            Time::Set(now) => 3 * (now.fetch_add(ns, Relaxed) + ns),
            // SAFETY: x86-64 has `rdtsc`.
            Time::Real => unsafe { core::arch::x86_64::_rdtsc() },
        }
    }

    pub fn triple(&self) -> Triple {
        match self {
            Time::Set(now) => {
                let now = now.load(Relaxed);
                Triple {
                    tsc: 3 * now,
                    monotonic_ns: now,
                    boottime_ns: now,
                }
            }
            Time::Real => Triple {
                tsc: self.stamp(0),
                monotonic_ns: clock_ns(libc::CLOCK_MONOTONIC),
                boottime_ns: clock_ns(libc::CLOCK_BOOTTIME),
            },
        }
    }
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A run directory.
pub struct FakeRun {
    pub path: PathBuf,
    pub pool: PathBuf,
    pub time: Time,
    spools: u64,
}

impl FakeRun {
    /// Makes a run directory with its pool in it.
    pub fn new(path: &Path, time: Time) -> FakeRun {
        let pool = path.join(spool::POOL_NAME);
        std::fs::create_dir_all(&pool).unwrap();
        File::create(path.join(spool::CHUNKS_NAME)).unwrap();
        FakeRun {
            path: path.to_owned(),
            pool,
            time,
            spools: 0,
        }
    }

    /// Uses a run directory that a collector made.
    pub fn of_collector(path: &Path, time: Time) -> FakeRun {
        FakeRun {
            path: path.to_owned(),
            pool: path.join(spool::POOL_NAME),
            time,
            spools: 0,
        }
    }

    /// A spool with `slabs` slabs whose first process is `pid`.
    pub fn spool(&mut self, pid: u32, ppid: u32, slabs: u32, arguments: &[&str]) -> Arc<FakeSpool> {
        self.spools += 1;
        let id = [u64::from(pid) << 8 | self.spools, 0x5eed];
        let path = self
            .pool
            .join(format!("{pid}-{:016x}{}", id[0], spool::SPOOL_SUFFIX));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let bytes = (SLABS_OFFSET + slabs as usize * SLAB_BYTES) as u64;
        file.set_len(bytes).unwrap();
        // SAFETY: a test's own file, which nobody truncates.
        let map = unsafe { MmapMut::map_mut(&file).unwrap() };
        let chunks = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path.join(spool::CHUNKS_NAME))
            .unwrap();
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.pool.join(spool::CONTROL_NAME))
            .ok();
        let control = control.map(|file| {
            // SAFETY: as above.
            unsafe { MmapMut::map_mut(&file).unwrap() }
        });
        let fake = FakeSpool {
            base: map.as_ptr() as usize,
            _map: map,
            control,
            path,
            chunks,
            id,
            slabs,
            time: self.time.clone(),
        };
        let header = fake.header();
        header.version.store(spool::VERSION, Relaxed);
        header.flags.store(spool::FLAG_READY, Relaxed);
        header.id[0].store(id[0], Relaxed);
        header.id[1].store(id[1], Relaxed);
        header.spool_bytes.store(bytes, Relaxed);
        header.slabs.store(slabs, Relaxed);
        header.pid.store(pid, Relaxed);
        header.ppid.store(ppid, Relaxed);
        header.arguments.store(arguments.len() as u32, Relaxed);
        store_triple(&header.started, self.time.triple());
        header.realtime_ns.store(1_700_000_000_000_000_000, Relaxed);
        let program = arguments.first().copied().unwrap_or("");
        fake.text(spool::PROGRAM_OFFSET, program.as_bytes());
        fake.text(spool::ARGUMENTS_OFFSET, arguments.join("\0").as_bytes());
        fake.shared().processes.0.store(1, Relaxed);
        header.magic.store(spool::MAGIC, Release);
        let fake = Arc::new(fake);
        fake.slot(0, pid, ppid, spool::STARTED_EXEC, 0, 0, 0);
        fake
    }
}

/// A spool, mapped.
pub struct FakeSpool {
    base: usize,
    _map: MmapMut,
    control: Option<MmapMut>,
    pub path: PathBuf,
    chunks: File,
    pub id: [u64; 2],
    slabs: u32,
    pub time: Time,
}

fn store_triple(fields: &[AtomicU64; 3], triple: Triple) {
    fields[0].store(triple.tsc, Relaxed);
    fields[1].store(triple.monotonic_ns, Relaxed);
    fields[2].store(triple.boottime_ns, Relaxed);
}

impl FakeSpool {
    fn at<T>(&self, offset: usize) -> &T {
        // SAFETY: offsets come from the layout and lie within the mapping; all types are atomics.
        unsafe { &*((self.base + offset) as *const T) }
    }

    pub fn header(&self) -> &SpoolHeader {
        self.at(0)
    }

    pub fn shared(&self) -> &Shared {
        self.at(SHARED_OFFSET)
    }

    pub fn process(&self, number: u32) -> &ProcessSlot {
        self.at(PROCESSES_OFFSET + number as usize * PROCESS_BYTES)
    }

    pub fn chunk(&self, number: u32) -> &ChunkHeader {
        self.at(SLABS_OFFSET + number as usize * PAGE_BYTES)
    }

    fn text(&self, offset: usize, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            self.at::<AtomicU8>(offset + n).store(*byte, Relaxed);
        }
    }

    fn directory(&self, slab: u32) -> &AtomicU8 {
        self.at(DIRECTORY_OFFSET + slab as usize)
    }

    #[allow(clippy::too_many_arguments)] // The slot's fields.
    pub fn slot(
        &self,
        number: u32,
        pid: u32,
        ppid: u32,
        started_by: u32,
        parent: u32,
        parent_thread: u32,
        parent_threads: u32,
    ) {
        let slot = self.process(number);
        slot.state.store(1, Relaxed);
        slot.number.store(number, Relaxed);
        slot.pid.store(pid, Relaxed);
        slot.ppid.store(ppid, Relaxed);
        slot.started_by.store(started_by, Relaxed);
        slot.parent.store(parent, Relaxed);
        slot.parent_thread.store(parent_thread, Relaxed);
        slot.parent_threads.store(parent_threads, Relaxed);
        store_triple(&slot.started, self.time.triple());
        slot.state.store(2, Release);
    }

    /// A forked process: its slot and its fork chunk. Returns its number.
    pub fn fork(&self, pid: u32, parent: u32, positions: &[ForkPosition]) -> u32 {
        let number = self.shared().processes.0.fetch_add(1, Relaxed);
        let ppid = self.process(parent).pid.load(Relaxed);
        let threads = positions.len() as u32;
        self.slot(number, pid, ppid, spool::STARTED_FORK, parent, 0, threads);
        let chunk = self.claim(false).unwrap();
        let header = self.chunk(chunk);
        self.begin(header, chunk::KIND_FORK, number, 0, 0, 0);
        for (n, position) in positions.iter().enumerate() {
            let at = SLABS_OFFSET + chunk as usize * PAGE_BYTES + HEADER_BYTES + n * 16;
            self.at::<AtomicU64>(at)
                .store(u64::from(position.thread), Relaxed);
            self.at::<AtomicU64>(at + 8).store(position.calls, Relaxed);
        }
        header.committed.store(positions.len() as u32 * 16, Release);
        header.state.store(chunk::STATE_ACTIVE, Release);
        self.process(number).fork_chunks.store(1, Relaxed);
        self.hand_over(chunk, To::Collector);
        number
    }

    pub fn end(&self, number: u32) {
        store_triple(&self.process(number).ended, self.time.triple());
    }

    fn push(&self, list: &AtomicU64, number: u32) {
        let mut head = list.load(Acquire);
        loop {
            self.chunk(number).next.store(head as u32, Relaxed);
            let new = ((head >> 32) + 1) << 32 | u64::from(number + 1);
            match list.compare_exchange(head, new, AcqRel, Acquire) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn pop(&self, list: &AtomicU64) -> Option<u32> {
        let mut head = list.load(Acquire);
        loop {
            let number = (head as u32).checked_sub(1)?;
            let next = self.chunk(number).next.load(Relaxed);
            let new = ((head >> 32) + 1) << 32 | u64::from(next);
            match list.compare_exchange(head, new, AcqRel, Acquire) {
                Ok(_) => return Some(number),
                Err(now) => head = now,
            }
        }
    }

    fn claim_slab(&self, kind: u8) -> Option<u32> {
        let claimed = &self.shared().slabs_claimed.0;
        let slab = claimed
            .fetch_update(AcqRel, Acquire, |n| (n < self.slabs).then_some(n + 1))
            .ok()?;
        self.directory(slab).store(kind, Release);
        Some(slab)
    }

    /// A chunk, if there is one.
    pub fn claim(&self, large: bool) -> Option<u32> {
        let shared = self.shared();
        let list = if large {
            &shared.free_large.0
        } else {
            &shared.free_small.0
        };
        if let Some(number) = self.pop(list) {
            return Some(number);
        }
        if large {
            let Some(slab) = self.claim_slab(SLAB_LARGE) else {
                return self.pop(&shared.free_small.0);
            };
            let number = slab * SMALL_PER_SLAB as u32;
            self.chunk(number)
                .chunk_bytes
                .store(LARGE_BYTES as u32, Relaxed);
            return Some(number);
        }
        let Some(slab) = self.claim_slab(SLAB_SMALL) else {
            return self.pop(&shared.free_large.0);
        };
        let first = slab * SMALL_PER_SLAB as u32;
        for n in 0..SMALL_PER_SLAB as u32 {
            self.chunk(first + n)
                .chunk_bytes
                .store(SMALL_BYTES as u32, Relaxed);
            if n > 0 {
                self.push(&shared.free_small.0, first + n);
            }
        }
        Some(first)
    }

    fn begin(
        &self,
        header: &ChunkHeader,
        kind: u32,
        process: u32,
        thread: u32,
        tid: u32,
        sequence: u32,
    ) {
        let opened = self.time.triple();
        header.committed.store(0, Release);
        header.check.store(0, Release);
        header.magic.store(chunk::MAGIC, Relaxed);
        header.kind.store(kind, Relaxed);
        header.process.store(process, Relaxed);
        header.thread.store(thread, Relaxed);
        header.sequence.store(sequence, Relaxed);
        header.tid.store(tid, Relaxed);
        header.next.store(0, Relaxed);
        header.spool_id[0].store(self.id[0], Relaxed);
        header.spool_id[1].store(self.id[1], Relaxed);
        store_triple(&header.opened, opened);
        store_triple(&header.closed, Triple::default());
        let bytes = header.chunk_bytes.load(Relaxed);
        let check = chunk::check_word(kind, bytes, process, thread, sequence, self.id, opened.tsc);
        header.check.store(check, Relaxed);
    }

    fn release(&self, number: u32) {
        let header = self.chunk(number);
        header.state.store(chunk::STATE_FREE, Release);
        let shared = self.shared();
        match header.chunk_bytes.load(Relaxed) as usize {
            LARGE_BYTES => self.push(&shared.free_large.0, number),
            _ => self.push(&shared.free_small.0, number),
        }
    }

    fn bytes_of(&self, number: u32) -> Vec<u8> {
        let committed = self.chunk(number).committed.load(Acquire) as usize;
        let at = self.base + SLABS_OFFSET + number as usize * PAGE_BYTES;
        // SAFETY: within the mapping; this thread alone writes to the chunk.
        unsafe { std::slice::from_raw_parts(at as *const u8, HEADER_BYTES + committed) }.to_vec()
    }

    fn hand_over(&self, number: u32, to: To) {
        let header = self.chunk(number);
        store_triple(&header.closed, self.time.triple());
        header.state.store(chunk::STATE_FULL, Release);
        match to {
            To::Collector => self.push(&self.shared().full.0, number),
            To::Stays => {}
            To::File => {
                (&self.chunks).write_all(&self.bytes_of(number)).unwrap();
                self.release(number);
            }
            To::FileAndStays => (&self.chunks).write_all(&self.bytes_of(number)).unwrap(),
            To::FileCut(bytes) => {
                let all = self.bytes_of(number);
                (&self.chunks)
                    .write_all(&all[..bytes.min(all.len())])
                    .unwrap();
            }
        }
    }

    /// The recording has ended: nothing may be appended any more.
    fn is_closed(&self) -> bool {
        let Some(control) = &self.control else {
            return false;
        };
        // SAFETY: the control file is a page with this layout.
        let control = unsafe { &*(control.as_ptr() as *const Control) };
        control.limit_bytes.load(Relaxed) == 0
    }

    /// Nothing is recorded: as the interposed library asks at each call.
    fn is_paused(&self) -> bool {
        let Some(control) = &self.control else {
            return false;
        };
        // SAFETY: the control file is a page with this layout.
        let control = unsafe { &*(control.as_ptr() as *const Control) };
        control.paused.0.load(Relaxed) != 0
    }

    fn collector_is_alive(&self) -> bool {
        let Some(control) = &self.control else {
            return false;
        };
        // SAFETY: the control file is a page with this layout.
        let control = unsafe { &*(control.as_ptr() as *const Control) };
        let seen = control.collector_ns.0.load(Relaxed);
        let now = clock_ns(libc::CLOCK_MONOTONIC);
        seen != 0 && now.saturating_sub(seen) < spool::COLLECTOR_ALIVE_NS
    }
}

/// Where full chunks go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// Pushed for the collector (with none: they stay, and are on the list).
    Collector,
    /// They stay in the spool.
    Stays,
    /// Appended and given back.
    File,
    /// Appended, and killed before giving back.
    FileAndStays,
    /// So many bytes of it were appended.
    FileCut(usize),
}

/// A thread that records.
pub struct FakeThread {
    pub spool: Arc<FakeSpool>,
    pub process: u32,
    pub thread: u32,
    pub to: To,
    pub large: bool,
    pub counters: Counters,
    pub calls: u64,
    pub dropped: u64,
    /// Waits for a chunk that may still fail; then calls are dropped at once, and a test ends.
    patience: u32,
    sequence: u32,
    chunk: Option<u32>,
    base: u64,
    used: usize,
}

impl FakeThread {
    pub fn new(spool: &Arc<FakeSpool>, process: u32, thread: u32, to: To) -> FakeThread {
        let slot = spool.process(process);
        slot.threads.fetch_max(thread + 1, Relaxed);
        FakeThread {
            spool: spool.clone(),
            process,
            thread,
            to,
            large: true,
            counters: Counters::default(),
            calls: 0,
            dropped: 0,
            patience: 20,
            sequence: 0,
            chunk: None,
            base: 0,
            used: 0,
        }
    }

    fn room(&self) -> usize {
        self.chunk.map_or(0, |number| {
            let bytes = self.spool.chunk(number).chunk_bytes.load(Relaxed) as usize;
            bytes - HEADER_BYTES - self.used
        })
    }

    fn next(&mut self, tsc: u64) -> bool {
        self.hand_over();
        let mut claimed = self.spool.claim(self.large);
        let mut tries = 0;
        let limit = if self.patience > 0 { 400 } else { 0 };
        while claimed.is_none() && tries < limit && self.spool.collector_is_alive() {
            std::thread::sleep(std::time::Duration::from_micros(500));
            claimed = self.spool.claim(self.large);
            tries += 1;
        }
        let Some(number) = claimed else {
            self.patience = self.patience.saturating_sub(1);
            return false;
        };
        let header = self.spool.chunk(number);
        let tid = 1000 + self.thread;
        self.spool.begin(
            header,
            chunk::KIND_EVENTS,
            self.process,
            self.thread,
            tid,
            self.sequence,
        );
        for (to, from) in header.calls.iter().zip(self.counters.calls) {
            to.store(from, Relaxed);
        }
        header.bytes.store(self.counters.bytes, Relaxed);
        header.sum.store(self.counters.sum, Relaxed);
        header.dropped.store(self.dropped, Relaxed);
        header.first_ordinal.store(self.calls, Relaxed);
        header.state.store(chunk::STATE_ACTIVE, Release);
        self.sequence += 1;
        self.chunk = Some(number);
        self.used = 0;
        self.base = tsc;
        self.words(&[CODE_BASE, tsc]);
        true
    }

    /// Hands over what there is.
    pub fn hand_over(&mut self) {
        let Some(number) = self.chunk.take() else {
            return;
        };
        let to = match self.to {
            To::Collector if self.spool.is_closed() => To::Stays,
            To::Collector if !self.spool.collector_is_alive() => To::File,
            to => to,
        };
        self.spool.hand_over(number, to);
    }

    fn words(&mut self, words: &[u64]) {
        let number = self.chunk.unwrap();
        let at = SLABS_OFFSET + number as usize * PAGE_BYTES + HEADER_BYTES + self.used;
        for (n, word) in words.iter().enumerate() {
            self.spool.at::<AtomicU64>(at + 8 * n).store(*word, Relaxed);
        }
        self.used += words.len() * 8;
        let header = self.spool.chunk(number);
        header.committed.store(self.used as u32, Release);
    }

    fn ready(&mut self, tsc: u64) -> bool {
        if self.room() < RECORD_BYTES_MAX + UNIT_BYTES && !self.next(tsc) {
            self.dropped += 1;
            return false;
        }
        if tsc.wrapping_sub(self.base) > DELTA_MASK {
            self.base = tsc;
            self.words(&[CODE_BASE, tsc]);
        }
        true
    }

    /// Records a call.
    pub fn push(&mut self, record: &Record) {
        if self.spool.is_paused() || !self.ready(record.tsc) {
            return;
        }
        let mut bytes = [0; RECORD_BYTES_MAX];
        let length = encode(record, self.base, &mut bytes).unwrap();
        let mut words = [0; RECORD_BYTES_MAX / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap());
        }
        self.words(&words[..length / 8]);
        self.calls += 1;
        self.counters.calls[record.entry.kind() as usize] += 1;
        if record.entry.kind() != Kind::Free {
            self.counters.bytes = self.counters.bytes.wrapping_add(record.size);
        }
        self.counters.sum = content_sum(self.counters.sum, record);
        let header = self.spool.chunk(self.chunk.unwrap());
        header.calls[record.entry.kind() as usize]
            .store(self.counters.calls[record.entry.kind() as usize], Relaxed);
        header.bytes.store(self.counters.bytes, Relaxed);
        header.sum.store(self.counters.sum, Relaxed);
    }

    /// Leaves a mark.
    pub fn mark(&mut self, number: u64, value: u64, tsc: u64) {
        if self.ready(tsc) {
            let delta = tsc - self.base;
            self.words(&[value << 16 | CODE_MARK, number << DELTA_BITS | delta]);
        }
    }
}
