/* counted MODE N [FILE]: N rounds of known calls, in one place or another, ended one way or another. */
#include "rounds.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static long n;
static pthread_barrier_t barrier;

static void *thread_rounds(void *unused) {
  pthread_barrier_wait(&barrier); /* all are there: no thread takes over another's stack */
  rounds(n);
  pthread_barrier_wait(&barrier);
  return NULL;
}

static void in_threads(int count) {
  pthread_t threads[16];
  pthread_barrier_init(&barrier, NULL, count);
  for (int i = 0; i < count; i++) pthread_create(&threads[i], NULL, thread_rounds, NULL);
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

static int ended(pid_t child) {
  int status;
  if (waitpid(child, &status, 0) != child) return 99;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/* Each thread counts in shared memory before and after every call, until the process is killed. */
struct slot { _Atomic unsigned long started, done; char pad[112]; };
static struct slot *slots;

static void *until_killed(void *which) {
  struct slot *slot = &slots[(size_t)which];
  size_t bytes = 1000 + (size_t)which;
  for (;;) {
    slot->started++;
    void *block = malloc(bytes);
    slot->done++;
    slot->started++;
    free(block);
    slot->done++;
  }
}

int main(int argc, char **argv) {
  const char *mode = argv[1];
  n = atol(argv[2]);
  char *child[] = {argv[0], "one", argv[2], "the-child", NULL};
  if (!strcmp(mode, "one")) {
    rounds(n);
  } else if (!strcmp(mode, "threads")) {
    in_threads(4);
  } else if (!strcmp(mode, "fork")) {
    pid_t pid = fork();
    if (pid == 0) { rounds(n); exit(5); }
    return ended(pid);
  } else if (!strcmp(mode, "forked-threads")) {
    pid_t pid = fork();
    if (pid == 0) { in_threads(3); exit(5); }
    return ended(pid);
  } else if (!strcmp(mode, "forkexec")) {
    pid_t pid = fork();
    if (pid == 0) { execv(argv[0], child); _exit(98); }
    return ended(pid);
  } else if (!strcmp(mode, "vforkexec")) {
    pid_t pid = vfork();
    if (pid == 0) { execv(argv[0], child); _exit(98); }
    return ended(pid);
  } else if (!strcmp(mode, "spawn")) {
    pid_t pid;
    if (posix_spawn(&pid, argv[0], NULL, NULL, child, environ) != 0) return 97;
    return ended(pid);
  } else if (!strcmp(mode, "exec")) {
    rounds(n);
    execv(argv[0], child);
    return 98;
  } else if (!strcmp(mode, "_exit")) {
    rounds(n);
    _exit(3);
  } else if (!strcmp(mode, "exit_group")) {
    rounds(n);
    syscall(SYS_exit_group, 4);
  } else if (!strcmp(mode, "quick_exit")) {
    rounds(n);
    quick_exit(6);
  } else if (!strcmp(mode, "abort")) {
    rounds(n);
    abort();
  } else if (!strcmp(mode, "kill")) {
    int fd = open(argv[3], O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0) return 96;
    slots = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++) pthread_create(&threads[i], NULL, until_killed, (void *)i);
    for (int i = 0; i < 3; i++)
      while (slots[i].done < (unsigned long)n) usleep(1000);
    kill(getpid(), SIGKILL);
  } else {
    return 95;
  }
  return 0;
}
