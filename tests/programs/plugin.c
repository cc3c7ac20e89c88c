/* A library that allocates when it is loaded, when it is used, and when it goes. */
#include "rounds.h"

static void *kept;
__attribute__((constructor)) static void load(void) { kept = malloc(6001); }
__attribute__((destructor)) static void unload(void) { free(kept); free(malloc(6002)); }
void plugin_work(long n) { rounds(n); }
