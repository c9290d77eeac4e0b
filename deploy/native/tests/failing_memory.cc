#include "failing_memory.h"

#include <errno.h>

thread_local size_t largest_allocation = 0;
thread_local int allocations_left = INT_MAX;

extern "C" {
int __real_posix_memalign(void** memory, size_t alignment, size_t size);

int __wrap_posix_memalign(void** memory, size_t alignment, size_t size) {
  if (size > largest_allocation) largest_allocation = size;
  if (allocations_left <= 0 || size > size_t{1} << 30) return ENOMEM;
  if (allocations_left != INT_MAX) --allocations_left;
  return __real_posix_memalign(memory, alignment, size);
}
}
