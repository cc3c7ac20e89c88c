/* exchange THREADS OPERATIONS [yield]: threads hand blocks to each other through slots; whoever finds a block in
 * a slot frees it. Addresses go round fast, so a wrong order of events shows. Prints how many blocks
 * were freed by another thread than the one that allocated them. With `yield` threads give way now and then: else one may keep
 * the allocator's lock for long, and few blocks go over; on a machine with other work that takes long. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static _Atomic(void *) slots[64];
static long operations;
static int yields;
static pthread_barrier_t barrier;
static _Atomic long crossed;

static void end(int *block, int own) {
  if (block && *block != own) crossed++;
  free(block);
}

static void *work(void *which) {
  int own = (int)(size_t)which;
  uint64_t x = 88172645463325252ull + (uint64_t)own * 7919;
  pthread_barrier_wait(&barrier);
  for (long i = 0; i < operations; i++) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    int *new = malloc(16 + (x >> 20) % 3 * 16);
    if (x >> 60 == 0) new = realloc(new, 100);
    *new = own;
    end(atomic_exchange(&slots[x % 64], new), own);
    if (yields && (x >> 40) % 32 == 0) sched_yield();
  }
  return NULL;
}

int main(int argc, char **argv) {
  int count = atoi(argv[1]);
  operations = atol(argv[2]);
  yields = argc > 3;
  pthread_t threads[8];
  pthread_barrier_init(&barrier, NULL, count);
  for (long i = 0; i < count; i++) pthread_create(&threads[i], NULL, work, (void *)i);
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < 64; i++) end(slots[i], -1);
  dprintf(1, "%ld\n", crossed);
  return 0;
}
