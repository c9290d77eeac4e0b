// Checked access to what the interpreter hands over. Everything here may come from a file that a stranger made.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tflite_abi.h"

namespace bssl {

// Larger tensors than these are refused: every product of sizes below stays far from overflow.
constexpr int64_t kMaxDimension = int64_t{1} << 24;
constexpr int64_t kMaxElements = (int64_t{1} << 31) - 1;

// The tensor, or null where `index` names none (an optional input is -1).
inline const TfLiteTensor* tensor_at(const TfLiteContext* context, int index) {
  if (index < 0 || static_cast<size_t>(index) >= context->tensors_size) return nullptr;
  return &context->tensors[index];
}

inline int count_of(const TfLiteIntArray* array) { return array == nullptr || array->size < 0 ? 0 : array->size; }

inline int rank(const TfLiteTensor* tensor) { return count_of(tensor->dims); }

// The number of elements, or -1 where a dimension is negative or too large.
inline int64_t elements(const TfLiteTensor* tensor) {
  int64_t product = 1;
  for (int i = 0; i < rank(tensor); ++i) {
    const int64_t size = tensor->dims->data[i];
    if (size < 0 || size > kMaxDimension) return -1;
    product *= size;
    if (product > kMaxElements) return -1;
  }
  return product;
}

inline int last_dimension(const TfLiteTensor* tensor) {
  return rank(tensor) == 0 ? 0 : tensor->dims->data[rank(tensor) - 1];
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
  const int64_t count = elements(tensor);
  const size_t width = width_of(tensor->type);
  return count >= 0 && width > 0 && tensor->bytes / width >= static_cast<uint64_t>(count);
}

// Whether all that the dimensions promise can be read: an interpreter gives its own tensors the bytes that they need, a
// constant has those that the file brought.
inline bool is_readable(const TfLiteTensor* tensor) { return !is_constant(tensor) || is_whole(tensor); }

// A constant vector of `count` floats or integers, else null.
inline const void* constant_vector(const TfLiteTensor* tensor, TfLiteType type, int64_t count) {
  if (tensor == nullptr || tensor->type != type || !is_constant(tensor) || !is_whole(tensor)) return nullptr;
  return elements(tensor) == count ? tensor->data : nullptr;
}

inline bool same_dimensions(const TfLiteTensor* a, const TfLiteTensor* b) {
  if (rank(a) != rank(b)) return false;
  for (int i = 0; i < rank(a); ++i) {
    if (a->dims->data[i] != b->dims->data[i]) return false;
  }
  return true;
}

// Gives `tensor` the size `dimensions`, but `last` for the last of them; there is at least one. Null, or what is wrong.
inline const char* resize(TfLiteContext* context, TfLiteTensor* tensor, const int* dimensions, int ranks, int last) {
  const size_t bytes = sizeof(TfLiteIntArray) + sizeof(int) * static_cast<size_t>(ranks);
  TfLiteIntArray* size = static_cast<TfLiteIntArray*>(malloc(bytes));  // the interpreter frees it
  if (size == nullptr) return "out of memory";
  size->size = ranks;
  memcpy(size->data, dimensions, sizeof(int) * static_cast<size_t>(ranks));
  size->data[ranks - 1] = last;
  return context->ResizeTensor(context, tensor, size) == kTfLiteOk ? nullptr
                                                                   : "the interpreter did not resize an output";
}

inline int words_for(int channels) { return channels / 32 + (channels % 32 != 0); }

}  // namespace bssl
