/* crowds MODE N: many processes or threads. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_barrier_t begun, ended;

static void *idle(void *which) {
  long size = 10000 + (long)which;
  void *block = malloc(size);
  pthread_barrier_wait(&begun); /* all are alive at once */
  pthread_barrier_wait(&ended);
  free(block);
  return NULL;
}

static void *busy(void *unused) {
  for (int i = 0; i < 300; i++) free(malloc(100 + i));
  return idle((void *)0);
}

int main(int argc, char **argv) {
  const char *mode = argv[1];
  long n = atol(argv[2]);
  if (!strcmp(mode, "threads") || !strcmp(mode, "busy")) {
    void *(*life)(void *) = !strcmp(mode, "busy") ? busy : idle;
    pthread_t *threads = malloc(n * sizeof *threads);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    pthread_barrier_init(&begun, NULL, n + 1);
    pthread_barrier_init(&ended, NULL, n + 1);
    for (long i = 0; i < n; i++)
      if (pthread_create(&threads[i], &small, life, (void *)i)) return 96;
    pthread_barrier_wait(&begun);
    pthread_barrier_wait(&ended);
    for (long i = 0; i < n; i++) pthread_join(threads[i], NULL);
    free(threads);
    return 0;
  }
  int executes = !strcmp(mode, "exec");
  for (long i = 0; i < n; i++) {
    pid_t child = fork();
    if (child == 0) {
      void *volatile block = malloc(20000 + i);
      (void)block;
      if (executes) execl("/bin/true", "true", NULL);
      _exit(0);
    }
    int status;
    if (child < 0 || (i >= 8 && (wait(&status) < 0 || status != 0))) return 97;
  }
  int status;
  while (wait(&status) > 0)
    if (status != 0) return 98;
  return 0;
}
