// What the runtime uses of Android's stdlib.h. Android's headers come in no package, so these declare the few functions
// anew; `build.py` lists all that may be imported and checks the library against its list.
#pragma once

#include <stddef.h>

extern "C" {
void* malloc(size_t size);
void* calloc(size_t count, size_t size);
int posix_memalign(void** block, size_t alignment, size_t size);
void free(void* block);
long strtol(const char* text, char** end, int base);
}
