/* Marks in the program's own recording.
 *
 * Compile it into any program: without librmtrace.so both functions do nothing, and nothing has to be
 * linked. The symbols are weak and are found when `rmtrace record` or LD_PRELOAD loads the library.
 *
 *     #include <rmtrace.h>
 *     rmtrace_mark("page loaded");
 *
 * Needs GCC or Clang on an ELF system. */
#ifndef RMTRACE_H
#define RMTRACE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Defined by the library, if it is loaded. */
extern int rmtrace_mark(const char *name) __attribute__((weak));
extern int rmtrace_is_recording(void) __attribute__((weak));

#ifdef __cplusplus
}
#endif

/* In code that is not position-independent a compiler takes the address of a weak function from the
 * link, when the library is not there yet. The global offset table is filled at the start. */
#if defined(__x86_64__) && !defined(__PIC__) && !defined(__PIE__)
#define RMTRACE_FIND_(name, pointer) \
  __asm__(".weak " #name "\n\tmovq " #name "@GOTPCREL(%%rip), %0" : "=r"(pointer))
#else
#define RMTRACE_FIND_(name, pointer) ((pointer) = (name))
#endif

/* Sets a mark with this name, of which the first 63 bytes count. 1 if it is in the trace; 0 if nothing
 * records, or there was no room, or a signal handler called it within an allocation function. */
static inline int rmtrace_mark_if_loaded(const char *name)
{
  int (*mark)(const char *);
  RMTRACE_FIND_(rmtrace_mark, mark);
  return mark ? mark(name) : 0;
}

/* Whether calls are being recorded at the moment: loaded, and not paused. */
static inline int rmtrace_is_recording_if_loaded(void)
{
  int (*is_recording)(void);
  RMTRACE_FIND_(rmtrace_is_recording, is_recording);
  return is_recording ? is_recording() : 0;
}

#define rmtrace_mark rmtrace_mark_if_loaded
#define rmtrace_is_recording rmtrace_is_recording_if_loaded

#endif
