// What the runner uses of Android's string.h; see stdlib.h.
#pragma once

#include <stddef.h>

extern "C" {
size_t strlen(const char* text);
int strcmp(const char* a, const char* b);
char* strchr(char* text, int letter);
char* strstr(char* text, const char* part);
char* strerror(int number);
}
