// throws N: N exceptions for want of memory, each caught; then N blocks that are there.
// With -DOWN, operator new and delete are functions of the program's own allocator.
#include <cstdio>
#include <cstdlib>
#include <new>

#ifdef OWN
#include "own_allocator.h"
// As an allocator has it: operator new works on the heap itself, it does not call malloc.
extern "C" void *own_take(size_t bytes);
__attribute__((noinline)) void *operator new(size_t bytes) {
  static volatile size_t largest;
  if (bytes > largest) largest = bytes;
  void *block = own_take(bytes);
  if (!block) throw std::bad_alloc();
  return block;
}
#endif

int main(int argc, char **argv) {
  long n = atol(argv[1]), caught = 0;
  volatile size_t absurd = (size_t)1 << 62;
  for (long i = 0; i < n; i++) {
    try {
      ::operator delete(::operator new(absurd));
    } catch (const std::bad_alloc &) {
      caught++;
    }
  }
  for (long i = 0; i < n; i++) ::operator delete(::operator new(7001));
  printf("%ld\n", caught);
  return caught == n ? 0 : 1;
}
