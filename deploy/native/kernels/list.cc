#include "kernel.h"

namespace bssl {

#define BSSL_MICRO_KERNEL(name) extern const MicroKernel name;
#include "list.inc"
#undef BSSL_MICRO_KERNEL

const MicroKernel* const kMicroKernels[] = {
#define BSSL_MICRO_KERNEL(name) &name,
#include "list.inc"
#undef BSSL_MICRO_KERNEL
};
const size_t kMicroKernelCount = sizeof(kMicroKernels) / sizeof(kMicroKernels[0]);

extern const Steps kPortableSteps;
#if defined(__x86_64__)
extern const Steps kAvx2Steps;
extern const Steps kAvx512Steps;
#elif defined(__aarch64__)
extern const Steps kNeonSteps;
#endif

const Steps& steps_for(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx2: return kAvx2Steps;
    case Isa::kAvx512: return kAvx512Steps;
#elif defined(__aarch64__)
    case Isa::kNeon: return kNeonSteps;
#endif
    default: return kPortableSteps;
  }
}

}  // namespace bssl
