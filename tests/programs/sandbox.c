/* sandbox N DIRECTORY early|late: a child that shuts itself into a sandbox like those of the browsers, then
 * makes known calls after it was told to go on. early: it allocates before that, as they do.
 * Its exit status is the number of system calls that the sandbox trapped. */
#include "rounds.h"
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int trapped;
static volatile long last;

static void trap(int signal, siginfo_t *info, void *context) {
  (void)signal;
  trapped++;
  last = info->si_syscall;
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = -ENOSYS;
}

static const unsigned char allowed[] = {
    SYS_read,        SYS_write,       SYS_close,          SYS_fstat,   SYS_lseek,      SYS_mmap,          SYS_mprotect,
    SYS_munmap,      SYS_brk,         SYS_rt_sigprocmask, SYS_access,  SYS_sched_yield, SYS_mremap,       SYS_madvise,
    SYS_nanosleep,   SYS_getpid,      SYS_exit,           SYS_ftruncate, SYS_gettid,   SYS_futex,         SYS_exit_group,
    SYS_clock_gettime, SYS_clock_nanosleep, SYS_rt_sigreturn};

static int shut_in(void) {
  struct sock_filter filter[2 * sizeof allowed + 3];
  int n = 0;
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (size_t i = 0; i < sizeof allowed; i++) {
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
  struct sock_fprog program = {n, filter};
  struct sigaction action = {0};
  action.sa_sigaction = trap;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  if (sigaction(SIGSYS, &action, NULL)) return 0;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 0;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

int main(int argc, char **argv) {
  if (argc != 4 || chdir(argv[2])) return 100;
  long n = atol(argv[1]);
  free(malloc(1)); /* the parent is known */
  pid_t child = fork();
  if (child == 0) {
    if (argv[3][0] == 'e') free(malloc(1));
    int ready = open("ready", O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (!shut_in()) _exit(101);
    /* The sandbox works. */
    if (syscall(SYS_getppid) != -1 || errno != ENOSYS || trapped != 1) _exit(102);
    trapped = 0;
    if (write(ready, "x", 1) != 1) _exit(103);
    for (int i = 0; i < 120000 && access("go", F_OK) != 0; i++) usleep(1000);
    rounds(n);
    if (trapped) dprintf(2, "system call %ld was trapped\n", last);
    _exit(trapped);
  }
  int status;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) fprintf(stderr, "the child ended by signal %d\n", WTERMSIG(status));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}
