#include "portable_tile.h"

namespace bssl {

extern const MicroKernel portable_2x32;
const MicroKernel portable_2x32 = {"portable_2x32", Isa::kPortable, 2, 32, Layout::kWords, portable_run<32>};

}  // namespace bssl
