/* Reads sizes and writes for each what malloc_usable_size says of a new block of that size, freed
   at once. Of glibc the settings are pinned to those a process starts with. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) {
  static char in[1 << 16], out[1 << 16];
  setvbuf(stdin, in, _IOFBF, sizeof in);
  setvbuf(stdout, out, _IOFBF, sizeof out);
  mallopt(M_MMAP_THRESHOLD, 128 << 10); /* else it rises with each free */
  mallopt(M_TRIM_THRESHOLD, 0);         /* else the top of the heap serves larger ones */
  mallopt(M_TOP_PAD, 0);
  size_t bytes;
  while (scanf("%zu", &bytes) == 1) {
    void *volatile block = malloc(bytes);
    if (!block) return 1;
    printf("%zu\n", malloc_usable_size(block));
    free(block);
  }
  return 0;
}
