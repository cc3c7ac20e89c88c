/* The C library's allocator under other names, as if it were the program's own: -Dprefixed_malloc=NAME
 * and so on. The calls below are not the program's own, and are not to be seen beside them. */
#include <stdlib.h>

void *prefixed_malloc(size_t bytes) {
  void *block = malloc(bytes);
  return block;
}
void *prefixed_calloc(size_t count, size_t size) {
  void *block = calloc(count, size);
  return block;
}
void *prefixed_realloc(void *old, size_t bytes) {
  void *block = realloc(old, bytes);
  return block;
}
void prefixed_free(void *block) {
  if (block) free(block);
}
int prefixed_posix_memalign(void **out, size_t align, size_t bytes) {
  int error = posix_memalign(out, align, bytes);
  return error;
}
