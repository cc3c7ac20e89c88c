/* Calls of one kind, counted exactly: what benches/instructions runs under callgrind.
 *
 * usage: calls KIND COUNT THREADS
 *
 * KIND is malloc, calloc, realloc or free. Two runs that differ in COUNT do the same work but for that
 * many calls of the kind: `free` allocates all its blocks in both. COUNT is at most 131,072. With 2
 * THREADS another one has made a call of its own, and sleeps.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 131072 };
static void *volatile blocks[MOST];

static sem_t ready;

static void *sleep_on(void *unused)
{
    void *volatile block = malloc(1);
    (void)block;
    sem_post(&ready);
    for (;;)
        pause();
    return unused;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s KIND COUNT THREADS\n", argv[0]);
        return 2;
    }
    int count = atoi(argv[2]);
    pthread_t thread;
    if (count > MOST)
        return 2;
    if (atoi(argv[3]) > 1) {
        sem_init(&ready, 0, 0);
        if (pthread_create(&thread, NULL, sleep_on, NULL) != 0)
            return 2;
        sem_wait(&ready);
    }
    if (strcmp(argv[1], "malloc") == 0) {
        for (int i = 0; i < count; i++)
            blocks[i] = malloc(48);
    } else if (strcmp(argv[1], "calloc") == 0) {
        for (int i = 0; i < count; i++)
            blocks[i] = calloc(3, 16);
    } else if (strcmp(argv[1], "realloc") == 0) {
        blocks[0] = malloc(48);
        for (int i = 0; i < count; i++)
            blocks[0] = realloc(blocks[0], 40 + (i & 1));
    } else {
        for (int i = 0; i < MOST; i++)
            blocks[i] = malloc(48);
        for (int i = 0; i < count; i++)
            free(blocks[i]);
    }
    _exit(0);
}
