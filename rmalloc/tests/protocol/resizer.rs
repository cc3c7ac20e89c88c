//! Who gives the block another size: `Cache::resize`, by the owner or by another thread. The new block is at place 3.
//! `Cache::claim` and `Cache::unclaim` serve `Cache::set_discardable` as well.

use crate::machine::{Label, Program};
use crate::mover::barrier;
use crate::owner::{give, slot_is_free};
use crate::protocol::Protocol;
use crate::words::*;

/// The place of the new block.
const NEW: u16 = 3;

/// What a claim adds to a word that is not moving: a counted lock, the mark.
fn claimed(c: &Protocol) -> (u16, u16) {
    (
        if c.claim_pins { SHARED_ONE } else { 0 },
        if c.claim_marks { MOVING } else { 0 },
    )
}

/// `Cache::claim`; WORD is the claimed word then. It jumps to `failed` if the block is locked or gone.
pub fn claim(p: &mut Program, c: &Protocol, is_owner: bool, failed: Label) {
    let (again, recorded, done) = (p.label(), p.label(), p.label());
    let (pin, mark) = claimed(c);
    p.here(again);
    p.about("Cache::claim: Heap::resolve");
    p.load(WORD, at(ENTRY));
    p.jump_if(
        |r| !is_alive(r[WORD], r[GENERATION]) || shared(r[WORD]) != 0 || place(r[WORD]) == 0,
        failed,
    );
    p.about("Cache::claim: pinned and marked");
    p.compare_exchange(
        TEMP,
        at(ENTRY),
        of(WORD),
        move |r| (r[WORD] | mark) + pin,
        again,
    );
    p.local(move |r| r[WORD] = (r[WORD] | mark) + pin);
    if !is_owner {
        if c.claim_has_barrier {
            p.about("Cache::claim: the barrier");
            barrier(p, c);
        }
        if c.claim_reads_records {
            p.about("Heap::is_recorded_by: from the last to the first");
            for record in (0..RECORDS_COUNT).rev() {
                p.load(TEMP, at(RECORDS + record));
                p.jump_if(|r| r[TEMP] == handle(r[GENERATION]), recorded);
            }
        }
    }
    p.jump(done);
    p.here(recorded);
    unclaim(p, c);
    p.jump(failed);
    p.here(done);
}

/// `Cache::unclaim`: takes the pin away, and the mark if it is still there.
pub fn unclaim(p: &mut Program, c: &Protocol) {
    let (again, done) = (p.label(), p.label());
    let (pin, _) = claimed(c);
    p.about("Cache::unclaim");
    p.here(again);
    p.load(WORD, at(ENTRY));
    p.jump_if(
        move |r| !is_alive(r[WORD], r[GENERATION]) || shared(r[WORD]) < pin,
        done,
    );
    p.compare_exchange(
        TEMP,
        at(ENTRY),
        of(WORD),
        move |r| (r[WORD] & !MOVING) - pin,
        again,
    );
    p.here(done);
}

/// `Cache::resize`; `is_owner`: by the owner, with no record of its own on the block.
pub fn resize(p: &mut Program, c: &Protocol, is_owner: bool) {
    let (failed, done) = (p.label(), p.label());
    let (pin, _) = claimed(c);
    claim(p, c, is_owner, done);
    p.about("Cache::resize: another block, the copy");
    p.note(|_, g| {
        g[SLOTS + NEW as usize] = 0;
        Ok(())
    });
    for word in 0..2 {
        p.load(TEMP, move |r| contents(place(r[WORD]), word));
        p.store(at(contents(NEW, word)), of(TEMP));
    }
    p.about("Cache::resize: the new place");
    p.compare_exchange(
        TEMP,
        at(ENTRY),
        of(WORD),
        move |r| moved_to(r[WORD], NEW) - pin,
        failed,
    );
    p.note(slot_is_free);
    p.jump(done);
    p.here(failed);
    p.note(|_, g| give(g, NEW));
    unclaim(p, c);
    p.here(done);
    p.local(|r| (r[WORD], r[TEMP]) = (0, 0));
}

/// `Cache::resize_alone`: plain stores while no other thread has a cache.
pub fn resize_alone(p: &mut Program, c: &Protocol) {
    let (busy, done) = (p.label(), p.label());
    p.about("Cache::resize_alone: op, the entry");
    p.store(at(OP), is(BUSY));
    if c.fenced {
        p.fence();
    }
    p.load(WORD, at(ENTRY));
    p.about("Cache::resize_alone: paused, alone");
    p.local(|r| r[MORE] = 0);
    if c.owner_reads_paused && c.paused_before_alone {
        p.load(MORE, at(PAUSED));
    }
    p.load(TEMP, at(ALONE));
    if c.owner_reads_paused && !c.paused_before_alone {
        p.load(MORE, at(PAUSED));
    }
    p.jump_if(|r| r[TEMP] == 0 || r[MORE] != 0, busy);
    p.jump_if(
        |r| !is_alive(r[WORD], r[GENERATION]) || shared(r[WORD]) != 0,
        busy,
    );
    p.about("Cache::resize_alone: the copy, the new place");
    p.note(|_, g| {
        g[SLOTS + NEW as usize] = 0;
        Ok(())
    });
    for word in 0..2 {
        p.load(TEMP, move |r| contents(place(r[WORD]), word));
        p.store(at(contents(NEW, word)), of(TEMP));
    }
    p.store(at(ENTRY), |r| moved_to(r[WORD], NEW));
    p.note(slot_is_free);
    p.about("Cache::end");
    p.store(at(OP), is(IDLE));
    p.jump(done);
    p.here(busy);
    p.about("Cache::end");
    p.store(at(OP), is(IDLE));
    // Once more, the other way.
    resize(p, c, true);
    p.here(done);
    p.local(|r| (r[WORD], r[TEMP], r[MORE]) = (0, 0, 0));
}
