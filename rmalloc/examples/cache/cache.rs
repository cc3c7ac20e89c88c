//! What is kept: keys with their values, up to a limit of their bytes; the least recently used go first. Blocks are the
//! store's, their order and hashes the index'. Protocol and time are left to others.

use super::index::{Entry, Index};
use super::store::{Figures, Step, Store};
use std::hash::{BuildHasher, RandomState};
use std::io;

/// Most blocks that renewing has replaced and not given back, most of their bytes, and how many go at once.
const OUTDATED_MAX: usize = 4096;
const OUTDATED_BYTES: usize = 4 << 20;
const OUTDATED_STEP: usize = 256;

/// Why a value was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Key and value alone are above the limit.
    AboveLimit,
    /// The store has no memory, even with nothing else kept.
    OutOfMemory,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Values that were stored.
    pub stored: u64,
    /// Entries that went to make room.
    pub evictions: u64,
    /// Bytes of keys and values whose blocks were given back, for whatever reason.
    pub freed_bytes: u64,
}

/// Keys with their values.
pub struct Cache<S: Store> {
    store: S,
    index: Index,
    /// Indexes of what was flushed; their blocks are freed bit by bit.
    flushed: Vec<Index>,
    /// Blocks that entries held before they were renewed.
    outdated: Vec<u64>,
    /// Their bytes of keys and values; as many as may be while they are given back.
    outdated_bytes: usize,
    hashes: RandomState,
    limit_bytes: u64,
    live_bytes: u64,
    counts: Counts,
}

// Invariant: the block of each entry, in `index` and in `flushed`, came from `store.put` with `key_bytes + value_bytes`
// bytes, is the entry's alone, and is removed when the entry is; those in `outdated` are nobody's any more. `live_bytes` is the sum of these bytes in `index`.

impl<S: Store> Cache<S> {
    /// An empty cache for `limit_bytes` bytes of keys and values. Room for entries is reserved as for 16 bytes each; with
    /// shorter ones the oldest go earlier.
    ///
    /// # Errors
    /// The address space for the index can't be had.
    pub fn new(store: S, limit_bytes: u64) -> io::Result<Self> {
        Ok(Cache {
            store,
            index: Index::new(Self::entries_max(limit_bytes))?,
            flushed: Vec::new(),
            outdated: Vec::new(),
            outdated_bytes: 0,
            hashes: RandomState::new(),
            limit_bytes,
            live_bytes: 0,
            counts: Counts::default(),
        })
    }

    fn entries_max(limit_bytes: u64) -> usize {
        usize::try_from(limit_bytes / 16)
            .unwrap_or(usize::MAX)
            .max(64)
    }

    /// Entries that are kept.
    pub fn entries(&self) -> usize {
        self.index.entries()
    }

    /// Bytes of their keys and values, as they came.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Most bytes of keys and values.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Bytes of the index, which no allocator holds.
    pub fn index_bytes(&self) -> u64 {
        let all = self.flushed.iter().chain([&self.index]);
        all.map(|index| index.bytes() as u64).sum()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Gives the value of a key to `look`, and makes it the newest. `None`: there is none.
    pub fn get<R>(&mut self, key: &[u8], look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let found = self.find(key, look);
        match &found {
            Some((at, _)) => {
                self.counts.hits += 1;
                self.index.touch(*at);
            }
            None => self.counts.misses += 1,
        }
        found.map(|(_, seen)| seen)
    }

    /// Length of the value of a key; its age stays.
    pub fn value_bytes(&self, key: &[u8]) -> Option<u32> {
        let (at, ()) = self.find(key, |_| ())?;
        Some(self.index.entry(at).value_bytes)
    }

    /// Keeps a value under a key, as the newest. While it is done, its bytes come on top of the limit.
    ///
    /// # Errors
    /// It can't be kept; what was kept under this key stays, unless it had to go for memory.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refused> {
        let bytes = (key.len() + value.len()) as u64;
        if bytes > self.limit_bytes {
            return Err(Refused::AboveLimit);
        }
        let block = loop {
            match self.store.put(key, value) {
                Some(block) => break block,
                None if !self.free_some() => return Err(Refused::OutOfMemory),
                None => {}
            }
        };
        let value_bytes = value.len() as u32;
        match self.find(key, |_| ()) {
            Some((at, ())) => {
                let before = self.index.replace(at, block, value_bytes);
                self.index.touch(at);
                self.live_bytes -= u64::from(before.value_bytes);
                self.live_bytes += u64::from(value_bytes);
                self.give_back(before);
            }
            None => {
                if self.index.is_full() {
                    self.evict();
                }
                self.index
                    .insert(self.hash(key), block, key.len() as u32, value_bytes);
                self.live_bytes += bytes;
            }
        }
        self.counts.stored += 1;
        // The new one is the newest and within the limit alone, so it is never reached.
        while self.live_bytes > self.limit_bytes {
            self.evict();
        }
        Ok(())
    }

