//! What watches the operations of a replay while it touches their blocks. One belongs to each replaying thread; those
//! that only touch ([`crate::touch`]) watch nothing, and the inner loop has no instruction for it then.

use crate::slot::Slot;

/// A watcher of operations.
pub trait Probe {
    /// An operation begins: nothing of it has been done yet.
    #[inline(always)]
    fn begins(&mut self) {}

    /// The operation that began last has ended well. `word` is its own, without the wide word before it; `number` and
    /// `slot` are those of its block, which a free leaves as they were; `aligned`: an alignment was asked for.
    #[inline(always)]
    fn ended(&mut self, word: u64, number: usize, slot: &Slot, aligned: bool) {
        let _ = (word, number, slot, aligned);
    }
}
