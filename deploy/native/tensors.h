// Checked access to what the interpreter hands over. Everything here may come from a file that a stranger made.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tflite_abi.h"

namespace bssl {

// Larger tensors than these are refused: every product of sizes below stays far from overflow. Dimensions and
// attributes are integers in a model, and become sizes here once they are found to be in range.
constexpr int kMaxDimension = 1 << 24;
constexpr size_t kMaxElements = (size_t{1} << 31) - 1;
static_assert(sizeof(size_t) == 8, "products of sizes need 64 bits");

// The tensor, or null where `index` names none (an optional input is -1).
inline const TfLiteTensor* tensor_at(const TfLiteContext* context, int index) {
  if (index < 0 || static_cast<size_t>(index) >= context->tensors_size) return nullptr;
  return &context->tensors[index];
}

// A size as a model has it; 0 where it is negative.
inline size_t size_from(int value) { return value < 0 ? 0 : static_cast<size_t>(value); }

inline size_t count_of(const TfLiteIntArray* array) { return array == nullptr ? 0 : size_from(array->size); }

inline size_t rank(const TfLiteTensor* tensor) { return count_of(tensor->dims); }

// One of `rank(tensor)` dimensions; 0 where it is negative.
inline size_t dimension(const TfLiteTensor* tensor, size_t axis) { return size_from(tensor->dims->data[axis]); }

inline size_t last_dimension(const TfLiteTensor* tensor) {
  return rank(tensor) == 0 ? 0 : dimension(tensor, rank(tensor) - 1);
}

// Sets `count` to the number of elements. False, and none, where a dimension is negative or there are too many.
inline bool count_elements(const TfLiteTensor* tensor, size_t* count) {
  *count = 0;
  size_t product = 1;
  for (size_t i = 0; i < rank(tensor); ++i) {
    const int size = tensor->dims->data[i];
    if (size < 0 || size > kMaxDimension) return false;
    product *= size_from(size);
    if (product > kMaxElements) return false;
  }
  *count = product;
  return true;
}

// Whether no dimension is negative and there are not too many elements.
inline bool is_sized(const TfLiteTensor* tensor) {
  size_t count;
  return count_elements(tensor, &count);
}

// The number of elements; 0 where the tensor is not sized.
inline size_t elements(const TfLiteTensor* tensor) {
  size_t count;
  count_elements(tensor, &count);
  return count;
}

inline bool is_constant(const TfLiteTensor* tensor) {
  return (tensor->allocation_type == kTfLiteMmapRo || tensor->allocation_type == kTfLitePersistentRo) &&
         tensor->data != nullptr;
}

inline size_t width_of(TfLiteType type) {
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

// Whether the tensor has as many bytes as its dimensions say.
inline bool is_whole(const TfLiteTensor* tensor) {
  size_t count;
  const size_t width = width_of(tensor->type);
  return count_elements(tensor, &count) && width > 0 && tensor->bytes / width >= count;
}

// Whether all that the dimensions promise can be read: an interpreter gives its own tensors the bytes that they need, a
// constant has those that the file brought.
inline bool is_readable(const TfLiteTensor* tensor) { return !is_constant(tensor) || is_whole(tensor); }

// A constant vector of `count` floats or integers, else null.
inline const void* constant_vector(const TfLiteTensor* tensor, TfLiteType type, size_t count) {
  if (tensor == nullptr || tensor->type != type || !is_constant(tensor) || !is_whole(tensor)) return nullptr;
  return elements(tensor) == count ? tensor->data : nullptr;
}

inline bool same_dimensions(const TfLiteTensor* a, const TfLiteTensor* b) {
  if (rank(a) != rank(b)) return false;
  for (size_t i = 0; i < rank(a); ++i) {
    if (a->dims->data[i] != b->dims->data[i]) return false;
  }
  return true;
}

// Gives `tensor` the size `dimensions`, a model's own or ours, but `last` for the last of them; there is at least one.
// Null, or what is wrong.
template <typename Dimension>
const char* resize(TfLiteContext* context, TfLiteTensor* tensor, const Dimension* dimensions, size_t ranks,
                   size_t last) {
  const size_t bytes = sizeof(TfLiteIntArray) + sizeof(int) * ranks;
  TfLiteIntArray* size = static_cast<TfLiteIntArray*>(malloc(bytes));  // the interpreter frees it
  if (size == nullptr) return "out of memory";
  size->size = static_cast<int>(ranks);
  for (size_t i = 0; i + 1 < ranks; ++i) size->data[i] = static_cast<int>(dimensions[i]);
  size->data[ranks - 1] = static_cast<int>(last);
  return context->ResizeTensor(context, tensor, size) == kTfLiteOk ? nullptr
                                                                   : "the interpreter did not resize an output";
}

inline size_t words_for(size_t channels) { return channels / 32 + (channels % 32 != 0); }

}  // namespace bssl
