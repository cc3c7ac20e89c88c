//! The spool from the writer's side: claiming, beginning, handing over and releasing chunks.
//!
//! Everything shared is changed by single atomic operations, so a process may die anywhere without
//! blocking others. Chunk lists are stacks with a tag against reuse (ABA).

use crate::thread::Thread;
use crate::{clock, process, sys};
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
};
use rmtrace_format::chunk::{self, ChunkHeader, HEADER_BYTES, Triple};
use rmtrace_format::spool::{
    COLLECTOR_ALIVE_NS, COLLECTOR_GONE_OFFSET, COLLECTOR_LOCK_OFFSET, Control, DIRECTORY_OFFSET,
    Drop, OWNER_DIED, PAGE_BYTES, PROCESS_BYTES, PROCESSES_MAX, PROCESSES_OFFSET, ProcessSlot,
    SHARED_OFFSET, SLAB_LARGE, SLAB_SMALL, SLAB_UNUSED, SLABS_OFFSET, SMALL_PER_SLAB, Shared,
    SpoolHeader,
};

static BASE: AtomicUsize = AtomicUsize::new(0);
static SLABS: AtomicU32 = AtomicU32::new(0);
static SPOOL_ID: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static CONTROL: AtomicPtr<Control> = AtomicPtr::new(null_mut());

/// The append descriptor, -1 once it is not to be used.
static APPEND: AtomicI32 = AtomicI32::new(-1);
static APPEND_DEVICE: AtomicU64 = AtomicU64::new(0);
static APPEND_INODE: AtomicU64 = AtomicU64::new(0);
static APPEND_LIMIT: AtomicU64 = AtomicU64::new(0);
/// Whether an append failed for lack of space, so that drops can be named rightly.
static DISK_FULL: AtomicBool = AtomicBool::new(false);

/// CLOCK_MONOTONIC since which nothing came back while threads waited; 0: something did.
static STUCK_SINCE: AtomicU64 = AtomicU64::new(0);
/// How long that may last before they stop to wait at each call.
const STUCK_NS: u64 = 2_000_000_000;
/// CLOCK_MONOTONIC before which no thread waits for the collector.
static NO_WAIT_BEFORE: AtomicU64 = AtomicU64::new(0);

/// Connects to a spool that is mapped at `base`, with its header, directory and control present.
pub fn connect(base: usize, slabs: u32, id: [u64; 2], control: *mut Control) {
    let [low, high] = id;
    let [id_low, id_high] = &SPOOL_ID;
    id_low.store(low, Relaxed);
    id_high.store(high, Relaxed);
    SLABS.store(slabs, Relaxed);
    CONTROL.store(control, Relaxed);
    BASE.store(base, Release);
}

/// Sets the descriptor that full chunks are appended to when there is no collector.
pub fn set_append(fd: i32, identity: sys::Stat, limit: u64) {
    APPEND_DEVICE.store(identity.device, Relaxed);
    APPEND_INODE.store(identity.inode, Relaxed);
    APPEND_LIMIT.store(limit, Relaxed);
    APPEND.store(fd, Release);
}

/// The spool's header.
pub fn spool_header() -> Option<&'static SpoolHeader> {
    let base = BASE.load(Relaxed);
    // SAFETY: `connect` was given a mapping that stays.
    unsafe { (base as *const SpoolHeader).as_ref() }
}

fn shared() -> Option<&'static Shared> {
    let base = BASE.load(Relaxed);
    if base == 0 {
        return None;
    }
    // SAFETY: the header page is present and stays mapped.
    unsafe { (base.wrapping_add(SHARED_OFFSET) as *const Shared).as_ref() }
}

/// The next process number.
pub fn next_process() -> u32 {
    shared().map_or(0, |shared| shared.processes.0.fetch_add(1, Relaxed))
}

/// The slot of process `number`, made present; null if there is none.
pub fn process_slot(number: u32) -> *mut ProcessSlot {
    let base = BASE.load(Relaxed);
    if base == 0 || number as usize >= PROCESSES_MAX {
        return null_mut();
    }
    let offset = PROCESSES_OFFSET.wrapping_add((number as usize).wrapping_mul(PROCESS_BYTES));
    let slot = base.wrapping_add(offset);
    // SAFETY: the slot is within the mapping, unused, and the call stores to its first bytes only
    // if its page is asked for from its own start on.
    if !unsafe { make_slot_present(slot) } {
        return null_mut();
    }
    slot as *mut ProcessSlot
}

