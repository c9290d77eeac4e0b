// What is done to a tile before it leaves the nearest cache.
//
// A program is made of the ops of one delegate node: a binary convolution with what follows it (a residual ADD, a
// PRELU, a shift, the next convolution's LceQuantize), or such element-wise ops alone. Each op becomes a step on a tile
// of pixels x channels; what one op hands only to another of the program never reaches the interpreter's memory.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "array.h"
#include "bconv2d.h"
#include "tflite_abi.h"

namespace bssl {

// Bounds for the ops of one node. What is beyond them becomes a node of its own.
constexpr size_t kMaxOps = 12;
constexpr size_t kMaxOperands = 3 * kMaxOps;
constexpr size_t kMaxRegisters = kMaxOps;

// Whether the op can be a step, judged by its types and by what is known of sizes before they are: an element-wise op
// on float tensors like `like`, or LceQuantize of one.
enum class StepOp { kNone, kAdd, kSub, kMul, kPrelu, kRelu, kReluN1To1, kRelu6, kQuantize };
StepOp step_op(const TfLiteNode* node, const TfLiteRegistration* registration);

// How a tensor may stand beside one like `like`, in an element-wise op.
enum class Shape { kNone, kSame, kPerChannel, kPerImage, kScalar };
Shape shape_beside(const TfLiteTensor* tensor, const TfLiteTensor* like);

class Program {
 public:
  // `nodes` in the order of execution; the first may be an LceBconv2d. `outputs` are the tensors that others read.
  const char* init(TfLiteContext* context, const TfLiteIntArray* nodes, const TfLiteIntArray* outputs,
                   const KernelChoice& choice);

  // Checks sizes and gives the outputs theirs.
  const char* prepare(TfLiteContext* context, size_t threads);

  size_t tasks() const;
  // Whether there is so much to do that waking helpers pays.
  bool worth_threads() const;
  void start(TfLiteContext* context);  // looks up where the tensors lie now
  void run_task(size_t task, size_t thread);

 private:
  struct Operand {
    enum Kind { kNone, kRegister, kTensor, kPerImage, kConstant } kind = kNone;
    size_t index = 0;   // of the register, or in tensors_
    size_t offset = 0;  // of the constant, in constants_

    bool is_register(size_t number) const { return kind == kRegister && index == number; }
  };
  struct Instruction {
    Step Steps::* step = nullptr;
    Operand a, b, out;
    float low = 0, high = 0;
    bool from_accum = false;
    bool to_bits = false;
    bool to_bytes = false;
  };

  const char* add_convolution(TfLiteContext* context, const TfLiteNode* node);
  const char* add_step(TfLiteContext* context, const TfLiteNode* node, StepOp op);
  const char* operand_for(TfLiteContext* context, int tensor, Operand* operand);
  const char* result_for(int tensor, Operand* operand);
  Instruction& next_instruction();
  void drop_unread(const Instruction& last);
  bool copy_constant(const TfLiteTensor* tensor, size_t* offset);
  void fuse_residual();
  const char* assign_registers();

  static void run_tile(void* program, const Bconv2d::Tile& tile);
  void run_elementwise(size_t task, size_t thread);

  bool has_convolution_ = false;
  Bconv2d convolution_;
  int convolution_input_ = -1;
  const Steps* steps_ = nullptr;
  int like_ = -1;  // a tensor of the size that all have
  size_t channels_ = 0;
  size_t pixels_ = 0;  // of an image
  size_t images_ = 0;

  Array<int> output_list_;
  Instruction instructions_[kMaxOps];
  size_t count_ = 0;
  // Tensors that steps read or write, and where they lie during an invocation.
  int tensors_[kMaxOperands];
  void* memory_[kMaxOperands];
  size_t image_strides_[kMaxOperands] = {};  // of a kPerImage operand, in elements
  size_t tensor_count_ = 0;
  // Values that stay inside: the tensor each stands for, until registers are assigned.
  int inner_[kMaxOps];
  size_t inner_count_ = 0;
  size_t registers_ = 0;
  Array<float> constants_;
  size_t constants_used_ = 0;
  Array<float> register_memory_;
  const void* input_ = nullptr;
  size_t chunks_ = 0;
  size_t chunk_pixels_ = 0;
};

}  // namespace bssl
