//! The thread that owns the block: `Cache::try_lock`, `Cache::try_unlock`, `Cache::try_free` with their slow paths, and an allocation
//! that uses the freed entry again. Also what it does when it ends: `Cache::spill_locks`.

use crate::machine::Program;
use crate::protocol::Protocol;
use crate::words::*;

/// `Cache::light_barrier`: nothing to the processor, unless the platform has no barrier.
fn light_barrier(p: &mut Program, c: &Protocol) {
    if c.fenced {
        p.fence();
    }
}

/// `Cache::try_lock`, then `Cache::lock_slow`. `OK` says whether it is locked; ADDRESS where.
pub fn lock(p: &mut Program, c: &Protocol, me: usize) {
    let (slow, resolved, again, got, done) =
        (p.label(), p.label(), p.label(), p.label(), p.label());
    let record = |r: &crate::machine::Registers| RECORDS + r[LOCKED] as usize;
    let ours = |r: &crate::machine::Registers| handle(r[GENERATION]);
    p.local(|r| r[OK] = 0);
    p.about("Cache::try_lock: the record, then the entry");
    if c.record_before_entry {
        p.store(record, ours);
        light_barrier(p, c);
        p.load(WORD, at(ENTRY));
    } else {
        p.load(WORD, at(ENTRY));
        p.store(record, ours);
    }
    let keyed = |c: &Protocol| {
        let heeds = c.owner_heeds_mark;
        move |r: &crate::machine::Registers| {
            is_keyed(
                if heeds { r[WORD] } else { r[WORD] & !MOVING },
                r[GENERATION],
            )
        }
    };
    p.jump_if(keyed(c), got);
    p.about("Cache::try_lock: not on the fast path");
    p.store(record, is(0));

    p.here(slow);
    p.about("Cache::lock_slow: Heap::resolve");
    p.load(WORD, at(ENTRY));
    p.jump_if(|r| !is_alive(r[WORD], r[GENERATION]), done);
    p.jump_if(|r| r[WORD] & DISCARDABLE == 0, resolved);
    // Locks of discardable blocks are counted; `unlock_counted` gives them back.
    p.jump_if(|r| place(r[WORD]) == 0, done);
    p.about("Cache::lock_slow: counted");
    p.compare_exchange(
        TEMP,
        at(ENTRY),
        of(WORD),
        |r| (r[WORD] & !MOVING) + SHARED_ONE,
        slow,
    );
    p.local(|r| {
        r[OK] = 2;
        r[ADDRESS] = place(r[WORD]);
    });
    hold(p, me);
    p.jump(done);

    p.here(resolved);
    p.jump_if(|r| r[WORD] & MOVING == 0, again);
    p.about("Cache::lock_slow: takes the mark away");
    p.compare_exchange(TEMP, at(ENTRY), of(WORD), |r| r[WORD] & !MOVING, slow);
    p.jump(slow);
    p.here(again);
    p.about("Cache::lock_slow: the record, then the entry");
    p.store(record, ours);
    light_barrier(p, c);
    p.load(WORD, at(ENTRY));
    p.jump_if(keyed(c), got);
    p.store(record, is(0));
    p.jump(slow);

    p.here(got);
    p.local(|r| {
        r[OK] = 1;
        r[LOCKED] += 1;
        r[ADDRESS] = place(r[WORD]);
    });
    hold(p, me);
    p.here(done);
}

fn hold(p: &mut Program, me: usize) {
    p.note(move |r, g| {
        g[HELD + me] = r[ADDRESS];
        Ok(())
    });
}

/// From here on the thread does without its address.
pub fn release(p: &mut Program, me: usize) {
    p.local(|r| r[ADDRESS] = 0);
    p.note(move |_, g| {
        g[HELD + me] = 0;
        Ok(())
    });
}

