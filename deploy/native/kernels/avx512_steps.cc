#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

namespace bssl {
namespace {

inline uint32_t sign_word(const float* x) {
  const __m512 zero = _mm512_setzero_ps();
  const uint32_t low = _mm512_cmp_ps_mask(_mm512_loadu_ps(x), zero, _CMP_LT_OQ);
  const uint32_t high = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + 16), zero, _CMP_LT_OQ);
  return low | high << 16;
}

inline uint32_t greater_word(const int32_t* a, const int32_t* b) {
  const uint32_t low = _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(a), _mm512_loadu_si512(b));
  const uint32_t high = _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(a + 16), _mm512_loadu_si512(b + 16));
  return low | high << 16;
}

}  // namespace
}  // namespace bssl

#include "steps_body.h"

namespace bssl {
BSSL_DEFINE_STEPS(kAvx512Steps)
}  // namespace bssl
#endif
