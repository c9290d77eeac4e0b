#include "portable_tile.h"

namespace bssl {

extern const MicroKernel portable_2x16;
const MicroKernel portable_2x16 = {"portable_2x16", Isa::kPortable, 2, 16, Layout::kWords, portable_run<16>};

}  // namespace bssl
