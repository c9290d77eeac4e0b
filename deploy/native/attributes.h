// The attributes of an op: a map of integers, stored as a flexbuffer in the model file.
//
// The bytes come from a file that a stranger may have made. Every offset is checked against the buffer's end before it
// is followed, nothing is allocated, and no input makes the reader run longer than the buffer is long.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace bssl {

class Attributes {
 public:
  // Does not copy: `bytes` must outlive the object.
  Attributes(const void* bytes, size_t size);

  // Whether the buffer holds a map. `find` finds nothing otherwise.
  bool ok() const { return ok_; }

  // Sets `value` to the integer called `name`; false when there is none, or it does not fit 32 bits.
  bool find(const char* name, int32_t* value) const;

 private:
  // Reads `width` bytes (1, 2, 4 or 8) at `at`; the caller has checked that they are there.
  uint64_t read(size_t at, size_t width) const;
  // Follows the offset stored at `at`: it points back from where it stands.
  bool follow(size_t at, size_t width, size_t* target) const;

  const uint8_t* bytes_;
  size_t size_;
  bool ok_ = false;
  size_t values_ = 0;  // where the map's values begin
  size_t count_ = 0;   // how many
  size_t width_ = 0;   // bytes of each
  size_t keys_ = 0;    // where the offsets of the keys begin
  size_t keys_width_ = 0;
};

}  // namespace bssl
