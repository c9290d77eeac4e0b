// The NEON micro-kernels' common body: lanes are output channels, four to a register, with a byte of 8 bits each in
// four bytes. Three instructions for 4 x 32 binary multiply-adds (EOR, CNT, ADD of bytes); bytes are widened before
// they can overflow. Input words are spread over a register once for all channels of the tile.
#pragma once

#include <arm_neon.h>

#include "kernel.h"

namespace bssl {
namespace {

// CNT gives at most 8 a byte: 31 x 8 = 248.
constexpr int kWordsPerByte = 31;

template <int kPixels, int kVectors>
inline void neon_tile(const uint8_t* const* inputs, const int32_t* offsets, int words, const void* weights,
                      int32_t* accum) {
  const uint8_t* weight = static_cast<const uint8_t*>(weights);
  const uint8_t* input[kPixels];
#pragma GCC unroll 4
  for (int p = 0; p < kPixels; ++p) input[p] = inputs[p];
  bool first = true;
  do {
    const int part = words < kWordsPerByte ? words : kWordsPerByte;
    uint8x16_t sums[kPixels][kVectors];
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[p][v] = vdupq_n_u8(0);
    }
    for (int w = 0; w < part; ++w) {
      const ptrdiff_t offset = offsets[w];
      uint8x16_t bits[kPixels];
#pragma GCC unroll 4
      for (int p = 0; p < kPixels; ++p) {
        uint32_t word;
        __builtin_memcpy(&word, input[p] + offset, sizeof(word));
        bits[p] = vreinterpretq_u8_u32(vdupq_n_u32(word));
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const uint8x16_t row = vld1q_u8(weight + 16 * v);
#pragma GCC unroll 4
        for (int p = 0; p < kPixels; ++p) sums[p][v] = vaddq_u8(sums[p][v], vcntq_u8(veorq_u8(bits[p], row)));
      }
      weight += 16 * kVectors;
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        int32_t* out = accum + (p * kVectors + v) * 4;
        const uint16x8_t pairs = vpaddlq_u8(sums[p][v]);
        const int32x4_t counts = vreinterpretq_s32_u32(vpaddlq_u16(pairs));
        vst1q_s32(out, first ? counts : vaddq_s32(vld1q_s32(out), counts));
      }
    }
    first = false;
    offsets += part;
    words -= part;
  } while (words > 0);
}

template <int kPixels, int kVectors>
void neon_run(const uint8_t* const* inputs, int count, const int32_t* offsets, int words, const void* weights,
              int32_t* accum) {
  if (count == kPixels) {
    neon_tile<kPixels, kVectors>(inputs, offsets, words, weights, accum);
    return;
  }
  for (; count > 0; --count) {
    neon_tile<1, kVectors>(inputs++, offsets, words, weights, accum);
    accum += kVectors * 4;
  }
}

}  // namespace
}  // namespace bssl
