// The AVX-512 micro-kernels' common body: lanes are output channels, 16 to a register. Three instructions for 16 x 32
// binary multiply-adds: xor with the input word broadcast from memory, VPOPCNTD, add.
#pragma once

#include <immintrin.h>

#include "kernel.h"

namespace bssl {
namespace {

template <int kPixels, int kVectors>
inline void avx512_tile(const uint8_t* const* inputs, const int32_t* offsets, int words, const void* weights,
                        int32_t* accum) {
  __m512i sums[kPixels][kVectors];
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[p][v] = _mm512_setzero_si512();
  }
  const uint8_t* input[kPixels];
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) input[p] = inputs[p];
  const int32_t* weight = static_cast<const int32_t*>(weights);
  for (int w = 0; w < words; ++w) {
    const ptrdiff_t offset = offsets[w];
    __m512i row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) row[v] = _mm512_load_si512(weight + 16 * v);
    weight += 16 * kVectors;
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
      int32_t word;
      __builtin_memcpy(&word, input[p] + offset, sizeof(word));
      const __m512i bits = _mm512_set1_epi32(word);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[p][v] = _mm512_add_epi32(sums[p][v], _mm512_popcnt_epi32(_mm512_xor_si512(bits, row[v])));
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) _mm512_store_si512(accum + (p * kVectors + v) * 16, sums[p][v]);
  }
}

// One body for each count of pixels, as the sums must stay in registers: the full tile, and halves for the last one.
template <int kPixels, int kVectors>
void avx512_run(const uint8_t* const* inputs, int count, const int32_t* offsets, int words, const void* weights,
                int32_t* accum) {
  constexpr int kHalf = kPixels / 2 > 0 ? kPixels / 2 : 1;
  if (count == kPixels) {
    avx512_tile<kPixels, kVectors>(inputs, offsets, words, weights, accum);
    return;
  }
  while (count >= kHalf) {
    avx512_tile<kHalf, kVectors>(inputs, offsets, words, weights, accum);
    inputs += kHalf;
    accum += kHalf * kVectors * 16;
    count -= kHalf;
  }
  for (; count > 0; --count) {
    avx512_tile<1, kVectors>(inputs++, offsets, words, weights, accum);
    accum += kVectors * 16;
  }
}

}  // namespace
}  // namespace bssl
