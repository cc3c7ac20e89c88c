//! The words of the model's memory, the bits of its entry, its registers and ghosts: names that the programs share.

use crate::machine::{Registers, State, Value, Verdict};

// Memory. One entry, X; a second handle, Y, only ever stands in the records.
pub const ENTRY: usize = 0;
/// `Cache::op` of the owner.
pub const OP: usize = 1;
/// `Cache::paused` of the owner.
pub const PAUSED: usize = 2;
/// `Region::owner` of the region that X's block lies in at first.
pub const REGION: usize = 3;
/// `Heap::mutex`.
pub const MUTEX: usize = 4;
/// `Cache::records` of the owner: two of them.
pub const RECORDS: usize = 5;
pub const RECORDS_COUNT: usize = 2;
/// `Region::free`, `Region::remote`, and the reverse map: a word for each slot from 1 on.
pub const FREE: usize = 7;
pub const REMOTE: usize = 8;
pub const REVERSE: usize = 8;
/// Contents of the block at a place, two words: what the owner writes and what another thread writes.
pub const CONTENTS: usize = 12;
/// What a program tells another by a store: "I have locked it".
pub const TOLD: usize = 22;
/// `Heap::threads`, less one.
pub const ATTACHED: usize = 23;
/// `Cache::current` of the owner: 1 if it is the region, 0 for `NO_REGION`.
pub const CURRENT: usize = 24;
/// `Region::listed`: on the list of its owner.
pub const LISTED: usize = 25;
/// `Cache::alone` of the owner.
pub const ALONE: usize = 26;

/// Name of a word, for the story of a violation.
pub fn name(word: usize) -> &'static str {
    const NAMES: [&str; 27] = [
        "entry",
        "op",
        "paused",
        "region.owner",
        "mutex",
        "records[0]",
        "records[1]",
        "region.free",
        "region.remote",
        "slot 1",
        "slot 2",
        "slot 3",
        "",
        "",
        "place 1, owner's",
        "place 1, other's",
        "place 2, owner's",
        "place 2, other's",
        "place 3, owner's",
        "place 3, other's",
        "place 4, owner's",
        "place 4, other's",
        "told",
        "attached",
        "current",
        "listed",
        "alone",
    ];
    NAMES.get(word).copied().unwrap_or("?")
}

// Bits of the entry, as in src/entry.rs: shared locks, place in place of the offset, live, moving, discardable, generation.
pub const SHARED_ONE: Value = 1;
pub const SHARED: Value = 3;
const PLACE_SHIFT: u32 = 2;
const PLACE: Value = 7 << PLACE_SHIFT;
pub const LIVE: Value = 1 << 5;
pub const MOVING: Value = 1 << 6;
pub const DISCARDABLE: Value = 1 << 7;
const GENERATION_SHIFT: u32 = 8;

/// `Word::live`.
pub fn live(place: Value, generation: Value) -> Value {
    place << PLACE_SHIFT | LIVE | generation << GENERATION_SHIFT
}

/// `Word::free`.
pub fn free(generation: Value) -> Value {
    generation << GENERATION_SHIFT
}

pub fn place(word: Value) -> Value {
    (word & PLACE) >> PLACE_SHIFT
}

pub fn generation(word: Value) -> Value {
    word >> GENERATION_SHIFT
}

pub fn shared(word: Value) -> Value {
    word & SHARED
}

/// `Word::keyed() == Word::key(own, generation)`: live, of this generation, neither moving nor discardable. X's owner is
/// always the thread whose records and `op` the model has.
pub fn is_keyed(word: Value, of: Value) -> bool {
    word & (LIVE | MOVING | DISCARDABLE) == LIVE && generation(word) == of
}

/// `Heap::resolve` finds the block.
pub fn is_alive(word: Value, of: Value) -> bool {
    word & LIVE != 0 && generation(word) == of
}

/// `Word::moved_to`.
pub fn moved_to(word: Value, to: Value) -> Value {
    word & !PLACE & !MOVING | to << PLACE_SHIFT
}

/// X's handle, as it stands in records.
pub fn handle(generation: Value) -> Value {
    0x100 | generation
}
/// Another handle, of a block that nobody moves.
pub const OTHER_HANDLE: Value = 0x200;

/// `Cache::op`.
pub const IDLE: Value = 0;
pub const BUSY: Value = 1;

/// `Region::owner`.
pub const OWNERS: Value = 1;
pub const COMPACTORS: Value = 2;
pub const NOBODYS: Value = 3;

// Registers.
/// The entry, as last read.
pub const WORD: usize = 0;
/// Whatever.
pub const TEMP: usize = 1;
pub const MORE: usize = 2;
/// `Cache::locked`.
pub const LOCKED: usize = 3;
/// Generation of the handle that the thread has.
pub const GENERATION: usize = 4;
/// Where the block is, while it is locked.
pub const ADDRESS: usize = 5;
/// How often the thread has written to it; this is what it writes.
pub const VERSION: usize = 6;
/// Did the last call succeed?
pub const OK: usize = 7;

// Ghosts.
/// 1: the slot is free, in somebody's list. Slots 1 to 4.
pub const SLOTS: usize = 0;
pub const SLOTS_COUNT: usize = 4;
/// Frees of X's first generation that said yes.
pub const FREED: usize = 5;
/// Place that each thread has locked, from its own point of view; 0 none.
pub const HELD: usize = 6;
/// A thread is changing the region's list as its owner, a bit each.
pub const INSIDE: usize = 9;

pub fn at(word: usize) -> impl Fn(&Registers) -> usize + Clone {
    move |_| word
}

pub fn is(value: Value) -> impl Fn(&Registers) -> Value + Clone {
    move |_| value
}

pub fn of(register: usize) -> impl Fn(&Registers) -> Value + Clone {
    move |r| r[register]
}

/// What holds in each state of a program with locks: who holds a lock finds the block live and where his address says.
pub fn locks_hold(state: &State) -> Verdict {
    for (at, thread) in state.threads.iter().enumerate() {
        let held = state.ghosts[HELD + at];
        let word = state.seen_by(at, ENTRY);
        if held != 0 && !(is_alive(word, thread.registers[GENERATION]) && place(word) == held) {
            return Err("a locked block was moved or freed");
        }
    }
    Ok(())
}

/// What holds at the end: no slot is lost, none is both free and in an entry; nothing is left marked; what was written under a lock is in the block.
pub fn all_is_found(state: &State) -> Verdict {
    let word = state.memory[ENTRY];
    let here = if word & LIVE != 0 { place(word) } else { 0 };
    for slot in 1..=SLOTS_COUNT {
        match (state.ghosts[SLOTS + slot] != 0, here as usize == slot) {
            (true, true) => return Err("a slot is free and in an entry"),
            (false, false) => return Err("a slot is lost"),
            _ => {}
        }
    }
    if word & (LIVE | MOVING) == LIVE | MOVING {
        return Err("the mark stays");
    }
    if here != 0 {
        for thread in 0..2 {
            let registers = &state.threads[thread].registers;
            if registers[VERSION] != 0
                && registers[GENERATION] == generation(word)
                && state.memory[contents(here, thread)] != registers[VERSION]
            {
                return Err("what was written under a lock is lost");
            }
        }
        if shared(word) != 0 {
            return Err("a lock is counted that nobody holds");
        }
    }
    Ok(())
}

/// Word of a thread's contents at a place.
pub fn contents(place: Value, thread: usize) -> usize {
    CONTENTS + place as usize * 2 + thread.min(1)
}
