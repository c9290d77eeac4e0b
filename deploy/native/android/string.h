// What the runtime uses of Android's string.h; see stdlib.h.
#pragma once

#include <stddef.h>

extern "C" {
void* memcpy(void* target, const void* source, size_t size);
void* memmove(void* target, const void* source, size_t size);
void* memset(void* target, int value, size_t size);
int memcmp(const void* a, const void* b, size_t size);
const void* memchr(const void* bytes, int value, size_t size);
size_t strlen(const char* text);
int strcmp(const char* a, const char* b);
}