/// Whatever a thread does with a block that it has locked: finds what it wrote last, and writes again.
pub fn write(p: &mut Program, me: usize) {
    p.about("the program reads and writes the block");
    p.load(TEMP, move |r| contents(r[ADDRESS], me));
    p.note(|r, _| {
        if r[VERSION] != 0 && r[TEMP] != r[VERSION] {
            Err("a lock does not see what was written under the lock before")
        } else {
            Ok(())
        }
    });
    p.local(|r| r[VERSION] += 1);
    p.store(move |r| contents(r[ADDRESS], me), of(VERSION));
}

/// `Cache::try_unlock`, of the lock taken last.
pub fn unlock(p: &mut Program, me: usize) {
    p.about("Cache::try_unlock");
    p.store(|r| RECORDS + r[LOCKED] as usize - 1, is(0));
    p.local(|r| r[LOCKED] -= 1);
    release(p, me);
}

/// The owner locks Y: it only fills a record.
pub fn lock_other_block(p: &mut Program) {
    p.about("Cache::try_lock of another block");
    p.store(|r| RECORDS + r[LOCKED] as usize, is(OTHER_HANDLE));
    p.local(|r| r[LOCKED] += 1);
}

/// Unlocks Y, which was locked before X: `Cache::unlock_slow`.
pub fn unlock_other_block(p: &mut Program, c: &Protocol) {
    p.about("Cache::unlock_slow: the last record moves to the first, then is cleared");
    let (move_down, clear) = (
        |p: &mut Program| p.store(at(RECORDS), |r| handle(r[GENERATION])),
        |p: &mut Program| p.store(at(RECORDS + 1), is(0)),
    );
    if c.unlock_moves_first {
        move_down(p);
        clear(p);
    } else {
        clear(p);
        move_down(p);
    }
    p.local(|r| r[LOCKED] -= 1);
}

/// `Cache::try_free`, then `Cache::free_slow`. No record may be in use on the fast path.
pub fn free_block(p: &mut Program, c: &Protocol, me: usize) {
    let (not_fast, slow, busy, slot_back, done) =
        (p.label(), p.label(), p.label(), p.label(), p.label());
    p.local(|r| r[OK] = 0);
    p.jump_if(|r| r[LOCKED] != 0, slow);
    p.about("Cache::try_free: op, the entry");
    if c.op_before_paused {
        p.store(at(OP), is(BUSY));
        light_barrier(p, c);
    }
    p.load(WORD, at(ENTRY));
    p.about("Cache::try_free: paused, the region's owner");
    if c.owner_reads_paused {
        p.load(TEMP, at(PAUSED));
        p.jump_if(|r| r[TEMP] != 0, not_fast);
    }
    let counts = c.free_reads_count;
    p.jump_if(
        move |r| !is_keyed(r[WORD], r[GENERATION]) || counts && shared(r[WORD]) != 0,
        not_fast,
    );
    if !c.op_before_paused {
        p.store(at(OP), is(BUSY));
    }
    p.load(TEMP, at(REGION));
    p.jump_if(|r| r[TEMP] != OWNERS, not_fast);
    p.note(inside(me, true));
    p.about("Cache::try_free: the entry ends");
    let (alone, ended) = (p.label(), p.label());
    if c.owner_frees_by_exchange {
        p.load(TEMP, at(ALONE));
        p.jump_if(|r| r[TEMP] != 0, alone);
        p.compare_exchange(TEMP, at(ENTRY), of(WORD), |r| free(r[GENERATION] + 1), busy);
        p.note(freed(me));
        p.jump(ended);
    }
    p.here(alone);
    p.store(at(ENTRY), |r| free(r[GENERATION] + 1));
    p.note(freed(me));
    p.here(ended);
    p.note(slot_is_free);
    p.note(inside(me, false));
    p.about("Cache::end");
    p.store(at(OP), is(IDLE));
    p.local(|r| r[OK] = 1);
    p.jump(done);
    p.here(busy);
    p.note(inside(me, false));
    p.here(not_fast);
    p.store(at(OP), is(IDLE));

    p.here(slow);
    p.about("Cache::free_slow");
    p.load(WORD, at(ENTRY));
    p.jump_if(
        |r| !is_alive(r[WORD], r[GENERATION]) || shared(r[WORD]) != 0,
        done,
    );
    // Its own records it reads without racing; X is not in them in these programs.
    p.compare_exchange(TEMP, at(ENTRY), of(WORD), |r| free(r[GENERATION] + 1), slow);
    p.note(freed(me));
    p.jump(slot_back);
    p.here(slot_back);
    p.note(slot_is_free);
    p.local(|r| r[OK] = 1);
    p.here(done);
}

