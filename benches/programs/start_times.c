/* How long a process takes from its start to its end: what benches/start runs.
 *
 * usage: start_times ROUNDS PROGRAM VARIANT...
 *
 * Starts PROGRAM once for each VARIANT in turn, ROUNDS times, and waits for it:
 *
 *   plain   without LD_PRELOAD and RMTRACE_*
 *   joins   with the environment as it is: a process of the run that this program is recorded in
 *   first   with LD_PRELOAD but without RMTRACE_SPOOL: the first process of a run of its own
 *
 * Prints for each start: the variant, wall nanoseconds, CPU microseconds of the child.
 */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static char **without(const char *const *prefixes)
{
    size_t count = 0, kept = 0;
    while (environ[count])
        count++;
    char **chosen = calloc(count + 1, sizeof *chosen);
    if (!chosen)
        exit(1);
    for (size_t n = 0; n < count; n++) {
        int drop = 0;
        for (const char *const *prefix = prefixes; *prefix; prefix++)
            drop |= strncmp(environ[n], *prefix, strlen(*prefix)) == 0;
        if (!drop)
            chosen[kept++] = environ[n];
    }
    return chosen;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s ROUNDS PROGRAM VARIANT...\n", argv[0]);
        return 2;
    }
    const char *const all[] = {"LD_PRELOAD=", "RMTRACE_", NULL}, *const spool[] = {"RMTRACE_SPOOL=", NULL};
    char **plain = without(all), **first = without(spool), *arguments[] = {argv[2], NULL};
    /* Rounds before the first counted one fill caches. */
    for (int round = -5; round < atoi(argv[1]); round++)
        for (int n = 3; n < argc; n++) {
            char **env = strcmp(argv[n], "plain") == 0 ? plain : strcmp(argv[n], "first") == 0 ? first : environ;
            struct timespec before, after;
            struct rusage used;
            pid_t child;
            int status;
            clock_gettime(CLOCK_MONOTONIC, &before);
            if (posix_spawn(&child, argv[2], NULL, NULL, arguments, env) != 0 || wait4(child, &status, 0, &used) != child || status != 0) {
                fprintf(stderr, "%s: %s did not run\n", argv[n], argv[2]);
                return 1;
            }
            clock_gettime(CLOCK_MONOTONIC, &after);
            if (round >= 0)
                printf("%s %lld %lld\n", argv[n], (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec,
                       (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec + used.ru_stime.tv_usec);
        }
    return 0;
}
