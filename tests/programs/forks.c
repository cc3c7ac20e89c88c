/* forks MODE N: children that inherit blocks. */
#include "rounds.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic int stop;

static void *busy(void *unused) {
  void *blocks[64] = {0};
  unsigned x = 1;
  while (!stop) {
    x = x * 1103515245 + 12345;
    int i = x >> 16 & 63;
    free(blocks[i]);
    blocks[i] = malloc(16 + (x >> 8) % 300);
  }
  for (int i = 0; i < 64; i++) free(blocks[i]);
  return NULL;
}

static int all_ended(int count) {
  for (int i = 0; i < count; i++) {
    int status;
    if (wait(&status) < 0 || status != 0) return 1;
  }
  return 0;
}

int main(int argc, char **argv) {
  const char *mode = argv[1];
  long n = atol(argv[2]);
  void **blocks = malloc(n * sizeof *blocks);
  if (!strcmp(mode, "inherit")) {
    for (long i = 0; i < n; i++) blocks[i] = malloc(100 + i);
    pid_t pid = fork();
    if (pid == 0) {
      for (long i = 0; i < n; i++) free(blocks[i]);
      for (long i = 0; i < 10; i++) blocks[i] = malloc(8001);
      pid = fork();
      if (pid == 0) { /* frees what its parent allocated after the fork */
        for (long i = 0; i < 10; i++) free(blocks[i]);
        blocks[0] = malloc(8002);
        blocks[0] = realloc(blocks[0], 80020);
        _exit(0);
      }
      _exit(all_ended(1));
    }
    for (long i = 0; i < n; i++) free(blocks[i]);
    return all_ended(1);
  }
  if (!strcmp(mode, "clone")) { /* no handler of the C library runs */
    void *kept = malloc(8003);
    pid_t pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
      free(kept);
      mark_begin();
      rounds(n);
      mark_end();
      _exit(0);
    }
    free(kept);
    return all_ended(1);
  }
  if (!strcmp(mode, "stress")) { /* other threads are in the middle of anything */
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, busy, NULL);
    for (long i = 0; i < n; i++) {
      pid_t pid = fork();
      if (pid == 0) {
        mark_begin();
        rounds(20);
        mark_end();
        _exit(0);
      }
      free(malloc(200));
      if (i % 8 == 7 && all_ended(8)) return 1;
    }
    if (all_ended(n % 8)) return 1;
    stop = 1;
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    return 0;
  }
  if (!strcmp(mode, "daemon")) { /* the parent is gone before the child calls anything */
    pid_t parent = getpid();
    for (long i = 0; i < n; i++) blocks[i] = malloc(100 + i);
    if (fork() == 0) {
      while (getppid() == parent) usleep(1000);
      usleep(20000);
      for (long i = 0; i < n; i++) free(blocks[i]);
      _exit(0);
    }
    return 0;
  }
  if (!strcmp(mode, "many")) {
    for (long i = 0; i < n; i++) {
      if (fork() == 0) {
        void *volatile block = malloc(8004);
        (void)block;
        _exit(0);
      }
      if (i % 50 == 49 && all_ended(50)) return 1;
    }
    return all_ended(n % 50);
  }
  return 95;
}