    /// Forgets a key. Whether there was one.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let found = self.find(key, |_| ());
        if let Some((at, ())) = found {
            self.take_out(at);
        }
        found.is_some()
    }

    /// Forgets everything at once. The blocks are freed by [`Cache::sweep`].
    ///
    /// # Errors
    /// The address space for a new index can't be had; everything stays.
    pub fn flush(&mut self) -> io::Result<()> {
        let empty = Index::new(Self::entries_max(self.limit_bytes))?;
        self.flushed.push(std::mem::replace(&mut self.index, empty));
        self.live_bytes = 0;
        Ok(())
    }

    /// Frees up to `count` blocks of what was flushed. Whether there are more.
    pub fn sweep(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some(index) = self.flushed.last_mut() else {
                return false;
            };
            match index.oldest() {
                Some(at) => {
                    let entry = index.remove(at);
                    self.give_back(entry);
                }
                None => drop(self.flushed.pop()),
            }
        }
        !self.flushed.is_empty()
    }

    /// One step of the store's compaction, if it has one.
    pub fn compact(&mut self, budget_ns: u64) -> Option<Step> {
        self.store.compact(budget_ns)
    }

    /// Copies entries from position `from` on into new blocks, some at a time: 64, or 64 KiB of them. Where to go on; `None` at
    /// the end, or when memory is short. The order of use stays.
    ///
    /// Blocks move without this; their handles don't. A new handle is in the lowest free place of the table, so a
    /// table that was large once becomes small again when all handles are new. Old blocks are collected and given
    /// back many together: handles that were given back last are the first to be used again.
    pub fn renew(&mut self, from: usize) -> Option<usize> {
        if self.outdated_bytes >= OUTDATED_BYTES || self.outdated.len() >= OUTDATED_MAX {
            self.outdated_bytes = OUTDATED_BYTES;
            self.give_back_outdated(OUTDATED_STEP);
            return Some(from);
        }
        let end = self.index.entries();
        let mut copied = 0;
        for at in from..end {
            if at == from + 64 || copied > 64 << 10 {
                return Some(at);
            }
            let entry = *self.index.entry(at as u32);
            let bytes = entry.bytes() as usize;
            // SAFETY: the entry's block was put with these bytes and is held (invariant of `Cache`).
            let copy = unsafe { self.store.read(entry.block, bytes, <[u8]>::to_vec) };
            let Some(block) = self.store.put(&copy, &[]) else {
                break;
            };
            let before = self.index.replace(at as u32, block, entry.value_bytes);
            self.outdated.push(before.block);
            self.outdated_bytes += bytes;
            copied += bytes;
        }
        self.give_back_outdated(OUTDATED_STEP);
        (!self.outdated.is_empty()).then_some(end)
    }

    /// Gives back up to `count` of the blocks that renewing has replaced.
    fn give_back_outdated(&mut self, count: usize) {
        let left = self.outdated.len().saturating_sub(count);
        for block in self.outdated.drain(left..) {
            // SAFETY: an entry held this block until it got another, and nothing else did (invariant of `Cache`).
            unsafe { self.store.remove(block) };
        }
        if left == 0 {
            self.outdated_bytes = 0;
        }
    }

    /// What the store says of itself, if it can.
    pub fn figures(&self) -> Option<Figures> {
        self.store.figures()
    }

    /// Checks the invariants, in time that grows with the number of entries.
    ///
    /// # Panics
    /// One does not hold.
    #[cfg(test)]
    pub fn check(&self) {
        self.index.check();
        let entries = (0..self.index.entries()).map(|at| self.index.entry(at as u32));
        let live: u64 = entries.map(Entry::bytes).sum();
        assert_eq!(live, self.live_bytes);
        assert!(live <= self.limit_bytes);
    }

    fn hash(&self, key: &[u8]) -> u32 {
        self.hashes.hash_one(key) as u32
    }

    /// Where a key is, and what `look` made of its value.
    fn find<R>(&self, key: &[u8], look: impl FnOnce(&[u8]) -> R) -> Option<(u32, R)> {
        let mut look = Some(look);
        for at in self.index.with_hash(self.hash(key)) {
            let entry = self.index.entry(at);
            if entry.key_bytes as usize != key.len() {
                continue;
            }
            let bytes = key.len() + entry.value_bytes as usize;
            // SAFETY: the entry's block was put with these bytes and is held (invariant of `Cache`).
            let seen = unsafe {
                self.store.read(entry.block, bytes, |block| {
                    let (its_key, value) = block.split_at(key.len());
                    if its_key != key {
                        return None;
                    }
                    look.take().map(|look| look(value))
                })
            };
            if let Some(seen) = seen {
                return Some((at, seen));
            }
        }
        None
    }

    fn take_out(&mut self, at: u32) {
        let entry = self.index.remove(at);
        self.live_bytes -= entry.bytes();
        self.give_back(entry);
    }

    /// Gives back the block of an entry that was taken out or got another block.
    fn give_back(&mut self, entry: Entry) {
        self.counts.freed_bytes += entry.bytes();
        // SAFETY: the entry held this block until now, and nothing else did (invariant of `Cache`).
        unsafe { self.store.remove(entry.block) };
    }

    /// Lets the oldest entry go. Whether there was one.
    fn evict(&mut self) -> bool {
        let oldest = self.index.oldest();
        if let Some(at) = oldest {
            self.take_out(at);
            self.counts.evictions += 1;
        }
        oldest.is_some()
    }

    /// Frees a block or some, of what was flushed first. Whether there was any.
    fn free_some(&mut self) -> bool {
        if !self.outdated.is_empty() {
            self.give_back_outdated(OUTDATED_STEP);
            return true;
        }
        if !self.flushed.is_empty() {
            self.sweep(64);
            return true;
        }
        self.evict()
    }
}

impl<S: Store> Drop for Cache<S> {
    fn drop(&mut self) {
        self.give_back_outdated(usize::MAX);
        while self.evict() {}
        while self.sweep(1024) {}
    }
}
