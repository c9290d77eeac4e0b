// Every op in the plainest way, from its definition: what the fast code is compared with.
#include <math.h>
#include <string.h>

#include <algorithm>

#include "attributes.h"
#include "fake_interpreter.h"

namespace fake {
namespace {

int64_t count_of(const Dims& dims) {
  int64_t product = 1;
  for (int size : dims) product *= size;
  return product;
}

struct Value {
  Dims dims;
  Bytes bytes;
  const float* floats() const { return reinterpret_cast<const float*>(bytes.data()); }
};

// The element of a broadcast operand that stands where element `at` of a tensor of `dims` is.
size_t broadcast(const Dims& operand, const Dims& dims, int64_t at) {
  int64_t index = 0, stride = 1;
  for (size_t back = 1; back <= dims.size(); ++back) {
    const int64_t size = dims[dims.size() - back];
    const int64_t position = at % size;
    at /= size;
    if (back > operand.size()) continue;
    const int64_t own = operand[operand.size() - back];
    index += own == 1 ? 0 : position * stride;
    stride *= own;
  }
  return static_cast<size_t>(index);
}

float limited(float value, int activation) {
  if (activation == kActivationRelu) return std::max(value, 0.0f);
  if (activation == kActivationReluN1To1) return std::min(std::max(value, -1.0f), 1.0f);
  if (activation == kActivationRelu6) return std::min(std::max(value, 0.0f), 6.0f);
  return value;
}

float elementwise(int code, float a, float b, int activation) {
  switch (code) {
    case kAdd: return limited(a + b, activation);
    case kSub: return limited(a - b, activation);
    case kMul: return limited(a * b, activation);
    case kPrelu: return a >= 0 ? a : a * b;
    case kRelu: return limited(a, kActivationRelu);
    case kReluN1To1: return limited(a, kActivationReluN1To1);
    default: return limited(a, kActivationRelu6);
  }
}

uint32_t word_at(const Value& value, int64_t row, int words, int word) {
  uint32_t found;
  memcpy(&found, value.bytes.data() + 4 * (row * words + word), 4);
  return found;
}

bool bit_at(const Value& value, int64_t row, int words, int channel) {
  return word_at(value, row, words, channel / 32) >> (channel % 32) & 1;
}

int rounded_to_int8(float value) {
  const double nearest = round(static_cast<double>(value));
  return static_cast<int>(std::min(127.0, std::max(-128.0, nearest)));
}

int attribute(const Interpreter::Node& node, const char* name) {
  int32_t value = 0;
  bssl::Attributes(node.options.data(), node.options.size()).find(name, &value);
  return value;
}

// Positions of a window along one axis, and the padding before the first.
void window(int input, int filter, int stride, int dilation, bool same, int* positions, int* before) {
  const int reach = (filter - 1) * dilation + 1;
  *positions = same ? (input + stride - 1) / stride : (input - reach) / stride + 1;
  *before = same ? std::max(0, (*positions - 1) * stride + reach - input) / 2 : 0;
}

Value convolution(const Interpreter& interpreter, const Interpreter::Node& node, const Value& input,
                  const Value& filter) {
  const int strides[2] = {attribute(node, "stride_height"), attribute(node, "stride_width")};
  const int dilations[2] = {attribute(node, "dilation_height_factor"), attribute(node, "dilation_width_factor")};
  const bool same = attribute(node, "padding") == 0, ones = attribute(node, "pad_values") == 1;
  const int channels_in = attribute(node, "channels_in"), activation = attribute(node, "fused_activation_function");
  const int channels = filter.dims[0], group_words = filter.dims[3], words = input.dims[3];
  const int groups = words / group_words, group_in = channels_in / groups;
  const int height = input.dims[1], width = input.dims[2];
  int rows, columns, top, left;
  window(height, filter.dims[1], strides[0], dilations[0], same, &rows, &top);
  window(width, filter.dims[2], strides[1], dilations[1], same, &columns, &left);
  const TfLiteTensor& output = interpreter.at(node.node.outputs->data[0]);
  const bool bits = output.type == kTfLiteInt32;
  const int out_words = (channels + 31) / 32;
  Value made = {{input.dims[0], rows, columns, bits ? out_words : channels}, {}};
  made.bytes.resize(static_cast<size_t>(count_of(made.dims)) * width_of(output.type));

  const int depth = filter.dims[1] * filter.dims[2] * group_in;
  int low = -depth, high = depth;
  if (activation == kActivationRelu || activation == kActivationRelu6) low = 0;
  if (activation == kActivationRelu6) high = std::min(high, 6);
  if (activation == kActivationReluN1To1) low = std::max(low, -1), high = std::min(high, 1);
  const auto constant = [&](int k) { return interpreter.at(node.node.inputs->data[k]).data; };

  for (int64_t pixel = 0; pixel < int64_t{made.dims[0]} * rows * columns; ++pixel) {
    const int x = static_cast<int>(pixel % columns), y = static_cast<int>(pixel / columns % rows);
    const int64_t image = pixel / columns / rows;
    for (int c = 0; c < channels; ++c) {
      const int group = c / (channels / groups);
      int sum = 0;
      for (int fy = 0; fy < filter.dims[1]; ++fy) {
        for (int fx = 0; fx < filter.dims[2]; ++fx) {
          const int iy = y * strides[0] - top + fy * dilations[0], ix = x * strides[1] - left + fx * dilations[1];
          const bool outside = iy < 0 || ix < 0 || iy >= height || ix >= width;
          if (outside && !ones) continue;
          // The last word's bits beyond the channels are 0 on both sides.
          int differing = 0;
          for (int w = 0; w < group_words; ++w) {
            const uint32_t in =
                outside ? 0 : word_at(input, (image * height + iy) * width + ix, words, group * group_words + w);
            const uint32_t weight =
                word_at(filter, (int64_t{c} * filter.dims[1] + fy) * filter.dims[2] + fx, group_words, w);
            differing += __builtin_popcount(in ^ weight);
          }
          sum += group_in - 2 * differing;
        }
      }
      if (bits) {
        // A bit is -1: where twice the count of differing bits is above twice the threshold.
        const int64_t threshold = static_cast<const int32_t*>(constant(4))[c];
        if (depth - sum > 2 * threshold) {
          uint32_t word;
          uint8_t* place = made.bytes.data() + 4 * (pixel * out_words + c / 32);
          memcpy(&word, place, 4);
          word |= 1u << (c % 32);
          memcpy(place, &word, 4);
        }
        continue;
      }
      const double scale = output.type == kTfLiteInt8 ? static_cast<double>(output.params.scale) : 1.0;
      const double zero_point = output.type == kTfLiteInt8 ? output.params.zero_point : 0.0;
      const double multiplier = static_cast<double>(static_cast<const float*>(constant(2))[c]);
      const double bias = static_cast<double>(static_cast<const float*>(constant(3))[c]);
      const float factor = static_cast<float>(-1 * multiplier / scale);
      const float shift = static_cast<float>((bias + depth * multiplier) / scale + zero_point);
      const float product = static_cast<float>(depth - std::min(high, std::max(low, sum))) * factor;
      const float result = product + shift;
      if (output.type == kTfLiteInt8) {
        made.bytes[static_cast<size_t>(pixel * channels + c)] = static_cast<uint8_t>(rounded_to_int8(result));
      } else {
        memcpy(made.bytes.data() + 4 * (pixel * channels + c), &result, 4);
      }
    }
  }
  return made;
}

Value pooled(const Interpreter::Node& node, const Value& input) {
  const bool same = attribute(node, "padding") == 0;
  const int filter_height = attribute(node, "filter_height"), filter_width = attribute(node, "filter_width");
  const int stride_height = attribute(node, "stride_height"), stride_width = attribute(node, "stride_width");
  int rows, columns, top, left;
  window(input.dims[1], filter_height, stride_height, 1, same, &rows, &top);
  window(input.dims[2], filter_width, stride_width, 1, same, &columns, &left);
  Value made = {{input.dims[0], rows, columns, input.dims[3]}, {}};
  for (int n = 0; n < input.dims[0]; ++n) {
    for (int y = 0; y < rows; ++y) {
      for (int x = 0; x < columns; ++x) {
        for (int w = 0; w < input.dims[3]; ++w) {
          uint32_t all = 0xffffffff;
          for (int iy = y * stride_height - top; iy < y * stride_height - top + filter_height; ++iy) {
            for (int ix = x * stride_width - left; ix < x * stride_width - left + filter_width; ++ix) {
              if (iy < 0 || ix < 0 || iy >= input.dims[1] || ix >= input.dims[2]) continue;
              uint32_t word;
              memcpy(&word,
                     input.bytes.data() +
                         4 * (((int64_t{n} * input.dims[1] + iy) * input.dims[2] + ix) * input.dims[3] + w),
                     4);
              all &= word;
            }
          }
          const auto* bytes = reinterpret_cast<const uint8_t*>(&all);
          made.bytes.insert(made.bytes.end(), bytes, bytes + 4);
        }
      }
    }
  }
  return made;
}

Value quantized(const TfLiteTensor& tensor, const Value& input) {
  const int channels = input.dims.back(), words = (channels + 31) / 32;
  Value made = input;
  made.dims.back() = words;
  made.bytes.assign(static_cast<size_t>(count_of(made.dims)) * 4, 0);
  for (int64_t i = 0; i < count_of(input.dims); ++i) {
    bool negative;
    if (tensor.type == kTfLiteFloat32) {
      negative = input.floats()[i] < 0;
    } else if (tensor.type == kTfLiteBool) {
      negative = input.bytes[static_cast<size_t>(i)] == 0;
    } else {
      negative = static_cast<int8_t>(input.bytes[static_cast<size_t>(i)]) < tensor.params.zero_point;
    }
    const int64_t bit = i / channels * words * 32 + i % channels;
    if (negative) made.bytes[static_cast<size_t>(bit / 8)] |= static_cast<uint8_t>(1 << (bit % 8));
  }
  return made;
}

Value dequantized(const TfLiteTensor& tensor, const Value& input) {
  const int channels = tensor.dims->data[tensor.dims->size - 1], words = input.dims.back();
  Value made = input;
  made.dims.back() = channels;
  made.bytes.clear();
  for (int64_t row = 0; row < count_of(made.dims) / channels; ++row) {
    for (int c = 0; c < channels; ++c) {
      const bool negative = bit_at(input, row, words, c);
      if (tensor.type == kTfLiteFloat32) {
        const float value = negative ? -1.0f : 1.0f;
        const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
        made.bytes.insert(made.bytes.end(), bytes, bytes + 4);
      } else if (tensor.type == kTfLiteBool) {
        made.bytes.push_back(!negative);
      } else {
        const float steps = round((negative ? -1.0f : 1.0f) * (1.0f / tensor.params.scale));
        made.bytes.push_back(
            static_cast<uint8_t>(rounded_to_int8(steps + static_cast<float>(tensor.params.zero_point))));
      }
    }
  }
  return made;
}

}  // namespace

void run_stock(const Interpreter::Node& node, const Dims& a_dims, const float* a, const Dims& b_dims, const float* b,
               const Dims& dims, float* output) {
  for (int64_t i = 0; i < count_of(dims); ++i) {
    output[i] = elementwise(node.registration.builtin_code, a[broadcast(a_dims, dims, i)],
                            b[broadcast(b_dims, dims, i)], node.builtin_data[0]);
  }
}

std::map<int, Bytes> plain_results(const Interpreter& interpreter) {
  std::map<int, Value> values;
  const auto value_of = [&](int index) -> const Value& {
    auto found = values.find(index);
    if (found == values.end()) {
      const TfLiteTensor& tensor = interpreter.at(index);
      const auto* bytes = static_cast<const uint8_t*>(tensor.data);
      found = values.emplace(index, Value{dims_of(tensor), Bytes(bytes, bytes + tensor.bytes)}).first;
    }
    return found->second;
  };
  std::map<int, Bytes> results;
  for (const auto& node : interpreter.model()) {
    const TfLiteIntArray* inputs = node->node.inputs;
    const int out = node->node.outputs->data[0];
    Value made;
    if (node->name == "LceBconv2d") {
      made = convolution(interpreter, *node, value_of(inputs->data[0]), value_of(inputs->data[1]));
    } else if (node->name == "LceBMaxPool2d") {
      made = pooled(*node, value_of(inputs->data[0]));
    } else if (node->name == "LceQuantize") {
      made = quantized(interpreter.at(inputs->data[0]), value_of(inputs->data[0]));
    } else if (node->name == "LceDequantize") {
      made = dequantized(interpreter.at(out), value_of(inputs->data[0]));
    } else {
      // Sizes are those of the values: a tensor inside of a delegate's node is left as it was.
      const Value &a = value_of(inputs->data[0]), &b = value_of(inputs->data[inputs->size - 1]);
      const bool first =
          count_of(a.dims) != count_of(b.dims) ? count_of(a.dims) > count_of(b.dims) : a.dims.size() >= b.dims.size();
      made.dims = first ? a.dims : b.dims;
      made.bytes.resize(static_cast<size_t>(count_of(made.dims)) * 4);
      run_stock(*node, a.dims, a.floats(), b.dims, b.floats(), made.dims, reinterpret_cast<float*>(made.bytes.data()));
    }
    results[out] = made.bytes;
    values[out] = std::move(made);
  }
  return results;
}

}  // namespace fake
