/* The least a recorder can be measured on: malloc(64) and free, over and over.
 *
 * usage: tight PAIRS
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s PAIRS\n", argv[0]);
        return 2;
    }
    uint64_t pairs = strtoull(argv[1], NULL, 10);
    for (uint64_t i = 0; i < pairs; i++) {
        /* Volatile, or the compiler removes the pair. */
        void *volatile block = malloc(64);
        free(block);
    }
    printf("mallocs %llu frees %llu\n", (unsigned long long)pairs, (unsigned long long)pairs);
    return 0;
}
