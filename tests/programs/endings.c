/* endings MODE N DIRECTORY: four threads make known calls once the file `go` is there; then an ending. */
#include "rounds.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static long n;
static pthread_barrier_t barrier;

static void touch(const char *name) { close(open(name, O_CREAT | O_WRONLY, 0600)); }

static void *in_thread(void *unused) {
  pthread_barrier_wait(&barrier);
  mark_begin();
  rounds(n);
  mark_end();
  pthread_barrier_wait(&barrier);
  return NULL;
}

int main(int argc, char **argv) {
  const char *mode = argv[1];
  pthread_t threads[4];
  n = atol(argv[2]);
  if (chdir(argv[3])) return 1;
  pthread_barrier_init(&barrier, NULL, 5);
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, in_thread, NULL);
  touch("ready");
  for (int i = 0; i < 60000 && access("go", F_OK) != 0; i++) usleep(1000);
  pthread_barrier_wait(&barrier);
  touch("begun");
  pthread_barrier_wait(&barrier);
  touch("done");
  if (!strcmp(mode, "segv")) *(volatile int *)8 = 1;
  if (!strcmp(mode, "kill")) kill(getpid(), SIGKILL);
  if (!strcmp(mode, "memory")) /* until there is none */
    for (long i = 0; i < 4096; i++) memset(malloc(1 << 20), 1, 1 << 20);
  if (!strcmp(mode, "pause")) pause();
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  return 0;
}
