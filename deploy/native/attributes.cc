// Layout of a flexbuffer, from its end: [value of the root][its packed type: 1 byte][its width: 1 byte]. A packed type
// is type << 2 | log2(width of what it holds). A map at M with values of width W:
//
//     M - 3W: offset to the keys     M - 2W: width of the keys' offsets     M - W: count
//     M ..: count values of W bytes, then count packed types of 1 byte
//
// Offsets are unsigned and count backwards from where they stand. Source: the FlexBuffers section of FlatBuffers'
// manual.
#include "attributes.h"

namespace bssl {
namespace {

enum Type : unsigned { kInt = 1, kUInt = 2, kIndirectInt = 6, kIndirectUInt = 7, kMap = 9, kBool = 26 };

bool is_width(uint64_t width) { return width == 1 || width == 2 || width == 4 || width == 8; }

int64_t sign_extended(uint64_t value, size_t width) {
  const size_t unused = 64 - 8 * width;
  return static_cast<int64_t>(value << unused) >> unused;
}

}  // namespace

Attributes::Attributes(const void* bytes, size_t size) : bytes_(static_cast<const uint8_t*>(bytes)), size_(size) {
  if (bytes == nullptr || size < 3) return;
  const size_t root_width = bytes_[size - 1];
  const unsigned type = bytes_[size - 2];
  if (!is_width(root_width) || type >> 2 != kMap || size - 2 < root_width) return;
  size_t map;
  if (!follow(size - 2 - root_width, root_width, &map)) return;
  width_ = size_t{1} << (type & 3);
  if (map < 3 * width_) return;
  const uint64_t keys_width = read(map - 2 * width_, width_);
  const uint64_t count = read(map - width_, width_);
  // Each value takes its width and one byte of type; so the count is bounded before anything is multiplied.
  if (!is_width(keys_width) || count > (size_ - map) / (width_ + 1)) return;
  keys_width_ = keys_width;
  if (!follow(map - 3 * width_, width_, &keys_)) return;
  if (count > (size_ - keys_) / keys_width_) return;
  values_ = map;
  count_ = count;
  ok_ = true;
}

bool Attributes::find(const char* name, int32_t* value) const {
  if (!ok_) return false;
  for (size_t i = 0; i < count_; ++i) {
    size_t key;
    if (!follow(keys_ + i * keys_width_, keys_width_, &key)) return false;
    size_t n = 0;
    while (key + n < size_ && name[n] != 0 && bytes_[key + n] == static_cast<uint8_t>(name[n])) ++n;
    if (key + n >= size_ || name[n] != 0 || bytes_[key + n] != 0) continue;

    const unsigned type = bytes_[values_ + count_ * width_ + i];
    size_t at = values_ + i * width_;
    size_t width = width_;
    unsigned kind = type >> 2;
    if (kind == kIndirectInt || kind == kIndirectUInt) {
      if (!follow(at, width, &at)) return false;
      width = size_t{1} << (type & 3);
      if (size_ - at < width) return false;
      kind = kind == kIndirectInt ? kInt : kUInt;
    }
    const uint64_t raw = read(at, width);
    if (kind == kInt) {
      const int64_t signed_value = sign_extended(raw, width);
      if (signed_value < INT32_MIN || signed_value > INT32_MAX) return false;
      *value = static_cast<int32_t>(signed_value);
      return true;
    }
    if ((kind != kUInt && kind != kBool) || raw > INT32_MAX) return false;
    *value = static_cast<int32_t>(raw);
    return true;
  }
  return false;
}

uint64_t Attributes::read(size_t at, size_t width) const {
  uint64_t value = 0;
  for (size_t i = 0; i < width; ++i) value |= static_cast<uint64_t>(bytes_[at + i]) << (8 * i);
  return value;
}

bool Attributes::follow(size_t at, size_t width, size_t* target) const {
  if (at > size_ || size_ - at < width) return false;
  const uint64_t offset = read(at, width);
  if (offset == 0 || offset > at) return false;
  *target = at - offset;
  return true;
}

}  // namespace bssl
