//! The list of a region's free slots: the owner's plain stores (`Region::pop`, `Region::push`), other threads' slots
//! (`Region::push_remote`), and a compactor that takes the region, puts its list in order and lets it go.

use crate::machine::{Ghosts, Program, Registers, State, Value, Verdict};
use crate::mover::{seize, stop};
use crate::protocol::Protocol;
use crate::words::*;

/// Bits of the reverse map, as in src/region.rs.
pub const FREE_BIT: Value = 0x80;
const REMOTE_BIT: Value = 0x40;
const NEXT: Value = 0x3f;
/// The entry of a block in a slot: any value without [`FREE_BIT`].
const INDEX: Value = 0x20;
/// Slots of the region.
pub const SLOTS_HERE: Value = 3;
/// The slot that is given or was taken.
const SLOT: usize = MORE;

fn reverse(register: usize) -> impl Fn(&Registers) -> usize + Clone {
    move |r| REVERSE + r[register] as usize
}

fn enter(me: usize) -> impl Fn(&mut Registers, &mut Ghosts) -> Verdict {
    move |_, g| {
        if g[INSIDE] & !(1 << me) != 0 {
            return Err("two threads change a region's list at once");
        }
        g[INSIDE] |= 1 << me;
        Ok(())
    }
}

fn leave(me: usize) -> impl Fn(&mut Registers, &mut Ghosts) -> Verdict {
    move |_, g| {
        g[INSIDE] &= !(1 << me);
        Ok(())
    }
}

fn lock_mutex(p: &mut Program) {
    let again = p.label();
    p.here(again);
    p.about("Mutex::lock");
    p.wait_until(MUTEX, |value| value == 0);
    p.exchange(TEMP, at(MUTEX), |_, old| (old == 0).then_some(1));
    p.jump_if(|r| r[TEMP] != 0, again);
}

fn unlock_mutex(p: &mut Program) {
    p.about("Mutex::unlock");
    p.exchange(TEMP, at(MUTEX), |_, _| Some(0));
}

/// `Region::pop`: SLOT, or 0.
fn pop(p: &mut Program) {
    let none = p.label();
    p.about("Region::pop");
    p.load(SLOT, at(FREE));
    p.jump_if(|r| r[SLOT] == 0, none);
    p.load(TEMP, reverse(SLOT));
    p.note(|r, g| {
        let slot = &mut g[SLOTS + r[SLOT] as usize];
        if *slot == 0 {
            return Err("a slot is given out that is not free");
        }
        *slot = 0;
        Ok(())
    });
    p.store(at(FREE), |r| r[TEMP] & NEXT);
    p.store(reverse(SLOT), |r| INDEX | r[SLOT]);
    p.here(none);
}

/// `Region::push` of SLOT.
fn push(p: &mut Program) {
    p.about("Region::push");
    p.load(TEMP, at(FREE));
    p.store(reverse(SLOT), |r| FREE_BIT | r[TEMP]);
    p.store(at(FREE), of(SLOT));
}

/// `Region::push_remote` of SLOT.
fn push_remote(p: &mut Program, c: &Protocol) {
    let again = p.label();
    let bits = FREE_BIT | if c.remote_is_marked { REMOTE_BIT } else { 0 };
    p.about("Region::push_remote");
    p.load(WORD, at(REMOTE));
    p.here(again);
    if c.remote_link_first {
        p.store(reverse(SLOT), move |r| bits | r[WORD]);
    }
    if c.remote_by_exchange {
        p.exchange(TEMP, at(REMOTE), |r, old| {
            (old == r[WORD]).then_some(r[SLOT])
        });
        p.local(|r| (r[WORD], r[TEMP]) = (r[TEMP], r[WORD]));
        p.jump_if(|r| r[WORD] != r[TEMP], again);
    } else {
        p.store(at(REMOTE), of(SLOT));
    }
    if !c.remote_link_first {
        p.store(reverse(SLOT), move |r| bits | r[WORD]);
    }
}

/// `Region::collect`.
fn collect(p: &mut Program, c: &Protocol) {
    let (again, done) = (p.label(), p.label());
    p.about("Region::collect");
    p.load(WORD, at(REMOTE));
    p.jump_if(|r| r[WORD] == 0, done);
    if c.collects_by_exchange {
        p.exchange(WORD, at(REMOTE), |_, _| Some(0));
    } else {
        p.store(at(REMOTE), is(0));
    }
    p.here(again);
    p.jump_if(|r| r[WORD] == 0, done);
    p.local(|r| r[SLOT] = r[WORD]);
    p.load(WORD, reverse(SLOT));
    p.local(|r| r[WORD] &= NEXT);
    push(p);
    p.jump(again);
    p.here(done);
}

