// As much of TensorFlow Lite's interpreter as a delegate sees, for tests without TensorFlow Lite: tensors, nodes, a
// plan, and what calls init, prepare, invoke and free. Every tensor's memory ends at a page that nobody may touch.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tflite_abi.h"

namespace fake {

// Numbers of the schema's BuiltinOperator and ActivationFunctionType.
enum Builtin { kAdd = 0, kMul = 18, kRelu = 19, kReluN1To1 = 20, kRelu6 = 21, kCustom = 32, kSub = 41, kPrelu = 54 };
enum Activation { kNone = 0, kActivationRelu = 1, kActivationReluN1To1 = 2, kActivationRelu6 = 3 };

using Bytes = std::vector<uint8_t>;
using Dims = std::vector<int>;

// Memory that ends where a forbidden page begins, or as little before as `alignment` asks for.
class Guarded {
 public:
  explicit Guarded(size_t bytes, size_t alignment = 1);
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded();
  uint8_t* data() const { return data_; }

 private:
  void* pages_ = nullptr;
  size_t length_ = 0;
  uint8_t* data_ = nullptr;
};

// Bytes of one element, 0 for a type that is not known.
size_t width_of(int type);

class Interpreter {
 public:
  struct Node {
    TfLiteNode node = {};
    TfLiteRegistration registration = {};
    std::string name;
    Bytes options;
    int32_t builtin_data[4] = {};
  };

  explicit Interpreter(int recommended_threads = -1);
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;
  ~Interpreter();

  // A model is made of these, in the order of execution. A constant's bytes may contradict its dimensions.
  int tensor(int type, const Dims& dims, float scale = 0.0f, int zero_point = 0);
  int constant(int type, const Dims& dims, const void* content, size_t bytes);
  void custom(const std::string& name, const Bytes& options, const Dims& inputs, const Dims& outputs);
  void builtin(int code, const Dims& inputs, const Dims& outputs, int activation = kNone);
  void graph_outputs(const Dims& outputs) { graph_outputs_ = outputs; }

  // What a user does. False where something says no; `error` has the messages then.
  bool apply(TfLiteDelegate* delegate);
  bool resize(int tensor, const Dims& dims);
  bool allocate();
  bool invoke();

  TfLiteTensor& at(int tensor) { return tensors_[static_cast<size_t>(tensor)]; }
  const TfLiteTensor& at(int tensor) const { return tensors_[static_cast<size_t>(tensor)]; }
  int tensors() const { return static_cast<int>(tensors_.size()); }
  const Dims& outputs() const { return graph_outputs_; }
  // The nodes of the model as it was made.
  const std::vector<std::unique_ptr<Node>>& model() const { return model_; }
  int delegated() const { return delegated_; }
  std::string error;

  // Allocation refuses more than this in all, as an interpreter on a small device would.
  size_t memory_limit = size_t{1} << 28;

 private:
  static Interpreter& of(TfLiteContext* context) { return *static_cast<Interpreter*>(context->impl); }
  static TfLiteStatus get_plan(TfLiteContext* context, TfLiteIntArray** plan);
  static TfLiteStatus get_node(TfLiteContext* context, int index, TfLiteNode** node, TfLiteRegistration** registration);
  static TfLiteStatus resize_tensor(TfLiteContext* context, TfLiteTensor* tensor, TfLiteIntArray* size);
  static TfLiteStatus replace(TfLiteContext* context, TfLiteRegistration registration, const TfLiteIntArray* nodes,
                              TfLiteDelegate* delegate);
  static void report(TfLiteContext* context, const char* format, ...);

  Node& add(const std::string& name, const Dims& inputs, const Dims& outputs);
  bool prepare_stock(Node& node);
  void publish();

  TfLiteContext context_ = {};
  std::vector<TfLiteTensor> tensors_;
  std::map<int, std::unique_ptr<Guarded>> memory_;
  std::vector<std::unique_ptr<Node>> model_;  // indices 0 ..
  std::vector<std::unique_ptr<Node>> added_;  // indices behind them
  std::vector<int> plan_;
  TfLiteIntArray* given_plan_ = nullptr;
  Dims graph_outputs_;
  int delegated_ = 0;
  bool prepared_ = false;
};

// What the model's nodes make of the inputs in `interpreter`, by the plainest code that can be thought of: a value for
// every tensor, empty for those that are only read. Only for models that are sound.
std::map<int, Bytes> plain_results(const Interpreter& interpreter);

// One element-wise builtin node. `a` and `b` are broadcast to `dims`; an op of one operand is given it twice.
void run_stock(const Interpreter::Node& node, const Dims& a_dims, const float* a, const Dims& b_dims, const float* b,
               const Dims& dims, float* output);

Dims dims_of(const TfLiteTensor& tensor);

// A flexbuffer with a map of integers, each `width` bytes wide (4 or 8), keys sorted.
Bytes options_of(const std::map<std::string, int64_t>& values, unsigned width = 4);

}  // namespace fake
