// The two tables that a set of instructions fills: micro-kernels, which count differing bits, and steps, which work on
// what was counted while it is in the nearest cache.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../cpu.h"

namespace bssl {

// How input and weights lie in memory for a kernel. Weights begin with the first 32 input channels of the first tap.
enum class Layout {
  // Input: words of 32 bits, as the model has them. Weights: [word][output channel], 32 bits each.
  kWords,
  // Four bits to a byte, lowest first, so 8 bytes for a word. Input: times 16, which is where a table of 16 bytes
  // begins. Weights: [word][nibble][output channel], an index into such a table.
  kNibbles,
};

constexpr size_t bytes_per_word(Layout layout) { return layout == Layout::kNibbles ? 8 : 4; }

// Widest tile of any micro-kernel.
constexpr size_t kMaxTilePixels = 12;
constexpr size_t kMaxTileChannels = 64;
constexpr size_t kMaxTile = 256;  // pixels x channels

// How long a row must be that steps read for each channel: they work on whole blocks.
constexpr size_t padded_channels(size_t channels) {
  return ((channels + kMaxTileChannels - 1) / kMaxTileChannels + 1) * kMaxTileChannels;
}

// Counts, for `count` output pixels (1 to `pixels`) and `channels` output channels, the bits in which the input differs
// from the weights: accum[p * channels + c] = sum over w < words of popcount(input[p][offsets[w]] ^ weights[w][c]).
// `inputs[p]` is where pixel p's first tap lies, `offsets[w]` counts bytes from there to a word, in the kernel's
// layout. `accum` and `weights` are 64-byte aligned. A kernel may read 64 bytes behind the weights, one offset behind
// the last, and the input there: Array leaves room for the first and a zero for the second.
struct MicroKernel {
  const char* name;
  Isa isa;
  size_t pixels;
  size_t channels;
  Layout layout;
  void (*run)(const uint8_t* const* inputs, int count, const int32_t* offsets, int words, const void* weights,
              int32_t* accum);
};

// What a step reads and writes: a tile of `pixels` x `channels`. Strides count elements from one pixel to the next;
// 0 means that all pixels share one row.
struct StepArgs {
  int pixels;
  int channels;
  // Counts; `shift` is 1 where they are plain counts, and 0 where they were doubled to take up a padding correction.
  const int32_t* accum;
  int accum_stride;
  int shift;
  int32_t clamp_min;
  int32_t clamp_max;
  const float* multiplier;
  const float* bias;
  const int32_t* thresholds;
  // Operands and result. `out` may be `a` or `b`.
  const float* a;
  ptrdiff_t a_stride;
  const float* b;
  ptrdiff_t b_stride;
  float low;
  float high;
  float* out;
  ptrdiff_t out_stride;
  // Bits: pixel p's channel c goes to bit first_bit + c of the words at bits + p * bits_stride. Bits below `first_bit`
  // are kept, those above the last channel's become 0.
  uint32_t* bits;
  ptrdiff_t bits_stride;
  int first_bit;
  int8_t* bytes;
  ptrdiff_t bytes_stride;
};

using Step = void (*)(const StepArgs& args);

// counts[i] = 2 * counts[i] + correction[i]: takes up what padding with zeros changes.
using Correct = void (*)(int32_t* counts, const int32_t* correction, int channels);

// Every member rounds once an operation, in the order that the interpreter's own kernels do, so that a fused step gives
// the same bits as the ops it replaces.
struct Steps {
  Step transform;       // out = clamp(accum << shift) * multiplier + bias
  Step transform_add;   // out = limit(clamp(accum << shift) * multiplier + bias + b)
  Step transform_int8;  // bytes = saturate(round(clamp(accum << shift) * multiplier + bias)), halves away from zero
  Step accum_bits;      // bit = accum > thresholds
  Step add;             // out = limit(a + b)
  Step sub;             // out = limit(a - b)
  Step mul;             // out = limit(a * b)
  Step prelu;           // out = a >= 0 ? a : a * b
  Step limit;           // out = min(max(a, low), high)
  Step sign_bits;       // bit = a < 0
  Correct correct;
};

// The list of micro-kernels, best first within a set of instructions and a width: list.inc.
extern const MicroKernel* const kMicroKernels[];
extern const size_t kMicroKernelCount;

const Steps& steps_for(Isa isa);

}  // namespace bssl
