//! Compaction: which regions are emptied into which, step by step within a budget. Moving single blocks is
//! [`crate::evacuate`]'s.
//!
//! A *cycle* surveys all regions, then takes the classes in the order of what they hold free. In each class the
//! emptiest regions are emptied into the fullest ones, as far as these have room; what is left is squeezed to the front
//! of its region, and pages without blocks go back. The state of a cycle lies in the heap, so a step may end anywhere
//! and the next call goes on, whoever makes it.

use crate::cache::Cache;
use crate::class::{CLASSES_MAX, Class, ENTRY_BYTES};
use crate::heap::Heap;
use crate::platform::PAGE;
use crate::region::{Region, owner};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Classes of fullness that regions are ranked by.
const RANKS: usize = 16;
/// Descriptors looked at between two looks at the clock.
const SURVEYED: usize = 256;
/// What giving a page back costs with what its next use costs: a fault and zeroing (measured: 1.0 to 1.6 us).
pub(crate) const PAGE_NS: u64 = 1_500;
/// Time that can be saved up for steps.
const CREDIT_NS_MAX: i64 = 50_000_000;
/// Cycles of a compaction without limit, at most.
const CYCLES_MAX: u32 = 8;
/// Spans given back at a time.
const RELEASED: usize = 32;
/// How long the owner of a region is waited for, spins.
const PATIENCE: u32 = 400;

/// What compaction did; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Compaction {
    /// Blocks that have new addresses.
    pub blocks_moved: u64,
    /// Their usable bytes.
    pub bytes_moved: u64,
    /// Blocks that stayed because they were locked, counted each time they were met.
    pub blocks_pinned: u64,
    /// Copies given up because the block was locked or freed meanwhile.
    pub blocks_abandoned: u64,
    /// Blocks whose contents were dropped.
    pub blocks_discarded: u64,
    /// Regions emptied.
    pub regions_emptied: u64,
    /// Bytes of memory given back to the system.
    pub bytes_released: u64,
    /// Time spent looking for what to do.
    pub survey_ns: u64,
    /// Time spent moving blocks.
    pub move_ns: u64,
    /// Time spent giving memory back.
    pub release_ns: u64,
    /// Steps: calls that did something.
    pub steps: u64,
    /// The longest step.
    pub longest_ns: u64,
    /// Nothing is left to gain: a whole cycle has ended.
    pub finished: u32,
    /// Checking build: damages found meanwhile, by any thread. Else 0.
    pub reserved: u32,
}

/// What a class holds.
#[derive(Clone, Copy)]
struct Total {
    used: u32,
    regions: u32,
    /// Pages that are resident.
    pages: u32,
}

impl Total {
    const NONE: Total = Total {
        used: 0,
        regions: 0,
        pages: 0,
    };

