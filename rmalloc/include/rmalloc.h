/* rmalloc: blocks of memory that are named by handles and may move while they are not locked.
 *
 *     memory_t *text;
 *     void *address;
 *     if (rmalloc(&text, 100) == 0) {
 *       if (rmlock(text, &address) == 0) {      // the block stays where it is ...
 *         strcpy(address, "hello");
 *         rmunlock(text);                       // ... until here
 *       }
 *       rmfree(text);
 *     }
 *
 * Link with -lrmalloc (pkg-config rmalloc). Nothing needs to be initialised: the default heap is made at first
 * use, and grows from the system. A heap may also lie in memory of the caller's; see rmheap_create.
 *
 * STATUS. Every function but rmerror answers a status: 0 is success, else one of RM_... below. After a failure
 * the heap is as it was before, and nothing was written through the caller's pointers.
 *
 * HANDLES. A `memory_t *` is not an address: it is 64 bits that name an entry of the heap's handle table, how often
 * the entry was used, and the heap. It is never 0, may be copied and compared, and is not to be followed.
 *
 * LOCKS. A block that is locked does not move and keeps its contents. A lock is counted: a block that was locked
 * twice must be unlocked twice. A lock of rmlock belongs to the thread that took it; one of rmlock_shared may be
 * given back by any. When a thread ends, the locks that it still has may be given back by any thread.
 *
 * THREADS. Every function may be called by any thread at any time, unless it says otherwise. Who uses the contents of
 * a block, and when, is for the program to settle: a lock keeps a block in place, it does not keep others out. The
 * first call of a thread on a heap may also fail with RM_MEMORY: at most 250 threads use a heap at a time.
 * Not for signal handlers. After fork both processes go on with copies of all heaps; in the child, the locks of the
 * other threads may be given back by the one that is left.
 *
 * MISUSE. What is refused with a status, always, without harm to any block: freeing a locked block (RM_LOCKED), unlocking one
 * that is not locked (RM_NOT_LOCKED), a null pointer (RM_ARGUMENT; a null handle: RM_HANDLE), sizes that are negative, zero or
 * too large (RM_SIZE), a handle that was freed, was never given out, or is of a heap destroyed (RM_HANDLE), a handle of another
 * heap than the one that a call names (RM_HANDLE), a heap destroyed or made up (RM_HEAP).
 * Limits of that promise:
 *  - Handles and heaps are recognised by their bits. A made-up value that equals a live handle bit for bit is that
 *    handle. An entry is never used again once its generations are used up (2^16, rmoptions_t.generation_bits), so a
 *    stale handle never names a later block of the same heap. The name of a destroyed heap comes back
 *    when more than 60,000 others were made since; the address of one, a `rmheap_t *`, may come back with the next.
 *  - Calls on one handle must not race with its rmfree, calls on one heap not with its rmheap_destroy: the program orders
 *    them, with a mutex, a join, or whatever else orders its threads. A lock that races with rmfree may give an
 *    address although the block ends.
 *  - Writing outside of a locked block, or to a block after it was unlocked, destroys what lies there, as with malloc.
 *
 * COST. Given for the usual case: a thread that works on blocks of its own, and no call on another heap in between
 * (which costs some 10 ns). A call that finds its thread's stock empty or full takes the heap's mutex, and may compact
 * for one step of the policy. */
#ifndef RMALLOC_H
#define RMALLOC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 0 is success. */
typedef int status_t;

enum {
  RM_OK = 0,
  RM_SIZE = 1,            /* the size is zero, negative, or more than the heap can ever hold */
  RM_ALIGNMENT = 2,       /* the alignment is not a power of two, or above 4,096 */
  RM_MEMORY = 3,          /* no memory: the limit is reached, the system refuses; or too many threads or heaps */
  RM_TABLE = 4,           /* every entry of the handle table is in use */
  RM_HANDLE = 5,          /* the handle names no live block, or none of the heap that the call names */
  RM_LOCKED = 6,          /* the block is locked */
  RM_NOT_LOCKED = 7,      /* the block is not locked, or only by locks that another thread has to give back */
  RM_LOCKS = 8,           /* the block has as many locks as can be counted: 14 beside those that its own thread took */
  RM_ARGUMENT = 9,        /* a null pointer, or another argument that is not allowed */
  RM_HEAP_TOO_SMALL = 10, /* the memory given is too small for a heap */
  RM_DISCARDED = 11,      /* the contents were dropped to make room; the handle must still be freed */
  RM_BUSY = 12,           /* another thread compacts this heap; or the default heap was made before */
  RM_DAMAGED = 13,        /* written beyond the block's end, or after it was freed (checking build) */
  RM_CONFIG = 14,         /* the configuration can't be read, or has a setting that is not allowed */
  RM_HEAP = 15            /* there is no such heap: destroyed, or made up */
};

