// The tile that nearly all work is done in, its inner loop by hand. Two words a turn; each word's 32 channels in two
// halves of eight independent chains (EOR, CNT, ADD), so that a core that issues in order never waits for a result, and
// the next half's weights and the next word's input are loaded between them. Out of order it keeps both vector pipes of a
// Cortex-A72 busy all the time. Loads are single ones: pairs of 128 bits are slow on in-order cores.
#if defined(__aarch64__)
#include "neon_tile.h"

namespace bssl {
namespace {

// One half: rows in registers a to d, two pixels' bits in p and q, sums from register s and t on; m1 to m9 are what is
// loaded meanwhile.
#define BSSL_HALF(a, b, c, d, p, q, s0, s1, s2, s3, t0, t1, t2, t3, m1, m2, m3, m4, m5, m6, m7, m8, m9) \
  "eor v22.16b, v" a ".16b, v" p ".16b\n" m1                                                            \
  "eor v23.16b, v" b ".16b, v" p ".16b\n"                                                               \
  "eor v24.16b, v" c ".16b, v" p ".16b\n" m2                                                            \
  "eor v25.16b, v" d ".16b, v" p ".16b\n"                                                               \
  "eor v" a ".16b, v" a ".16b, v" q ".16b\n" m3                                                         \
  "eor v" b ".16b, v" b ".16b, v" q ".16b\n"                                                            \
  "eor v" c ".16b, v" c ".16b, v" q ".16b\n" m4                                                         \
  "eor v" d ".16b, v" d ".16b, v" q ".16b\n"                                                            \
  "cnt v22.16b, v22.16b\n" m5                                                                           \
  "cnt v23.16b, v23.16b\n"                                                                              \
  "cnt v24.16b, v24.16b\n" m6                                                                           \
  "cnt v25.16b, v25.16b\n"                                                                              \
  "cnt v" a ".16b, v" a ".16b\n" m7                                                                     \
  "cnt v" b ".16b, v" b ".16b\n"                                                                        \
  "cnt v" c ".16b, v" c ".16b\n" m8                                                                     \
  "cnt v" d ".16b, v" d ".16b\n"                                                                        \
  "add v" s0 ".16b, v" s0 ".16b, v22.16b\n" m9                                                          \
  "add v" s1 ".16b, v" s1 ".16b, v23.16b\n"                                                             \
  "add v" s2 ".16b, v" s2 ".16b, v24.16b\n"                                                             \
  "add v" s3 ".16b, v" s3 ".16b, v25.16b\n"                                                             \
  "add v" t0 ".16b, v" t0 ".16b, v" a ".16b\n"                                                          \
  "add v" t1 ".16b, v" t1 ".16b, v" b ".16b\n"                                                          \
  "add v" t2 ".16b, v" t2 ".16b, v" c ".16b\n"                                                          \
  "add v" t3 ".16b, v" t3 ".16b, v" d ".16b\n"

#define BSSL_FIRST_HALF(p, q, o1, o2, o3, o4, np, nq)                                                            \
  BSSL_HALF("18", "19", "20", "21", p, q, "0", "1", "2", "3", "8", "9", "10", "11",                              \
            "ldr %w[at0], [%[offsets]], #4\n", "ldr q26, [%[weights], #" o1 "]\n",                               \
            "ldr q27, [%[weights], #" o2 "]\n", "ldr q28, [%[weights], #" o3 "]\n",                              \
            "ldr q29, [%[weights], #" o4 "]\n", "add %[at1], %[input1], %[at0]\n",                               \
            "add %[at0], %[input0], %[at0]\n", "ld1r {v" np ".4s}, [%[at0]]\n", "ld1r {v" nq ".4s}, [%[at1]]\n")

#define BSSL_SECOND_HALF(p, q, o1, o2, o3, o4, m5, m6)                                                           \
  BSSL_HALF("26", "27", "28", "29", p, q, "4", "5", "6", "7", "12", "13", "14", "15",                            \
            "ldr q18, [%[weights], #" o1 "]\n", "ldr q19, [%[weights], #" o2 "]\n",                              \
            "ldr q20, [%[weights], #" o3 "]\n", "ldr q21, [%[weights], #" o4 "]\n", m5, m6, "", "", "")

// Counts of `pairs` x 2 words, at most 15 pairs, into 16 sums of 16 bytes: pixel 0's, then pixel 1's. Reads one offset
// and the input there, and 64 bytes of weights, beyond what it counts.
inline void count_pairs(const uint8_t* input0, const uint8_t* input1, const int32_t* offsets, const uint8_t* weights,
                        int64_t pairs, uint8_t* sums) {
  uint64_t at0, at1;
  __asm__ volatile(
      "ldr %w[at0], [%[offsets]], #4\n"
      "ldr q18, [%[weights]]\n"
      "ldr q19, [%[weights], #16]\n"
      "add %[at1], %[input1], %[at0]\n"
      "add %[at0], %[input0], %[at0]\n"
      "ld1r {v16.4s}, [%[at0]]\n"
      "ld1r {v17.4s}, [%[at1]]\n"
      "ldr q20, [%[weights], #32]\n"
      "ldr q21, [%[weights], #48]\n"
      "movi v0.16b, #0\n movi v1.16b, #0\n movi v2.16b, #0\n movi v3.16b, #0\n"
      "movi v4.16b, #0\n movi v5.16b, #0\n movi v6.16b, #0\n movi v7.16b, #0\n"
      "movi v8.16b, #0\n movi v9.16b, #0\n movi v10.16b, #0\n movi v11.16b, #0\n"
      "movi v12.16b, #0\n movi v13.16b, #0\n movi v14.16b, #0\n movi v15.16b, #0\n"
      "1:\n"
      BSSL_FIRST_HALF("16", "17", "64", "80", "96", "112", "30", "31")
      BSSL_SECOND_HALF("16", "17", "128", "144", "160", "176", "", "")
      BSSL_FIRST_HALF("30", "31", "192", "208", "224", "240", "16", "17")
      BSSL_SECOND_HALF("30", "31", "256", "272", "288", "304", "add %[weights], %[weights], #256\n",
                       "subs %[pairs], %[pairs], #1\n")
      "b.ne 1b\n"
      "stp q0, q1, [%[sums]]\n stp q2, q3, [%[sums], #32]\n stp q4, q5, [%[sums], #64]\n stp q6, q7, [%[sums], #96]\n"
      "stp q8, q9, [%[sums], #128]\n stp q10, q11, [%[sums], #160]\n"
      "stp q12, q13, [%[sums], #192]\n stp q14, q15, [%[sums], #224]\n"
      : [at0] "=&r"(at0), [at1] "=&r"(at1), [offsets] "+r"(offsets), [weights] "+r"(weights), [pairs] "+r"(pairs)
      : [input0] "r"(input0), [input1] "r"(input1), [sums] "r"(sums)
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",
        "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",
        "v31");
}

void count_two(const uint8_t* const* inputs, const int32_t* offsets, int words, const void* weights, int32_t* accum) {
  constexpr int kMostPairs = kWordsPerByte / 2;
  const uint8_t* weight = static_cast<const uint8_t*>(weights);
  uint16x8_t wide[16];
  for (int v = 0; v < 16; ++v) wide[v] = vdupq_n_u16(0);
  bool first = true;
  int held = 0;  // words whose counts `wide` holds: 2 bytes of 8 bits for each, so 4,095 words fit
  const auto flush = [&] {
    for (int v = 0; v < 16; ++v) {
      const int32x4_t counts = vreinterpretq_s32_u32(vpaddlq_u16(wide[v]));
      vst1q_s32(accum + 4 * v, first ? counts : vaddq_s32(vld1q_s32(accum + 4 * v), counts));
      wide[v] = vdupq_n_u16(0);
    }
    first = false;
    held = 0;
  };
  while (words > 1) {
    const int pairs = words / 2 < kMostPairs ? words / 2 : kMostPairs;
    alignas(16) uint8_t sums[256];
    count_pairs(inputs[0], inputs[1], offsets, weight, pairs, sums);
    for (int v = 0; v < 16; ++v) wide[v] = vpadalq_u8(wide[v], vld1q_u8(sums + 16 * v));
    offsets += 2 * pairs;
    weight += 256 * pairs;
    words -= 2 * pairs;
    held += 2 * pairs;
    if (held > 4000) flush();
  }
  if (words == 1) {
    for (int p = 0; p < 2; ++p) {
      uint32_t word;
      __builtin_memcpy(&word, inputs[p] + offsets[0], sizeof(word));
      const uint8x16_t bits = vreinterpretq_u8_u32(vdupq_n_u32(word));
      for (int v = 0; v < 8; ++v) {
        wide[8 * p + v] = vpadalq_u8(wide[8 * p + v], vcntq_u8(veorq_u8(bits, vld1q_u8(weight + 16 * v))));
      }
    }
  }
  flush();
}

// Two pixels at a time: more sums than theirs do not fit the registers.
void run(const uint8_t* const* inputs, int count, const int32_t* offsets, int words, const void* weights,
         int32_t* accum) {
  for (; count > 1; count -= 2, inputs += 2, accum += 64) count_two(inputs, offsets, words, weights, accum);
  if (count == 1) neon_tile<1, 8>(inputs, offsets, words, weights, accum);
}

}  // namespace

extern const MicroKernel neon_8x32;
const MicroKernel neon_8x32 = {"neon_8x32", Isa::kNeon, 8, 32, Layout::kWords, run};

}  // namespace bssl
#endif