    /// Pages that would be free if the class' blocks lay close together.
    fn spare_pages(&self, class: &Class) -> u32 {
        let reverse = if class.reverse_inside { 4 } else { 0 };
        let needed = (self.used as u64 * (class.size as u64 + reverse)).div_ceil(PAGE as u64);
        self.pages.saturating_sub(needed as u32)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing begun.
    Idle,
    /// Totals of the classes.
    Survey,
    /// Which class is next?
    Pick,
    /// Ranks of the class' regions.
    Rank,
    /// The class' emptiest regions into its fullest.
    Evacuate,
    /// Each of the class' regions to its front, and its pages.
    Squeeze,
    /// Whole regions and large blocks to the front of a heap that can't grow, so that there is room behind them.
    Slide,
    /// Free spans.
    Dirty,
    /// Pages of the table.
    Table,
}

/// A cycle's state.
pub(crate) struct Compactor {
    phase: Phase,
    /// Span to go on with.
    cursor: usize,
    /// Where the next destination is looked for.
    target_cursor: usize,
    class: usize,
    totals: [Total; CLASSES_MAX],
    ranks: [(u32, u32); RANKS + 1],
    /// Regions of lower rank are emptied, of higher rank filled; those of this rank both, from the two ends.
    cut: usize,
    /// Region being emptied or squeezed, in our hands, and its next slot.
    source: Option<Seized>,
    pub(crate) slot: u32,
    /// Region being filled, in our hands during a step only.
    target: Option<Seized>,
    /// Since the heap was made.
    pub(crate) sum: Compaction,
    /// Time that the policy's steps may take now.
    credit_ns: i64,
    /// When the credit was last added to.
    earned_ns: u64,
    /// The policy wanted work and did not have enough yet.
    active: bool,
}

impl Compactor {
    pub fn new(now_ns: u64) -> Compactor {
        Compactor {
            phase: Phase::Idle,
            cursor: 0,
            target_cursor: 0,
            class: 0,
            totals: [Total::NONE; CLASSES_MAX],
            ranks: [(0, 0); RANKS + 1],
            cut: 0,
            source: None,
            slot: 0,
            target: None,
            sum: Compaction {
                blocks_moved: 0,
                bytes_moved: 0,
                blocks_pinned: 0,
                blocks_abandoned: 0,
                blocks_discarded: 0,
                regions_emptied: 0,
                bytes_released: 0,
                survey_ns: 0,
                move_ns: 0,
                release_ns: 0,
                steps: 0,
                longest_ns: 0,
                finished: 0,
                reserved: 0,
            },
            credit_ns: 0,
            earned_ns: now_ns,
            active: false,
        }
    }
}

impl Compactor {
    /// Adds the share of the time gone by to the credit; true: there is some.
    fn earn(&mut self, now_ns: u64, share_ppm: u32) -> bool {
        let gone = now_ns.saturating_sub(self.earned_ns).min(u32::MAX as u64);
        self.earned_ns = now_ns;
        let earned = (gone * share_ppm as u64 / 1_000_000) as i64;
        self.credit_ns = (self.credit_ns + earned).min(CREDIT_NS_MAX);
        self.credit_ns > 0
    }
}

/// When a step has to end.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    /// Nothing that may take longer begins after this.
    pub at_ns: u64,
    clock_ns: fn() -> u64,
}

impl Deadline {
    /// Nanoseconds left.
    pub fn left_ns(&self) -> u64 {
        if self.at_ns == u64::MAX {
            u64::MAX
        } else {
            self.at_ns.saturating_sub((self.clock_ns)())
        }
    }

    pub fn is_over(&self) -> bool {
        self.left_ns() == 0
    }
}

/// Compacts for `budget_ns`, or until nothing is left to gain if it is 0. `None`: another thread does.
///
/// # Safety
/// The calling thread is the cache's, in no other call.
pub(crate) unsafe fn compact(cache: &Cache, budget_ns: u64) -> Option<Compaction> {
    let heap = cache.heap();
    if !heap.compacting.try_lock() {
        return None;
    }
    // SAFETY: `compacting` is held.
    let done = unsafe { step(cache, budget_ns, 0) };
    heap.compacting.unlock(&heap.platform);
    Some(done)
}

