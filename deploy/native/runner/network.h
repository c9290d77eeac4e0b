// A model in an interpreter of TensorFlow Lite's C library, with our delegate or without.
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "../tflite_abi.h"

struct TfLiteModel;
struct TfLiteInterpreter;
struct TfLiteInterpreterOptions;

namespace bssl {

// Every function of TensorFlow Lite's C library that is called here: result, name, arguments. They are in
// libtensorflowlite_c.so and in the libtensorflowlite_jni.so of TensorFlow Lite's package for Android; declared anew,
// as for our library, since no package of this project's ships the header (tensorflow/lite/c/c_api.h).
#define BSSL_TFLITE_FUNCTIONS(F)                                                                                  \
  F(const char*, TfLiteVersion, (void))                                                                           \
  F(TfLiteModel*, TfLiteModelCreateFromFile, (const char* path))                                                  \
  F(void, TfLiteModelDelete, (TfLiteModel*))                                                                      \
  F(TfLiteInterpreterOptions*, TfLiteInterpreterOptionsCreate, (void))                                            \
  F(void, TfLiteInterpreterOptionsDelete, (TfLiteInterpreterOptions*))                                            \
  F(void, TfLiteInterpreterOptionsSetNumThreads, (TfLiteInterpreterOptions*, int32_t))                            \
  F(void, TfLiteInterpreterOptionsAddDelegate, (TfLiteInterpreterOptions*, TfLiteDelegate*))                      \
  F(void, TfLiteInterpreterOptionsSetErrorReporter,                                                               \
    (TfLiteInterpreterOptions*, void (*reporter)(void* data, const char* format, va_list arguments), void* data)) \
  F(TfLiteInterpreter*, TfLiteInterpreterCreate, (const TfLiteModel*, const TfLiteInterpreterOptions*))           \
  F(void, TfLiteInterpreterDelete, (TfLiteInterpreter*))                                                          \
  F(TfLiteStatus, TfLiteInterpreterAllocateTensors, (TfLiteInterpreter*))                                         \
  F(TfLiteStatus, TfLiteInterpreterInvoke, (TfLiteInterpreter*))                                                  \
  F(int32_t, TfLiteInterpreterGetInputTensorCount, (const TfLiteInterpreter*))                                    \
  F(TfLiteTensor*, TfLiteInterpreterGetInputTensor, (const TfLiteInterpreter*, int32_t index))                    \
  F(int32_t, TfLiteInterpreterGetOutputTensorCount, (const TfLiteInterpreter*))                                   \
  F(const TfLiteTensor*, TfLiteInterpreterGetOutputTensor, (const TfLiteInterpreter*, int32_t index))             \
  F(TfLiteType, TfLiteTensorType, (const TfLiteTensor*))                                                          \
  F(int32_t, TfLiteTensorNumDims, (const TfLiteTensor*))                                                          \
  F(int32_t, TfLiteTensorDim, (const TfLiteTensor*, int32_t index))                                               \
  F(size_t, TfLiteTensorByteSize, (const TfLiteTensor*))                                                          \
  F(TfLiteStatus, TfLiteTensorCopyFromBuffer, (TfLiteTensor*, const void* data, size_t bytes))                    \
  F(TfLiteStatus, TfLiteTensorCopyToBuffer, (const TfLiteTensor*, void* data, size_t bytes))

struct TfLite {
#define BSSL_MEMBER(Result, name, arguments) Result(*name) arguments = nullptr;
  BSSL_TFLITE_FUNCTIONS(BSSL_MEMBER)
#undef BSSL_MEMBER

  // Loads the library, or ends the program.
  void load(const char* path);
};

// Our library.
struct Runtime {
  TfLiteDelegate* (*create)(char** keys, char** values, size_t count, void (*report)(const char*)) = nullptr;
  void (*destroy)(TfLiteDelegate*) = nullptr;
  const char* (*version)() = nullptr;
  const char* (*kernels)() = nullptr;

  // Loads the library, or ends the program.
  void load(const char* path);
};

// What the command line says of a network.
struct NetworkFiles {
  const char* model;
  const char* runtime;  // our library, or null: without a delegate
  const char* input;    // the images, one after another, as the model's input has them
  int64_t images;
};

// A model with one input and one output. Whatever is wrong ends the program.
class Network {
 public:
  Network() = default;
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // Makes an interpreter that is ready to run. `tflite` and `files` must live longer.
  void open(const TfLite& tflite, const NetworkFiles& files, const char* threads);

  // Reads the images, whose size must be the model's.
  void read_images();

  // Puts an image in, computes, and takes the output out: `output_bytes` at `output`.
  void predict(int64_t image);

  const uint8_t* output() const { return output_; }
  size_t output_bytes() const { return output_bytes_; }
  const NetworkFiles& files() const { return *files_; }
  const Runtime& runtime() const { return runtime_; }

  // JSON objects on stdout: `type`, the C interface's number, and `shape`.
  void print_input() const { print_tensor(tflite_->TfLiteInterpreterGetInputTensor(interpreter_, 0)); }
  void print_output() const { print_tensor(tflite_->TfLiteInterpreterGetOutputTensor(interpreter_, 0)); }

 private:
  void print_tensor(const TfLiteTensor* tensor) const;
  const TfLiteTensor* output_tensor() const;

  const TfLite* tflite_ = nullptr;
  const NetworkFiles* files_ = nullptr;
  Runtime runtime_;
  TfLiteDelegate* delegate_ = nullptr;
  TfLiteModel* model_ = nullptr;
  TfLiteInterpreterOptions* options_ = nullptr;
  TfLiteInterpreter* interpreter_ = nullptr;
  TfLiteTensor* input_ = nullptr;
  uint8_t* images_ = nullptr;
  uint8_t* output_ = nullptr;
  size_t input_bytes_ = 0;
  size_t output_bytes_ = 0;
};

}  // namespace bssl
