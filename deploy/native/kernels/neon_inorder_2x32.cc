#if defined(__aarch64__)
#include "neon_tile.h"

namespace bssl {

extern const MicroKernel neon_inorder_2x32;
const MicroKernel neon_inorder_2x32 = {"neon_inorder_2x32", Isa::kNeon, true, 2, 32, Layout::kWords, neon_run<2, 8>};

}  // namespace bssl
#endif
