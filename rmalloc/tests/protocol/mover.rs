//! Who moves the block: `compact::seize` takes the region, `evacuate::mark` and `evacuate::finish` move.

use crate::machine::{Label, Program};
use crate::owner::give;
use crate::protocol::Protocol;
use crate::words::*;

/// The bit of the compactor in INSIDE: from the moment on when it has the region.
pub const COMPACTOR_INSIDE: u16 = 1 << 3;

/// `Platform::barrier`.
pub fn barrier(p: &mut Program, c: &Protocol) {
    if c.fenced {
        p.fence();
    } else {
        p.membarrier();
    }
}

/// `compact::stop`: jumps to `stopped` if the owner is in no call and begins none; goes on if it is in one, as that is
/// waited for for a limited time only.
pub fn stop(p: &mut Program, c: &Protocol, stopped: Label) {
    p.about("compact::stop: paused");
    p.store(at(PAUSED), is(1));
    if c.stop_has_barrier {
        p.about("compact::stop: the barrier");
        barrier(p, c);
    }
    if c.stop_waits {
        p.about("compact::stop: op");
        p.load(TEMP, at(OP));
        p.jump_if(|r| r[TEMP] == IDLE, stopped);
        p.store(at(PAUSED), is(0));
    } else {
        p.jump(stopped);
    }
}

/// `compact::seize`. `OK` says whether the compactor has the region.
pub fn seize(p: &mut Program, c: &Protocol) {
    let (stopped, done) = (p.label(), p.label());
    p.local(|r| r[OK] = 0);
    stop(p, c, stopped);
    p.jump(done);
    p.here(stopped);
    p.about("compact::seize: the region changes hands");
    p.note(|r, g| {
        r[OK] = 1;
        if g[INSIDE] != 0 {
            return Err("a region was taken from its owner in the middle of a call");
        }
        g[INSIDE] = COMPACTOR_INSIDE;
        Ok(())
    });
    p.store(at(CURRENT), is(0));
    p.store(at(REGION), is(COMPACTORS));
    p.store(at(PAUSED), is(0));
    p.here(done);
}

/// `evacuate::mark` and `evacuate::finish` for the block, if it lies at `from`: to place `to`.
pub fn move_block(p: &mut Program, c: &Protocol, from: u16, to: u16) {
    let (none, unmark, failed, done) = (p.label(), p.label(), p.label(), p.label());
    if !c.mark_before_barrier {
        p.about("evacuate::finish: the barrier, too early");
        barrier(p, c);
    }
    p.about("evacuate::mark");
    p.load(WORD, at(ENTRY));
    p.jump_if(
        move |r| r[WORD] & (LIVE | MOVING | SHARED) != LIVE || place(r[WORD]) != from,
        none,
    );
    if c.mover_marks {
        p.compare_exchange(TEMP, at(ENTRY), of(WORD), |r| r[WORD] | MOVING, none);
        p.local(|r| r[WORD] |= MOVING);
    }
    p.note(move |_, g| {
        if g[SLOTS + to as usize] == 0 {
            return Err("the model gives out a slot that is not free");
        }
        g[SLOTS + to as usize] = 0;
        Ok(())
    });
    if c.mark_before_barrier && c.mover_has_barrier {
        p.about("evacuate::finish: the barrier");
        if c.one_thread_needs_no_barrier {
            let (other_threads, go_on) = (p.label(), p.label());
            p.load(TEMP, at(ATTACHED));
            p.jump_if(|r| r[TEMP] != 0, other_threads);
            p.jump(go_on);
            p.here(other_threads);
            barrier(p, c);
            p.here(go_on);
        } else {
            barrier(p, c);
        }
    }
    if c.mover_reads_records {
        p.about("Heap::is_recorded_by: from the last to the first");
        for record in 0..RECORDS_COUNT {
            let record = if c.records_are_read_downwards {
                RECORDS_COUNT - 1 - record
            } else {
                record
            };
            p.load(TEMP, at(RECORDS + record));
            p.jump_if(|r| r[TEMP] == handle(generation(r[WORD])), unmark);
        }
    }
    p.about("evacuate::finish: the copy");
    for word in 0..2 {
        p.load(TEMP, at(contents(from, word)));
        p.store(at(contents(to, word)), of(TEMP));
    }
    p.about("evacuate::finish: the new place");
    if c.mover_commits_by_exchange {
        p.compare_exchange(
            TEMP,
            at(ENTRY),
            of(WORD),
            move |r| moved_to(r[WORD], to),
            failed,
        );
    } else {
        p.store(at(ENTRY), move |r| moved_to(r[WORD], to));
    }
    p.note(move |_, g| give(g, from));
    p.jump(done);
    p.here(unmark);
    p.about("evacuate::unmark");
    p.exchange(TEMP, at(ENTRY), |r, old| {
        (old == r[WORD]).then_some(old & !MOVING)
    });
    p.here(failed);
    p.note(move |_, g| give(g, to));
    p.here(none);
    p.here(done);
    p.local(|r| (r[WORD], r[TEMP]) = (0, 0));
}
