// The AVX2 micro-kernels' common body: lanes are output channels, 32 bytes to a register. Four input bits pick a table
// of popcount(those bits ^ i) for i in 0 to 15, four weight bits of each channel are the indices of one VPSHUFB: two
// instructions for 32 x 4 binary multiply-adds, where counting bits without VPOPCNT takes four.
#pragma once

#include <immintrin.h>

#include "kernel.h"

namespace bssl {
namespace {

struct alignas(64) NibbleTable {
  uint8_t counts[16][16];
};

constexpr NibbleTable make_nibble_table() {
  NibbleTable table{};
  for (int a = 0; a < 16; ++a) {
    for (int b = 0; b < 16; ++b) {
      const int differing = a ^ b;
      table.counts[a][b] =
          static_cast<uint8_t>((differing & 1) + (differing >> 1 & 1) + (differing >> 2 & 1) + (differing >> 3 & 1));
    }
  }
  return table;
}

constexpr NibbleTable kNibbleTable = make_nibble_table();

// A byte holds the counts of 7 words: 7 x 8 nibbles x 4 bits = 224. 16 bits hold those of 2,047 words.
constexpr int kWordsPerByte = 7;
constexpr int kWordsPerShort = 2044;

template <int kPixels, int kVectors>
inline void avx2_tile(const uint8_t* const* inputs, const int32_t* offsets, int words, const void* weights,
                      int32_t* accum) {
  const uint8_t* weight = static_cast<const uint8_t*>(weights);
  const uint8_t* table = &kNibbleTable.counts[0][0];
  const uint8_t* input[kPixels];
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) input[p] = inputs[p];
  bool first = true;
  do {
    const int part = words < kWordsPerShort ? words : kWordsPerShort;
    __m256i shorts[kPixels][kVectors][2];
    for (int p = 0; p < kPixels; ++p) {
      for (int v = 0; v < kVectors; ++v) shorts[p][v][0] = shorts[p][v][1] = _mm256_setzero_si256();
    }
    for (int begin = 0; begin < part; begin += kWordsPerByte) {
      const int end = begin + kWordsPerByte < part ? begin + kWordsPerByte : part;
      __m256i bytes[kPixels][kVectors];
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) bytes[p][v] = _mm256_setzero_si256();
      }
      for (int w = begin; w < end; ++w) {
        const ptrdiff_t offset = offsets[w];
#pragma GCC unroll 8
        for (int n = 0; n < 8; ++n) {
          __m256i index[kVectors];
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            index[v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(weight) + n * kVectors + v);
          }
#pragma GCC unroll 8
          for (int p = 0; p < kPixels; ++p) {
            const __m128i row = _mm_load_si128(reinterpret_cast<const __m128i*>(table + input[p][offset + n]));
            const __m256i counts = _mm256_broadcastsi128_si256(row);
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; ++v) {
              bytes[p][v] = _mm256_add_epi8(bytes[p][v], _mm256_shuffle_epi8(counts, index[v]));
              // Keeps the order of additions: sums of sums would need more registers than there are.
              __asm__("" : "+x"(bytes[p][v]));
            }
          }
        }
        weight += 8 * 32 * kVectors;
      }
      for (int p = 0; p < kPixels; ++p) {
        for (int v = 0; v < kVectors; ++v) {
          const __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes[p][v]));
          const __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(bytes[p][v], 1));
          shorts[p][v][0] = _mm256_add_epi16(shorts[p][v][0], low);
          shorts[p][v][1] = _mm256_add_epi16(shorts[p][v][1], high);
        }
      }
    }
    for (int p = 0; p < kPixels; ++p) {
      for (int v = 0; v < kVectors; ++v) {
        for (int half = 0; half < 2; ++half) {
          __m256i* out = reinterpret_cast<__m256i*>(accum + (p * kVectors + v) * 32 + 16 * half);
          __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(shorts[p][v][half]));
          __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(shorts[p][v][half], 1));
          if (!first) {
            low = _mm256_add_epi32(low, out[0]);
            high = _mm256_add_epi32(high, out[1]);
          }
          out[0] = low;
          out[1] = high;
        }
      }
    }
    first = false;
    offsets += part;
    words -= part;
  } while (words > 0);
}

template <int kPixels, int kVectors>
void avx2_run(const uint8_t* const* inputs, int count, const int32_t* offsets, int words, const void* weights,
              int32_t* accum) {
  constexpr int kHalf = kPixels / 2;
  if (count == kPixels) {
    avx2_tile<kPixels, kVectors>(inputs, offsets, words, weights, accum);
    return;
  }
  while (count >= kHalf) {
    avx2_tile<kHalf, kVectors>(inputs, offsets, words, weights, accum);
    inputs += kHalf;
    accum += kHalf * kVectors * 32;
    count -= kHalf;
  }
  for (; count > 0; --count) {
    avx2_tile<1, kVectors>(inputs++, offsets, words, weights, accum);
    accum += kVectors * 32;
  }
}

}  // namespace
}  // namespace bssl
