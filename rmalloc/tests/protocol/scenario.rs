//! What the threads do: each scenario is a machine of up to three of them, all of whose runs are looked at. The owner
//! of the block is thread 0, a thread that does not own it is thread 1, who moves blocks is thread 2.

use crate::lists;
use crate::machine::{Machine, Program};
use crate::mover::{move_block, seize};
use crate::protocol::Protocol;
use crate::resizer::{resize, resize_alone};
use crate::words::*;
use crate::{other, owner};

const OWNER: usize = 0;
const OTHER: usize = 1;
const MOVER: usize = 2;

/// A name, and the machine for a protocol.
pub type Scenario = (&'static str, fn(&Protocol) -> Machine);

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    ("the owner locks twice, the block moves twice", owner_locks),
    (
        "the owner unlocks out of order, the block moves",
        two_records,
    ),
    ("another thread locks twice, the block moves", other_locks),
    (
        "the owner and another thread lock, the block moves",
        both_lock,
    ),
    (
        "the owner frees and allocates again, its region is taken, the block moves",
        owner_frees,
    ),
    (
        "the owner locks, another thread frees, the block moves",
        other_frees,
    ),
    (
        "another thread is told of a lock, and frees",
        told_of_a_lock,
    ),
    (
        "the owner is told of a lock, and frees",
        owner_told_of_a_lock,
    ),
    (
        "the owner and another thread free the same block",
        both_free,
    ),
    (
        "the owner frees, allocates again and locks, another thread frees the old handle",
        old_handle,
    ),
    (
        "the owner locks twice, another thread resizes",
        resized_by_other,
    ),
    (
        "the owner frees and allocates again, another thread resizes",
        resized_and_freed,
    ),
    ("another thread locks, the owner resizes", resized_by_owner),
    (
        "the owner locks, another thread resizes, the block moves",
        resized_and_moved,
    ),
    ("the owner ends with a lock, the block moves", spilled),
    (
        "the owner locks, another thread lets the contents be dropped",
        discarded,
    ),
    (
        "the owner frees, another thread lets the contents be dropped",
        discarded_and_freed,
    ),
    ("a thread comes and locks, the block moves", attached),
    (
        "the owner is alone and frees, a thread comes and frees the same block",
        alone,
    ),
    (
        "the owner is alone and resizes, a thread comes and locks the block",
        alone_and_resizing,
    ),
    (
        "the owner locks and resizes, another thread unlocks what it has not locked, the block moves",
        unlocked_astray,
    ),
    (
        "the owner's region is full, another thread gives a slot back",
        told_of_a_slot,
    ),
    (
        "the owner allocates and frees, another thread frees, the region is taken",
        region_taken,
    ),
];

/// A block at place 1, in a region of the compactor's or, if `own`, of the owner's.
fn block(programs: [Program; 3], own: bool) -> Machine {
    let words = [
        (ENTRY, live(1, 0)),
        (REGION, if own { OWNERS } else { COMPACTORS }),
        (CURRENT, own as u16),
    ];
    let mut machine = Machine::new(programs.into(), &words, locks_hold, all_is_found);
    machine.first.ghosts[SLOTS + 2..=SLOTS + SLOTS_COUNT].fill(1);
    machine
}

fn threads() -> [Program; 3] {
    [
        Program::new("owner"),
        Program::new("other"),
        Program::new("mover"),
    ]
}

/// Locks, writes, unlocks.
fn owner_uses(p: &mut Program, c: &Protocol) {
    let (counted, skip) = (p.label(), p.label());
    owner::lock(p, c, OWNER);
    p.jump_if(|r| r[OK] == 0, skip);
    owner::write(p, OWNER);
    p.jump_if(|r| r[OK] == 2, counted);
    owner::unlock(p, OWNER);
    p.jump(skip);
    p.here(counted);
    other::unlock(p, OWNER);
    p.here(skip);
}

fn other_uses(p: &mut Program, c: &Protocol) {
    let skip = p.label();
    other::lock(p, c, OTHER);
    p.jump_if(|r| r[OK] == 0, skip);
    other::write(p, OTHER);
    other::unlock(p, OTHER);
    p.here(skip);
}

pub fn owner_locks(c: &Protocol) -> Machine {
    let mut all = threads();
    owner_uses(&mut all[OWNER], c);
    owner_uses(&mut all[OWNER], c);
    move_block(&mut all[MOVER], c, 1, 2);
    move_block(&mut all[MOVER], c, 2, 3);
    block(all, false)
}

