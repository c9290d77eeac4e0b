// Models drawn from bytes: sound ones, and ones that a stranger might make.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <memory>
#include <vector>

#include "fake_interpreter.h"

namespace fake {

// Decisions read from bytes; zeros when they are used up.
class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  // Bytes of a random generator.
  explicit Choices(uint64_t seed, size_t size = 1 << 16) : own_(size) {
    for (uint8_t& byte : own_) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      byte = static_cast<uint8_t>(seed >> 56);
    }
    data_ = own_.data();
    size_ = own_.size();
  }

  bool left() const { return size_ > 0; }
  uint8_t byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  // 0 .. bound - 1
  int below(int bound) {
    uint32_t value = byte();
    if (bound > 256) value |= static_cast<uint32_t>(byte()) << 8;
    return static_cast<int>(value % static_cast<uint32_t>(bound));
  }
  int among(std::initializer_list<int> values) { return *(values.begin() + below(static_cast<int>(values.size()))); }
  int32_t any_int() {
    uint8_t bytes[4] = {byte(), byte(), byte(), byte()};
    int32_t value;
    memcpy(&value, bytes, 4);
    return value;
  }
  // A float that is neither infinite nor NaN, often one that others hit exactly.
  float number() {
    return static_cast<float>(static_cast<int>(byte()) - 128) / static_cast<float>(among({1, 2, 16, 100}));
  }

 private:
  std::vector<uint8_t> own_;
  const uint8_t* data_;
  size_t size_;
};

// A model of a few small Lce ops with element-wise ones between and behind, its inputs, and the tensors to be read.
struct Model {
  std::unique_ptr<Interpreter> interpreter;
  std::vector<int> inputs;

  // Draws contents for the inputs, whose memory is there.
  void fill(Choices& choices);
};

Model sound_model(Choices& choices);

// Tensors and nodes that fit each other by chance only.
Model wild_model(Choices& choices);

// Compares what the delegate left in the outputs with plain_results(); what differs, or empty. Floats are equal where
// they compare equal, or both are NaN.
std::string compare_outputs(const Interpreter& interpreter);

}  // namespace fake
