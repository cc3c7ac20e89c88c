//! Resizes: where they left the block, what they may have copied, and growth chains: how often one
//! block was resized to more bytes in its life.

use crate::fact::{Fact, Measure, Peaks, What};
use serde::Serialize;

/// Growth chains of this many steps, `[low, high)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainBin {
    /// Fewest growths.
    pub low: u64,
    /// First number of growths above the class.
    pub high: u64,
    /// Blocks.
    pub blocks: u64,
}

/// What reallocs did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reallocs {
    /// Resizes of a known block: `in_place + moved`.
    pub resized: u64,
    /// Resizes that left the block at its address.
    pub in_place: u64,
    /// Resizes that gave it another address.
    pub moved: u64,
    /// Resizes to more bytes.
    pub grown: u64,
    /// Resizes to fewer bytes.
    pub shrunk: u64,
    /// Reallocs from NULL that returned a block.
    pub from_null: u64,
    /// Reallocs that returned NULL and ended the block.
    pub to_zero: u64,
    /// Bytes that moved resizes copied at most: the smaller of old and new size.
    pub bytes_copied_max: u64,
    /// Blocks that grew at least once.
    pub blocks_grown: u64,
    /// Most growths of one block.
    pub chain_longest: u64,
    /// Blocks that grew, by how often, in powers of two.
    pub chains: Vec<ChainBin>,
}

impl Measure for Reallocs {
    #[inline(always)]
    fn fact(&mut self, fact: &Fact, _: Peaks) {
        if fact.is_realloc() || fact.growths != 0 {
            self.take(fact);
        }
    }
}

impl Reallocs {
    fn take(&mut self, fact: &Fact) {
        let known = fact.flags & Fact::UNKNOWN == 0;
        match fact.what {
            What::Born => self.from_null += u64::from(known && fact.is_realloc()),
            What::Resized => {
                self.resize(fact.address != fact.old_address, fact.old_bytes, fact.bytes)
            }
            What::Freed | What::Displaced | What::Kept => {
                self.to_zero += u64::from(fact.what == What::Freed && fact.is_realloc());
                if !fact.is_inherited() {
                    self.chain(fact.growths);
                }
            }
            What::Nothing => self.to_zero += u64::from(!known && fact.is_realloc()),
        }
    }

    /// Counts the resize of a known block.
    pub fn resize(&mut self, moved: bool, from_bytes: u64, to_bytes: u64) {
        self.resized += 1;
        self.grown += u64::from(to_bytes > from_bytes);
        self.shrunk += u64::from(to_bytes < from_bytes);
        if moved {
            self.moved += 1;
            let copied = from_bytes.min(to_bytes);
            self.bytes_copied_max = self.bytes_copied_max.saturating_add(copied);
        } else {
            self.in_place += 1;
        }
    }

    /// A block that grew `growths` times ended, or the run did.
    pub fn chain(&mut self, growths: u32) {
        if growths != 0 {
            self.chains_of(u64::from(growths).ilog2(), 1);
            self.blocks_grown += 1;
            self.chain_longest = self.chain_longest.max(growths.into());
        }
    }

    fn chains_of(&mut self, power: u32, blocks: u64) {
        let low = 1u64 << power;
        match self.chains.binary_search_by_key(&low, |bin| bin.low) {
            Ok(at) => self.chains[at].blocks += blocks,
            Err(at) => self.chains.insert(
                at,
                ChainBin {
                    low,
                    high: low << 1,
                    blocks,
                },
            ),
        }
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Reallocs) {
        self.resized += other.resized;
        self.in_place += other.in_place;
        self.moved += other.moved;
        self.grown += other.grown;
        self.shrunk += other.shrunk;
        self.from_null += other.from_null;
        self.to_zero += other.to_zero;
        self.bytes_copied_max = self.bytes_copied_max.saturating_add(other.bytes_copied_max);
        self.blocks_grown += other.blocks_grown;
        self.chain_longest = self.chain_longest.max(other.chain_longest);
        for bin in &other.chains {
            self.chains_of(bin.low.ilog2(), bin.blocks);
        }
    }
}
