// The least that a test program needs.
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include <string>

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (false)

#define CHECK_EMPTY(text, seed) check_empty((text), static_cast<unsigned long long>(seed), __FILE__, __LINE__)

inline void check_empty(const std::string& text, unsigned long long seed, const char* file, int line) {
  if (text.empty()) return;
  fprintf(stderr, "%s:%d: seed %llu: %s\n", file, line, seed, text.c_str());
  exit(1);
}
