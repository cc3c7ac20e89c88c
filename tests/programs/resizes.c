/* Every kind of realloc, N times: from NULL, in place, moved, beyond 16 MiB, failing, to zero. Usage: resizes N */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  long n = argc > 1 ? atol(argv[1]) : 1, failed = 0, ended = 0;
  void *volatile begin = malloc(987001);
  for (long i = 0; i < n; i++) {
    void *volatile block = realloc(NULL, 40);
    block = realloc(block, 39);
    void *volatile fence = malloc(40);
    block = realloc(block, 5001);
    block = realloc(block, 16777217);
    failed += realloc(block, PTRDIFF_MAX) == NULL;
    block = realloc(block, 77);
    ended += realloc(block, 0) == NULL;
    free(fence);
  }
  void *volatile end = malloc(987002);
  free(begin);
  free(end);
  printf("%ld %ld\n", failed, ended);
  return 0;
}
