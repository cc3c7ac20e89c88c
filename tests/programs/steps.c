/* steps N DIRECTORY: known calls, a wait until the file `go` is there, known calls again. */
#include "rounds.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void touch(const char *name) { close(open(name, O_CREAT | O_WRONLY, 0600)); }
static void caught(int signal) { _exit(42); }

int main(int argc, char **argv) {
  long n = atol(argv[1]);
  if (chdir(argv[2])) return 1;
  if (argc > 3 && !strcmp(argv[3], "catch")) signal(SIGINT, caught);
  if (argc > 3 && !strcmp(argv[3], "ignore")) signal(SIGINT, SIG_IGN);
  mark_begin();
  rounds(n);
  touch("ready");
  for (int i = 0; i < 60000 && access("go", F_OK) != 0; i++) usleep(1000);
  rounds(n);
  mark_end();
  touch("done");
  return 0;
}
