//! What a heap holds at a moment.

use crate::class::ENTRY_BYTES;
use crate::compact::Compaction;
use crate::heap::Heap;
use crate::platform::PAGE;
use crate::region::owner;
use core::sync::atomic::Ordering::Relaxed;

/// Figures of a heap. Bytes are of memory as handed out: usable, not as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stats {
    /// Blocks that live. Exact while no other thread is in a call.
    pub live_blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
    /// Of these, blocks with pages of their own.
    pub large_blocks: u64,
    /// Bytes that are resident by the heap's own books, tables included.
    pub resident_bytes: u64,
    /// Of these, bytes of the handle table.
    pub table_bytes: u64,
    /// Of these, bytes that no block uses and that wait to be used again.
    pub dirty_bytes: u64,
    /// Bytes of address range in use.
    pub span_bytes: u64,
    /// Entries that exist.
    pub entries: u64,
    /// Entries of blocks, and those that threads keep.
    pub entries_taken: u64,
    /// Entries that are never used again, as their generations are used up.
    pub entries_retired: u64,
    /// Threads that use the heap.
    pub threads: u64,
    /// Feature `beside`: slots that hold nothing but the entry of a block elsewhere. Else 0.
    pub stranded_slots: u64,
    /// Their bytes that no block can use while the entries live: of larger slots, what their last page has.
    pub stranded_bytes: u64,
    /// Sums over all compaction.
    pub compaction: Compaction,
}

impl Heap {
    /// Looks at all regions. Cost: some nanoseconds a span, and a step of compaction if one is under way.
    pub fn stats(&self) -> Stats {
        let compaction = self.compaction();
        self.mutex.lock(&self.platform);
        let mut stats = Stats {
            compaction,
            threads: self.threads.load(Relaxed) as u64,
            ..Stats::default()
        };
        // SAFETY: the mutex is held.
        unsafe {
            let guarded = self.guarded();
            for span in self.first_span()..guarded.ready {
                let region = self.region(span);
                let who = region.owner();
                if guarded.spans.is_taken(span)
                    && (who < owner::CACHES || who == owner::NONE || who == owner::COMPACTOR)
                {
                    let used = region.held() as u64;
                    stats.live_blocks += used;
                    stats.live_bytes += used * (region.slot_bytes() - ENTRY_BYTES as u64);
                    let stranded = region.stranded.load(Relaxed) as u64;
                    stats.stranded_slots += stranded;
                    stats.stranded_bytes += stranded * region.slot_bytes().min(PAGE as u64);
                }
            }
            stats.live_blocks += guarded.large_blocks;
            stats.live_bytes += guarded.large_bytes;
            stats.large_blocks = guarded.large_blocks;
            stats.table_bytes = guarded.table.resident_bytes();
            stats.dirty_bytes = self.dirty_bytes.load(Relaxed);
            let books =
                (guarded.ready * (64 + self.span_bytes() / 256)).next_multiple_of(PAGE) as u64;
            stats.resident_bytes = self.resident_bytes.load(Relaxed) + stats.table_bytes + books;
            stats.span_bytes = (guarded.spans.taken * self.span_bytes()) as u64;
            stats.entries = guarded.table.entries() as u64;
            stats.entries_taken = guarded.table.taken;
            stats.entries_retired = guarded.table.retired;
        }
        self.mutex.unlock(&self.platform);
        stats
    }
}