/* A handle. Opaque. */
typedef struct memory memory_t;
/* A heap. Opaque. Where a function takes one, NULL is the default heap, made if it is not there. */
typedef struct rmheap rmheap_t;

/* ---- Blocks -------------------------------------------------------------------------------------------------- */

/* A block of `size` bytes of the default heap, at a multiple of 16. The contents are of no meaning.
 * Cost: some 25 instructions; above 32 KiB the heap's mutex and whole pages. If memory is short: see rmheap_on_shortage.
 * RM_SIZE, RM_MEMORY, RM_TABLE; RM_ARGUMENT: `memory` is NULL. */
status_t rmalloc(memory_t **memory, ssize_t size);

/* As rmalloc, at a multiple of `alignment`, a power of two up to 4,096. The block keeps to it when it moves, and may
 * lose it by rmresize.
 * RM_ALIGNMENT, and those of rmalloc. */
status_t rmalloc_aligned(memory_t **memory, ssize_t size, size_t alignment);

/* Locks a block for the calling thread, and tells where it is. It stays there until rmunlock was called as often.
 * Cost: some 20 instructions, no locked one; for a block that another thread allocated, or with more than 8 locks held
 * by the thread, a compare-and-swap. A block just being moved is not waited for: the move is given up.
 * RM_HANDLE, RM_LOCKS, RM_DISCARDED; RM_ARGUMENT: `address` is NULL. */
status_t rmlock(memory_t *memory, void **address);

/* As rmlock, but any thread may give the lock back.
 * Cost: a compare-and-swap. Status as rmlock. */
status_t rmlock_shared(memory_t *memory, void **address);

/* Gives a lock back: one that the calling thread took with rmlock, if there is any, else a shared one.
 * Cost: some 8 instructions for the lock that the thread took last.
 * RM_HANDLE; RM_NOT_LOCKED. */
status_t rmunlock(memory_t *memory);

/* Ends a block. Any thread may. Its handle is refused from now on.
 * Cost: some 35 instructions; for a block that another thread allocated a compare-and-swap or two.
 * RM_HANDLE: also a block freed before; RM_LOCKED: it goes on living. */
status_t rmfree(memory_t *memory);

/* Gives a block another size; it keeps its handle, and its contents as far as they fit. Not on a locked block. It may
 * move, and rmheap_on_move is not told of that.
 * Cost: nothing if the size fits the place; else an allocation, a copy and a free.
 * RM_HANDLE, RM_SIZE, RM_LOCKED, RM_DISCARDED, RM_MEMORY, RM_TABLE; the block is as it was then. */
status_t rmresize(memory_t *memory, ssize_t size);

/* Bytes that the block can hold, at least as many as were asked for; all of them may be used.
 * Cost: some 20 instructions.
 * RM_HANDLE, RM_DISCARDED; RM_ARGUMENT: `usable_bytes` is NULL. */
status_t rmsize(memory_t *memory, size_t *usable_bytes);

/* Says whether the contents may be dropped (not 0) when memory is short, while the block is not locked. rmlock answers
 * RM_DISCARDED then, and the block must be freed. 0 takes it back. Locking such a block costs a compare-and-swap.
 * RM_HANDLE; RM_LOCKED; RM_DISCARDED: they were dropped already. */
status_t rmdiscardable(memory_t *memory, int discardable);

/* ---- Compaction and figures ---------------------------------------------------------------------------------- */

/* What compaction did. */
typedef struct rmcompact_result {
  uint64_t blocks_moved;     /* blocks that have new addresses */
  uint64_t bytes_moved;      /* their usable bytes */
  uint64_t blocks_pinned;    /* blocks that stayed because they were locked, counted each time they were met */
  uint64_t blocks_abandoned; /* copies given up because the block was locked or freed meanwhile */
  uint64_t blocks_discarded; /* blocks whose contents were dropped */
  uint64_t regions_emptied;
  uint64_t bytes_released;   /* memory given back to the system */
  uint64_t survey_ns;        /* time spent looking for what to do */
  uint64_t move_ns;          /* time spent moving blocks */
  uint64_t release_ns;       /* time spent giving memory back */
  uint64_t steps;            /* calls that did something */
  uint64_t longest_ns;       /* the longest step */
  uint32_t finished;         /* not 0: a whole cycle has ended, nothing is left to gain */
  uint32_t reserved;         /* 0 */
} rmcompact_result_t;

