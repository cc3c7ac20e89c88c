/* Every misuse that rmalloc.h says is refused, on a heap that grows and on one in memory of the caller's: the status
 * is the promised one, and a block beside it keeps its contents. */
#include "check.h"
#include <limits.h>

static char given[1 << 20];
static memory_t *witness;

static void bad_sizes(rmheap_t *heap)
{
  memory_t *memory = witness;
  ssize_t sizes[] = {0, -1, -SSIZE_MAX - 1, SSIZE_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    ANSWERS(RM_SIZE, rmheap_alloc(heap, &memory, sizes[i]));
    ANSWERS(RM_SIZE, rmheap_alloc_aligned(heap, &memory, sizes[i], 64));
    ANSWERS(RM_SIZE, rmresize(witness, sizes[i]));
    if (heap == NULL) {
      ANSWERS(RM_SIZE, rmalloc(&memory, sizes[i]));
      ANSWERS(RM_SIZE, rmalloc_aligned(&memory, sizes[i], 64));
    }
  }
  size_t alignments[] = {0, 3, 48, 8192, (size_t)1 << 63};
  for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++)
    ANSWERS(RM_ALIGNMENT, rmheap_alloc_aligned(heap, &memory, 100, alignments[i]));
  /* Nothing was written. */
  CHECK(memory == witness);
}

static void null_pointers(rmheap_t *heap)
{
  void *address = &heap;
  size_t bytes = 7;
  ANSWERS(RM_ARGUMENT, rmheap_alloc(heap, NULL, 100));
  ANSWERS(RM_ARGUMENT, rmheap_alloc_aligned(heap, NULL, 100, 16));
  ANSWERS(RM_ARGUMENT, rmalloc(NULL, 100));
  ANSWERS(RM_ARGUMENT, rmalloc_aligned(NULL, 100, 16));
  ANSWERS(RM_ARGUMENT, rmlock(witness, NULL));
  ANSWERS(RM_ARGUMENT, rmlock_shared(witness, NULL));
  ANSWERS(RM_ARGUMENT, rmsize(witness, NULL));
  ANSWERS(RM_ARGUMENT, rmheap_stats(heap, NULL));
  ANSWERS(RM_ARGUMENT, rmstats(NULL));
  ANSWERS(RM_ARGUMENT, rmheap_create(NULL, NULL));
  ANSWERS(RM_ARGUMENT, rmheap_destroy(NULL));
  ANSWERS(RM_HANDLE, rmlock(NULL, &address));
  ANSWERS(RM_HANDLE, rmlock_shared(NULL, &address));
  ANSWERS(RM_HANDLE, rmunlock(NULL));
  ANSWERS(RM_HANDLE, rmfree(NULL));
  ANSWERS(RM_HANDLE, rmheap_free(heap, NULL));
  ANSWERS(RM_HANDLE, rmresize(NULL, 100));
  ANSWERS(RM_HANDLE, rmsize(NULL, &bytes));
  ANSWERS(RM_HANDLE, rmdiscardable(NULL, 1));
  ANSWERS(RM_HANDLE, rmheap_owns(heap, NULL));
  CHECK(address == &heap && bytes == 7);
}

/* No function takes it. */
static void is_refused(rmheap_t *heap, memory_t *memory)
{
  void *address = &heap;
  size_t bytes = 7;
  ANSWERS(RM_HANDLE, rmlock(memory, &address));
  ANSWERS(RM_HANDLE, rmlock_shared(memory, &address));
  ANSWERS(RM_HANDLE, rmunlock(memory));
  ANSWERS(RM_HANDLE, rmfree(memory));
  ANSWERS(RM_HANDLE, rmresize(memory, 100));
  ANSWERS(RM_HANDLE, rmsize(memory, &bytes));
  ANSWERS(RM_HANDLE, rmdiscardable(memory, 1));
  if (heap != NULL) {
    ANSWERS(RM_HANDLE, rmheap_free(heap, memory));
    ANSWERS(RM_HANDLE, rmheap_owns(heap, memory));
  }
  CHECK(address == &heap && bytes == 7);
}

static void *frees(void *memory)
{
  WORKS(rmfree(memory));
  return NULL;
}

