// A delegate that goes by itself.
#pragma once

#include <string.h>

#include <map>
#include <string>
#include <vector>

#include "include/bssl_tf_runtime.h"
#include "tflite_abi.h"

inline std::string& last_error() {
  static thread_local std::string text;
  return text;
}

using Options = std::map<std::string, std::string>;

class OwnedDelegate {
 public:
  explicit OwnedDelegate(const Options& options) {
    std::vector<char*> keys, values;
    for (const auto& [key, value] : options) {
      keys.push_back(const_cast<char*>(key.c_str()));
      values.push_back(const_cast<char*>(value.c_str()));
    }
    last_error().clear();
    delegate_ = tflite_plugin_create_delegate(keys.data(), values.data(), keys.size(),
                                              [](const char* text) { last_error() = text; });
  }
  OwnedDelegate(const OwnedDelegate&) = delete;
  OwnedDelegate& operator=(const OwnedDelegate&) = delete;
  ~OwnedDelegate() { tflite_plugin_destroy_delegate(delegate_); }
  TfLiteDelegate* get() const { return delegate_; }

 private:
  TfLiteDelegate* delegate_;
};

// The sets of instructions that the processor has, by the names that the option `isa` takes.
inline std::vector<std::string> runnable_isas() {
  std::vector<std::string> found = {"auto"};
  for (const char* name : {"portable", "avx2", "avx512", "neon"}) {
    if (strstr(bssl_runtime_kernels(), name) != nullptr) found.push_back(name);
  }
  return found;
}