pub fn two_records(c: &Protocol) -> Machine {
    let mut all = threads();
    let p = &mut all[OWNER];
    owner::lock_other_block(p);
    owner::lock(p, c, OWNER);
    owner::unlock_other_block(p, c);
    owner::write(p, OWNER);
    owner::unlock(p, OWNER);
    move_block(&mut all[MOVER], c, 1, 2);
    block(all, false)
}

pub fn other_locks(c: &Protocol) -> Machine {
    let mut all = threads();
    other_uses(&mut all[OTHER], c);
    other_uses(&mut all[OTHER], c);
    move_block(&mut all[MOVER], c, 1, 2);
    move_block(&mut all[MOVER], c, 2, 3);
    block(all, false)
}

fn both_lock(c: &Protocol) -> Machine {
    let mut all = threads();
    owner_uses(&mut all[OWNER], c);
    other_uses(&mut all[OTHER], c);
    move_block(&mut all[MOVER], c, 1, 2);
    block(all, false)
}

pub fn owner_frees(c: &Protocol) -> Machine {
    let mut all = threads();
    let p = &mut all[OWNER];
    owner_uses(p, c);
    owner::free_block(p, c, OWNER);
    owner::alloc_again(p, c);
    owner_uses(p, c);
    let p = &mut all[MOVER];
    let skip = p.label();
    seize(p, c);
    p.jump_if(|r| r[OK] == 0, skip);
    move_block(p, c, 1, 2);
    p.here(skip);
    block(all, true)
}

pub fn other_frees(c: &Protocol) -> Machine {
    let mut all = threads();
    owner_uses(&mut all[OWNER], c);
    let p = &mut all[OWNER];
    p.about("the program tells that it is done");
    p.store(at(TOLD), is(1));
    other::is_told(&mut all[OTHER]);
    other::free_block(&mut all[OTHER], c, OTHER);
    move_block(&mut all[MOVER], c, 1, 2);
    block(all, false)
}

pub fn told_of_a_lock(c: &Protocol) -> Machine {
    let mut all = threads();
    let p = &mut all[OWNER];
    owner::lock(p, c, OWNER);
    owner::write(p, OWNER);
    p.about("the program tells that it has locked");
    p.store(at(TOLD), is(1));
    owner::unlock(p, OWNER);
    other::is_told(&mut all[OTHER]);
    other::free_block(&mut all[OTHER], c, OTHER);
    move_block(&mut all[MOVER], c, 1, 2);
    block(all, false)
}

pub fn owner_told_of_a_lock(c: &Protocol) -> Machine {
    let mut all = threads();
    let p = &mut all[OTHER];
    let skip = p.label();
    other::lock(p, c, OTHER);
    p.jump_if(|r| r[OK] == 0, skip);
    other::write(p, OTHER);
    p.about("the program tells that it has locked");
    p.store(at(TOLD), is(1));
    other::unlock(p, OTHER);
    p.here(skip);
    other::is_told(&mut all[OWNER]);
    owner::free_block(&mut all[OWNER], c, OWNER);
    block(all, true)
}

pub fn old_handle(c: &Protocol) -> Machine {
    let mut all = threads();
    let p = &mut all[OWNER];
    owner::free_block(p, c, OWNER);
    owner::alloc_again(p, c);
    owner_uses(p, c);
    other::free_block(&mut all[OTHER], c, OTHER);
    block(all, true)
}

pub fn both_free(c: &Protocol) -> Machine {
    let mut all = threads();
    owner::free_block(&mut all[OWNER], c, OWNER);
    other::free_block(&mut all[OTHER], c, OTHER);
    block(all, true)
}

pub fn resized_by_other(c: &Protocol) -> Machine {
    let mut all = threads();
    owner_uses(&mut all[OWNER], c);
    owner_uses(&mut all[OWNER], c);
    resize(&mut all[OTHER], c, false);
    block(all, true)
}

fn resized_and_freed(c: &Protocol) -> Machine {
    let mut all = threads();
    owner::free_block(&mut all[OWNER], c, OWNER);
    owner::alloc_again(&mut all[OWNER], c);
    resize(&mut all[OTHER], c, false);
    block(all, true)
}

