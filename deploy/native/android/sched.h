// What the runtime uses of Android's sched.h; see stdlib.h.
#pragma once

extern "C" int sched_yield();
