// What an op is, by its number in the schema's BuiltinOperator and, where that is CUSTOM, its name.
#pragma once

#include <string.h>

#include "attributes.h"
#include "tensors.h"
#include "tflite_abi.h"

namespace bssl {

enum Builtin : int32_t {
  kBuiltinAdd = 0,
  kBuiltinMul = 18,
  kBuiltinRelu = 19,
  kBuiltinReluN1To1 = 20,
  kBuiltinRelu6 = 21,
  kBuiltinCustom = 32,
  kBuiltinSub = 41,
  kBuiltinPrelu = 54,
};

enum class LceOp { kNone, kQuantize, kDequantize, kBconv2d, kBMaxPool2d };

inline LceOp lce_op(const TfLiteRegistration* registration) {
  if (registration->builtin_code != kBuiltinCustom || registration->custom_name == nullptr) return LceOp::kNone;
  const char* name = registration->custom_name;
  if (strcmp(name, "LceBconv2d") == 0) return LceOp::kBconv2d;
  if (strcmp(name, "LceQuantize") == 0) return LceOp::kQuantize;
  if (strcmp(name, "LceDequantize") == 0) return LceOp::kDequantize;
  if (strcmp(name, "LceBMaxPool2d") == 0) return LceOp::kBMaxPool2d;
  return LceOp::kNone;
}

// The attributes of a custom op, which live as long as the model.
inline Attributes attributes_of(const TfLiteNode* node) {
  return Attributes(node->custom_initial_data, size_from(node->custom_initial_data_size));
}

// Sets `size` to the attribute called `name`, or to 0 where it is not from 1 to kMaxDimension. False when there is
// none, or it does not fit 32 bits.
inline bool find_size(const Attributes& attributes, const char* name, size_t* size) {
  int32_t value;
  if (!attributes.find(name, &value)) return false;
  *size = value > kMaxDimension ? 0 : size_from(value);
  return true;
}

}  // namespace bssl