pub fn resized_by_owner(c: &Protocol) -> Machine {
    let mut all = threads();
    resize(&mut all[OWNER], c, true);
    other_uses(&mut all[OTHER], c);
    move_block(&mut all[MOVER], c, 1, 2);
    block(all, false)
}

fn resized_and_moved(c: &Protocol) -> Machine {
    let mut all = threads();
    owner_uses(&mut all[OWNER], c);
    resize(&mut all[OTHER], c, false);
    move_block(&mut all[MOVER], c, 1, 2);
    block(all, false)
}

pub fn spilled(c: &Protocol) -> Machine {
    let mut all = threads();
    let p = &mut all[OWNER];
    owner::lock(p, c, OWNER);
    owner::write(p, OWNER);
    owner::spill_lock(p, c);
    owner::write(p, OWNER);
    other::unlock(p, OWNER);
    move_block(&mut all[MOVER], c, 1, 2);
    block(all, false)
}

pub fn discarded(c: &Protocol) -> Machine {
    let mut all = threads();
    owner_uses(&mut all[OWNER], c);
    owner_uses(&mut all[OWNER], c);
    other::discard(&mut all[OTHER], c);
    block(all, true)
}

fn discarded_and_freed(c: &Protocol) -> Machine {
    let mut all = threads();
    owner::free_block(&mut all[OWNER], c, OWNER);
    other::discard(&mut all[OTHER], c);
    block(all, true)
}

/// `Heap::attach`, while `evacuate::finish` may leave the barrier out.
pub fn attached(c: &Protocol) -> Machine {
    let c = &Protocol {
        one_thread_needs_no_barrier: true,
        ..c.clone()
    };
    let mut all = threads();
    let p = &mut all[OWNER];
    p.about("Heap::attach");
    if c.attach_is_counted {
        p.exchange(TEMP, at(ATTACHED), |_, old| Some(old + 1));
    }
    owner_uses(p, c);
    move_block(&mut all[MOVER], c, 1, 2);
    block(all, false)
}

pub fn alone(c: &Protocol) -> Machine {
    let mut all = threads();
    owner::free_block(&mut all[OWNER], c, OWNER);
    other::attach(&mut all[OTHER], c);
    other::free_block(&mut all[OTHER], c, OTHER);
    let mut machine = block(all, true);
    machine.first.memory[ALONE] = 1;
    machine
}

pub fn alone_and_resizing(c: &Protocol) -> Machine {
    let mut all = threads();
    resize_alone(&mut all[OWNER], c);
    other::attach(&mut all[OTHER], c);
    other_uses(&mut all[OTHER], c);
    let mut machine = block(all, true);
    machine.first.memory[ALONE] = 1;
    machine
}

pub fn unlocked_astray(c: &Protocol) -> Machine {
    let mut all = threads();
    owner_uses(&mut all[OWNER], c);
    resize(&mut all[OWNER], c, true);
    other::stray_unlock(&mut all[OTHER], c);
    move_block(&mut all[MOVER], c, 1, 2);
    block(all, false)
}

pub fn told_of_a_slot(c: &Protocol) -> Machine {
    let mut all = threads();
    lists::unlist_full(&mut all[OWNER], c);
    for (thread, slot) in [(OTHER, 1), (MOVER, 2)] {
        lists::has(&mut all[thread], slot);
        lists::give_and_tell(&mut all[thread], c);
    }
    Machine::new(
        all.into(),
        &[(LISTED, 1), (REGION, OWNERS), (CURRENT, 1)],
        |_| Ok(()),
        lists::owner_knows,
    )
}

pub fn region_taken(c: &Protocol) -> Machine {
    let mut all = threads();
    let p = &mut all[OWNER];
    lists::has(p, 3);
    lists::give_slot(p, c, OWNER, true);
    lists::alloc(p, c, OWNER);
    lists::give_slot(p, c, OWNER, true);
    let p = &mut all[OTHER];
    lists::has(p, 2);
    lists::give_slot(p, c, OTHER, false);
    lists::compactor(&mut all[MOVER], c, MOVER);
    let used = |slot: usize| (REVERSE + slot, slot as u16);
    let words = [
        (FREE, 1),
        (REVERSE + 1, lists::FREE_BIT),
        used(2),
        used(3),
        (REGION, OWNERS),
        (CURRENT, 1),
    ];
    let mut machine = Machine::new(all.into(), &words, |_| Ok(()), lists::lists_hold);
    machine.first.ghosts[SLOTS + 1] = 1;
    machine
}
