#include "bit_ops.h"

#include <string.h>

#include "geometry.h"
#include "tensors.h"

namespace bssl {
namespace {

constexpr size_t kRowsBytes = 64 * 1024;  // what a task moves

struct Job {
  const void* input;
  void* output;
  size_t rows;
  size_t rows_per_task;
  size_t channels;
  size_t words;
  TfLiteType type;
  int32_t zero_point;
  int8_t zero_bit, one_bit;
};

void quantize_rows(void* context, size_t task, size_t) {
  const Job& job = *static_cast<const Job*>(context);
  const size_t first = task * job.rows_per_task;
  const size_t end = first + job.rows_per_task < job.rows ? first + job.rows_per_task : job.rows;
  const int32_t below = job.type == kTfLiteBool ? 1 : job.zero_point;  // false is -1
  for (size_t row = first; row < end; ++row) {
    const int8_t* in = static_cast<const int8_t*>(job.input) + row * job.channels;
    uint32_t* out = static_cast<uint32_t*>(job.output) + row * job.words;
    for (size_t w = 0; w < job.words; ++w) {
      const int8_t* values = in + 32 * w;
      const size_t left = job.channels - 32 * w;
      const int count = left < 32 ? static_cast<int>(left) : 32;
      uint32_t word = 0;
      for (int c = 0; c < count; ++c) word |= static_cast<uint32_t>(values[c] < below) << c;
      out[w] = word;
    }
  }
}

// Four bits become four floats, by a table that is a cache line for each four of them.
struct alignas(64) FloatTable {
  float values[16][4];
};

constexpr FloatTable make_float_table() {
  FloatTable table{};
  for (int bits = 0; bits < 16; ++bits) {
    for (int i = 0; i < 4; ++i) table.values[bits][i] = bits >> i & 1 ? -1.0f : 1.0f;
  }
  return table;
}

constexpr FloatTable kFloats = make_float_table();

void dequantize_rows(void* context, size_t task, size_t) {
  const Job& job = *static_cast<const Job*>(context);
  const size_t first = task * job.rows_per_task;
  const size_t end = first + job.rows_per_task < job.rows ? first + job.rows_per_task : job.rows;
  for (size_t row = first; row < end; ++row) {
    const uint32_t* in = static_cast<const uint32_t*>(job.input) + row * job.words;
    if (job.type == kTfLiteFloat32) {
      float* out = static_cast<float*>(job.output) + row * job.channels;
      size_t c = 0;
      for (; c + 4 <= job.channels; c += 4) memcpy(out + c, kFloats.values[in[c / 32] >> (c % 32) & 0xf], 16);
      for (; c < job.channels; ++c) out[c] = in[c / 32] >> (c % 32) & 1 ? -1.0f : 1.0f;
    } else {
      int8_t* out = static_cast<int8_t*>(job.output) + row * job.channels;
      for (size_t c = 0; c < job.channels; ++c) out[c] = in[c / 32] >> (c % 32) & 1 ? job.one_bit : job.zero_bit;
    }
  }
}

// Bits do not tell how many channels there were: that is the model's word. The rest is the input's, which may change.
const char* check_sizes(const TfLiteTensor* input, const TfLiteTensor* output) {
  if (rank(input) == 0 || !is_sized(input) || !is_readable(input)) {
    return "LceDequantize: the input has no dimensions, or too large ones";
  }
  if (rank(output) != rank(input) || !is_sized(output)) {
    return "LceDequantize: the output does not have the input's number of dimensions";
  }
  if (last_dimension(input) != words_for(last_dimension(output))) {
    return "LceDequantize: the output's channels do not match the input's words";
  }
  return nullptr;
}

// What LceQuantize or LceDequantize does, cut into tasks of some rows.
Job job_for(const TfLiteTensor* input, const TfLiteTensor* unpacked, void* output, size_t* tasks) {
  Job job = {};
  job.input = input->data;
  job.output = output;
  job.channels = last_dimension(unpacked);
  job.words = words_for(job.channels);
  *tasks = 0;
  if (job.channels == 0) return job;
  job.rows = elements(unpacked) / job.channels;
  job.type = unpacked->type;
  job.zero_point = unpacked->params.zero_point;
  if (job.type == kTfLiteBool) {
    job.zero_bit = 1;
    job.one_bit = 0;
  } else if (job.type == kTfLiteInt8) {
    // One, in steps of the scale, rounded with halves away from zero.
    const float inverse = 1.0f / unpacked->params.scale;
    const int32_t step = inverse > 1000.0f ? 1000
                                           : static_cast<int32_t>(inverse) +
                                                 (inverse - static_cast<float>(static_cast<int32_t>(inverse)) >= 0.5f);
    const int32_t high = job.zero_point + step, low = job.zero_point - step;
    job.zero_bit = static_cast<int8_t>(high > 127 ? 127 : high);
    job.one_bit = static_cast<int8_t>(low < -128 ? -128 : low);
  }
  job.rows_per_task = kRowsBytes / job.channels + 1;
  *tasks = (job.rows + job.rows_per_task - 1) / job.rows_per_task;
  return job;
}

}  // namespace

const char* BitOp::init(TfLiteContext* context, const TfLiteNode* node, LceOp op, const TfLiteIntArray* outputs) {
  op_ = op;
  if (count_of(node->inputs) != 1 || count_of(node->outputs) != 1) return "an Lce op must have 1 input and 1 output";
  input_ = node->inputs->data[0];
  output_ = node->outputs->data[0];
  for (size_t i = 0; i < count_of(outputs); ++i) is_unread_ &= outputs->data[i] != output_;
  const TfLiteTensor* input = tensor_at(context, input_);
  const TfLiteTensor* output = tensor_at(context, output_);
  if (input == nullptr || output == nullptr) return "a tensor of an Lce op is missing";
  if (op == LceOp::kQuantize) {
    if (input->type != kTfLiteInt8 && input->type != kTfLiteBool) {
      return "LceQuantize: the input is neither float32 nor int8 nor bool";
    }
    if (output->type != kTfLiteInt32) return "LceQuantize: the output is not bitpacked (int32)";
  } else if (op == LceOp::kDequantize) {
    if (input->type != kTfLiteInt32) return "LceDequantize: the input is not bitpacked (int32)";
    if (output->type != kTfLiteFloat32 && output->type != kTfLiteInt8 && output->type != kTfLiteBool) {
      return "LceDequantize: the output is neither float32 nor int8 nor bool";
    }
    if (output->type == kTfLiteInt8 && !(output->params.scale > 0.0f)) {
      return "LceDequantize: the int8 output has no scale";
    }
    if (is_constant(input)) return unpack_constant(context);
  } else {
    if (input->type != kTfLiteInt32 || output->type != kTfLiteInt32) {
      return "LceBMaxPool2d: input and output are not bitpacked (int32)";
    }
    const Attributes attributes = attributes_of(node);
    int32_t padding;
    if (!find_size(attributes, "filter_height", &filter_height_) ||
        !find_size(attributes, "filter_width", &filter_width_) ||
        !find_size(attributes, "stride_height", &stride_height_) ||
        !find_size(attributes, "stride_width", &stride_width_) || !attributes.find("padding", &padding)) {
      return "LceBMaxPool2d: an attribute is missing or is not an integer";
    }
    if (filter_height_ == 0 || filter_width_ == 0 || stride_height_ == 0 || stride_width_ == 0) {
      return "LceBMaxPool2d: a filter or stride is out of range";
    }
    if (padding != 0 && padding != 1) return "LceBMaxPool2d: padding is neither SAME (0) nor VALID (1)";
    same_padding_ = padding == 0;
  }
  return nullptr;
}

// Marked as a constant of the model, the output is one to delegates that come after us: they take a layer with binary
// weights as one of their own, and pack its weights once.
const char* BitOp::unpack_constant(TfLiteContext* context) {
  const TfLiteTensor* input = &context->tensors[input_];
  TfLiteTensor* output = &context->tensors[output_];
  if (const char* wrong = check_sizes(input, output)) return wrong;
  for (size_t d = 0; d + 1 < rank(input); ++d) {
    if (input->dims->data[d] != output->dims->data[d]) {
      return "LceDequantize: a constant's output does not have the constant's size";
    }
  }
  const size_t bytes = elements(output) * width_of(output->type);
  if (!constant_.allocate(bytes)) return "out of memory";
  size_t tasks;
  Job job = job_for(input, output, constant_.data(), &tasks);
  for (size_t task = 0; task < tasks; ++task) dequantize_rows(&job, task, 0);
  output->data = constant_.data();
  output->bytes = bytes;
  output->allocation_type = kTfLiteMmapRo;
  is_done_ = true;
  return nullptr;
}

const char* BitOp::prepare(TfLiteContext* context) {
  const TfLiteTensor* input = &context->tensors[input_];
  TfLiteTensor* output = &context->tensors[output_];
  if (rank(input) == 0 || !is_sized(input) || !is_readable(input)) {
    return "an Lce op's input has no dimensions, or too large ones";
  }
  if (op_ == LceOp::kBMaxPool2d) return prepare_pool(context, input, output);
  if (op_ == LceOp::kDequantize) {
    if (const char* wrong = check_sizes(input, output)) return wrong;
    if (is_done_) return nullptr;
  }
  const size_t last = op_ == LceOp::kQuantize ? words_for(last_dimension(input)) : last_dimension(output);
  return resize(context, output, input->dims->data, rank(input), last);
}

const char* BitOp::prepare_pool(TfLiteContext* context, const TfLiteTensor* input, TfLiteTensor* output) {
  if (rank(input) != 4 || elements(input) == 0)
    return "LceBMaxPool2d: the input does not have 4 dimensions, or is empty";
  size_t height, width;
  if (!output_size(dimension(input, 1), filter_height_, stride_height_, 1, same_padding_, &height, &pad_top_) ||
      !output_size(dimension(input, 2), filter_width_, stride_width_, 1, same_padding_, &width, &pad_left_)) {
    return "LceBMaxPool2d: the input is smaller than the filter";
  }
  const size_t size[4] = {dimension(input, 0), height, width, dimension(input, 3)};
  return resize(context, output, size, 4, size[3]);
}

void BitOp::run(TfLiteContext* context, ThreadPool* pool) {
  if (is_done_ || is_unread_) return;
  const TfLiteTensor* input = &context->tensors[input_];
  TfLiteTensor* output = &context->tensors[output_];
  if (op_ == LceOp::kBMaxPool2d) {
    const size_t images = dimension(output, 0), height = dimension(output, 1), width = dimension(output, 2);
    const size_t input_height = dimension(input, 1), input_width = dimension(input, 2), words = dimension(input, 3);
    // Rows and columns count from the padding's edge: the image lies from the padding's size to before these.
    const size_t image_bottom = pad_top_ + input_height, image_right = pad_left_ + input_width;
    uint32_t* to = static_cast<uint32_t*>(output->data);
    for (size_t image = 0; image < images; ++image) {
      const uint32_t* from = static_cast<const uint32_t*>(input->data) + image * input_height * input_width * words;
      for (size_t y = 0; y < height; ++y) {
        for (size_t x = 0; x < width; ++x, to += words) {
          const size_t top = y * stride_height_, left = x * stride_width_;
          const size_t bottom = top + filter_height_ < image_bottom ? top + filter_height_ : image_bottom;
          const size_t right = left + filter_width_ < image_right ? left + filter_width_ : image_right;
          memset(to, 0xff, words * 4);
          // The largest of -1 and 1: a bit stays 1 where all are.
          for (size_t row = top < pad_top_ ? pad_top_ : top; row < bottom; ++row) {
            for (size_t column = left < pad_left_ ? pad_left_ : left; column < right; ++column) {
              const uint32_t* pixel = from + ((row - pad_top_) * input_width + column - pad_left_) * words;
              for (size_t w = 0; w < words; ++w) to[w] &= pixel[w];
            }
          }
        }
      }
    }
    return;
  }
  size_t tasks;
  Job job = job_for(input, op_ == LceOp::kQuantize ? input : output, output->data, &tasks);
  pool->run(tasks, op_ == LceOp::kQuantize ? quantize_rows : dequantize_rows, &job);
}

}  // namespace bssl
