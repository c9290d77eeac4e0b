#if defined(__x86_64__)
#include "avx2_tile.h"

namespace bssl {

extern const MicroKernel avx2_8x32;
const MicroKernel avx2_8x32 = {"avx2_8x32", Isa::kAvx2, 8, 32, Layout::kNibbles, avx2_run<8, 1>};

}  // namespace bssl
#endif
