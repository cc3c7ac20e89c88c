/* A heap with a thread of its own: it compacts while the program does nothing, is started anew in a forked child, takes
 * no signals, and ends with its heap. */
#include "check.h"
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCKS 60000

static memory_t *blocks[BLOCKS];

static uint64_t steps(rmheap_t *heap)
{
  rmstats_t stats;
  WORKS(rmheap_stats(heap, &stats));
  return stats.compaction.steps;
}

/* Leaves regions of which much is free. */
static void thin_out(rmheap_t *heap)
{
  for (int i = 0; i < BLOCKS; i++) {
    WORKS(rmheap_alloc(heap, &blocks[i], 200));
    fill(blocks[i], 200, i);
  }
  for (int i = 0; i < BLOCKS; i++)
    if (i % 4)
      WORKS(rmfree(blocks[i]));
}

/* Until the heap has moved blocks without a call of ours that could have done it. */
static void wait_for_moves(rmheap_t *heap, uint64_t before)
{
  rmstats_t stats;
  struct timespec pause = {0, 1000000};
  do {
    nanosleep(&pause, NULL);
    WORKS(rmheap_stats(heap, &stats));
  } while (stats.compaction.blocks_moved <= before);
}

static void finish(rmheap_t *heap)
{
  for (int i = 0; i < BLOCKS; i += 4) {
    CHECK(is_filled(blocks[i], 200, i));
    WORKS(rmfree(blocks[i]));
  }
  WORKS(rmheap_destroy(heap));
}

static int threads_now(void)
{
  char line[200];
  int count = 0;
  FILE *status = fopen("/proc/self/status", "r");
  CHECK(status);
  while (fgets(line, sizeof line, status))
    if (sscanf(line, "Threads: %d", &count) == 1)
      break;
  fclose(status);
  return count;
}

static volatile sig_atomic_t handled;
static pthread_t main_thread;

static void handles(int signal)
{
  (void)signal;
  handled += pthread_equal(pthread_self(), main_thread) ? 1 : 1000;
}

static rmheap_t *make(uint32_t compaction)
{
  rmheap_t *heap;
  rmoptions_t options = {0};
  options.size = sizeof options;
  options.compaction = compaction;
  options.cpu_share_ppm = 500000;
  WORKS(rmheap_create(&heap, &options));
  return heap;
}

int main(void)
{
  main_thread = pthread_self();
  signal(SIGUSR1, handles);

  /* Off: nobody does it. */
  rmheap_t *heap = make(RM_COMPACTION_OFF);
  thin_out(heap);
  CHECK(steps(heap) == 0 && threads_now() == 1);
  finish(heap);

  /* Inline: calls do. */
  heap = make(RM_COMPACTION_INLINE);
  thin_out(heap);
  CHECK(steps(heap) > 0 && threads_now() == 1);
  finish(heap);

  /* Background: the thread does. */
  heap = make(RM_COMPACTION_BACKGROUND);
  CHECK(threads_now() == 1);
  thin_out(heap);
  CHECK(threads_now() == 2);
  wait_for_moves(heap, 0);
  /* Signals of the process come to this thread, the only one that takes them. */
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, NULL);
  for (int i = 0; i < 100; i++)
    kill(getpid(), SIGUSR1);
  struct timespec pause = {0, 10000000};
  nanosleep(&pause, NULL);
  CHECK(handled == 0);
  pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
  CHECK(handled == 1);

  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    /* The blocks are here, the thread is not, until there is work. */
    CHECK(threads_now() == 1);
    for (int i = 0; i < BLOCKS; i += 4) {
      CHECK(is_filled(blocks[i], 200, i));
      WORKS(rmfree(blocks[i]));
    }
    rmstats_t stats;
    WORKS(rmheap_stats(heap, &stats));
    thin_out(heap);
    CHECK(threads_now() == 2);
    wait_for_moves(heap, stats.compaction.blocks_moved);
    finish(heap);
    CHECK(threads_now() == 1);
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  finish(heap);
  CHECK(threads_now() == 1);
  puts("done");
  return 0;
}
