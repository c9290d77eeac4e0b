// The tile that nearly all work is done in, its inner loop by hand. Two words a turn; each word's 32 channels in two
// halves of eight independent chains (EOR, CNT, ADD), so that a core that issues in order never waits for a result, and
// the next half's weights and the next word's input are loaded between them. Out of order it keeps both vector pipes of
// a Cortex-A72 busy all the time. Loads are single ones: pairs of 128 bits are slow on in-order cores.
#if defined(__aarch64__)
#include "neon_tile.h"

namespace bssl {
namespace {

// Laid out by hand: a line is an instruction.
// clang-format off
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

// Meanwhile the next word of both pixels goes to registers np and nq: where it lies, `offset` and `add`, then loads
// with addresses that are left alone or moved on by `post`.
#define BSSL_FIRST_HALF(p, q, o1, o2, o3, o4, np, nq, offset, add1, add0, post)                                  \
  BSSL_HALF("18", "19", "20", "21", p, q, "0", "1", "2", "3", "8", "9", "10", "11",                              \
            offset, "ldr q26, [%[weights], #" o1 "]\n",                                                          \
            "ldr q27, [%[weights], #" o2 "]\n", "ldr q28, [%[weights], #" o3 "]\n",                              \
            "ldr q29, [%[weights], #" o4 "]\n", add1, add0,                                                      \
            "ld1r {v" np ".4s}, [%[at0]]" post "\n", "ld1r {v" nq ".4s}, [%[at1]]" post "\n")

#define BSSL_SECOND_HALF(p, q, o1, o2, o3, o4, m5, m6)                                                           \
  BSSL_HALF("26", "27", "28", "29", p, q, "4", "5", "6", "7", "12", "13", "14", "15",                            \
            "ldr q18, [%[weights], #" o1 "]\n", "ldr q19, [%[weights], #" o2 "]\n",                              \
            "ldr q20, [%[weights], #" o3 "]\n", "ldr q21, [%[weights], #" o4 "]\n", m5, m6, "", "", "")

#define BSSL_NEXT_OFFSET(step) "ldr %w[at0], [%[offsets]], #" step "\n"
#define BSSL_ADD1 "add %[at1], %[input1], %[at0]\n"
#define BSSL_ADD0 "add %[at0], %[input0], %[at0]\n"

// Adds the bytes of four registers to 32 sums of 16 bits.
#define BSSL_WIDEN(o0, o1, a, b, c, d)                                                                       \
  "ldp q16, q17, [%[wide], #" o0 "]\n ldp q18, q19, [%[wide], #" o1 "]\n"                                    \
  "uadalp v16.8h, v" a ".16b\n uadalp v17.8h, v" b ".16b\n"                                                  \
  "uadalp v18.8h, v" c ".16b\n uadalp v19.8h, v" d ".16b\n"                                                  \
  "stp q16, q17, [%[wide], #" o0 "]\n stp q18, q19, [%[wide], #" o1 "]\n"

// `step`: bytes from one offset that is read to the next; `offset`, `add1`, `add0`, `post`: how to get from a pair's
// first word to its second.
#define BSSL_COUNT_PAIRS(step, offset, add1, add0, post)                                                        \
  __asm__ volatile(                                                                                             \
      BSSL_NEXT_OFFSET(step)                                                                                    \
      "ldr q18, [%[weights]]\n"                                                                                 \
      "ldr q19, [%[weights], #16]\n"                                                                            \
      BSSL_ADD1 BSSL_ADD0                                                                                       \
      "ld1r {v16.4s}, [%[at0]]" post "\n"                                                                       \
      "ld1r {v17.4s}, [%[at1]]" post "\n"                                                                       \
      "ldr q20, [%[weights], #32]\n"                                                                            \
      "ldr q21, [%[weights], #48]\n"                                                                            \
      "movi v0.16b, #0\n movi v1.16b, #0\n movi v2.16b, #0\n movi v3.16b, #0\n"                                 \
      "movi v4.16b, #0\n movi v5.16b, #0\n movi v6.16b, #0\n movi v7.16b, #0\n"                                 \
      "movi v8.16b, #0\n movi v9.16b, #0\n movi v10.16b, #0\n movi v11.16b, #0\n"                               \
      "movi v12.16b, #0\n movi v13.16b, #0\n movi v14.16b, #0\n movi v15.16b, #0\n"                             \
      "1:\n"                                                                                                    \
      BSSL_FIRST_HALF("16", "17", "64", "80", "96", "112", "30", "31", offset, add1, add0, "")                  \
      BSSL_SECOND_HALF("16", "17", "128", "144", "160", "176", "", "")                                          \
      BSSL_FIRST_HALF("30", "31", "192", "208", "224", "240", "16", "17", BSSL_NEXT_OFFSET(step), BSSL_ADD1,    \
                      BSSL_ADD0, post)                                                                          \
      BSSL_SECOND_HALF("30", "31", "256", "272", "288", "304", "add %[weights], %[weights], #256\n",            \
                       "subs %[pairs], %[pairs], #1\n")                                                         \
      "b.ne 1b\n"                                                                                               \
      BSSL_WIDEN("0", "32", "0", "1", "2", "3") BSSL_WIDEN("64", "96", "4", "5", "6", "7")                      \
      BSSL_WIDEN("128", "160", "8", "9", "10", "11") BSSL_WIDEN("192", "224", "12", "13", "14", "15")           \
      : [at0] "=&r"(at0), [at1] "=&r"(at1), [offsets] "+r"(offsets), [weights] "+r"(weights), [pairs] "+r"(pairs) \
      : [input0] "r"(input0), [input1] "r"(input1), [wide] "r"(wide)                                            \
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", \
        "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", \
        "v29", "v30", "v31")
// clang-format on

// Adds the counts of `pairs` x 2 words, at most 15 pairs, to 16 x 8 sums: pixel 0's, then pixel 1's. Reads one offset
// and the input there, and 64 bytes of weights, beyond what it counts. `adjacent`: a pair's words lie beside each
// other, so that the second needs no offset.
inline void count_pairs(const uint8_t* input0, const uint8_t* input1, const int32_t* offsets, const uint8_t* weights,
                        int64_t pairs, bool adjacent, uint16_t* wide) {
  uint64_t at0, at1;
  if (adjacent) {
    BSSL_COUNT_PAIRS("8", "", "", "", ", #4");
  } else {
    BSSL_COUNT_PAIRS("4", BSSL_NEXT_OFFSET("4"), BSSL_ADD1, BSSL_ADD0, "");
  }
}

bool all_adjacent(const int32_t* offsets, int words) {
  int32_t different = 0;
  for (int w = 0; w + 1 < words; w += 2) different |= (offsets[w + 1] - offsets[w]) ^ 4;
  return different == 0;
}

void count_two(const uint8_t* const* inputs, const int32_t* offsets, int words, bool adjacent, const void* weights,
               int32_t* accum) {
  constexpr int kMostPairs = kWordsPerByte / 2;
  constexpr int kMostWords = 4000;  // 2 bytes of 8 bits for each, so 4,095 fit into 16 bits
  const uint8_t* weight = static_cast<const uint8_t*>(weights);
  bool first = true;
  do {
    alignas(16) uint16_t wide[128] = {};
    int part = words < kMostWords ? words : kMostWords;
    words -= part;
    while (part > 1) {
      const int pairs = part / 2 < kMostPairs ? part / 2 : kMostPairs;
      count_pairs(inputs[0], inputs[1], offsets, weight, pairs, adjacent, wide);
      offsets += 2 * pairs;
      weight += 256 * pairs;
      part -= 2 * pairs;
    }
    if (part == 1) {
      for (int p = 0; p < 2; ++p) {
        uint32_t word;
        __builtin_memcpy(&word, inputs[p] + offsets[0], sizeof(word));
        const uint8x16_t bits = vreinterpretq_u8_u32(vdupq_n_u32(word));
        for (int v = 0; v < 8; ++v) {
          uint16_t* sums = wide + 64 * p + 8 * v;
          vst1q_u16(sums, vpadalq_u8(vld1q_u16(sums), vcntq_u8(veorq_u8(bits, vld1q_u8(weight + 16 * v)))));
        }
      }
    }
    int32x4_t counts[16];
#pragma GCC unroll 16
    for (int v = 0; v < 16; ++v) counts[v] = vreinterpretq_s32_u32(vpaddlq_u16(vld1q_u16(wide + 8 * v)));
    if (!first) {
      for (int v = 0; v < 16; ++v) counts[v] = vaddq_s32(counts[v], vld1q_s32(accum + 4 * v));
    }
#pragma GCC unroll 16
    for (int v = 0; v < 16; ++v) vst1q_s32(accum + 4 * v, counts[v]);
    first = false;
  } while (words > 0);
}

// Two pixels at a time: more sums than theirs do not fit the registers.
void run(const uint8_t* const* inputs, int count, const int32_t* offsets, int words, const void* weights,
         int32_t* accum) {
  const bool adjacent = all_adjacent(offsets, words);
  for (; count > 1; count -= 2, inputs += 2, accum += 64) count_two(inputs, offsets, words, adjacent, weights, accum);
  if (count == 1) neon_tile<1, 8>(inputs, offsets, words, weights, accum);
}

}  // namespace

extern const MicroKernel neon_8x32;
const MicroKernel neon_8x32 = {"neon_8x32", Isa::kNeon, 8, 32, Layout::kWords, run};

}  // namespace bssl
#endif
