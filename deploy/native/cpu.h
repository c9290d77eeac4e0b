// What the processor can do, asked of the processor itself.
//
// The compilers' __builtin_cpu_supports is not used: it needs a run-time library that some tool chains replace by one
// that always answers no.
#pragma once

namespace bssl {

enum class Isa { kPortable, kAvx2, kAvx512, kNeon };

struct Cpu {
  bool avx2 = false;
  bool avx512 = false;  // F, BW, DQ, VL and VPOPCNTDQ, and an operating system that saves the registers
  bool neon = false;

  bool has(Isa isa) const;
};

// Asked once; safe from several threads.
const Cpu& cpu();

}  // namespace bssl
