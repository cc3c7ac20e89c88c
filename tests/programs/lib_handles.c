/* The handle interface of rmalloc over malloc, strict about locks: what a worker may do wrong is an error here. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

typedef int status_t;
typedef struct memory { void *block; long locks; } memory_t;

enum { OK, LOCKED = 11, UNLOCKED = 12, SIZE = 13, MEMORY = 14 };

status_t rmalloc_aligned(memory_t **out, ssize_t size, size_t alignment) {
    if (size <= 0)
        return SIZE;
    memory_t *handle = malloc(sizeof *handle);
    handle->locks = 0;
    if (posix_memalign(&handle->block, alignment < 8 ? 8 : alignment, size) != 0)
        return MEMORY;
    *out = handle;
    return OK;
}

status_t rmalloc(memory_t **out, ssize_t size) { return rmalloc_aligned(out, size, 16); }

status_t rmlock(memory_t *handle, void **address) {
    handle->locks++;
    *address = handle->block;
    return OK;
}

status_t rmunlock(memory_t *handle) {
    if (handle->locks == 0)
        return UNLOCKED;
    handle->locks--;
    return OK;
}

status_t rmresize(memory_t *handle, ssize_t size) {
    if (handle->locks != 0)
        return LOCKED;
    if (size <= 0)
        return SIZE;
    handle->block = realloc(handle->block, size);
    return handle->block == NULL ? MEMORY : OK;
}

status_t rmfree(memory_t *handle) {
    if (handle->locks != 0)
        return LOCKED;
    free(handle->block);
    free(handle);
    return OK;
}

status_t rmcompact(uint64_t budget_ns, void *result) {
    (void)result;
    return budget_ns == 0 ? OK : SIZE;
}