static void stale_handles(rmheap_t *heap)
{
  memory_t *first, *second;
  for (int there = 0; there < 2; there++) {
    WORKS(rmheap_alloc(heap, &first, 100));
    if (there)
      elsewhere(frees, first);
    else
      WORKS(rmfree(first));
    is_refused(heap, first);
    /* Its entry and its place are in use again. */
    WORKS(rmheap_alloc(heap, &second, 100));
    CHECK(first != second);
    is_refused(heap, first);
    WORKS(rmheap_owns(heap, second));
    WORKS(rmfree(second));
  }
  /* A large block. */
  WORKS(rmheap_alloc(heap, &first, 100000));
  WORKS(rmfree(first));
  is_refused(heap, first);
}

static void made_up_handles(rmheap_t *heap)
{
  /* One block lives, so every other value names none. */
  for (int bit = 0; bit < 64; bit++)
    is_refused(heap, (memory_t *)((uintptr_t)witness ^ (uintptr_t)1 << bit));
  uint64_t value = 88172645463325252u;
  for (int i = 0; i < 20000; i++) {
    value ^= value << 13;
    value ^= value >> 7;
    value ^= value << 17;
    if ((memory_t *)value != witness)
      is_refused(heap, (memory_t *)value);
  }
  is_refused(heap, (memory_t *)given);
  is_refused(heap, (memory_t *)&value);
  is_refused(heap, (memory_t *)heap);
  is_refused(heap, (memory_t *)UINTPTR_MAX);
}

static void *is_locked_here(void *memory)
{
  ANSWERS(RM_LOCKED, rmfree(memory));
  ANSWERS(RM_LOCKED, rmresize(memory, 10000));
  ANSWERS(RM_LOCKED, rmdiscardable(memory, 1));
  return NULL;
}

static void *cannot_unlock(void *memory)
{
  ANSWERS(RM_NOT_LOCKED, rmunlock(memory));
  return NULL;
}

static void *unlocks(void *memory)
{
  WORKS(rmunlock(memory));
  return NULL;
}

static void locks(rmheap_t *heap)
{
  memory_t *memory;
  void *address, *again;
  WORKS(rmheap_alloc(heap, &memory, 300));
  fill(memory, 300, 5);
  ANSWERS(RM_NOT_LOCKED, rmunlock(memory));
  elsewhere(cannot_unlock, memory);
  for (int shared = 0; shared < 2; shared++) {
    status_t (*lock)(memory_t *, void **) = shared ? rmlock_shared : rmlock;
    WORKS(lock(memory, &address));
    WORKS(lock(memory, &again));
    CHECK(address == again);
    for (int locked = 2; locked > 0; locked--) {
      is_locked_here(memory);
      elsewhere(is_locked_here, memory);
      ANSWERS(RM_LOCKED, rmheap_free(heap, memory));
      if (shared)
        elsewhere(unlocks, memory);
      else {
        elsewhere(cannot_unlock, memory);
        WORKS(rmunlock(memory));
      }
    }
    ANSWERS(RM_NOT_LOCKED, rmunlock(memory));
  }
  /* As many as can be counted. */
  int count = 0;
  status_t status;
  while ((status = rmlock_shared(memory, &address)) == RM_OK)
    CHECK(++count < 100);
  CHECK(status == RM_LOCKS && count >= 14);
  /* The thread's own are counted elsewhere. */
  WORKS(rmlock(memory, &address));
  WORKS(rmunlock(memory));
  for (int i = 0; i < count; i++) {
    is_locked_here(memory);
    WORKS(rmunlock(memory));
  }
  ANSWERS(RM_NOT_LOCKED, rmunlock(memory));
  /* More than a thread can note. */
  for (int i = 0; i < 20; i++)
    WORKS(rmlock(memory, &address));
  for (int i = 0; i < 20; i++) {
    is_locked_here(memory);
    WORKS(rmunlock(memory));
  }
  ANSWERS(RM_NOT_LOCKED, rmunlock(memory));
  CHECK(is_filled(memory, 300, 5));
  WORKS(rmfree(memory));
}

