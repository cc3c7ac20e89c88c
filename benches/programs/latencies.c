/* How long each call of malloc and free takes as the program sees it: what benches/latency runs.
 *
 * usage: latencies CALLS
 *
 * Random sizes over a table of blocks; every call stands between two reads of the time-stamp counter,
 * each ordered against the call by fences. Prints the nanoseconds of a tick, then histograms: name,
 * least ticks of the class, calls in it; at last the greatest single call.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

enum { SLOTS = 8192, STEPS = 32, CLASSES = 64 * STEPS };

struct histogram {
    uint64_t classes[CLASSES], most;
};
static struct histogram allocations, frees;
static void *volatile slots[SLOTS];

static uint64_t begin(void)
{
    _mm_mfence();
    _mm_lfence();
    uint64_t ticks = __rdtsc();
    _mm_lfence();
    return ticks;
}

static uint64_t end(void)
{
    unsigned processor;
    uint64_t ticks = __rdtscp(&processor);
    _mm_lfence();
    return ticks;
}

/* Classes: 32 in each power of two, one tick each below 64. */
static unsigned class_of(uint64_t ticks)
{
    if (ticks < 2 * STEPS)
        return (unsigned)ticks;
    unsigned power = 63 - (unsigned)__builtin_clzll(ticks);
    return (power - 4) * STEPS + (unsigned)((ticks >> (power - 5)) & (STEPS - 1));
}

static uint64_t least_of(unsigned class)
{
    if (class < 2 * STEPS)
        return class;
    return (uint64_t)(STEPS + class % STEPS) << (class / STEPS - 1);
}

static void count(struct histogram *histogram, uint64_t ticks)
{
    histogram->classes[class_of(ticks)]++;
    if (ticks > histogram->most)
        histogram->most = ticks;
}

static void print(const char *name, const struct histogram *histogram)
{
    for (unsigned class = 0; class < CLASSES; class++)
        if (histogram->classes[class])
            printf("%s %llu %llu\n", name, (unsigned long long)least_of(class), (unsigned long long)histogram->classes[class]);
    printf("%s most %llu\n", name, (unsigned long long)histogram->most);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CALLS\n", argv[0]);
        return 2;
    }
    long calls = atol(argv[1]), done = 0;
    uint64_t state = 88172645463325252u;
    uint64_t began_ns = now_ns(), began = begin();
    while (done < calls) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        void *volatile *slot = &slots[state % SLOTS];
        if (*slot) {
            void *block = *slot;
            uint64_t before = begin();
            free(block);
            count(&frees, end() - before);
            done++;
        }
        size_t size = 16 + (state >> 40) % 1009;
        uint64_t before = begin();
        void *block = malloc(size);
        count(&allocations, end() - before);
        done++;
        *slot = block;
    }
    uint64_t ticks = end() - began, took_ns = now_ns() - began_ns;
    printf("tick %.9f\n", (double)took_ns / (double)ticks);
    print("malloc", &allocations);
    print("free", &frees);
    return 0;
}