/// # Safety
/// `slot` is an unused process slot.
unsafe fn make_slot_present(slot: usize) -> bool {
    // The first 8 bytes of the slot itself: its page may hold the slots of others.
    // SAFETY: the caller's promise.
    unsafe { sys::make_word_present(slot) }
}

/// Counts a drop of a process without a slot.
pub fn count_drop(reason: Drop) {
    if let Some(shared) = shared()
        && let Some(count) = shared.dropped.0.get(reason as usize)
    {
        count.fetch_add(1, Relaxed);
    }
}

/// Header of chunk `number`.
pub fn header(number: u32) -> *mut ChunkHeader {
    let offset = SLABS_OFFSET.wrapping_add((number as usize).wrapping_mul(PAGE_BYTES));
    BASE.load(Relaxed).wrapping_add(offset) as *mut ChunkHeader
}

/// Bytes of records that the chunk holds.
pub fn capacity(header: *mut ChunkHeader) -> usize {
    // SAFETY: the caller holds the chunk.
    let bytes = unsafe { (*header).chunk_bytes.load(Relaxed) } as usize;
    bytes.min(chunk::LARGE_BYTES).saturating_sub(HEADER_BYTES)
}

fn directory(slab: u32) -> &'static AtomicU8 {
    let at = BASE
        .load(Relaxed)
        .wrapping_add(DIRECTORY_OFFSET)
        .wrapping_add(slab as usize);
    // SAFETY: the directory is present up to the number of slabs.
    unsafe { &*(at as *const AtomicU8) }
}

fn pop(list: &AtomicU64) -> Option<u32> {
    let limit = SLABS.load(Relaxed).wrapping_mul(SMALL_PER_SLAB as u32);
    let mut head = list.load(Acquire);
    loop {
        let number = (head as u32).checked_sub(1)?;
        if number >= limit {
            return None;
        }
        // SAFETY: chunks on a list are present.
        let next = unsafe { (*header(number)).next.load(Relaxed) };
        let new = (head >> 32).wrapping_add(1) << 32 | next as u64;
        match list.compare_exchange_weak(head, new, AcqRel, Acquire) {
            Ok(_) => return Some(number),
            Err(now) => head = now,
        }
    }
}