/// A step of the policy, if it wants one now.
///
/// # Safety
/// As [`compact`].
pub(crate) unsafe fn by_policy(cache: &Cache) {
    let heap = cache.heap();
    let policy = heap.policy.get();
    let resident = heap.resident_bytes.load(Relaxed);
    let share = |ppm: u32| (resident as u128 * ppm as u128 / 1_000_000) as u64;
    let thin = heap.thin_bytes.load(Relaxed).max(0) as u64;
    let dirty = heap.dirty_bytes.load(Relaxed);
    let keep = share(policy.slack).max(policy.floor_bytes);
    let is_thin = thin > policy.floor_bytes.max(share(policy.stop));
    if dirty <= keep && !is_thin || !heap.compacting.try_lock() {
        return;
    }
    // SAFETY: `compacting` is held.
    unsafe {
        let compactor = &mut *heap.compactor.get();
        if compactor.earn((heap.platform.clock_ns)(), policy.cpu_share) {
            if dirty > keep {
                heap.mutex.lock(&heap.platform);
                let before = heap.dirty_bytes.load(Relaxed);
                // In chunks: a call for each span would cost twice as much.
                let (mut from, mut runs) = (0, 8);
                while runs > 0
                    && let Some(next) = heap.release_dirty(from, keep / 2, RELEASED)
                {
                    from = next;
                    runs -= 1;
                }
                let released = before - heap.dirty_bytes.load(Relaxed);
                heap.mutex.unlock(&heap.platform);
                compactor.sum.bytes_released += released;
                compactor.credit_ns -= (released / PAGE as u64 * PAGE_NS) as i64;
            }
            compactor.active |= thin > policy.floor_bytes.max(share(policy.trigger));
            if compactor.active && is_thin {
                let released = compactor.sum.bytes_released;
                let done = step(cache, policy.budget_ns, keep / 2);
                let released = compactor.sum.bytes_released - released;
                compactor.credit_ns -= (done.longest_ns + released / PAGE as u64 * PAGE_NS) as i64;
                if done.finished != 0 {
                    compactor.active = false;
                }
            }
        }
    }
    heap.compacting.unlock(&heap.platform);
}

/// Has the policy begun with work that is not done yet?
pub(crate) fn is_active(heap: &Heap) -> bool {
    if !is_thin(heap, heap.policy.get().stop) {
        return false;
    }
    heap.compacting.lock(&heap.platform);
    // SAFETY: `compacting` is held.
    let active = unsafe { (*heap.compactor.get()).active };
    heap.compacting.unlock(&heap.platform);
    active
}

/// Would the policy begin now?
pub(crate) fn is_due(heap: &Heap) -> bool {
    let policy = heap.policy.get();
    let resident = heap.resident_bytes.load(Relaxed) as u128;
    let keep = (resident * policy.slack as u128 / 1_000_000) as u64;
    heap.dirty_bytes.load(Relaxed) > keep.max(policy.floor_bytes) || is_thin(heap, policy.trigger)
}

/// Is more than this share of the memory free in pages in use, in millionths, and more than the floor?
fn is_thin(heap: &Heap, share: u32) -> bool {
    let resident = heap.resident_bytes.load(Relaxed) as u128;
    let thin = heap.thin_bytes.load(Relaxed).max(0) as u64;
    thin > heap
        .policy
        .get()
        .floor_bytes
        .max((resident * share as u128 / 1_000_000) as u64)
}

/// Makes room by all means but the caller's: compacts, gives back what is free, then drops what may be dropped.
/// Answers whether anything was gained.
///
/// # Safety
/// As [`compact`].
pub(crate) unsafe fn make_room(cache: &Cache, bytes: usize) -> bool {
    let heap = cache.heap();
    heap.compacting.lock(&heap.platform);
    // SAFETY: `compacting` is held.
    let gained = unsafe {
        let spans = |heap: &Heap| {
            heap.mutex.lock(&heap.platform);
            let taken = heap.guarded().spans.taken;
            heap.mutex.unlock(&heap.platform);
            taken
        };
        let before = spans(heap);
        let compactor = &mut *heap.compactor.get();
        let discarded = crate::evacuate::discard(cache, &mut compactor.sum, bytes as u64);
        let done = step(cache, 0, 0);
        spans(heap) < before || discarded || done.regions_emptied > 0 || done.blocks_moved > 0
    };
    heap.compacting.unlock(&heap.platform);
    gained
}

