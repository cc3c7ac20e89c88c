/* What a heap calls: the function for a shortage, which frees and has the allocation tried again, and the one for moved
 * blocks. And blocks whose contents may be dropped. */
#include "check.h"

#define BLOCKS 2000

static rmheap_t *heap;
static memory_t *blocks[BLOCKS];
static int made, freed, calls;

static void make_heap(uint64_t limit_bytes)
{
  rmoptions_t options = {0};
  options.size = sizeof options;
  options.limit_bytes = limit_bytes;
  options.compaction = RM_COMPACTION_OFF;
  WORKS(rmheap_create(&heap, &options));
  made = freed = calls = 0;
}

/* Frees the oldest ten blocks. */
static int frees_some(void *argument, size_t bytes)
{
  CHECK(argument == &calls && bytes >= 3000);
  calls++;
  int until = freed + 10;
  while (freed < until && freed < made)
    WORKS(rmfree(blocks[freed++]));
  return 1;
}

static int gives_up(void *argument, size_t bytes)
{
  CHECK(argument == NULL && bytes >= 3000);
  calls++;
  return 0;
}

static int frees_nothing(void *argument, size_t bytes)
{
  (void)argument;
  (void)bytes;
  calls++;
  return 1;
}

static void shortage(void)
{
  make_heap(4 << 20);
  WORKS(rmheap_on_shortage(heap, frees_some, &calls));
  for (made = 0; made < BLOCKS; made++) {
    WORKS(rmheap_alloc(heap, &blocks[made], 3000));
    fill(blocks[made], 3000, made);
  }
  CHECK(calls > 10 && freed > 100);
  for (int i = freed; i < made; i++)
    CHECK(is_filled(blocks[i], 3000, i));

  memory_t *memory;
  status_t status;
  calls = 0;
  WORKS(rmheap_on_shortage(heap, gives_up, NULL));
  while ((status = rmheap_alloc(heap, &memory, 3000)) == RM_OK)
    ;
  CHECK(status == RM_MEMORY && calls == 1);
  /* One that never helps is not called for ever. */
  calls = 0;
  WORKS(rmheap_on_shortage(heap, frees_nothing, NULL));
  ANSWERS(RM_MEMORY, rmheap_alloc(heap, &memory, 3000));
  CHECK(calls >= 1 && calls <= 8);
  calls = 0;
  WORKS(rmheap_on_shortage(heap, NULL, NULL));
  ANSWERS(RM_MEMORY, rmheap_alloc(heap, &memory, 3000));
  CHECK(calls == 0);
  WORKS(rmheap_destroy(heap));
}

static void *addresses[BLOCKS];

/* Follows the block in a table of the program's own. */
static void follows(void *argument, memory_t *memory, void *from, void *to)
{
  CHECK(argument == addresses);
  CHECK(memcmp(from, to, 100) == 0);
  for (int i = 0; i < made; i++)
    if (blocks[i] == memory) {
      CHECK(addresses[i] == from);
      addresses[i] = to;
      calls++;
      return;
    }
  CHECK(!"a block of ours");
}

static void moved(void)
{
  rmcompact_result_t result;
  make_heap(0);
  WORKS(rmheap_on_move(heap, follows, addresses));
  for (made = 0; made < BLOCKS; made++) {
    WORKS(rmheap_alloc(heap, &blocks[made], 100));
    fill(blocks[made], 100, made);
    WORKS(rmlock(blocks[made], &addresses[made]));
    WORKS(rmunlock(blocks[made]));
  }
  for (int i = 0; i < made; i++)
    if (i % 3) {
      WORKS(rmfree(blocks[i]));
      blocks[i] = NULL;
    }
  /* One stays locked. */
  void *address;
  WORKS(rmlock(blocks[999], &address));
  CHECK(address == addresses[999]);
  WORKS(rmheap_compact(heap, 0, &result));
  CHECK(result.finished && calls > 0 && result.blocks_moved == (uint64_t)calls);
  CHECK(result.blocks_pinned >= 1);
  CHECK(address == addresses[999]);
  WORKS(rmunlock(blocks[999]));
  for (int i = 0; i < made; i += 3) {
    WORKS(rmlock(blocks[i], &address));
    CHECK(address == addresses[i]);
    WORKS(rmunlock(blocks[i]));
    CHECK(is_filled(blocks[i], 100, i));
  }
  /* Told no more. */
  calls = 0;
  WORKS(rmheap_on_move(heap, NULL, NULL));
  for (int i = 0; i < made; i += 6)
    WORKS(rmfree(blocks[i]));
  WORKS(rmheap_compact(heap, 0, &result));
  CHECK(result.blocks_moved > 0 && calls == 0);
  WORKS(rmheap_destroy(heap));
}

