// What the runner uses of Android's time.h; see stdlib.h. The layout is that of 64-bit Android.
#pragma once

#define CLOCK_MONOTONIC 1

extern "C" {
struct timespec {
  long tv_sec;
  long tv_nsec;
};
int clock_gettime(int clock, timespec* time);
}