/// One step. `keep`: bytes of free memory that may stay resident.
unsafe fn step(cache: &Cache, budget_ns: u64, keep: u64) -> Compaction {
    let heap = cache.heap();
    let clock_ns = heap.platform.clock_ns;
    // SAFETY: the caller holds `compacting`.
    let compactor = unsafe { &mut *heap.compactor.get() };
    let begin = clock_ns();
    let deadline = Deadline {
        at_ns: if budget_ns == 0 {
            u64::MAX
        } else {
            begin + budget_ns
        },
        clock_ns,
    };
    let before = compactor.sum;
    #[cfg(feature = "checked")]
    let damages = crate::guarded::damages();
    let mut finished = false;
    // Without a limit: whole cycles until one gains nothing, as moving blocks can make room for moving others.
    let mut cycles = if budget_ns == 0 { CYCLES_MAX } else { 1 };
    let mut is_whole = compactor.phase == Phase::Idle;
    let mut emptied = compactor.sum.regions_emptied;
    while !deadline.is_over() {
        // SAFETY: the caller holds `compacting`.
        if unsafe { advance(cache, compactor, &deadline, keep) } {
            let gained = compactor.sum.regions_emptied - emptied;
            emptied += gained;
            cycles -= 1;
            if cycles == 0 || is_whole && gained == 0 {
                finished = true;
                break;
            }
            is_whole = true;
        }
    }
    // SAFETY: as above. What was being filled can be allocated from until the next step.
    unsafe { release_target(cache, compactor) };
    let took = clock_ns() - begin;
    compactor.sum.steps += 1;
    compactor.sum.longest_ns = compactor.sum.longest_ns.max(took);
    let sum = &compactor.sum;
    Compaction {
        blocks_moved: sum.blocks_moved - before.blocks_moved,
        bytes_moved: sum.bytes_moved - before.bytes_moved,
        blocks_pinned: sum.blocks_pinned - before.blocks_pinned,
        blocks_abandoned: sum.blocks_abandoned - before.blocks_abandoned,
        blocks_discarded: sum.blocks_discarded - before.blocks_discarded,
        regions_emptied: sum.regions_emptied - before.regions_emptied,
        bytes_released: sum.bytes_released - before.bytes_released,
        survey_ns: sum.survey_ns - before.survey_ns,
        move_ns: sum.move_ns - before.move_ns,
        release_ns: sum.release_ns - before.release_ns,
        steps: 1,
        longest_ns: took,
        finished: finished as u32,
        #[cfg(feature = "checked")]
        reserved: (crate::guarded::damages() - damages) as u32,
        #[cfg(not(feature = "checked"))]
        reserved: 0,
    }
}

/// Does a small piece of the cycle; true: the cycle has ended.
unsafe fn advance(
    cache: &Cache,
    compactor: &mut Compactor,
    deadline: &Deadline,
    keep: u64,
) -> bool {
    let heap = cache.heap();
    let begin = (heap.platform.clock_ns)();
    let phase = compactor.phase;
    // SAFETY: the caller holds `compacting`; the mutex is taken where it is needed.
    let ended = unsafe {
        match phase {
            Phase::Idle => {
                compactor.totals = [Total::NONE; CLASSES_MAX];
                compactor.go(Phase::Survey, heap);
                false
            }
            Phase::Survey => {
                survey(heap, compactor);
                false
            }
            Phase::Pick => {
                pick(heap, compactor);
                false
            }
            Phase::Rank => {
                rank(heap, compactor);
                false
            }
            Phase::Evacuate => {
                evacuate(cache, compactor, deadline);
                false
            }
            Phase::Squeeze => {
                squeeze(cache, compactor, deadline);
                false
            }
            Phase::Slide => {
                slide(cache, compactor, deadline);
                false
            }
            Phase::Dirty => {
                heap.mutex.lock(&heap.platform);
                let before = heap.dirty_bytes.load(Relaxed);
                let next = heap.release_dirty(compactor.cursor, keep, RELEASED);
                compactor.sum.bytes_released += before - heap.dirty_bytes.load(Relaxed);
                heap.mutex.unlock(&heap.platform);
                match next {
                    Some(span) => compactor.cursor = span,
                    None => compactor.go(Phase::Table, heap),
                }
                false
            }
            Phase::Table => {
                heap.mutex.lock(&heap.platform);
                if keep == 0 {
                    let pages = heap.guarded().table.release_free(&heap.platform);
                    compactor.sum.bytes_released += (pages * PAGE) as u64;
                }
                heap.mutex.unlock(&heap.platform);
                compactor.phase = Phase::Idle;
                true
            }
        }
    };
    let took = (heap.platform.clock_ns)() - begin;
    match phase {
        Phase::Evacuate | Phase::Slide => compactor.sum.move_ns += took,
        Phase::Squeeze | Phase::Dirty | Phase::Table => compactor.sum.release_ns += took,
        _ => compactor.sum.survey_ns += took,
    }
    ended
}

