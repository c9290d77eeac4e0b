#include "support.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

namespace bssl {

void fail(Status status, const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  // Names of files and what a library says may have line ends.
  for (char* letter = line; *letter != 0; ++letter) {
    if (static_cast<unsigned char>(*letter) < ' ') *letter = ' ';
  }
  dprintf(2, "bssl_tf_runner: %s\n", line);
  exit(status);
}

int64_t number(const char* text, int64_t low, int64_t high, const char* what) {
  char* end = nullptr;
  const long value = strtol(text, &end, 10);
  if (end == text || *end != 0 || value < low || value > high) {
    fail(kUsage, "%s must be %lld to %lld, not %s", what, static_cast<long long>(low), static_cast<long long>(high),
         text);
  }
  return value;
}

void* allocate(size_t count, size_t size) {
  void* block = calloc(count, size);
  if (block == nullptr) fail(kMemory, "there is no memory for %zu times %zu bytes", count, size);
  return block;
}

uint8_t* read_exactly(const char* path, size_t bytes) {
  FILE* file = fopen(path, "rb");
  if (file == nullptr) fail(kFile, "%s cannot be read (%s)", path, strerror(errno));
  // One more than wanted, to see where there is more.
  uint8_t* content = static_cast<uint8_t*>(allocate(bytes + 1, 1));
  const size_t found = fread(content, 1, bytes + 1, file);
  fclose(file);
  if (found != bytes) fail(kFile, "%s does not have the %zu bytes that the model's input asks for", path, bytes);
  return content;
}

void first_line(const char* path, char* line, size_t size) {
  FILE* file = fopen(path, "rb");
  const size_t found = file == nullptr ? 0 : fread(line, 1, size - 1, file);
  if (file != nullptr) fclose(file);
  line[found] = 0;
  if (char* end = strchr(line, '\n')) *end = 0;
}

void print_text(const char* text) {
  printf("\"");
  for (; *text != 0; ++text) {
    const bool plain = *text >= ' ' && *text <= '~' && *text != '"' && *text != '\\';
    printf("%c", plain ? *text : '?');
  }
  printf("\"");
}

int64_t now() {
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<int64_t>(time.tv_sec) * 1000000000 + time.tv_nsec;
}

}  // namespace bssl
