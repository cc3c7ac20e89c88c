/* waits [FILE]: allocates, waits until FILE is there, ends with 3. Built statically, too. */
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
  for (int i = 0; i < 100; i++) free(malloc(5001));
  while (argc > 1 && access(argv[1], F_OK) != 0) usleep(5000);
  return 3;
}
