// LceBconv2d: a convolution of inputs and weights that are -1 or 1, a bit each.
//
// The output is cut into chunks of rows or, where it is deep and small, into parts of its channels: the unit of work of
// a thread. Those are cut into tiles of a few pixels and up to 64 channels. A chunk's input rows are copied, with their
// padding, to memory of the thread; after that a tap is an offset from its pixel, the same for all of them, so there is
// no im2col, no table of pointers and no border to look out for. A micro-kernel counts one tile's bits into the nearest
// cache, where a program of steps (program.h) turns them into what follows the convolution.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "array.h"
#include "kernels/kernel.h"
#include "tflite_abi.h"

namespace bssl {

enum class Activation { kNone = 0, kRelu = 1, kReluN1To1 = 2, kRelu6 = 3 };

// The kernels to use, of those that the processor can run.
struct KernelChoice {
  Isa isa = Isa::kPortable;
};

// A block of output channels that one micro-kernel does at once. All of them read the same group of input channels.
struct ChannelBlock {
  const MicroKernel* kernel;
  size_t first;           // output channel
  size_t count;           // at most kernel->channels
  size_t group_offset;    // bytes from a pixel's first word to the group's
  size_t weights_offset;  // bytes
};

class Bconv2d {
 public:
  // Reads the op and packs its weights. Null, or what is wrong.
  const char* init(const TfLiteContext* context, const TfLiteNode* node, const KernelChoice& choice);

  // Takes up the input's size, which may have changed, for `threads` threads. Null, or what is wrong.
  const char* prepare(const TfLiteTensor* input, size_t threads);

  struct Tile {
    size_t thread;
    size_t image;
    size_t first_pixel;  // of the image
    size_t pixels;
    const ChannelBlock* block;
    const int32_t* accum;  // [pixel][block->kernel->channels]
    int shift;             // see StepArgs
  };
  using TileWork = void (*)(void* context, const Tile& tile);

  // Independent pieces of work, for any thread.
  size_t tasks() const { return images_ * chunks_ * parts_; }
  void run_task(const void* input, size_t task, size_t thread, TileWork work, void* context);

  // Binary multiply-adds of one invocation.
  size_t work() const;

  TfLiteType output_type() const { return output_type_; }
  size_t images() const { return images_; }
  size_t output_height() const { return output_height_; }
  size_t output_width() const { return output_width_; }
  size_t output_channels() const { return output_channels_; }
  const float* multiplier() const { return multiplier_.data(); }
  const float* bias() const { return bias_.data(); }
  int32_t clamp_min() const { return clamp_min_; }
  int32_t clamp_max() const { return clamp_max_; }
  // For counts, and for counts that were doubled (StepArgs::shift).
  const int32_t* thresholds(int shift) const { return shift ? thresholds_.data() : doubled_thresholds_.data(); }

 private:
  const char* read_attributes(const TfLiteNode* node);
  const char* read_output_transform(const TfLiteContext* context, const TfLiteNode* node, const TfLiteTensor* output);
  const char* pack(const uint32_t* filter, const KernelChoice& choice);
  const char* prepare_correction();
  void correct(const Tile& tile, int32_t* accum) const;
  bool touches_padding(size_t first_pixel, size_t pixels) const;

  // Attributes.
  size_t stride_height_ = 0, stride_width_ = 0, dilation_height_ = 0, dilation_width_ = 0;
  bool same_padding_ = false, pad_with_zero_ = false;
  size_t input_channels_ = 0;
  Activation activation_ = Activation::kNone;
  TfLiteType output_type_ = kTfLiteNoType;

  // From the filter.
  size_t filter_height_ = 0, filter_width_ = 0, output_channels_ = 0, group_words_ = 0, groups_ = 1, input_words_ = 0;
  size_t word_bytes_ = 4;             // of the kernels' layout
  const uint32_t* filter_ = nullptr;  // the model's own, constant
  Array<uint8_t> weights_;
  Array<ChannelBlock> blocks_;
  Array<float> multiplier_, bias_;
  Array<int32_t> thresholds_, doubled_thresholds_;
  int32_t clamp_min_ = 0, clamp_max_ = 0;

  // From the input's size.
  size_t images_ = 0, input_height_ = 0, input_width_ = 0, output_height_ = 0, output_width_ = 0;
  size_t pad_top_ = 0, pad_left_ = 0;
  bool copies_ = true, pads_ = true;
  size_t chunks_ = 0, chunk_rows_ = 0;  // output rows
  size_t parts_ = 1;                    // of the blocks
  size_t row_words_ = 0;                // of a copied, or direct, input row
  size_t chunk_words_ = 0;              // of a thread's copy
  Array<int32_t> offsets_;
  Array<uint8_t> copies_memory_;

  // What zero padding adds: corrections_[row class * column_classes_ + column class][output channel].
  Array<uint32_t> row_class_, column_class_;
  size_t column_classes_ = 0;
  const Steps* steps_ = nullptr;
  // Rows and columns whose taps all lie inside: from the first to before the last.
  size_t inner_top_ = 0, inner_bottom_ = 0, inner_left_ = 0, inner_right_ = 0;
  Array<int32_t> corrections_;
};

}  // namespace bssl
