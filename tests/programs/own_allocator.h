/* What programs may ask of own_allocator.c beside the usual functions. */
#pragma once
#include <stddef.h>

/* Called where a block is too large, if it is set. */
extern void (*on_too_large)(void);

/* Whether the allocator is at work; to be cleared by who leaves it by a jump. */
extern volatile int own_busy;

#ifndef __cplusplus
/* Calls of each function by anybody, counted by the allocator itself. */
extern _Atomic unsigned long own_calls[16];
#endif
enum { OWN_MALLOC, OWN_CALLOC, OWN_REALLOC, OWN_FREE, OWN_MEMALIGN, OWN_STRDUP, OWN_NEW };