impl Compactor {
    fn go(&mut self, phase: Phase, heap: &Heap) {
        self.phase = phase;
        self.cursor = heap.first_span();
    }
}

/// The first span of a region of slots, if that is what `span` is.
unsafe fn slots_at(heap: &Heap, span: usize) -> Option<&Region> {
    // SAFETY: the caller's spans are ready.
    let region = unsafe { heap.region(span) };
    let who = region.owner();
    (who < owner::CACHES || who == owner::NONE || who == owner::COMPACTOR).then_some(region)
}

fn ready(heap: &Heap) -> usize {
    heap.mutex.lock(&heap.platform);
    // SAFETY: the mutex is held.
    let ready = unsafe { heap.guarded() }.ready;
    heap.mutex.unlock(&heap.platform);
    ready
}

unsafe fn survey(heap: &Heap, compactor: &mut Compactor) {
    let end = ready(heap);
    let until = end.min(compactor.cursor + SURVEYED);
    for span in compactor.cursor..until {
        // SAFETY: the span is ready.
        let Some(region) = (unsafe { slots_at(heap, span) }) else {
            continue;
        };
        let index = region.class.load(Relaxed) as usize;
        if index >= heap.classes.len() {
            continue;
        }
        let class = heap.classes.get(index as u8);
        let total = &mut compactor.totals[index];
        let used = region.held();
        total.used += used;
        total.regions += 1;
        total.pages += (region.resident_bytes(class) / PAGE as u64) as u32;
    }
    compactor.cursor = until;
    if until == end {
        compactor.class = 0;
        compactor.phase = Phase::Pick;
    }
}

/// The class with most to gain is next; none: on to the next phase.
unsafe fn pick(heap: &Heap, compactor: &mut Compactor) {
    let spare = |class: usize| compactor.totals[class].spare_pages(heap.classes.get(class as u8));
    let best = (0..heap.classes.len()).max_by_key(|class| spare(*class));
    match best {
        Some(class) if spare(class) > 0 => {
            compactor.class = class;
            // Done, once this is through.
            compactor.totals[class].pages = 0;
            compactor.ranks = [(0, 0); RANKS + 1];
            #[cfg(feature = "beside")]
            let leave = heap.leaves(heap.classes.get(class as u8).size);
            #[cfg(not(feature = "beside"))]
            let leave = true;
            let next = if leave && compactor.totals[class].regions > 1 {
                Phase::Rank
            } else {
                Phase::Squeeze
            };
            compactor.go(next, heap);
        }
        // Entries beside blocks keep regions where they are.
        _ if heap.given && ENTRY_BYTES == 0 => {
            compactor.phase = Phase::Slide;
            compactor.cursor = ready(heap);
        }
        _ => compactor.go(Phase::Dirty, heap),
    }
}

fn rank_of(used: u32, slots: u32) -> usize {
    (used as usize * RANKS / slots as usize).min(RANKS)
}

