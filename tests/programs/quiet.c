/* quiet MODE ...: shows what a program can see of itself. The same has to come out with a recording. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void numbers(void) {
  int pipes[2], sockets[2];
  FILE *file = tmpfile();
  printf("file %d\n", fileno(file));
  if (pipe(pipes) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) exit(1);
  printf("pipe %d %d socket %d %d\n", pipes[0], pipes[1], sockets[0], sockets[1]);
  printf("dup %d\n", dup(1));
}

static void descriptors(void) {
  DIR *directory = opendir("/proc/self/fd");
  struct dirent *entry;
  while ((entry = readdir(directory)) != NULL) {
    if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory)) printf("%s\n", entry->d_name);
  }
}

static void errors(void) {
  errno = 0;
  void *none = malloc(PTRDIFF_MAX);
  printf("malloc %p %d\n", none, errno);
  errno = 0;
  none = calloc(SIZE_MAX / 2, 3);
  printf("calloc %p %d\n", none, errno);
  void *block = malloc(10);
  errno = 0;
  none = realloc(block, PTRDIFF_MAX);
  printf("realloc %p %d\n", none, errno);
  errno = EBADMSG;
  free(block);
  printf("free %d\n", errno);
  errno = EBADMSG;
  for (int i = 0; i < 100000; i++) free(malloc(i % 1000)); /* some of them hand a chunk over */
  printf("loop %d\n", errno);
  errno = EBADMSG;
  int code = posix_memalign(&none, 3, 8);
  printf("posix_memalign %d %d\n", code, errno);
}

static void self(void) {
  sigset_t set;
  sigprocmask(SIG_BLOCK, NULL, &set);
  for (int i = 1; i < 65; i++) {
    struct sigaction action;
    if (sigaction(i, NULL, &action) == 0 && action.sa_handler != SIG_DFL) printf("signal %d handled\n", i);
    if (sigismember(&set, i) == 1) printf("signal %d blocked\n", i);
  }
  for (int i = 0; i < RLIM_NLIMITS; i++) {
    struct rlimit limit;
    getrlimit(i, &limit);
    printf("limit %d %llx %llx\n", i, (long long)limit.rlim_cur, (long long)limit.rlim_max);
  }
  DIR *tasks = opendir("/proc/self/task");
  int threads = 0;
  struct dirent *entry;
  while ((entry = readdir(tasks)) != NULL) threads += entry->d_name[0] != '.';
  printf("threads %d\n", threads);
  printf("umask %o\n", umask(0));
  char here[4096];
  printf("same directory %d\n", getcwd(here, sizeof here) && !strcmp(here, getenv("PWD_EXPECTED")));
  int status;
  printf("children %d %d\n", wait(&status), errno);
}

int main(int argc, char **argv) {
  const char *mode = argv[1];
  if (!strcmp(mode, "say")) {
    printf("out\n");
    fprintf(stderr, "err\n");
    return 7;
  }
  if (!strcmp(mode, "signal")) {
    printf("before\n");
    fflush(stdout);
    raise(atoi(argv[2]));
    pause();
  }
  if (!strcmp(mode, "numbers")) numbers();
  if (!strcmp(mode, "descriptors")) descriptors();
  if (!strcmp(mode, "errors")) errors();
  if (!strcmp(mode, "self")) self();
  if (!strcmp(mode, "environment"))
    for (char **variable = environ; *variable; variable++) printf("%s\n", *variable);
  if (!strcmp(mode, "memory")) { /* how much of the address space it gets */
    long blocks = 0;
    while (blocks < atol(argv[2]) && malloc(1 << 20) != NULL) blocks++;
    printf("blocks %ld\n", blocks);
  }
  if (!strcmp(mode, "many")) { /* enough calls to fill files */
    for (long i = 0; i < atol(argv[2]); i++) free(malloc(i % 1000));
    printf("done\n");
  }
  return 0;
}
