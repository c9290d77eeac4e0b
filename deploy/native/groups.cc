#include "groups.h"

#include "ops.h"
#include "program.h"
#include "tensors.h"

namespace bssl {
namespace {

constexpr size_t kWindow = 64;  // how far after its first op a group looks for more

}  // namespace

const char* Groups::find(TfLiteContext* context) {
  TfLiteIntArray* plan = nullptr;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return "the interpreter has no execution plan";
  const size_t size = count_of(plan);
  if (size == 0) return nullptr;
  if (!plan_.allocate(size) || !made_at_.allocate(context->tensors_size + 1) ||
      !inside_of_.allocate(context->tensors_size + 1) || !memory_.allocate(2 * size) || !starts_.allocate(size)) {
    return "out of memory";
  }
  for (size_t i = 0; i < size; ++i) {
    PlannedNode& planned = plan_[i];
    planned.index = plan->data[i];
    planned.claimed = false;
    if (context->GetNodeAndRegistration(context, planned.index, &planned.node, &planned.registration) != kTfLiteOk) {
      return "the interpreter does not know one of its own nodes";
    }
    for (size_t k = 0; k < count_of(planned.node->outputs); ++k) {
      const int tensor = planned.node->outputs->data[k];
      if (tensor_at(context, tensor) != nullptr) made_at_[tensor] = i + 1;
    }
  }

  size_t used = 0;
  size_t group[kMaxOps];
  for (size_t i = 0; i < size; ++i) {
    if (plan_[i].claimed) continue;
    const PlannedNode& planned = plan_[i];
    const LceOp op = lce_op(planned.registration);
    const StepOp step = step_op(planned.node, planned.registration);
    size_t members = 0;
    if (op == LceOp::kBconv2d || (op == LceOp::kNone && step != StepOp::kNone)) {
      bool quantizes = false;
      members = grow(context, i, group, &quantizes);
      // Element-wise ops alone are the interpreter's business, but for those that end in bits.
      if (op == LceOp::kNone && !quantizes) members = 0;
    } else if (op != LceOp::kNone) {
      group[0] = i;
      members = 1;
    }
    if (members == 0) continue;
    starts_[count_++] = used;
    memory_[used++] = static_cast<int>(members);
    for (size_t k = 0; k < members; ++k) {
      plan_[group[k]].claimed = true;
      memory_[used++] = plan_[group[k]].index;
    }
  }
  return nullptr;
}

size_t Groups::grow(TfLiteContext* context, size_t seed, size_t* group, bool* quantizes) {
  const PlannedNode& first = plan_[seed];
  size_t members = 0;
  group[members++] = seed;
  if (count_of(first.node->outputs) != 1) return members;
  const int out = first.node->outputs->data[0];
  const TfLiteTensor* like = tensor_at(context, out);
  if (like == nullptr || like->type != kTfLiteFloat32 || rank(like) == 0 || elements(like) == 0) return members;
  const bool convolution = lce_op(first.registration) == LceOp::kBconv2d;
  if (!convolution) {
    // The first op's own operands: one at least is as large as the result.
    bool same = false;
    for (size_t k = 0; k < count_of(first.node->inputs); ++k) {
      const TfLiteTensor* tensor = tensor_at(context, first.node->inputs->data[k]);
      const Shape shape = tensor == nullptr ? Shape::kNone : shape_beside(tensor, like);
      if (shape == Shape::kNone || (shape == Shape::kScalar && !is_constant(tensor))) return 0;
      same |= shape == Shape::kSame && !is_constant(tensor);
    }
    if (!same) return 0;
  }
  inside_of_[out] = seed + 1;
  const size_t end = seed + kWindow < plan_.size() ? seed + kWindow : plan_.size();
  for (size_t i = seed + 1; i < end && members < kMaxOps; ++i) {
    const PlannedNode& planned = plan_[i];
    if (planned.claimed || !fits(context, i, seed, like, quantizes)) continue;
    inside_of_[planned.node->outputs->data[0]] = seed + 1;
    group[members++] = i;
  }
  return members;
}

bool Groups::fits(TfLiteContext* context, size_t position, size_t seed, const TfLiteTensor* like, bool* quantizes) {
  const PlannedNode& planned = plan_[position];
  const StepOp op = step_op(planned.node, planned.registration);
  if (op == StepOp::kNone) return false;
  const TfLiteTensor* output = tensor_at(context, planned.node->outputs->data[0]);
  if (output == nullptr) return false;
  bool any_inside = false;
  const size_t inputs = count_of(planned.node->inputs);
  for (size_t k = 0; k < inputs; ++k) {
    const int index = planned.node->inputs->data[k];
    const TfLiteTensor* tensor = tensor_at(context, index);
    if (tensor == nullptr) return false;
    if (inside_of_[index] == seed + 1) {
      if (tensor->type != kTfLiteFloat32) return false;  // bits, which only a convolution reads
      any_inside = true;
      continue;
    }
    // PRELU's slopes and what LceQuantize reads.
    if (k == 0 && (op == StepOp::kPrelu || inputs == 1)) return false;
    const Shape shape = shape_beside(tensor, like);
    if (is_constant(tensor)) {
      if (shape != Shape::kPerChannel && shape != Shape::kScalar) return false;
      continue;
    }
    if (op == StepOp::kPrelu || shape == Shape::kNone || shape == Shape::kScalar) return false;
    if (made_at_[index] > seed) return false;
  }
  if (!any_inside) return false;
  if (op == StepOp::kQuantize) {
    if (output->type != kTfLiteInt32) return false;
    *quantizes = true;
    return true;
  }
  return output->type == kTfLiteFloat32 && same_dimensions(output, like);
}

}  // namespace bssl
