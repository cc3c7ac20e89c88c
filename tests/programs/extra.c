/* extra: prints where a call comes from and how much of a block may be used. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

static __attribute__((noinline)) void *calls(size_t bytes) {
  void *block = malloc(bytes);
  asm volatile("" ::: "memory");
  return block;
}

int main(void) {
  void *block = calls(31337);
  void *small = calls(1);
  printf("%zu %zu %zu\n", (size_t)&calls, malloc_usable_size(block), malloc_usable_size(small));
  return 0;
}
