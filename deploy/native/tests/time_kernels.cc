// Times every micro-kernel of list.inc that this processor can run, beside a bound: its own vector instructions on
// registers alone, without loads, offsets or a loop to speak of. One JSON line for each kernel:
//   {"kernel": ..., "gmacs": ..., "bound_gmacs": ..., "share": ...}, in 10^9 binary multiply-adds a second, one thread.
// `share` is the median over rounds of kernel and bound timed one behind the other.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../kernels/kernel.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

using bssl::Isa;
using bssl::MicroKernel;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

#if defined(__x86_64__)
// 12 chains of xor, VPOPCNTD, add: 12 x 512 multiply-adds a turn.
__attribute__((target("avx512f,avx512vpopcntdq"), noinline)) double avx512_bound(long turns) {
  __m512i sums[12], bits = _mm512_set1_epi32(0x12345678), row = _mm512_set1_epi32(0x0f1e2d3c);
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) sums[i] = _mm512_setzero_si512();
  const double begin = now();
  for (long t = 0; t < turns; ++t) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) {
      __m512i x;
      __asm__ volatile("vpxord %2, %1, %0" : "=v"(x) : "v"(bits), "v"(row));
      __asm__ volatile("vpopcntd %0, %0" : "+v"(x));
      __asm__ volatile("vpaddd %1, %0, %0" : "+v"(sums[i]) : "v"(x));
    }
  }
  const double seconds = now() - begin;
  return static_cast<double>(turns) * 12 * 512 / seconds;
}

// 10 chains of VPSHUFB, add of bytes: 10 x 128 multiply-adds a turn.
__attribute__((target("avx2"), noinline)) double avx2_bound(long turns) {
  __m256i sums[10], table = _mm256_set1_epi8(3), row = _mm256_set1_epi8(5);
#pragma GCC unroll 10
  for (int i = 0; i < 10; ++i) sums[i] = _mm256_setzero_si256();
  const double begin = now();
  for (long t = 0; t < turns; ++t) {
#pragma GCC unroll 10
    for (int i = 0; i < 10; ++i) {
      __m256i x;
      __asm__ volatile("vpshufb %2, %1, %0" : "=x"(x) : "x"(table), "x"(row));
      __asm__ volatile("vpaddb %1, %0, %0" : "+x"(sums[i]) : "x"(x));
    }
  }
  const double seconds = now() - begin;
  return static_cast<double>(turns) * 10 * 128 / seconds;
}
#elif defined(__aarch64__)
// 16 chains of EOR, CNT, ADD: 16 x 128 multiply-adds a turn.
__attribute__((noinline)) double neon_bound(long turns) {
  uint8x16_t sums[16], bits = vdupq_n_u8(0x5a), row = vdupq_n_u8(0x3c);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) sums[i] = vdupq_n_u8(0);
  const double begin = now();
  for (long t = 0; t < turns; ++t) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      uint8x16_t x;
      __asm__ volatile("eor %0.16b, %1.16b, %2.16b" : "=w"(x) : "w"(bits), "w"(row));
      __asm__ volatile("cnt %0.16b, %0.16b" : "+w"(x));
      __asm__ volatile("add %0.16b, %0.16b, %1.16b" : "+w"(sums[i]) : "w"(x));
    }
  }
  const double seconds = now() - begin;
  return static_cast<double>(turns) * 16 * 128 / seconds;
}
#endif

double bound(Isa isa, long turns) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return avx512_bound(turns);
  if (isa == Isa::kAvx2) return avx2_bound(turns);
#elif defined(__aarch64__)
  if (isa == Isa::kNeon) return neon_bound(turns);
#endif
  (void)isa;
  (void)turns;
  return 0;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 31;
  constexpr int kWords = 18;  // 3 x 3 taps of 64 channels
  for (size_t i = 0; i < bssl::kMicroKernelCount; ++i) {
    const MicroKernel& kernel = *bssl::kMicroKernels[i];
    if (!bssl::cpu().has(kernel.isa)) continue;
    const size_t bytes = bssl::bytes_per_word(kernel.layout);
    const size_t weight_bytes = kWords * kernel.channels * bytes + 64;
    auto* weights = static_cast<uint8_t*>(std::aligned_alloc(64, (weight_bytes + 63) / 64 * 64));
    std::vector<uint8_t> input(4096);
    std::memset(weights, 0x05, weight_bytes);
    for (size_t k = 0; k < input.size(); ++k) input[k] = static_cast<uint8_t>(k * 37) & (bytes == 8 ? 0xf0 : 0xff);
    int32_t offsets[kWords + 1] = {};
    for (int w = 0; w < kWords; ++w) offsets[w] = static_cast<int32_t>((w / 6 * 64 + w % 6) * static_cast<int>(bytes));
    const uint8_t* inputs[bssl::kMaxTilePixels];
    for (size_t p = 0; p < kernel.pixels; ++p) inputs[p] = input.data() + 2 * p * bytes;
    alignas(64) int32_t accum[bssl::kMaxTile];
    const double macs = static_cast<double>(kernel.pixels * kernel.channels * 32 * kWords);
    const int pixels = static_cast<int>(kernel.pixels);
    const long calls = static_cast<long>(2e9 / macs / (kernel.isa == Isa::kPortable ? 20 : 1));
    std::vector<double> speeds, bounds, shares;
    for (int r = 0; r < rounds; ++r) {
      const double begin = now();
      for (long c = 0; c < calls; ++c) kernel.run(inputs, pixels, offsets, kWords, weights, accum);
      const double speed = macs * static_cast<double>(calls) / (now() - begin);
      const double most = bound(kernel.isa, 200000);
      speeds.push_back(speed);
      if (most > 0) {
        bounds.push_back(most);
        shares.push_back(speed / most);
      }
    }
    std::printf("{\"kernel\": \"%s\", \"gmacs\": %.1f", kernel.name, median(speeds) / 1e9);
    if (!bounds.empty()) std::printf(", \"bound_gmacs\": %.1f, \"share\": %.3f", median(bounds) / 1e9, median(shares));
    std::printf("}\n");
    std::free(weights);
  }
  return 0;
}
