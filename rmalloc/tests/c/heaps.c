/* Several heaps in several threads, very many heaps one after another, and a heap at an odd address. */
#include "check.h"

#define THREADS 4
#define HEAPS 3
#define BLOCKS 400

static rmheap_t *heaps[HEAPS];

/* Allocates in all heaps, checks contents, and leaves the last blocks to who joins it. */
static void *works(void *argument)
{
  memory_t **left = argument;
  memory_t *blocks[BLOCKS] = {0};
  size_t sizes[BLOCKS];
  unsigned value = (unsigned)(uintptr_t)argument;
  for (int i = 0; i < 20000; i++) {
    value = value * 1103515245 + 12345;
    int at = value >> 8 & 0x7fffff;
    rmheap_t *heap = heaps[at % HEAPS];
    at %= BLOCKS;
    if (blocks[at]) {
      CHECK(is_filled(blocks[at], sizes[at], at));
      WORKS(rmfree(blocks[at]));
    }
    sizes[at] = value % 999 + 1;
    WORKS(rmheap_alloc(heap, &blocks[at], sizes[at]));
    fill(blocks[at], sizes[at], at);
    WORKS(rmheap_owns(heap, blocks[at]));
    if (i % 500 == 0) {
      status_t status = rmheap_compact(heap, 50000, NULL);
      CHECK(status == RM_OK || status == RM_BUSY);
    }
  }
  for (int at = 0; at < BLOCKS; at++) {
    if (blocks[at])
      CHECK(is_filled(blocks[at], sizes[at], at));
    left[at] = blocks[at];
  }
  return NULL;
}

static void several_heaps_in_several_threads(void)
{
  static char given[16 << 20];
  static memory_t *left[THREADS][BLOCKS];
  rmoptions_t options = {0};
  options.size = sizeof options;
  WORKS(rmheap_create(&heaps[0], NULL));
  options.compaction = RM_COMPACTION_BACKGROUND;
  options.floor_bytes = 4096;
  WORKS(rmheap_create(&heaps[1], &options));
  options.memory = given;
  options.memory_bytes = sizeof given;
  WORKS(rmheap_create(&heaps[2], &options));
  for (int round = 0; round < 3; round++) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
      CHECK(pthread_create(&threads[i], NULL, works, left[i]) == 0);
    for (int i = 0; i < THREADS; i++)
      CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < THREADS; i++)
      for (int at = 0; at < BLOCKS; at++)
        if (left[i][at])
          WORKS(rmfree(left[i][at]));
    for (int i = 0; i < HEAPS; i++) {
      rmstats_t stats;
      WORKS(rmheap_stats(heaps[i], &stats));
      CHECK(stats.live_blocks == 0 && stats.live_bytes == 0);
    }
  }
  for (int i = 0; i < HEAPS; i++)
    WORKS(rmheap_destroy(heaps[i]));
}

/* More heaps than names for them; no handle of one is taken by the next hundreds. */
static void very_many_heaps(void)
{
  static char given[128 << 10];
  memory_t *old[300] = {0};
  rmoptions_t options = {0};
  options.size = sizeof options;
  options.memory = given;
  options.memory_bytes = sizeof given;
  for (int i = 0; i < 70000; i++) {
    rmheap_t *heap;
    memory_t *memory;
    WORKS(rmheap_create(&heap, &options));
    WORKS(rmheap_alloc(heap, &memory, 40));
    fill(memory, 40, i);
    CHECK(is_filled(memory, 40, i));
    ANSWERS(RM_HANDLE, rmheap_owns(heap, old[i % 300]));
    ANSWERS(RM_HANDLE, rmfree(old[(i + 1) % 300]));
    old[i % 300] = memory;
    WORKS(rmheap_destroy(heap));
  }
}

/* As many as can live at a time; then one more. */
static void too_many_heaps(void)
{
  static rmheap_t *all[300];
  int count = 0;
  rmoptions_t options = {0};
  options.size = sizeof options;
  options.reserve_bytes = 4 << 20;
  status_t status;
  while ((status = rmheap_create(&all[count], &options)) == RM_OK)
    CHECK(++count < 300);
  CHECK(status == RM_MEMORY && count == 249);
  memory_t *memory;
  for (int i = 0; i < count; i++) {
    WORKS(rmheap_alloc(all[i], &memory, 100));
    fill(memory, 100, i);
    WORKS(rmheap_destroy(all[i]));
  }
  WORKS(rmheap_create(&all[0], &options));
  WORKS(rmheap_destroy(all[0]));
}

/* 512 KiB that begin at an odd address; nothing beside them is touched. */
static void odd_address(void)
{
  static unsigned char room[(512 << 10) + 4096];
  memset(room, 0xa5, sizeof room);
  for (size_t skip = 1; skip < 4096; skip = skip * 3 + 2) {
    rmheap_t *heap;
    rmoptions_t options = {0};
    options.size = sizeof options;
    options.memory = room + skip;
    options.memory_bytes = 512 << 10;
    WORKS(rmheap_create(&heap, &options));
    memory_t *all[100];
    for (int i = 0; i < 100; i++) {
      void *address;
      WORKS(rmheap_alloc(heap, &all[i], 1 + i % 20 * 30));
      fill(all[i], 1 + i % 20 * 30, i);
      WORKS(rmlock(all[i], &address));
      CHECK((uintptr_t)address % 16 == 0);
      CHECK((unsigned char *)address >= room + skip && (unsigned char *)address < room + skip + (512 << 10));
      WORKS(rmunlock(all[i]));
    }
    for (int i = 0; i < 100; i += 2)
      WORKS(rmfree(all[i]));
    WORKS(rmheap_compact(heap, 0, NULL));
    for (int i = 1; i < 100; i += 2)
      CHECK(is_filled(all[i], 1 + i % 20 * 30, i));
    WORKS(rmheap_destroy(heap));
    for (size_t i = 0; i < skip; i++)
      CHECK(room[i] == 0xa5);
    for (size_t i = skip + (512 << 10); i < sizeof room; i++)
      CHECK(room[i] == 0xa5);
    memset(room, 0xa5, sizeof room);
  }
}

int main(void)
{
  several_heaps_in_several_threads();
  very_many_heaps();
  too_many_heaps();
  odd_address();
  puts("done");
  return 0;
}
