/* signals MODE N: signal handlers that allocate, or jump out of what they interrupted. To be linked with
 * own_allocator.c, whose malloc may be interrupted and called again at any place. */
#include "own_allocator.h"
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

static volatile long handled;
static volatile long wanted; /* Jumps; later signals find nobody to jump back to. */
static sigjmp_buf back;

static void allocating(int signal) {
  void *volatile block = malloc(4242);
  (void)block;
  handled++;
}

static void jumping(int signal) {
  if (handled >= wanted) return;
  handled++;
  siglongjmp(back, 1);
}

static void jumping_from_the_allocator(int signal) {
  if (!own_busy || handled >= wanted) return;
  own_busy = 0;
  handled++;
  siglongjmp(back, 1);
}

static void install(void (*handler)(int), int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigaction(SIGALRM, &action, NULL);
}

static void every(long microseconds) {
  struct itimerval timer = {{0, microseconds}, {0, microseconds}};
  setitimer(ITIMER_REAL, &timer, NULL);
}

/* Until `n` signals were handled. What it counts are its own calls. */
static __attribute__((noinline)) long work(long n) {
  volatile long calls = 0;
  while (handled < n) {
    void *volatile block = malloc(64);
    free(block);
    calls++;
  }
  return calls;
}

static __attribute__((noinline)) void known(long n) {
  for (long i = 0; i < n; i++) free(malloc(7001));
}

static __attribute__((noinline)) void deeper(long n, int depth) {
  volatile char room[4096];
  room[0] = 1;
  if (depth > 0) deeper(n, depth - 1);
  else for (long i = 0; i < n; i++) free(malloc(7002));
}

static __attribute__((noinline)) void storm(long n) {
  /* A place to jump back to, in the same frame that allocates. */
  sigsetjmp(back, 1);
  while (handled < n) {
    void *volatile block = malloc(64);
    free(block);
  }
}

int main(int argc, char **argv) {
  const char *mode = argv[1];
  long n = atol(argv[2]);
  long calls = 0;
  if (!strcmp(mode, "raise")) {
    install(allocating, 0);
    for (long i = 0; i < n; i++) {
      void *volatile block = malloc(64);
      raise(SIGALRM);
      free(block);
      calls++;
    }
  } else if (!strcmp(mode, "timer")) {
    install(allocating, 0);
    every(50);
    calls = work(n);
  } else if (!strcmp(mode, "altstack")) {
    stack_t stack = {malloc(65536), 0, 65536};
    sigaltstack(&stack, NULL);
    install(allocating, SA_ONSTACK);
    every(50);
    calls = work(n);
  } else if (!strncmp(mode, "siglongjmp", 10)) {
    install(strcmp(mode, "siglongjmp") ? jumping_from_the_allocator : jumping, 0);
    wanted = n;
    every(50);
    storm(n);
  }
  every(0);
  signal(SIGALRM, SIG_IGN);
  known(1000);
  deeper(1000, 8);
  printf("%ld %ld\n", calls, handled);
  return 0;
}
