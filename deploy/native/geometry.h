// Sizes and padding of windows that slide over an image, as TensorFlow has them.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace bssl {

// Sets the number of positions along one axis and the padding before the first. False where there is none, or the
// padding does not fit an integer. Filter, stride and dilation are at least 1; no size is above kMaxDimension.
inline bool output_size(size_t input, size_t filter, size_t stride, size_t dilation, bool same, size_t* output,
                        size_t* padding) {
  const size_t reach = (filter - 1) * dilation + 1;
  if (input == 0 || (!same && input < reach)) return false;
  *output = same ? (input - 1) / stride + 1 : (input - reach) / stride + 1;
  const size_t covered = (*output - 1) * stride + reach;
  *padding = same && covered > input ? (covered - input) / 2 : 0;
  return *output <= INT32_MAX && *padding <= INT32_MAX;
}

}  // namespace bssl
