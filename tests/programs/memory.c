/* memory mmap|malloc MIB MILLISECONDS: takes memory one way or the other, touches it and holds it for a while. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *from_mmap(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

int main(int argc, char **argv) {
  size_t mib = strtoul(argv[2], NULL, 10);
  int is_malloc = !strcmp(argv[1], "malloc");
  for (size_t n = 0; n < mib * 16; n++) {
    size_t size = 1 << 16;
    char *memory = is_malloc ? malloc(size) : from_mmap(size);
    if (!memory) return 1;
    memset(memory, 1, size);
  }
  free(malloc(100));
  usleep(strtoul(argv[3], NULL, 10) * 1000);
  puts("done");
  return 0;
}