/* What a heap holds. Bytes of blocks are usable ones. */
typedef struct rmstats {
  uint64_t live_blocks;     /* exact while no other thread is in a call */
  uint64_t live_bytes;
  uint64_t large_blocks;    /* of the live blocks, those with pages of their own */
  uint64_t resident_bytes;  /* by the heap's own books, its tables included */
  uint64_t table_bytes;     /* of these, the handle table's */
  uint64_t dirty_bytes;     /* of these, bytes that no block uses and that wait to be used again */
  uint64_t span_bytes;      /* addresses in use */
  uint64_t entries;         /* entries of the handle table that exist */
  uint64_t entries_taken;   /* of these, entries of blocks and those that threads keep */
  uint64_t entries_retired; /* of these, entries that are never used again */
  uint64_t threads;         /* threads that use the heap */
  uint64_t stranded_slots;  /* library built with the feature beside: slots that hold nothing but the entry of a block
                               elsewhere; else 0 */
  uint64_t stranded_bytes;  /* memory in them that no block can have while those entries live */
  rmcompact_result_t compaction; /* sums since the heap was made, of the policy's steps too */
} rmstats_t;

/* Compacts the default heap, for `budget_ns` nanoseconds at most, all phases included; the next call goes on where this one
 * stopped. 0: until nothing is left to gain. Other threads may go on with all calls meanwhile. `result` may be NULL.
 * Cost: the budget, or less.
 * RM_BUSY: another thread compacts the heap, nothing was done; RM_MEMORY. */
status_t rmcompact(uint64_t budget_ns, rmcompact_result_t *result);

/* What the default heap holds.
 * Cost: some nanoseconds for each 64 KiB of the heap; waits for a step of compaction under way.
 * RM_ARGUMENT: `stats` is NULL; RM_MEMORY. */
status_t rmstats(rmstats_t *stats);

/* What a status means: a sentence in English without a full stop, never NULL. It lasts.
 * Cost: a load. */
const char *rmerror(status_t status);

/* ---- Heaps --------------------------------------------------------------------------------------------------- */

/* Who compacts when the policy says so. */
enum {
  RM_COMPACTION_DEFAULT = 0,   /* as the configuration says, else inline */
  RM_COMPACTION_OFF = 1,       /* nobody: only rmcompact, and a heap that is short of memory */
  RM_COMPACTION_INLINE = 2,    /* threads that allocate and free, a step at a time */
  RM_COMPACTION_BACKGROUND = 3 /* a thread of the heap's own, which is started when there is work; all signals are blocked in it */
};

/* What a heap is made with. Set everything to 0, then `size`, then what is wanted:
 *
 *     rmoptions_t options = {0};
 *     options.size = sizeof options;
 *     options.limit_bytes = 64 << 20;
 *
 * A field that is 0 leaves the setting as the configuration has it, or at the default. docs/rmalloc-config.md has the
 * ranges, and what the settings of the policy do. */
typedef struct rmoptions {
  size_t size;             /* sizeof(rmoptions_t): structs of earlier and later versions are told apart by it */
  void *memory;            /* memory for the heap, at any address; it never asks the system for more. NULL: it grows from the system */
  size_t memory_bytes;     /* bytes of `memory`; some 64 KiB at least */
  uint64_t reserve_bytes;  /* addresses to set aside, rounded up to MiB. Not with `memory` */
  uint64_t limit_bytes;    /* the heap takes no more memory. Not with `memory` */
  uint64_t entries;        /* entries of the handle table at most, rounded up to a multiple of 512 */
  uint64_t floor_bytes;    /* free bytes below which the policy does nothing */
  uint64_t budget_ns;      /* longest step of the policy */
  const char *config_path; /* a configuration file. NULL: none; for the default heap what RMALLOC_CONFIG names */
  uint32_t generation_bits; /* 1 to 16: an entry is used 2 to the power of so many times */
  uint32_t compaction;      /* RM_COMPACTION_... */
  uint32_t trigger_ppm;     /* free share of the resident bytes at which the policy starts, in millionths */
  uint32_t stop_ppm;        /* share at which it stops; less than `trigger_ppm` */
  uint32_t cpu_share_ppm;   /* share of the time since the heap was made that all steps may take */
  uint32_t slack_ppm;       /* share of the resident bytes that may stay without blocks */
} rmoptions_t;

