#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>
#endif

namespace bssl {
namespace {

#if defined(__x86_64__)

uint64_t enabled_registers() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

Cpu detect() {
  Cpu found;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const bool os_saves = c & (1u << 27);
  if (!os_saves) return found;
  const uint64_t enabled = enabled_registers();
  const bool ymm = (enabled & 0x6) == 0x6;
  const bool zmm = (enabled & 0xe6) == 0xe6;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  found.avx2 = ymm && (b & (1u << 5));
  const bool f = b & (1u << 16), dq = b & (1u << 17), bw = b & (1u << 30), vl = b & (1u << 31);
  const bool vpopcntdq = c & (1u << 14);
  found.avx512 = zmm && found.avx2 && f && dq && bw && vl && vpopcntdq;
  return found;
}

#elif defined(__aarch64__)

Cpu detect() {
  Cpu found;
  found.neon = true;  // every AArch64 has it
  return found;
}

#else

Cpu detect() { return Cpu(); }

#endif

// Filled when the library is loaded, before any thread can ask.
const Cpu kCpu = detect();

}  // namespace

bool Cpu::has(Isa isa) const {
  switch (isa) {
    case Isa::kPortable: return true;
    case Isa::kAvx2: return avx2;
    case Isa::kAvx512: return avx512;
    case Isa::kNeon: return neon;
  }
  return false;
}

const Cpu& cpu() { return kCpu; }

}  // namespace bssl
