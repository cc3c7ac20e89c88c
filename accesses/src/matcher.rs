//! Matches accesses with blocks. The program's stores to its recorder's memory are in the same stream as its accesses:
//! the store that publishes a call is that call's place among them. Whether the allocator is at work is seen by the stores to the guard
//! of the thread's state (`docs/spool.md`, `state_at`): one begins a call, one ends it.

use crate::block::{Block, Blocks};
use crate::dead::Dead;
use crate::error::AccessError;
use crate::file::Writer;
use crate::line::{Access, Sink};
use crate::maps::{Kind as Memory, Maps};
use crate::record::BlockRecord;
use crate::spool::{Spool, Stored};
use crate::summary::{AfterFree, Summary, ThreadCalls};
use rmtrace_format::Kind;
use rmtrace_format::record::{Record, content_sum};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;

/// Kinds of instructions whose accesses after a free are told apart.
const SITES_MAX: usize = 100;
/// Bytes of the guard.
const GUARD_BYTES: u32 = 8;

/// Where a thread is.
#[derive(Clone, Debug, Default)]
struct Thread {
    /// Address of its guard; 0: not known.
    guard: u64,
    /// A recorded call is at work.
    inside: bool,
    /// Its record was published.
    published: bool,
    /// The guard was read since it was stored to.
    looked: bool,
    /// It has a chunk: not before its first call, not after its last, when the C library takes down its caches of blocks.
    recording: bool,
    /// There was an access.
    seen: bool,
}

/// Takes a stream of accesses.
pub struct Matcher<W> {
    writer: Writer<W>,
    spool: Option<Spool>,
    /// Text of the process' mappings, if there is any.
    mappings: Box<dyn FnMut() -> Option<String>>,
    maps: Maps,
    /// Accesses without a known mapping, and when the mappings are looked at next.
    unknown: u64,
    look_at: u64,
    blocks: Blocks,
    dead: Dead,
    /// Blocks that lost their address while a realloc of them may have been at work.
    displaced: HashMap<u64, Block>,
    /// By Valgrind's number.
    threads: Vec<Thread>,
    current: usize,
    /// Address of the last instruction in digits.
    code: [u8; 16],
    sites: HashMap<u64, AfterFree>,
    gap: u64,
    instructions: u64,
    calls: u64,
    summary: Summary,
    error: Option<AccessError>,
}

impl<W: Write> Matcher<W> {
    /// Matches into a file. Accesses of a block at most `gap_instructions` apart are one span. `mappings` gives the text
    /// of the process' `/proc/PID/maps`.
    pub fn new(
        writer: Writer<W>,
        gap_instructions: u64,
        mappings: Box<dyn FnMut() -> Option<String>>,
    ) -> Matcher<W> {
        Matcher {
            writer,
            spool: None,
            mappings,
            maps: Maps::default(),
            unknown: 0,
            look_at: 0,
            blocks: Blocks::new(),
            dead: Dead::default(),
            displaced: HashMap::new(),
            threads: vec![Thread::default(); 2],
            current: 1,
            code: [0; 16],
            sites: HashMap::new(),
            gap: gap_instructions,
            instructions: 0,
            calls: 0,
            summary: Summary {
                gap_instructions,
                ..Summary::default()
            },
            error: None,
        }
    }

    /// Whether the spool is known.
    pub fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// Takes a file that may be the spool. It counts once its header is complete.
    ///
    /// # Errors
    /// When it can't be followed.
    pub fn offer_spool(&mut self, file: File) -> Result<(), AccessError> {
        self.spool = Spool::open(file)?;
        Ok(())
    }

    /// What has gone wrong so far.
    pub fn error(&mut self) -> Option<AccessError> {
        self.error.take()
    }

