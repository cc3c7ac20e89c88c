/* A broken allocator: a bump pointer that never frees, and what FAULT names goes wrong.
   OVERLAP   every 500th block begins 32 bytes before the end of the one before it
   UNZEROED  calloc does not clear
   MISALIGN  posix_memalign gives any multiple of 8
   LOST      realloc does not copy
   CRASH     the 1000th block is a write to address 8
   REFUSE    the 1000th block is NULL
   KILL      the 1000th block ends the process by SIGKILL
   With BIG_TLS it needs more static TLS than a library opened late can have. */
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { OVERLAP = 1, UNZEROED, MISALIGN, LOST, CRASH, REFUSE, KILL };

#ifdef BIG_TLS
static __thread char room[200000] __attribute__((tls_model("initial-exec")));
#endif

#ifndef FAULT
#define FAULT 0
#endif

static char *next, *end;
static size_t calls;

static char *take(size_t bytes, size_t alignment) {
    bytes = (bytes + 15) / 16 * 16 + 16;
    if (next + bytes + alignment > end || next == NULL) {
        size_t room = bytes + alignment + (64 << 20);
        next = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (next == MAP_FAILED)
            return NULL;
        end = next + room;
        if (FAULT == UNZEROED)
            memset(next, 0x55, 1 << 20);
    }
    next += -(uintptr_t)next & (alignment - 1);
    char *block = next + 16;
    if (alignment > 16)
        block += alignment - 16;
    *(size_t *)(block - 16) = bytes;
    next = block + bytes - 16;
    return block;
}

void *malloc(size_t bytes) {
    calls++;
    if (FAULT == CRASH && calls == 1000)
        *(volatile int *)8 = 1;
    if (FAULT == KILL && calls == 1000)
        raise(SIGKILL);
#ifdef BIG_TLS
    room[calls % sizeof room]++;
#endif
    if (FAULT == REFUSE && calls == 1000)
        return NULL;
    char *block = take(bytes, 16);
    if (FAULT == OVERLAP && calls % 500 == 0)
        next -= 48;
    return block;
}

void free(void *block) { (void)block; }

void *calloc(size_t number, size_t size) {
    char *block = take(number * size, 16);
    if (FAULT != UNZEROED)
        memset(block, 0, number * size);
    return block;
}

void *realloc(void *old, size_t bytes) {
    char *block = take(bytes, 16);
    if (old != NULL && FAULT != LOST) {
        size_t held = *(size_t *)((char *)old - 16);
        memcpy(block, old, held - 16 < bytes ? held - 16 : bytes);
    }
    return block;
}

int posix_memalign(void **out, size_t alignment, size_t bytes) {
    char *block = take(bytes, alignment < 16 ? 16 : alignment);
    *out = FAULT == MISALIGN ? block + 8 : block;
    return 0;
}
