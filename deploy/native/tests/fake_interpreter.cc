#include "fake_interpreter.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <set>

namespace fake {
namespace {

TfLiteIntArray* int_array(const Dims& values) {
  auto* array = static_cast<TfLiteIntArray*>(malloc(sizeof(TfLiteIntArray) + sizeof(int) * values.size()));
  array->size = static_cast<int>(values.size());
  std::copy(values.begin(), values.end(), array->data);
  return array;
}

// False where a dimension is negative or the product is beyond what an interpreter would take.
bool bytes_of(int type, const TfLiteIntArray* dims, size_t* bytes) {
  size_t product = width_of(type);
  if (product == 0) return false;
  for (int i = 0; i < dims->size; ++i) {
    if (dims->data[i] < 0 || __builtin_mul_overflow(product, static_cast<size_t>(dims->data[i]), &product)) {
      return false;
    }
  }
  *bytes = product;
  return true;
}

// By their length.
thread_local std::map<size_t, std::vector<void*>> kept_pages;

}  // namespace

Dims dims_of(const TfLiteTensor& tensor) { return Dims(tensor.dims->data, tensor.dims->data + tensor.dims->size); }

// Pages are kept, forbidden altogether, and used again: mapping new ones each time is slow, and makes emulators leak.
Guarded::Guarded(size_t bytes, size_t alignment) {
  bytes = (bytes + alignment - 1) / alignment * alignment;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  length_ = (bytes + page - 1) / page * page + page;
  std::vector<void*>& kept = kept_pages[length_];
  if (kept.empty()) {
    pages_ = mmap(nullptr, length_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages_ == MAP_FAILED) abort();
  } else {
    pages_ = kept.back();
    kept.pop_back();
  }
  uint8_t* forbidden = static_cast<uint8_t*>(pages_) + length_ - page;
  if (length_ > page && mprotect(pages_, length_ - page, PROT_READ | PROT_WRITE) != 0) abort();
  data_ = forbidden - bytes;
}

Guarded::~Guarded() {
  madvise(pages_, length_, MADV_DONTNEED);
  if (mprotect(pages_, length_, PROT_NONE) != 0) abort();
  kept_pages[length_].push_back(pages_);
}

size_t width_of(int type) {
  switch (type) {
    case kTfLiteFloat32:
    case kTfLiteInt32: return 4;
    case kTfLiteInt64: return 8;
    case kTfLiteUInt8:
    case kTfLiteInt8:
    case kTfLiteBool: return 1;
    default: return 0;
  }
}

Interpreter::Interpreter(int recommended_threads) {
  context_.impl = this;
  context_.GetExecutionPlan = get_plan;
  context_.GetNodeAndRegistration = get_node;
  context_.ResizeTensor = resize_tensor;
  context_.ReportError = report;
  context_.ReplaceNodeSubsetsWithDelegateKernels = replace;
  context_.recommended_num_threads = recommended_threads;
}

Interpreter::~Interpreter() {
  for (auto* nodes : {&model_, &added_}) {
    for (auto& node : *nodes) {
      if (node->registration.free != nullptr) node->registration.free(&context_, node->node.user_data);
      free(node->node.inputs);
      free(node->node.outputs);
    }
  }
  for (TfLiteTensor& tensor : tensors_) free(tensor.dims);
  free(given_plan_);
}

int Interpreter::tensor(int type, const Dims& dims, float scale, int zero_point) {
  TfLiteTensor made = {};
  // Through an integer: fuzzers make types that are no members of the enumeration.
  memcpy(&made.type, &type, sizeof(made.type));
  made.dims = int_array(dims);
  made.allocation_type = kTfLiteArenaRw;
  made.params.scale = scale;
  made.params.zero_point = zero_point;
  made.quantization.type = scale > 0.0f ? kTfLiteAffineQuantization : kTfLiteNoQuantization;
  if (!bytes_of(type, made.dims, &made.bytes)) made.bytes = 0;
  tensors_.push_back(made);
  return tensors() - 1;
}

int Interpreter::constant(int type, const Dims& dims, const void* content, size_t bytes) {
  const int index = tensor(type, dims);
  auto memory = std::make_unique<Guarded>(bytes, std::max(size_t{1}, width_of(type)));
  if (bytes > 0) memcpy(memory->data(), content, bytes);
  TfLiteTensor& made = at(index);
  made.allocation_type = kTfLiteMmapRo;
  made.bytes = bytes;
  made.data = memory->data();
  memory_[index] = std::move(memory);
  return index;
}

Interpreter::Node& Interpreter::add(const std::string& name, const Dims& inputs, const Dims& outputs) {
  auto made = std::make_unique<Node>();
  made->name = name;
  made->node.inputs = int_array(inputs);
  made->node.outputs = int_array(outputs);
  plan_.push_back(static_cast<int>(model_.size()));
  model_.push_back(std::move(made));
  return *model_.back();
}

void Interpreter::custom(const std::string& name, const Bytes& options, const Dims& inputs, const Dims& outputs) {
  Node& made = add(name, inputs, outputs);
  // Its own memory, just as long as it is, so that a byte too far is seen.
  made.options = options;
  made.options.shrink_to_fit();
  made.registration.builtin_code = kCustom;
  made.registration.custom_name = made.name.c_str();
  made.node.custom_initial_data = options.empty() ? nullptr : made.options.data();
  made.node.custom_initial_data_size = static_cast<int>(options.size());
}

void Interpreter::builtin(int code, const Dims& inputs, const Dims& outputs, int activation) {
  Node& made = add("", inputs, outputs);
  made.registration.builtin_code = code;
  made.builtin_data[0] = activation;
  made.node.builtin_data = made.builtin_data;
}

void Interpreter::publish() {
  context_.tensors = tensors_.data();
  context_.tensors_size = tensors_.size();
}

bool Interpreter::apply(TfLiteDelegate* delegate) {
  publish();
  return delegate->Prepare(&context_, delegate) == kTfLiteOk;
}

bool Interpreter::resize(int index, const Dims& dims) {
  publish();
  prepared_ = false;
  return resize_tensor(&context_, &at(index), int_array(dims)) == kTfLiteOk;
}

bool Interpreter::allocate() {
  publish();
  prepared_ = false;
  for (int index : plan_) {
    const bool ours = index >= static_cast<int>(model_.size());
    Node& node = ours ? *added_[static_cast<size_t>(index) - model_.size()] : *model_[static_cast<size_t>(index)];
    if (ours ? node.registration.prepare(&context_, &node.node) != kTfLiteOk : !prepare_stock(node)) return false;
  }
  // As in the interpreter, there is memory for what nodes of the plan take or give. What a node of a delegate makes and
  // nobody reads is not among it.
  std::set<int> used(graph_outputs_.begin(), graph_outputs_.end());
  for (int index : plan_) {
    const bool ours = index >= static_cast<int>(model_.size());
    const Node& node = ours ? *added_[static_cast<size_t>(index) - model_.size()] : *model_[static_cast<size_t>(index)];
    for (const TfLiteIntArray* list : {node.node.inputs, node.node.outputs}) {
      used.insert(list->data, list->data + list->size);
    }
  }
  size_t all = 0;
  for (int i = 0; i < tensors(); ++i) {
    TfLiteTensor& tensor = at(i);
    if (tensor.allocation_type == kTfLiteMmapRo) continue;
    if (used.count(i) == 0) {
      if (tensor.data != nullptr) memory_.erase(i);
      tensor.data = nullptr;
      continue;
    }
    size_t bytes;
    if (!bytes_of(tensor.type, tensor.dims, &bytes) || bytes > memory_limit || (all += bytes) > memory_limit) {
      error += "no memory for a tensor\n";
      return false;
    }
    if (tensor.bytes != bytes) abort();
    auto memory = std::make_unique<Guarded>(bytes, width_of(tensor.type));
    // What was there goes: nobody may count on zeros.
    memset(memory->data(), 0xa5, bytes);
    if (tensor.data != nullptr) memory_.erase(i);
    tensor.data = memory->data();
    memory_[i] = std::move(memory);
  }
  prepared_ = true;
  return true;
}

// Element-wise ops that no delegate took. Everything else is only run as a delegate's node.
bool Interpreter::prepare_stock(Node& node) {
  const int code = node.registration.builtin_code;
  const std::map<int, int> operands = {{kAdd, 2},  {kSub, 2},       {kMul, 2},  {kPrelu, 2},
                                       {kRelu, 1}, {kReluN1To1, 1}, {kRelu6, 1}};
  const auto known = operands.find(code);
  if (known == operands.end()) {
    error += "unresolved op " + node.name + "\n";
    return false;
  }
  if (node.node.inputs->size != known->second) return false;
  Dims dims;
  for (int k = 0; k < node.node.inputs->size; ++k) {
    const int index = node.node.inputs->data[k];
    if (index < 0 || index >= tensors() || at(index).type != kTfLiteFloat32) return false;
    const TfLiteIntArray* shape = at(index).dims;
    size_t bytes;
    if (!bytes_of(kTfLiteFloat32, shape, &bytes) || at(index).bytes != bytes) return false;
    Dims padded(shape->data, shape->data + shape->size);
    while (padded.size() < dims.size()) padded.insert(padded.begin(), 1);
    while (dims.size() < padded.size()) dims.insert(dims.begin(), 1);
    for (size_t d = 0; d < dims.size(); ++d) {
      if (dims[d] != padded[d] && dims[d] != 1 && padded[d] != 1) return false;
      dims[d] = dims[d] == 1 ? padded[d] : dims[d];
    }
  }
  if (node.node.outputs->size != 1) return false;
  const int out = node.node.outputs->data[0];
  if (out < 0 || out >= tensors() || at(out).type != kTfLiteFloat32) return false;
  return resize_tensor(&context_, &at(out), int_array(dims)) == kTfLiteOk;
}

bool Interpreter::invoke() {
  publish();
  if (!prepared_) return false;
  for (int index : plan_) {
    if (index >= static_cast<int>(model_.size())) {
      Node& node = *added_[static_cast<size_t>(index) - model_.size()];
      if (node.registration.invoke(&context_, &node.node) != kTfLiteOk) return false;
      continue;
    }
    const Node& node = *model_[static_cast<size_t>(index)];
    const TfLiteIntArray* inputs = node.node.inputs;
    const TfLiteTensor &a = at(inputs->data[0]), &b = at(inputs->data[inputs->size - 1]),
                       &out = at(node.node.outputs->data[0]);
    run_stock(node, dims_of(a), static_cast<float*>(a.data), dims_of(b), static_cast<float*>(b.data), dims_of(out),
              static_cast<float*>(out.data));
  }
  return true;
}

TfLiteStatus Interpreter::get_plan(TfLiteContext* context, TfLiteIntArray** plan) {
  Interpreter& self = of(context);
  free(self.given_plan_);
  self.given_plan_ = int_array(self.plan_);
  *plan = self.given_plan_;
  return kTfLiteOk;
}

TfLiteStatus Interpreter::get_node(TfLiteContext* context, int index, TfLiteNode** node,
                                   TfLiteRegistration** registration) {
  Interpreter& self = of(context);
  if (index < 0 || static_cast<size_t>(index) >= self.model_.size() + self.added_.size()) return kTfLiteError;
  const size_t at = static_cast<size_t>(index);
  Node& found = at < self.model_.size() ? *self.model_[at] : *self.added_[at - self.model_.size()];
  *node = &found.node;
  *registration = &found.registration;
  return kTfLiteOk;
}

TfLiteStatus Interpreter::resize_tensor(TfLiteContext* context, TfLiteTensor* tensor, TfLiteIntArray* size) {
  Interpreter& self = of(context);
  size_t bytes;
  if (tensor->allocation_type == kTfLiteMmapRo || !bytes_of(tensor->type, size, &bytes)) {
    free(size);
    self.error += "a tensor cannot be resized\n";
    return kTfLiteError;
  }
  if (tensor->data != nullptr) self.memory_.erase(static_cast<int>(tensor - self.tensors_.data()));
  tensor->data = nullptr;
  free(tensor->dims);
  tensor->dims = size;
  tensor->bytes = bytes;
  return kTfLiteOk;
}

// All of `nodes` become one node in the place of the first. The interpreter's own code splits a set that cannot be one;
// a delegate that counts on one node for each call has to hand over sets that can.
TfLiteStatus Interpreter::replace(TfLiteContext* context, TfLiteRegistration registration, const TfLiteIntArray* nodes,
                                  TfLiteDelegate* delegate) {
  Interpreter& self = of(context);
  const std::set<int> replaced(nodes->data, nodes->data + nodes->size);
  std::set<int> made_inside, read_inside, read_outside, ready;
  for (int i = 0; i < self.tensors(); ++i) ready.insert(i);
  for (int index : self.plan_) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* unused = nullptr;
    get_node(context, index, &node, &unused);
    const bool inside = replaced.count(index) != 0;
    for (int k = 0; k < node->inputs->size; ++k) (inside ? read_inside : read_outside).insert(node->inputs->data[k]);
    for (int k = 0; k < node->outputs->size; ++k) {
      ready.erase(node->outputs->data[k]);
      if (inside) made_inside.insert(node->outputs->data[k]);
    }
  }
  // Everything that is made before the first of them, or not made at all, is ready there.
  for (int index : self.plan_) {
    if (replaced.count(index) != 0) break;
    TfLiteNode* node = nullptr;
    TfLiteRegistration* unused = nullptr;
    get_node(context, index, &node, &unused);
    for (int k = 0; k < node->outputs->size; ++k) ready.insert(node->outputs->data[k]);
  }
  Dims inputs, outputs;
  for (int tensor : read_inside) {
    if (made_inside.count(tensor) != 0 || tensor < 0) continue;
    if (tensor < self.tensors() && ready.count(tensor) == 0) {
      report(context, "a set of nodes reads what is made after its first");
      return kTfLiteError;
    }
    inputs.push_back(tensor);
  }
  for (int tensor : made_inside) {
    const bool wanted = std::count(self.graph_outputs_.begin(), self.graph_outputs_.end(), tensor) != 0;
    if (wanted || read_outside.count(tensor) != 0) outputs.push_back(tensor);
  }

