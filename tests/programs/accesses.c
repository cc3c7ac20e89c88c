/* Accesses that are counted by hand: every size is asked for once, so it names its block. Built with -O0; each line with a volatile
   pointer is exactly the loads and stores that it says. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void write_times(volatile char *block, int times) {
    for (int n = 0; n < times; n++) block[n] = 1;
}

static int read_times(volatile char *block, int times) {
    int sum = 0;
    for (int n = 0; n < times; n++) sum += block[n];
    return sum;
}

static void *thread(void *argument) {
    int number = *(int *)argument;
    volatile char *block = malloc(1000 + number);
    write_times(block, 10 * number);
    read_times(block, 5 * number);
    return (void *)block;
}

int main(void) {
    /* 101: 50 stores, 20 loads. */
    char *plain = malloc(101);
    write_times(plain, 50);
    read_times(plain, 20);
    /* 102: never touched. */
    char *untouched = malloc(102);
    /* 103: 30 stores; moves (a block behind it is in its way); 5 loads and 7 stores at the new place. The copy is the allocator's. */
    char *moved = malloc(103);
    char *behind = malloc(104);
    write_times(behind, 1);
    write_times(moved, 30);
    moved = realloc(moved, 200000);
    write_times(moved + 150000, 7);
    read_times(moved, 5);
    free(moved);
    /* 105 is freed, 106 most likely gets its place: 11 stores to the first, 13 to the second. */
    char *first = malloc(105);
    write_times(first, 11);
    free(first);
    char *second = malloc(106);
    write_times(second, 13);
    /* 4097: calloc's zeros are the allocator's; 3 loads. */
    char *zeroed = calloc(1, 4097);
    read_times(zeroed, 3);
    /* 8192 from and to: memcpy reads one and writes the other, in accesses of any width. */
    char *from = malloc(8192), *to = malloc(8193);
    memset(from, 1, 8192);
    memcpy(to, from, 8192);
    /* Threads: 1001 10 stores and 5 loads, 1002 20 and 10. */
    pthread_t threads[2];
    int numbers[2] = {1, 2};
    void *blocks[2];
    for (int n = 0; n < 2; n++) pthread_create(&threads[n], 0, thread, &numbers[n]);
    for (int n = 0; n < 2; n++) pthread_join(threads[n], &blocks[n]);
    /* Freed by another thread; 1 more load of the first. */
    read_times(blocks[0], 1);
    free(blocks[0]);
    free(blocks[1]);
    /* 107: 4 stores and 3 loads after its free, no glibc list keeps data beyond its first 16 bytes. */
    volatile char *dead = malloc(107);
    free((void *)dead);
    write_times(dead + 40, 4);
    read_times(dead + 50, 3);
    free(untouched);
    free(plain);
    free(behind);
    return 0;
}
