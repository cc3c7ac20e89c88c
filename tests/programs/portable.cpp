// portable N: N rounds of every form of operator new and delete; tests/recording/allocators.rs has
// the table of them.
#include <cstdlib>
#include <cstring>
#include <new>

using std::align_val_t;
using std::nothrow;

template <class T> static T *filled(T *block, std::size_t bytes) {
  if (!block) abort();
  memset((void *)block, 0x5a, bytes);
  return block;
}

static void one_round() {
  void *a = filled(::operator new(100), 100), *b = filled(::operator new[](200), 200);
  void *c = filled(::operator new(300, nothrow), 300), *d = filled(::operator new[](400, nothrow), 400);
  void *e = filled(::operator new(512, align_val_t(64)), 512);
  void *f = filled(::operator new[](640, align_val_t(64)), 640);
  void *g = filled(::operator new(768, align_val_t(128), nothrow), 768);
  void *h = filled(::operator new[](896, align_val_t(128), nothrow), 896);
  void *i = filled(::operator new(900), 900), *j = filled(::operator new[](1000), 1000);
  void *k = filled(::operator new(1088, align_val_t(64)), 1088);
  void *l = filled(::operator new[](1216, align_val_t(64)), 1216);
  ::operator delete(a);
  ::operator delete[](b);
  ::operator delete(c, nothrow);
  ::operator delete[](d, nothrow);
  ::operator delete(e, align_val_t(64));
  ::operator delete[](f, align_val_t(64));
  ::operator delete(g, align_val_t(128), nothrow);
  ::operator delete[](h, align_val_t(128), nothrow);
  ::operator delete(i, 900);
  ::operator delete[](j, 1000);
  ::operator delete(k, 1088, align_val_t(64));
  ::operator delete[](l, 1216, align_val_t(64));
  ::operator delete(nullptr);
}

int main(int argc, char **argv) {
  long n = atol(argv[1]);
  for (long i = 0; i < n; i++) one_round();
  return 0;
}
