#if defined(__aarch64__)
#include <arm_neon.h>
#include <stdint.h>

namespace bssl {
namespace {

// Masks of 32 comparisons, 32 bits each, as one word. They become bytes of 0 or 255; with bit i kept of byte i mod 8,
// adding neighbours three times leaves a byte for each eight.
inline uint32_t mask_word(const uint32x4_t* masks) {
  static const uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t bits = vld1q_u8(kBits);
  uint8x16_t halves[2];
  for (int h = 0; h < 2; ++h) {
    const uint16x8_t low = vcombine_u16(vmovn_u32(masks[4 * h]), vmovn_u32(masks[4 * h + 1]));
    const uint16x8_t high = vcombine_u16(vmovn_u32(masks[4 * h + 2]), vmovn_u32(masks[4 * h + 3]));
    halves[h] = vandq_u8(vcombine_u8(vmovn_u16(low), vmovn_u16(high)), bits);
  }
  uint8x16_t sum = vpaddq_u8(halves[0], halves[1]);
  sum = vpaddq_u8(sum, sum);
  sum = vpaddq_u8(sum, sum);
  return vgetq_lane_u32(vreinterpretq_u32_u8(sum), 0);
}

inline uint32_t sign_word(const float* x) {
  uint32x4_t masks[8];
  for (int i = 0; i < 8; ++i) masks[i] = vcltzq_f32(vld1q_f32(x + 4 * i));
  return mask_word(masks);
}

inline uint32_t greater_word(const int32_t* a, const int32_t* b) {
  uint32x4_t masks[8];
  for (int i = 0; i < 8; ++i) masks[i] = vcgtq_s32(vld1q_s32(a + 4 * i), vld1q_s32(b + 4 * i));
  return mask_word(masks);
}

}  // namespace
}  // namespace bssl

#include "steps_body.h"

namespace bssl {
BSSL_DEFINE_STEPS(kNeonSteps)
}  // namespace bssl
#endif
