#if defined(__x86_64__)
#include "avx512_tile.h"

namespace bssl {

extern const MicroKernel avx512_8x32;
const MicroKernel avx512_8x32 = {"avx512_8x32", Isa::kAvx512, 8, 32, Layout::kWords, avx512_run<8, 2>};

}  // namespace bssl
#endif
