/* What libbssl_tf_runtime.so exports, for C and C++.
 *
 * The library is an external delegate of TensorFlow Lite: it runs the binary operators of Larq Compute Engine's models,
 * and the interpreter runs the rest. It needs no other header. Whatever loads external delegates by themselves, such as
 * Python's `load_delegate` or `benchmark_model --external_delegate_path`, calls the first two functions; a program in C
 * makes a delegate and adds it to the interpreter's options, see ../example.
 */
#ifndef BSSL_TF_RUNTIME_H_
#define BSSL_TF_RUNTIME_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BSSL_TF_API __attribute__((visibility("default")))
#else
#define BSSL_TF_API
#endif

/* TensorFlow Lite's, declared in its c/common.h. */
struct TfLiteDelegate;

/* One run of one node. */
typedef struct BsslNodeTime {
  int64_t node;     /* index in the model of the first operator that the node is made of */
  int64_t begin_ns; /* CLOCK_MONOTONIC, nanoseconds */
  int64_t end_ns;
} BsslNodeTime;

/* Makes a delegate.
 *
 * keys, values: `count` options, as strings:
 *     num_threads  1 to 64; without it as many as the interpreter has
 *     isa          auto, portable, avx2, avx512 or neon: the set of instructions to use; auto by default
 *     profile      1 to let `bssl_runtime_profile` work; 0 by default
 * report_error: called once with one line if the result is null; may be null.
 *
 * Returns null where an option is wrong or there is no memory. The caller owns the delegate. It must outlive every
 * interpreter that it was added to, and may be shared by several, also in several threads.
 */
BSSL_TF_API struct TfLiteDelegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                                                 void (*report_error)(const char*));

/* Frees a delegate, once no interpreter has it any more. Null does nothing. */
BSSL_TF_API void tflite_plugin_destroy_delegate(struct TfLiteDelegate* delegate);

/* Has each run of a node of `delegate` written to `times` from now on, as far as there is room for it.
 *
 * times: room for `capacity` runs; null, or no room, switches this off, as it is at first. It is the caller's, and must
 *     live until it is switched off or the delegate is gone.
 *
 * Returns how many runs there were since it was last switched on, also those without room; -1 where `delegate` is null
 * or was made without the option profile. Must not be called while an interpreter with this delegate runs.
 */
BSSL_TF_API int64_t bssl_runtime_profile(struct TfLiteDelegate* delegate, BsslNodeTime* times, size_t capacity);

/* The library's version, such as "0.1.0". It is the library's own, and never null. */
BSSL_TF_API const char* bssl_runtime_version(void);

/* The micro-kernels that this processor can run, with commas between them and those in use first. It is the library's
 * own, and never null. May be called from any thread.
 */
BSSL_TF_API const char* bssl_runtime_kernels(void);

#ifdef __cplusplus
}
#endif

#endif /* BSSL_TF_RUNTIME_H_ */
