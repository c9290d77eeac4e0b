#if defined(__x86_64__)
#include "avx2_tile.h"

namespace bssl {

extern const MicroKernel avx2_4x64;
const MicroKernel avx2_4x64 = {"avx2_4x64", Isa::kAvx2, 4, 64, Layout::kNibbles, avx2_run<4, 2>};

}  // namespace bssl
#endif