/// The program is done with the slot: from here on it may be given out again.
fn given(p: &mut Program) {
    p.note(|r, g| crate::owner::give(g, r[SLOT]));
}

/// The owner allocates: `Cache::try_alloc`, then `Cache::region_with_slot`. SLOT is 0 if there was none.
pub fn alloc(p: &mut Program, c: &Protocol, me: usize) {
    let (slow, got, not_ours, popped) = (p.label(), p.label(), p.label(), p.label());
    p.about("Cache::try_alloc: op, then paused");
    begin(p, c, BUSY);
    if c.owner_reads_paused {
        p.load(TEMP, at(PAUSED));
        p.jump_if(|r| r[TEMP] != 0, slow);
    }
    p.about("Cache::try_alloc: current");
    p.load(TEMP, at(CURRENT));
    p.jump_if(|r| r[TEMP] == 0, slow);
    p.note(enter(me));
    pop(p);
    p.note(leave(me));
    p.jump_if(|r| r[SLOT] == 0, slow);
    end(p);
    p.jump(got);

    p.here(slow);
    end(p);
    lock_mutex(p);
    p.about("Cache::region_with_slot");
    p.local(|r| r[SLOT] = 0);
    p.load(TEMP, at(CURRENT));
    p.jump_if(|r| r[TEMP] == 0, not_ours);
    p.note(enter(me));
    p.load(TEMP, at(FREE));
    p.jump_if(|r| r[TEMP] != 0, popped);
    collect(p, c);
    p.here(popped);
    pop(p);
    p.note(leave(me));
    p.here(not_ours);
    unlock_mutex(p);
    p.here(got);
    p.local(|r| (r[WORD], r[TEMP]) = (0, 0));
}

fn begin(p: &mut Program, c: &Protocol, op: Value) {
    p.store(at(OP), is(op));
    if c.fenced {
        p.fence();
    }
}

fn end(p: &mut Program) {
    p.about("Cache::end");
    p.store(at(OP), is(IDLE));
}

/// Gives SLOT back: `Cache::give_slot`. Of a thread that does not own the region `op` matters to nobody.
pub fn give_slot(p: &mut Program, c: &Protocol, me: usize, is_owner: bool) {
    let (again, remote, mutex, not_nobodys, done, skip) = (
        p.label(),
        p.label(),
        p.label(),
        p.label(),
        p.label(),
        p.label(),
    );
    p.jump_if(|r| r[SLOT] == 0, skip);
    given(p);
    p.here(again);
    p.about("Cache::give_slot: op, paused, the region's owner");
    if is_owner {
        begin(p, c, BUSY);
    }
    p.local(|r| r[TEMP] = 0);
    let reads = is_owner && c.owner_reads_paused;
    if reads && c.paused_before_region {
        p.load(TEMP, at(PAUSED));
    }
    p.load(WORD, at(REGION));
    if reads && !c.paused_before_region {
        p.load(TEMP, at(PAUSED));
    }
    if is_owner {
        let not_ours = p.label();
        p.jump_if(|r| r[WORD] != OWNERS || r[TEMP] != 0, not_ours);
        p.note(enter(me));
        push(p);
        p.note(leave(me));
        end(p);
        p.jump(done);
        p.here(not_ours);
        end(p);
    }
    p.jump_if(
        move |r| r[WORD] == COMPACTORS || r[WORD] == OWNERS && !is_owner,
        remote,
    );
    p.jump(mutex);
    p.here(remote);
    push_remote(p, c);
    p.jump(done);
    p.here(mutex);
    lock_mutex(p);
    p.about("Cache::give_slot: a region that is nobody's");
    p.load(WORD, at(REGION));
    p.jump_if(|r| r[WORD] != NOBODYS, not_nobodys);
    p.note(enter(me));
    push(p);
    p.note(leave(me));
    unlock_mutex(p);
    p.jump(done);
    p.here(not_nobodys);
    unlock_mutex(p);
    p.jump(again);
    p.here(done);
    p.here(skip);
    p.local(|r| (r[WORD], r[TEMP], r[SLOT]) = (0, 0, 0));
}

/// A slot that the thread has at the beginning.
pub fn has(p: &mut Program, slot: Value) {
    p.local(move |r| r[SLOT] = slot);
}

