#include "random_model.h"

#include <limits.h>
#include <math.h>

#include <algorithm>
#include <set>

namespace fake {
namespace {

class Builder {
 public:
  explicit Builder(Choices& choices) : choices_(choices) {
    model_.interpreter = std::make_unique<Interpreter>(choices.among({-1, 1, 2, 4}));
  }

  Model build() {
    images_ = 1 + choices_.below(3);
    const int channels = choices_.among({1, 3, 31, 32, 33, 40, 64, 65, 96, 128, 160});
    const Dims dims = {images_, 1 + choices_.below(9), 1 + choices_.below(9), channels};
    const int type = choices_.among({kTfLiteFloat32, kTfLiteFloat32, kTfLiteFloat32, kTfLiteInt8, kTfLiteBool});
    const int input = given(type, dims);
    if (type == kTfLiteFloat32) floats_.push_back(input);
    quantize(input);
    for (int op = 0, ops = 1 + choices_.below(14); op < ops; ++op) {
      switch (choices_.below(10)) {
        case 0:
        case 1:
        case 2: convolution(); break;
        case 3: pool(); break;
        case 4: dequantize(); break;
        case 5: quantize(pick(floats_)); break;
        default: elementwise();
      }
    }
    // What nobody reads, but for some of it, and now and then what somebody reads too.
    Dims outputs;
    for (int tensor : made_) {
      if (choices_.below(6) == 0 ? read_.count(tensor) != 0 : read_.count(tensor) == 0) outputs.push_back(tensor);
    }
    at().graph_outputs(outputs);
    return std::move(model_);
  }

 private:
  struct Bits {
    int tensor;
    int channels;
  };

  Interpreter& at() { return *model_.interpreter; }
  Dims dims_of(int tensor) {
    return Dims(at().at(tensor).dims->data, at().at(tensor).dims->data + at().at(tensor).dims->size);
  }
  int pick(const std::vector<int>& values) {
    return values.empty()
               ? -1
               : values[values.size() - 1 -
                        static_cast<size_t>(choices_.below(static_cast<int>(std::min<size_t>(values.size(), 4))))];
  }

  int given(int type, const Dims& dims) {
    const bool scaled = type == kTfLiteInt8;
    const int tensor = at().tensor(type, dims, scaled ? 0.25f : 0.0f, scaled ? choices_.among({0, -3, 127, -128}) : 0);
    model_.inputs.push_back(tensor);
    return tensor;
  }

  void made(int tensor, const Dims& inputs) {
    made_.push_back(tensor);
    read_.insert(inputs.begin(), inputs.end());
  }

  int floats(const Dims& dims) {
    std::vector<float> values;
    int64_t count = 1;
    for (int size : dims) count *= size;
    for (int64_t i = 0; i < count; ++i) values.push_back(choices_.number());
    return at().constant(kTfLiteFloat32, dims, values.data(), values.size() * 4);
  }

  void quantize(int input) {
    if (input < 0) return;
    Dims dims = dims_of(input);
    const int channels = dims.back();
    dims.back() = (channels + 31) / 32;
    const int out = at().tensor(kTfLiteInt32, dims);
    at().custom("LceQuantize", {}, {input}, {out});
    made(out, {input});
    if (dims.size() == 4) bits_.push_back({out, channels});
  }

