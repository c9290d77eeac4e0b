#if defined(__x86_64__)
#include "avx512_tile.h"

namespace bssl {

extern const MicroKernel avx512_4x64;
const MicroKernel avx512_4x64 = {"avx512_4x64", Isa::kAvx512, 4, 64, Layout::kWords, avx512_run<4, 4>};

}  // namespace bssl
#endif