unsafe fn rank(heap: &Heap, compactor: &mut Compactor) {
    let end = ready(heap);
    let until = end.min(compactor.cursor + SURVEYED);
    for span in compactor.cursor..until {
        // SAFETY: the span is ready.
        let Some(region) = (unsafe { slots_at(heap, span) }) else {
            continue;
        };
        if region.class.load(Relaxed) as usize == compactor.class {
            let used = region.held();
            let slots = heap.class(region).slots as u32;
            let rank = &mut compactor.ranks[rank_of(used, slots)];
            *rank = (rank.0 + 1, rank.1 + used);
        }
    }
    compactor.cursor = until;
    if until < end {
        return;
    }
    // As many ranks from the emptiest on as fit into the free slots of the others.
    let slots = heap.classes.get(compactor.class as u8).slots as u64;
    let free = |ranks: &[(u32, u32)]| {
        ranks
            .iter()
            .map(|(regions, used)| {
                *regions as u64 * slots - (*used as u64).min(*regions as u64 * slots)
            })
            .sum::<u64>()
    };
    let mut moved = 0u64;
    compactor.cut = 0;
    for rank in 0..RANKS {
        compactor.cut = rank;
        moved += compactor.ranks[rank].1 as u64;
        if moved > free(&compactor.ranks[rank + 1..]) {
            break;
        }
    }
    // From the end downwards, destinations from the front.
    compactor.phase = Phase::Evacuate;
    compactor.cursor = end;
    compactor.target_cursor = heap.first_span();
}

/// A region in the compactor's hands, and who had it before.
#[derive(Clone, Copy)]
struct Seized {
    span: usize,
    from: u8,
}

/// Takes a region out of its owner's hands. `None`: it can't be had now.
unsafe fn seize(cache: &Cache, span: usize, class: usize) -> Option<Seized> {
    let heap = cache.heap();
    heap.mutex.lock(&heap.platform);
    // SAFETY: the mutex is held; an owner is not in a call, or is waited for.
    let taken = unsafe {
        let region = slots_at(heap, span).filter(|region| {
            heap.guarded().spans.is_taken(span) && region.class.load(Relaxed) as usize == class
        });
        region.and_then(|region| {
            let from = region.owner();
            if from == owner::COMPACTOR {
                return None;
            }
            if from == owner::NONE {
                if region.listed.load(Relaxed) != 0 {
                    heap.unlink(&mut heap.guarded().partial[class], span);
                }
                region.owner.store(owner::COMPACTOR, Release);
            } else {
                let other = heap.caches[from as usize].load(Acquire);
                if !stop(cache, other) {
                    return None;
                }
                if region.listed.load(Relaxed) != 0 {
                    (*other).unlink(span);
                }
                region.owner.store(owner::COMPACTOR, Release);
                (*other).paused.store(0, Release);
            }
            heap.unreport(region);
            region.collect();
            Some(Seized { span, from })
        })
    };
    heap.mutex.unlock(&heap.platform);
    taken
}

/// Lets the cache's thread begin no call until `paused` is 0 again. False: it is in one, and goes on.
unsafe fn stop(cache: &Cache, other: *const Cache) -> bool {
    if core::ptr::eq(other, cache) {
        return true;
    }
    let heap = cache.heap();
    // SAFETY: caches stay what they are while the mutex is held.
    unsafe {
        (*other).paused.store(1, Relaxed);
        (heap.platform.barrier)();
        let still = (0..PATIENCE).any(|_| {
            core::hint::spin_loop();
            (*other).op.load(Acquire) == 0
        });
        if !still {
            (*other).paused.store(0, Release);
        }
        still
    }
}

unsafe fn release_target(cache: &Cache, compactor: &mut Compactor) {
    if let Some(target) = compactor.target.take() {
        // SAFETY: the region is the compactor's.
        unsafe { let_go(cache, compactor, target) };
    }
}

/// A region of ours goes back to the thread it came from, if that is not in a call just now; else it becomes
/// nobody's. An empty one ends.
unsafe fn let_go(cache: &Cache, compactor: &mut Compactor, seized: Seized) {
    let heap = cache.heap();
    heap.mutex.lock(&heap.platform);
    // SAFETY: the mutex is held, the region is the compactor's.
    unsafe {
        let Seized { span, from } = seized;
        let region = heap.region(span);
        region.collect();
        let empty = region.used.load(Relaxed) == 0;
        compactor.sum.regions_emptied += empty as u64;
        let other = match heap.caches.get(from as usize) {
            Some(other) => other.load(Acquire),
            None => core::ptr::null_mut(),
        };
        if !empty && !other.is_null() && stop(cache, other) {
            (*other).adopt(span);
            (*other).paused.store(0, Release);
        } else {
            heap.disown(span);
        }
    }
    heap.mutex.unlock(&heap.platform);
}

