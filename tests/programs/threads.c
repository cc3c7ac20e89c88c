/* threads COUNT: short-lived threads, some of which allocate again in destructors of their values. */
#include "rounds.h"
#include <pthread.h>
#include <stdio.h>

static pthread_key_t key;
static int left[100000];

/* Runs after the thread's function, up to as often as destructors are repeated. */
static void destructor(void *value) {
  int *again = value;
  free(malloc(4001));
  if (--*again > 0) pthread_setspecific(key, value);
}

static void *short_life(void *which) {
  size_t i = (size_t)which;
  free(malloc(3001));
  free(malloc(3002));
  left[i] = i % 5; /* 0 to 4 rounds of destructors; the C library runs four at most */
  if (left[i] > 0) pthread_setspecific(key, &left[i]);
  return NULL;
}

int main(int argc, char **argv) {
  long count = atol(argv[1]);
  pthread_key_create(&key, destructor);
  for (long i = 0; i < count; i += 4) {
    pthread_t threads[4];
    for (int k = 0; k < 4; k++) pthread_create(&threads[k], NULL, short_life, (void *)(i + k));
    for (int k = 0; k < 4; k++) pthread_join(threads[k], NULL);
  }
  return 0;
}
