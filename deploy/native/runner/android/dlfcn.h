// What the runner uses of Android's dlfcn.h; see stdlib.h. The numbers are those of 64-bit Android.
#pragma once

#define RTLD_LOCAL 0
#define RTLD_NOW 2

extern "C" {
void* dlopen(const char* file, int flags);
void* dlsym(void* library, const char* name);
char* dlerror();
}
