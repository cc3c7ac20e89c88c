/* dynamic LIBRARY TIMES: loads, uses and unloads a library. */
#include "rounds.h"
#include <dlfcn.h>

int main(int argc, char **argv) {
  for (long i = 0; i < atol(argv[2]); i++) {
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) return 1;
    void (*work)(long) = dlsym(library, "plugin_work");
    mark_begin();
    work(10);
    mark_end();
    dlclose(library);
  }
  return 0;
}
