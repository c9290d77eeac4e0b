// What the runtime uses of Android's unistd.h; see stdlib.h.
#pragma once

extern "C" int getpid();