/// `compact::seize`, `Region::collect`, a slot popped and pushed as by `evacuate::batch`, `evacuate::relist`,
/// `compact::let_go`: back to the owner, or to nobody.
pub fn compactor(p: &mut Program, c: &Protocol, me: usize) {
    let (not_taken, done) = (p.label(), p.label());
    lock_mutex(p);
    seize(p, c);
    p.jump_if(|r| r[OK] == 0, not_taken);
    p.note(move |_, g| {
        // `seize` leaves the compactor inside; from here on the rule of this file holds.
        g[INSIDE] = 0;
        Ok(())
    });
    p.note(enter(me));
    collect(p, c);
    p.here(not_taken);
    unlock_mutex(p);
    p.jump_if(|r| r[OK] == 0, done);

    pop(p);
    let nothing = p.label();
    p.jump_if(|r| r[SLOT] == 0, nothing);
    given(p);
    push(p);
    p.here(nothing);

    p.about("evacuate::relist");
    p.local(|r| r[SLOT] = 0);
    for slot in (1..=SLOTS_HERE).rev() {
        let used = p.label();
        p.load(TEMP, at(REVERSE + slot as usize));
        p.jump_if(|r| r[TEMP] & (FREE_BIT | REMOTE_BIT) != FREE_BIT, used);
        p.store(at(REVERSE + slot as usize), |r| FREE_BIT | r[SLOT]);
        p.local(move |r| r[SLOT] = slot);
        p.here(used);
    }
    p.store(at(FREE), of(SLOT));

    let (back, gone, given_back) = (p.label(), p.label(), p.label());
    lock_mutex(p);
    p.about("compact::let_go");
    collect(p, c);
    stop(p, c, back);
    p.jump(gone);
    p.here(back);
    p.about("Cache::adopt");
    p.note(leave(me));
    p.store(at(CURRENT), is(1));
    p.store(at(REGION), is(OWNERS));
    p.store(at(PAUSED), is(0));
    p.jump(given_back);
    p.here(gone);
    p.about("Heap::disown");
    collect(p, c);
    p.note(leave(me));
    p.store(at(REGION), is(NOBODYS));
    p.here(given_back);
    unlock_mutex(p);
    p.here(done);
    p.local(|r| (r[WORD], r[TEMP], r[SLOT]) = (0, 0, 0));
}

/// The owner finds its region full: `Cache::region_with_slot` takes it off the list.
pub fn unlist_full(p: &mut Program, c: &Protocol) {
    let (keep, done) = (p.label(), p.label());
    lock_mutex(p);
    p.about("Cache::region_with_slot: nothing to collect");
    p.load(WORD, at(REMOTE));
    p.jump_if(|r| r[WORD] != 0, done);
    p.about("Cache::region_with_slot: off the list");
    p.store(at(LISTED), is(0));
    if c.unlisting_has_fence {
        p.fence();
    }
    if c.unlisting_looks_again {
        p.load(WORD, at(REMOTE));
        p.jump_if(|r| r[WORD] != 0, keep);
    }
    p.jump(done);
    p.here(keep);
    p.store(at(LISTED), is(1));
    p.here(done);
    unlock_mutex(p);
}

/// Another thread gives SLOT back, and tells the owner if nobody else has: `Heap::tell_owner`.
pub fn give_and_tell(p: &mut Program, c: &Protocol) {
    let done = p.label();
    given(p);
    push_remote(p, c);
    p.jump_if(|r| r[WORD] != 0, done);
    if c.owner_is_told {
        let told = p.label();
        p.about("Cache::give_slot: is the region on a list?");
        p.load(TEMP, at(LISTED));
        p.jump_if(|r| r[TEMP] != 0, done);
        lock_mutex(p);
        p.about("Heap::tell_owner");
        p.load(TEMP, at(LISTED));
        p.jump_if(|r| r[TEMP] != 0, told);
        p.load(TEMP, at(REMOTE));
        p.jump_if(|r| r[TEMP] == 0, told);
        p.store(at(LISTED), is(1));
        p.here(told);
        unlock_mutex(p);
    }
    p.here(done);
}

/// What holds at the end of that: a region with slots to collect is on the owner's list.
pub fn owner_knows(state: &State) -> Verdict {
    if state.memory[REMOTE] != 0 && state.memory[LISTED] == 0 {
        Err("slots that others gave back are found by nobody")
    } else {
        Ok(())
    }
}

/// What holds at the end: each free slot is in one list once, no other is.
pub fn lists_hold(state: &State) -> Verdict {
    let mut found = [0; SLOTS_HERE as usize + 1];
    for head in [FREE, REMOTE] {
        let mut at = state.memory[head];
        for _ in 0..=SLOTS_HERE {
            if at != 0 {
                found[at as usize] += 1;
                at = state.memory[REVERSE + at as usize] & NEXT;
            }
        }
        if at != 0 {
            return Err("a list has no end");
        }
    }
    for (slot, found) in found.into_iter().enumerate().skip(1) {
        match (state.ghosts[SLOTS + slot], found) {
            (0, 0) | (1, 1) => {}
            (0, _) => return Err("a slot is in a list and holds a block"),
            (_, 0) => return Err("a free slot is in no list"),
            _ => return Err("a slot is in two lists"),
        }
    }
    Ok(())
}
