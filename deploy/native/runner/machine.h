// What the machine says of itself while it works; what it does not tell is left out.
#pragma once

#include <stdint.h>

namespace bssl {

// The most memory in KiB that was resident in this process so far; 0 where the system does not say.
int64_t peak_memory_kib();

// A JSON object on stdout: `governors`, a name for each core; `clock_khz` and `clock_max_khz`, a number for each core;
// `sensors`, pairs of a thermal zone's type and its temperature in thousandths of a degree.
void print_state();

}  // namespace bssl