  void convolution() {
    if (bits_.empty()) return;
    const Bits input = bits_[bits_.size() - 1 -
                             static_cast<size_t>(choices_.below(static_cast<int>(std::min<size_t>(bits_.size(), 3))))];
    const Dims dims = dims_of(input.tensor);
    const int words = dims[3];
    int groups = 1;
    if (input.channels % 32 == 0 && choices_.below(4) == 0) groups = words % 2 == 0 ? 2 : words;
    const int channels = groups * choices_.among({1, 8, 16, 17, 32, 33, 40, 48, 64, 65, 128});
    const int filter[2] = {choices_.among({1, 3, 3, 2, 5}), choices_.among({1, 3, 3, 2, 5})};
    const int stride[2] = {choices_.among({1, 1, 2, 3}), choices_.among({1, 1, 2, 3})};
    const int dilation[2] = {choices_.among({1, 1, 1, 2}), choices_.among({1, 1, 1, 3})};
    const int reach[2] = {(filter[0] - 1) * dilation[0] + 1, (filter[1] - 1) * dilation[1] + 1};
    const bool valid = choices_.below(3) == 0 && reach[0] <= dims[1] && reach[1] <= dims[2];
    const int type = choices_.among({kTfLiteFloat32, kTfLiteFloat32, kTfLiteFloat32, kTfLiteInt32, kTfLiteInt8});
    Dims size = {dims[0], 0, 0, type == kTfLiteInt32 ? (channels + 31) / 32 : channels};
    for (int axis = 0; axis < 2; ++axis) {
      const int input_size = dims[static_cast<size_t>(axis) + 1];
      size[static_cast<size_t>(axis) + 1] =
          valid ? (input_size - reach[axis]) / stride[axis] + 1 : (input_size + stride[axis] - 1) / stride[axis];
    }
    std::vector<uint32_t> weights;
    for (int i = 0; i < channels * filter[0] * filter[1] * words / groups; ++i) {
      uint32_t word = static_cast<uint32_t>(choices_.any_int());
      // Bits beyond the channels are 0, as the converter leaves them.
      const int used = input.channels - 32 * (i % (words / groups));
      if (groups == 1 && used < 32) word &= (1u << used) - 1;
      weights.push_back(word);
    }
    const int kernel = at().constant(kTfLiteInt32, {channels, filter[0], filter[1], words / groups}, weights.data(),
                                     weights.size() * 4);
    Dims inputs = {input.tensor, kernel, -1, -1, -1};
    if (type == kTfLiteInt32) {
      std::vector<int32_t> thresholds;
      const int depth = filter[0] * filter[1] * input.channels / groups;
      for (int c = 0; c < channels; ++c) {
        thresholds.push_back(choices_.below(8) == 0 ? choices_.among({INT_MIN, INT_MAX, -1, 0})
                                                    : depth / 2 + choices_.below(9) - 4);
      }
      inputs[4] = at().constant(kTfLiteInt32, {channels}, thresholds.data(), thresholds.size() * 4);
    } else {
      inputs[2] = floats({channels});
      inputs[3] = floats({channels});
    }
    const int out = at().tensor(type, size, type == kTfLiteInt8 ? 0.5f : 0.0f,
                                type == kTfLiteInt8 ? choices_.among({0, 5, -128}) : 0);
    at().custom("LceBconv2d",
                options_of({{"channels_in", input.channels},
                            {"stride_height", stride[0]},
                            {"stride_width", stride[1]},
                            {"dilation_height_factor", dilation[0]},
                            {"dilation_width_factor", dilation[1]},
                            {"padding", valid},
                            {"pad_values", valid ? 0 : choices_.below(2)},
                            {"fused_activation_function", type == kTfLiteInt32 ? 0 : choices_.among({0, 0, 1, 2, 3})}},
                           choices_.below(2) ? 4 : 8),
                inputs, {out});
    made(out, inputs);
    if (type == kTfLiteInt32) bits_.push_back({out, channels});
    if (type == kTfLiteFloat32) floats_.push_back(out);
    if (type == kTfLiteInt8 && choices_.below(2)) quantize(out);
  }

  void pool() {
    if (bits_.empty()) return;
    const Bits input = bits_.back();
    const Dims dims = dims_of(input.tensor);
    const int filter[2] = {1 + choices_.below(3), 1 + choices_.below(3)},
              stride[2] = {1 + choices_.below(3), 1 + choices_.below(3)};
    const bool valid = choices_.below(2) && filter[0] <= dims[1] && filter[1] <= dims[2];
    Dims size = dims;
    for (size_t axis = 0; axis < 2; ++axis) {
      size[axis + 1] = valid ? (dims[axis + 1] - filter[axis]) / stride[axis] + 1
                             : (dims[axis + 1] + stride[axis] - 1) / stride[axis];
    }
    const int out = at().tensor(kTfLiteInt32, size);
    at().custom("LceBMaxPool2d",
                options_of({{"filter_height", filter[0]},
                            {"filter_width", filter[1]},
                            {"stride_height", stride[0]},
                            {"stride_width", stride[1]},
                            {"padding", valid}}),
                {input.tensor}, {out});
    made(out, {input.tensor});
    bits_.push_back({out, input.channels});
  }

  void dequantize() {
    if (bits_.empty()) return;
    const Bits input = bits_.back();
    Dims dims = dims_of(input.tensor);
    dims.back() = input.channels;
    const int type = choices_.among({kTfLiteFloat32, kTfLiteFloat32, kTfLiteInt8, kTfLiteBool});
    const int out =
        at().tensor(type, dims, type == kTfLiteInt8 ? 0.01f * static_cast<float>(1 + choices_.below(200)) : 0.0f,
                    type == kTfLiteInt8 ? choices_.among({0, 7, -100}) : 0);
    at().custom("LceDequantize", {}, {input.tensor}, {out});
    made(out, {input.tensor});
    if (type == kTfLiteFloat32) floats_.push_back(out);
  }

