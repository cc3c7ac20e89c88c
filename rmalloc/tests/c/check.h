/* What the C programs of the tests share: checks that name the line and end the program. */
#ifndef CHECK_H
#define CHECK_H

#include <pthread.h>
#include <rmalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      exit(1); \
    } \
  } while (0)

/* The call answers this status. */
#define ANSWERS(status, call) \
  do { \
    status_t found_ = (call); \
    if (found_ != (status)) { \
      fprintf(stderr, "%s:%d: %s answers %d (%s), not %s\n", __FILE__, __LINE__, #call, found_, rmerror(found_), #status); \
      exit(1); \
    } \
  } while (0)

#define WORKS(call) ANSWERS(RM_OK, call)

/* Fills a block with a pattern of its own, or says whether it still has it. */
static inline void fill(memory_t *memory, size_t bytes, unsigned seed)
{
  unsigned char *at;
  WORKS(rmlock(memory, (void **)&at));
  for (size_t i = 0; i < bytes; i++)
    at[i] = (unsigned char)(seed * 31 + i * 7);
  WORKS(rmunlock(memory));
}

static inline int is_filled(memory_t *memory, size_t bytes, unsigned seed)
{
  unsigned char *at;
  size_t i = 0;
  WORKS(rmlock(memory, (void **)&at));
  while (i < bytes && at[i] == (unsigned char)(seed * 31 + i * 7))
    i++;
  WORKS(rmunlock(memory));
  return i == bytes;
}

/* Runs a function in another thread, and waits for it. */
static inline void elsewhere(void *(*function)(void *), void *argument)
{
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, function, argument) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

#endif
