// What the runtime uses of Android's time.h; see stdlib.h. Sizes are those of 64-bit Android.
#pragma once

extern "C" {
struct timespec {
  long tv_sec;
  long tv_nsec;
};

#define CLOCK_MONOTONIC 1

int clock_gettime(int clock, struct timespec* time);
}