/* A thread that ends with a lock leaves it to the others. */
static void *locks_and_ends(void *memory)
{
  void *address;
  WORKS(rmlock(memory, &address));
  return NULL;
}

static void *allocates_and_ends(void *out)
{
  void *address;
  WORKS(rmalloc(out, 50));
  WORKS(rmlock(*(memory_t **)out, &address));
  return NULL;
}

static void locks_of_threads_that_ended(rmheap_t *heap)
{
  memory_t *memory;
  WORKS(rmheap_alloc(heap, &memory, 50));
  elsewhere(locks_and_ends, memory);
  ANSWERS(RM_LOCKED, rmfree(memory));
  WORKS(rmunlock(memory));
  WORKS(rmfree(memory));
  elsewhere(allocates_and_ends, &memory);
  ANSWERS(RM_LOCKED, rmfree(memory));
  elsewhere(unlocks, memory);
  WORKS(rmfree(memory));
}

static rmheap_t *make(int in_given, uint64_t entries, uint32_t generation_bits)
{
  rmheap_t *heap;
  rmoptions_t options = {0};
  options.size = sizeof options;
  options.memory = in_given ? given : NULL;
  options.memory_bytes = in_given ? sizeof given : 0;
  options.entries = entries;
  options.generation_bits = generation_bits;
  WORKS(rmheap_create(&heap, &options));
  return heap;
}

static void full_tables(int in_given)
{
  rmheap_t *heap = make(in_given, 512, 0);
  memory_t *all[600], *memory;
  int count = 0;
  status_t status;
  while ((status = rmheap_alloc(heap, &all[count], 16)) == RM_OK)
    CHECK(++count < 600);
  CHECK(status == RM_TABLE && count == 512);
  for (int round = 0; round < 100; round++) {
    WORKS(rmfree(all[round * 5]));
    WORKS(rmheap_alloc(heap, &all[round * 5], 16));
    ANSWERS(RM_TABLE, rmheap_alloc(heap, &memory, 16));
  }
  for (int i = 0; i < count; i++)
    WORKS(rmfree(all[i]));
  WORKS(rmheap_destroy(heap));
}

/* Entries whose generations are used up are not used again: no stale handle of thousands is ever taken. */
static void used_up_generations(int in_given)
{
  rmheap_t *heap = make(in_given, 0, 1);
  static memory_t *old[4000];
  rmstats_t stats;
  for (int i = 0; i < 4000; i++) {
    WORKS(rmheap_alloc(heap, &old[i], 16));
    WORKS(rmfree(old[i]));
  }
  memory_t *memory;
  WORKS(rmheap_alloc(heap, &memory, 16));
  for (int i = 0; i < 4000; i++)
    ANSWERS(RM_HANDLE, rmheap_owns(heap, old[i]));
  WORKS(rmheap_stats(heap, &stats));
  CHECK(stats.entries_retired > 1000);
  CHECK(stats.live_blocks == 1);
  WORKS(rmheap_destroy(heap));
}

static void no_memory(int in_given)
{
  rmoptions_t options = {0};
  rmheap_t *heap;
  options.size = sizeof options;
  if (in_given) {
    options.memory = given;
    options.memory_bytes = sizeof given;
  } else
    options.limit_bytes = 4 << 20;
  WORKS(rmheap_create(&heap, &options));
  static memory_t *all[10000];
  int count = 0;
  status_t status;
  while ((status = rmheap_alloc(heap, &all[count], 3000)) == RM_OK) {
    fill(all[count], 3000, count);
    CHECK(++count < 10000);
  }
  CHECK(status == RM_MEMORY && count > 100);
  ANSWERS(RM_MEMORY, rmresize(all[0], 100000));
  CHECK(is_filled(all[0], 3000, 0));
  WORKS(rmfree(all[--count]));
  WORKS(rmheap_alloc(heap, &all[count], 3000));
  for (int i = 0; i < count; i++) {
    CHECK(is_filled(all[i], 3000, i));
    WORKS(rmfree(all[i]));
  }
  WORKS(rmheap_destroy(heap));
}

