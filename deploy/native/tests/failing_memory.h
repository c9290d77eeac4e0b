// The library's own allocations, which can be made to fail: all programs here are linked with --wrap=posix_memalign.
#pragma once

#include <limits.h>

#include <stddef.h>

// The most that the calling thread has asked for at once. What is beyond a gigabyte it does not get.
extern thread_local size_t largest_allocation;
// How many more the calling thread may make.
extern thread_local int allocations_left;