  auto made = std::make_unique<Node>();
  made->registration = registration;
  made->node.inputs = int_array(inputs);
  made->node.outputs = int_array(outputs);
  made->node.delegate = delegate;
  std::vector<int> plan;
  bool placed = false;
  for (int index : self.plan_) {
    if (replaced.count(index) == 0) {
      plan.push_back(index);
    } else if (!placed) {
      plan.push_back(static_cast<int>(self.model_.size() + self.added_.size()));
      placed = true;
    }
  }
  if (!placed) return kTfLiteError;
  self.plan_ = plan;
  // As in the interpreter, the lists live as long as the call only.
  TfLiteDelegateParams params = {delegate, int_array(Dims(nodes->data, nodes->data + nodes->size)), int_array(inputs),
                                 int_array(outputs)};
  self.added_.push_back(std::move(made));
  Node& node = *self.added_.back();
  node.node.user_data = registration.init(context, reinterpret_cast<const char*>(&params), sizeof(params));
  free(params.nodes_to_replace);
  free(params.input_tensors);
  free(params.output_tensors);
  ++self.delegated_;
  return kTfLiteOk;
}

void Interpreter::report(TfLiteContext* context, const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  of(context).error += std::string(line) + "\n";
}

Bytes options_of(const std::map<std::string, int64_t>& values, unsigned width) {
  Bytes out;
  const auto put = [&](uint64_t value) {
    for (unsigned i = 0; i < width; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
  };
  std::vector<size_t> names;
  for (const auto& [name, value] : values) {
    names.push_back(out.size());
    out.insert(out.end(), name.begin(), name.end());
    out.push_back(0);
  }
  put(values.size());
  const size_t keys = out.size();
  for (size_t name : names) put(out.size() - name);
  const uint64_t back = out.size() - keys;
  put(back);
  put(width);
  put(values.size());
  const size_t map = out.size();
  for (const auto& [name, value] : values) put(static_cast<uint64_t>(value));
  const unsigned log_width = width == 8 ? 3 : 2;
  for (size_t i = 0; i < values.size(); ++i) out.push_back(static_cast<uint8_t>(1 << 2 | log_width));
  put(out.size() - map);
  out.push_back(static_cast<uint8_t>(9 << 2 | log_width));
  out.push_back(static_cast<uint8_t>(width));
  return out;
}

}  // namespace fake
