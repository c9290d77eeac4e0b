#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

namespace bssl {
namespace {

inline uint32_t sign_word(const float* x) {
  uint32_t word = 0;
  for (int part = 0; part < 4; ++part) {
    const __m256 below = _mm256_cmp_ps(_mm256_loadu_ps(x + 8 * part), _mm256_setzero_ps(), _CMP_LT_OQ);
    word |= static_cast<uint32_t>(_mm256_movemask_ps(below)) << (8 * part);
  }
  return word;
}

inline uint32_t greater_word(const int32_t* a, const int32_t* b) {
  uint32_t word = 0;
  for (int part = 0; part < 4; ++part) {
    const __m256i left = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + 8 * part));
    const __m256i right = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 8 * part));
    const __m256 above = _mm256_castsi256_ps(_mm256_cmpgt_epi32(left, right));
    word |= static_cast<uint32_t>(_mm256_movemask_ps(above)) << (8 * part);
  }
  return word;
}

}  // namespace
}  // namespace bssl

#include "steps_body.h"

namespace bssl {
BSSL_DEFINE_STEPS(kAvx2Steps)
}  // namespace bssl
#endif
