//! Lock rules that a program carries: before and after each operation they say which blocks are locked and unlocked. A
//! file for each rule; `prepare.rs` writes what they say, docs/replay.md defines them.

mod old;
mod score;
mod spans;

pub use old::{Lifetimes, Old};
pub use score::Score;
pub use spans::Spans;

use crate::heap::Change;
use std::path::Path;

/// A rule as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule<'a> {
    /// Own operations count for a block, others' against it.
    Score,
    /// A share of the blocks for life, in millionths: those that live longest.
    Old(u32),
    /// When recorded accesses used them: the file.
    Accesses(&'a Path),
}

/// A lock or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The block's slot.
    pub slot: u32,
    /// It is locked; else it is unlocked.
    pub locks: bool,
}

/// A rule at work.
#[derive(Debug)]
pub enum Holder {
    /// See [`Rule::Score`].
    Score(Score),
    /// See [`Rule::Old`].
    Old(Old),
    /// The lifetimes that [`Rule::Old`] needs are looked up: nothing is locked.
    Lifetimes(Lifetimes),
    /// See [`Rule::Accesses`].
    Accesses(Spans),
}

impl Holder {
    /// What is due before a change that a thread's event makes.
    #[inline]
    fn before(&mut self, thread: u32, out: &mut Vec<Turn>) {
        if let Holder::Accesses(spans) = self {
            spans.before(thread, out);
        }
    }

    /// What is due after it.
    #[inline]
    fn after(&mut self, time_ns: u64, thread: u32, change: Change, out: &mut Vec<Turn>) {
        match self {
            Holder::Score(score) => score.after(change, out),
            Holder::Old(old) => old.after(change, out),
            Holder::Lifetimes(lifetimes) => lifetimes.after(time_ns, change),
            Holder::Accesses(spans) => spans.after(thread, change, out),
        }
    }
}

/// A rule, and which blocks are locked.
#[derive(Debug)]
pub struct Locked {
    /// The rule.
    pub holder: Holder,
    /// By slot.
    held: Vec<bool>,
    /// How many.
    pub blocks: u64,
    turns: Vec<Turn>,
}

impl Locked {
    /// Nothing is locked yet.
    pub fn new(holder: Holder) -> Locked {
        Locked {
            holder,
            held: Vec::new(),
            blocks: 0,
            turns: Vec::new(),
        }
    }

    /// Locks and ends of locks that come before a change.
    pub fn before(&mut self, thread: u32) -> Vec<Turn> {
        let mut turns = std::mem::take(&mut self.turns);
        self.holder.before(thread, &mut turns);
        self.keep(turns)
    }

    /// Those that come after it.
    pub fn after(&mut self, time_ns: u64, thread: u32, change: Change) -> Vec<Turn> {
        if let Change::Freed { slot, .. } | Change::Displaced { slot, .. } = change {
            self.set(slot, false);
        }
        let mut turns = std::mem::take(&mut self.turns);
        self.holder.after(time_ns, thread, change, &mut turns);
        self.keep(turns)
    }

    /// Those that change something.
    fn keep(&mut self, mut turns: Vec<Turn>) -> Vec<Turn> {
        turns.retain(|turn| self.set(turn.slot, turn.locks));
        turns
    }

    /// The list comes back to be used again.
    pub fn done(&mut self, mut turns: Vec<Turn>) {
        turns.clear();
        self.turns = turns;
    }

    fn set(&mut self, slot: u32, locks: bool) -> bool {
        let at = slot as usize;
        if at >= self.held.len() {
            self.held.resize(at + 1, false);
        }
        let changes = self.held[at] != locks;
        self.held[at] = locks;
        match (changes, locks) {
            (true, true) => self.blocks += 1,
            (true, false) => self.blocks -= 1,
            _ => {}
        }
        changes
    }
}
