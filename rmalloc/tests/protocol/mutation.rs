//! The protocol without one of its rules each: what a change of the source could look like that no ordinary test would notice.

use crate::machine::Machine;
use crate::protocol::Protocol;
use crate::scenario;

/// What is left out, told in words, and how; the scenario that goes wrong then in some run.
pub type Mutation = (&'static str, fn(&mut Protocol), fn(&Protocol) -> Machine);

/// All of them.
pub const MUTATIONS: &[Mutation] = &[
    (
        "try_lock reads the entry before it writes the record",
        |c| c.record_before_entry = false,
        scenario::owner_locks,
    ),
    (
        "try_lock does not heed the mark",
        |c| c.owner_heeds_mark = false,
        scenario::owner_locks,
    ),
    (
        "unlock_slow clears the last record before it moves it",
        |c| c.unlock_moves_first = false,
        scenario::two_records,
    ),
    (
        "try_free reads paused before it writes op",
        |c| c.op_before_paused = false,
        scenario::owner_frees,
    ),
    (
        "nothing heeds paused",
        |c| c.owner_reads_paused = false,
        scenario::owner_frees,
    ),
    (
        "free does not heed counted locks",
        |c| c.free_reads_count = false,
        scenario::owner_told_of_a_lock,
    ),
    (
        "free_slow does not heed records",
        |c| c.free_reads_records = false,
        scenario::told_of_a_lock,
    ),
    (
        "try_free stores where others might free",
        |c| c.owner_frees_by_exchange = false,
        scenario::both_free,
    ),
    (
        "free_slow stores",
        |c| c.others_free_by_exchange = false,
        scenario::other_frees,
    ),
    (
        "an entry is used again with its old generation",
        |c| c.generation_grows = false,
        scenario::old_handle,
    ),
    (
        "spill_locks clears the record before it counts the lock",
        |c| c.spill_counts_first = false,
        scenario::spilled,
    ),
    (
        "a counted lock leaves the mark",
        |c| c.counting_clears_mark = false,
        scenario::other_locks,
    ),
    (
        "the mover does not mark",
        |c| c.mover_marks = false,
        scenario::owner_locks,
    ),
    (
        "the mover's barrier comes before its mark",
        |c| c.mark_before_barrier = false,
        scenario::owner_locks,
    ),
    (
        "the mover has no barrier",
        |c| c.mover_has_barrier = false,
        scenario::owner_locks,
    ),
    (
        "attach does not count the thread",
        |c| c.attach_is_counted = false,
        scenario::attached,
    ),
    (
        "the mover does not heed records",
        |c| c.mover_reads_records = false,
        scenario::owner_locks,
    ),
    (
        "records are read upwards",
        |c| c.records_are_read_downwards = false,
        scenario::two_records,
    ),
    (
        "the mover stores the new place",
        |c| c.mover_commits_by_exchange = false,
        scenario::owner_locks,
    ),
    (
        "stop has no barrier",
        |c| c.stop_has_barrier = false,
        scenario::owner_frees,
    ),
    (
        "stop does not wait",
        |c| c.stop_waits = false,
        scenario::owner_frees,
    ),
    (
        "a claim does not pin",
        |c| c.claim_pins = false,
        scenario::resized_by_owner,
    ),
    (
        "a claim does not mark",
        |c| c.claim_marks = false,
        scenario::resized_by_other,
    ),
    (
        "a claim has no barrier",
        |c| c.claim_has_barrier = false,
        scenario::resized_by_other,
    ),
    (
        "a claim does not heed records",
        |c| c.claim_reads_records = false,
        scenario::resized_by_other,
    ),
    (
        "set_discardable does not claim",
        |c| c.discardable_is_claimed = false,
        scenario::discarded,
    ),
    (
        "a slot given back by others looks like one on the list",
        |c| c.remote_is_marked = false,
        scenario::region_taken,
    ),
    (
        "push_remote publishes before it links",
        |c| c.remote_link_first = false,
        scenario::region_taken,
    ),
    (
        "push_remote stores",
        |c| c.remote_by_exchange = false,
        scenario::told_of_a_slot,
    ),
    (
        "collect stores",
        |c| c.collects_by_exchange = false,
        scenario::region_taken,
    ),
    (
        "end_alone has no barrier",
        |c| c.attach_has_barrier = false,
        scenario::alone,
    ),
    (
        "end_alone does not wait",
        |c| c.attach_waits = false,
        scenario::alone,
    ),
    (
        "end_alone tells nobody",
        |c| c.attach_ends_alone = false,
        scenario::alone,
    ),
    (
        "unlock_slow gives the pin of a claim back",
        |c| c.unlock_heeds_mark = false,
        scenario::unlocked_astray,
    ),
    (
        "give_slot reads the region's owner before paused",
        |c| c.paused_before_region = false,
        scenario::region_taken,
    ),
    (
        "resize_alone reads alone before paused",
        |c| c.paused_before_alone = false,
        scenario::alone_and_resizing,
    ),
    (
        "region_with_slot has no fence",
        |c| c.unlisting_has_fence = false,
        scenario::told_of_a_slot,
    ),
    (
        "region_with_slot does not look again",
        |c| c.unlisting_looks_again = false,
        scenario::told_of_a_slot,
    ),
    (
        "nobody tells the owner",
        |c| c.owner_is_told = false,
        scenario::told_of_a_slot,
    ),
];
