/* The least a recorder can be measured on: malloc(64) and free, over and over.
 *
 * usage: tight PAIRS [stamp]
 *
 * With `stamp` the program itself reads the time-stamp counter before each call.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <x86intrin.h>

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s PAIRS\n", argv[0]);
        return 2;
    }
    uint64_t pairs = strtoull(argv[1], NULL, 10);
    int stamp = argc > 2;
    uint64_t clock = 0;
    for (uint64_t i = 0; i < pairs; i++) {
        if (stamp)
            clock ^= __rdtsc();
        /* Volatile, or the compiler removes the pair. */
        void *volatile block = malloc(64);
        if (stamp)
            clock ^= __rdtsc();
        free(block);
    }
    if (stamp && clock == 1)
        puts("never"); /* The stamps are used. */
    printf("mallocs %llu frees %llu\n", (unsigned long long)pairs, (unsigned long long)pairs);
    return 0;
}
