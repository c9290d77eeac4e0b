#include "network.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "support.h"

namespace bssl {
namespace {

// Larger than any image that a network of ours takes; so that sizes cannot run over.
constexpr size_t kMaxBytes = size_t{1} << 30;

// What the interpreter or our library said first: that is the cause, what follows are its consequences.
char said[256];

void keep(const char* text) {
  if (said[0] == 0) snprintf(said, sizeof(said), "%s", text);
}

void report(void*, const char* format, va_list arguments) {
  if (said[0] == 0) vsnprintf(said, sizeof(said), format, arguments);
}

const char* cause() { return said[0] == 0 ? "without a word" : said; }

void* open_library(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) fail(kLibrary, "%s cannot be loaded (%s)", path, dlerror());
  return library;
}

template <typename Function>
void find(void* library, const char* path, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function == nullptr) fail(kLibrary, "%s has no function %s", path, name);
}

}  // namespace

void TfLite::load(const char* path) {
  void* library = open_library(path);
#define BSSL_FIND(Result, name, arguments) find(library, path, #name, &name);
  BSSL_TFLITE_FUNCTIONS(BSSL_FIND)
#undef BSSL_FIND
}

void Runtime::load(const char* path) {
  void* library = open_library(path);
  find(library, path, "tflite_plugin_create_delegate", &create);
  find(library, path, "tflite_plugin_destroy_delegate", &destroy);
  find(library, path, "bssl_runtime_version", &version);
  find(library, path, "bssl_runtime_kernels", &kernels);
}

void Network::open(const TfLite& tflite, const NetworkFiles& files, const char* threads) {
  tflite_ = &tflite;
  files_ = &files;
  said[0] = 0;
  const int64_t count = number(threads, 1, 64, "THREADS");
  if (files.runtime != nullptr) {
    runtime_.load(files.runtime);
    char key[] = "num_threads";
    char value[8];
    snprintf(value, sizeof(value), "%d", static_cast<int>(count));
    char* keys[] = {key};
    char* values[] = {value};
    delegate_ = runtime_.create(keys, values, 1, keep);
    if (delegate_ == nullptr) fail(kLibrary, "%s makes no delegate (%s)", files.runtime, cause());
  }
  model_ = tflite.TfLiteModelCreateFromFile(files.model);
  if (model_ == nullptr) fail(kModel, "%s is no TensorFlow Lite model", files.model);
  options_ = tflite.TfLiteInterpreterOptionsCreate();
  if (options_ == nullptr) fail(kMemory, "there is no memory for an interpreter");
  tflite.TfLiteInterpreterOptionsSetErrorReporter(options_, report, nullptr);
  tflite.TfLiteInterpreterOptionsSetNumThreads(options_, static_cast<int32_t>(count));
  if (delegate_ != nullptr) tflite.TfLiteInterpreterOptionsAddDelegate(options_, delegate_);
  interpreter_ = tflite.TfLiteInterpreterCreate(model_, options_);
  if (interpreter_ == nullptr || tflite.TfLiteInterpreterAllocateTensors(interpreter_) != kTfLiteOk) {
    fail(kModel, "%s cannot be made ready (%s)", files.model, cause());
  }
  if (tflite.TfLiteInterpreterGetInputTensorCount(interpreter_) != 1 ||
      tflite.TfLiteInterpreterGetOutputTensorCount(interpreter_) != 1) {
    fail(kModel, "%s does not have one input and one output", files.model);
  }
  input_ = tflite.TfLiteInterpreterGetInputTensor(interpreter_, 0);
  input_bytes_ = tflite.TfLiteTensorByteSize(input_);
  output_bytes_ = tflite.TfLiteTensorByteSize(output_tensor());
  if (input_bytes_ == 0 || input_bytes_ > kMaxBytes || output_bytes_ == 0 || output_bytes_ > kMaxBytes) {
    fail(kModel, "%s has an input of %zu bytes and an output of %zu", files.model, input_bytes_, output_bytes_);
  }
  output_ = static_cast<uint8_t*>(allocate(output_bytes_, 1));
}

Network::~Network() {
  free(images_);
  free(output_);
  if (interpreter_ != nullptr) tflite_->TfLiteInterpreterDelete(interpreter_);
  if (options_ != nullptr) tflite_->TfLiteInterpreterOptionsDelete(options_);
  if (model_ != nullptr) tflite_->TfLiteModelDelete(model_);
  if (delegate_ != nullptr) runtime_.destroy(delegate_);
}

void Network::read_images() {
  const size_t images = static_cast<size_t>(files_->images);
  if (images > kMaxBytes / input_bytes_) fail(kFile, "%s is to have too many images", files_->input);
  images_ = read_exactly(files_->input, images * input_bytes_);
}

void Network::predict(int64_t image) {
  const uint8_t* from = images_ + static_cast<size_t>(image) * input_bytes_;
  const TfLiteTensor* made = nullptr;
  const bool done = tflite_->TfLiteTensorCopyFromBuffer(input_, from, input_bytes_) == kTfLiteOk &&
                    tflite_->TfLiteInterpreterInvoke(interpreter_) == kTfLiteOk &&
                    // Asked again, since an operator may have given it another size.
                    (made = output_tensor()) != nullptr &&
                    tflite_->TfLiteTensorCopyToBuffer(made, output_, output_bytes_) == kTfLiteOk;
  if (!done) fail(kInvoke, "%s fails in an inference (%s)", files_->model, cause());
}

const TfLiteTensor* Network::output_tensor() const {
  return tflite_->TfLiteInterpreterGetOutputTensor(interpreter_, 0);
}

void Network::print_tensor(const TfLiteTensor* tensor) const {
  printf("{\"type\":%d,\"shape\":[", static_cast<int>(tflite_->TfLiteTensorType(tensor)));
  const int32_t count = tflite_->TfLiteTensorNumDims(tensor);
  for (int32_t i = 0; i < count; ++i) printf("%s%d", i > 0 ? "," : "", tflite_->TfLiteTensorDim(tensor, i));
  printf("]}");
}

}  // namespace bssl
