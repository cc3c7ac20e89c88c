/* phases N DIRECTORY [fork]: known calls in phases that begin with a mark; between them it waits to be told
 * to go on, so that a recording can be stopped and started there. `phases without`: no library is there. */
#include "../../interpose/include/rmtrace.h"
#include "rounds.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEPT = 5 };

static void wait_for(const char *ready, const char *go) {
  close(open(ready, O_CREAT | O_WRONLY, 0600));
  for (int i = 0; i < 60000 && access(go, F_OK) != 0; i++) usleep(1000);
}

int main(int argc, char **argv) {
  if (argc == 2) return rmtrace_mark("nobody hears it") || rmtrace_is_recording();
  long n = atol(argv[1]);
  if (chdir(argv[2])) return 1;
  void *kept[KEPT], *late[3];
  for (int i = 0; i < KEPT; i++) kept[i] = malloc(900);
  if (!rmtrace_is_recording() || !rmtrace_mark("first")) return 2;
  mark_begin();
  rounds(n);

  wait_for("stop.please", "stopped");
  if (rmtrace_is_recording() || !rmtrace_mark("in the pause")) return 3;
  rounds(2 * n);
  for (int i = 0; i < KEPT; i++) free(kept[i]);
  for (int i = 0; i < 3; i++) late[i] = malloc(700);
  pid_t child = argc > 3 ? fork() : -1;
  if (child == 0) {
    wait_for("child", "started");
    rounds(n);
    _exit(5);
  }

  wait_for("start.please", "started");
  if (!rmtrace_is_recording()) return 4;
  if (!rmtrace_mark("a name that is longer than all the bytes that there are for itä")) return 5;
  for (int i = 0; i < KEPT; i++) kept[i] = malloc(900); /* where the first ones were */
  rounds(3 * n);
  mark_end();
  free(late[0]), free(late[1]);
  late[2] = realloc(late[2], 50000);
  if (child > 0) {
    int status;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 5) return 6;
  }
  return 0;
}