fn push(list: &AtomicU64, number: u32) {
    let mut head = list.load(Acquire);
    loop {
        // SAFETY: the chunk is the caller's, hence present.
        unsafe { (*header(number)).next.store(head as u32, Relaxed) };
        let new = (head >> 32).wrapping_add(1) << 32 | number.wrapping_add(1) as u64;
        match list.compare_exchange_weak(head, new, AcqRel, Acquire) {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}

fn claim_slab(shared: &Shared, kind: u8) -> Option<u32> {
    let slabs = SLABS.load(Relaxed);
    let claimed = shared
        .slabs_claimed
        .0
        .fetch_update(AcqRel, Acquire, |claimed| {
            (claimed < slabs).then(|| claimed.wrapping_add(1))
        });
    let slab = claimed.ok()?;
    directory(slab).store(kind, Release);
    Some(slab)
}

/// Takes back the claim of a slab that has no memory, if it was the last: there may be some later.
fn unclaim_slab(shared: &Shared, slab: u32) {
    directory(slab).store(SLAB_UNUSED, Release);
    let claimed = &shared.slabs_claimed.0;
    if claimed
        .compare_exchange(slab.wrapping_add(1), slab, AcqRel, Acquire)
        .is_err()
    {
        directory(slab).store(SLAB_SMALL, Release);
    }
}

fn present(number: u32, bytes: usize) -> Result<u32, Drop> {
    // SAFETY: the chunk is fresh and within the mapping.
    if unsafe { sys::make_present(header(number) as usize, bytes) } {
        // SAFETY: present now.
        unsafe { (*header(number)).chunk_bytes.store(bytes as u32, Relaxed) };
        return Ok(number);
    }
    Err(Drop::NoSpace)
}

fn claim_small(shared: &Shared) -> Result<u32, Drop> {
    if let Some(number) = pop(&shared.free_small.0) {
        return Ok(number);
    }
    let small_next = &shared.small_next.0;
    let mut next = small_next.load(Acquire);
    loop {
        if next.is_multiple_of(SMALL_PER_SLAB as u64) {
            let slab = claim_slab(shared, SLAB_SMALL).ok_or(Drop::PoolFull)?;
            let first = (slab as u64).wrapping_mul(SMALL_PER_SLAB as u64);
            let behind = first.wrapping_add(1);
            // If another thread was faster the rest of this slab stays unused.
            let is_next = small_next
                .compare_exchange(next, behind, AcqRel, Acquire)
                .is_ok();
            return present(first as u32, chunk::SMALL_BYTES).inspect_err(|_| {
                if is_next
                    && small_next
                        .compare_exchange(behind, next, AcqRel, Acquire)
                        .is_ok()
                {
                    unclaim_slab(shared, slab);
                }
            });
        }
        let behind = next.wrapping_add(1);
        match small_next.compare_exchange_weak(next, behind, AcqRel, Acquire) {
            Ok(_) => {
                return present(next as u32, chunk::SMALL_BYTES).inspect_err(|_| {
                    let _ = small_next.compare_exchange(behind, next, AcqRel, Acquire);
                });
            }
            Err(now) => next = now,
        }
    }
}

/// Another value whenever a chunk was given back or taken.
fn circulating(shared: &Shared) -> [u64; 2] {
    [&shared.free_small, &shared.free_large].map(|list| list.0.load(Relaxed))
}

/// A large chunk; not the last half of the pool, which many busy threads would hold for good.
fn claim_large(shared: &Shared) -> Result<u32, Drop> {
    if let Some(number) = pop(&shared.free_large.0) {
        return Ok(number);
    }
    let claimed = shared.slabs_claimed.0.load(Relaxed);
    if claimed > SLABS.load(Relaxed) / 2 {
        return Err(Drop::PoolFull);
    }
    let slab = claim_slab(shared, SLAB_LARGE).ok_or(Drop::PoolFull)?;
    let number = slab.wrapping_mul(SMALL_PER_SLAB as u32);
    present(number, chunk::LARGE_BYTES).inspect_err(|_| unclaim_slab(shared, slab))
}

/// A chunk for the calling thread; a busy one gets a large chunk if there is one. When nothing is
/// free: waits for a living collector, else writes out a full chunk that waits for a dead one.
pub fn claim(large: bool) -> Result<u32, Drop> {
    let shared = shared().ok_or(Drop::Early)?;
    let attempt = || {
        // The other size is better than a loss.
        if large {
            claim_large(shared).or_else(|reason| claim_small(shared).map_err(|_| reason))
        } else {
            claim_small(shared).or_else(|reason| pop(&shared.free_large.0).ok_or(reason))
        }
    };
    let mut result = attempt();
    if result.is_ok() {
        return result;
    }
    let began = clock::monotonic_ns();
    let may_wait = began >= NO_WAIT_BEFORE.load(Relaxed);
    if may_wait && collector_is_alive() && !process::is_vfork_child() {
        // SAFETY: `connect` set it, and it stays mapped.
        let control = unsafe { CONTROL.load(Relaxed).as_ref() };
        let limit = control.map_or(0, |control| control.wait_ns.load(Relaxed));
        let seen = || control.map_or(0, |control| control.collector_ns.0.load(Relaxed));
        let before = circulating(shared);
        let mut waited = 0;
        // A collector that gave no sign of life meanwhile may be gone: then dropping the call
        // would lose what can be written out as soon as that is known.
        while result.is_err()
            && limit != 0
            && (waited < limit || seen() < began)
            && collector_is_alive()
        {
            sys::sleep(500_000);
            waited = clock::monotonic_ns().wrapping_sub(began);
            result = attempt();
        }
        if waited > 0 {
            process::count_wait(waited);
        }
        if result.is_ok() || circulating(shared) != before {
            STUCK_SINCE.store(0, Relaxed);
        } else if collector_is_alive() {
            let since = match STUCK_SINCE.compare_exchange(0, began, Relaxed, Relaxed) {
                Ok(_) => began,
                Err(since) => since,
            };
            // Threads that do nothing hold the whole pool: waiting half of the time must do.
            if began.saturating_sub(since) > STUCK_NS {
                NO_WAIT_BEFORE.store(began.wrapping_add(waited.wrapping_mul(2)), Relaxed);
            }
        }
    }
    if result.is_err() && !collector_is_alive() {
        result = write_out_full(shared).or_else(|reason| attempt().map_err(|_| reason));
    }
    result.map_err(|reason| {
        if DISK_FULL.load(Relaxed) {
            Drop::DiskLimit
        } else {
            reason
        }
    })
}

/// Takes a chunk that waits for a collector which is no more, and appends it.
fn write_out_full(shared: &Shared) -> Result<u32, Drop> {
    loop {
        let number = match pop(&shared.full.0) {
            Some(number) => number,
            None if collector_is_gone() => return write_out_taken(shared),
            None => return Err(Drop::PoolFull),
        };
        let header = header(number);
        // SAFETY: chunks on a list are present.
        let state = unsafe { &(*header).state };
        if !take_full(state) {
            continue; // Another thread found it without the list.
        }
        if append(header) {
            state.store(chunk::STATE_FREE, Release);
            return Ok(number);
        }
        state.store(chunk::STATE_FULL, Release);
        push(&shared.full.0, number);
        return Err(Drop::PoolFull);
    }
}

/// Nobody owns a full chunk: whoever makes it active does. (A living collector owns those that it
/// took off the list.)
fn take_full(state: &AtomicU32) -> bool {
    state
        .compare_exchange(chunk::STATE_FULL, chunk::STATE_ACTIVE, AcqRel, Acquire)
        .is_ok()
}

/// Appends one of the chunks that the collector had taken when it died.
fn write_out_taken(shared: &Shared) -> Result<u32, Drop> {
    /// A thread that stored `closed` has gone on since.
    const SETTLED_NS: u64 = 50_000_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let claimed = shared
        .slabs_claimed
        .0
        .load(Acquire)
        .min(SLABS.load(Relaxed));
    let per_slab = SMALL_PER_SLAB as u32;
    let chunks = claimed.wrapping_mul(per_slab);
    let began = clock::monotonic_ns();
    loop {
        let now = clock::monotonic_ns();
        let first = NEXT.load(Relaxed);
        let mut settles = false;
        for n in 0..chunks {
            let number = first.wrapping_add(n).checked_rem(chunks).unwrap_or(0);
            let is_chunk = match directory(number / per_slab).load(Acquire) {
                SLAB_LARGE => number % per_slab == 0,
                SLAB_SMALL => true,
                _ => false,
            };
            let header = header(number);
            // SAFETY: within the mapping; `claim` is called with all signals blocked.
            if !is_chunk || !unsafe { sys::is_readable(header as usize) } {
                continue;
            }
            // SAFETY: the chunk is present.
            let shared_header = unsafe { &*header };
            let state = &shared_header.state;
            if state.load(Acquire) != chunk::STATE_FULL {
                continue;
            }
            let [_, closed_ns, _] = &shared_header.closed;
            if now < closed_ns.load(Relaxed).wrapping_add(SETTLED_NS) {
                settles = true;
                continue;
            }
            if !take_full(state) {
                continue;
            }
            NEXT.store(number.wrapping_add(1), Relaxed);
            if append(header) {
                state.store(chunk::STATE_FREE, Release);
                return Ok(number);
            }
            state.store(chunk::STATE_FULL, Release);
            return Err(Drop::PoolFull);
        }
        if !settles || now.wrapping_sub(began) > SETTLED_NS.wrapping_mul(4) {
            return Err(Drop::PoolFull);
        }
        sys::sleep(1_000_000);
    }
}

fn begin_header(
    header: &ChunkHeader,
    kind: u32,
    process: u32,
    thread: u32,
    tid: u32,
    opened: Triple,
    sequence: u32,
) {
    // A reader that looks in between sees an empty chunk or a wrong check word.
    header.committed.store(0, Release);
    header.check.store(0, Release);
    header.magic.store(chunk::MAGIC, Relaxed);
    header.kind.store(kind, Relaxed);
    header.process.store(process, Relaxed);
    header.thread.store(thread, Relaxed);
    header.sequence.store(sequence, Relaxed);
    header.tid.store(tid, Relaxed);
    header.next.store(0, Relaxed);
    let [low, high] = &SPOOL_ID;
    let id = [low.load(Relaxed), high.load(Relaxed)];
    for (field, value) in header.spool_id.iter().zip(id) {
        field.store(value, Relaxed);
    }
    store_triple(&header.opened, opened);
    store_triple(&header.closed, Triple::default());
    let bytes = header.chunk_bytes.load(Relaxed);
    let check = chunk::check_word(kind, bytes, process, thread, sequence, id, opened.tsc);
    header.check.store(check, Relaxed);
}

/// Writes the header of a chunk of records; [`activate`] makes it valid.
pub fn begin(header: &ChunkHeader, thread: &Thread, process: u32, opened: Triple, sequence: u32) {
    begin_header(
        header,
        chunk::KIND_EVENTS,
        process,
        thread.number,
        thread.tid,
        opened,
        sequence,
    );
}

/// Writes the header of a chunk of fork positions.
pub fn begin_fork(header: &ChunkHeader, process: u32, opened: Triple, sequence: u32) {
    begin_header(header, chunk::KIND_FORK, process, 0, 0, opened, sequence);
    for count in &header.calls {
        count.store(0, Relaxed);
    }
    for count in [
        &header.bytes,
        &header.sum,
        &header.dropped,
        &header.first_ordinal,
    ] {
        count.store(0, Relaxed);
    }
}

/// The header is complete: readers may take the chunk.
pub fn activate(header: &ChunkHeader) {
    header.state.store(chunk::STATE_ACTIVE, Release);
}

/// Stores a triple.
pub fn store_triple(fields: &[AtomicU64; 3], triple: Triple) {
    let values = [triple.tsc, triple.monotonic_ns, triple.boottime_ns];
    for (field, value) in fields.iter().zip(values) {
        field.store(value, Relaxed);
    }
}

/// A word of the control file.
fn control_word(offset: usize) -> u32 {
    let control = CONTROL.load(Relaxed);
    if control.is_null() {
        return 0;
    }
    let word = (control as usize).wrapping_add(offset) as *const AtomicU32;
    // SAFETY: `connect` was given a page; callers give offsets within it.
    unsafe { (*word).load(Acquire) }
}

/// Whether it is certain that no collector will ever touch a chunk again.
fn collector_is_gone() -> bool {
    control_word(COLLECTOR_LOCK_OFFSET) & OWNER_DIED != 0
        || control_word(COLLECTOR_GONE_OFFSET) != 0
}

fn collector_is_alive() -> bool {
    // SAFETY: `connect` set it, and it stays mapped.
    let Some(control) = (unsafe { CONTROL.load(Relaxed).as_ref() }) else {
        return false;
    };
    let seen = control.collector_ns.0.load(Relaxed);
    seen != 0
        && control_word(COLLECTOR_LOCK_OFFSET) & OWNER_DIED == 0
        && clock::monotonic_ns().wrapping_sub(seen) < COLLECTOR_ALIVE_NS
}

/// Hands over a chunk that its thread is done with: to the collector, else to the disk. `Some` if it
/// was written out and the thread may go on with it (`keep`, and it is a large one).
pub fn hand_over(number: u32, header: *mut ChunkHeader, keep: bool) -> Option<u32> {
    // SAFETY: the chunk is the caller's.
    let chunk = unsafe { &*header };
    store_triple(&chunk.closed, clock::triple());
    if collector_is_alive() {
        chunk.state.store(chunk::STATE_FULL, Release);
        if let Some(shared) = shared() {
            push(&shared.full.0, number);
        }
        return None;
    }
    if !append(header) {
        chunk.state.store(chunk::STATE_FULL, Release);
        return None;
    }
    if keep && chunk.chunk_bytes.load(Relaxed) as usize == chunk::LARGE_BYTES {
        chunk.state.store(chunk::STATE_FREE, Release);
        return Some(number);
    }
    release(number, header);
    None
}

/// Gives a chunk back.
pub fn release(number: u32, header: *mut ChunkHeader) {
    // SAFETY: the chunk is the caller's.
    let chunk = unsafe { &*header };
    chunk.state.store(chunk::STATE_FREE, Release);
    let Some(shared) = shared() else { return };
    let large = chunk.chunk_bytes.load(Relaxed) as usize == chunk::LARGE_BYTES;
    push(
        if large {
            &shared.free_large.0
        } else {
            &shared.free_small.0
        },
        number,
    );
}

/// Appends the chunk to the run's file in one write. Whether it is there now.
///
/// The descriptor is the program's to close and to reuse, so it is compared before each write; in
/// an unsandboxed process the write itself fails on anything that can't be positioned in (sockets,
/// pipes, terminals), which closes the moment between the two for those.
fn append(header: *mut ChunkHeader) -> bool {
    let fd = APPEND.load(Acquire);
    if fd < 0 {
        return false;
    }
    let identity = (APPEND_DEVICE.load(Relaxed), APPEND_INODE.load(Relaxed));
    let Some(now) = sys::fstat(fd).filter(|now| (now.device, now.inode) == identity) else {
        APPEND.store(-1, Release);
        return false;
    };
    // SAFETY: the chunk is the caller's.
    let committed = unsafe { (*header).committed.load(Relaxed) } as usize;
    let length = HEADER_BYTES.wrapping_add(committed);
    if now.bytes.saturating_add(length as u64) > APPEND_LIMIT.load(Relaxed) {
        DISK_FULL.store(true, Relaxed);
        return false;
    }
    loop {
        let written = if process::number() == 0 {
            sys::pwrite(fd, header as *const u8, length)
        } else {
            sys::write(fd, header as *const u8, length)
        };
        if written == length as isize {
            process::count_appended(length as u64);
            return true;
        }
        if written == -sys::EINTR {
            continue;
        }
        // A short write leaves a fragment that readers skip; nothing is appended behind it.
        APPEND.store(-1, Release);
        DISK_FULL.store(true, Relaxed);
        return false;
    }
}
