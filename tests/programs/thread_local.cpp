// thread_local COUNT: threads whose thread-local objects allocate and free when the thread ends.
#include <cstdlib>
#include <thread>
#include <vector>

struct Late {
  void *kept = nullptr;
  void use() { if (!kept) kept = malloc(5001); }
  ~Late() {
    free(kept);
    free(malloc(5002));
  }
};
static thread_local Late late;

int main(int argc, char **argv) {
  long count = atol(argv[1]);
  for (long i = 0; i < count; i++) std::thread([] { late.use(); }).join();
  late.use(); // destroyed by exit()
  return 0;
}