/// Moves a batch of the class' blocks.
unsafe fn evacuate(cache: &Cache, compactor: &mut Compactor, deadline: &Deadline) {
    let heap = cache.heap();
    // SAFETY: the caller holds `compacting`; regions that were seized are ours.
    unsafe {
        let Some(source) = compactor.source else {
            if !next_source(cache, compactor) {
                release_target(cache, compactor);
                compactor.go(Phase::Squeeze, heap);
            }
            return;
        };
        let Some(target) = compactor.target else {
            if compactor.phase == Phase::Slide || !next_target(cache, compactor, source.span) {
                // No room left: what is being emptied stays.
                compactor.source = None;
                let_go(cache, compactor, source);
                compactor.go(Phase::Squeeze, heap);
            }
            return;
        };
        let region = heap.region(target.span);
        if region.free.load(Relaxed) == 0 {
            heap.mutex.lock(&heap.platform);
            let more = region.collect() > 0 || heap.carve(region);
            // Feature `beside`, else 0: slots whose blocks are elsewhere have room, too.
            let more = more || region.stranded.load(Relaxed) != 0;
            heap.mutex.unlock(&heap.platform);
            if !more {
                if ENTRY_BYTES != 0 {
                    // Whether it ranks as full or not.
                    compactor.target_cursor = target.span + 1;
                }
                release_target(cache, compactor);
                return;
            }
        }
        if crate::evacuate::batch(cache, compactor, heap.region(source.span), region, deadline) {
            compactor.source = None;
            let_go(cache, compactor, source);
        }
    }
}

/// Moves the last region or large block for which there is room further to the front.
unsafe fn slide(cache: &Cache, compactor: &mut Compactor, deadline: &Deadline) {
    let heap = cache.heap();
    // SAFETY: the caller holds `compacting`; regions that were seized are ours.
    unsafe {
        if compactor.source.is_some() {
            // The region's new place is its target.
            evacuate(cache, compactor, deadline);
            if compactor.source.is_none() {
                release_target(cache, compactor);
            }
            compactor.phase = Phase::Slide;
            return;
        }
        let until = compactor
            .cursor
            .saturating_sub(SURVEYED)
            .max(heap.first_span());
        while compactor.cursor > until {
            compactor.cursor -= 1;
            let span = compactor.cursor;
            if heap.region(span).owner() == owner::LARGE {
                if crate::evacuate::slide_large(cache, compactor, span, deadline) {
                    return;
                }
                continue;
            }
            let Some(region) = slots_at(heap, span) else {
                continue;
            };
            let class = region.class.load(Relaxed);
            if class as usize >= heap.classes.len() || !room_before(heap, span, class) {
                continue;
            }
            if let Some(seized) = seize(cache, span, class as usize) {
                heap.mutex.lock(&heap.platform);
                let place = heap.new_region(class, owner::COMPACTOR);
                heap.mutex.unlock(&heap.platform);
                compactor.source = Some(seized);
                compactor.slot = 0;
                compactor.target = place.map(|span| Seized {
                    span,
                    from: seized.from,
                });
                if place.is_none_or(|place| place > span) {
                    compactor.source = None;
                    let_go(cache, compactor, seized);
                    release_target(cache, compactor);
                }
                return;
            }
        }
        if compactor.cursor == heap.first_span() {
            compactor.go(Phase::Dirty, heap);
        }
    }
}

/// Is there room for another region of the class before this one?
fn room_before(heap: &Heap, span: usize, class: u8) -> bool {
    let spans = heap.classes.get(class).spans as usize;
    heap.mutex.lock(&heap.platform);
    // SAFETY: the mutex is held.
    let room = unsafe { heap.guarded() }.spans.find(spans, span).is_some();
    heap.mutex.unlock(&heap.platform);
    room
}

