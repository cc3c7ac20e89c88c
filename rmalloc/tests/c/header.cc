// The header in C++: types, linkage, and a guard that unlocks.
#include <cstdio>
#include <rmalloc.h>

struct Lock {
  memory_t *memory;
  void *address;
  explicit Lock(memory_t *memory) : memory(memory), address(0)
  {
    if (rmlock(memory, &address) != RM_OK)
      address = 0;
  }
  ~Lock()
  {
    if (address)
      rmunlock(memory);
  }
};

int main()
{
  memory_t *memory;
  if (rmalloc(&memory, sizeof(int)) != RM_OK)
    return 1;
  {
    Lock lock(memory);
    *static_cast<int *>(lock.address) = 42;
    if (rmfree(memory) != RM_LOCKED)
      return 2;
  }
  int value = *static_cast<int *>(Lock(memory).address);
  rmoptions_t options = {};
  options.size = sizeof options;
  rmheap_t *heap;
  if (rmheap_create(&heap, &options) != RM_OK || rmheap_destroy(heap) != RM_OK)
    return 3;
  if (value != 42 || rmfree(memory) != RM_OK || rmfree(memory) != RM_HANDLE)
    return 4;
  std::puts("done");
  return 0;
}