    /// Instructions so far.
    pub fn instructions(&self) -> u64 {
        self.instructions
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// The stream is over: everything is written but the summary, which `complete` may add to.
    ///
    /// # Errors
    /// When something went wrong before, or the file can't be written.
    pub fn finish(
        mut self,
        complete: impl FnOnce(&mut Summary),
    ) -> Result<(W, Summary), AccessError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let left: Vec<Block> = self.displaced.drain().map(|(_, block)| block).collect();
        for block in left {
            self.end(block, Some(self.calls));
        }
        self.summary.blocks.live_at_end = self.blocks.len() as u64;
        let live: Vec<Block> = self.blocks.drain().collect();
        for block in live {
            self.end(block, None);
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut after_free: Vec<AfterFree> = self.sites.into_values().collect();
        after_free.sort_by_key(|site| (std::cmp::Reverse(site.accesses), site.code));
        let summary = &mut self.summary;
        summary.after_free = after_free;
        summary.freed_unwatched = self.dead.left_out;
        summary.instructions = self.instructions;
        summary.calls = self.calls;
        complete(summary);
        let out = self.writer.finish(&self.summary)?;
        Ok((out, self.summary))
    }

    fn fail(&mut self, error: AccessError) {
        self.error.get_or_insert(error);
    }

    fn write(&mut self, record: BlockRecord) {
        self.summary.spans.crossing += record.crossing.len() as u64;
        if let Err(error) = self.writer.block(record) {
            self.fail(error);
        }
    }

    fn end(&mut self, block: Block, call: Option<u64>) {
        let record = block.finish(call);
        let blocks = &mut self.summary.blocks;
        blocks.recorded += 1;
        blocks.never_touched += u64::from(record.accesses() == 0);
        blocks.never_read += u64::from(record.reads == 0);
        self.summary.spans.all += record.spans;
        self.write(record);
    }

    fn begin(&mut self, address: u64, bytes: u64, stamp: u64, call: u64) {
        let block = Block::new(address, bytes, stamp, call, self.instructions);
        self.put(block);
    }

    fn put(&mut self, block: Block) {
        self.dead
            .clear(block.start, block.start.saturating_add(block.bytes.max(1)));
        let address = block.start;
        if let Some(other) = self.blocks.insert(block) {
            // Freed unseen, or within a realloc of another thread that has not said so yet.
            if let Some(earlier) = self.displaced.insert(address, other) {
                self.end(earlier, Some(self.calls));
            }
        }
    }

    /// A call was published.
    fn called(&mut self, thread: u32, call: &Record) {
        let number = self.calls;
        self.calls += 1;
        if let Err(error) = self.writer.called(thread) {
            self.fail(error);
        }
        let threads = &mut self.summary.threads;
        if threads.len() <= thread as usize {
            threads.resize_with(thread as usize + 1, ThreadCalls::default);
        }
        let counted = &mut threads[thread as usize];
        counted.calls += 1;
        counted.sum = content_sum(counted.sum, call);
        match call.entry.kind() {
            Kind::Free => {
                if let Some(block) = self.blocks.remove(call.address) {
                    self.dead.add(block.start, block.bytes, block.record.birth);
                    self.end(block, Some(number));
                }
            }
            Kind::Realloc => self.resized(call, number),
            _ if call.address != 0 => self.begin(call.address, call.size, call.tsc, number),
            _ => {}
        }
    }

    fn resized(&mut self, call: &Record, number: u64) {
        let (old, new) = (call.address, call.new_address);
        if old == 0 {
            if new != 0 {
                self.begin(new, call.size, call.tsc_end, number);
            }
            return;
        }
        if new == 0 && !call.freed {
            return;
        }
        // Its place may have been given out again before it said that it left.
        let taken = self
            .blocks
            .at(old)
            .is_some_and(|block| block.stamp > call.tsc);
        let block = match taken {
            true => self.displaced.remove(&old),
            false => self.blocks.remove(old),
        };
        let Some(mut block) = block else {
            if new != 0 {
                self.begin(new, call.size, call.tsc_end, number);
            }
            return;
        };
        if !taken && new != old {
            self.dead.add(block.start, block.bytes, block.record.birth);
        }
        if new == 0 {
            return self.end(block, Some(number));
        }
        (block.start, block.bytes, block.stamp) = (new, call.size, call.tsc_end);
        self.put(block);
    }

    /// A store to the recorder's memory.
    #[inline(never)]
    fn recorded(&mut self, offset: u64) {
        let Some(spool) = &mut self.spool else {
            return;
        };
        let stored = match spool.stored(offset) {
            Ok(stored) => stored,
            Err(error) => return self.fail(error),
        };
        let thread = &mut self.threads[self.current];
        match stored {
            Stored::Nothing => {}
            Stored::Closed { state_at } => {
                if thread.guard == state_at {
                    thread.recording = false;
                }
            }
            Stored::Note { state_at } | Stored::Call { state_at, .. } => {
                *thread = Thread {
                    guard: state_at,
                    inside: true,
                    published: true,
                    looked: false,
                    recording: true,
                    seen: true,
                };
            }
        }
        if let Stored::Call { thread, call, .. } = stored {
            self.called(thread, &call);
        }
    }

    /// An access to the guard.
    #[inline]
    fn guarded(&mut self, access: Access) {
        let thread = &mut self.threads[self.current];
        match access {
            Access::Load => thread.looked = true,
            // Our own code begins or ends: the call goes on.
            Access::Modify => {}
            Access::Store => {
                // A call that was left by a jump is followed by another one, without an end of its own.
                let again = thread.inside && !thread.published && thread.looked;
                thread.inside = !thread.inside || again;
                thread.published = false;
                thread.looked = false;
            }
        }
    }

    /// An access to what is no block.
    #[inline(never)]
    fn elsewhere(&mut self, access: Access, address: u64) {
        if let Some(place) = self.dead.find(address)
            && self.threads[self.current].recording
        {
            self.summary.places.freed += 1;
            return self.after_free(access, address, place.start, place.bytes, place.birth);
        }
        let places = &mut self.summary.places;
        match self.maps.kind(address) {
            Some(Memory::Stack) => places.stack += 1,
            Some(Memory::File) => places.files += 1,
            Some(Memory::Other) => places.other += 1,
            None => {
                self.unknown += 1;
                if self.unknown > self.look_at {
                    self.look();
                    self.look_at = self.unknown + self.unknown / 4;
                    // With what is known by now.
                    let places = &mut self.summary.places;
                    match self.maps.kind(address) {
                        Some(Memory::Stack) => places.stack += 1,
                        Some(Memory::File) => places.files += 1,
                        _ => places.other += 1,
                    }
                } else {
                    places.other += 1;
                }
            }
        }
    }

    fn look(&mut self) {
        if let Some(text) = (self.mappings)() {
            self.maps.read(&text);
        }
    }

    fn code_address(&self) -> u64 {
        let digits = self
            .code
            .iter()
            .map_while(|byte| (*byte as char).to_digit(16));
        digits.fold(0, |address, digit| address << 4 | u64::from(digit))
    }

    #[cold]
    fn after_free(&mut self, access: Access, address: u64, start: u64, bytes: u64, birth: u64) {
        let code = self.code_address();
        if !self.sites.contains_key(&code) {
            if self.sites.len() >= SITES_MAX {
                return;
            }
            if self.maps.code(code).is_none() {
                self.look();
            }
            let (file, file_offset) = self.maps.code(code).unwrap_or_default();
            let site = AfterFree {
                code,
                file: file.to_string(),
                file_offset,
                accesses: 0,
                birth,
                bytes,
                offset: address - start,
                writes: access != Access::Load,
            };
            self.sites.insert(code, site);
        }
        if let Some(site) = self.sites.get_mut(&code) {
            site.accesses += 1;
        }
    }

    #[cold]
    fn first_of_thread(&mut self, address: u64) {
        self.threads[self.current].seen = true;
        self.look();
        self.maps.stack_at(address);
    }
}

impl<W: Write> Sink for Matcher<W> {
    #[inline]
    fn instructions(&mut self, count: u64, last: &[u8]) {
        self.instructions += count;
        let length = last.len().min(self.code.len());
        self.code[..length].copy_from_slice(&last[..length]);
    }