/// Looks at up to a few hundred spans for the next region to empty; false: there is none.
unsafe fn next_source(cache: &Cache, compactor: &mut Compactor) -> bool {
    let heap = cache.heap();
    let until = compactor
        .cursor
        .saturating_sub(SURVEYED)
        .max(heap.first_span());
    while compactor.cursor > until {
        compactor.cursor -= 1;
        let span = compactor.cursor;
        // SAFETY: the span is ready.
        unsafe {
            let Some(region) = slots_at(heap, span) else {
                continue;
            };
            if region.class.load(Relaxed) as usize != compactor.class {
                continue;
            }
            let rank = rank_of(region.held(), heap.class(region).slots as u32);
            if rank > compactor.cut || rank == compactor.cut && span <= compactor.target_cursor {
                continue;
            }
            if let Some(seized) = seize(cache, span, compactor.class) {
                compactor.source = Some(seized);
                compactor.slot = 0;
                return true;
            }
        }
    }
    compactor.cursor > heap.first_span()
}

/// Looks at up to a few hundred spans for the next region to fill; false: there is none.
unsafe fn next_target(cache: &Cache, compactor: &mut Compactor, source: usize) -> bool {
    let heap = cache.heap();
    let end = ready(heap);
    // A piece at a time: a large heap has tens of thousands of descriptors.
    let until = end.min(compactor.target_cursor + SURVEYED);
    while compactor.target_cursor < until {
        let span = compactor.target_cursor;
        // SAFETY: the span is ready.
        unsafe {
            if span != source
                && let Some(region) = slots_at(heap, span)
                && region.class.load(Relaxed) as usize == compactor.class
            {
                let (used, slots) = (region.held(), heap.class(region).slots as u32);
                let rank = rank_of(used, slots);
                let fits = used < slots
                    && (rank > compactor.cut || rank == compactor.cut && span < source);
                if fits && let Some(seized) = seize(cache, span, compactor.class) {
                    compactor.target = Some(seized);
                    compactor.target_cursor = span;
                    // The next one, once this is full: a region that is full ranks no more.
                    return true;
                }
            }
        }
        compactor.target_cursor += 1;
    }
    compactor.target_cursor < end
}

/// Squeezes the class' next region, or goes on to the next class.
unsafe fn squeeze(cache: &Cache, compactor: &mut Compactor, deadline: &Deadline) {
    let heap = cache.heap();
    // SAFETY: the caller holds `compacting`; regions that were seized are ours.
    unsafe {
        if let Some(seized) = compactor.source {
            let region = heap.region(seized.span);
            if crate::evacuate::squeeze(cache, compactor, region, deadline) {
                let released = crate::evacuate::trim(heap, region);
                compactor.sum.bytes_released += released;
                compactor.source = None;
                let_go(cache, compactor, seized);
            }
            return;
        }
        let end = ready(heap);
        let until = end.min(compactor.cursor + SURVEYED);
        while compactor.cursor < until {
            let span = compactor.cursor;
            compactor.cursor += 1;
            let Some(region) = slots_at(heap, span) else {
                continue;
            };
            if region.class.load(Relaxed) as usize != compactor.class {
                continue;
            }
            let class = heap.class(region);
            let used = region.held();
            let needed = (used as u64 * class.size as u64).div_ceil(PAGE as u64);
            let resident = region.resident_bytes(class) / PAGE as u64;
            if (resident > needed || used == 0)
                && let Some(seized) = seize(cache, span, compactor.class)
            {
                compactor.source = Some(seized);
                compactor.slot = class.slots as u32;
                return;
            }
        }
        if until == end {
            compactor.go(Phase::Pick, heap);
        }
    }
}

impl Heap {
    /// Sums since the heap was made, and whether the policy is at work; of interest to statistics.
    ///
    /// Waits for a step that another thread makes.
    pub fn compaction(&self) -> Compaction {
        self.compacting.lock(&self.platform);
        // SAFETY: `compacting` is held.
        let sum = unsafe { (*self.compactor.get()).sum };
        self.compacting.unlock(&self.platform);
        sum
    }
}
