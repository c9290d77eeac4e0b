// The steps, written once as plain loops and compiled anew by each *_steps.cc with the instructions of its name. The
// including file defines two functions in this unnamed namespace: `sign_word`, the signs of 32 floats as a word, and
// `greater_word`, where the first of two rows of 32 integers is the greater one.
#pragma once

#include "kernel.h"

// Nothing that a loop writes is read by a later turn of it, though `out` may be `a` or `b`.
#if defined(__clang__)
#define BSSL_VECTORIZE _Pragma("clang loop vectorize(assume_safety)")
#else
#define BSSL_VECTORIZE _Pragma("GCC ivdep")
#endif

namespace bssl {
namespace {

// Calls body(channels) with a constant where the tile has a usual width, so that its loop is unrolled without a rest.
template <typename Body>
inline __attribute__((always_inline)) void for_width(int channels, const Body& body) {
  if (channels == 64) {
    body(64);
  } else if (channels == 32) {
    body(32);
  } else if (channels == 16) {
    body(16);
  } else {
    body(channels);
  }
}

// Whether the limits are none, as those of most ops: then the two comparisons are left out.
inline bool is_unlimited(const StepArgs& args) {
  return args.low == -__builtin_inff() && args.high == __builtin_inff();
}

// A float is not a number where it differs from itself; comparisons below treat it as the interpreter's kernels do.
inline float limited(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

inline float transformed(int32_t count, const StepArgs& args, int c) {
  int32_t x = count << args.shift;
  x = x < args.clamp_max ? x : args.clamp_max;
  x = x > args.clamp_min ? x : args.clamp_min;
  return static_cast<float>(x) * args.multiplier[c] + args.bias[c];
}

void transform(const StepArgs& args_in) {
  const StepArgs args = args_in;
  for_width(args.channels, [&](int channels) __attribute__((always_inline)) {
    for (int p = 0; p < args.pixels; ++p) {
      const int32_t* accum = args.accum + p * args.accum_stride;
      float* out = args.out + p * args.out_stride;
      BSSL_VECTORIZE
      for (int c = 0; c < channels; ++c) out[c] = transformed(accum[c], args, c);
    }
  });
}

void transform_add(const StepArgs& args_in) {
  const StepArgs args = args_in;
  const bool unlimited = is_unlimited(args);
  for_width(args.channels, [&](int channels) __attribute__((always_inline)) {
    for (int p = 0; p < args.pixels; ++p) {
      const int32_t* accum = args.accum + p * args.accum_stride;
      const float* b = args.b + p * args.b_stride;
      float* out = args.out + p * args.out_stride;
      if (unlimited) {
        BSSL_VECTORIZE
        for (int c = 0; c < channels; ++c) out[c] = transformed(accum[c], args, c) + b[c];
      } else {
        BSSL_VECTORIZE
        for (int c = 0; c < channels; ++c) out[c] = limited(transformed(accum[c], args, c) + b[c], args.low, args.high);
      }
    }
  });
}

void transform_int8(const StepArgs& args_in) {
  const StepArgs args = args_in;
  for (int p = 0; p < args.pixels; ++p) {
    const int32_t* accum = args.accum + p * args.accum_stride;
    int8_t* bytes = args.bytes + p * args.bytes_stride;
    BSSL_VECTORIZE
    for (int c = 0; c < args.channels; ++c) {
      // Limited first: what is far out of range saturates anyway, and need not fit an integer.
      const float y = limited(transformed(accum[c], args, c), -1000.0f, 1000.0f);
      int32_t whole = static_cast<int32_t>(y);
      const float rest = y - static_cast<float>(whole);
      whole += rest >= 0.5f ? 1 : 0;
      whole -= rest <= -0.5f ? 1 : 0;
      whole = whole > 127 ? 127 : whole;
      whole = whole < -128 ? -128 : whole;
      bytes[c] = static_cast<int8_t>(whole);
    }
  }
}

#define BSSL_BINARY_STEP(name, expression)                                                        \
  void name(const StepArgs& args_in) {                                                            \
    const StepArgs args = args_in;                                                                \
    const bool unlimited = is_unlimited(args);                                                    \
    for_width(args.channels, [&](int channels) __attribute__((always_inline)) {                   \
      for (int p = 0; p < args.pixels; ++p) {                                                     \
        const float* a = args.a + p * args.a_stride;                                              \
        const float* b = args.b + p * args.b_stride;                                              \
        float* out = args.out + p * args.out_stride;                                              \
        if (unlimited) {                                                                          \
          BSSL_VECTORIZE                                                                          \
          for (int c = 0; c < channels; ++c) out[c] = (expression);                               \
        } else {                                                                                  \
          BSSL_VECTORIZE                                                                          \
          for (int c = 0; c < channels; ++c) out[c] = limited((expression), args.low, args.high); \
        }                                                                                         \
      }                                                                                           \
    });                                                                                           \
  }

BSSL_BINARY_STEP(add, a[c] + b[c])
BSSL_BINARY_STEP(sub, a[c] - b[c])
BSSL_BINARY_STEP(mul, a[c] * b[c])
BSSL_BINARY_STEP(prelu, a[c] >= 0.0f ? a[c] : a[c] * b[c])  // which has no limits

void limit(const StepArgs& args_in) {
  const StepArgs args = args_in;
  for_width(args.channels, [&](int channels) __attribute__((always_inline)) {
    for (int p = 0; p < args.pixels; ++p) {
      const float* a = args.a + p * args.a_stride;
      float* out = args.out + p * args.out_stride;
      BSSL_VECTORIZE
      for (int c = 0; c < channels; ++c) out[c] = limited(a[c], args.low, args.high);
    }
  });
}

// Puts the low `count` bits of `word` behind the `first` bits that stand in *out; bits that cross go to out[1].
inline void put_bits(uint32_t* out, int first, uint32_t word, int count) {
  if (first == 0) {
    *out = word;
    return;
  }
  *out = (*out & ((1u << first) - 1)) | word << first;
  if (first + count > 32) out[1] = word >> (32 - first);
}

inline uint32_t sign_rest(const float* x, int count) {
  uint32_t word = 0;
  for (int c = 0; c < count; ++c) word |= static_cast<uint32_t>(x[c] < 0.0f) << c;
  return word;
}

void sign_bits(const StepArgs& args) {
  for (int p = 0; p < args.pixels; ++p) {
    const float* a = args.a + p * args.a_stride;
    uint32_t* out = args.bits + p * args.bits_stride;
    int c = 0;
    for (; c + 32 <= args.channels; c += 32) put_bits(out++, args.first_bit, sign_word(a + c), 32);
    const int rest = args.channels - c;
    if (rest > 0) put_bits(out, args.first_bit, sign_rest(a + c, rest), rest);
  }
}

void accum_bits(const StepArgs& args) {
  for (int p = 0; p < args.pixels; ++p) {
    const int32_t* accum = args.accum + p * args.accum_stride;
    uint32_t* out = args.bits + p * args.bits_stride;
    for (int c = 0; c < args.channels; c += 32) {
      const int count = args.channels - c < 32 ? args.channels - c : 32;
      uint32_t word = 0;
      if (count == 32) {
        word = greater_word(accum + c, args.thresholds + c);
      } else {
        for (int i = 0; i < count; ++i) word |= static_cast<uint32_t>(accum[c + i] > args.thresholds[c + i]) << i;
      }
      put_bits(out++, args.first_bit, word, count);
    }
  }
}

void correct(int32_t* counts, const int32_t* correction, int channels) {
  for_width(channels, [&](int width) __attribute__((always_inline)) {
    BSSL_VECTORIZE
    for (int c = 0; c < width; ++c) counts[c] = 2 * counts[c] + correction[c];
  });
}

#define BSSL_DEFINE_STEPS(name)                                                          \
  extern const Steps name;                                                               \
  const Steps name = {transform, transform_add, transform_int8, accum_bits, add,    sub, \
                      mul,       prelu,         limit,          sign_bits,  correct};

}  // namespace
}  // namespace bssl
