/* descriptors MODE: closes what it does not know, opens its own, and looks whether anything but itself
 * has written to it. Prints bytes received. */
#include "rounds.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int readers[20000], count;

static int highest(void) {
  DIR *directory = opendir("/proc/self/fd");
  struct dirent *entry;
  int high = 0;
  while ((entry = readdir(directory)) != NULL) {
    int fd = atoi(entry->d_name);
    if (fd != dirfd(directory) && fd > high) high = fd;
  }
  closedir(directory);
  return high;
}

static void keep(int reader) {
  if (count < 20000) readers[count++] = reader;
}

/* Pipes, sockets and files in turn, until the numbers have passed `high`. */
static void open_until(int high) {
  char name[] = "file-XXXXXX";
  for (int kind = 0, last = 0; last <= high && count < 19000; kind++) {
    int two[2];
    if (kind % 3 == 0) {
      if (pipe(two)) break;
      last = two[1];
      keep(two[0]);
    } else if (kind % 3 == 1) {
      if (socketpair(AF_UNIX, SOCK_STREAM, 0, two)) break;
      last = two[1];
      keep(two[0]), keep(two[1]);
    } else {
      strcpy(name, "file-XXXXXX");
      last = mkstemp(name);
      if (last < 0) break;
      unlink(name);
      keep(last);
    }
  }
}

static long received(void) {
  long bytes = 0;
  for (int i = 0; i < count; i++) {
    struct stat stat;
    int waiting = 0;
    if (fstat(readers[i], &stat)) continue;
    if (S_ISREG(stat.st_mode)) bytes += stat.st_size;
    else if (ioctl(readers[i], FIONREAD, &waiting) == 0) bytes += waiting;
  }
  return bytes;
}

static void test(const char *mode, int high) {
  if (!strcmp(mode, "range")) {
    syscall(SYS_close_range, 3, ~0u, 0);
    open_until(high);
  } else if (!strcmp(mode, "loop")) {
    for (int fd = 3; fd < 20000; fd++) close(fd);
    open_until(high);
  } else if (!strcmp(mode, "dup2")) {
    int two[2];
    if (pipe(two)) exit(1);
    keep(two[0]);
    if (high > two[1] && dup2(two[1], high) != high) exit(1);
  } else if (!strcmp(mode, "dup2-file")) {
    char name[] = "file-XXXXXX";
    int file = mkstemp(name);
    keep(file);
    if (high > file && dup2(file, high) != high) exit(1);
  }
  mark_begin();
  rounds(10000); /* 300,000 calls: many chunks */
  mark_end();
  printf("received %ld of %d\n", received(), count > 0);
  fflush(stdout);
}

int main(int argc, char **argv) {
  struct rlimit limit = {19500, 19500};
  setrlimit(RLIMIT_NOFILE, &limit);
  int high = highest();
  if (argc > 2) { /* in a child */
    pid_t pid = fork();
    if (pid == 0) { test(argv[1], high); _exit(0); }
    int status;
    waitpid(pid, &status, 0);
    return status != 0;
  }
  test(argv[1], high);
  return 0;
}
