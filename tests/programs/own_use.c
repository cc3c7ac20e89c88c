/* own_use N: uses the allocator of own_allocator.c from the program itself and from the C library, and
 * prints how often its functions were called, which is what a recording has to show. */
#include "own_allocator.h"
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void cfree(void *block);
int main(int argc, char **argv) {
  long n = atol(argv[1]);
  for (long i = 0; i < n; i++) {
    void *blocks[16] = {
      malloc(100), calloc(3, 50), realloc(NULL, 40), memalign(32, 48), aligned_alloc(64, 64),
      valloc(10), pvalloc(10), strdup("mine"), strndup("of the C library", 6), NULL,
    };
    posix_memalign(&blocks[9], 64, 200);
    blocks[2] = realloc(blocks[2], 4000);
    if (malloc((size_t)1 << 40) != NULL) return 1;
    char *text;
    asprintf(&text, "%ld", i); /* the C library's own calls */
    free(text);
    cfree(blocks[0]);
    for (int k = 1; k < 10; k++) free(blocks[k]);
  }
  /* Neither this nor the end allocates. */
  char line[200];
  int length = snprintf(line, sizeof line, "%lu %lu %lu %lu %lu %lu\n", own_calls[0], own_calls[1],
                        own_calls[2], own_calls[3], own_calls[4], own_calls[5]);
  write(1, line, length);
  _Exit(0);
}
