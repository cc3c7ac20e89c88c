/* A program's own malloc family, small and without locks: free lists by power of two, each a stack
 * with a tag, above an area that grows. It may be called from signal handlers.
 *
 * Before each block are its class and the start of the piece it lies in. */
#include "own_allocator.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define AREA ((size_t)8 << 30)
#define HEADER 16
#define LARGEST ((size_t)1 << 30)

void (*on_too_large)(void);
_Atomic unsigned long own_calls[16];
volatile int own_busy;

static _Atomic uintptr_t area;
static _Atomic size_t used;
static _Atomic uint64_t lists[48]; /* tag << 40 | offset / 16 */

struct header { uint64_t class, start; };

static uintptr_t start(void) {
  uintptr_t at = area;
  if (at) return at;
  void *new = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (new == MAP_FAILED) return 0;
  if (!atomic_compare_exchange_strong(&area, &at, (uintptr_t)new)) {
    munmap(new, AREA);
    return at;
  }
  return (uintptr_t)new;
}

static int class_of(size_t bytes) {
  int class = 5;
  while (((size_t)1 << class) < bytes) class++;
  return class;
}

static __attribute__((noinline)) void *take_piece(size_t bytes, size_t align) {
  if (bytes > LARGEST || align > (1 << 20)) {
    if (on_too_large) on_too_large();
    errno = ENOMEM;
    return NULL;
  }
  uintptr_t base = start();
  if (!base) return NULL;
  int class = class_of(bytes + HEADER + (align > 16 ? align : 0));
  uint64_t head = lists[class];
  uintptr_t piece = 0;
  while (head & (((uint64_t)1 << 40) - 1)) {
    uintptr_t at = base + (head & (((uint64_t)1 << 40) - 1)) * 16;
    uint64_t next = *(volatile uint64_t *)at;
    uint64_t new = ((head >> 40) + 1) << 40 | (next & (((uint64_t)1 << 40) - 1));
    if (atomic_compare_exchange_weak(&lists[class], &head, new)) { piece = at; break; }
  }
  if (!piece) {
    size_t at = atomic_fetch_add(&used, (size_t)1 << class) + 4096;
    if (at + ((size_t)1 << class) > AREA) { errno = ENOMEM; return NULL; }
    piece = base + at;
  }
  uintptr_t block = piece + HEADER;
  if (align > 16) block = (block + align - 1) & ~(align - 1);
  struct header *header = (struct header *)(block - HEADER);
  header->class = class;
  header->start = piece;
  return (void *)block;
}

static __attribute__((noinline)) void *take(size_t bytes, size_t align) {
  own_busy = 1;
  void *block = take_piece(bytes, align);
  own_busy = 0;
  return block;
}

static __attribute__((noinline)) void give(void *block) {
  own_busy = 1;
  struct header *header = (struct header *)((uintptr_t)block - HEADER);
  int class = header->class;
  uintptr_t piece = header->start;
  uint64_t head = lists[class], new;
  do {
    *(volatile uint64_t *)piece = head & (((uint64_t)1 << 40) - 1);
    new = ((head >> 40) + 1) << 40 | (piece - area) / 16;
  } while (!atomic_compare_exchange_weak(&lists[class], &head, new));
  own_busy = 0;
}

/* For an operator new beside the family. */
void *own_take(size_t bytes) {
  own_calls[OWN_NEW]++;
  return take(bytes, 16);
}

static size_t room(void *block) {
  struct header *header = (struct header *)((uintptr_t)block - HEADER);
  return header->start + ((size_t)1 << header->class) - (uintptr_t)block;
}

void *malloc(size_t bytes) {
  own_calls[OWN_MALLOC]++;
  return take(bytes, 16);
}

void free(void *block) {
  if (!block) return;
  own_calls[OWN_FREE]++;
  give(block);
}
void cfree(void *block) __attribute__((alias("free")));
/* operator delete and its relatives are the same function, as in browsers. */
void _ZdlPv(void *block) __attribute__((alias("free")));
void _ZdaPv(void *block) __attribute__((alias("free")));
void _ZdlPvm(void *block, size_t bytes) __attribute__((alias("free")));

void *calloc(size_t count, size_t size) {
  size_t bytes;
  own_calls[OWN_CALLOC]++;
  if (__builtin_mul_overflow(count, size, &bytes)) { errno = ENOMEM; return NULL; }
  void *block = take(bytes, 16);
  return block ? memset(block, 0, bytes) : NULL;
}

void *realloc(void *block, size_t bytes) {
  own_calls[OWN_REALLOC]++;
  if (!block) return take(bytes, 16);
  if (!bytes) { give(block); return NULL; }
  if (bytes <= room(block)) return block;
  void *new = take(bytes, 16);
  if (!new) return NULL;
  size_t held = room(block);
  memcpy(new, block, held < bytes ? held : bytes);
  give(block);
  return new;
}

void *memalign(size_t align, size_t bytes) {
  own_calls[OWN_MEMALIGN]++;
  return take(bytes, align);
}
void *aligned_alloc(size_t align, size_t bytes) __attribute__((alias("memalign")));

int posix_memalign(void **out, size_t align, size_t bytes) {
  own_calls[OWN_MEMALIGN]++;
  if (align % sizeof(void *) || align & (align - 1)) return EINVAL;
  void *block = take(bytes, align);
  if (!block) return ENOMEM;
  *out = block;
  return 0;
}

void *valloc(size_t bytes) {
  own_calls[OWN_MEMALIGN]++;
  return take(bytes, 4096);
}

void *pvalloc(size_t bytes) {
  own_calls[OWN_MEMALIGN]++;
  return take((bytes + 4095) & ~(size_t)4095, 4096);
}

size_t malloc_usable_size(void *block) {
  return block ? room(block) : 0;
}

char *strdup(const char *text) {
  own_calls[OWN_STRDUP]++;
  size_t bytes = strlen(text) + 1;
  char *copy = take(bytes, 16);
  return copy ? memcpy(copy, text, bytes) : NULL;
}
