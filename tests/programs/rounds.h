/* Known calls: the table in tests/recording/counted.rs says the same. */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Allocations that bracket what a test counts. */
static void mark_begin(void) {
  void *block = malloc(987001);
  (void)block; /* never freed, so that only the calls in between are between */
}
static void mark_end(void) {
  void *block = malloc(987002);
  (void)block;
}

static void one_round(void) {
  void *a = malloc(100);
  void *b = calloc(3, 50);
  void *c = realloc(NULL, 40);
  c = realloc(c, 4000);
  c = realloc(c, 20);
  if (realloc(c, 0) != NULL) abort();
  void *d = reallocarray(NULL, 4, 10);
  d = reallocarray(d, 8, 10);
  void *e = NULL, *none = NULL;
  if (posix_memalign(&e, 64, 200) != 0) abort();
  void *f = aligned_alloc(128, 256);
  void *g = memalign(32, 48);
  void *h = valloc(10);
  void *i = pvalloc(5000);
  char *j = strdup("twelve chars");
  char *k = strndup("twelve chars", 6);
  if (malloc(PTRDIFF_MAX) != NULL || errno != ENOMEM) abort();
  if (calloc(SIZE_MAX / 2, 4) != NULL || errno != ENOMEM) abort();
  if (realloc(a, PTRDIFF_MAX) != NULL) abort();
  if (reallocarray(d, SIZE_MAX / 2, 4) != NULL) abort();
  if (posix_memalign(&none, 3, 8) != EINVAL) abort();
  free(NULL);
  free(a), free(b), free(d), free(e), free(f), free(g), free(h), free(i), free(j), free(k);
}

static void rounds(long n) {
  for (long i = 0; i < n; i++) one_round();
}
