//! Which block holds a key, and in which order keys were used: a hash table with a doubly linked list through it.
//! Keys, values and the comparing of keys are left to `cache.rs`: here are their hashes, blocks and lengths.
//!
//! An entry is 32 bytes and its bucket 4, in two arrays of their own pages (`region.rs`). The table grows and shrinks by one bucket at a
//! time (linear hashing), so no request waits for a table to be rebuilt. Entries are dense: the last one moves into
//! the place of one that is removed. So a position (`u32`) is good only until the next removal.
//!
//! Invariants, checked by `Index::check` in tests:
//! 1. Every entry is in the chain of the bucket of its hash, exactly once.
//! 2. The list from the newest entry leads over all entries to the oldest, and back.
//! 3. There are at least [`BUCKETS_MIN`] buckets, and at least as many as entries as long as both fit.

use super::region::{Plain, Region};
use std::io;

/// No entry.
const NONE: u32 = u32::MAX;
/// Least buckets; a power of two.
const BUCKETS_MIN: usize = 64;

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// What the store calls the block with the key and the value.
    pub block: u64,
    /// Hash of the key.
    pub hash: u32,
    /// Bytes of the key, which the block starts with.
    pub key_bytes: u32,
    /// Bytes of the value, which follow.
    pub value_bytes: u32,
    /// Next entry of the bucket.
    chain: u32,
    newer: u32,
    older: u32,
}

impl Entry {
    /// Bytes of key and value.
    pub fn bytes(&self) -> u64 {
        u64::from(self.key_bytes) + u64::from(self.value_bytes)
    }
}

const _: () = assert!(size_of::<Entry>() == 32);

// SAFETY: numbers only, without padding (8 + 6 * 4 = 32 bytes).
unsafe impl Plain for Entry {}

/// A hash table with an order of use.
pub struct Index {
    entries: Region<Entry>,
    buckets: Region<u32>,
    newest: u32,
    oldest: u32,
}

impl Index {
    /// An empty index for at most `entries_max` entries.
    ///
    /// # Errors
    /// The address space for them can't be had.
    pub fn new(entries_max: usize) -> io::Result<Index> {
        let entries_max = entries_max.min(NONE as usize);
        let mut buckets = Region::new(entries_max.max(BUCKETS_MIN))?;
        for _ in 0..BUCKETS_MIN {
            buckets.push(NONE);
        }
        Ok(Index {
            entries: Region::new(entries_max)?,
            buckets,
            newest: NONE,
            oldest: NONE,
        })
    }

    /// Entries.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Whether no entry more fits.
    pub fn is_full(&self) -> bool {
        self.entries.is_full()
    }

    /// Bytes of all pages of the index.
    pub fn bytes(&self) -> usize {
        self.entries.touched_bytes() + self.buckets.touched_bytes()
    }

    /// The entry at a position.
    pub fn entry(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }

    /// Positions of the entries with this hash, whatever their keys are.
    pub fn with_hash(&self, hash: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.buckets[self.bucket(hash)];
        std::iter::from_fn(move || {
            while next != NONE {
                let at = next;
                next = self.entry(at).chain;
                if self.entry(at).hash == hash {
                    return Some(at);
                }
            }
            None
        })
    }

    /// Position of the entry that was not used for longest.
    pub fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Adds an entry as the newest.
    ///
    /// # Panics
    /// The index is full.
    pub fn insert(&mut self, hash: u32, block: u64, key_bytes: u32, value_bytes: u32) {
        let at = self.entries.len() as u32;
        let bucket = self.bucket(hash);
        self.entries.push(Entry {
            block,
            hash,
            key_bytes,
            value_bytes,
            chain: self.buckets[bucket],
            newer: NONE,
            older: NONE,
        });
        self.buckets[bucket] = at;
        self.link_newest(at);
        if self.entries.len() > self.buckets.len() && !self.buckets.is_full() {
            self.split();
        }
    }

    /// Gives an entry another block with another value; returns what it was before.
    pub fn replace(&mut self, at: u32, block: u64, value_bytes: u32) -> Entry {
        let entry = &mut self.entries[at as usize];
        let before = *entry;
        entry.block = block;
        entry.value_bytes = value_bytes;
        before
    }

