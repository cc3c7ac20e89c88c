/* The initialisation of the default heap, and what options may say. The argument names the case: the default heap is
 * made once a process. */
#include "check.h"

static rmoptions_t fresh(void)
{
  rmoptions_t options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  return options;
}

static void *uses(void *argument)
{
  memory_t *memory;
  (void)argument;
  WORKS(rmalloc(&memory, 100));
  WORKS(rmfree(memory));
  return NULL;
}

static void after_use(void)
{
  rmoptions_t options = fresh();
  elsewhere(uses, NULL);
  ANSWERS(RM_BUSY, rmalloc_init(&options));
  ANSWERS(RM_BUSY, rmalloc_init(NULL));
  uses(NULL);
}

/* The default heap in memory of the program's. */
static void in_given(void)
{
  static char given[512 << 10];
  rmoptions_t options = fresh();
  void *address;
  memory_t *memory;
  options.memory = given;
  options.memory_bytes = sizeof given;
  WORKS(rmalloc_init(&options));
  ANSWERS(RM_BUSY, rmalloc_init(&options));
  WORKS(rmalloc(&memory, 100));
  WORKS(rmlock(memory, &address));
  CHECK((char *)address > given && (char *)address < given + sizeof given);
  WORKS(rmunlock(memory));
  WORKS(rmfree(memory));
  ANSWERS(RM_MEMORY, rmalloc(&memory, 500 << 10));
  elsewhere(uses, NULL);
}

/* A failure leaves the way free for the next attempt. */
static void twice(void)
{
  rmoptions_t options = fresh();
  options.memory = &options;
  options.memory_bytes = 1;
  ANSWERS(RM_HEAP_TOO_SMALL, rmalloc_init(&options));
  WORKS(rmalloc_init(NULL));
  uses(NULL);
}

static void refused(rmoptions_t *options)
{
  rmheap_t *heap = (rmheap_t *)options;
  ANSWERS(RM_ARGUMENT, rmheap_create(&heap, options));
  ANSWERS(RM_ARGUMENT, rmalloc_init(options));
  CHECK(heap == (rmheap_t *)options);
}

static void bad_options(void)
{
  rmoptions_t options = fresh();
  options.size = 0;
  refused(&options);
  options.size = sizeof options - 8;
  refused(&options);
#define REFUSED(field, value) (options = fresh(), options.field = (value), refused(&options))
  REFUSED(memory, &options);
  REFUSED(memory_bytes, 100);
  REFUSED(compaction, 4);
  REFUSED(generation_bits, 17);
  REFUSED(trigger_ppm, 1000001);
  REFUSED(stop_ppm, 900000);
  REFUSED(cpu_share_ppm, 1000001);
  REFUSED(reserve_bytes, (uint64_t)1 << 60);
  REFUSED(reserve_bytes, UINT64_MAX);
  REFUSED(entries, UINT64_MAX);
  REFUSED(limit_bytes, UINT64_MAX);
  options = fresh();
  options.memory = &options;
  options.memory_bytes = 1 << 20;
  options.limit_bytes = 1 << 20;
  refused(&options);
  /* Of a later version: understood as long as it says nothing new. */
  struct {
    rmoptions_t options;
    uint64_t more;
  } later = {fresh(), 0};
  rmheap_t *heap;
  later.options.size = sizeof later;
  WORKS(rmheap_create(&heap, &later.options));
  WORKS(rmheap_destroy(heap));
  later.more = 1;
  refused(&later.options);
}

/* The argument is a file that allows 8 MiB. */
static void with_file(const char *path)
{
  rmoptions_t options = fresh();
  rmheap_t *heap;
  memory_t *memory;
  options.config_path = path;
  WORKS(rmheap_create(&heap, &options));
  ANSWERS(RM_MEMORY, rmheap_alloc(heap, &memory, 16 << 20));
  WORKS(rmheap_alloc(heap, &memory, 4 << 20));
  WORKS(rmheap_destroy(heap));
  /* The options win. */
  options.limit_bytes = 64 << 20;
  WORKS(rmheap_create(&heap, &options));
  WORKS(rmheap_alloc(heap, &memory, 16 << 20));
  WORKS(rmheap_destroy(heap));
}

static void with_bad_file(const char *path)
{
  rmoptions_t options = fresh();
  rmheap_t *heap;
  options.config_path = path;
  ANSWERS(RM_CONFIG, rmheap_create(&heap, &options));
  ANSWERS(RM_CONFIG, rmalloc_init(&options));
  uses(NULL);
}

/* RMALLOC_CONFIG names the file that allows 8 MiB. */
static void with_environment(int allowed)
{
  memory_t *memory;
  ANSWERS(allowed ? RM_OK : RM_MEMORY, rmalloc(&memory, 16 << 20));
  uses(NULL);
}

int main(int count, char **arguments)
{
  const char *name = count > 1 ? arguments[1] : "";
  const char *path = count > 2 ? arguments[2] : "";
  if (!strcmp(name, "after-use"))
    after_use();
  else if (!strcmp(name, "in-given"))
    in_given();
  else if (!strcmp(name, "twice"))
    twice();
  else if (!strcmp(name, "bad-options"))
    bad_options();
  else if (!strcmp(name, "file"))
    with_file(path);
  else if (!strcmp(name, "bad-file"))
    with_bad_file(path);
  else if (!strcmp(name, "limited"))
    with_environment(0);
  else if (!strcmp(name, "unlimited"))
    with_environment(1);
  else
    return 2;
  puts("done");
  return 0;
}