  void elementwise() {
    const int a = pick(floats_);
    if (a < 0) return;
    const Dims dims = dims_of(a);
    const int code = choices_.among({kAdd, kAdd, kAdd, kSub, kMul, kPrelu, kRelu, kRelu6, kReluN1To1});
    Dims inputs = {a};
    if (code == kPrelu) inputs.push_back(floats({1, 1, dims.back()}));
    if (code == kAdd || code == kSub || code == kMul) {
      int b = -1;
      switch (choices_.below(5)) {
        case 0: b = floats({dims.back()}); break;
        case 1: b = floats({}); break;
        case 2: b = given(kTfLiteFloat32, {dims[0], 1, 1, dims.back()}); break;
        case 3: b = choices_.below(3) == 0 ? floats(dims) : choices_.below(2) ? given(kTfLiteFloat32, dims) : a; break;
        default:
          for (int other : floats_) b = dims_of(other) == dims && (b < 0 || choices_.below(2)) ? other : b;
      }
      if (choices_.below(4) == 0 && dims_of(b) != dims) std::swap(inputs[0], b);
      inputs.push_back(b);
    }
    const int out = at().tensor(kTfLiteFloat32, dims);
    at().builtin(code, inputs, {out},
                 code == kAdd || code == kSub || code == kMul ? choices_.among({0, 0, 0, 1, 2, 3}) : 0);
    made(out, inputs);
    floats_.push_back(out);
    if (choices_.below(3) == 0) quantize(out);
  }

