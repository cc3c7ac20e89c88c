//! A thread that does not own the block: it locks by counting in the entry, frees by compare-and-swap, and says that a
//! block's contents may be dropped. It has no records of its own in the model: what is not its own it never records.

use crate::machine::Program;
use crate::owner::{freed, release, slot_is_free};
use crate::protocol::Protocol;
use crate::resizer::{claim, unclaim};
use crate::words::*;

/// `Cache::lock_slow`, counted.
pub fn lock(p: &mut Program, c: &Protocol, me: usize) {
    let (again, done) = (p.label(), p.label());
    let clears = c.counting_clears_mark;
    p.local(|r| r[OK] = 0);
    p.here(again);
    p.about("Cache::lock_slow: Heap::resolve");
    p.load(WORD, at(ENTRY));
    p.jump_if(
        |r| !is_alive(r[WORD], r[GENERATION]) || place(r[WORD]) == 0 || shared(r[WORD]) == SHARED,
        done,
    );
    p.about("Cache::lock_slow: counts, and takes the mark away");
    p.compare_exchange(
        TEMP,
        at(ENTRY),
        of(WORD),
        move |r| (if clears { r[WORD] & !MOVING } else { r[WORD] }) + SHARED_ONE,
        again,
    );
    p.local(|r| {
        r[OK] = 1;
        r[ADDRESS] = place(r[WORD]);
    });
    p.note(move |r, g| {
        g[HELD + me] = r[ADDRESS];
        Ok(())
    });
    p.here(done);
}

/// `Cache::unlock_slow`, counted.
pub fn unlock(p: &mut Program, me: usize) {
    let (again, done) = (p.label(), p.label());
    p.about("Cache::unlock_slow: counts down");
    p.here(again);
    p.load(WORD, at(ENTRY));
    p.note(|r, _| {
        if is_alive(r[WORD], r[GENERATION]) && shared(r[WORD]) == 0 {
            Err("a lock is not counted")
        } else {
            Ok(())
        }
    });
    p.jump_if(|r| !is_alive(r[WORD], r[GENERATION]), done);
    p.compare_exchange(TEMP, at(ENTRY), of(WORD), |r| r[WORD] - SHARED_ONE, again);
    p.here(done);
    release(p, me);
}

/// `Cache::free_slow` of a thread that is not the owner. In the region's list the slot goes by `Region::push_remote`.
pub fn free_block(p: &mut Program, c: &Protocol, me: usize) {
    let (again, done) = (p.label(), p.label());
    p.local(|r| r[OK] = 0);
    p.here(again);
    p.about("Cache::free_slow: Heap::resolve");
    p.load(WORD, at(ENTRY));
    let counts = c.free_reads_count;
    p.jump_if(
        move |r| !is_alive(r[WORD], r[GENERATION]) || counts && shared(r[WORD]) != 0,
        done,
    );
    if c.free_reads_records {
        p.about("Cache::free_slow: Heap::is_recorded_by");
        for record in (0..RECORDS_COUNT).rev() {
            p.load(TEMP, at(RECORDS + record));
            p.jump_if(|r| r[TEMP] == handle(r[GENERATION]), done);
        }
    }
    p.about("Cache::free_slow: the entry ends");
    if c.others_free_by_exchange {
        p.compare_exchange(
            TEMP,
            at(ENTRY),
            of(WORD),
            |r| free(r[GENERATION] + 1),
            again,
        );
    } else {
        p.store(at(ENTRY), |r| free(r[GENERATION] + 1));
    }
    p.note(freed(me));
    p.note(slot_is_free);
    p.local(|r| r[OK] = 1);
    p.here(done);
}

pub use crate::owner::write;

/// Waits for another thread's word that it holds the block locked, or is done.
pub fn is_told(p: &mut Program) {
    p.about("the program waits for the word");
    p.wait_until(TOLD, |told| told != 0);
}

/// `Cache::set_discardable(true)`, then `evacuate::discard` by the same thread.
pub fn discard(p: &mut Program, c: &Protocol) {
    let (undo, done, drop) = (p.label(), p.label(), p.label());
    if c.discardable_is_claimed {
        claim(p, c, false, done);
        p.about("Cache::set_discardable: from the claim to the mark");
        p.compare_exchange(
            TEMP,
            at(ENTRY),
            of(WORD),
            |r| ((r[WORD] & !MOVING) - SHARED_ONE) | DISCARDABLE,
            undo,
        );
    } else {
        p.about("Cache::set_discardable: the mark at once");
        p.load(WORD, at(ENTRY));
        p.jump_if(
            |r| !is_alive(r[WORD], r[GENERATION]) || shared(r[WORD]) != 0,
            done,
        );
        p.compare_exchange(
            TEMP,
            at(ENTRY),
            of(WORD),
            |r| r[WORD] & !MOVING | DISCARDABLE,
            done,
        );
    }
    p.jump(drop);
    p.here(undo);
    unclaim(p, c);
    p.jump(done);
    p.here(drop);
    p.about("evacuate::discard");
    p.load(WORD, at(ENTRY));
    p.jump_if(
        |r| {
            let word = r[WORD];
            !is_alive(word, r[GENERATION])
                || word & (DISCARDABLE | MOVING) != DISCARDABLE
                || place(word) == 0
                || shared(word) != 0
        },
        done,
    );
    p.compare_exchange(TEMP, at(ENTRY), of(WORD), |r| moved_to(r[WORD], 0), done);
    p.note(slot_is_free);
    p.here(done);
}

/// An unlock that nobody asked for: `Cache::unlock_slow` without a lock.
pub fn stray_unlock(p: &mut Program, c: &Protocol) {
    let done = p.label();
    let heeds = c.unlock_heeds_mark;
    p.about("Cache::unlock_slow: nobody has locked");
    p.load(WORD, at(ENTRY));
    p.jump_if(
        move |r| {
            !is_alive(r[WORD], r[GENERATION])
                || shared(r[WORD]) == 0
                || heeds && r[WORD] & MOVING != 0
        },
        done,
    );
    p.compare_exchange(TEMP, at(ENTRY), of(WORD), |r| r[WORD] - SHARED_ONE, done);
    p.here(done);
}

/// `Heap::attach`: the owner is alone no more (`Heap::end_alone`).
pub fn attach(p: &mut Program, c: &Protocol) {
    p.about("Heap::end_alone: paused");
    p.store(at(PAUSED), is(1));
    if c.attach_has_barrier {
        p.about("Heap::end_alone: the barrier");
        crate::mover::barrier(p, c);
    }
    if c.attach_waits {
        p.about("Heap::end_alone: op");
        p.wait_until(OP, |op| op == IDLE);
    }
    p.about("Heap::end_alone: no more");
    if c.attach_ends_alone {
        p.store(at(ALONE), is(0));
    }
    p.store(at(PAUSED), is(0));
    p.about("Mutex::unlock");
    p.fence();
}
