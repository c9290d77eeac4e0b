#if defined(__aarch64__)
#include "neon_tile.h"

namespace bssl {

extern const MicroKernel neon_4x16;
const MicroKernel neon_4x16 = {"neon_4x16", Isa::kNeon, 4, 16, Layout::kWords, neon_run<4, 4>};

}  // namespace bssl
#endif
