// The reader of op attributes: what it finds, and that it stays inside of the buffer for whatever bytes.
#include <limits.h>
#include <string.h>

#include "attributes.h"
#include "check.h"
#include "fake_interpreter.h"

namespace {

using fake::Bytes;
using fake::options_of;

// Memory just as long as the bytes, with a forbidden page behind.
bool find(const Bytes& bytes, const char* name, int32_t* value) {
  const fake::Guarded memory(bytes.size());
  if (!bytes.empty()) memcpy(memory.data(), bytes.data(), bytes.size());
  return bssl::Attributes(memory.data(), bytes.size()).find(name, value);
}

void finds_values() {
  for (unsigned width : {4u, 8u}) {
    const Bytes bytes = options_of({{"a", 7}, {"ab", -1}, {"b", INT32_MAX}, {"c", INT32_MIN}, {"long_name", 0}}, width);
    int32_t value = 99;
    CHECK(find(bytes, "a", &value) && value == 7);
    CHECK(find(bytes, "ab", &value) && value == -1);
    CHECK(find(bytes, "b", &value) && value == INT32_MAX);
    CHECK(find(bytes, "c", &value) && value == INT32_MIN);
    CHECK(find(bytes, "long_name", &value) && value == 0);
    value = 99;
    for (const char* name : {"", "abc", "long_nam", "long_name2", "A"}) {
      CHECK(!find(bytes, name, &value) && value == 99);
    }
  }
}

// What FlatBuffers' own library writes for {"a": 7, "flag": true, "i": indirect 123456, "n": -300, "s": "no",
// "u": unsigned 200, "x": indirect unsigned 70000}: as few bytes as the largest value needs.
void finds_what_the_library_writes() {
  const Bytes bytes = {97,  0,   102, 108, 97,  103, 0,   105, 0, 0,   0,   0, 64, 226, 1,   0,  110, 0,
                       117, 0,   120, 0,   0,   0,   112, 17,  1, 0,   115, 0, 2,  110, 111, 0,  7,   35,
                       34,  30,  22,  11,  22,  21,  7,   0,   1, 0,   7,   0, 7,  0,   1,   0,  40,  0,
                       212, 254, 25,  0,   200, 0,   36,  0,   5, 105, 26,  5, 20, 9,   30,  21, 37,  1};
  int32_t value = 0;
  CHECK(find(bytes, "a", &value) && value == 7);
  CHECK(find(bytes, "flag", &value) && value == 1);
  CHECK(find(bytes, "i", &value) && value == 123456);
  CHECK(find(bytes, "n", &value) && value == -300);
  CHECK(find(bytes, "u", &value) && value == 200);
  CHECK(find(bytes, "x", &value) && value == 70000);
  value = 99;
  CHECK(!find(bytes, "s", &value) && value == 99);
}

void refuses_what_does_not_fit() {
  int32_t value = 99;
  const Bytes bytes = options_of({{"large", int64_t{INT32_MAX} + 1}, {"small", int64_t{INT32_MIN} - 1}}, 8);
  CHECK(!find(bytes, "large", &value) && !find(bytes, "small", &value) && value == 99);
  CHECK(!bssl::Attributes(nullptr, 0).ok());
  CHECK(!bssl::Attributes(nullptr, 100).ok());
  CHECK(!find({}, "a", &value));
}

void stays_inside() {
  const Bytes bytes = options_of({{"channels_in", 64}, {"padding", 1}, {"stride_height", 2}});
  int32_t value;
  for (size_t length = 0; length < bytes.size(); ++length) {
    CHECK(!find(Bytes(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(length)), "padding", &value));
    find(Bytes(bytes.end() - static_cast<ptrdiff_t>(length), bytes.end()), "padding", &value);
  }
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      Bytes changed = bytes;
      changed[at] = static_cast<uint8_t>(byte);
      find(changed, "padding", &value);
      find(changed, "stride_height", &value);
    }
  }
}

}  // namespace

int main() {
  finds_values();
  finds_what_the_library_writes();
  refuses_what_does_not_fit();
  stays_inside();
  puts("attributes: ok");
}
