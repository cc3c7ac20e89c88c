/* Tells sizes and offsets as the C compiler sees them. */
#include <rmalloc.h>
#include <stdio.h>

#define SIZE(type) printf(#type " %zu\n", sizeof(type))
#define FIELD(type, field) printf(#type "." #field " %zu %zu\n", offsetof(type, field), sizeof(((type *)0)->field))

int main(void)
{
  SIZE(rmoptions_t);
  FIELD(rmoptions_t, size);
  FIELD(rmoptions_t, memory);
  FIELD(rmoptions_t, memory_bytes);
  FIELD(rmoptions_t, reserve_bytes);
  FIELD(rmoptions_t, limit_bytes);
  FIELD(rmoptions_t, entries);
  FIELD(rmoptions_t, floor_bytes);
  FIELD(rmoptions_t, budget_ns);
  FIELD(rmoptions_t, config_path);
  FIELD(rmoptions_t, generation_bits);
  FIELD(rmoptions_t, compaction);
  FIELD(rmoptions_t, trigger_ppm);
  FIELD(rmoptions_t, stop_ppm);
  FIELD(rmoptions_t, cpu_share_ppm);
  FIELD(rmoptions_t, slack_ppm);
  SIZE(rmcompact_result_t);
  FIELD(rmcompact_result_t, blocks_moved);
  FIELD(rmcompact_result_t, bytes_moved);
  FIELD(rmcompact_result_t, blocks_pinned);
  FIELD(rmcompact_result_t, blocks_abandoned);
  FIELD(rmcompact_result_t, blocks_discarded);
  FIELD(rmcompact_result_t, regions_emptied);
  FIELD(rmcompact_result_t, bytes_released);
  FIELD(rmcompact_result_t, survey_ns);
  FIELD(rmcompact_result_t, move_ns);
  FIELD(rmcompact_result_t, release_ns);
  FIELD(rmcompact_result_t, steps);
  FIELD(rmcompact_result_t, longest_ns);
  FIELD(rmcompact_result_t, finished);
  FIELD(rmcompact_result_t, reserved);
  SIZE(rmstats_t);
  FIELD(rmstats_t, live_blocks);
  FIELD(rmstats_t, live_bytes);
  FIELD(rmstats_t, large_blocks);
  FIELD(rmstats_t, resident_bytes);
  FIELD(rmstats_t, table_bytes);
  FIELD(rmstats_t, dirty_bytes);
  FIELD(rmstats_t, span_bytes);
  FIELD(rmstats_t, entries);
  FIELD(rmstats_t, entries_taken);
  FIELD(rmstats_t, entries_retired);
  FIELD(rmstats_t, threads);
  FIELD(rmstats_t, stranded_slots);
  FIELD(rmstats_t, stranded_bytes);
  FIELD(rmstats_t, compaction);
  for (int status = 0; status <= RM_HEAP + 1; status++)
    printf("status %d %s\n", status, rmerror(status));
  printf("status -1 %s\n", rmerror(-1));
  printf("numbers %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d\n", RM_SIZE, RM_ALIGNMENT, RM_MEMORY, RM_TABLE, RM_HANDLE, RM_LOCKED,
         RM_NOT_LOCKED, RM_LOCKS, RM_ARGUMENT, RM_HEAP_TOO_SMALL, RM_DISCARDED, RM_BUSY, RM_DAMAGED, RM_CONFIG, RM_HEAP);
  return 0;
}
