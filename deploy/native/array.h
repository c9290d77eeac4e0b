// A block of memory that frees itself. Allocation may fail, and then says so: the library is built without exceptions.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace bssl {

// Widest vector that any kernel loads; every block begins at a multiple of it.
constexpr size_t kAlignment = 64;

template <typename T>
class Array {
 public:
  Array() = default;
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { ::free(data_); }

  // Makes room for `count` elements, all bytes zero. False when there is no memory; the array is empty then.
  bool allocate(size_t count) {
    ::free(data_);
    data_ = nullptr;
    size_ = 0;
    constexpr size_t limit = PTRDIFF_MAX - kAlignment;
    if (count > limit / sizeof(T)) return false;
    const size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, bytes) != 0) return false;
    memset(memory, 0, bytes);
    data_ = static_cast<T*>(memory);
    size_ = count;
    return true;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace bssl