static void destroyed_and_made_up_heaps(int in_given)
{
  rmheap_t *heap = make(in_given, 0, 0);
  memory_t *memory, *locked;
  rmstats_t stats;
  void *address;
  WORKS(rmheap_alloc(heap, &memory, 100));
  WORKS(rmheap_alloc(heap, &locked, 100));
  WORKS(rmlock(locked, &address));
  WORKS(rmheap_destroy(heap));
  rmheap_t *none[] = {heap, (rmheap_t *)&stats, (rmheap_t *)1, (rmheap_t *)UINTPTR_MAX, (rmheap_t *)memory};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    memory_t *other;
    ANSWERS(RM_HEAP, rmheap_alloc(none[i], &other, 100));
    ANSWERS(RM_HEAP, rmheap_alloc_aligned(none[i], &other, 100, 64));
    ANSWERS(RM_HEAP, rmheap_free(none[i], memory));
    ANSWERS(RM_HEAP, rmheap_owns(none[i], memory));
    ANSWERS(RM_HEAP, rmheap_compact(none[i], 0, NULL));
    ANSWERS(RM_HEAP, rmheap_stats(none[i], &stats));
    ANSWERS(RM_HEAP, rmheap_on_shortage(none[i], NULL, NULL));
    ANSWERS(RM_HEAP, rmheap_on_move(none[i], NULL, NULL));
    ANSWERS(RM_HEAP, rmheap_destroy(none[i]));
  }
  is_refused(NULL, memory);
  is_refused(NULL, locked);
  /* Nor by a heap that took its place. */
  heap = make(in_given, 0, 0);
  is_refused(heap, memory);
  is_refused(heap, locked);
  WORKS(rmheap_destroy(heap));
}

static void foreign_handles(void)
{
  rmheap_t *one = make(1, 0, 0), *other = make(0, 0, 0);
  memory_t *memory;
  WORKS(rmheap_alloc(one, &memory, 100));
  fill(memory, 100, 9);
  ANSWERS(RM_HANDLE, rmheap_free(other, memory));
  ANSWERS(RM_HANDLE, rmheap_free(NULL, memory));
  ANSWERS(RM_HANDLE, rmheap_owns(other, memory));
  ANSWERS(RM_HANDLE, rmheap_owns(NULL, memory));
  WORKS(rmheap_owns(one, memory));
  CHECK(is_filled(memory, 100, 9));
  WORKS(rmheap_free(one, memory));
  WORKS(rmheap_destroy(one));
  WORKS(rmheap_destroy(other));
}

static void small_heaps(void)
{
  rmoptions_t options = {0};
  rmheap_t *heap = (rmheap_t *)given;
  options.size = sizeof options;
  options.memory = given;
  int made = 0;
  for (options.memory_bytes = 1; options.memory_bytes < 300000; options.memory_bytes += 997) {
    status_t status = rmheap_create(&heap, &options);
    if (status == RM_OK) {
      memory_t *memory;
      made++;
      /* What is big enough to be a heap may be too small for any block. */
      status = rmheap_alloc(heap, &memory, 16);
      CHECK(status == RM_OK || status == RM_MEMORY);
      WORKS(rmheap_destroy(heap));
    } else
      CHECK(status == RM_HEAP_TOO_SMALL && made == 0);
  }
  CHECK(made > 100);
}

int main(void)
{
  for (int kind = 0; kind < 3; kind++) {
    rmheap_t *heap = kind == 2 ? NULL : make(kind == 1, 0, 0);
    WORKS(rmheap_alloc(heap, &witness, 200));
    fill(witness, 200, 3);
    null_pointers(heap);
    bad_sizes(heap);
    made_up_handles(heap);
    stale_handles(heap);
    locks(heap);
    locks_of_threads_that_ended(heap);
    CHECK(is_filled(witness, 200, 3));
    WORKS(rmheap_compact(heap, 0, NULL));
    CHECK(is_filled(witness, 200, 3));
    WORKS(rmfree(witness));
    if (heap != NULL)
      WORKS(rmheap_destroy(heap));
  }
  for (int in_given = 0; in_given < 2; in_given++) {
    full_tables(in_given);
    used_up_generations(in_given);
    no_memory(in_given);
    destroyed_and_made_up_heaps(in_given);
  }
  foreign_handles();
  small_heaps();
  puts("done");
  return 0;
}