static void discardable(void)
{
  make_heap(4 << 20);
  memory_t *kept, *locked;
  void *address;
  size_t bytes;
  WORKS(rmheap_alloc(heap, &kept, 3000));
  fill(kept, 3000, 1);
  WORKS(rmdiscardable(kept, 1));
  WORKS(rmdiscardable(kept, 0));
  WORKS(rmheap_alloc(heap, &locked, 3000));
  fill(locked, 3000, 2);
  WORKS(rmdiscardable(locked, 1));
  WORKS(rmlock(locked, &address));
  ANSWERS(RM_LOCKED, rmdiscardable(locked, 0));
  for (made = 0; made < BLOCKS; made++) {
    WORKS(rmheap_alloc(heap, &blocks[made], 3000));
    fill(blocks[made], 3000, made);
    WORKS(rmdiscardable(blocks[made], 1));
  }
  /* 6 MB in 4: some were dropped, and say so. */
  int dropped = 0;
  for (int i = 0; i < made; i++) {
    status_t status = rmlock(blocks[i], &address);
    if (status == RM_OK) {
      WORKS(rmunlock(blocks[i]));
      CHECK(is_filled(blocks[i], 3000, i));
    } else {
      CHECK(status == RM_DISCARDED);
      ANSWERS(RM_DISCARDED, rmlock_shared(blocks[i], &address));
      ANSWERS(RM_DISCARDED, rmsize(blocks[i], &bytes));
      ANSWERS(RM_DISCARDED, rmresize(blocks[i], 10));
      ANSWERS(RM_DISCARDED, rmdiscardable(blocks[i], 0));
      ANSWERS(RM_NOT_LOCKED, rmunlock(blocks[i]));
      dropped++;
    }
    WORKS(rmfree(blocks[i]));
    ANSWERS(RM_HANDLE, rmfree(blocks[i]));
  }
  CHECK(dropped > 100 && dropped < made);
  CHECK(is_filled(kept, 3000, 1));
  WORKS(rmunlock(locked));
  CHECK(is_filled(locked, 3000, 2));
  rmstats_t stats;
  WORKS(rmheap_stats(heap, &stats));
  CHECK(stats.live_blocks == 2 && stats.compaction.blocks_discarded == (uint64_t)dropped);
  WORKS(rmheap_destroy(heap));
}

/* Sizes change, handles and contents stay. */
static void resized(void)
{
  make_heap(0);
  memory_t *memory;
  size_t usable;
  ssize_t bytes = 10;
  WORKS(rmheap_alloc(heap, &memory, bytes));
  fill(memory, 10, 4);
  ssize_t sizes[] = {20, 5000, 40, 100000, 100001, 300000, 10, 1 << 20, 10};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    WORKS(rmresize(memory, sizes[i]));
    WORKS(rmsize(memory, &usable));
    CHECK(usable >= (size_t)sizes[i]);
    CHECK(is_filled(memory, 10, 4));
  }
  WORKS(rmfree(memory));
  for (size_t alignment = 1; alignment <= 4096; alignment *= 2)
    for (ssize_t size = 1; size < 100000; size = size * 3 + 1) {
      void *address;
      WORKS(rmheap_alloc_aligned(heap, &memory, size, alignment));
      WORKS(rmlock(memory, &address));
      CHECK((uintptr_t)address % alignment == 0 && (uintptr_t)address % 16 == 0);
      WORKS(rmunlock(memory));
      WORKS(rmfree(memory));
    }
  WORKS(rmheap_destroy(heap));
}

int main(void)
{
  shortage();
  moved();
  discardable();
  resized();
  puts("done");
  return 0;
}
