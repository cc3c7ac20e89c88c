/* stages CALLS STAGES DIRECTORY: in each stage allocates and frees CALLS blocks of changing sizes, writes its process id to
 * DIRECTORY/done-STAGE, and waits for DIRECTORY/go-STAGE. What is live stays the same. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *live[512];

int main(int argc, char **argv) {
  long calls = atol(argv[1]), stages = atol(argv[2]);
  uint64_t x = 88172645463325252ull;
  char path[4096], renamed[4096];
  for (int i = 0; i < 512; i++) live[i] = malloc(64);
  for (long stage = 0; stage < stages; stage++) {
    for (long i = 0; i < calls; i++) {
      x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      free(live[x % 512]);
      live[x % 512] = malloc(16 + (x >> 20) % 1000);
    }
    snprintf(path, sizeof path, "%s/writing", argv[3]);
    snprintf(renamed, sizeof renamed, "%s/done-%ld", argv[3], stage);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dprintf(file, "%d", (int)getpid());
    close(file);
    rename(path, renamed);
    snprintf(path, sizeof path, "%s/go-%ld", argv[3], stage);
    while (access(path, F_OK)) usleep(2000);
  }
  return 0;
}
