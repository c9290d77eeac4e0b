// What the runner uses of Android's stdio.h; see stdlib.h.
#pragma once

#include <stdarg.h>
#include <stddef.h>

extern "C" {
struct FILE;
FILE* fopen(const char* path, const char* mode);
size_t fread(void* block, size_t size, size_t count, FILE* file);
size_t fwrite(const void* block, size_t size, size_t count, FILE* file);
int fflush(FILE* file);
int fclose(FILE* file);
int printf(const char* format, ...) __attribute__((format(printf, 1, 2)));
int dprintf(int descriptor, const char* format, ...) __attribute__((format(printf, 2, 3)));
int snprintf(char* text, size_t size, const char* format, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char* text, size_t size, const char* format, va_list arguments) __attribute__((format(printf, 3, 0)));
}
