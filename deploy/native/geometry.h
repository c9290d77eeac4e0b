// Sizes and padding of windows that slide over an image, as TensorFlow has them.
#pragma once

#include <stdint.h>

namespace bssl {

// Sets the number of positions along one axis and the padding before the first. False where there is none, or the
// padding does not fit an integer.
inline bool output_size(int input, int filter, int stride, int dilation, bool same, int* output, int* padding) {
  const int64_t reach = static_cast<int64_t>(filter - 1) * dilation + 1;
  const int64_t size = same ? (static_cast<int64_t>(input) + stride - 1) / stride
                            : (static_cast<int64_t>(input) + stride - reach) / stride;
  if (size <= 0) return false;
  const int64_t total = (size - 1) * stride + reach - input;
  if (size > INT32_MAX || total / 2 > INT32_MAX) return false;
  *output = static_cast<int>(size);
  *padding = same && total > 0 ? static_cast<int>(total / 2) : 0;
  return true;
}

}  // namespace bssl
