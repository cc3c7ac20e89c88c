/* longjmp N: leaves malloc itself by longjmp, from inside the allocator, as an out-of-memory handler
 * may. To be linked with own_allocator.c. */
#include "own_allocator.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static jmp_buf back;

static void leave(void) {
  longjmp(back, 1);
}

static __attribute__((noinline)) void *attempt(size_t bytes) {
  if (setjmp(back)) return NULL;
  return malloc(bytes);
}

int main(int argc, char **argv) {
  long n = atol(argv[1]), left = 0;
  on_too_large = leave;
  for (long i = 0; i < n; i++) {
    if (attempt((size_t)1 << 40) == NULL) left++;
    free(malloc(7001));
  }
  printf("%ld\n", left);
  return 0;
}
