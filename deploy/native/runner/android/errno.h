// What the runner uses of Android's errno.h; see stdlib.h.
#pragma once

extern "C" int* __errno();
#define errno (*__errno())
