// libFuzzer target: the reader of op attributes, on any bytes.
#include "attributes.h"
#include "fake_interpreter.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const bssl::Attributes attributes(data, size);
  for (const char* name : {"channels_in", "padding", "stride_height", "a", ""}) {
    int32_t value = 0;
    attributes.find(name, &value);
  }
  return 0;
}
