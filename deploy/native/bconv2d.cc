#include "bconv2d.h"

#include "geometry.h"
#include "ops.h"
#include "tensors.h"

namespace bssl {
namespace {

// A chunk's input should stay in the second-level cache beside a block's weights.
constexpr size_t kChunkBytes = 96 * 1024;
// With several threads: chunks for each, so that a thread that was held up does not hold up the rest.
constexpr size_t kChunksPerThread = 4;
constexpr size_t kTileAlignmentInts = 16;
constexpr size_t kMaxTapTable = size_t{1} << 24;  // bytes, of which taps lie outside where

const MicroKernel* kernel_for(const KernelChoice& choice, size_t channels) {
  const MicroKernel* best = nullptr;
  for (size_t i = 0; i < kMicroKernelCount; ++i) {
    const MicroKernel* kernel = kMicroKernels[i];
    if (kernel->isa != choice.isa) continue;
    // The narrowest that holds all channels, else the widest.
    if (best == nullptr) {
      best = kernel;
    } else if (best->channels < channels ? kernel->channels > best->channels
                                         : kernel->channels >= channels && kernel->channels < best->channels) {
      best = kernel;
    }
  }
  return best;
}

// Copies `words` words in the layout that the kernels read.
uint8_t* copy_words(uint8_t* out, const uint32_t* words, size_t count, size_t word_bytes) {
  if (word_bytes == 4) {
    memcpy(out, words, count * 4);
    return out + count * 4;
  }
  for (size_t w = 0; w < count; ++w, out += 8) {
    uint64_t nibbles = words[w];
    nibbles = (nibbles | nibbles << 16) & 0x0000ffff0000ffffu;
    nibbles = (nibbles | nibbles << 8) & 0x00ff00ff00ff00ffu;
    nibbles = (nibbles | nibbles << 4) & 0x0f0f0f0f0f0f0f0fu;
    nibbles <<= 4;
    memcpy(out, &nibbles, 8);
  }
  return out;
}

}  // namespace

const char* Bconv2d::init(const TfLiteContext* context, const TfLiteNode* node, const KernelChoice& choice) {
  if (count_of(node->inputs) != 5 || count_of(node->outputs) != 1) return "LceBconv2d must have 5 inputs and 1 output";
  if (const char* wrong = read_attributes(node)) return wrong;
  const TfLiteTensor* input = tensor_at(context, node->inputs->data[0]);
  const TfLiteTensor* filter = tensor_at(context, node->inputs->data[1]);
  const TfLiteTensor* output = tensor_at(context, node->outputs->data[0]);
  if (input == nullptr || filter == nullptr || output == nullptr) return "a tensor of LceBconv2d is missing";
  if (input->type != kTfLiteInt32) return "LceBconv2d: the input is not bitpacked (int32)";
  if (filter->type != kTfLiteInt32 || rank(filter) != 4) {
    return "LceBconv2d: the filter is not bitpacked with 4 dimensions";
  }
  if (!is_constant(filter) || !is_whole(filter) || elements(filter) == 0) {
    return "LceBconv2d: the filter is not constant";
  }
  output_channels_ = dimension(filter, 0);
  filter_height_ = dimension(filter, 1);
  filter_width_ = dimension(filter, 2);
  group_words_ = dimension(filter, 3);
  input_words_ = words_for(input_channels_);
  if (group_words_ != input_words_) {
    if (input_words_ % group_words_ != 0) return "LceBconv2d: the filter's depth does not divide the input's";
    groups_ = input_words_ / group_words_;
    if (input_channels_ % groups_ != 0 || input_channels_ / groups_ % 32 != 0 || output_channels_ % groups_ != 0) {
      return "LceBconv2d: a group's input channels are not a multiple of 32, or the output channels cannot be divided "
             "equally";
    }
  }
  // Twice a count must fit 32 bits; so must the offsets of taps, which prepare() checks.
  const size_t depth = filter_height_ * filter_width_ * group_words_ * 32;
  if (depth > (size_t{1} << 28)) return "LceBconv2d: the filter is too large";
  if (const char* wrong = read_output_transform(context, node, output)) return wrong;
  filter_ = static_cast<const uint32_t*>(filter->data);
  steps_ = &steps_for(choice.isa);
  return pack(filter_, choice);
}

const char* Bconv2d::read_attributes(const TfLiteNode* node) {
  const Attributes attributes = attributes_of(node);
  int32_t padding, pad_values, activation;
  if (!find_size(attributes, "stride_height", &stride_height_) ||
      !find_size(attributes, "stride_width", &stride_width_) ||
      !find_size(attributes, "dilation_height_factor", &dilation_height_) ||
      !find_size(attributes, "dilation_width_factor", &dilation_width_) || !attributes.find("padding", &padding) ||
      !attributes.find("pad_values", &pad_values) || !find_size(attributes, "channels_in", &input_channels_) ||
      !attributes.find("fused_activation_function", &activation)) {
    return "LceBconv2d: an attribute is missing or is not an integer";
  }
  if (stride_height_ == 0 || stride_width_ == 0 || dilation_height_ == 0 || dilation_width_ == 0) {
    return "LceBconv2d: a stride or dilation is out of range";
  }
  if (padding != 0 && padding != 1) return "LceBconv2d: padding is neither SAME (0) nor VALID (1)";
  if (pad_values != 0 && pad_values != 1) return "LceBconv2d: pad_values is neither 0 nor 1";
  if (input_channels_ == 0) return "LceBconv2d: channels_in is out of range";
  same_padding_ = padding == 0;
  pad_with_zero_ = same_padding_ && pad_values == 0;
  // Other numbers mean no activation: so does LCE read them.
  activation_ = activation >= 1 && activation <= 3 ? static_cast<Activation>(activation) : Activation::kNone;
  return nullptr;
}

const char* Bconv2d::read_output_transform(const TfLiteContext* context, const TfLiteNode* node,
                                           const TfLiteTensor* output) {
  output_type_ = output->type;
  const size_t padded = padded_channels(output_channels_);
  if (output_type_ == kTfLiteInt32) {
    const TfLiteTensor* tensor = tensor_at(context, node->inputs->data[4]);
    const int32_t* thresholds = static_cast<const int32_t*>(constant_vector(tensor, kTfLiteInt32, output_channels_));
    if (thresholds == nullptr) return "LceBconv2d: the thresholds are not a constant integer for each output channel";
    if (!thresholds_.allocate(padded) || !doubled_thresholds_.allocate(padded)) return "out of memory";
    constexpr int32_t limit = 1 << 30;  // no count reaches it
    for (size_t c = 0; c < output_channels_; ++c) {
      thresholds_[c] = thresholds[c];
      const int32_t limited = thresholds[c] > limit - 1 ? limit - 1 : thresholds[c] < -limit ? -limit : thresholds[c];
      doubled_thresholds_[c] = limited * 2;
    }
    return nullptr;
  }
  if (output_type_ != kTfLiteFloat32 && output_type_ != kTfLiteInt8) {
    return "LceBconv2d: the output is neither float32 nor int8 nor bitpacked (int32)";
  }
  const float* multiplier = static_cast<const float*>(
      constant_vector(tensor_at(context, node->inputs->data[2]), kTfLiteFloat32, output_channels_));
  const float* bias = static_cast<const float*>(
      constant_vector(tensor_at(context, node->inputs->data[3]), kTfLiteFloat32, output_channels_));
  if (multiplier == nullptr || bias == nullptr) {
    return "LceBconv2d: multiplier and bias are not a constant float for each output channel";
  }
  double scale = 1.0, zero_point = 0.0;
  if (output_type_ == kTfLiteInt8) {
    if (output->quantization.type != kTfLiteAffineQuantization || !(output->params.scale > 0.0f)) {
      return "LceBconv2d: the int8 output has no scale";
    }
    scale = static_cast<double>(output->params.scale);
    zero_point = output->params.zero_point;
  }
  if (!multiplier_.allocate(padded) || !bias_.allocate(padded)) return "out of memory";
  const int32_t depth = static_cast<int32_t>(filter_height_ * filter_width_ * (input_channels_ / groups_));
  // In double, as LCE does: then both round to the same floats.
  for (size_t c = 0; c < output_channels_; ++c) {
    const double post_multiplier = static_cast<double>(multiplier[c]);
    const double post_bias = static_cast<double>(bias[c]);
    multiplier_[c] = static_cast<float>(-1 * post_multiplier / scale);
    bias_[c] = static_cast<float>((post_bias + static_cast<double>(depth) * post_multiplier) / scale + zero_point);
  }
  int32_t low = -depth, high = depth;
  if (activation_ == Activation::kRelu || activation_ == Activation::kRelu6) low = 0;
  if (activation_ == Activation::kRelu6 && high > 6) high = 6;
  if (activation_ == Activation::kReluN1To1) {
    low = low < -1 ? -1 : low;
    high = high > 1 ? 1 : high;
  }
  clamp_min_ = depth - high;
  clamp_max_ = depth - low;
  return nullptr;
}

const char* Bconv2d::pack(const uint32_t* filter, const KernelChoice& choice) {
  const size_t group_channels = output_channels_ / groups_;
  const size_t words = filter_height_ * filter_width_ * group_words_;
  size_t blocks = 0;
  size_t bytes = 0;
  // Twice: to count, then to fill.
  for (int filling = 0; filling < 2; ++filling) {
    if (filling) {
      if (!blocks_.allocate(blocks) || !weights_.allocate(bytes)) return "out of memory";
      blocks = 0;
      bytes = 0;
    }
    for (size_t group = 0; group < groups_; ++group) {
      for (size_t done = 0; done < group_channels;) {
        const size_t left = group_channels - done;
        // Blocks but the last are whole words of output bits: 48 channels are 32 and 16, not 64.
        const MicroKernel* kernel = kernel_for(choice, left > 32 && left <= 48 ? 32 : left);
        if (kernel == nullptr) return "there is no micro-kernel for this processor";
        const size_t width = kernel->channels;
        const size_t count = left < width ? left : width;
        if (filling) {
          word_bytes_ = bytes_per_word(kernel->layout);  // one set of instructions has one layout
          ChannelBlock& block = blocks_[blocks];
          block.kernel = kernel;
          block.first = group * group_channels + done;
          block.count = count;
          block.group_offset = group * group_words_ * word_bytes_;
          block.weights_offset = bytes;
          uint8_t* packed = weights_.data() + bytes;
          for (size_t c = 0; c < count; ++c) {
            const uint32_t* row = filter + (block.first + c) * words;
            for (size_t w = 0; w < words; ++w) {
              if (kernel->layout == Layout::kWords) {
                memcpy(packed + (w * width + c) * 4, &row[w], 4);
              } else {
                for (size_t n = 0; n < 8; ++n) packed[(w * 8 + n) * width + c] = row[w] >> (4 * n) & 0xf;
              }
            }
          }
        }
        ++blocks;
        bytes += words * width * bytes_per_word(kernel->layout);
        bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
        done += count;
      }
    }
  }
  return nullptr;
}

const char* Bconv2d::prepare(const TfLiteTensor* input, size_t threads) {
  if (rank(input) != 4 || elements(input) == 0 || !is_readable(input)) {
    return "LceBconv2d: the input does not have 4 dimensions, or is empty";
  }
  if (dimension(input, 3) != input_words_)
    return "LceBconv2d: the input's depth is not that of channels_in bitpacked channels";
  images_ = dimension(input, 0);
  input_height_ = dimension(input, 1);
  input_width_ = dimension(input, 2);
  if (!output_size(input_height_, filter_height_, stride_height_, dilation_height_, same_padding_, &output_height_,
                   &pad_top_) ||
      !output_size(input_width_, filter_width_, stride_width_, dilation_width_, same_padding_, &output_width_,
                   &pad_left_)) {
    return "LceBconv2d: the input is smaller than the filter, or far smaller than the dilated filter";
  }
  const size_t outputs = images_ * output_height_ * output_width_ * output_channels_;
  if (outputs > kMaxElements) return "LceBconv2d: the output is too large";

  const size_t reach_height = (filter_height_ - 1) * dilation_height_ + 1;
  const size_t reach_width = (filter_width_ - 1) * dilation_width_ + 1;
  const size_t rows_needed = (output_height_ - 1) * stride_height_ + reach_height;
  const size_t width_needed = (output_width_ - 1) * stride_width_ + reach_width;
  copies_ = word_bytes_ != 4 || rows_needed > input_height_ || width_needed > input_width_;
  pads_ = rows_needed > input_height_ || width_needed > input_width_;
  // A thread's copy: 64 MB of words. A padded image beyond that is not an image, and offsets fit 32 bits. By division,
  // as products of what a model may say overflow 64 bits.
  constexpr size_t kMaxWords = size_t{1} << 24;
  const size_t row_pixels = copies_ ? width_needed : input_width_;
  if (row_pixels > kMaxWords / input_words_) return "LceBconv2d: the input is too large";
  row_words_ = row_pixels * input_words_;
  if (reach_height + stride_height_ > kMaxWords / row_words_) return "LceBconv2d: the input is too large";

  // Chunks: small enough for the cache and, with several threads, enough of them.
  size_t rows = output_height_;
  if (copies_) {
    const size_t input_rows = kChunkBytes / word_bytes_ / row_words_;
    const size_t fitting = input_rows < reach_height ? 1 : (input_rows - reach_height) / stride_height_ + 1;
    if (rows > fitting) rows = fitting;
  }
  parts_ = 1;
  bool whole_words = true;  // else threads would write to one word
  for (size_t b = 0; b < blocks_.size(); ++b) whole_words &= blocks_[b].first % 32 == 0;
  const size_t most = threads * kChunksPerThread;
  if (threads > 1 && whole_words && blocks_.size() >= 2 * threads) {
    parts_ = blocks_.size() < most ? blocks_.size() : most;
  } else if (threads > 1) {
    const size_t shared = (output_height_ + most - 1) / most;
    if (rows > shared) rows = shared;
  }
  chunk_rows_ = rows;
  chunks_ = (output_height_ + chunk_rows_ - 1) / chunk_rows_;
  chunk_words_ = 0;
  if (copies_) {
    chunk_words_ = ((rows - 1) * stride_height_ + reach_height) * row_words_;
    chunk_words_ = (chunk_words_ + kTileAlignmentInts - 1) / kTileAlignmentInts * kTileAlignmentInts;
    if (!copies_memory_.allocate(chunk_words_ * threads * word_bytes_)) {
      return "out of memory";
    }
  }

  const size_t words = filter_height_ * filter_width_ * group_words_;
  if (!offsets_.allocate(words)) return "out of memory";
  size_t i = 0;
  for (size_t y = 0; y < filter_height_; ++y) {
    for (size_t x = 0; x < filter_width_; ++x) {
      const size_t tap = y * dilation_height_ * row_words_ + x * dilation_width_ * input_words_;
      for (size_t w = 0; w < group_words_; ++w) offsets_[i++] = static_cast<int32_t>((tap + w) * word_bytes_);
    }
  }
  return pad_with_zero_ && pads_ ? prepare_correction() : nullptr;
}

// Zero padding. The padded bits are 0, which stands for 1, so a tap outside of the input has added its weights' sum,
// channels - 2 * popcount(weights). Each output row sees some of the filter's rows outside, each column some of its
// columns; few such cases differ, and each has its correction for each channel, in units of half a count.
const char* Bconv2d::prepare_correction() {
  Array<uint32_t>* classes[2] = {&row_class_, &column_class_};
  Array<uint8_t> outside[2];  // [class][tap]
  size_t counts[2] = {0, 0};
  for (int axis = 0; axis < 2; ++axis) {
    const size_t taps = axis == 0 ? filter_height_ : filter_width_;
    const size_t stride = axis == 0 ? stride_height_ : stride_width_;
    const size_t dilation = axis == 0 ? dilation_height_ : dilation_width_;
    const size_t padding = axis == 0 ? pad_top_ : pad_left_;
    const size_t size = axis == 0 ? input_height_ : input_width_;
    const size_t outputs = axis == 0 ? output_height_ : output_width_;
    // Positions with a tap outside differ at most as often as there are taps before and after, and there is the
    // middle.
    size_t most = 2 * taps + 2;
    if (most > outputs) most = outputs;
    if (most + 1 > kMaxTapTable / taps) return "LceBconv2d: the padding is too large";
    if (!classes[axis]->allocate(outputs) || !outside[axis].allocate((most + 1) * taps)) {
      return "out of memory";
    }
    for (size_t o = 0; o < outputs; ++o) {
      uint8_t* row = outside[axis].data() + counts[axis] * taps;
      for (size_t t = 0; t < taps; ++t) {
        const size_t at = o * stride + t * dilation;  // from the padding's edge
        row[t] = at < padding || at - padding >= size;
      }
      size_t found = 0;
      while (found < counts[axis] && memcmp(outside[axis].data() + found * taps, row, taps) != 0) ++found;
      if (found == counts[axis]) {
        if (found >= most) return "LceBconv2d: the padding is too large";
        ++counts[axis];
      }
      (*classes[axis])[o] = static_cast<uint32_t>(found);
    }
    size_t first = 0, end = outputs;
    const auto inside = [&](size_t o) {
      return memchr(outside[axis].data() + (*classes[axis])[o] * taps, 1, taps) == nullptr;
    };
    while (first < end && !inside(first)) ++first;
    while (end > first && !inside(end - 1)) --end;
    (axis == 0 ? inner_top_ : inner_left_) = first;
    (axis == 0 ? inner_bottom_ : inner_right_) = end;
  }
  column_classes_ = counts[1];
  const size_t channels = output_channels_;
  const size_t size = counts[0] * counts[1] * channels;
  const size_t taps = filter_height_ * filter_width_;
  // A bound for hostile models: a 7 x 7 filter with 1,024 channels needs a hundredth of it.
  if (size > (size_t{1} << 24) || size * taps > (size_t{1} << 30)) {
    return "LceBconv2d: the padding is too large";
  }
  Array<int32_t> sums;  // [channel][tap]: sum of the weights
  if (!corrections_.allocate(size) || !sums.allocate(channels * taps)) return "out of memory";
  const uint32_t* word = filter_;
  const int32_t group_channels = static_cast<int32_t>(input_channels_ / groups_);
  for (size_t i = 0; i < channels * taps; ++i) {
    int32_t ones = 0;
    for (size_t w = 0; w < group_words_; ++w) ones += __builtin_popcount(*word++);
    sums[i] = group_channels - 2 * ones;
  }
  for (size_t row = 0; row < counts[0]; ++row) {
    for (size_t column = 0; column < counts[1]; ++column) {
      int32_t* out = corrections_.data() + (row * counts[1] + column) * channels;
      for (size_t c = 0; c < channels; ++c) {
        int32_t sum = 0;
        for (size_t y = 0; y < filter_height_; ++y) {
          for (size_t x = 0; x < filter_width_; ++x) {
            if (outside[0][row * filter_height_ + y] || outside[1][column * filter_width_ + x]) {
              sum += sums[c * taps + y * filter_width_ + x];
            }
          }
        }
        // The sum was added to depth - 2 * count; taking it away adds it to 2 * count.
        out[c] = sum;
      }
    }
  }
  return nullptr;
}

size_t Bconv2d::work() const {
  return images_ * output_height_ * output_width_ * output_channels_ * offsets_.size() * 32;
}

void Bconv2d::correct(const Tile& tile, int32_t* accum) const {
  const ChannelBlock& block = *tile.block;
  size_t row = tile.first_pixel / output_width_, column = tile.first_pixel % output_width_;
  for (size_t p = 0; p < tile.pixels; ++p, accum += block.kernel->channels) {
    const size_t pixel_class = row_class_[row] * column_classes_ + column_class_[column];
    const int32_t* correction = corrections_.data() + pixel_class * output_channels_ + block.first;
    steps_->correct(accum, correction, static_cast<int>(block.count));
    if (++column == output_width_) {
      column = 0;
      ++row;
    }
  }
}

// A tile of more than one row touches it as well: its right end lies beyond the last column.
bool Bconv2d::touches_padding(size_t first_pixel, size_t pixels) const {
  const size_t row = first_pixel / output_width_, left = first_pixel % output_width_, right = left + pixels - 1;
  return row < inner_top_ || row >= inner_bottom_ || left < inner_left_ || right >= inner_right_;
}

void Bconv2d::run_task(const void* input, size_t task, size_t thread, TileWork work, void* context) {
  const size_t part = task % parts_;
  task /= parts_;
  const size_t image = task / chunks_;
  const size_t first_row = task % chunks_ * chunk_rows_;
  const size_t end_row = first_row + chunk_rows_ < output_height_ ? first_row + chunk_rows_ : output_height_;
  const size_t image_words = input_height_ * input_width_ * input_words_;
  const uint32_t* source = static_cast<const uint32_t*>(input) + image * image_words;
  const size_t first_input_row = first_row * stride_height_;  // from the padding's edge
  const uint8_t* rows;
  if (copies_) {
    uint8_t* copy = copies_memory_.data() + thread * chunk_words_ * word_bytes_;
    const size_t count = (end_row - first_row - 1) * stride_height_ + (filter_height_ - 1) * dilation_height_ + 1;
    const size_t before = pad_left_ * input_words_;
    size_t middle = input_width_ * input_words_;
    const size_t source_words = middle;
    if (before + middle > row_words_) middle = row_words_ - before;
    const size_t after = row_words_ - before - middle;
    const size_t bytes = word_bytes_;
    uint8_t* out = copy;
    uint8_t* row_end = copy;
    for (size_t y = first_input_row; y < first_input_row + count; ++y, out = row_end) {
      row_end = out + row_words_ * bytes;
      if (y < pad_top_ || y - pad_top_ >= input_height_) {
        memset(out, 0, row_words_ * bytes);
        continue;
      }
      memset(out, 0, before * bytes);
      out = copy_words(out + before * bytes, source + (y - pad_top_) * source_words, middle, word_bytes_);
      memset(out, 0, after * bytes);
    }
    rows = copy;
  } else {
    // Nothing is padded.
    rows = reinterpret_cast<const uint8_t*>(source + first_input_row * row_words_);
  }

  const bool correcting = pad_with_zero_ && pads_;
  const int words = static_cast<int>(offsets_.size());
  const size_t step = stride_width_ * input_words_ * word_bytes_;
  const size_t row_step = row_words_ * stride_height_ * word_bytes_;
  alignas(kAlignment) int32_t accum[kMaxTile];
  const uint8_t* inputs[kMaxTilePixels];
  for (size_t b = blocks_.size() * part / parts_; b < blocks_.size() * (part + 1) / parts_; ++b) {
    const ChannelBlock& block = blocks_[b];
    const MicroKernel& kernel = *block.kernel;
    const uint8_t* weights = weights_.data() + block.weights_offset;
    const uint8_t* row_start = rows + block.group_offset;
    const uint8_t* at = row_start;
    size_t column = 0;
    Tile tile;
    tile.thread = thread;
    tile.image = image;
    tile.block = &block;
    tile.accum = accum;
    const size_t end = end_row * output_width_;
    for (size_t pixel = first_row * output_width_; pixel < end; pixel += kernel.pixels) {
      const size_t count = end - pixel < kernel.pixels ? end - pixel : kernel.pixels;
      for (size_t p = 0; p < count; ++p) {
        inputs[p] = at;
        at += step;
        if (++column == output_width_) {
          column = 0;
          row_start += row_step;
          at = row_start;
        }
      }
      kernel.run(inputs, static_cast<int>(count), offsets_.data(), words, weights, accum);
      tile.first_pixel = pixel;
      tile.pixels = count;
      const bool corrected = correcting && touches_padding(pixel, count);
      if (corrected) correct(tile, accum);
      tile.shift = corrected ? 0 : 1;
      work(context, tile);
    }
  }
}

}  // namespace bssl