/* Makes the default heap, with these options or (NULL) with what the environment says; docs/rmalloc-config.md has the
 * variables. For the beginning of a program: the first call of another function makes the default heap as well. It
 * lasts as long as the process, and so must memory that the options give.
 * Cost: that of rmheap_create.
 * RM_BUSY: the default heap is there already, and stays as it is; and those of rmheap_create. */
status_t rmalloc_init(const rmoptions_t *options);

/* Makes a heap. Up to 249 live at a time. `options` may be NULL.
 * Cost: some system calls; reading a configuration file. With memory of the caller's: some microseconds.
 * RM_ARGUMENT: a null pointer, a field that is not allowed, or `size` names a version that says more than is
 * understood; RM_CONFIG: the file, one line on standard error says why; RM_HEAP_TOO_SMALL; RM_MEMORY: no memory, no addresses, or too many heaps. */
status_t rmheap_create(rmheap_t **heap, const rmoptions_t *options);

/* Ends a heap with all its blocks, locked or not. Memory that the caller gave is the caller's again, the rest goes back to the system.
 * No other thread may be in a call on the heap, or make one: see MISUSE.
 * Cost: some system calls; the end of its thread, if it has one.
 * RM_HEAP; RM_ARGUMENT: NULL, the default heap, which can't be ended. */
status_t rmheap_destroy(rmheap_t *heap);

/* As rmalloc, of a given heap. All functions above that take a handle serve handles of every heap.
 * Cost: that of rmalloc and some 10 instructions; up to 250 loads if the thread used another heap last.
 * RM_HEAP, and those of rmalloc. */
status_t rmheap_alloc(rmheap_t *heap, memory_t **memory, ssize_t size);

/* As rmalloc_aligned, of a given heap. Cost and status as rmheap_alloc; RM_ALIGNMENT. */
status_t rmheap_alloc_aligned(rmheap_t *heap, memory_t **memory, ssize_t size, size_t alignment);

/* As rmfree, for a block of this heap only.
 * RM_HEAP; RM_HANDLE: also a block of another heap, which goes on living; RM_LOCKED. */
status_t rmheap_free(rmheap_t *heap, memory_t *memory);

/* Is that a live block of this heap? 0: it is.
 * Cost: as rmheap_alloc.
 * RM_HEAP; RM_HANDLE: it is not. */
status_t rmheap_owns(rmheap_t *heap, memory_t *memory);

/* As rmcompact, of a given heap. And RM_HEAP. */
status_t rmheap_compact(rmheap_t *heap, uint64_t budget_ns, rmcompact_result_t *result);

/* As rmstats, of a given heap. And RM_HEAP. */
status_t rmheap_stats(rmheap_t *heap, rmstats_t *stats);

/* Called when an allocation finds no room for `bytes`, after the heap compacted and dropped what may be dropped in vain.
 * It may call every function but rmheap_destroy of this heap, and so free blocks. Not 0: try again; 0: the allocation fails with RM_MEMORY. It is
 * called up to 8 times for an allocation. */
typedef int (*rmshortage_t)(void *argument, size_t bytes);

/* Sets the function of a heap that is called when memory is short; NULL: none.
 * It is called by the thread whose allocation it is. Cost: the heap's mutex.
 * RM_HEAP, RM_MEMORY. */
status_t rmheap_on_shortage(rmheap_t *heap, rmshortage_t function, void *argument);

/* Called when compaction has moved a block. It may look at both places. It must not call any function of rmalloc, and another
 * thread may lock the block at its new place meanwhile. */
typedef void (*rmmoved_t)(void *argument, memory_t *memory, void *from, void *to);

/* Sets the function of a heap that is told of moved blocks; NULL: none.
 * It is called by the thread that compacts, within its budget. Cost: waits for a step of compaction under way.
 * RM_HEAP, RM_MEMORY. */
status_t rmheap_on_move(rmheap_t *heap, rmmoved_t function, void *argument);

/* ---- Layout: what the library was built with ----------------------------------------------------------------- */

#if defined(__cplusplus) && __cplusplus >= 201103L
#define RM_ASSERT_(condition) static_assert(condition, #condition)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define RM_ASSERT_(condition) _Static_assert(condition, #condition)
#else
#define RM_ASSERT_(condition) struct rm_assert_
#endif
RM_ASSERT_(sizeof(void *) == 8);
RM_ASSERT_(sizeof(status_t) == 4);
RM_ASSERT_(sizeof(rmoptions_t) == 96);
RM_ASSERT_(sizeof(rmcompact_result_t) == 104);
RM_ASSERT_(sizeof(rmstats_t) == 208);
#undef RM_ASSERT_

#ifdef __cplusplus
}
#endif

#endif
