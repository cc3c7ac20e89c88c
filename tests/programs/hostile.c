/* hostile MODE: spoils the files of its own recording, then ends without another call. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static unsigned long state = 88172645463325252ul;
static unsigned long next(void) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}

static void spoil(int file, const char *mode) {
  off_t length = lseek(file, 0, SEEK_END);
  if (!strcmp(mode, "truncate")) {
    if (ftruncate(file, 0)) _exit(3);
    return;
  }
  if (!strcmp(mode, "half")) {
    if (ftruncate(file, length / 2 + 123)) _exit(3);
    return;
  }
  if (!strcmp(mode, "grow")) {
    if (ftruncate(file, 1l << 45)) _exit(3);
    return;
  }
  /* Anything anywhere; `lists`: behind the part that tells what the file is. */
  long from = !strcmp(mode, "lists") ? 2048 : 0;
  for (long at = from; at < length && at < 40 << 20; at += 8) {
    if (at >= 4096 && at < 33624064 - 4096 && at % 4096 >= 64) continue;
    if (at >= from + 4096 && next() % 4) continue;
    unsigned long word = next() % 3 ? next() : next() % 70;
    if (pwrite(file, &word, 8, at) != 8) break;
  }
}

int main(int argc, char **argv) {
  char path[4096];
  int files[64], count = 0;
  for (int i = 0; i < 100000; i++) free(malloc(i % 2000)); /* something to spoil */
  snprintf(path, sizeof path, "%s/pool", getenv("RMTRACE_SPOOL"));
  DIR *pool = opendir(path);
  struct dirent *entry;
  while (count < 64 && (entry = readdir(pool)) != NULL) {
    if (entry->d_name[0] == '.') continue;
    int is_control = !strcmp(entry->d_name, "control");
    if (is_control && argc < 3) continue;
    int file = openat(dirfd(pool), entry->d_name, O_RDWR);
    if (file >= 0) files[count++] = file;
  }
  /* From here on nothing is allocated. */
  for (int i = 0; i < count; i++) spoil(files[i], argv[1]);
  usleep(300000); /* the collector looks */
  _exit(7);
}
