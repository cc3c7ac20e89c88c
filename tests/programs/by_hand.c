/* Ten calls whose report is worked out by hand in traces/README.md. */
#include <stdint.h>
#include <stdlib.h>

int main(void) {
  char *volatile a = malloc(100);
  char *volatile b = calloc(3, 8);
  char *volatile c = realloc(NULL, 50);
  a = realloc(a, 200);
  free(b);
  char *volatile d = aligned_alloc(64, 128);
  char *volatile e = malloc(0);
  free(e);
  char *volatile f = malloc(PTRDIFF_MAX);
  free(c);
  return a && d && !f ? 0 : 1;
}
