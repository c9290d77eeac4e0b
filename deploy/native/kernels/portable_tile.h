// Micro-kernels in plain C++, for processors that have nothing better: bits are counted by adding neighbours, pairs,
// and quadruples, in a form that compilers turn into whatever vectors there are.
#pragma once

#include "kernel.h"

namespace bssl {
namespace {

inline uint32_t count_bits(uint32_t x) {
  x -= x >> 1 & 0x55555555u;
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  x += x >> 8;
  return (x + (x >> 16)) & 0x3fu;
}

template <int kChannels>
void portable_run(const uint8_t* const* inputs, int count, const int32_t* offsets, int words, const void* weights,
                  int32_t* accum) {
  for (int p = 0; p < count; ++p) {
    uint32_t sums[kChannels] = {};
    const uint32_t* weight = static_cast<const uint32_t*>(weights);
    for (int w = 0; w < words; ++w) {
      uint32_t word;
      __builtin_memcpy(&word, inputs[p] + offsets[w], sizeof(word));
      for (int c = 0; c < kChannels; ++c) sums[c] += count_bits(word ^ weight[c]);
      weight += kChannels;
    }
    for (int c = 0; c < kChannels; ++c) accum[p * kChannels + c] = static_cast<int32_t>(sums[c]);
  }
}

}  // namespace
}  // namespace bssl
