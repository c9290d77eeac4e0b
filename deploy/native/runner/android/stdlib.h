// What the runner uses of Android's stdlib.h. These headers are the runner's own, beside those of the library, which
// may not ask for as much; see ../../android/stdlib.h.
#pragma once

#include <stddef.h>

extern "C" {
void* calloc(size_t count, size_t size);
void free(void* block);
long strtol(const char* text, char** end, int base);
[[noreturn]] void exit(int status);
}
