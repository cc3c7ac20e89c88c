/* An allocator that never frees: its free is too short to be patched. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char area[64 << 20] __attribute__((aligned(16)));
static _Atomic size_t used;

__attribute__((noinline)) void *malloc(size_t bytes) {
  size_t at = __atomic_fetch_add(&used, (bytes + 31) & ~(size_t)15, __ATOMIC_RELAXED);
  if (at + bytes + 32 > sizeof area) return NULL;
  *(size_t *)(area + at) = bytes;
  return area + at + 16;
}
void free(void *block) {}
void *calloc(size_t count, size_t size) {
  return malloc(count * size); /* the area is zero */
}
void *realloc(void *block, size_t bytes) {
  void *new = malloc(bytes);
  if (block && new) {
    size_t held = *(size_t *)((char *)block - 16);
    memcpy(new, block, held < bytes ? held : bytes);
  }
  return new;
}

int main(void) {
  for (int i = 0; i < 1000; i++) free(malloc(7001));
  write(1, "done\n", 5);
  return 0;
}
