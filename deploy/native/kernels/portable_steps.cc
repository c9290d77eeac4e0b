#include <stdint.h>

namespace bssl {
namespace {

inline uint32_t sign_word(const float* x) {
  uint32_t word = 0;
  for (int c = 0; c < 32; ++c) word |= static_cast<uint32_t>(x[c] < 0.0f) << c;
  return word;
}

inline uint32_t greater_word(const int32_t* a, const int32_t* b) {
  uint32_t word = 0;
  for (int c = 0; c < 32; ++c) word |= static_cast<uint32_t>(a[c] > b[c]) << c;
  return word;
}

}  // namespace
}  // namespace bssl

#include "steps_body.h"

namespace bssl {
BSSL_DEFINE_STEPS(kPortableSteps)
}  // namespace bssl