    /// Makes an entry the newest.
    pub fn touch(&mut self, at: u32) {
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    /// Takes an entry out. Positions found before are void.
    pub fn remove(&mut self, at: u32) -> Entry {
        let chain = self.entry(at).chain;
        self.redirect(at, chain);
        self.unlink(at);
        let removed = *self.entry(at);
        let last = self.entries.len() as u32 - 1;
        if at != last {
            self.redirect(last, at);
            let moved = *self.entry(last);
            self.entries[at as usize] = moved;
            match moved.newer {
                NONE => self.newest = at,
                newer => self.entries[newer as usize].older = at,
            }
            match moved.older {
                NONE => self.oldest = at,
                older => self.entries[older as usize].newer = at,
            }
        }
        self.entries.pop();
        // Some more buckets than entries are kept, so that neither is made and removed in turn.
        if self.buckets.len() > BUCKETS_MIN
            && self.entries.len() < self.buckets.len() - self.buckets.len() / 8
        {
            self.merge();
        }
        removed
    }

    /// The bucket of a hash: its low bits, one fewer for buckets that were not split yet.
    fn bucket(&self, hash: u32) -> usize {
        let wide = hash as usize & (self.buckets.len().next_power_of_two() - 1);
        if wide < self.buckets.len() {
            wide
        } else {
            wide & ((self.buckets.len().next_power_of_two() >> 1) - 1)
        }
    }

    /// Lets whatever leads to entry `from` in its chain lead to `to`.
    fn redirect(&mut self, from: u32, to: u32) {
        let bucket = self.bucket(self.entry(from).hash);
        let mut at = self.buckets[bucket];
        if at == from {
            self.buckets[bucket] = to;
            return;
        }
        while self.entry(at).chain != from {
            at = self.entry(at).chain;
        }
        self.entries[at as usize].chain = to;
    }

    fn unlink(&mut self, at: u32) {
        let Entry { newer, older, .. } = *self.entry(at);
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let before = self.newest;
        let entry = &mut self.entries[at as usize];
        entry.newer = NONE;
        entry.older = before;
        self.newest = at;
        match before {
            NONE => self.oldest = at,
            before => self.entries[before as usize].newer = at,
        }
    }

    /// Adds a bucket, and puts into it what belongs there of the one that it is split from.
    fn split(&mut self) {
        let new = self.buckets.len();
        let from = new & !(1 << new.ilog2());
        let mut at = self.buckets[from];
        self.buckets.push(NONE);
        let (mut stays, mut goes) = (NONE, NONE);
        while at != NONE {
            let next = self.entry(at).chain;
            let list = if self.bucket(self.entry(at).hash) == new {
                &mut goes
            } else {
                &mut stays
            };
            self.entries[at as usize].chain = std::mem::replace(list, at);
            at = next;
        }
        self.buckets[from] = stays;
        self.buckets[new] = goes;
    }

    /// Takes the last bucket off, and puts its entries into the one it was split from.
    fn merge(&mut self) {
        let mut at = self.buckets.pop().expect("more than the least");
        let last = self.buckets.len();
        let into = last & !(1 << last.ilog2());
        while at != NONE {
            let next = self.entry(at).chain;
            self.entries[at as usize].chain = std::mem::replace(&mut self.buckets[into], at);
            at = next;
        }
    }

    /// Checks every invariant, in time that grows with the number of entries.
    ///
    /// # Panics
    /// One does not hold.
    #[cfg(test)]
    pub fn check(&self) {
        let mut chained = vec![false; self.entries()];
        for (bucket, &first) in self.buckets.iter().enumerate() {
            let mut at = first;
            while at != NONE {
                assert_eq!(self.bucket(self.entry(at).hash), bucket, "entry {at}");
                assert!(
                    !std::mem::replace(&mut chained[at as usize], true),
                    "entry {at} is chained twice"
                );
                at = self.entry(at).chain;
            }
        }
        assert!(
            chained.iter().all(|&chained| chained),
            "an entry is in no chain"
        );
        let (mut at, mut newer, mut listed) = (self.newest, NONE, 0);
        while at != NONE {
            assert_eq!(self.entry(at).newer, newer, "entry {at}");
            listed += 1;
            assert!(listed <= self.entries(), "the list of use has a cycle");
            (newer, at) = (at, self.entry(at).older);
        }
        assert_eq!(self.oldest, newer);
        assert_eq!(listed, self.entries(), "an entry is not in the list of use");
        assert!(self.buckets.len() >= BUCKETS_MIN.max(self.entries()));
    }
}
