#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

namespace bssl {
namespace {

constexpr int kMaxCores = 64;
constexpr int kMaxZones = 256;

// Prints a list of what a file of each core says.
void print_cores(const char* name, const char* file, bool text) {
  printf("\"%s\":[", name);
  bool first = true;
  for (int core = 0; core < kMaxCores; ++core) {
    char path[96];
    char line[64];
    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/cpufreq/%s", core, file);
    first_line(path, line, sizeof(line));
    if (line[0] == 0) continue;
    if (!first) printf(",");
    first = false;
    if (text) {
      print_text(line);
    } else {
      printf("%ld", strtol(line, nullptr, 10));
    }
  }
  printf("],");
}

}  // namespace

int64_t peak_memory_kib() {
  // Not getrusage, which begins with what the process had that started this one.
  FILE* file = fopen("/proc/self/status", "rb");
  if (file == nullptr) return 0;
  char text[8192];
  const size_t found = fread(text, 1, sizeof(text) - 1, file);
  fclose(file);
  text[found] = 0;
  const char* line = strstr(text, "\nVmHWM:");
  return line == nullptr ? 0 : strtol(line + strlen("\nVmHWM:"), nullptr, 10);
}

void print_state() {
  printf("{");
  print_cores("governors", "scaling_governor", true);
  print_cores("clock_khz", "scaling_cur_freq", false);
  print_cores("clock_max_khz", "cpuinfo_max_freq", false);
  printf("\"sensors\":[");
  bool first = true;
  for (int zone = 0; zone < kMaxZones; ++zone) {
    char path[96];
    char type[64];
    char value[64];
    snprintf(path, sizeof(path), "/sys/class/thermal/thermal_zone%d/type", zone);
    first_line(path, type, sizeof(type));
    snprintf(path, sizeof(path), "/sys/class/thermal/thermal_zone%d/temp", zone);
    first_line(path, value, sizeof(value));
    if (type[0] == 0 || value[0] == 0) continue;
    printf(first ? "[" : ",[");
    first = false;
    print_text(type);
    printf(",%ld]", strtol(value, nullptr, 10));
  }
  printf("]}");
}

}  // namespace bssl
