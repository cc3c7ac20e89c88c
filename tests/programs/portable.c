/* portable N [threads]: N rounds of calls that every allocator answers alike;
 * tests/recording/allocators.rs has the table of them. With "threads", three
 * threads make blocks as well, which the main thread frees.
 *
 * With OWN defined, only those functions that a private allocator has, none of the C library's that
 * allocate; with PREFIX, those under the names of one allocator's own. */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef PREFIX
#define OWN
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
void *JOIN(PREFIX, malloc)(size_t);
void *JOIN(PREFIX, calloc)(size_t, size_t);
void *JOIN(PREFIX, realloc)(void *, size_t);
void JOIN(PREFIX, free)(void *);
int JOIN(PREFIX, posix_memalign)(void **, size_t, size_t);
#define malloc JOIN(PREFIX, malloc)
#define calloc JOIN(PREFIX, calloc)
#define realloc JOIN(PREFIX, realloc)
#define free JOIN(PREFIX, free)
#define posix_memalign JOIN(PREFIX, posix_memalign)
#endif

static void *made[12];

static void fill(void *block, size_t bytes) {
  if (block == NULL) abort();
  memset(block, 0x5a, bytes);
}

static void *one_round(void *unused) {
  void **b = unused ? unused : made;
  fill(b[0] = malloc(100), 100);
  b[1] = calloc(3, 50);
  for (int i = 0; i < 150; i++)
    if (((char *)b[1])[i]) abort();
  fill(b[2] = realloc(NULL, 40), 40);
  fill(b[2] = realloc(b[2], 4000), 4000);
  fill(b[2] = realloc(b[2], 20), 20);
  if (posix_memalign(&b[3], 64, 200) != 0) abort();
  fill(b[3], 200);
  fill(b[4] = malloc(3000000), 3000000);
  if (((uintptr_t)b[3] & 63) != 0) abort();
#ifndef OWN
  fill(b[5] = aligned_alloc(128, 256), 256);
  fill(b[6] = memalign(32, 48), 48);
  fill(b[7] = valloc(10), 10);
  b[8] = strdup("twelve chars");
  b[9] = strndup("twelve chars", 6);
  fill(b[10] = reallocarray(NULL, 4, 10), 40);
  fill(b[10] = reallocarray(b[10], 8, 10), 80);
  if (malloc(PTRDIFF_MAX) != NULL) abort();
#endif
  free(NULL);
  return NULL;
}

static void free_all(void **blocks) {
  for (int i = 0; i < 12; i++)
    if (blocks[i]) free(blocks[i]);
}

int main(int argc, char **argv) {
  long n = atol(argv[1]);
  for (long i = 0; i < n; i++) {
    one_round(NULL);
    free_all(made);
  }
  if (argc > 2) {
    static void *theirs[3][12];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, one_round, theirs[i]);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) free_all(theirs[i]);
  }
  return 0;
}
