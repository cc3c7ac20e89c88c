//! The protocol as it is in src/, and everything that is left out or turned round in it one by one.

/// Each field is a rule of the protocol, true where it is kept.
#[derive(Clone)]
pub struct Protocol {
    /// Not a rule but a platform: there is no barrier, so each light barrier is a fence, and each barrier is one of the caller's own.
    pub fenced: bool,
    /// `Cache::try_lock`: the record is written before the entry is read.
    pub record_before_entry: bool,
    /// `Word::keyed`: a marked block is not locked on the fast path.
    pub owner_heeds_mark: bool,
    /// `Cache::unlock_slow`: the last record moves down before its old place is cleared.
    pub unlock_moves_first: bool,
    /// `Cache::try_free`: `op` is written before `paused` is read.
    pub op_before_paused: bool,
    /// `Cache::try_free`, `Cache::try_alloc`: nothing is done on the fast path while the owner is paused.
    pub owner_reads_paused: bool,
    /// `Cache::free`: a counted lock is heeded.
    pub free_reads_count: bool,
    /// `Cache::free_slow`: a lock in the owner's records is heeded.
    pub free_reads_records: bool,
    /// `Cache::try_free`: the entry ends by compare-and-swap as soon as another thread might free it as well.
    pub owner_frees_by_exchange: bool,
    /// `Cache::free_slow`: the entry ends by compare-and-swap.
    pub others_free_by_exchange: bool,
    /// An entry that is used again has a new generation.
    pub generation_grows: bool,
    /// `Cache::spill_locks`: the lock is counted before its record is cleared.
    pub spill_counts_first: bool,
    /// `Cache::lock_slow`: who counts a lock takes the mark away.
    pub counting_clears_mark: bool,
    /// `evacuate::mark`: the block is marked.
    pub mover_marks: bool,
    /// `evacuate::finish`: the barrier comes after the mark.
    pub mark_before_barrier: bool,
    /// `evacuate::finish`: there is a barrier.
    pub mover_has_barrier: bool,
    /// Not a rule: `evacuate::finish` leaves the barrier out while there is one thread.
    pub one_thread_needs_no_barrier: bool,
    /// `Heap::attach`: `Heap::threads` grows, by a locked instruction, before the new thread does anything else.
    pub attach_is_counted: bool,
    /// `evacuate::finish`: a lock in a record is heeded.
    pub mover_reads_records: bool,
    /// `Heap::is_recorded_by`: from the last record to the first.
    pub records_are_read_downwards: bool,
    /// `evacuate::finish`: the new place is entered by compare-and-swap from the marked word.
    pub mover_commits_by_exchange: bool,
    /// `compact::stop`: there is a barrier between `paused` and `op`.
    pub stop_has_barrier: bool,
    /// `compact::stop`: the owner has left its call.
    pub stop_waits: bool,
    /// `Cache::claim`: the block is pinned by a counted lock.
    pub claim_pins: bool,
    /// `Cache::claim`: the block is marked.
    pub claim_marks: bool,
    /// `Cache::claim` by another thread: there is a barrier after the mark.
    pub claim_has_barrier: bool,
    /// `Cache::claim` by another thread: a lock in a record is heeded.
    pub claim_reads_records: bool,
    /// `Cache::set_discardable`: the block is pinned and marked until it is known that no record has it.
    pub discardable_is_claimed: bool,
    /// `Region::push_remote`: the slot is told from one on the list.
    pub remote_is_marked: bool,
    /// `Region::push_remote`: the link is written before the slot is published.
    pub remote_link_first: bool,
    /// `Region::push_remote`: by compare-and-swap.
    pub remote_by_exchange: bool,
    /// `Region::collect`: by exchange.
    pub collects_by_exchange: bool,
    /// `Heap::end_alone`: there is a barrier between `paused` and `op`.
    pub attach_has_barrier: bool,
    /// `Heap::end_alone`: the thread that was alone has left its call.
    pub attach_waits: bool,
    /// `Heap::end_alone`: it is told.
    pub attach_ends_alone: bool,
    /// `Cache::unlock_slow`: the lock that a claim counts is nobody else's to give back.
    pub unlock_heeds_mark: bool,
    /// `Cache::give_slot`: `paused` is read before the region's owner.
    pub paused_before_region: bool,
    /// `Cache::resize_alone`: `paused` is read before `alone`.
    pub paused_before_alone: bool,
    /// `Cache::region_with_slot`: a fence after a full region is taken off the list.
    pub unlisting_has_fence: bool,
    /// `Cache::region_with_slot`: and another look at what others gave back.
    pub unlisting_looks_again: bool,
    /// `Heap::tell_owner`: who gives the first slot back to a region on no list tells its owner.
    pub owner_is_told: bool,
}

impl Protocol {
    /// As it is.
    pub const REAL: Protocol = Protocol {
        fenced: false,
        record_before_entry: true,
        owner_heeds_mark: true,
        unlock_moves_first: true,
        op_before_paused: true,
        owner_reads_paused: true,
        free_reads_count: true,
        free_reads_records: true,
        owner_frees_by_exchange: true,
        others_free_by_exchange: true,
        generation_grows: true,
        spill_counts_first: true,
        counting_clears_mark: true,
        mover_marks: true,
        mark_before_barrier: true,
        mover_has_barrier: true,
        one_thread_needs_no_barrier: false,
        attach_is_counted: true,
        mover_reads_records: true,
        records_are_read_downwards: true,
        mover_commits_by_exchange: true,
        stop_has_barrier: true,
        stop_waits: true,
        claim_pins: true,
        claim_marks: true,
        claim_has_barrier: true,
        claim_reads_records: true,
        discardable_is_claimed: true,
        remote_is_marked: true,
        remote_link_first: true,
        remote_by_exchange: true,
        collects_by_exchange: true,
        attach_has_barrier: true,
        attach_waits: true,
        attach_ends_alone: true,
        unlock_heeds_mark: true,
        paused_before_region: true,
        paused_before_alone: true,
        unlisting_has_fence: true,
        unlisting_looks_again: true,
        owner_is_told: true,
    };
}
