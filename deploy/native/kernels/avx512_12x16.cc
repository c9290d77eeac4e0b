#if defined(__x86_64__)
#include "avx512_tile.h"

namespace bssl {

extern const MicroKernel avx512_12x16;
const MicroKernel avx512_12x16 = {"avx512_12x16", Isa::kAvx512, 12, 16, Layout::kWords, avx512_run<12, 1>};

}  // namespace bssl
#endif