    #[inline]
    fn access(&mut self, access: Access, address: u64, bytes: u32) {
        let (reads, writes) = match access {
            Access::Load => {
                self.summary.accesses.loads += 1;
                (true, false)
            }
            Access::Store => {
                self.summary.accesses.stores += 1;
                (false, true)
            }
            Access::Modify => {
                self.summary.accesses.modifies += 1;
                (true, true)
            }
        };
        let thread = &self.threads[self.current];
        if !thread.seen {
            self.first_of_thread(address);
        }
        let thread = &self.threads[self.current];
        let (inside, is_guard) = (
            thread.inside,
            address == thread.guard && bytes == GUARD_BYTES,
        );
        if let Some(spool) = &self.spool {
            let offset = address.wrapping_sub(spool.start);
            if offset < spool.bytes {
                self.summary.places.allocator += u64::from(inside);
                self.summary.places.recorder += u64::from(!inside);
                if writes {
                    self.recorded(offset);
                }
                return;
            }
        }
        if is_guard {
            self.summary.places.allocator += u64::from(inside);
            self.summary.places.recorder += u64::from(!inside);
            return self.guarded(access);
        }
        if inside {
            self.summary.places.allocator += 1;
            return;
        }
        let bytes = u64::from(bytes);
        if self.blocks.near(address, bytes)
            && let Some(block) = self.blocks.find(address, bytes)
        {
            self.summary.places.blocks += 1;
            if let Some(part) = block.access(reads, writes, self.instructions, self.calls, self.gap)
            {
                self.write(part);
            }
            return;
        }
        self.elsewhere(access, address);
    }

    fn thread(&mut self, number: u32, new: bool) {
        /// More than Valgrind has.
        const THREADS_MAX: usize = 1 << 16;
        let number = (number as usize).min(THREADS_MAX);
        if number >= self.threads.len() {
            self.threads.resize_with(number + 1, Thread::default);
        }
        // The first one is announced after the stream's beginning.
        if new && number != 1 {
            self.threads[number] = Thread::default();
        }
        self.current = number;
    }

    fn other(&mut self, _line: &[u8]) {
        self.summary.other_lines += 1;
    }
}