  Choices& choices_;
  Model model_;
  int images_ = 1;
  std::vector<int> floats_, made_;
  std::vector<Bits> bits_;
  std::set<int> read_;
};

int wild_size(Choices& choices) {
  switch (choices.below(12)) {
    case 0: return choices.among({0, -1, INT_MAX, INT_MIN, 1 << 24, 1 << 20, 65536});
    case 1: return choices.any_int();
    default: return 1 + choices.below(9);
  }
}

Dims wild_dims(Choices& choices) {
  Dims dims;
  for (int d = 0, ranks = choices.among({4, 4, 4, 4, 1, 0, 2, 3, 5, 9}); d < ranks; ++d) {
    dims.push_back(wild_size(choices));
  }
  return dims;
}

Bytes wild_options(Choices& choices) {
  static const char* const kNames[] = {
      "channels_in",           "stride_height", "stride_width", "dilation_height_factor",
      "dilation_width_factor", "padding",       "pad_values",   "fused_activation_function",
      "filter_height",         "filter_width",  "colour",
  };
  if (choices.below(4) == 0) {
    Bytes bytes;
    for (int i = 0, count = choices.below(80); i < count; ++i) bytes.push_back(choices.byte());
    return bytes;
  }
  std::map<std::string, int64_t> values;
  for (const char* name : kNames) {
    if (choices.below(16) == 0) continue;
    const bool flag = strcmp(name, "padding") == 0 || strcmp(name, "pad_values") == 0;
    values[name] = choices.below(8) == 0              ? int64_t{wild_size(choices)}
                   : strcmp(name, "channels_in") == 0 ? choices.among({1, 32, 33, 64, 128})
                   : flag                             ? choices.below(2)
                                                      : 1 + choices.below(3);
  }
  Bytes bytes = options_of(values, choices.below(2) ? 4 : 8);
  if (choices.below(8) == 0) bytes.resize(static_cast<size_t>(choices.below(static_cast<int>(bytes.size()) + 1)));
  for (int i = choices.below(8) == 0 ? 1 + choices.below(3) : 0; i > 0 && !bytes.empty(); --i) {
    bytes[static_cast<size_t>(choices.below(static_cast<int>(bytes.size())))] = choices.byte();
  }
  return bytes;
}

}  // namespace

void Model::fill(Choices& choices) {
  for (int input : inputs) {
    TfLiteTensor& tensor = interpreter->at(input);
    auto* bytes = static_cast<uint8_t*>(tensor.data);
    if (bytes == nullptr) continue;  // nobody reads it
    if (tensor.type == kTfLiteFloat32) {
      for (size_t i = 0; i < tensor.bytes / 4; ++i) {
        const float value = choices.below(8) == 0 ? (choices.below(2) ? 0.0f : -0.0f) : choices.number();
        memcpy(bytes + 4 * i, &value, 4);
      }
    } else {
      for (size_t i = 0; i < tensor.bytes; ++i) {
        bytes[i] = tensor.type == kTfLiteBool ? choices.byte() & 1 : choices.byte();
      }
    }
  }
}

Model sound_model(Choices& choices) { return Builder(choices).build(); }

Model wild_model(Choices& choices) {
  Model model;
  model.interpreter = std::make_unique<Interpreter>(choices.among({-1, 1, 2, INT_MAX, INT_MIN}));
  Interpreter& made = *model.interpreter;
  made.memory_limit = size_t{1} << 24;
  // A shape and a filter that fit each other, so that some get far.
  const Dims common = {1, 1 + choices.below(6), 1 + choices.below(6), 1 + choices.below(3)};
  const auto type = [&] {
    return choices.among({kTfLiteInt32, kTfLiteInt32, kTfLiteFloat32, kTfLiteFloat32, kTfLiteInt8, kTfLiteBool,
                          kTfLiteInt64, kTfLiteUInt8, 0, 77});
  };
  const int tensors = 2 + choices.below(12);
  for (int t = 0; t < tensors; ++t) {
    Dims dims = choices.below(2) ? wild_dims(choices) : common;
    if (choices.below(2) == 0) {
      model.inputs.push_back(made.tensor(type(), dims, choices.among({0, 1, 1, -1}) * 0.5f, choices.any_int()));
      continue;
    }
    if (choices.below(3) == 0) dims = {8, 1 + choices.below(3), 1 + choices.below(3), common[3]};
    if (choices.below(3) == 0) dims = {8};
    int64_t bytes = 4;
    for (int size : dims) bytes = size < 0 || bytes > 4096 ? 0 : bytes * size;
    Bytes content(static_cast<size_t>(bytes > 4096 ? 0 : bytes));
    if (choices.below(6) == 0) content.resize(static_cast<size_t>(choices.below(64)));
    for (uint8_t& byte : content) byte = choices.byte();
    made.constant(type(), dims, content.data(), content.size());
  }
  const auto tensor = [&] {
    return choices.below(24) == 0 ? choices.among({-1, -2, 1000, INT_MAX, INT_MIN}) : choices.below(tensors);
  };
  std::set<int> written;
  for (int n = 0, nodes = 1 + choices.below(6); n < nodes; ++n) {
    const int kind = choices.below(8);
    Dims inputs, outputs;
    for (int i = 0, count = choices.below(8) == 0 ? choices.below(7)
                            : kind < 3            ? 5
                            : kind < 6            ? 1
                                                  : 2;
         i < count; ++i) {
      inputs.push_back(tensor());
    }
    for (int i = 0, count = choices.below(16) == 0 ? choices.below(3) : 1; i < count; ++i) outputs.push_back(tensor());
    // An interpreter refuses indices out of range but for a missing input, and outputs that are constant or made twice.
    for (int& index : inputs) index = index < -1 || index >= tensors ? -1 : index;
    bool refused = false;
    for (int index : outputs) {
      refused |= index < 0 || index >= tensors || made.at(index).allocation_type == kTfLiteMmapRo ||
                 !written.insert(index).second;
    }
    if (refused) continue;
    static const char* const kNames[] = {"LceBconv2d",  "LceBconv2d",    "LceBconv2d",
                                         "LceQuantize", "LceDequantize", "LceBMaxPool2d"};
    if (kind < 6) {
      made.custom(kNames[kind], wild_options(choices), inputs, outputs);
    } else {
      made.builtin(choices.among({kAdd, kSub, kMul, kPrelu, kRelu, kRelu6, kReluN1To1}), inputs, outputs,
                   choices.among({0, 1, 2, 3, 4, -1}));
    }
    made.graph_outputs(outputs);
  }
  return model;
}

std::string compare_outputs(const Interpreter& interpreter) {
  const std::map<int, Bytes> wanted = plain_results(interpreter);
  for (int output : interpreter.outputs()) {
    const TfLiteTensor& tensor = interpreter.at(output);
    const Bytes& bytes = wanted.at(output);
    if (bytes.size() != tensor.bytes) {
      return "tensor " + std::to_string(output) + " has " + std::to_string(tensor.bytes) + " bytes instead of " +
             std::to_string(bytes.size());
    }
    const auto* got = static_cast<const uint8_t*>(tensor.data);
    for (size_t i = 0; i < bytes.size(); i += tensor.type == kTfLiteFloat32 ? 4 : 1) {
      if (tensor.type != kTfLiteFloat32) {
        if (got[i] != bytes[i]) {
          return "tensor " + std::to_string(output) + " differs at byte " + std::to_string(i) + ": " +
                 std::to_string(got[i]) + " instead of " + std::to_string(bytes[i]);
        }
        continue;
      }
      float a, b;
      memcpy(&a, got + i, 4);
      memcpy(&b, bytes.data() + i, 4);
      if (a != b && !(isnan(a) && isnan(b))) {
        return "tensor " + std::to_string(output) + " differs at " + std::to_string(i / 4) + ": " + std::to_string(a) +
               " instead of " + std::to_string(b);
      }
    }
  }
  return "";
}

}  // namespace fake