/// The freed entry becomes another block's, at place 4: `Cache::try_alloc`, `Cache::enter`.
pub fn alloc_again(p: &mut Program, c: &Protocol) {
    let none = p.label();
    p.jump_if(|r| r[OK] == 0, none);
    p.about("Cache::enter: the entry is used again");
    p.note(|r, g| {
        if g[SLOTS + 4] == 0 {
            return Err("a slot is given out that is not free");
        }
        g[SLOTS + 4] = 0;
        r[VERSION] = 0;
        Ok(())
    });
    let grows = c.generation_grows;
    p.local(move |r| r[GENERATION] += grows as u16);
    p.store(at(ENTRY), |r| live(4, r[GENERATION]));
    p.here(none);
}

/// `Cache::spill_locks` with one lock, on X; from then on the lock is counted in the entry.
pub fn spill_lock(p: &mut Program, c: &Protocol) {
    let (again, done) = (p.label(), p.label());
    p.about("Cache::spill_locks");
    if !c.spill_counts_first {
        p.store(at(RECORDS), is(0));
    }
    p.here(again);
    p.load(WORD, at(ENTRY));
    p.jump_if(|r| !is_alive(r[WORD], r[GENERATION]), done);
    p.compare_exchange(
        TEMP,
        at(ENTRY),
        of(WORD),
        |r| (r[WORD] & !MOVING) + SHARED_ONE,
        again,
    );
    p.here(done);
    if c.spill_counts_first {
        p.store(at(RECORDS), is(0));
    }
    p.local(|r| r[LOCKED] = 0);
}

fn inside(
    me: usize,
    enters: bool,
) -> impl Fn(&mut crate::machine::Registers, &mut crate::machine::Ghosts) -> crate::machine::Verdict
{
    move |_, g| {
        if enters {
            if g[INSIDE] != 0 {
                return Err("two threads change a region's list at once");
            }
            g[INSIDE] |= 1 << me;
        } else {
            g[INSIDE] &= !(1 << me);
        }
        Ok(())
    }
}

/// A free of X said yes.
pub fn freed(
    me: usize,
) -> impl Fn(&mut crate::machine::Registers, &mut crate::machine::Ghosts) -> crate::machine::Verdict
{
    move |r, g| {
        if r[GENERATION] == 0 {
            g[FREED] += 1;
            if g[FREED] > 1 {
                return Err("a block was freed twice, and both calls said yes");
            }
        }
        if (0..3).any(|thread| thread != me && g[HELD + thread] != 0) {
            return Err("a locked block was freed");
        }
        Ok(())
    }
}

/// The slot that WORD names is given back.
pub fn slot_is_free(
    r: &mut crate::machine::Registers,
    g: &mut crate::machine::Ghosts,
) -> crate::machine::Verdict {
    give(g, place(r[WORD]))
}

/// A slot is given back.
pub fn give(g: &mut crate::machine::Ghosts, slot: u16) -> crate::machine::Verdict {
    if slot == 0 {
        return Ok(());
    }
    if g[SLOTS + slot as usize] != 0 {
        return Err("a slot was given back twice");
    }
    g[SLOTS + slot as usize] = 1;
    Ok(())
}
