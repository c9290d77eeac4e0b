// What the runtime uses of Android's stdio.h; see stdlib.h.
#pragma once

#include <stddef.h>

extern "C" {
int snprintf(char* text, size_t size, const char* format, ...) __attribute__((format(printf, 3, 4)));
}
