#include "program.h"

#include "ops.h"
#include "tensors.h"

namespace bssl {
namespace {

// Element-wise ops without a convolution: a tile of theirs.
constexpr size_t kTilePixels = 4;
constexpr size_t kChunkElements = 16384;
// A few microseconds' worth of binary multiply-adds; handing over work costs about as much.
constexpr size_t kSerialWork = 8'000'000;

// The first member of TfLiteAddParams, TfLiteSubParams and TfLiteMulParams.
int activation_of(const TfLiteNode* node) {
  if (node->builtin_data == nullptr) return 0;
  int32_t activation;
  memcpy(&activation, node->builtin_data, sizeof(activation));
  return activation;
}

void limits_of(int activation, float* low, float* high) {
  *low = activation == 1 || activation == 3 ? 0.0f : activation == 2 ? -1.0f : -__builtin_inff();
  *high = activation == 2 ? 1.0f : activation == 3 ? 6.0f : __builtin_inff();
}

}  // namespace

StepOp step_op(const TfLiteNode* node, const TfLiteRegistration* registration) {
  StepOp op = StepOp::kNone;
  size_t inputs = 2;
  switch (registration->builtin_code) {
    case kBuiltinAdd: op = StepOp::kAdd; break;
    case kBuiltinSub: op = StepOp::kSub; break;
    case kBuiltinMul: op = StepOp::kMul; break;
    case kBuiltinPrelu: op = StepOp::kPrelu; break;
    case kBuiltinRelu:
      op = StepOp::kRelu;
      inputs = 1;
      break;
    case kBuiltinReluN1To1:
      op = StepOp::kReluN1To1;
      inputs = 1;
      break;
    case kBuiltinRelu6:
      op = StepOp::kRelu6;
      inputs = 1;
      break;
    case kBuiltinCustom:
      inputs = 1;
      if (lce_op(registration) == LceOp::kQuantize) op = StepOp::kQuantize;
      break;
    default: break;
  }
  if (count_of(node->inputs) != inputs || count_of(node->outputs) != 1) return StepOp::kNone;
  if (op == StepOp::kAdd || op == StepOp::kSub || op == StepOp::kMul) {
    const int activation = activation_of(node);
    if (activation < 0 || activation > 3) return StepOp::kNone;
  }
  return op;
}

Shape shape_beside(const TfLiteTensor* tensor, const TfLiteTensor* like) {
  if (tensor->type != kTfLiteFloat32 || rank(like) == 0 || rank(tensor) > rank(like)) return Shape::kNone;
  if (same_dimensions(tensor, like)) return Shape::kSame;
  const size_t count = elements(tensor);
  if (count == 1) return Shape::kScalar;
  if (count == 0 || last_dimension(tensor) != last_dimension(like)) return Shape::kNone;
  if (count == last_dimension(like)) return Shape::kPerChannel;
  // [images, 1, 1, channels], as a squeeze-and-excitation's.
  if (rank(tensor) == rank(like) && tensor->dims->data[0] == like->dims->data[0] &&
      count == dimension(like, 0) * last_dimension(like)) {
    return Shape::kPerImage;
  }
  return Shape::kNone;
}

const char* Program::init(TfLiteContext* context, const TfLiteIntArray* nodes, const TfLiteIntArray* outputs,
                          const KernelChoice& choice) {
  steps_ = &steps_for(choice.isa);
  if (!output_list_.allocate(count_of(outputs))) return "out of memory";
  for (size_t i = 0; i < count_of(outputs); ++i) output_list_[i] = outputs->data[i];
  if (count_of(nodes) == 0 || count_of(nodes) > kMaxOps) return "a fused node has too many ops";

  TfLiteNode* node = nullptr;
  TfLiteRegistration* registration = nullptr;
  size_t constants = 0;
  for (size_t i = 0; i < count_of(nodes); ++i) {
    if (context->GetNodeAndRegistration(context, nodes->data[i], &node, &registration) != kTfLiteOk) {
      return "the interpreter does not know one of its own nodes";
    }
    if (step_op(node, registration) == StepOp::kNone) continue;
    for (size_t k = 0; k < count_of(node->inputs); ++k) {
      const TfLiteTensor* tensor = tensor_at(context, node->inputs->data[k]);
      constants += tensor != nullptr && is_constant(tensor);
    }
  }
  for (size_t i = 0; i < count_of(nodes); ++i) {
    context->GetNodeAndRegistration(context, nodes->data[i], &node, &registration);
    const StepOp op = step_op(node, registration);
    const char* wrong = nullptr;
    if (op != StepOp::kNone) {
      if (i == 0) {
        const TfLiteTensor* like = tensor_at(context, node->outputs->data[0]);
        const TfLiteTensor* input = tensor_at(context, node->inputs->data[0]);
        if (like == nullptr || input == nullptr) return "a tensor of an element-wise op is missing";
        like_ = op == StepOp::kQuantize ? node->inputs->data[0] : node->outputs->data[0];
        channels_ = last_dimension(tensor_at(context, like_));
        if (channels_ == 0 || channels_ > kMaxDimension) return "an element-wise op has no channels";
      }
      if (constants_.size() == 0 && constants > 0 && !constants_.allocate(constants * padded_channels(channels_))) {
        return "out of memory";
      }
      if (i == 0 || !has_convolution_ || convolution_.output_type() == kTfLiteFloat32) {
        wrong = add_step(context, node, op);
      } else {
        wrong = "a fused node has an op that cannot be fused";
      }
    } else {
      if (i != 0) return "a fused node has an op that cannot be fused";
      if (const char* bad = convolution_.init(context, node, choice)) return bad;
      wrong = add_convolution(context, node);
    }
    if (wrong != nullptr) return wrong;
  }
  fuse_residual();
  return assign_registers();
}

const char* Program::add_convolution(TfLiteContext*, const TfLiteNode* node) {
  has_convolution_ = true;
  convolution_input_ = node->inputs->data[0];
  like_ = node->outputs->data[0];
  channels_ = convolution_.output_channels();
  Instruction& instruction = next_instruction();
  instruction.from_accum = true;
  switch (convolution_.output_type()) {
    case kTfLiteInt32:
      instruction.step = &Steps::accum_bits;
      instruction.to_bits = true;
      break;
    case kTfLiteInt8:
      instruction.step = &Steps::transform_int8;
      instruction.to_bytes = true;
      break;
    default: instruction.step = &Steps::transform;
  }
  if (const char* wrong = result_for(like_, &instruction.out)) return wrong;
  drop_unread(instruction);
  return nullptr;
}

const char* Program::add_step(TfLiteContext* context, const TfLiteNode* node, StepOp op) {
  Instruction& instruction = next_instruction();
  int activation = 0;
  switch (op) {
    case StepOp::kAdd:
      instruction.step = &Steps::add;
      activation = activation_of(node);
      break;
    case StepOp::kSub:
      instruction.step = &Steps::sub;
      activation = activation_of(node);
      break;
    case StepOp::kMul:
      instruction.step = &Steps::mul;
      activation = activation_of(node);
      break;
    case StepOp::kPrelu: instruction.step = &Steps::prelu; break;
    case StepOp::kRelu:
      instruction.step = &Steps::limit;
      activation = 1;
      break;
    case StepOp::kReluN1To1:
      instruction.step = &Steps::limit;
      activation = 2;
      break;
    case StepOp::kRelu6:
      instruction.step = &Steps::limit;
      activation = 3;
      break;
    case StepOp::kQuantize:
      instruction.step = &Steps::sign_bits;
      instruction.to_bits = true;
      break;
    case StepOp::kNone: return "a fused node has an op that cannot be fused";
  }
  limits_of(activation, &instruction.low, &instruction.high);
  if (const char* wrong = operand_for(context, node->inputs->data[0], &instruction.a)) return wrong;
  if (node->inputs->size > 1) {
    if (const char* wrong = operand_for(context, node->inputs->data[1], &instruction.b)) return wrong;
  }
  const TfLiteTensor* output = tensor_at(context, node->outputs->data[0]);
  if (output == nullptr || output->type != (op == StepOp::kQuantize ? kTfLiteInt32 : kTfLiteFloat32)) {
    return "an element-wise op's output has the wrong type";
  }
  if (const char* wrong = result_for(node->outputs->data[0], &instruction.out)) return wrong;
  drop_unread(instruction);
  return nullptr;
}

Program::Instruction& Program::next_instruction() {
  instructions_[count_] = Instruction();
  return instructions_[count_++];
}

// Registers hold floats. Bits and bytes that are not an output are read by nobody: a group has no op that reads them.
void Program::drop_unread(const Instruction& last) {
  if ((!last.to_bits && !last.to_bytes) || last.out.kind != Operand::kRegister) return;
  --count_;
  --inner_count_;
}

const char* Program::operand_for(TfLiteContext* context, int index, Operand* operand) {
  for (size_t i = 0; i < inner_count_; ++i) {
    if (inner_[i] == index) {
      operand->kind = Operand::kRegister;
      operand->index = i;
      return nullptr;
    }
  }
  const TfLiteTensor* tensor = tensor_at(context, index);
  if (tensor == nullptr) return "a tensor of an element-wise op is missing";
  if (tensor->type != kTfLiteFloat32) return "an element-wise op's input is not float32";
  const Shape shape = index == like_ ? Shape::kSame : shape_beside(tensor, tensor_at(context, like_));
  if (is_constant(tensor) && (shape == Shape::kPerChannel || shape == Shape::kScalar)) {
    if (!is_whole(tensor) || (shape == Shape::kPerChannel && elements(tensor) != channels_)) {
      return "an element-wise op's constant does not have one value per channel";
    }
    operand->kind = Operand::kConstant;
    return copy_constant(tensor, &operand->offset) ? nullptr : "out of memory";
  }
  if (shape != Shape::kSame && shape != Shape::kPerImage && shape != Shape::kPerChannel) {
    return "an element-wise op's operands do not match";
  }
  operand->kind = shape == Shape::kSame ? Operand::kTensor : Operand::kPerImage;
  for (operand->index = 0; operand->index < tensor_count_; ++operand->index) {
    if (tensors_[operand->index] == index) return nullptr;
  }
  if (tensor_count_ == kMaxOperands) return "a fused node has too many tensors";
  tensors_[tensor_count_++] = index;
  return nullptr;
}

const char* Program::result_for(int index, Operand* operand) {
  for (size_t i = 0; i < output_list_.size(); ++i) {
    if (output_list_[i] != index) continue;
    if (tensor_count_ == kMaxOperands) return "a fused node has too many tensors";
    operand->kind = Operand::kTensor;
    operand->index = tensor_count_;
    tensors_[tensor_count_++] = index;
    return nullptr;
  }
  operand->kind = Operand::kRegister;
  operand->index = inner_count_;
  inner_[inner_count_++] = index;
  return nullptr;
}

bool Program::copy_constant(const TfLiteTensor* tensor, size_t* offset) {
  const size_t length = padded_channels(channels_);
  if (constants_used_ + length > constants_.size()) return false;
  const float* values = static_cast<const float*>(tensor->data);
  const bool scalar = elements(tensor) == 1;
  for (size_t c = 0; c < channels_; ++c) constants_[constants_used_ + c] = values[scalar ? 0 : c];
  *offset = constants_used_;
  constants_used_ += length;
  return true;
}

// A convolution's result that only the ADD after it reads is added to in one step: it saves a pass over the tile.
void Program::fuse_residual() {
  if (count_ < 2 || instructions_[0].step != &Steps::transform || instructions_[0].out.kind != Operand::kRegister) {
    return;
  }
  const size_t value = instructions_[0].out.index;
  Instruction& add = instructions_[1];
  if (add.step != &Steps::add) return;
  const bool first = add.a.is_register(value), second = add.b.is_register(value);
  if (first == second) return;
  for (size_t i = 2; i < count_; ++i) {
    if (instructions_[i].a.is_register(value) || instructions_[i].b.is_register(value)) return;
  }
  add.step = &Steps::transform_add;
  add.from_accum = true;
  if (first) add.a = add.b;
  add.b = add.a;
  add.a = Operand();
  for (size_t i = 1; i < count_; ++i) instructions_[i - 1] = instructions_[i];
  --count_;
}

// Values become registers; one that is not read any more gives its register to the next, so that few stay in the cache.
const char* Program::assign_registers() {
  bool taken[kMaxRegisters] = {};
  size_t assigned[kMaxOps] = {};
  for (size_t i = 0; i < count_; ++i) {
    Operand* read[2] = {&instructions_[i].a, &instructions_[i].b};
    size_t value_of[2] = {};
    for (int k = 0; k < 2; ++k) {
      if (read[k]->kind != Operand::kRegister) continue;
      value_of[k] = read[k]->index;
      read[k]->index = assigned[value_of[k]];
    }
    for (int k = 0; k < 2; ++k) {
      if (read[k]->kind != Operand::kRegister) continue;
      bool later = false;
      for (size_t j = i + 1; j < count_; ++j) {
        later |= instructions_[j].a.is_register(value_of[k]) || instructions_[j].b.is_register(value_of[k]);
      }
      if (!later) taken[assigned[value_of[k]]] = false;
    }
    Operand& out = instructions_[i].out;
    if (out.kind != Operand::kRegister) continue;
    size_t free = 0;
    while (free < kMaxRegisters && taken[free]) ++free;
    if (free == kMaxRegisters) return "a fused node keeps too many values";
    taken[free] = true;
    assigned[out.index] = free;
    out.index = free;
    if (free + 1 > registers_) registers_ = free + 1;
  }
  return nullptr;
}

const char* Program::prepare(TfLiteContext* context, size_t threads) {
  TfLiteTensor* like = &context->tensors[like_];
  size_t dimensions[8] = {};
  size_t ranks;
  if (has_convolution_) {
    if (const char* wrong = convolution_.prepare(&context->tensors[convolution_input_], threads)) return wrong;
    ranks = 4;
    dimensions[0] = convolution_.images();
    dimensions[1] = convolution_.output_height();
    dimensions[2] = convolution_.output_width();
    dimensions[3] = channels_;
    images_ = convolution_.images();
    pixels_ = convolution_.output_height() * convolution_.output_width();
  } else {
    // The size is that of the first operand that lies outside, and is as large as the result.
    const TfLiteTensor* source = nullptr;
    for (size_t i = 0; i < count_ && source == nullptr; ++i) {
      if (instructions_[i].a.kind == Operand::kTensor) source = &context->tensors[tensors_[instructions_[i].a.index]];
      if (source == nullptr && instructions_[i].b.kind == Operand::kTensor) {
        source = &context->tensors[tensors_[instructions_[i].b.index]];
      }
    }
    if (source == nullptr) source = like;
    ranks = rank(source);
    if (ranks == 0 || ranks > 8 || elements(source) == 0) {
      return "an element-wise op's operand is empty, or has more than 8 dimensions";
    }
    for (size_t i = 0; i < ranks; ++i) dimensions[i] = dimension(source, i);
    if (dimensions[ranks - 1] != channels_) return "the number of channels changed";
    images_ = ranks > 1 ? dimensions[0] : 1;
    pixels_ = elements(source) / images_ / channels_;
    chunk_pixels_ = kChunkElements / channels_;
    if (chunk_pixels_ < kTilePixels) chunk_pixels_ = kTilePixels;
    chunks_ = (pixels_ + chunk_pixels_ - 1) / chunk_pixels_;
  }

  // Results take the size; what is read must have it.
  for (size_t i = 0; i < count_; ++i) {
    const Instruction& instruction = instructions_[i];
    if (instruction.out.kind == Operand::kTensor) {
      TfLiteTensor* tensor = &context->tensors[tensors_[instruction.out.index]];
      const size_t last = instruction.to_bits ? words_for(channels_) : channels_;
      if (const char* wrong = resize(context, tensor, dimensions, ranks, last)) return wrong;
    }
    const Operand* operands[2] = {&instruction.a, &instruction.b};
    for (const Operand* operand : operands) {
      if (operand->kind != Operand::kTensor && operand->kind != Operand::kPerImage) continue;
      const TfLiteTensor* tensor = &context->tensors[tensors_[operand->index]];
      bool fits = elements(tensor) > 0 && is_readable(tensor);
      if (operand->kind == Operand::kTensor) {
        fits = fits && rank(tensor) == ranks;
        for (size_t d = 0; fits && d < ranks; ++d) fits = dimension(tensor, d) == dimensions[d];
      } else {
        // One row for all images, or one for each.
        const bool each = elements(tensor) == images_ * channels_;
        fits = fits && (each || elements(tensor) == channels_);
        image_strides_[operand->index] = each && images_ > 1 ? channels_ : 0;
      }
      if (!fits) return "an element-wise op's operands do not match";
    }
  }
  if (registers_ > 0 && !register_memory_.allocate(threads * registers_ * kMaxTile)) {
    return "out of memory";
  }
  return nullptr;
}

size_t Program::tasks() const {
  if (count_ == 0) return 0;  // nobody reads what it would give
  return has_convolution_ ? convolution_.tasks() : images_ * chunks_;
}

bool Program::worth_threads() const { return !has_convolution_ || convolution_.work() > kSerialWork; }

void Program::start(TfLiteContext* context) {
  for (size_t i = 0; i < tensor_count_; ++i) memory_[i] = context->tensors[tensors_[i]].data;
  if (has_convolution_) input_ = context->tensors[convolution_input_].data;
}

void Program::run_task(size_t task, size_t thread) {
  if (has_convolution_) {
    convolution_.run_task(input_, task, thread, &Program::run_tile, this);
  } else {
    run_elementwise(task, thread);
  }
}

void Program::run_elementwise(size_t task, size_t thread) {
  // Without a kernel, all that a tile needs of it is its width.
  static const MicroKernel kNone = {"", Isa::kPortable, kTilePixels, kMaxTileChannels, Layout::kWords, nullptr};
  Bconv2d::Tile tile = {};
  tile.thread = thread;
  tile.image = task / chunks_;
  const size_t first = task % chunks_ * chunk_pixels_;
  const size_t end = first + chunk_pixels_ < pixels_ ? first + chunk_pixels_ : pixels_;
  for (size_t pixel = first; pixel < end; pixel += kTilePixels) {
    tile.first_pixel = pixel;
    tile.pixels = end - pixel < kTilePixels ? end - pixel : kTilePixels;
    for (size_t c = 0; c < channels_; c += kMaxTileChannels) {
      const ChannelBlock block = {&kNone, c, channels_ - c < kMaxTileChannels ? channels_ - c : kMaxTileChannels, 0, 0};
      tile.block = &block;
      run_tile(this, tile);
    }
  }
}

void Program::run_tile(void* program, const Bconv2d::Tile& tile) {
  Program& self = *static_cast<Program*>(program);
  const ChannelBlock& block = *tile.block;
  const size_t channels = self.channels_;
  const size_t pixel = tile.image * self.pixels_ + tile.first_pixel;
  const size_t first = block.first;
  const ptrdiff_t tile_stride = static_cast<ptrdiff_t>(block.kernel->channels);
  const ptrdiff_t row_stride = static_cast<ptrdiff_t>(channels);
  float* registers = self.register_memory_.data();
  if (registers != nullptr) registers += tile.thread * self.registers_ * kMaxTile;

  StepArgs args = {};
  args.pixels = static_cast<int>(tile.pixels);
  args.channels = static_cast<int>(block.count);
  args.accum = tile.accum;
  args.accum_stride = static_cast<int>(block.kernel->channels);
  args.shift = tile.shift;
  args.clamp_min = self.convolution_.clamp_min();
  args.clamp_max = self.convolution_.clamp_max();
  if (self.convolution_.multiplier() != nullptr) {
    args.multiplier = self.convolution_.multiplier() + first;
    args.bias = self.convolution_.bias() + first;
  }

  const auto locate = [&](const Operand& operand, ptrdiff_t* stride) -> float* {
    switch (operand.kind) {
      case Operand::kRegister: *stride = tile_stride; return registers + operand.index * kMaxTile;
      case Operand::kTensor:
        *stride = row_stride;
        return static_cast<float*>(self.memory_[operand.index]) + pixel * channels + first;
      case Operand::kPerImage:
        *stride = 0;
        return static_cast<float*>(self.memory_[operand.index]) + self.image_strides_[operand.index] * tile.image +
               first;
      case Operand::kConstant: *stride = 0; return self.constants_.data() + operand.offset + first;
      case Operand::kNone: break;
    }
    *stride = 0;
    return nullptr;
  };

  for (size_t i = 0; i < self.count_; ++i) {
    const Instruction& instruction = self.instructions_[i];
    args.low = instruction.low;
    args.high = instruction.high;
    args.a = locate(instruction.a, &args.a_stride);
    args.b = locate(instruction.b, &args.b_stride);
    if (instruction.to_bits) {
      const size_t words = words_for(self.channels_);
      args.bits = static_cast<uint32_t*>(self.memory_[instruction.out.index]) + pixel * words + first / 32;
      args.bits_stride = static_cast<ptrdiff_t>(words);
      args.first_bit = static_cast<int>(first % 32);
      if (instruction.from_accum) args.thresholds = self.convolution_.thresholds(tile.shift) + first;
    } else if (instruction.to_bytes) {
      args.bytes = static_cast<int8_t*>(self.memory_[instruction.out.index]) + pixel * channels + first;
      args.bytes_stride = row_stride;
    } else {
      args.out = locate(instruction.out, &args.out_stride);
    }
    (self.steps_->*instruction.step)(args);
  }
}

}  // namespace bssl
